"""Twelve classes from renderings to photographs: unsupervised domain adaptation.

Source: Peng et al., "VisDA: The Visual Domain Adaptation Challenge", 2017. Layout:
``visda2017/{train,validation}/<class>/<image>`` as published, with ``image_list.txt`` (``path label`` per line) in
either, which is used where it is there and must agree with the folders. Source: the renderings (``train``); target and
test: the same photographs (``validation``), transductive as in the literature. Its figure in papers is the mean of the
accuracies within the classes, the column ``mean_class_acc`` of the tables; some give the overall accuracy, and both are
kept. ``label_set=partial`` keeps the first six classes of the target; for ``open-set`` the options ``shared`` and
``unknown`` say which classes are known and which are not. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _shifts, _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Scenario, ScenarioRequest

CLASSES = (
    "aeroplane",
    "bicycle",
    "bus",
    "car",
    "horse",
    "knife",
    "motorcycle",
    "person",
    "plant",
    "skateboard",
    "train",
    "truck",
)
FOLDERS = {"synthetic": "train", "real": "validation"}
COUNTS = {"synthetic": 152_397, "real": 55_388}
SOURCE = "https://ai.bu.edu/visda-2017 (csr.bu.edu/ftp/visda17/clf/{train,validation}.tar)"
VISDA = DataSet(
    title="VisDA-2017",
    folders=("visda2017", "visda-2017", "visda17", "VisDA2017"),
    layouts=("{train,validation}/<class>/*.{png,jpg} [and {train,validation}/image_list.txt]",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visda2017Config(_shifts.SharedPairConfig):
    """Options of ``visda-2017``, see `bench_scenarios._shifts.SharedPairConfig`; partial: the first six classes."""

    DOMAINS: ClassVar[tuple[str, ...]] = ("synthetic", "real")
    CLASSES: ClassVar[int] = len(CLASSES)
    SHARED: ClassVar[tuple[int, ...]] = tuple(range(6))

    pair: str = "synthetic-real"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of both domains.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(VISDA, request, SOURCE)
    with VISDA.reading(data.data_root(request.data_root)):
        parts = {}
        layout = "tree"
        for domain, own in FOLDERS.items():
            path = folder / own / "image_list.txt"
            if readers.is_file(path):
                layout = "lists"
                parts[domain] = _listed(path, own)
                continue
            parts[domain] = _trees.of_classes(folder, own, CLASSES)
        builders.check_counts({domain: len(files) for domain, files in parts.items()}, COUNTS, request)
    return _trees.Listing(root=folder, parts=parts, class_names=CLASSES, notes={"layout": layout})


def _listed(path: Path, own: str) -> dict[str, int]:
    found = {}
    for name, (label, line) in readers.read_list(path).items():
        if not 0 <= label < len(CLASSES) or name.split("/")[0] != CLASSES[label]:
            raise DataMissing(f"{readers.shown(path)}, line {line}: {name} has label {label}")
        found[f"{own}/{name}"] = label
    return found


def build(config: Visda2017Config, request: ScenarioRequest) -> Scenario:
    """Builds the pair. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    return _shifts.whole_pair(SPEC, config, listing(request), VISDA, request)


def miniature(root: Path) -> None:
    """One image per class and domain, and the lists (`benchmark.specs.ScenarioSpec.miniature`)."""
    folder = root / VISDA.folders[0]
    for own, kind in (("train", "png"), ("validation", "jpg")):
        names = [f"{name}/{name}_{own}.{kind}" for name in CLASSES]
        _trees.write(folder / own, names)
        lines = [f"{name} {label}\n" for label, name in enumerate(names)]
        (folder / own / "image_list.txt").write_text("".join(lines))


SPEC = ScenarioSpec(
    name="visda-2017",
    build=build,
    config=Visda2017Config,
    summary="12 classes from renderings to photographs; its figure is the mean over classes",
    family="uda",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    variant="pair",
    variants=("synthetic-real",),
    source=SOURCE,
    licence="for research; images of the web",
    size_mb=16000.0,
    data=(VISDA,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``visda-2017``."""
    return [SPEC]
