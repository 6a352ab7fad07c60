"""Reads MNIST's idx files, packed or not, with the checksums of the originals.

Layout: ``MNIST/raw/`` as torchvision makes it, or the four files in another of the accepted folders. Files of the
original sizes must have the published MD5. Smaller sets in the same format are accepted as subsets; the record notes
how many images there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark import data, readers
from benchmark.data import DataSet, Download
from benchmark.digests import digest_of_array
from benchmark.errors import DataMissing
from benchmark.readers import Array, Arrays
from benchmark.scenario import ScenarioRequest

if TYPE_CHECKING:
    import torch

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
        dimensions: Of its array: 3 for images, 1 for labels.
        md5: Of the original, unpacked.
        packed_md5: Of the original, packed.
        packed_size: In bytes.
    """

    name: str
    dimensions: int
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


_IMAGES, _LABELS = 3, 1
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


def load(request: ScenarioRequest) -> Arrays:
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
        with MNIST.reading(root):
            images, labels = (_read(file, root, request.download) for file in files)
            if len(images) != len(labels):
                raise DataMissing(f"the {split} set has {len(images):,} images, but {len(labels):,} labels")
            if labels.max(initial=0) > 9:
                raise DataMissing(f"{split} labels are up to {labels.max()} instead of 9")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels.astype(np.int64)
    notes = {"layout": "idx"}
    found = {split: len(arrays[f"{split}_labels"]) for split in COUNTS}
    if found != COUNTS:
        notes["subset"] = ", ".join(
            f"{found[split]:,} of {count:,} {'training' if split == 'train' else split} images"
            for split, count in COUNTS.items()
        )
    return Arrays(arrays, notes, {name: digest_of_array(array) for name, array in arrays.items()})


def _read(file: _File, root: Path, mode: str) -> Array:
    path = _find(file, root)
    if path is None:
        path = data.fetch(dataclasses.replace(MNIST, download=file.download), root, mode=mode)
    found = readers.read_idx(path, file.dimensions)
    if found.shape[1:] not in ((), (SIDE, SIDE)):
        high, wide = found.shape[1:]
        raise DataMissing(f"{readers.shown(path)} holds images of {wide}x{high} instead of {SIDE}x{SIDE} pixels")
    if len(found) in COUNTS.values():
        md5 = hashlib.md5(readers.idx_header(found.shape) + found.tobytes(), usedforsecurity=False).hexdigest()
        if md5 != file.md5:
            raise DataMissing(f"{readers.shown(path)} is damaged: its MD5 is {md5} instead of {file.md5}")
    return found


def _find(file: _File, root: Path) -> Path | None:
    places = (root / folder / name for folder in MNIST.folders for name in (file.name, f"{file.name}.gz"))
    return next((path for path in places if readers.is_file(path)), None)


def padded(images: Array) -> torch.Tensor:
    """28x28 grey images as 32x32 RGB: two black pixels around, uint8 ``(N, 3, 32, 32)``."""
    import torch

    wide = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return torch.from_numpy(np.repeat(wide[:, None], 3, axis=1))
