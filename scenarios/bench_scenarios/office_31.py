"""31 classes of office objects by Amazon, a camera and a web camera: unsupervised domain adaptation.

Source: Saenko et al., "Adapting Visual Category Models to New Domains", ECCV 2010. Layout:
``office31/{amazon,dslr,webcam}/[images/]<class>/<image>`` as published and as thuml/Transfer-Learning-Library has it;
class index = alphabetical rank. Transductive, as everywhere in the literature: all source images are labelled training
images, all target images are unlabelled training images and test images. A variant is a pair such as ``amazon-webcam``,
or several sources, ``rest-webcam``. ``label_set=partial`` keeps the ten classes of the target that Caltech-256 has too;
they are the known ones of ``label_set=open-set``, for which ``unknown`` says which others the target has. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _shifts, _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.scenario import Scenario, ScenarioRequest

DOMAINS = ("amazon", "dslr", "webcam")
COUNTS = {"amazon": 2_817, "dslr": 498, "webcam": 795}
CLASSES = (
    "back_pack",
    "bike",
    "bike_helmet",
    "bookcase",
    "bottle",
    "calculator",
    "desk_chair",
    "desk_lamp",
    "desktop_computer",
    "file_cabinet",
    "headphones",
    "keyboard",
    "laptop_computer",
    "letter_tray",
    "mobile_phone",
    "monitor",
    "mouse",
    "mug",
    "paper_notebook",
    "pen",
    "phone",
    "printer",
    "projector",
    "punchers",
    "ring_binder",
    "ruler",
    "scissors",
    "speaker",
    "stapler",
    "tape_dispenser",
    "trash_can",
)
SHARED = (
    "back_pack",
    "bike",
    "calculator",
    "headphones",
    "keyboard",
    "laptop_computer",
    "monitor",
    "mouse",
    "mug",
    "projector",
)
_SHARED = tuple(CLASSES.index(name) for name in SHARED)
SOURCE = "https://faculty.cc.gatech.edu/~judy/domainadapt; copies as thuml/Transfer-Learning-Library fetches them"
OFFICE_31 = DataSet(
    title="Office-31",
    folders=("office31", "office-31", "office_31", "Office31"),
    layouts=("{amazon,dslr,webcam}/[images/]<class>/*.jpg",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Office31Config(_shifts.SharedPairConfig):
    """Options of ``office-31``, see `bench_scenarios._shifts.SharedPairConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS
    CLASSES: ClassVar[int] = len(CLASSES)
    SHARED: ClassVar[tuple[int, ...]] = _SHARED
    KNOWN: ClassVar[tuple[int, ...]] = _SHARED

    pair: str = "amazon-webcam"


def listing(request: ScenarioRequest) -> _trees.Listing:
    """The files of every domain, by its name.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(OFFICE_31, request, SOURCE)
    with OFFICE_31.reading(data.data_root(request.data_root)):
        parts: dict[str, dict[str, int]] = {}
        for domain in DOMAINS:
            own = f"{domain}/images" if readers.is_folder(folder / domain / "images") else domain
            parts[domain] = _trees.of_classes(folder, own, CLASSES)
        builders.check_counts({domain: len(files) for domain, files in parts.items()}, COUNTS, request)
    names = tuple(_trees.plain(name) for name in CLASSES)
    return _trees.Listing(root=folder, parts=parts, class_names=names, notes={"layout": "tree"})


def build(config: Office31Config, request: ScenarioRequest) -> Scenario:
    """Builds the pair. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    return _shifts.whole_pair(SPEC, config, listing(request), OFFICE_31, request)


def miniature(root: Path) -> None:
    """One image per class and domain (`benchmark.specs.ScenarioSpec.miniature`)."""
    names = [f"{domain}/images/{name}/frame_0001.jpg" for domain in DOMAINS for name in CLASSES]
    _trees.write(root / OFFICE_31.folders[0], names)


SPEC = ScenarioSpec(
    name="office-31",
    build=build,
    config=Office31Config,
    summary="31 classes of office objects, Amazon, camera, web camera; all 6 ordered pairs",
    family="uda",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    variant="pair",
    variants=_shifts.pairs(DOMAINS),
    source=SOURCE,
    licence="none stated at the source",
    size_mb=80.0,
    data=(OFFICE_31,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``office-31``."""
    return [SPEC]
