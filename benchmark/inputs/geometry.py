"""Sizes, crops and resampling of images that are not square: bit for bit those of torchvision on PIL images.

`resize` is Pillow's resampling on whole batches in a tensor: its filters (bicubic with a = -0.5), its weights in units
of 2^-22, first along the rows, then along the columns, uint8 after each. The sums are whole numbers below 2^53, so that
float64 has them exactly, in any order and on any device.

Pillow 13 takes the columns first where that is faster (images that are much higher than wide, or shrunk in their height
alone), which changes pixels where a filter overshoots. Here, as in all versions before, the order is always the same,
so that no result depends on the version that is installed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.inputs.devices import moved

_BITS = 22  # PRECISION_BITS of Pillow's Resample.c


def resized(height: int, width: int, short: int) -> tuple[int, int]:
    """Height and width whose shorter side is ``short``, the longer one cut to whole pixels (as ``Resize``)."""
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def offset(length: int, size: int) -> int:
    """Where a centre crop of ``size`` pixels begins (torchvision's ``CenterCrop``: halves go to the even number)."""
    return round((length - size) / 2.0)


def fit(images: Tensor, size: int, short: int, interpolation: str, *, squash: bool = False) -> Tensor:
    """Resizes to a short side and cuts the centre out.

    Args:
        images: uint8 ``(B, C, H, W)``.
        size: Side S of the centre crop, at most ``short``.
        short: Shorter side before the crop.
        interpolation: ``bilinear`` or ``bicubic``.
        squash: Resize both sides to ``short``.

    Returns:
        uint8 ``(B, C, S, S)``.
    """
    high, wide = images.shape[-2:]
    height, width = (short, short) if squash else resized(high, wide, short)
    return centre(resize(images, (height, width), interpolation), size)


def centre(images: Tensor, size: int) -> Tensor:
    """The centre ``(..., size, size)`` of ``(..., H, W)``."""
    top, left = (offset(length, size) for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def resize(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resizes as ``PIL.Image.resize`` does; equal bit for bit.

    Args:
        images: uint8 ``(B, C, H, W)``.
        size: Height and width.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 ``(B, C, *size)``, on the device of the images.
    """
    device = images.device
    work = images.cpu() if device.type == "mps" else images  # which has no float64
    height, width = images.shape[-2:]
    if size[1] != width:
        across = moved(_weights(width, size[1], interpolation), work.device)
        work = _rounded(work.to(torch.float64) @ across.T)
    if size[0] != height:
        down = moved(_weights(height, size[0], interpolation), work.device)
        work = _rounded(down @ work.to(torch.float64))
    return work.to(device)


def _rounded(sums: Tensor) -> Tensor:
    half = float(1 << (_BITS - 1))
    return ((sums + half) / float(1 << _BITS)).floor_().clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _weights(length: int, size: int, interpolation: str) -> Tensor:
    """Whole-numbered weights ``(size, length)``, float64: ``precompute_coeffs`` and ``normalize_coeffs_8bpc``."""
    reach, rule = _FILTERS[interpolation]
    scale = length / size
    stretch = max(scale, 1.0)
    support = reach * stretch
    matrix = []
    for place in range(size):
        middle = (place + 0.5) * scale
        first = max(int(middle - support + 0.5), 0)
        last = min(int(middle + support + 0.5), length)
        taps = [rule((tap + first - middle + 0.5) * (1.0 / stretch)) for tap in range(last - first)]
        total = 0.0
        for tap in taps:
            total += tap
        shares = [weight / total if total else weight for weight in taps]
        whole = [math.trunc(share * (1 << _BITS) + math.copysign(0.5, share)) for share in shares]
        matrix.append([0] * first + whole + [0] * (length - last))
    return torch.tensor(matrix, dtype=torch.float64)


def _linear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _cubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


_FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {"bilinear": (1.0, _linear), "bicubic": (2.0, _cubic)}
