"""Data sets of image files in ``{train,test}/<class>/`` folders, class-incremental: ImageNet-A and -R, CUB, and others.

Source: the archives of LAMDA-CL/LAMDA-PILOT and zhoudw-zdw/RevisitingCIL, which cut data sets without an official split
once and for all (links in their README files); class index = alphabetical rank of the folder. Orders, splits and
numbers of images are those of RevisitingCIL and PILOT, with the class order ``numpy:1993``:

* ``split-imagenet-a``: Hendrycks et al., "Natural Adversarial Examples", CVPR 2021; 200 classes, 10x20.
* ``split-imagenet-r-tree``: a tree of ImageNet-R that is cut already, as PILOT's; the plain list is
  ``split-imagenet-r``.
* ``split-cub200-pilot``: CUB-200-2011 in PILOT's own cut, 20x10; the official cut is ``split-cub200``.
* ``split-omnibenchmark``: 300 classes of OmniBenchmark (Zhang et al., ECCV 2022), 10x30.
* ``split-objectnet``: 200 classes of ObjectNet (Barbu et al., NeurIPS 2019), 20x10. Its licence forbids to train on
  it.
* ``split-vtab``, also ``vtab-cil``: 10 classes each of RESISC45, DTD, Pets, EuroSAT, Flowers; 5x10 in natural order,
  which must stay: each experience is one data set.

Numbers of images are compared with the published ones; where they differ, both are told. Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Scenario, ScenarioRequest

PILOT = "https://github.com/LAMDA-CL/LAMDA-PILOT (README.md, Datasets)"


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoHundredConfig(builders.ClassStreamConfig):
    """Options of a stream of 200 classes, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = 200

    split: str = "10x20"
    class_order: str = "numpy:1993"


@dataclass(frozen=True, kw_only=True, slots=True)
class ByTenConfig(TwoHundredConfig):
    """Options of ``split-cub200-pilot`` and ``split-objectnet``, see `benchmark.builders.ClassStreamConfig`."""

    split: str = "20x10"


@dataclass(frozen=True, kw_only=True, slots=True)
class OmniBenchmarkConfig(builders.ClassStreamConfig):
    """Options of ``split-omnibenchmark``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = 300

    split: str = "10x30"
    class_order: str = "numpy:1993"


@dataclass(frozen=True, kw_only=True, slots=True)
class VtabConfig(builders.ClassStreamConfig):
    """Options of ``split-vtab``, see `benchmark.builders.ClassStreamConfig`; the order of classes must stay."""

    CLASSES: ClassVar[int] = 50

    split: str = "5x10"

    def __post_init__(self) -> None:
        """Checks that no class leaves its data set."""
        builders.ClassStreamConfig.__post_init__(self)
        if self.class_order != "natural":
            raise ValueError(f"class_order: {self.class_order!r} mixes the five data sets; use natural")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One of the data sets.

    Attributes:
        name: Of the scenario.
        dataset: Folders and layouts.
        classes: Number of class folders.
        counts: Training and test images.
        inner: Folders between that of the data set and ``train``, any of which may be there.
    """

    name: str
    dataset: DataSet
    classes: int
    counts: tuple[int, int]
    inner: tuple[str, ...] = ()


LAYOUT = "{train,test}/<class>/*.jpg"


def _dataset(title: str, *folders: str, layout: str = LAYOUT) -> DataSet:
    return DataSet(title=title, folders=folders, layouts=(layout,))


IMAGENET_A = Tree(
    name="split-imagenet-a",
    dataset=_dataset("ImageNet-A", "imagenet-a", "imagenet_a"),
    classes=200,
    counts=(5_981, 1_519),
)
IMAGENET_R = Tree(
    name="split-imagenet-r-tree",
    dataset=_dataset("ImageNet-R, cut into train and test", "imagenet-r-tree", "imagenet-r", "imagenet_r"),
    classes=200,
    counts=(24_000, 6_000),
)
CUB = Tree(
    name="split-cub200-pilot",
    dataset=_dataset("CUB-200 of PILOT", "cub", "cub200", "cub200-pilot"),
    classes=200,
    counts=(9_430, 2_358),
)
OMNIBENCHMARK = Tree(
    name="split-omnibenchmark",
    dataset=_dataset("OmniBenchmark of RevisitingCIL", "omnibenchmark"),
    classes=300,
    counts=(89_697, 5_985),
)
OBJECTNET = Tree(
    name="split-objectnet",
    dataset=_dataset("ObjectNet of RevisitingCIL", "objectnet"),
    classes=200,
    counts=(26_509, 6_628),
)
VTAB = Tree(
    name="split-vtab",
    dataset=_dataset("VTAB of RevisitingCIL", "vtab-cil", "vtab", layout="[vtab/]{train,test}/<class>/*.jpg"),
    classes=50,
    counts=(1_796, 8_619),
    inner=("vtab",),
)


def listing(tree: Tree, request: ScenarioRequest) -> _trees.Listing:
    """The files of a data set.

    Raises:
        DataMissing: It is absent, has other classes or other numbers of images.
    """
    folder = _trees.folder_of(tree.dataset, request, PILOT)
    with tree.dataset.reading(data.data_root(request.data_root)):
        folder = next((folder / name for name in tree.inner if (folder / name).is_dir()), folder)
        if not (folder / "train").is_dir():
            raise DataMissing(f"{folder} has no folder train")
        parts, classes = _trees.split_tree(folder, tree.classes)
        found = {part: len(files) for part, files in parts.items()}
        builders.check_counts(found, dict(zip(("train", "test"), tree.counts, strict=True)), request)
        names, notes = _trees.wordnet_names(folder, classes)
    return _trees.Listing(root=folder, parts=parts, class_names=names, notes={"layout": "tree", **notes})


def build(tree: Tree, config: builders.ClassStreamConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(tree, request)
    with tree.dataset.reading(data.data_root(request.data_root)):
        cut = _trees.cut(found, request)
    return builders.class_stream(SPECS[tree.name], config, request, cut)


def miniature(tree: Tree, root: Path) -> None:
    """Two training images and one test image per class (`benchmark.specs.ScenarioSpec.miniature`)."""
    wordnet = tree in (IMAGENET_A, IMAGENET_R)
    classes = [f"n{label:08d}" if wordnet else f"{label:03d}.Class_{label}" for label in range(tree.classes)]
    parts = {"train": 2, "test": 1}
    names = [f"{part}/{name}/{one}.jpg" for part, count in parts.items() for name in classes for one in range(count)]
    _trees.write(root / tree.dataset.folders[0], names)


def _spec(
    tree: Tree, config: type, summary: str, licence: str, size_mb: float, aliases: Sequence[str] = ()
) -> ScenarioSpec:
    return ScenarioSpec(
        name=tree.name,
        build=functools.partial(build, tree),
        config=config,
        summary=summary,
        family="class-il",
        tracks={"paper": "unit224", "mini": "unit224"},
        variant="split",
        aliases=tuple(aliases),
        source=PILOT,
        licence=licence,
        size_mb=size_mb,
        data=(tree.dataset,),
        miniature=functools.partial(miniature, tree),
    )


SPECS = {
    spec.name: spec
    for spec in (
        _spec(
            IMAGENET_A,
            TwoHundredConfig,
            "ImageNet-A, class-incremental, 10 experiences of 20 classes",
            "MIT (repository)",
            690.0,
        ),
        _spec(
            IMAGENET_R,
            TwoHundredConfig,
            "ImageNet-R from a tree that is cut already, 10 experiences of 20 classes",
            "MIT (repository); images belong to their owners",
            2190.0,
        ),
        _spec(
            CUB,
            ByTenConfig,
            "CUB-200 in PILOT's cut, class-incremental, 20 experiences of 10 birds",
            "for non-commercial research",
            1100.0,
        ),
        _spec(
            OMNIBENCHMARK,
            OmniBenchmarkConfig,
            "300 classes of OmniBenchmark, class-incremental, 10 experiences of 30",
            "images of the web, none stated",
            15000.0,
        ),
        _spec(
            OBJECTNET,
            ByTenConfig,
            "200 classes of ObjectNet, class-incremental, 20 experiences of 10",
            "ObjectNet's own: forbids training and tuning on it",
            10000.0,
        ),
        _spec(
            VTAB,
            VtabConfig,
            "10 classes each of five data sets, class-incremental, one data set after the other",
            "that of the five data sets",
            700.0,
            ("vtab-cil",),
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers the six, and ``vtab-cil`` for ``split-vtab``."""
    return list(SPECS.values())
