"""Images that stay in their files: decoded when they are asked for, and never all at once."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.images import MOST_IMAGE_BYTES, decode_plain_jpeg, open_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from benchmark.readers.decoded import DecodedCache, Pixels
    from benchmark.readers.index import Indexed

SIDE = 224
"""Side of the squares that a source gives to whoever asks without the preset of a run."""


class Fitting(Protocol):
    """How a whole image becomes a square, e.g. `benchmark.inputs.cuts.Fit`."""

    @property
    def side(self) -> int:
        """Of the square, in pixels."""

    def __call__(self, place: int, image: Image, /) -> Image:
        """Cuts one image of a batch."""


@runtime_checkable
class Parted(Fitting, Protocol):
    """A cut whose first part is the same every time, so that its result can be kept."""

    @property
    def constant(self) -> str:
        """Names what `prepared` does; equal names, equal pixels."""

    def prepared(self, image: Image, /) -> Image:
        """An image after the constant part."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do after that."""

    def drawn(self, place: int, image: Image, /) -> Image:
        """What is left to do with a prepared image of a batch."""


class FileImages:
    """A source of image files (`benchmark.samples.Source`).

    Without the preset of a run it gives squares: the shorter side resized to `SIDE`, the centre cut out. For a run the
    engine has it read as the run's preset says (`fitted`, `cut`), from whole images.

    Args:
        indexed: The files and the hashes of their bytes (`benchmark.readers.index_files`).
        short: Larger images are reduced to this shorter side when they are decoded; 0 leaves all as they are.
        upright: Turn images as their EXIF orientation says; torchvision's ``ImageFolder`` does not.
        fit: How an image becomes the square that plain reading gives; default: as above.

    Attributes:
        cache: Where decoded images are kept for the next time, or None.
    """

    kind: Literal["image"] = "image"

    def __init__(self, indexed: Indexed, *, short: int = 0, upright: bool = True, fit: Fitting | None = None) -> None:
        found = indexed.found
        self._root = os.fsencode(found.root)
        self._names = found.names
        self._short = short
        self._upright = upright
        self._fit = fit
        self._hashes = indexed.digests
        self.cache: DecodedCache | None = None
        told = f"adaptbench files 1\nshort {short} upright {upright}\n".encode()
        self._digest = hashlib.sha256(told + indexed.digests.tobytes()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of the files' bytes in the order of rows, and over how they are decoded."""
        return self._digest

    @property
    def short(self) -> int:
        """Larger images are reduced to this shorter side when they are decoded; 0 leaves all as they are."""
        return self._short

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        return self._upright

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self.cut(rows, _square() if self._fit is None else self._fit)

    def fitted(self, fit: Fitting) -> FileImages:
        """The same files, read plainly as ``fit`` says."""
        twin = object.__new__(FileImages)
        twin.__dict__.update(self.__dict__, _fit=fit)
        return twin

    def keeping(self, cache: DecodedCache) -> FileImages:
        """The same files, decoded images of which are kept for the next time."""
        twin = object.__new__(FileImages)
        twin.__dict__.update(self.__dict__, cache=cache)
        return twin

    def cut(self, rows: Tensor, cut: Fitting) -> Tensor:
        """Decodes images and cuts each.

        Args:
            rows: int64 ``(B,)``.
            cut: Is called with the place in the batch and the whole image; ``cut.side`` is the side S of what it makes.

        Returns:
            uint8 ``(B, 3, S, S)``.

        Raises:
            DataMissing: A file is gone or no image.
        """
        import torch

        side = cut.side
        out = np.empty((len(rows), side, side, 3), np.uint8)
        parted = cut if self.cache is not None and isinstance(cut, Parted) else None
        for place, row in enumerate(rows.tolist()):
            out[place] = np.asarray(cut(place, self.image(row))) if parted is None else self._kept(place, row, parted)
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    def image(self, row: int) -> Image:
        """One whole image.

        Raises:
            DataMissing: The file is gone or no image.
        """
        name = self._name(row)
        return self._decoded(name, _bytes(name))

    def _name(self, row: int) -> bytes:
        return os.path.join(self._root, self._names.raw(row))

    def _kept(self, place: int, row: int, cut: Parted) -> Pixels:
        """One image of a batch, its constant part from the cache or into it."""
        from PIL import Image

        assert self.cache is not None
        kept = self.cache.of(f"{cut.constant}-{self._short}-{'upright' if self._upright else 'stored'}")
        key = self._hashes[row].tobytes()
        pixels = kept.get(key)
        if pixels is not None and cut.whole:
            return pixels
        if pixels is None:
            name = self._name(row)
            blob = _bytes(name)
            image = cut.prepared(self._decoded(name, blob))
            # A file that has changed since it was indexed goes by a name that is not its own.
            if hashlib.sha256(blob).digest() == key:
                kept.put(key, np.asarray(image))
        else:
            image = Image.fromarray(pixels)
        return np.asarray(cut.drawn(place, image))

    def _decoded(self, name: bytes, blob: bytes) -> Image:
        from PIL import Image

        pixels = decode_plain_jpeg(blob)
        found = open_image(files.shown(os.fsdecode(name)), blob, upright=self._upright) if pixels is None else None
        image = Image.fromarray(pixels) if pixels is not None else found
        assert image is not None
        return reduced(image, self._short)


def reduced(image: Image, short: int) -> Image:
    """An image whose shorter side has at most ``short`` pixels; 0 leaves it as it is."""
    if not 0 < short < min(image.size):
        return image
    from benchmark.inputs.cuts import shrink
    from benchmark.inputs.geometry import resized

    return shrink(image, resized(image.height, image.width, short), "bicubic")


def _square() -> Fitting:
    from benchmark.inputs.cuts import Fit

    return Fit(SIDE, SIDE, "bicubic")


def _bytes(name: bytes) -> bytes:
    """A file that was a regular one when it was indexed."""
    try:
        with open(name, "rb", buffering=0) as file:
            blob = file.read(MOST_IMAGE_BYTES + 1)
    except OSError as error:
        raise DataMissing(
            f"{files.shown(os.fsdecode(name))} cannot be read any more: {error.strerror or error}",
            hint="the files of a scenario must stay as they are while it is read",
        ) from error
    return blob or b""
