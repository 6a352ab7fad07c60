"""Stanford Cars, class-incremental: 196 models of cars.

Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 2013; the authors' site is gone, see
torchvision.datasets.StanfordCars (pytorch/vision issue 7545). Layout as torchvision reads it: ``stanford_cars/`` with
``cars_train/``, ``cars_test/``, ``cars_test_annos_withlabels.mat`` and ``devkit/{cars_meta,cars_train_annos}.mat``.
Official split. Published are nine experiences of 20 classes and one of 16 (aimagelab/mammoth ``seq-cars196``), natural
order. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Scenario, ScenarioRequest

SOURCE = "https://github.com/pytorch/vision/issues/7545 (copies); paper: Krause et al., 2013"
COUNTS = {"train": 8_144, "test": 8_041}
CLASSES = 196
TEST = "cars_test_annos_withlabels.mat"

CARS = DataSet(
    title="Stanford Cars",
    folders=("stanford_cars", "StanfordCars", "cars196"),
    layouts=("cars_{train,test}/*.jpg, " + TEST + ", devkit/{cars_meta,cars_train_annos}.mat",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCars196Config(builders.ClassStreamConfig):
    """Options of ``split-cars196``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = CLASSES

    split: str = "20,20,20,20,20,20,20,20,20,16"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of the official split.

    Raises:
        DataMissing: The data are absent, damaged, or not what they should be.
    """
    folder = _trees.folder_of(CARS, request, SOURCE)
    with CARS.reading(data.data_root(request.data_root)):
        tables = {"train": folder / "devkit" / "cars_train_annos.mat", "test": _test_table(folder)}
        meta = np.atleast_1d(_variable(folder / "devkit" / "cars_meta.mat", "class_names"))
        names = tuple(str(name) for name in meta.tolist())
        if len(names) != CLASSES:
            raise DataMissing(f"{readers.shown(folder)}: cars_meta.mat names {len(names)} classes instead of {CLASSES}")
        parts: dict[str, dict[str, int]] = {}
        for part, path in tables.items():
            found = np.atleast_1d(_variable(path, "annotations"))
            try:
                pairs = [(str(row["fname"]), int(row["class"]) - 1) for row in found]
            except (ValueError, IndexError, TypeError, KeyError) as error:
                raise DataMissing(f"{readers.shown(path)} has no fields `fname` and `class`: {error}") from error
            if any(not 0 <= label < CLASSES for _, label in pairs):
                raise DataMissing(f"{readers.shown(path)} has classes that are not 1..{CLASSES}")
            parts[part] = {f"cars_{part}/{name}": label for name, label in pairs}
        builders.check_counts({part: len(found) for part, found in parts.items()}, COUNTS, request)
    return _trees.Listing(root=folder, parts=parts, class_names=names, notes={"layout": "as torchvision's"})


def _test_table(folder: Path) -> Path:
    for path in (folder / TEST, folder / "devkit" / TEST):
        if readers.is_file(path):
            return path
    raise DataMissing(f"{readers.shown(folder / TEST)} is missing; the devkit's cars_test_annos.mat has no labels")


def _variable(path: Path, name: str) -> Any:
    from scipy.io import loadmat

    with readers.opened(path) as content:
        try:
            return loadmat(content, squeeze_me=True)[name]
        except Exception as error:  # scipy raises what its parsers raise
            raise DataMissing(f"{readers.shown(path)} cannot be read: {error}") from error


def build(config: SplitCars196Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(request)
    with CARS.reading(data.data_root(request.data_root)):
        cut = _trees.cut(found, request)
    return builders.class_stream(SPEC, config, request, cut)


def miniature(root: Path) -> None:
    """Two training images and one test image per class (`benchmark.specs.ScenarioSpec.miniature`)."""
    from scipy.io import savemat

    folder = root / CARS.folders[0]
    (folder / "devkit").mkdir(parents=True)
    savemat(
        folder / "devkit" / "cars_meta.mat",
        {"class_names": np.array([f"Car {number}" for number in range(CLASSES)], object)},
    )
    for part, each, path in (("train", 2, folder / "devkit" / "cars_train_annos.mat"), ("test", 1, folder / TEST)):
        names = [f"{number:05d}.jpg" for number in range(1, each * CLASSES + 1)]
        _trees.write(folder / f"cars_{part}", names)
        rows = np.zeros(len(names), [("fname", object), ("class", object)])
        rows["fname"], rows["class"] = names, [number // each + 1 for number in range(len(names))]
        savemat(path, {"annotations": rows})


SPEC = ScenarioSpec(
    name="split-cars196",
    build=build,
    config=SplitCars196Config,
    summary="Stanford Cars, class-incremental, 9 experiences of 20 models and one of 16",
    family="class-il",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    variant="split",
    source=SOURCE,
    licence="for research; images of the web",
    size_mb=1960.0,
    data=(CARS,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cars196``."""
    return [SPEC]
