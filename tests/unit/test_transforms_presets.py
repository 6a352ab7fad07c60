"""Augmentation of the DomainBed preset: colours as torchvision changes them, geometry as its crops."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from benchmark.inputs import images as transforms
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS


@pytest.fixture
def images() -> torch.Tensor:
    made = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    made[0] = made[0, :1]  # a grey image has no hue
    made[1] = 0.0
    return made


@pytest.mark.parametrize("turn", [-0.3, -0.05, 0.0, 0.2, 0.5])
def test_hue_is_turned_as_torchvision_does(images: torch.Tensor, turn: float) -> None:
    found = transforms.turn_hue(images, torch.full((6, 1, 1, 1), turn))
    assert torch.allclose(found, reference.adjust_hue(images, turn), atol=1e-5)


@pytest.mark.parametrize(
    ("step", "adjust"),
    [(0, reference.adjust_brightness), (1, reference.adjust_contrast), (2, reference.adjust_saturation)],
)
def test_each_change_is_that_of_torchvision(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch, step: int, adjust: object
) -> None:
    # The other three are switched off by asking for the one step alone.
    monkeypatch.setattr(torch, "randperm", lambda count, generator: torch.tensor([step]))
    found = transforms.jitter(images, 0.3, torch.Generator().manual_seed(3))
    amounts = (torch.rand(4, 6, generator=torch.Generator().manual_seed(3)) * 2 - 1) * 0.3
    for image, amount, changed in zip(images, amounts[step].tolist(), found, strict=True):
        expected = adjust(image, 1 + amount)  # type: ignore[operator]
        assert torch.allclose(changed, expected, atol=1e-5)


def test_jitter_stays_in_range_and_differs_per_image() -> None:
    same = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).expand(16, 3, 8, 8)
    found = transforms.jitter(same, 0.3, torch.Generator().manual_seed(0))
    assert 0 <= found.min() <= found.max() <= 1
    assert len({image.numpy().tobytes() for image in found}) == 16


def test_a_tenth_of_the_images_is_grey() -> None:
    pipeline = ImagePipeline("domainbed224", size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    raw = torch.randint(0, 256, (600, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = pipeline.train(raw, torch.Generator().manual_seed(0))
    grey = (found - found[:, :1]).abs().flatten(1).amax(1) < 1e-6
    assert 30 <= int(grey.sum()) <= 95
    again = pipeline.train(raw, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)
    assert pipeline.eval(raw).shape == (600, 3, 16, 16)


def test_test_transforms_of_the_new_presets() -> None:
    raw = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def run(name: str) -> torch.Tensor:
        return ImagePipeline(name, size=28, mean=(0.0,) * 3, std=(1.0,) * 3).eval(raw)  # the current `raw`

    def by_pil(*size: int) -> torch.Tensor:
        """As torchvision resizes PIL images: uint8 after it."""
        images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in raw]
        return torch.stack([reference.to_tensor(reference.resize(image, list(size))) for image in images])

    # What is not square comes out as from PIL, bit for bit.
    assert torch.equal(run("tllib224"), by_pil(32, 32)[..., 2:30, 2:30])
    assert torch.equal(run("domainbed224"), by_pil(28, 28))
    assert PRESETS["domainbed224"].area == (0.7, 1.0)
    raw = raw[..., :30]
    short = reference.resize(raw.float() / 255, 32, antialias=True)
    assert torch.allclose(run("imagenet224"), reference.center_crop(short, [28, 28]), atol=1e-5)
