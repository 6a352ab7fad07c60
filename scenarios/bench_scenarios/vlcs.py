"""Five classes in four collections of photographs, one of which is held out: domain generalisation.

Source: Fang et al., "Unbiased Metric Learning", ICCV 2013 (PASCAL VOC 2007, LabelMe, Caltech-101, SUN09). Layouts:
``VLCS/{Caltech101,LabelMe,SUN09,VOC2007}/{bird,car,chair,dog,person}/*`` (facebookresearch/DomainBed), or
``VLCS/{CALTECH,LABELME,SUN,PASCAL}/full/{0,1,2,3,4}/*`` (KaiyangZhou/Dassl.pytorch, whose cuts ``train``, ``crossval``
and ``test`` are not used). Trained on 80 % of every class of three collections by the suite's rule, tested on all
images of the fourth, or on 80 % of them (``target_part=in80``). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _domain_trees, _shifts, _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.scenario import Scenario, ScenarioRequest

CLASSES = ("bird", "car", "chair", "dog", "person")
DOMAINS = ("Caltech101", "LabelMe", "SUN09", "VOC2007")
DASSL = {"Caltech101": "CALTECH", "LabelMe": "LABELME", "SUN09": "SUN", "VOC2007": "PASCAL"}
COUNTS = {"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376}
SOURCE = "https://github.com/facebookresearch/DomainBed (domainbed/scripts/download.py)"
VLCS = DataSet(
    title="VLCS",
    folders=("VLCS", "vlcs"),
    layouts=(
        "{Caltech101,LabelMe,SUN09,VOC2007}/{bird,car,chair,dog,person}/*.jpg",
        "{CALTECH,LABELME,SUN,PASCAL}/full/{0,1,2,3,4}/*.jpg",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VlcsConfig(_shifts.HeldOutConfig):
    """Options of ``vlcs``, see `bench_scenarios._shifts.HeldOutConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS

    held_out: str = "Caltech101"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of every domain, by its name.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(VLCS, request, SOURCE)
    with VLCS.reading(data.data_root(request.data_root)):
        dassl = readers.is_folder(folder / DASSL[DOMAINS[0]])
        numbers = [str(label) for label in range(len(CLASSES))] if dassl else list(CLASSES)
        parts: dict[str, dict[str, int]] = {}
        for domain in DOMAINS:
            own = f"{DASSL[domain]}/full" if dassl else domain
            parts[domain] = _trees.of_classes(folder, own, numbers)
        builders.check_counts({domain: len(files) for domain, files in parts.items()}, COUNTS, request)
    notes = {"layout": "as Dassl's" if dassl else "as DomainBed's"}
    return _trees.Listing(root=folder, parts=parts, class_names=CLASSES, notes=notes)


def build(config: VlcsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    halves = _domain_trees.halves(listing(request))
    with VLCS.reading(data.data_root(request.data_root)):
        cut = _trees.domains(halves, DOMAINS, request)
    return _shifts.held_out(SPEC, config, _shifts.Parts.of(cut))


def miniature(root: Path) -> None:
    """Five images per class and domain as DomainBed has them (`benchmark.specs.ScenarioSpec.miniature`)."""
    names = [f"{domain}/{name}/{one}.jpg" for domain in DOMAINS for name in CLASSES for one in range(5)]
    _trees.write(root / VLCS.folders[0], names)


SPEC = ScenarioSpec(
    name="vlcs",
    build=build,
    config=VlcsConfig,
    summary="5 classes in four collections, trained on three, tested on the fourth; leave one out",
    family="dg",
    tracks={"paper": "domainbed224", "mini": "domainbed224"},
    variant="held_out",
    variants=DOMAINS,
    source=SOURCE,
    licence="those of the four collections",
    size_mb=3600.0,
    data=(VLCS,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``vlcs``."""
    return [SPEC]
