"""Five data sets of ten classes, one after the other: digits, house numbers, photographs, letters, clothes.

Sources: SVHN, MNIST, CIFAR-10, notMNIST and Fashion-MNIST (`bench_scenarios._svhn`, ``_mnist``, ``_cifar``; notMNIST:
``notMNIST/{Train,Test}/<A..J>/*.png`` of facebookresearch/Adversarial-Continual-Learning). Labels are 10 x data set +
class. Three orders are in use (``sets``): ``pytorch``: SVHN, MNIST, CIFAR-10, notMNIST, Fashion-MNIST
(JH-LEE-KR/l2p-pytorch, the default); ``jax``: CIFAR-10, MNIST, SVHN, notMNIST, Fashion-MNIST (google-research/l2p);
``acl``: CIFAR-10, MNIST, notMNIST, Fashion-MNIST, SVHN (the origin). Grey images of 28x28 are enlarged to 32x32
(Pillow, bilinear) before the preset of the track resizes all of them; images of notMNIST that no library can read are
left out and told. Test sets differ in size: compare the task mean, as L2P does. Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench_scenarios import _cifar, _mnist, _svhn, _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.derived import Derived
from benchmark.errors import DataMissing
from benchmark.readers import Array
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

ORDERS: Mapping[str, tuple[str, ...]] = {
    "pytorch": ("svhn", "mnist", "cifar10", "notmnist", "fmnist"),
    "jax": ("cifar10", "mnist", "svhn", "notmnist", "fmnist"),
    "acl": ("cifar10", "mnist", "notmnist", "fmnist", "svhn"),
}
SIDE = 32
_IDS = 200_000  # of one data set: training images, then test images from the half on
_READER = "1"  # part of every cache key; rises when the decoded arrays change

NOTMNIST_SOURCE = "https://github.com/facebookresearch/Adversarial-Continual-Learning (data/notMNIST.zip)"
NOTMNIST = DataSet(
    title="notMNIST (small)",
    folders=("notMNIST", "notmnist"),
    layouts=("{Train,Test}/{A..J}/*.png",),
    source=NOTMNIST_SOURCE,
    licence="not known",
)
LETTERS = tuple("ABCDEFGHIJ")


@dataclass(frozen=True, kw_only=True, slots=True)
class FiveDatasetsConfig(builders.BudgetConfig):
    """Options of ``five-datasets``.

    Attributes:
        sets: Order of the data sets: ``pytorch``, ``jax`` or ``acl``.
        train: Training images per class, the first of the data set; 0 for all, as published.
        test: Test images per class, likewise.
    """

    sets: Literal["pytorch", "jax", "acl"] = "pytorch"


def notmnist(request: ScenarioRequest) -> builders.Cut:
    """The ten letters in 28x28 grey pixels.

    Raises:
        DataMissing: The data are absent, or lack a letter.
    """
    import torch

    folder = _trees.folder_of(NOTMNIST, request, NOTMNIST_SOURCE)
    with NOTMNIST.reading(data.data_root(request.data_root)):
        splits = {"train": folder / "Train", "test": folder / "Test"}
        classes = {split: readers.class_folders({split: path}, LETTERS)[split] for split, path in splits.items()}
        files = [file for folders in classes.values() for one in folders for file in readers.image_files(one)]
        key = readers.file_key(files, folder, _READER)
        kept = readers.cached_arrays(request.cache / f"notmnist-{key}", functools.partial(_decode, classes))

    def samples(split: str, first_id: int) -> Samples:
        pixels = Pixels(torch.from_numpy(kept.arrays[f"{split}_images"]), kept.digests[f"{split}_images"])
        return builders.as_samples(pixels, kept.arrays[f"{split}_labels"], first_id=first_id)

    names = tuple(f"letter {letter}" for letter in LETTERS)
    return builders.Cut(train=samples("train", 0), test=samples("test", _IDS // 2), class_names=names, notes=kept.notes)


def _decode(classes: Mapping[str, Sequence[Path]]) -> tuple[dict[str, Array], dict[str, str]]:
    arrays: dict[str, Array] = {}
    bad = 0
    for split, folders in classes.items():
        images, labels = [], []
        for label, folder in enumerate(folders):
            for file in readers.image_files(folder):
                try:
                    found = readers.decode([(readers.shown(file), readers.read_bytes(file))], 1, what="")
                except DataMissing:
                    bad += 1  # a few of the published files are damaged
                    continue
                if found.images.shape[2:] != (28, 28):
                    raise DataMissing(
                        f"{readers.shown(file)} has {found.stored[0]}x{found.stored[1]} pixels, not 28x28"
                    )
                images.append(found.images[0])
                labels.append(label)
        if len(set(labels)) < len(LETTERS):
            raise DataMissing(f"the {split} set of notMNIST has no readable image of {LETTERS[len(set(labels))]}")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), np.array(labels, np.int64)
    return arrays, {"layout": "tree", **({"unreadable": f"{bad} images are left out"} if bad else {})}


def _read(name: str, request: ScenarioRequest) -> builders.Cut:
    if name == "cifar10":
        cifar = _cifar.CIFAR10
        whole, notes = _cifar.image_sets(cifar, request, {"train": 0, "test": 0})
        return builders.Cut(train=whole["train"], test=whole["test"], class_names=cifar.class_names, notes=notes)
    if name == "svhn":
        return _svhn.cut(request)
    if name == "notmnist":
        return notmnist(request)
    return _mnist.cut(_mnist.DIGITS if name == "mnist" else _mnist.CLOTHES, request)


_PREFIX = {"svhn": "house number ", "mnist": "handwritten ", "cifar10": "", "notmnist": "", "fmnist": ""}


def build(config: FiveDatasetsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream.

    Raises:
        DataMissing: One of the five data sets is absent or not what it should be.
    """
    experiences: list[Experience] = []
    names: list[str] = []
    notes: dict[str, str] = {}
    for place, name in enumerate(ORDERS[config.sets]):
        cut = _read(name, request)
        first = 10 * place
        train, test = (
            _placed(builders.first(samples, count), first, place * _IDS + half)
            for samples, count, half in ((cut.train, config.train, 0), (cut.test, config.test, _IDS // 2))
        )
        experiences.append(Experience(train=train, test=test, classes=tuple(range(first, first + 10))))
        names += [f"{_PREFIX[name]}{one}" for one in cut.class_names]
        # A note that ends in `lossy` marks the fingerprint (`Scenario.notes`).
        notes |= {f"{name} {key}": value for key, value in cut.notes.items()}
    return Scenario.of(SPEC, config, version=1, experiences=tuple(experiences), class_names=tuple(names), notes=notes)


def _placed(samples: Samples, first_label: int, first_id: int) -> Samples:
    """The samples at 32x32 pixels, with labels and ids of their place in the stream."""
    import torch

    source = samples.source
    if samples.image_shape[-1] != SIDE:
        source = Derived(source, _enlarged, f"resized to {SIDE}x{SIDE}, bilinear")
    ids = torch.arange(len(samples)) + first_id
    return Samples(source, samples.rows, samples.labels + first_label, ids)


def _enlarged(images: Any, _: Any) -> Any:
    import torch
    from PIL import Image

    if not len(images):
        return images.new_zeros(0, 3, SIDE, SIDE)
    grey = [
        np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for one in images[:, 0].numpy()
    ]
    return torch.from_numpy(np.stack(grey))[:, None].expand(-1, 3, -1, -1)


def miniature(root: Path) -> None:
    """A few images of every class of the five (`benchmark.specs.ScenarioSpec.miniature`)."""
    from PIL import Image

    _mnist.miniature(root)
    _svhn.miniature(root)
    _cifar.miniature(_cifar.CIFAR10, root)
    generator = np.random.RandomState(0)
    for split, count in (("Train", 3), ("Test", 2)):
        for letter in LETTERS:
            folder = root / NOTMNIST.folders[0] / split / letter
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.randint(0, 256, (28, 28)).astype(np.uint8)).save(folder / f"{number}.png")


SPEC = ScenarioSpec(
    name="five-datasets",
    build=build,
    config=FiveDatasetsConfig,
    summary="SVHN, MNIST, CIFAR-10, notMNIST, Fashion-MNIST one after the other; class-incremental",
    family="class-il",
    tracks={"paper": "unit224", "mini": "plain"},
    source=f"those of split-svhn, split-mnist, split-cifar10; {NOTMNIST_SOURCE}",
    licence="those of the five data sets",
    size_mb=470.0,
    data=(_svhn.SVHN, _mnist.MNIST, _cifar.CIFAR10.dataset, NOTMNIST, _mnist.FASHION),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``five-datasets``."""
    return [SPEC]
