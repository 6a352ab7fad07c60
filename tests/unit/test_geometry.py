"""Resizing and cropping against torchvision on PIL images: bit for bit where images are not square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision.transforms import InterpolationMode

from benchmark.inputs import geometry
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS

SIZES = [(32, 43), (61, 37), (33, 101), (101, 33), (43, 32), (31, 32), (227, 151), (9, 7), (64, 130)]
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Two images, one of them of blocks of pure black and white: cubic filters overshoot there."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 256, (3, height, width), generator=generator)
    second = torch.randint(0, 2, (3, height, width), generator=generator) * 255
    return torch.stack([first, second]).to(torch.uint8)


def as_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def in_order(image: Image.Image, size: tuple[int, int], mode: InterpolationMode) -> torch.Tensor:
    """torchvision's resize on PIL, rows before columns whatever version of Pillow is installed."""
    along = TF.resize(image, [image.height, size[1]], mode)
    return as_tensor(TF.resize(along, list(size), mode))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resampling_is_that_of_pillow(height: int, width: int, interpolation: str) -> None:
    raw = noise(height, width)
    for size in [(32, 43), (17, 91), (height, 20), (40, width), (2 * height, 3 * width)]:
        found = geometry.resize(raw, size, interpolation)
        for image, mine in zip(raw, found, strict=True):
            assert torch.equal(mine, in_order(as_pil(image), size, MODES[interpolation]))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_test_transform_is_that_of_torchvision_on_pil_images(preset: str, height: int, width: int) -> None:
    size, raw, about = 32, noise(height, width), PRESETS[preset]
    pipeline = ImagePipeline(preset, size=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    short = round(size * about.test_resize)
    squash = about.square or about.test_square
    found = pipeline.eval(raw)
    for image, mine in zip(raw, found, strict=True):
        if squash or height > 2 * width:  # where the order of the passes depends on the version of Pillow
            kept = (short, short) if squash else geometry.resized(height, width, short)
            theirs = TF.to_pil_image(in_order(as_pil(image), kept, MODES[about.interpolation]))
        else:
            theirs = TF.resize(as_pil(image), [short], MODES[about.interpolation])
        assert torch.equal(mine, as_tensor(TF.center_crop(theirs, [size, size])).float() / 255)


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_squares_stay_bit_equal_to_what_gave_existing_results(preset: str, size: int) -> None:
    """Those are resized as torchvision resizes tensors of floats: neither rounded nor cut off between the passes."""
    about, raw = PRESETS[preset], noise(50, 50)
    pipeline = ImagePipeline(preset, size=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    short = round(size * about.test_resize)
    before = TF.resize(raw.float() / 255, [short, short], MODES[about.interpolation], antialias=True).clamp_(0, 1)
    edge = (short - size) // 2
    found = pipeline.eval(raw)
    assert torch.equal(found, before[..., edge : edge + size, edge : edge + size])


def test_training_without_random_crops_shows_what_is_tested() -> None:
    raw = noise(33, 101)
    pipeline = ImagePipeline("plain", size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert torch.equal(pipeline.train(raw, torch.Generator()), pipeline.eval(raw))


def test_shifted_edges_are_padded_with_the_edge_in_version_2_only() -> None:
    paper = torch.full((64, 3, 8, 8), 255, dtype=torch.uint8)
    for preset, least in (("glyph32", 0.0), ("glyph32-v2", 1.0)):
        pipeline = ImagePipeline(preset, size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
        assert float(pipeline.train(paper, torch.Generator().manual_seed(0)).min()) == least


def test_padding_with_the_edge_is_that_of_numpy() -> None:
    raw = noise(9, 9)
    pipeline = ImagePipeline("glyph32-v2", size=9, mean=(0.0,) * 3, std=(1.0,) * 3)
    padded = torch.from_numpy(np.pad(raw.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge"))
    for image, found in zip(padded, pipeline.train(raw, torch.Generator().manual_seed(1)), strict=True):
        windows = image.float().div(255).unfold(1, 9, 1).unfold(2, 9, 1)
        assert (windows == found[:, None, None]).all(dim=(0, 3, 4)).any()


def test_a_preset_of_a_stranger_keeps_the_identity_that_it_had() -> None:
    from benchmark.inputs.presets import InputPreset

    own = InputPreset(name="mine", train="pad_crop")
    facts = ImagePipeline(own, size=8, mean=(0.0,) * 3, std=(1.0,) * 3).facts()
    assert "fill" not in facts["preset_values"]
