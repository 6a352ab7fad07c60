"""The bundled world `glyphs`: pictures of Unicode characters that need no download and no licence.

A sample is a 32x32 RGB image of one character in one of four domains: `ink` (dark on light paper), `chalk` (light on
a dark, grainy board), `outline` (contours only) and `photo` (random colours over a smooth colour texture), with
random font, rotation, scale, shear, shift and noise. There are 100 classes, named by their Unicode names and ordered
by code point; 60 of them are Latin letters with diacritics, Greek and Cyrillic letters whose names are made of words
that also occur in `pretraining_code_points`, 40 come from other scripts and symbols. No pre-training character is an
evaluation class or looks like one (`glyph_data/README.md` has the rule).

Sampling is a pure function of (seed, split, class, domain, index): each random number is an integer hash of these
five and a counter, so an image does not depend on the batch it is rendered in. Beside the 100 classes there are the
ten digits as a set of their own (`DIGITS`), for transfer from and to other digits; they are pre-training characters,
all but the digit two. The whole renderer is integer
arithmetic on shipped masks, therefore **images are equal bit for bit on every machine**, for any number of threads
and any batch size; `tests/golden/glyphs.npz` holds examples. One core renders several thousand images per second.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark import readers

VERSION = 1
"""Raised whenever any image changes; part of every cache file's name."""

DOMAINS: tuple[str, ...] = ("ink", "chalk", "outline", "photo")
SIZE = 32
CLASSES = 100

LETTERS, DIGITS = "masks", "digits"
"""The sets of classes: the 100 evaluation classes, and the ten digits."""

_DATA = Path(__file__).with_name("glyph_data")
_CHUNK = 128  # images rendered at once: the working set stays in the cache of one core
_GRID = 5  # control points per side of the smooth background texture

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]

# Per domain (rows as in DOMAINS) the lowest and highest value of each look: luminance of background and stroke
# (0-255), how far a colour channel may stray from it, amplitude of the smooth texture, of the pixel noise, and how
# much grain eats into the stroke (of 256).
_LOOKS = {
    "background": ((196, 250), (14, 72), (90, 215), (30, 225)),
    "stroke": ((0, 84), (176, 255), (0, 0), (0, 0)),  # the last two follow from their background
    "tint": ((4, 22), (4, 22), (8, 40), (60, 60)),
    "texture": ((6, 24), (6, 24), (6, 30), (30, 80)),
    "noise": ((6, 28), (24, 48), (6, 24), (8, 30)),
    "grain": ((0, 40), (60, 150), (0, 40), (0, 40)),
}


# --- the classes ------------------------------------------------------------------------------------------------------


@functools.cache
def _shipped(which: str) -> tuple[Bytes, npt.NDArray[np.int16], tuple[int, ...], str]:
    """Masks `(M, S, S)`, the class of each, the code points and a hash of the masks."""
    with np.load(_DATA / f"{which}.npz", allow_pickle=False) as data:
        masks, classes, codes = data["masks"], data["classes"], data["code_points"]
    return (
        masks,
        classes,
        tuple(int(code) for code in codes),
        hashlib.sha256(masks.tobytes() + classes.tobytes()).hexdigest(),
    )


def code_points(which: str = LETTERS) -> list[int]:
    """The code points of the classes, in class order."""
    return list(_shipped(which)[2])


def class_names(which: str = LETTERS) -> list[str]:
    """The Unicode names of the classes, such as "GREEK CAPITAL LETTER OMEGA WITH TONOS"."""
    return [unicodedata.name(chr(code)) for code in code_points(which)]


def pretraining_code_points() -> list[int]:
    """The code points a bundled backbone may be trained on: none of them is, or looks like, one of the 100 classes."""
    return [int(line, 16) for line in (_DATA / "pretraining.txt").read_text(encoding="ascii").split()]


def script_classes(*scripts: str) -> list[int]:
    """The classes whose names begin with one of the words, e.g. "LATIN", "GREEK", "CYRILLIC"."""
    return [number for number, name in enumerate(class_names()) if name.split()[0] in scripts]


def domain_classes() -> list[int]:
    """The 50 classes of the domain-incremental scenario: every second one, which keeps the share of each script."""
    return list(range(0, CLASSES, 2))


# --- random numbers ---------------------------------------------------------------------------------------------------


def _mix64(x: Words) -> Words:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(classes: npt.ArrayLike, indices: npt.ArrayLike, domains: npt.ArrayLike, *, seed: int, split: int) -> Words:
    """One 64-bit key per sample, `(N,)`, from which all its random numbers follow.

    Args:
        classes: class numbers (or, in pre-training, row numbers), `(N,)`.
        indices: numbers of the samples within their class, `(N,)`.
        domains: positions in `DOMAINS`, `(N,)`.
        seed: which world; not negative.
        split: 0 for training, 1 for test, or any other small number; splits share no sample.
    """
    key = _mix64(np.asarray([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    for part in ([split], classes, domains, indices):
        key = _mix64(key + np.asarray(part, np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
    return key


def _stride(count: int, step: int) -> np.uint64:
    """The product modulo 2^64; numpy warns of the overflow of scalars."""
    return np.uint64(count * step & 0xFFFFFFFFFFFFFFFF)


class _Draws:
    """Counter-based random numbers: the k-th draw of a sample is a hash of its key and k."""

    def __init__(self, sample_keys: Words) -> None:
        self._keys, self._count = sample_keys, 0

    def between(self, low: npt.ArrayLike, high: npt.ArrayLike) -> IntArray:
        """Integers of `[low, high]`, `(N,)`, uniform up to 2^-32."""
        self._count += 1
        word = _mix64(self._keys + _stride(self._count, 0xD1342543DE82EF95)) >> np.uint64(32)
        bottom = np.asarray(low, np.int64)
        return bottom + (((np.asarray(high, np.int64) - bottom + 1) * word.astype(np.int64)) >> 32)


def _pixel_hash(sample_keys: Words, stream: int, count: int) -> npt.NDArray[np.uint32]:
    """One 32-bit hash per pixel, `(N, count)`, by "lowbias32" (github.com/skeeto/hash-prospector, public domain)."""
    start = (_mix64(sample_keys + _stride(stream, 0xA0761D6478BD642F)) >> np.uint64(32)).astype(np.uint32)
    x = start[:, None] + np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def _bell(x: npt.NDArray[np.uint32]) -> _I32:
    """Roughly normal noise from 32-bit hashes: the sum of the four bytes, mean 0, standard deviation 148."""
    # Two bytes at a time; the two 16-bit halves cannot carry into each other.
    pairs = (x & np.uint32(0x00FF00FF)) + ((x >> np.uint32(8)) & np.uint32(0x00FF00FF))
    return ((pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))).astype(np.int32) - np.int32(510)


@functools.cache
def _turn(steps: int) -> tuple[int, int]:
    """Cosine and sine of quarter degrees, in 1/16384: rounding hides the bits in which maths libraries differ."""
    return round(16384 * math.cos(math.radians(steps / 4))), round(16384 * math.sin(math.radians(steps / 4)))


# --- drawing ----------------------------------------------------------------------------------------------------------


def with_contours(masks: Bytes) -> Bytes:
    """Masks and, behind them, their contours: `(M, S, S)` to `(2M, S, S)`.

    A contour is the difference of dilation and erosion over a cross of five pixels; thin strokes become double lines.
    """
    wide, thin = masks.copy(), masks.copy()
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        # The border of a mask is empty, so what `roll` carries around the edge is background.
        moved = np.roll(masks, step, axis)
        np.maximum(wide, moved, out=wide)
        np.minimum(thin, moved, out=thin)
    return np.concatenate([masks, wide - thin])


def _warp(table: Bytes, rows: IntArray, draw: _Draws) -> _I32:
    """Draws each sample's mask with a random affine map and bilinear weights: coverage `(N, SIZE * SIZE)`, 0 to 255."""
    side = table.shape[1]
    count = len(rows)
    turn = draw.between(-60, 60)  # quarter degrees
    cos, sin = np.array([_turn(int(step)) for step in turn], np.int64).reshape(count, 2).T
    # Mask pixels per image pixel, in 1/4096: a glyph of 44 pixels is drawn 27 to 19.6 pixels large.
    zoom = draw.between(6656, 9216)
    stretch_x, stretch_y = draw.between(3686, 4506), draw.between(3686, 4506)  # 0.9 to 1.1
    shear = draw.between(-819, 819)  # -0.2 to 0.2
    shift_x, shift_y = draw.between(-768, 768), draw.between(-768, 768)  # image pixels, in 1/256
    # The inverse map, image to mask, in 1/4096: zoom * stretch * shear * rotation.
    scale_x, scale_y = zoom * stretch_x >> 12, zoom * stretch_y >> 12
    xx = scale_x * (cos + (shear * sin >> 12)) >> 14
    xy = scale_x * (-sin + (shear * cos >> 12)) >> 14
    yx, yy = scale_y * sin >> 14, scale_y * cos >> 14
    grid = np.arange(SIZE, dtype=np.int32) * 256 - (SIZE - 1) * 128  # pixel centres around the middle, in 1/256
    dx = (grid - shift_x.astype(np.int32)[:, None])[:, None, :]  # (N, 1, SIZE)
    dy = (grid - shift_y.astype(np.int32)[:, None])[:, :, None]  # (N, SIZE, 1)
    a, b, c, d = (term.astype(np.int32)[:, None, None] for term in (xx, xy, yx, yy))
    middle, last = np.int32((side - 1) * 128), np.int32((side - 1) * 256 - 1)
    x = np.clip(((a * dx + b * dy) >> 12) + middle, 0, last)  # in 1/256 mask pixels; outside is the empty border
    y = np.clip(((c * dx + d * dy) >> 12) + middle, 0, last)
    wx, wy = x & 255, y & 255
    at = (y >> 8) * np.int32(side) + (x >> 8) + (rows * side * side).astype(np.int32)[:, None, None]
    flat = table.reshape(-1)
    top = flat[at] * (256 - wx) + flat[at + 1] * wx
    low = flat[at + side] * (256 - wx) + flat[at + side + 1] * wx
    cover: _I32 = (top * (256 - wy) + low * wy + 32768) >> 16
    return cover.reshape(count, -1)


@functools.cache
def _lerp() -> tuple[_I32, _I32]:
    """For each of SIZE pixels the control point before it and the weight of the one after it, in 1/256."""
    place = np.arange(SIZE, dtype=np.int32) * ((_GRID - 1) * 256) // (SIZE - 1)
    before = np.minimum(place >> 8, _GRID - 2)
    return before, place - before * 256


def _texture(draw: _Draws, amplitude: IntArray) -> _I32:
    """A smooth colour field, `(N, 3, SIZE, SIZE)`, of at most `amplitude` `(N,)` up or down."""
    points = np.stack([draw.between(-amplitude, amplitude) for _ in range(3 * _GRID * _GRID)], 1).astype(np.int32)
    points = points.reshape(-1, 3, _GRID, _GRID)
    before, weight = _lerp()
    tall = (points[:, :, before] * (256 - weight)[:, None] + points[:, :, before + 1] * weight[:, None]) >> 8
    return (tall[..., before] * (256 - weight) + tall[..., before + 1] * weight) >> 8


def _draw_chunk(table: Bytes, rows: IntArray, domains: IntArray, sample_keys: Words) -> Bytes:
    """Renders one chunk, `(N, 3, SIZE, SIZE)`."""
    draw = _Draws(sample_keys)
    look = {name: np.array(ranges, np.int64)[domains] for name, ranges in _LOOKS.items()}
    # The contours are the second half of the table.
    contour = (domains == DOMAINS.index("outline")) * (len(table) // 2)
    cover = _warp(table, rows + contour, draw)
    back, stroke = (draw.between(look[name][:, 0], look[name][:, 1]) for name in ("background", "stroke"))
    tint, texture, noise, grain = (
        draw.between(look[n][:, 0], look[n][:, 1]) for n in ("tint", "texture", "noise", "grain")
    )
    # On mid-tones and photographs the stroke may be lighter or darker, but by at least 90 levels.
    lighter = ((draw.between(0, 1) == 1) | (back < 100)) & (back <= 150)
    distance = draw.between(90, 200)
    either = np.where(lighter, np.minimum(back + distance, 255), np.maximum(back - distance, 0))
    stroke = np.where(domains >= DOMAINS.index("outline"), either, stroke)
    colours = [[base + draw.between(-tint, tint) for _ in range(3)] for base in (back, stroke)]
    paper, paint = (np.stack(colour, 1).astype(np.int32)[:, :, None] for colour in colours)  # (N, 3, 1)
    field = _texture(draw, texture).reshape(len(rows), 3, -1) + paper
    # Grain: each pixel loses a random share of the stroke.
    dust = (_pixel_hash(sample_keys, 1, SIZE * SIZE) >> np.uint32(24)).astype(np.int32)
    cover = cover * (256 - ((dust * grain.astype(np.int32)[:, None]) >> 8)) >> 8
    image = field + (((paint - field) * cover[:, None, :]) >> 8)
    # One noise value per pixel, to which each channel adds half as much of its own.
    shared = _bell(_pixel_hash(sample_keys, 2, SIZE * SIZE)).reshape(len(rows), 1, -1)
    own = _bell(_pixel_hash(sample_keys, 3, 3 * SIZE * SIZE)).reshape(len(rows), 3, -1)
    image += ((shared + (own >> 1)) * noise.astype(np.int32)[:, None, None]) >> 8
    return np.clip(image, 0, 255).astype(np.uint8).reshape(-1, 3, SIZE, SIZE)


def render_masks(table: Bytes, rows: npt.ArrayLike, domains: npt.ArrayLike, sample_keys: Words) -> Bytes:
    """Renders any masks; the pre-training programs call it with characters of their own.

    Args:
        table: the result of `with_contours`, `(2M, S, S)`, for masks with an empty border of two pixels.
        rows: which of the M masks each sample shows, `(N,)`.
        domains: positions in `DOMAINS`, `(N,)`.
        sample_keys: the result of `keys`, `(N,)`.

    Returns:
        `(N, 3, 32, 32)`.
    """
    rows, domains = np.asarray(rows, np.int64), np.asarray(domains, np.int64)
    out = np.empty((len(rows), 3, SIZE, SIZE), np.uint8)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _draw_chunk(table, rows[part], domains[part], sample_keys[part])
    return out


@functools.cache
def _table(which: str) -> tuple[Bytes, IntArray, IntArray]:
    """The shipped masks with contours, and per class where its masks begin and how many it has."""
    masks, classes, codes, _ = _shipped(which)
    first = np.searchsorted(classes, np.arange(len(codes))).astype(np.int64)
    return with_contours(masks), first, np.bincount(classes, minlength=len(codes)).astype(np.int64)


def render(
    classes: npt.ArrayLike,
    indices: npt.ArrayLike,
    domains: npt.ArrayLike,
    *,
    seed: int,
    split: int,
    which: str = LETTERS,
) -> Tensor:
    """Renders samples of the 100 classes, or of the digits.

    Args:
        classes: class numbers, `(N,)`.
        indices: which sample of its class each is, `(N,)`, any number from 0.
        domains: positions in `DOMAINS`, `(N,)`.
        seed: which world; not negative.
        split: 0 for training, 1 for test.
        which: `LETTERS` or `DIGITS`.

    Returns:
        uint8 images `(N, 3, 32, 32)`, the same for the same arguments wherever and however they are rendered.

    Raises:
        ValueError: if a class or domain does not exist.
    """
    chosen, styles = np.asarray(classes, np.int64), np.asarray(domains, np.int64)
    table, first, count = _table(which)
    if not (np.isin(chosen, range(len(count))).all() and np.isin(styles, range(len(DOMAINS))).all()):
        raise ValueError(f"classes must be in 0..{len(count) - 1} and domains in 0..{len(DOMAINS) - 1}")
    sample_keys = keys(chosen, indices, styles, seed=seed, split=split)
    font = _mix64(sample_keys ^ np.uint64(0xA5A5A5A5A5A5A5A5)) % count[chosen].astype(np.uint64)
    return torch.from_numpy(render_masks(table, first[chosen] + font.astype(np.int64), styles, sample_keys))


def digest(seed: int, which: str = LETTERS) -> str:
    """Digest of a whole world, all of whose images follow from this."""
    return hashlib.sha256(f"glyphs {VERSION} {seed} {_shipped(which)[3]}".encode()).hexdigest()


# --- data sets --------------------------------------------------------------------------------------------------------


def load(
    classes: Sequence[int],
    per_class: int,
    domains: Sequence[int],
    *,
    seed: int,
    split: int,
    cache: Path | None = None,
    which: str = LETTERS,
) -> tuple[Tensor, Tensor, Tensor]:
    """A data set with the samples 0 to `per_class - 1` of each class in each domain, sorted by domain, then class.

    Args:
        classes: class numbers.
        per_class: images per class and domain.
        domains: positions in `DOMAINS`.
        seed: which world; not negative.
        split: 0 for training, 1 for test.
        cache: folder to keep the rendered images in. A damaged file is made anew; a folder that cannot be written
        gives a warning only.
        which: `LETTERS` or `DIGITS`.

    Returns:
        uint8 images `(N, 3, 32, 32)`, their classes and their domains, both int64 `(N,)`.
    """
    shape = (len(domains), len(classes), per_class)
    styles, labels, indices = (
        np.broadcast_to(np.asarray(values, np.int64).reshape(view), shape).reshape(-1)
        for values, view in ((domains, (-1, 1, 1)), (classes, (1, -1, 1)), (range(per_class), (1, 1, -1)))
    )

    def drawn() -> tuple[dict[str, readers.Array], dict[str, str]]:
        return {"images": render(labels, indices, styles, seed=seed, split=split, which=which).numpy()}, {}

    if cache is None:
        images = drawn()[0]["images"]
    else:
        chosen = [[int(number) for number in part] for part in (classes, domains)]
        asked = [VERSION, _shipped(which)[3], *chosen, per_class, seed, split]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
        images = readers.cached_arrays(cache / f"glyphs-{key}", drawn).arrays["images"]
    return torch.from_numpy(images), torch.from_numpy(labels.copy()), torch.from_numpy(styles.copy())
