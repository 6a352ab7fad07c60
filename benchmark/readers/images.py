"""Decoding encoded images into one array."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MOST_IMAGE_BYTES = 1 << 26
"""Bytes that one encoded image may have (64 MiB)."""
MOST_PIXELS = 1 << 26
"""Pixels that one image may have: 8192x8192."""

# PIL knows many more; one of them hands files to another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


@dataclass(frozen=True)
class Decoded:
    """Images of one size.

    Attributes:
        images: uint8 ``(N, 3, H, W)``.
        codecs: For each image the codec that lost something, ``JPEG`` or ``lossy WebP``, or ``""``.
        stored: Width and height of the first image before any resizing.
    """

    images: Array
    codecs: tuple[str, ...]
    stored: tuple[int, int]


def decode(blobs: Iterable[tuple[str, bytes]], count: int, *, what: str, size: int = 0) -> Decoded:
    """Decodes images, all of one size, with a progress bar.

    Args:
        blobs: For each image what errors call it, and its bytes.
        count: How many there are.
        what: Name for the progress bar.
        size: Side in pixels that every image is resized to (bicubic), or 0.

    Raises:
        DataMissing: An image is unreadable, too large, or of another size than the first; there are more or fewer than
            ``count``; or they do not fit into memory.
    """
    from PIL import Image
    from tqdm import tqdm

    out: Array = np.empty((0, 3, 1, 1), np.uint8)
    codecs: list[str] = []
    stored = (0, 0)
    for row, (where, blob) in enumerate(tqdm(blobs, desc=f"decoding {what}", total=count, unit="img", disable=None)):
        image = _open(where, blob)
        if row == 0:
            stored = image.size
        elif image.size != stored and not size:
            raise DataMissing(f"{where} has {_pixels(image.size)} pixels, others {_pixels(stored)}")
        if size and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        if row == 0:
            try:
                out = np.empty((count, 3, image.size[1], image.size[0]), np.uint8)
            except (MemoryError, ValueError) as error:
                raise DataMissing(f"{count:,} images of {_pixels(image.size)} pixels do not fit into memory") from error
        if row >= count:
            raise DataMissing(f"{where} is one more than the {count:,} images that were announced")
        out[row] = np.asarray(image).transpose(2, 0, 1)
        codecs.append(_lossy(blob))
    if len(codecs) != count:
        raise DataMissing(f"there are {len(codecs):,} images instead of {count:,}")
    return Decoded(out, tuple(codecs), stored)


def _open(where: str, blob: bytes) -> Image:
    """One image as RGB."""
    from PIL import Image

    if not isinstance(blob, bytes) or len(blob) > MOST_IMAGE_BYTES:
        raise DataMissing(f"{where} is no encoded image of at most {MOST_IMAGE_BYTES:,} bytes")
    try:
        with Image.open(io.BytesIO(blob), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{_pixels(image.size)} pixels are more than {MOST_PIXELS:,}")
            if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
                levels = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
                return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # PIL raises what its decoders raise
        raise DataMissing(f"{where} is not a readable image: {error}") from error


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _lossy(blob: bytes) -> str:
    if blob[:2] == b"\xff\xd8":
        return "JPEG"
    return "lossy WebP" if blob[:4] == b"RIFF" and blob[12:16] == b"VP8 " else ""
