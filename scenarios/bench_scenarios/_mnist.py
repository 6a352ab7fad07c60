"""Reads the idx files of MNIST and Fashion-MNIST, packed or not.

Layout: ``MNIST/raw/`` or ``FashionMNIST/raw/`` as torchvision makes them, or the four files in another of the accepted
folders. Files of MNIST's original sizes must have the published MD5; of Fashion-MNIST only those of packed files are
published, so that unpacked ones are held to their numbers of images per class. Smaller sets in the same format are
accepted as subsets; the record notes how many images there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench_scenarios import _digit_files
from benchmark import builders, data, readers
from benchmark.data import DataSet, Download, Form
from benchmark.digests import digest_of_array
from benchmark.errors import DataMissing
from benchmark.readers import Array, Arrays
from benchmark.samples import Samples
from benchmark.scenario import ScenarioRequest

if TYPE_CHECKING:
    import torch

COUNTS = {"train": 60_000, "test": 10_000}
SIDE = 28

SOURCE = "http://yann.lecun.com/exdb/mnist (files as torchvision fetches them)"
LICENCE = "CC BY-SA 3.0 according to the L2P paper"
IDS = COUNTS["train"] + COUNTS["test"]
"""Sample ids of one reading: rows of the training file, then rows of the test file."""

MNIST = DataSet(
    title="MNIST",
    folders=("MNIST/raw", "mnist/raw", "MNIST", "mnist"),
    layouts=("{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]",),
    name="mnist",
    source=SOURCE,
    licence=LICENCE,
    class_names=_digit_files.NAMES,
    look=lambda root: _look(DIGITS, root),
    contents=lambda request: _contents(DIGITS, request),
    facts=Path(__file__).with_name("facts") / "mnist.json",
)
FASHION = dataclasses.replace(
    MNIST,
    title="Fashion-MNIST",
    folders=("FashionMNIST/raw", "fashion-mnist/raw", "FashionMNIST", "fashion-mnist"),
    name="fashion-mnist",
    source="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    class_names=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    look=lambda root: _look(CLOTHES, root),
    contents=lambda request: _contents(CLOTHES, request),
    facts=None,
)


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """One of the four files.

    Attributes:
        name: Without ``.gz``.
        dimensions: Of its array: 3 for images, 1 for labels.
        md5: Of the original, unpacked; empty where it is not published.
        packed_md5: Of the original, packed.
        packed_size: In bytes.
        url: Folder on the net.
    """

    name: str
    dimensions: int
    md5: str
    packed_md5: str
    packed_size: int
    url: str = "https://ossci-datasets.s3.amazonaws.com/mnist"

    @property
    def size(self) -> int:
        """Bytes of the original, unpacked: a header of four bytes and four for each dimension, then the content."""
        count = COUNTS["train" if self.name.startswith("train") else "test"]
        return 4 + 4 * self.dimensions + count * (SIDE * SIDE if self.dimensions == _IMAGES else 1)

    @property
    def download(self) -> Download:
        return Download(
            url=f"{self.url}/{self.name}.gz",
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


_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
# MD5s as in torchvision.datasets.FashionMNIST, sizes as the server tells them.
_FASHION_FILES = {
    "train": (
        _File("train-images-idx3-ubyte", _IMAGES, "", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880, _FASHION_URL),
        _File("train-labels-idx1-ubyte", _LABELS, "", "25c81989df183df01b3e8a0aad5dffbe", 29_515, _FASHION_URL),
    ),
    "test": (
        _File("t10k-images-idx3-ubyte", _IMAGES, "", "bef4ecab320f06d8554ea6380940ec79", 4_422_102, _FASHION_URL),
        _File("t10k-labels-idx1-ubyte", _LABELS, "", "bb300cfdad3c16e7a12a480ee83cd310", 5_148, _FASHION_URL),
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class IdxSet:
    """One of the two data sets.

    Attributes:
        dataset: Folders and accepted contents.
        files: Images and labels of either split.
        class_names: In label order.
        each: Images per class of the original training and test sets where every class has as many; else None.
    """

    dataset: DataSet
    files: Mapping[str, tuple[_File, _File]]
    class_names: tuple[str, ...]
    each: tuple[int, int] | None = None


MNIST = dataclasses.replace(MNIST, downloads=tuple(file.download for files in FILES.values() for file in files))
FASHION = dataclasses.replace(
    FASHION, downloads=tuple(file.download for files in _FASHION_FILES.values() for file in files)
)
DIGITS: IdxSet = IdxSet(MNIST, FILES, _digit_files.NAMES)
CLOTHES: IdxSet = IdxSet(
    FASHION,
    _FASHION_FILES,
    FASHION.class_names,
    (6_000, 1_000),
)


def cut(which: IdxSet, request: ScenarioRequest) -> builders.Cut:
    """Training and test images as grey RGB of 28x28 pixels, ids as `IDS` says. See `load` for what it raises."""
    return _digit_files.as_cut(load(request, which), which.class_names, COUNTS["train"])


def _look(which: IdxSet, root: Path) -> Form | None:
    """The four files of a data set, or None.

    Raises:
        DataMissing: Some of them are there.
    """
    every = [file for files in which.files.values() for file in files]
    found = {file: path for file in every if (path := _find(which.dataset, file, root)) is not None}
    if found and len(found) < len(every):
        raise DataMissing(f"{next(file.name for file in every if file not in found)} is missing")
    md5 = {}
    for file, path in found.items():
        packed = path.suffix == ".gz"
        published = file.packed_md5 if packed else file.md5
        if published and path.stat().st_size == (file.packed_size if packed else file.size):  # subsets have no hash
            md5[path] = published
    return Form(name="idx", files=tuple(found.values()), md5=md5) if found else None


def _contents(which: IdxSet, request: ScenarioRequest) -> tuple[dict[str, Samples], Mapping[str, str]]:
    found = cut(which, dataclasses.replace(request, download="never"))
    return {"train": found.train, "test": found.test}, found.notes


def load(request: ScenarioRequest, which: IdxSet = DIGITS) -> Arrays:
    """Reads images and labels.

    Args:
        request: Data root, and whether fetching is allowed.
        which: MNIST or Fashion-MNIST.

    Returns:
        ``train_images`` and ``test_images``, uint8 ``(N, 28, 28)``, ``train_labels`` and ``test_labels``, int64
        ``(N,)``; and notes with the ``layout`` and, where it is one, the size of the ``subset``.

    Raises:
        DataMissing: The files are absent, incomplete, damaged, or not what they should be.
    """
    root = data.data_root(request.data_root)
    arrays: dict[str, Array] = {}
    for place, (split, files) in enumerate(which.files.items()):
        with which.dataset.reading(root):
            images, labels = (_read(which.dataset, file, root, request.download) for file in files)
            if len(images) != len(labels):
                raise DataMissing(f"the {split} set has {len(images):,} images, but {len(labels):,} labels")
            if labels.max(initial=0) > 9:
                raise DataMissing(f"{split} labels are up to {labels.max()} instead of 9")
            if which.each is not None and len(labels) == COUNTS[split]:
                _balanced(labels, which.each[place], which.class_names, split)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels.astype(np.int64)
    notes = {"layout": "idx"}
    found = {split: len(arrays[f"{split}_labels"]) for split in COUNTS}
    if found != COUNTS:
        notes["subset"] = ", ".join(
            f"{found[split]:,} of {count:,} {'training' if split == 'train' else split} images"
            for split, count in COUNTS.items()
        )
    return Arrays(arrays, notes, {name: digest_of_array(array) for name, array in arrays.items()})


def _balanced(labels: Array, each: int, names: tuple[str, ...], split: str) -> None:
    for label, found in enumerate(np.bincount(labels, minlength=len(names)).tolist()):
        if found != each:
            raise DataMissing(f"the {split} set has {found:,} images of {names[label]} instead of {each:,}")


def _read(dataset: DataSet, file: _File, root: Path, mode: str) -> Array:
    path = _find(dataset, file, root)
    if path is None:
        path = data.fetch(dataclasses.replace(dataset, download=file.download, downloads=()), root, mode=mode)
    found = readers.read_idx(path, file.dimensions)
    if found.shape[1:] not in ((), (SIDE, SIDE)):
        high, wide = found.shape[1:]
        raise DataMissing(f"{readers.shown(path)} holds images of {wide}x{high} instead of {SIDE}x{SIDE} pixels")
    if len(found) in COUNTS.values() and file.md5:
        md5 = hashlib.md5(readers.idx_header(found.shape) + found.tobytes(), usedforsecurity=False).hexdigest()
        if md5 != file.md5:
            raise DataMissing(f"{readers.shown(path)} is damaged: its MD5 is {md5} instead of {file.md5}")
    return found


def _find(dataset: DataSet, file: _File, root: Path) -> Path | None:
    places = (root / folder / name for folder in dataset.folders for name in (file.name, f"{file.name}.gz"))
    return next((path for path in places if readers.is_file(path)), None)


def padded(images: Array) -> torch.Tensor:
    """28x28 grey images as 32x32 RGB: two black pixels around, uint8 ``(N, 3, 32, 32)``."""
    import torch

    wide = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return torch.from_numpy(np.repeat(wide[:, None], 3, axis=1))


def miniature(root: Path, images: int = 120) -> None:
    """Writes a few images of both data sets as torchvision has them (`benchmark.specs.ScenarioSpec.miniature`)."""
    generator = np.random.RandomState(0)
    for dataset in (MNIST, FASHION):
        folder = root / dataset.folders[0]
        folder.mkdir(parents=True)
        for name, count in (("train", images), ("t10k", images // 2)):
            labels = np.tile(np.arange(10, dtype=np.uint8), count // 10)
            pixels = generator.randint(0, 256, (count, SIDE, SIDE)).astype(np.uint8)
            for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
                content = readers.idx_header(array.shape) + array.tobytes()
                (folder / f"{name}-{kind}-ubyte").write_bytes(content)
