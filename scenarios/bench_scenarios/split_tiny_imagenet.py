"""Tiny-ImageNet, class-incremental: 200 classes of 64x64 photographs.

Source: the data set of Stanford's course CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip (md5
90528d7ca1a48142e341f4ef8d21d0de). Layout as shipped: ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with
``val/val_annotations.txt``, names of classes in ``words.txt``. The official validation images are the test images, as
everywhere; classes in the order of their wnids. Published is ``10x20`` (aimagelab/mammoth ``seq-tinyimg``), and
``b100-inc5``, ``b100-inc10``, ``b100-inc20``. Version 1.
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

SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
COUNTS = {"train": 100_000, "test": 10_000}
CLASSES = 200

TINY = DataSet(
    title="Tiny-ImageNet",
    folders=("tiny-imagenet-200", "tiny-imagenet"),
    layouts=("train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt, words.txt",),
    download=Download(
        url=SOURCE,
        file="tiny-imagenet-200.zip",
        size=248_100_043,
        md5="90528d7ca1a48142e341f4ef8d21d0de",
        inside="tiny-imagenet-200",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitTinyImageNetConfig(builders.ClassStreamConfig):
    """Options of ``split-tiny-imagenet``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = CLASSES

    split: str = "10x20"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of both splits.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(TINY, request, SOURCE)
    with TINY.reading(data.data_root(request.data_root)):
        classes = _trees.class_folders(folder / "train")
        labels = _trees.numbered(classes, CLASSES, folder / "train")
        train = {f"train/{name}": labels[wnid] for wnid, found in classes.items() for name in found}
        test = {f"val/images/{name}": label for name, label in _annotations(folder / "val", labels).items()}
        builders.check_counts({"train": len(train), "test": len(test)}, COUNTS, request)
        names, notes = _words(folder, list(labels))
    return _trees.Listing(
        root=folder, parts={"train": train, "test": test}, class_names=names, notes={"layout": "as shipped", **notes}
    )


def _annotations(folder: Path, labels: dict[str, int]) -> dict[str, int]:
    """Labels of the validation images: lines of ``file``, ``wnid`` and a box, with tabs."""
    path = folder / "val_annotations.txt"
    found: dict[str, int] = {}
    for number, line in enumerate(readers.read_bytes(path, most=1 << 24).decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in labels:
            raise DataMissing(
                f"{readers.shown(path)}, line {number}: {line[:60]!r} is not `file, wnid, box` of a class"
            )
        if name in found:
            raise DataMissing(f"{readers.shown(path)}, line {number}: {name} is there twice")
        found[name] = labels[wnid]
    return found


def _words(folder: Path, wnids: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The first name of each class in ``words.txt``."""
    path = folder / "words.txt"
    if not readers.is_file(path):
        return _trees.wordnet_names(folder, wnids)
    known = {}
    for line in readers.read_bytes(path, most=1 << 26).decode("utf-8", "replace").splitlines():
        wnid, _, words = line.partition("\t")
        known[wnid] = words.split(",")[0].strip()
    names = tuple(known.get(wnid) or wnid for wnid in wnids)
    twins = {name for name in names if names.count(name) > 1}
    return tuple(f"{name} ({wnid})" if name in twins else name for name, wnid in zip(names, wnids, strict=True)), {}


def build(config: SplitTinyImageNetConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(request)
    with TINY.reading(data.data_root(request.data_root)):
        cut = _trees.cut(found, request)
    return builders.class_stream(SPEC, config, request, cut)


def miniature(root: Path) -> None:
    """Two training images and one test image per class (`benchmark.specs.ScenarioSpec.miniature`)."""
    folder = root / TINY.folders[0]
    wnids = [f"n{number:08d}" for number in range(CLASSES)]
    _trees.write(folder, [f"train/{wnid}/images/{wnid}_{one}.JPEG" for wnid in wnids for one in range(2)])
    _trees.write(folder, [f"val/images/val_{number}.JPEG" for number in range(CLASSES)])
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t7\t7" for number, wnid in enumerate(wnids)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid[-3:]}, other\n" for wnid in wnids))


SPEC = ScenarioSpec(
    name="split-tiny-imagenet",
    build=build,
    config=SplitTinyImageNetConfig,
    summary="Tiny-ImageNet, class-incremental, 10 experiences of 20 classes",
    family="class-il",
    tracks={"paper": "unit224", "mini": "tiny64"},
    variant="split",
    source=SOURCE,
    licence="ImageNet's terms",
    size_mb=248.0,
    data=(TINY,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-tiny-imagenet``."""
    return [SPEC]
