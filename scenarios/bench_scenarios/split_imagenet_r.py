"""ImageNet-R by the published lists: 200 classes of ImageNet as art, cartoons, sketches, class-incremental.

Source: Hendrycks et al., "The Many Faces of Robustness", ICCV 2021: 30,000 images without a split. Several
incompatible splits are in use; this one is that of GT-RIPL/CODA-Prompt, 24,000 and 6,000 images, which
aimagelab/mammoth ships too. Layout: ``imagenet-r/<wnid>/*.jpg`` as unpacked, and the two lists below
``imagenet-r/lists/`` or beside the classes: ``imagenet-r_{train,test}.txt``, lines of ``wnid/name.jpg [label]``, or
CODA-Prompt's ``imagenet-r_{train,test}.yaml`` (mammoth: ``datasets/imagenet_r_utils``). The hash of the lists is in
the record, and runs on other lists share no table. A tree that is cut already is ``split-imagenet-r-tree``. Published
are ``10x20``, ``5x40``, ``20x10`` and ``40x5``. Version 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Scenario, ScenarioRequest

SOURCE = "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar; lists of GT-RIPL/CODA-Prompt"
COUNTS = {"train": 24_000, "test": 6_000}
CLASSES = 200

IMAGENET_R = DataSet(
    title="ImageNet-R",
    folders=("imagenet-r", "imagenet_r"),
    layouts=("<wnid>/*.jpg and [lists/]imagenet-r_{train,test}.{txt,yaml}",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitImageNetRConfig(builders.ClassStreamConfig):
    """Options of ``split-imagenet-r``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = CLASSES

    split: str = "10x20"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of both lists.

    Raises:
        DataMissing: Images or lists are absent, or are not what was published.
    """
    folder = _trees.folder_of(IMAGENET_R, request, SOURCE)
    with IMAGENET_R.reading(data.data_root(request.data_root)):
        lists = {part: names(_list(folder, part)) for part in COUNTS}
        builders.check_counts({part: len(found) for part, found in lists.items()}, COUNTS, request)
        wnids = sorted({name.partition("/")[0] for found in lists.values() for name in found})
        labels = _trees.numbered(wnids, CLASSES, folder)
        _consistent(lists)
        told, notes = _trees.wordnet_names(folder, wnids)
    content = "\n".join(f"{part} {name}" for part in sorted(lists) for name in sorted(lists[part]))
    return _trees.Listing(
        root=folder,
        parts={part: {name: labels[name.partition("/")[0]] for name in found} for part, found in lists.items()},
        class_names=told,
        notes={"layout": "lists", **notes},
        partition=f"lists {hashlib.sha256(content.encode()).hexdigest()[:8]}",
    )


def _consistent(lists: Mapping[str, Mapping[str, int | None]]) -> None:
    """Labels that a list has must mean one class each; which one is said by the folders."""
    known: dict[int, str] = {}
    for part, found in lists.items():
        for name, label in found.items():
            wnid = name.partition("/")[0]
            if label is not None and known.setdefault(label, wnid) != wnid:
                raise DataMissing(f"the {part} list gives {name} label {label}, which is {known[label]} elsewhere")


def _list(folder: Path, part: str) -> Path:
    for place in (folder / "lists", folder, folder.parent / "lists"):
        for suffix in (".txt", ".yaml"):
            path = place / f"imagenet-r_{part}{suffix}"
            if readers.is_file(path):
                return path
    raise DataMissing(f"{readers.shown(folder)} has no list imagenet-r_{part}.txt or .yaml; there is no official split")


def names(path: Path) -> Mapping[str, int | None]:
    """Names of a list as ``wnid/file``, whatever folders stand before, and their labels where it has some.

    Raises:
        DataMissing: It is no list of images.
    """
    where = readers.shown(path)
    text = readers.read_bytes(path, most=1 << 26).decode("utf-8-sig", "replace")
    if path.suffix == ".yaml":
        lines = _yaml(text, where)
    else:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    found: dict[str, int | None] = {}
    for number, line in lines:
        name, _, label = line.strip().rpartition(" ")
        name, label = (name, label) if name and label.isdecimal() else (line.strip(), "")
        short = "/".join(name.split("/")[-2:])
        if short.count("/") != 1 or not short.lower().endswith((".jpg", ".jpeg", ".png")):
            raise DataMissing(f"{where}, line {number}: {line.strip()[:80]!r} is not `wnid/image.jpg`")
        if short in found:
            raise DataMissing(f"{where}, line {number}: {short} is in the list twice")
        found[short] = int(label) if label else None
    if not found:
        raise DataMissing(f"{where} names no image")
    return found


def _yaml(text: str, where: str) -> list[tuple[int, str]]:
    """Lines of a YAML file with the lists ``data`` (names) and ``targets`` (labels), as those of a text file."""
    lists: dict[str, list[str]] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("- ") and section:
            lists[section].append(line[2:].strip().strip("'\""))
        elif line.rstrip().endswith(":") and not line.startswith((" ", "-")):
            section = line.rstrip()[:-1]
            lists[section] = []
        elif line.strip():
            raise DataMissing(f"{where}, line {number}: {line[:60]!r} belongs to no list `data` or `targets`")
    files = lists.get("data", [])
    targets = lists.get("targets", [""] * len(files))
    if len(targets) != len(files):
        raise DataMissing(f"{where} has {len(files):,} names and {len(targets):,} targets")
    return [
        (number, f"{name} {label}".strip()) for number, (name, label) in enumerate(zip(files, targets, strict=True), 1)
    ]


def build(config: SplitImageNetRConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(request)
    with IMAGENET_R.reading(data.data_root(request.data_root)):
        cut = _trees.cut(found, request)
    return builders.class_stream(SPEC, config, request, cut)


def miniature(root: Path) -> None:
    """Three images per class and the two lists (`benchmark.specs.ScenarioSpec.miniature`)."""
    wnids = [f"n{number:08d}" for number in range(CLASSES)]
    folder = root / IMAGENET_R.folders[0]
    _trees.write(folder, [f"{wnid}/art_{one}.jpg" for wnid in wnids for one in range(3)])
    (folder / "lists").mkdir()
    for part, chosen in (("train", (0, 1)), ("test", (2,))):
        lines = [f"{wnid}/art_{one}.jpg {label}" for label, wnid in enumerate(wnids) for one in chosen]
        (folder / "lists" / f"imagenet-r_{part}.txt").write_text("\n".join(lines) + "\n")


SPEC = ScenarioSpec(
    name="split-imagenet-r",
    build=build,
    config=SplitImageNetRConfig,
    summary="ImageNet-R by CODA-Prompt's lists, class-incremental, 10 experiences of 20 classes",
    family="class-il",
    tracks={"paper": "unit224", "mini": "unit224"},
    variant="split",
    source=SOURCE,
    licence="MIT (repository); images belong to their owners",
    size_mb=2190.0,
    data=(IMAGENET_R,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-imagenet-r``."""
    return [SPEC]
