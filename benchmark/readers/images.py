"""Decoding encoded images: many of one size into one array, or one of any form (`open_image`)."""

from __future__ import annotations

import functools
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

# PIL knows many more; one of them hands files to another program. JPEG stands for MPO too, what phones write.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_MORE_FORMATS = (*_FORMATS, "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "DIB", "ICO", "PCX", "SGI", "QOI")

ALL_SUFFIXES = SUFFIXES | {
    *(".jpe", ".jfif", ".mpo", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k"),
    *(".jpx", ".avif", ".dib", ".ico", ".pcx", ".sgi", ".qoi"),
}
"""What images of any form are called, lower case."""
_RGB = 3  # torchvision.io.ImageReadMode.RGB
PAPER = 255
"""What transparent pixels show: white."""


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
        quick = decode_plain_jpeg(blob) if isinstance(blob, bytes) and len(blob) <= MOST_IMAGE_BYTES else None
        image = _open(where, blob) if quick is None else Image.fromarray(quick)
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


def open_image(where: str, blob: bytes, *, upright: bool = True) -> Image:
    """One image of any form that Pillow reads, as RGB.

    The first frame of a moving image; transparent pixels on white; 16-bit grey scaled to 8 bits; palettes, grey
    and CMYK as Pillow converts them.

    Args:
        where: What errors call it.
        blob: Its bytes.
        upright: Turn it as its EXIF orientation says.

    Raises:
        DataMissing: It cannot be read, is cut off or too large.
    """
    return _open(where, blob, _installed(), upright=upright)


@functools.cache
def _installed() -> tuple[str, ...]:
    """The forms that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(form for form in _MORE_FORMATS if form in Image.OPEN)


def decode_plain_jpeg(blob: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels ``(H, W, 3)`` of a grey or RGB JPEG that is stored upright, or None for anything else.

    torchvision's decoder takes a third of Pillow's time on small images. It is used only where it gave the same bits
    as Pillow on a sample (both are libjpeg-turbo, but each package brings a copy of its own).
    """
    if not (_plain_jpeg(blob) and _same_as_pillow()):
        return None
    try:
        return _decode_jpeg(blob)
    except Exception:  # Pillow is asked, and says what is wrong
        return None


def choose_decoder() -> None:
    """Finds out what decodes JPEGs, and imports it: before processes are forked that would each do that again."""
    _same_as_pillow()


def complete(blob: bytes) -> bool:
    """Whether encoded bytes look whole: a JPEG or PNG that ends as it should. Others are never sure."""
    if blob[:2] == b"\xff\xd8":
        return _jpeg_frame(blob) is not None and blob[-64:].rstrip(b"\0\n\r ")[-2:] == b"\xff\xd9"
    return blob[:8] == b"\x89PNG\r\n\x1a\n" and blob[12:16] == b"IHDR" and b"IEND" in blob[-32:]


def _plain_jpeg(blob: bytes) -> bool:
    """Whether both decoders read a JPEG in the same way: 8 bits, one or three channels, no EXIF that may turn it."""
    frame = _jpeg_frame(blob)
    if frame is None:
        return False
    bits, height, width, channels, exif = frame
    return bits == 8 and channels in (1, 3) and 0 < height * width <= MOST_PIXELS and not exif


def _jpeg_frame(blob: bytes) -> tuple[int, int, int, int, bool] | None:
    """Bits, height, width, channels of a JPEG, and whether it has EXIF data, from its markers, or None."""
    if blob[:2] != b"\xff\xd8":
        return None
    place, exif, size = 2, False, len(blob)
    while place + 10 <= size and blob[place] == 0xFF:
        marker = blob[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(blob[place + 5 : place + 7]), int.from_bytes(blob[place + 7 : place + 9])
            return blob[place + 4], height, width, blob[place + 9], exif
        exif = exif or (marker == 0xE1 and blob[place + 4 : place + 8] == b"Exif")
        place += 2 + int.from_bytes(blob[place + 2 : place + 4])
    return None


def _decode_jpeg(blob: bytes) -> npt.NDArray[np.uint8]:
    import torch
    import torchvision.io  # noqa: F401 - registers the operator

    # `torchvision.io.decode_jpeg` is this and a warning that it will go; without it Pillow decodes all.
    pixels = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(blob), dtype=torch.uint8), _RGB, False)
    found: npt.NDArray[np.uint8] = pixels.permute(1, 2, 0).contiguous().numpy()
    return found


@functools.cache
def _same_as_pillow() -> bool:
    """Whether torchvision decodes JPEGs as Pillow does here, to the last bit."""
    try:
        from PIL import Image

        levels = np.random.RandomState(0).randint(0, 256, (16, 24, 3), dtype=np.uint8)
        for quality, subsampling in ((30, 2), (75, 2), (90, 1), (95, 0)):
            for picture in (Image.fromarray(levels), Image.fromarray(levels[..., 0])):
                buffer = io.BytesIO()
                picture.resize((61, 37)).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
                theirs = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
                if not np.array_equal(_decode_jpeg(buffer.getvalue()), theirs):
                    return False
    except Exception:  # a torchvision without the decoder
        return False
    return True


def check_image(where: str, blob: bytes) -> None:
    """Decodes one image and keeps nothing.

    Raises:
        DataMissing: It is unreadable or too large.
    """
    _open(where, blob)


def _open(where: str, blob: bytes, formats: tuple[str, ...] = _FORMATS, *, upright: bool | None = None) -> Image:
    """One image as RGB; where ``upright`` is not None, as `open_image` says."""
    from PIL import Image, ImageOps

    if not isinstance(blob, bytes) or len(blob) > MOST_IMAGE_BYTES:
        raise DataMissing(f"{where} is no encoded image of at most {MOST_IMAGE_BYTES:,} bytes")
    try:
        with Image.open(io.BytesIO(blob), formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{_pixels(image.size)} pixels are more than {MOST_PIXELS:,}")
            if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
                levels = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
                found: Image.Image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("its pixels are floating-point numbers, of which no one says what is white")
            elif upright is not None and image.has_transparency_data:
                seen = image.convert("RGBA")
                found = Image.new("RGBA", seen.size, (PAPER, PAPER, PAPER, 255))
                found.alpha_composite(seen)
            else:
                image.load()
                found = image
            if upright:
                found = ImageOps.exif_transpose(found) if found is image else _turned(found, image)
            return found.convert("RGB")
    except Exception as error:  # PIL raises what its decoders raise
        raise DataMissing(f"{where} is not a readable image: {_said(error, where)}") from error


def _turned(found: Image, image: Image) -> Image:
    """Pixels that were made from an image, turned as its EXIF orientation says."""
    from PIL import ExifTags, ImageOps

    turn = image.getexif().get(ExifTags.Base.Orientation)
    if turn is None:
        return found
    found.getexif()[ExifTags.Base.Orientation] = turn
    return ImageOps.exif_transpose(found)


def _said(error: Exception, where: str) -> str:
    """What Pillow says, in one line and without the name of a buffer in memory."""
    words = " ".join(str(error).split())
    return "no form of image that is known" if "cannot identify image file" in words else words or type(error).__name__


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _lossy(blob: bytes) -> str:
    if blob[:2] == b"\xff\xd8":
        return "JPEG"
    return "lossy WebP" if blob[:4] == b"RIFF" and blob[12:16] == b"VP8 " else ""
