"""The common corruptions of Hendrycks and Dietterich on 32x32 images, as far as numpy, scipy and Pillow can make them.

Source: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019; strengths and
definitions as in hendrycks/robustness ``ImageNet-C/create_c/make_cifar_c.py`` (commit ca36008), written anew. Differs:
every random number comes from a generator of the image's own, so that a corrupted image is a function of (seed,
corruption, index); brightness and saturation change HSV in closed form instead of through scikit-image; the plasma of
the fog takes the mean of the four nearest neighbours of every point, and is not compared with the released arrays,
whose random state nobody knows. The other six corruptions (`OFFICIAL_ONLY`) need OpenCV, ImageMagick or pictures of
frost: only the official arrays have them. Glass moves pixels as the released code does, whose exchange of two views
writes one pixel over the other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

ORDER = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
"""All of them, the fifteen of the benchmark first; the position of one is part of its images' seeds."""


def corrupt(image: Bytes, name: str, severity: int, seed: int, index: int) -> Bytes:
    """One corrupted image.

    Args:
        image: uint8 ``(H, W, 3)``.
        name: One of `GENERATED`.
        severity: 1..5.
        seed: Of the stream.
        index: Of the image, in the data set.

    Returns:
        uint8 ``(H, W, 3)``; fractions of a grey level are cut off, as in the published arrays.
    """
    make, strengths = GENERATED[name]
    generator = np.random.RandomState([seed, ORDER.index(name), index])
    found = make(image, strengths[severity - 1], generator)
    levels = found if found.dtype == np.uint8 else np.clip(found, 0, 1) * 255
    return levels.astype(np.uint8)


def _unit(image: Bytes) -> Pixels:
    return image / 255.0


def _gaussian_noise(image: Bytes, scale: float, generator: np.random.RandomState) -> Pixels:
    return _unit(image) + generator.normal(scale=scale, size=image.shape)


def _shot_noise(image: Bytes, photons: float, generator: np.random.RandomState) -> Pixels:
    return generator.poisson(_unit(image) * photons) / photons


def _impulse_noise(image: Bytes, share: float, generator: np.random.RandomState) -> Pixels:
    found = _unit(image)
    flipped = generator.random_sample(image.shape) < share
    found[flipped] = generator.random_sample(image.shape)[flipped] < 0.5  # salt or pepper
    return found


def _speckle_noise(image: Bytes, scale: float, generator: np.random.RandomState) -> Pixels:
    found = _unit(image)
    return found + found * generator.normal(scale=scale, size=image.shape)


def _gaussian_blur(image: Bytes, sigma: float, _: np.random.RandomState) -> Pixels:
    from scipy import ndimage

    found: Pixels = ndimage.gaussian_filter(_unit(image), (sigma, sigma, 0), mode="nearest")
    return found


def _contrast(image: Bytes, factor: float, _: np.random.RandomState) -> Pixels:
    found = _unit(image)
    mean = found.mean(axis=(0, 1), keepdims=True)
    changed: Pixels = (found - mean) * factor + mean
    return changed


def _brightness(image: Bytes, more: float, _: np.random.RandomState) -> Pixels:
    """Adds to V of HSV: hue and saturation stay, so all channels grow by the factor by which V grows."""
    found = _unit(image)
    value = found.max(axis=2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    changed: Pixels = np.where(value > 0, found * brighter / np.where(value > 0, value, 1), brighter)
    return changed


def _saturate(image: Bytes, change: tuple[float, float], _: np.random.RandomState) -> Pixels:
    """``S <- S a + b`` of HSV: the distance of each channel from the largest grows by the factor by which S grows.

    Grey has no hue; HSV counts it as red.
    """
    found = _unit(image)
    value, low = found.max(axis=2, keepdims=True), found.min(axis=2, keepdims=True)
    coloured = value > low
    saturation = np.where(coloured, (value - low) / np.where(value > 0, value, 1), 0)
    stronger = np.clip(saturation * change[0] + change[1], 0, 1)
    own = value - (value - found) * stronger / np.where(coloured, saturation, 1)
    red = value * np.concatenate([np.ones_like(value), 1 - stronger, 1 - stronger], axis=2)
    changed: Pixels = np.where(coloured, own, red)
    return changed


def _jpeg_compression(image: Bytes, quality: int, _: np.random.RandomState) -> Bytes:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=quality)
    with Image.open(packed) as found:
        return np.asarray(found)


def _pixelate(image: Bytes, scale: float, _: np.random.RandomState) -> Bytes:
    from PIL import Image

    high, wide = image.shape[:2]
    small = Image.fromarray(image).resize((int(wide * scale), int(high * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((wide, high), Image.Resampling.BOX))


def plasma(side: int, decay: float, generator: np.random.RandomState) -> Pixels:
    """A fractal map ``(side, side)`` from 0 to 1, by diamonds and squares on a torus.

    Args:
        side: A power of two.
        decay: Divides the amplitude, 100 in the beginning, after every halving of the grid.
        generator: Is drawn from: a square number of points, then two times as many for its edges.
    """
    found, amplitude, step = np.zeros((side, side)), 100.0, side
    while step > 1:
        half = step // 2

        def moved(total: Pixels, amplitude: float = amplitude) -> Pixels:
            return total / 4 + amplitude * generator.uniform(-amplitude, amplitude, total.shape)

        corners = found[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centres = moved(pairs + np.roll(pairs, -1, axis=1))
        found[half::step, half::step] = centres
        # Between two corners of a row, and of a column: these two, and the centres on both sides.
        found[::step, half::step] = moved(corners + np.roll(corners, -1, 1) + centres + np.roll(centres, 1, 0))
        found[half::step, ::step] = moved(corners + np.roll(corners, -1, 0) + centres + np.roll(centres, 1, 1))
        amplitude, step = amplitude / decay, half
    found -= found.min()
    scaled: Pixels = found / found.max()
    return scaled


def _fog(image: Bytes, strength: tuple[float, float], generator: np.random.RandomState) -> Pixels:
    """Adds a plasma, and scales the sum back to the brightest value that the image had."""
    found, (thickness, decay) = _unit(image), strength
    high, wide = image.shape[:2]
    clouds = plasma(1 << (max(high, wide) - 1).bit_length(), decay, generator)[:high, :wide, None]
    brightest = found.max()
    changed: Pixels = (found + thickness * clouds) * brightest / (brightest + thickness)
    return changed


def _glass_blur(image: Bytes, strength: tuple[float, int, int], generator: np.random.RandomState) -> Pixels:
    """Blurs, takes every pixel from a neighbour, rounds times, and blurs again."""
    sigma, reach, rounds = strength
    found = (np.clip(_gaussian_blur(image, sigma, generator), 0, 1) * 255).astype(np.uint8)
    high, wide = image.shape[:2]
    rows, columns = range(high - reach, reach, -1), range(wide - reach, reach, -1)
    for moves in generator.randint(-reach, reach, size=(rounds, len(rows), len(columns), 2)):
        for row, shifts in zip(rows, moves.tolist(), strict=True):
            for column, (right, down) in zip(columns, shifts, strict=True):
                found[row, column] = found[row + down, column + right]
    return _gaussian_blur(found, sigma, generator)


def _zoom_blur(image: Bytes, end: float, _: np.random.RandomState) -> Pixels:
    """Mean of the image and of its centre enlarged by 1, 1.01, ... up to ``end``."""
    from scipy import ndimage

    found = _unit(image).astype(np.float32)
    total, factors = found.copy(), np.arange(1, end, 0.01)
    for factor in factors:
        side = len(found)
        kept = int(np.ceil(side / factor))
        start = (side - kept) // 2
        centre = found[start : start + kept, start : start + kept]
        larger = ndimage.zoom(centre, (factor, factor, 1), order=1)
        cut = (len(larger) - side) // 2
        total += larger[cut : cut + side, cut : cut + side]
    return (total / (len(factors) + 1)).astype(np.float64)


_Make = Callable[[Bytes, Any, np.random.RandomState], "Pixels | Bytes"]
GENERATED: Mapping[str, tuple[_Make, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
    "speckle_noise": (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "saturate": (_saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}
"""Those that are made here: the function, and its strength for severities 1 to 5."""

LATER = ("glass_blur", "fog")
"""Those of `GENERATED` that sets and streams defined before them leave out, as these must not change."""

ELEVEN = tuple(name for name in ORDER if name in GENERATED and name not in LATER)
"""The others of `GENERATED`, in their order."""

OFFICIAL_ONLY = tuple(name for name in ORDER if name not in GENERATED)
