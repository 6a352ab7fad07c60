"""Batched transforms against torchvision's per-image ones."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode

from benchmark.inputs import images as transforms
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS


def pipeline(preset: str, size: int = 32, *, augment: bool = True) -> ImagePipeline:
    return ImagePipeline(preset, size=size, mean=(0.5,) * 3, std=(0.25,) * 3, augment=augment)


def images(count: int = 6, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize(
    ("interpolation", "mode"), [("bilinear", InterpolationMode.BILINEAR), ("bicubic", InterpolationMode.BICUBIC)]
)
def test_enlarged_crops_equal_torchvision(interpolation: str, mode: InterpolationMode) -> None:
    data = images().float() / 255
    boxes = transforms.draw_boxes(len(data), 32, 32, (0.05, 1.0), torch.Generator().manual_seed(0))
    mine = transforms.crop_boxes(data, boxes, 64, interpolation)
    for image, box, result in zip(data, boxes.tolist(), mine, strict=True):
        top, left, height, width = box
        expected = TF.resized_crop(image, top, left, height, width, [64, 64], mode, antialias=False).clamp(0, 1)
        assert torch.allclose(result, expected, atol=1e-5)


def test_boxes_follow_the_rule_of_random_resized_crop() -> None:
    boxes = transforms.draw_boxes(4000, 32, 32, (0.08, 1.0), torch.Generator().manual_seed(0))
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    share = (height * width).float() / 32**2
    assert 0.05 < float(share.min()) < 0.12  # whole pixels around 0.08
    assert 0.48 < float(share.mean()) < 0.58
    assert float((height / width).max()) < 1.6


def test_pad_crop_takes_windows_of_the_padded_image() -> None:
    raw = images()
    cropped = transforms._pad_crop(raw, 4, torch.Generator().manual_seed(3))
    padded = torch.nn.functional.pad(raw, [4] * 4)
    for image, result in zip(padded, cropped, strict=True):
        windows = image.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32)
        assert (windows == result[:, None, None]).all(dim=(0, 3, 4)).any()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_seed_gives_the_same_batch_and_a_new_one_another(preset: str) -> None:
    pipe, raw = pipeline(preset), images()
    first = pipe.train(raw, torch.Generator().manual_seed(0))
    assert first.shape == (6, 3, 32, 32)
    assert torch.equal(first, pipe.train(raw, torch.Generator().manual_seed(0)))
    same = torch.equal(first, pipe.train(raw, torch.Generator().manual_seed(1)))
    assert same == (PRESETS[preset].train == "none")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_test_transform_is_fixed_and_per_image(preset: str) -> None:
    pipe, raw = pipeline(preset), images()
    whole = pipe.eval(raw)
    assert torch.allclose(whole[2:3], pipe.eval(raw[2:3]), atol=1e-6)
    assert torch.equal(pipeline(preset, augment=False).train(raw, torch.Generator()), whole)


def test_native_size_is_only_normalised() -> None:
    raw = images()
    assert torch.allclose(pipeline("cifar32").eval(raw), (raw.float() / 255 - 0.5) / 0.25)


def test_published_test_transform_resizes_to_256_and_crops_224() -> None:
    raw = images(2)
    expected = TF.center_crop(
        TF.resize(raw.float() / 255, [256, 256], InterpolationMode.BICUBIC, antialias=True).clamp(0, 1), [224, 224]
    )
    assert torch.allclose(pipeline("unit224", 224).eval(raw), (expected - 0.5) / 0.25, atol=1e-5)


def test_glyphs_are_never_mirrored() -> None:
    assert not PRESETS["glyph32"].flip
