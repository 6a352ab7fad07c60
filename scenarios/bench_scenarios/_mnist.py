"""Reads MNIST's idx files, packed or not, with the checksums of the originals.

Layout: ``MNIST/raw/`` as torchvision makes it, or the four files in another of the accepted folders. Files of the
original sizes must have the published MD5. Smaller sets in the same format are accepted as subsets; the record notes
how many images there are.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark import data
from benchmark.data import Array, DataSet, Download
from benchmark.errors import DataMissing

if TYPE_CHECKING:
    import torch

    from benchmark.api import ScenarioRequest

COUNTS = {"train": 60_000, "test": 10_000}
SIDE = 28

MNIST = DataSet(
    title="MNIST",
    folders=("MNIST/raw", "mnist/raw", "MNIST", "mnist"),
    layouts=("{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]",),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """One of the four files.

    Attributes:
        name: Without ``.gz``.
        magic: First number of the file.
        md5: Of the original, unpacked.
        packed_md5: Of the original, packed.
        packed_size: In bytes.
    """

    name: str
    magic: int
    md5: str
    packed_md5: str
    packed_size: int

    @property
    def download(self) -> Download:
        return Download(
            url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{self.name}.gz",
            file=f"{self.name}.gz",
            size=self.packed_size,
            md5=self.packed_md5,
        )


_IMAGES, _LABELS = 2051, 2049
FILES: dict[str, tuple[_File, _File]] = {
    "train": (
        _File(
            "train-images-idx3-ubyte",
            _IMAGES,
            "6bbc9ace898e44ae57da46a324031adb",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            9_912_422,
        ),
        _File(
            "train-labels-idx1-ubyte",
            _LABELS,
            "a25bea736e30d166cdddb491f175f624",
            "d53e105ee54ea40749a09fcbcd1e9432",
            28_881,
        ),
    ),
    "test": (
        _File(
            "t10k-images-idx3-ubyte",
            _IMAGES,
            "2646ac647ad5339dbf082846283269ea",
            "9fb629c4189551a2d022fa330f9573f3",
            1_648_877,
        ),
        _File(
            "t10k-labels-idx1-ubyte",
            _LABELS,
            "27ae3e4e09519cfbb04c329615203637",
            "ec29112dd5afa0611ce80d1b7f02629c",
            4_542,
        ),
    ),
}


def load(request: ScenarioRequest) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads images and labels.

    Returns:
        ``train_images`` and ``test_images``, uint8 ``(N, 28, 28)``, ``train_labels`` and ``test_labels``, int64
        ``(N,)``; and notes with the ``layout`` and, where it is one, the size of the ``subset``.

    Raises:
        DataMissing: The files are absent, incomplete, damaged, or not what they should be.
    """
    root = data.data_root(request.data_root)
    arrays: dict[str, Array] = {}
    for split, files in FILES.items():
        try:
            images, labels = (_read(file, root, request.download) for file in files)
        except DataMissing as error:
            if error.hint:
                raise
            raise MNIST.missing(root, error.message) from error
        if len(images) != len(labels):
            raise MNIST.missing(root, f"the {split} set has {len(images):,} images, but {len(labels):,} labels")
        if labels.max(initial=0) > 9:
            raise MNIST.missing(root, f"{split} labels are up to {labels.max()} instead of 9")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels.astype(np.int64)
    notes = {"layout": "idx"}
    found = {split: len(arrays[f"{split}_labels"]) for split in COUNTS}
    if found != COUNTS:
        notes["subset"] = ", ".join(
            f"{found[split]:,} of {count:,} {'training' if split == 'train' else split} images"
            for split, count in COUNTS.items()
        )
    return arrays, notes


def _read(file: _File, root: Path, mode: str) -> Array:
    path = _find(file, root)
    if path is None:
        path = data.fetch(dataclasses.replace(MNIST, download=file.download), root, mode=mode)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataMissing(f"{path} cannot be read: {error}") from error
    dimensions = 3 if file.magic == _IMAGES else 1
    start = 4 * (1 + dimensions)
    header = [int.from_bytes(content[place : place + 4], "big") for place in range(0, start, 4)]
    if header[0] != file.magic:
        raise DataMissing(f"{path} is not an idx file: it begins with {header[0]} instead of {file.magic}")
    shape = tuple(header[1:])
    if shape[1:] not in ((), (SIDE, SIDE)):
        raise DataMissing(f"{path} holds images of {shape[2]}x{shape[1]} instead of {SIDE}x{SIDE} pixels")
    if len(content) != start + int(np.prod(shape)):
        raise DataMissing(f"{path} is truncated: {len(content):,} bytes instead of {start + int(np.prod(shape)):,}")
    if shape[0] in COUNTS.values():
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != file.md5:
            raise DataMissing(f"{path} is damaged: its MD5 is {md5} instead of {file.md5}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(file: _File, root: Path) -> Path | None:
    for folder in MNIST.folders:
        for name in (file.name, f"{file.name}.gz"):
            if (root / folder / name).is_file():
                return root / folder / name
    return None


def padded(images: Array) -> torch.Tensor:
    """28x28 grey images as 32x32 RGB: two black pixels around, uint8 ``(N, 3, 32, 32)``."""
    import torch

    wide = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return torch.from_numpy(np.repeat(wide[:, None], 3, axis=1))
