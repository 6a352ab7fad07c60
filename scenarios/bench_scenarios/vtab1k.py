"""VTAB-1k: nineteen data sets, each with 1,000 training images: natural, specialised and structured pictures.

Source: Zhai et al., "A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark", arXiv
1910.04867; google-research/task_adaptation. The 1,000 images are the first 800 of the training and the first 200 of the
validation split in the order of TensorFlow Datasets, which depends on its version: so the published lists are read, as
in the archive of ZhangYuanhan-AI/NOAH, ``vtab1k/<task>/{train800,val200,train800val200,test}.txt`` with lines of ``path
label``, paths relative to the folder of the task. The record keeps the hash of the lists that were used. Variants are
the folders of that archive. Trained on all 1,000, tested on the full test split; ``lists=train800`` trains on the 800
with the 200 as validation images, and with ``--validate 1`` tests on them: so are options chosen. With so few images a
class may have none (Sun397). The lists have no names of classes: a class is ``class N``, N is its label. Preset
``vtab224``: no augmentation, both sides resized. Published averages are the mean of the three group means; the table
has it and the mean of all. Version 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, slots=True)
class Task:
    """One of the data sets.

    Attributes:
        group: ``natural``, ``specialised`` or ``structured``.
        classes: Number of them.
        test: Images of the test split.
        others: Names of its folder in other copies.
    """

    group: str
    classes: int
    test: int
    others: tuple[str, ...] = ()


TASKS: Mapping[str, Task] = {
    "cifar": Task("natural", 100, 10_000, ("cifar100", "cifar-100")),
    "caltech101": Task("natural", 102, 6_084),
    "dtd": Task("natural", 47, 1_880),
    "oxford_flowers102": Task("natural", 102, 6_149),
    "oxford_iiit_pet": Task("natural", 37, 3_669, ("oxford_pet",)),
    "svhn": Task("natural", 10, 26_032),
    "sun397": Task("natural", 397, 21_750),
    "patch_camelyon": Task("specialised", 2, 32_768),
    "eurosat": Task("specialised", 10, 5_400),
    "resisc45": Task("specialised", 45, 6_300),
    "diabetic_retinopathy": Task("specialised", 5, 42_670),
    "clevr_count": Task("structured", 8, 15_000),
    "clevr_dist": Task("structured", 6, 15_000),
    "dmlab": Task("structured", 6, 22_735),
    "kitti": Task("structured", 4, 711),
    "dsprites_loc": Task("structured", 16, 73_728),
    "dsprites_ori": Task("structured", 16, 73_728),
    "smallnorb_azi": Task("structured", 18, 12_150),
    "smallnorb_ele": Task("structured", 9, 12_150),
}
COUNTS = {"train800": 800, "val200": 200, "train800val200": 1_000}
SOURCE = "https://github.com/ZhangYuanhan-AI/NOAH (README.md, VTAB-1k)"
VTAB_1K = DataSet(
    title="VTAB-1k",
    folders=("vtab1k", "vtab-1k", "vtab_1k"),
    layouts=("<task>/{train800,val200,train800val200,test}.txt (`path label` per line) and the images they name",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vtab1kConfig:
    """Options of ``vtab1k``.

    Attributes:
        task: One of the nineteen, by its folder.
        lists: ``train800val200``: trained on 1,000 images; ``train800``: on 800, with ``val200`` as validation images.
    """

    task: str = "cifar"
    lists: Literal["train800val200", "train800"] = "train800val200"

    def __post_init__(self) -> None:
        """Checks that the task is one."""
        if self.task not in TASKS:
            raise ValueError(f"task: {self.task!r} is none of VTAB-1k; use one of {', '.join(TASKS)}")


def listing(config: Vtab1kConfig, request: ScenarioRequest) -> _trees.Listing:
    """The files of the lists that a run needs; parts ``train``, ``test`` and, where they are apart, ``validation``.

    Raises:
        DataMissing: A list is absent, is no list, or has another number of images or a label that is none.
    """
    task = TASKS[config.task]
    folder = _trees.folder_of(VTAB_1K, request, SOURCE)
    with VTAB_1K.reading(data.data_root(request.data_root)):
        own = next((name for name in (config.task, *task.others) if readers.is_folder(folder / name)), None)
        if own is None:
            raise DataMissing(f"{readers.shown(folder)} has no folder {config.task}")
        used = {"train": config.lists, "test": "test"}
        if config.lists == "train800":
            used["validation"] = "val200"
        digest = hashlib.sha256()
        parts = {}
        for part, name in used.items():
            path = folder / own / f"{name}.txt"
            parts[part] = _listed(path, task.classes)
            digest.update("".join(f"{file} {label}\n" for file, label in sorted(parts[part].items())).encode())
        published = {name: {**COUNTS, "test": task.test}[name] for name in used.values()}
        builders.check_counts({name: len(parts[part]) for part, name in used.items()}, published, request)
        absent = set(range(task.classes)) - set(parts["test"].values())
        if absent:
            raise DataMissing(f"{readers.shown(folder / own)}: test.txt has no image of class {min(absent)}")
    return _trees.Listing(
        root=folder / own,
        parts=parts,
        class_names=tuple(f"class {label}" for label in range(task.classes)),
        notes={"layout": "lists", "lists": digest.hexdigest(), "group": task.group, "class names": "labels"},
    )


def _listed(path: Path, classes: int) -> dict[str, int]:
    found = {}
    for name, (label, line) in readers.read_list(path).items():
        if label >= classes:
            raise DataMissing(
                f"{readers.shown(path)}, line {line}: {name} has label {label}; labels are 0..{classes - 1}"
            )
        found[name] = label
    return found


def build(config: Vtab1kConfig, request: ScenarioRequest) -> Scenario:
    """Builds the task. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(config, request)
    with VTAB_1K.reading(data.data_root(request.data_root)):
        samples = _trees.samples(found, request)
    experience = Experience(
        train=samples["train"],
        test=samples["test"],
        classes=tuple(range(len(found.class_names))),
        validation=samples.get("validation"),
    )
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=found.class_names,
        notes=found.notes,
    )


def miniature(root: Path) -> None:
    """Two images per class of each list of the smallest task and of the default (`ScenarioSpec.miniature`)."""
    for name in ("cifar", "kitti"):
        folder, classes = root / VTAB_1K.folders[0] / name, range(TASKS[name].classes)
        for part in (*COUNTS, "test"):
            copies = {"train800val200": 2}.get(part, 1)
            files = [(f"images/{part}/{label:03d}_{one}.jpg", label) for label in classes for one in range(copies)]
            _trees.write(folder, [file for file, _ in files])
            (folder / f"{part}.txt").write_text("".join(f"{file} {label}\n" for file, label in files))


SPEC = ScenarioSpec(
    name="vtab1k",
    build=build,
    config=Vtab1kConfig,
    summary="19 data sets with 1,000 training images each, natural, specialised and structured",
    family="collection",
    tracks={"paper": "vtab224", "mini": "vtab224"},
    variant="task",
    variants=tuple(TASKS),
    source=SOURCE,
    licence="those of the nineteen data sets",
    size_mb=5000.0,  # estimated: no source states it
    data=(VTAB_1K,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``vtab1k``."""
    return [SPEC]
