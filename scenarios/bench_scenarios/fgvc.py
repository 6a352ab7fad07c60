"""Five fine-grained data sets in the cuts of the VPT paper: birds, birds of North America, flowers, dogs, cars.

Source: Jia et al., "Visual Prompt Tuning", ECCV 2022; KMnP/vpt, ``src/data/datasets/json_dataset.py`` and the lists its
README links to. Layout: ``fgvc/<set>/{train,val,test}.json``, each one object of ``image name: class id``, names
relative to ``images/`` (CUB-200-2011, NABirds), ``Images/`` (Stanford Dogs) or to the folder of the set (Oxford
Flowers, Stanford Cars); label = rank of the id. Where a data set has no official validation set, a tenth of its
training images is one, which chooses options and is not trained. Variants are named as the configurations there; a
class is called by its folder where every class has one with a name, else ``class ID``. Top-1 on the test list; the
published figure is the mean of the five. Preset ``fgvc224``. Version 1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, slots=True)
class Set:
    """One of the data sets.

    Attributes:
        classes: Number of them.
        counts: Images for training, validation and test.
        images: Folder that the names are relative to, below that of the set; empty for that itself.
        others: Names of its folder in other copies.
    """

    classes: int
    counts: tuple[int, int, int]
    images: str = ""
    others: tuple[str, ...] = ()


SETS: Mapping[str, Set] = {
    "cub": Set(200, (5_394, 600, 5_794), "images", ("CUB_200_2011", "cub200", "CUB200")),
    "nabirds": Set(555, (21_536, 2_393, 24_633), "images", ("NABirds",)),
    "flowers": Set(102, (1_020, 1_020, 6_149), "", ("oxford_flowers", "OxfordFlowers", "OxfordFlower")),
    "dogs": Set(120, (10_800, 1_200, 8_580), "Images", ("stanford_dogs", "StanfordDogs", "Stanford-dogs")),
    "cars": Set(196, (7_329, 815, 8_041), "", ("stanford_cars", "StanfordCars", "Stanford-cars")),
}
PARTS = {"train": "train", "validation": "val", "test": "test"}
SOURCE = "https://github.com/KMnP/vpt (README.md, Datasets preparation)"
MOST = 1 << 26  # bytes of a list; the largest has 2 MB
FGVC = DataSet(
    title="FGVC",
    folders=("fgvc", "FGVC"),
    layouts=("<set>/{train,val,test}.json (`image name: class id`) and the images they name",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FgvcConfig:
    """Options of ``fgvc``.

    Attributes:
        set: ``cub``, ``nabirds``, ``flowers``, ``dogs`` or ``cars``.
    """

    set: str = "cub"

    def __post_init__(self) -> None:
        """Checks that the data set is one."""
        if self.set not in SETS:
            raise ValueError(f"set: {self.set!r} is none of FGVC; use one of {', '.join(SETS)}")


def listing(config: FgvcConfig, request: ScenarioRequest) -> _trees.Listing:
    """The files of the three lists, parts ``train``, ``validation`` and ``test``.

    Raises:
        DataMissing: A list is absent, is no list, or has other classes or another number of images.
    """
    which = SETS[config.set]
    folder = _trees.folder_of(FGVC, request, SOURCE)
    with FGVC.reading(data.data_root(request.data_root)):
        own = next((name for name in (config.set, *which.others) if readers.is_folder(folder / name)), None)
        if own is None:
            raise DataMissing(f"{readers.shown(folder)} has no folder {config.set}")
        path = folder / own
        lists = {part: _read(path / f"{name}.json") for part, name in PARTS.items()}
        published = dict(zip(PARTS.values(), which.counts, strict=True))
        builders.check_counts({name: len(lists[part]) for part, name in PARTS.items()}, published, request)
        ids = sorted({one for found in lists.values() for one in found.values()})
        for part, found in lists.items():
            if len(missing := sorted(set(ids) - set(found.values()))) and part != "validation":
                raise DataMissing(f"{readers.shown(path)}: {PARTS[part]}.json has no image of class {missing[0]}")
        if len(ids) != which.classes:
            raise DataMissing(f"{readers.shown(path)}: the lists have {len(ids)} classes instead of {which.classes}")
        label = {one: place for place, one in enumerate(ids)}
        parts = {part: {name: label[one] for name, one in found.items()} for part, found in lists.items()}
        told = "".join(f"{part} {name} {one}\n" for part, found in parts.items() for name, one in sorted(found.items()))
    names, notes = _names(parts.values(), ids)
    return _trees.Listing(
        root=path / which.images if which.images else path,
        parts=parts,
        class_names=names,
        notes={"layout": "lists", "lists": hashlib.sha256(told.encode()).hexdigest(), **notes},
    )


def _read(path: Path) -> dict[str, int]:
    """The class ids of a list, by image name.

    Raises:
        DataMissing: The file is absent, or no object of names and whole numbers.
    """
    shown = readers.shown(path)
    try:
        pairs: Any = json.loads(readers.read_bytes(path, most=MOST), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise DataMissing(f"{shown} is no JSON: {error}") from error
    found: dict[str, int] = {}
    for pair in pairs if isinstance(pairs, list) else [None]:
        name, one = pair if isinstance(pair, tuple) else ("", pair)
        text = isinstance(one, str) and re.fullmatch(r"\d{1,9}", one, re.ASCII)
        if not name or not (text or (type(one) is int and 0 <= one < 10**9)):
            raise DataMissing(f"{shown}: {str(pair)[:80]} is not `image name: class id`")
        if name in found:
            raise DataMissing(f"{shown} names {name} twice")
        found[name] = int(one)
    if not found:
        raise DataMissing(f"{shown} names no image")
    return found


def _names(parts: Any, ids: Sequence[int]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the classes, and a note where they are only numbers."""
    folders: dict[int, set[str]] = {}
    for files in parts:
        for name, label in files.items():
            folders.setdefault(label, set()).add(name.split("/")[-2] if "/" in name else "")
    first = [min(folders[label]) for label in range(len(ids))]
    # ``001.Black_footed_Albatross``, ``n02085620-Chihuahua``; folders of NABirds are numbers.
    names = tuple(_trees.plain(re.sub(r"^n\d{8}-", "", folder)) for folder in first)
    alone = all(len(found) == 1 for found in folders.values())
    if alone and len(set(names)) == len(ids) and not any(re.fullmatch(r"[\d\W]*", name) for name in names):
        return names, {}
    return tuple(f"class {one}" for one in ids), {"class names": "ids of the lists"}


def build(config: FgvcConfig, request: ScenarioRequest) -> Scenario:
    """Builds the data set. See `listing` and `bench_scenarios._trees.samples` for what it raises."""
    found = listing(config, request)
    with FGVC.reading(data.data_root(request.data_root)):
        samples = _trees.samples(found, request)
    experience = Experience(
        train=samples["train"],
        test=samples["test"],
        classes=tuple(range(len(found.class_names))),
        validation=samples["validation"],
    )
    return Scenario.of(
        SPEC, config, version=1, experiences=(experience,), class_names=found.class_names, notes=found.notes
    )


def miniature(root: Path) -> None:
    """An image per class and list of birds and of dogs (`benchmark.specs.ScenarioSpec.miniature`)."""
    for name, form in (("cub", "{:03d}.Some_Bird_{}"), ("dogs", "n{:08d}-Some_dog_{}")):
        which, folder = SETS[name], root / FGVC.folders[0] / name
        for part in PARTS.values():
            files = {f"{form.format(one, one)}/{part}_{one}.jpg": one for one in range(1, which.classes + 1)}
            _trees.write(folder / which.images, files)
            (folder / f"{part}.json").write_text(json.dumps(files))


SPEC = ScenarioSpec(
    name="fgvc",
    build=build,
    config=FgvcConfig,
    summary="five fine-grained data sets (birds, flowers, dogs, cars) in the cuts of the VPT paper",
    family="collection",
    tracks={"paper": "fgvc224", "mini": "fgvc224"},
    variant="set",
    variants=tuple(SETS),
    source=SOURCE,
    licence="those of the five data sets",
    size_mb=15000.0,  # estimated: no source states it
    data=(FGVC,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``fgvc``."""
    return [SPEC]
