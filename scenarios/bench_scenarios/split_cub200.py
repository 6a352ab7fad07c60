"""CUB-200-2011 by its official split, class-incremental: 200 birds.

Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011,
https://www.vision.caltech.edu/datasets/cub_200_2011 (``CUB_200_2011.tgz``, md5 97eceeb196236b17998738112f37df78).
Layout as shipped: ``images/<nnn.Class>/*.jpg`` with ``images.txt``, ``image_class_labels.txt``,
``train_test_split.txt`` and ``classes.txt``. Published is ``10x20`` in natural order (aimagelab/mammoth
``seq-cub200``); PILOT's own cut is ``split-cub200-pilot``. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet, Download
from benchmark.errors import DataMissing
from benchmark.scenario import Scenario, ScenarioRequest

SOURCE = "https://www.vision.caltech.edu/datasets/cub_200_2011"
COUNTS = {"train": 5_994, "test": 5_794}
CLASSES = 200

CUB = DataSet(
    title="CUB-200-2011",
    folders=("CUB_200_2011", "cub200/CUB_200_2011", "cub/CUB_200_2011"),
    layouts=("images/<nnn.Class>/*.jpg, images.txt, image_class_labels.txt, train_test_split.txt, classes.txt",),
    download=Download(
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        file="CUB_200_2011.tgz",
        size=1_150_585_339,
        md5="97eceeb196236b17998738112f37df78",
        inside="CUB_200_2011",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCub200Config(builders.ClassStreamConfig):
    """Options of ``split-cub200``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = CLASSES

    split: str = "10x20"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of the official split.

    Raises:
        DataMissing: The data are absent, or their lists do not fit together.
    """
    folder = _trees.folder_of(CUB, request, SOURCE)
    with CUB.reading(data.data_root(request.data_root)):
        names, labels, split, classes = (
            _numbered(folder / f"{name}.txt")
            for name in ("images", "image_class_labels", "train_test_split", "classes")
        )
        for name, known in (("image_class_labels", labels), ("train_test_split", split)):
            if known.keys() != names.keys():
                strange = min(known.keys() ^ names.keys())
                raise DataMissing(f"{readers.shown(folder)}: images.txt and {name}.txt differ in image {strange}")
        if sorted(classes) != list(range(1, CLASSES + 1)):
            raise DataMissing(f"{readers.shown(folder)}: classes.txt has {len(classes)} classes instead of {CLASSES}")
        parts: dict[str, dict[str, int]] = {"train": {}, "test": {}}
        for number, name in names.items():
            label = int(labels[number]) if labels[number].isdecimal() else 0
            if label not in classes or split[number] not in ("0", "1"):
                raise DataMissing(
                    f"{readers.shown(folder)}: image {number} has class {labels[number]}, split {split[number]}"
                )
            parts["train" if split[number] == "1" else "test"][f"images/{name}"] = label - 1
        builders.check_counts({part: len(found) for part, found in parts.items()}, COUNTS, request)
    told = tuple(_trees.plain(classes[number]) for number in range(1, CLASSES + 1))
    return _trees.Listing(root=folder, parts=parts, class_names=told, notes={"layout": "as shipped"})


def _numbered(path: Path) -> dict[int, str]:
    """Lines of ``number text``."""
    found: dict[int, str] = {}
    for place, line in enumerate(readers.read_bytes(path, most=1 << 24).decode("utf-8", "replace").splitlines(), 1):
        number, _, text = line.strip().partition(" ")
        if not line.strip():
            continue
        if not number.isdecimal() or not text or int(number) in found:
            raise DataMissing(f"{readers.shown(path)}, line {place}: {line[:60]!r} is not a new `number text`")
        found[int(number)] = text
    return found


def build(config: SplitCub200Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(request)
    with CUB.reading(data.data_root(request.data_root)):
        cut = _trees.cut(found, request)
    return builders.class_stream(SPEC, config, request, cut)


def miniature(root: Path) -> None:
    """Two training images and one test image per class (`benchmark.specs.ScenarioSpec.miniature`)."""
    folder = root / CUB.folders[0]
    classes = [f"{number:03d}.Bird_{number}" for number in range(1, CLASSES + 1)]
    names = [f"{name}/{name}_{one}.jpg" for name in classes for one in range(3)]
    _trees.write(folder / "images", names)
    rows: dict[str, list[str]] = {
        "images": names,
        "image_class_labels": [str(number // 3 + 1) for number in range(len(names))],
        "train_test_split": [str(int(number % 3 < 2)) for number in range(len(names))],
        "classes": classes,
    }
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text("".join(f"{number} {line}\n" for number, line in enumerate(lines, 1)))


SPEC = ScenarioSpec(
    name="split-cub200",
    build=build,
    config=SplitCub200Config,
    summary="CUB-200-2011, official split, class-incremental, 10 experiences of 20 birds",
    family="class-il",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    variant="split",
    source=SOURCE,
    licence="for non-commercial research",
    size_mb=1150.0,
    data=(CUB,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cub200``."""
    return [SPEC]
