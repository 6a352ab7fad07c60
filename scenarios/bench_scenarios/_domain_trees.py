"""Reads data sets of several domains that lie in folders: Office-Home, DomainNet, CORe50, CDDB.

Sources: Office-Home: Venkateswara et al., "Deep Hashing Network for Unsupervised Domain Adaptation", CVPR 2017.
DomainNet: Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019, with the lists of the cleaned
version. CORe50: Lomonaco and Maltoni, CoRL 2017. CDDB: Li et al., "A Continual Deepfake Detection Benchmark", WACV
2023. Layouts are those that are published; where numbers of images are, they are compared, and an error tells both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench_scenarios import _trees
from benchmark import builders, data, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.scenario import ScenarioRequest

# --- Office-Home --------------------------------------------------------------------------------

OFFICE_HOME_DOMAINS = ("Art", "Clipart", "Product", "Real World")
OFFICE_HOME_COUNTS = {"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357}
OFFICE_HOME_CLASSES = 65
OFFICE_HOME_SOURCE = "https://www.hemanthdv.org/officeHomeDataset.html"
OFFICE_HOME_LICENCE = "for non-commercial research"
OFFICE_HOME = DataSet(
    title="Office-Home",
    folders=("office_home", "office-home", "OfficeHome", "OfficeHomeDataset_10072016"),
    layouts=("{Art,Clipart,Product,Real World}/<class>/*.jpg",),
)


def office_home(request: ScenarioRequest) -> _trees.Listing:
    """The files of every domain, by its name, not cut.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(OFFICE_HOME, request, OFFICE_HOME_SOURCE)
    with OFFICE_HOME.reading(data.data_root(request.data_root)):
        parts: dict[str, dict[str, int]] = {}
        labels: dict[str, int] = {}
        for domain in OFFICE_HOME_DOMAINS:
            own = _spelled(folder, domain)
            classes = _trees.class_folders(folder / own)
            found = _trees.numbered(classes, OFFICE_HOME_CLASSES, folder / own)
            if labels and found != labels:
                raise DataMissing(
                    f"{readers.shown(folder / own)} has other classes: {min(found.keys() ^ labels.keys())}"
                )
            labels = found
            parts[domain] = {f"{own}/{name}": labels[one] for one, names in classes.items() for name in names}
        counts = {domain: len(files) for domain, files in parts.items()}
        builders.check_counts(counts, OFFICE_HOME_COUNTS, request)
    names = tuple(_trees.plain(name) for name in labels)
    return _trees.Listing(root=folder, parts=parts, class_names=names, notes={"layout": "tree"})


def _spelled(folder: Path, domain: str) -> str:
    """How a copy spells a domain: ``Real World``, ``RealWorld`` and ``Real_World`` are all in use."""
    for name in dict.fromkeys((domain, domain.replace(" ", ""), domain.replace(" ", "_"))):
        if readers.is_folder(folder / name):
            return name
    raise DataMissing(f"{readers.shown(folder)} has no folder {domain}")


def halves(listing: _trees.Listing) -> _trees.Listing:
    """Every domain of a listing cut into ``DOMAIN train`` and ``DOMAIN test`` by the suite's rule."""
    parts: dict[str, Mapping[str, int]] = {}
    for domain, files in listing.parts.items():
        parts[f"{domain} train"], parts[f"{domain} test"] = _trees.own_cut(files)
    return _trees.Listing(
        root=listing.root,
        parts=parts,
        class_names=listing.class_names,
        notes={**listing.notes, "split": "80/20 per class and domain, seed 0"},
        partition=_trees.OWN_CUT,
    )


# --- DomainNet ----------------------------------------------------------------------------------

DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
DOMAINNET_CLASSES = 345
DOMAINNET_COUNTS = {
    "clipart": (33_525, 14_604),
    "infograph": (36_023, 15_582),
    "painting": (50_416, 21_850),
    "quickdraw": (120_750, 51_750),
    "real": (120_906, 52_041),
    "sketch": (48_212, 20_916),
}
MINI_CLASSES = 126
MINI_COUNT = 140_006  # in all; the single lists are not published
PAINTING_ELSEWHERE = (50_426, 21_855)  # of the lists that some repositories have
DOMAINNET_SOURCE = "http://ai.bu.edu/M3SDA (cleaned version; lists below groundtruth/ for clipart and painting)"
DOMAINNET_LICENCE = "for research; images of the web"
DOMAINNET = DataSet(
    title="DomainNet",
    folders=("domainnet", "DomainNet", "domain_net"),
    layouts=(
        "<domain>/<class>/*.jpg or *.png and [splits/]<domain>_{train,test}.txt (`path label` per line)",
        "splits_mini/<domain>_{train,test}.txt for miniDomainNet",
    ),
)


def domainnet(request: ScenarioRequest, domains: Sequence[str] = DOMAINNET_DOMAINS) -> _trees.Listing:
    """The files of the lists of some domains, parts ``DOMAIN train`` and ``DOMAIN test``.

    Raises:
        DataMissing: Lists or images are absent, or are not what they should be.
    """
    folder = _trees.folder_of(DOMAINNET, request, DOMAINNET_SOURCE)
    with DOMAINNET.reading(data.data_root(request.data_root)):
        parts: dict[str, dict[str, int]] = {}
        names: dict[int, str] = {}
        notes = {"layout": "lists"}
        for domain in domains:
            for part in ("train", "test"):
                path = _first(folder, (f"{domain}_{part}.txt", f"splits/{domain}_{part}.txt"))
                parts[f"{domain} {part}"] = _listed(path, domain, names, DOMAINNET_CLASSES)
            found = tuple(len(parts[f"{domain} {part}"]) for part in ("train", "test"))
            if domain == "painting" and found == PAINTING_ELSEWHERE:
                notes["painting"] = "lists of 50,426 and 21,855 images, the published ones have 50,416 and 21,850"
            else:
                told = {f"{domain} {part}": count for part, count in zip(("train", "test"), found, strict=True)}
                published = zip(("train", "test"), DOMAINNET_COUNTS[domain], strict=True)
                builders.check_counts(told, {f"{domain} {part}": count for part, count in published}, request)
        if sorted(names) != list(range(DOMAINNET_CLASSES)):
            raise DataMissing(f"the lists have {len(names)} classes instead of {DOMAINNET_CLASSES}")
    told_names = tuple(_trees.plain(names[label]) for label in range(DOMAINNET_CLASSES))
    return _trees.Listing(root=folder, parts=parts, class_names=told_names, notes=notes)


def mini_domainnet(request: ScenarioRequest, domains: Sequence[str], used: Sequence[str]) -> _trees.Listing:
    """The files of the lists of miniDomainNet, parts as of `domainnet`.

    Args:
        request: Data root.
        domains: All that there are; their images are counted.
        used: Those of the listing.

    Raises:
        DataMissing: Lists are absent, or are not what they should be.
    """
    folder = _trees.folder_of(DOMAINNET, request, DOMAINNET_SOURCE)
    with DOMAINNET.reading(data.data_root(request.data_root)):
        names: dict[int, str] = {}
        parts: dict[str, Mapping[str, int]] = {}
        for domain in domains:
            for part in ("train", "test"):
                path = _first(folder, (f"splits_mini/{domain}_{part}.txt",))
                parts[f"{domain} {part}"] = _listed(path, domain, names, MINI_CLASSES)
        count = sum(map(len, parts.values()))
        builders.check_counts({"miniDomainNet": count}, {"miniDomainNet": MINI_COUNT}, request)
        if sorted(names) != list(range(MINI_CLASSES)):
            raise DataMissing(f"the lists below splits_mini have {len(names)} classes instead of {MINI_CLASSES}")
    chosen = {name: files for name, files in parts.items() if name.split()[0] in used}
    told = tuple(_trees.plain(names[label]) for label in range(MINI_CLASSES))
    return _trees.Listing(root=folder, parts=chosen, class_names=told, notes={"layout": "lists of miniDomainNet"})


def _first(folder: Path, names: Sequence[str]) -> Path:
    found = next((folder / name for name in names if readers.is_file(folder / name)), None)
    if found is None:
        raise DataMissing(f"{readers.shown(folder / names[0])} is missing")
    return found


def _listed(path: Path, domain: str, names: dict[int, str], classes: int) -> dict[str, int]:
    """A list of ``domain/class/file label``; every label has one class folder, in all lists."""
    found = {}
    for name, (label, line) in readers.read_list(path).items():
        pieces = name.split("/")
        if len(pieces) != 3 or pieces[0] != domain or not 0 <= label < classes:
            raise DataMissing(
                f"{readers.shown(path)}, line {line}: {name!r} with label {label} is not "
                f"`{domain}/<class>/<file> label`"
            )
        if names.setdefault(label, pieces[1]) != pieces[1]:
            raise DataMissing(
                f"{readers.shown(path)}, line {line}: label {label} is {pieces[1]} here and {names[label]} elsewhere"
            )
        found[name] = label
    return found


# --- CORe50 -------------------------------------------------------------------------------------

CORE50_TRAIN = (1, 2, 4, 5, 6, 8, 9, 11)
CORE50_TEST = (3, 7, 10)
CORE50_COUNTS = {"train": 119_894, "test": 44_972}
CORE50_CATEGORIES = (
    "plug adapter",
    "mobile phone",
    "scissors",
    "light bulb",
    "can",
    "glasses",
    "ball",
    "marker",
    "cup",
    "remote control",
)
CORE50_SOURCE = "https://vlomonaco.github.io/core50 (core50_128x128.zip)"
CORE50_LICENCE = "CC BY 4.0"
CORE50 = DataSet(
    title="CORe50",
    folders=("core50", "CORe50"),
    layouts=("core50_128x128/s<1..11>/o<1..50>/C_<session>_<object>_<frame>.png",),
)


def core50(request: ScenarioRequest, *, objects: bool = True) -> _trees.Listing:
    """The frames of every training session, parts ``session N train``, and of the three test sessions, part ``test``.

    Args:
        request: Data root and cache.
        objects: 50 objects as classes, or their 10 categories.

    Raises:
        DataMissing: The data are absent, incomplete, or not what they should be.
    """
    folder = _trees.folder_of(CORE50, request, CORE50_SOURCE)
    with CORE50.reading(data.data_root(request.data_root)):
        folder = next((inner for inner in (folder / "core50_128x128", folder) if (inner / "s1").is_dir()), folder)
        parts: dict[str, dict[str, int]] = {"test": {}}
        for session in sorted((*CORE50_TRAIN, *CORE50_TEST)):
            own = f"s{session}"
            classes = _trees.class_folders(folder / own)
            if classes.keys() != {f"o{number}" for number in range(1, 51)}:
                raise DataMissing(f"{readers.shown(folder / own)} has not the folders o1 to o50")
            files = {
                f"{own}/{name}": _core50_label(folder / own / name, one, objects)
                for one, names in classes.items()
                for name in names
            }
            if session in CORE50_TEST:
                parts["test"].update(files)
            else:
                parts[f"session {session} train"] = files
        counts = {
            "train": sum(len(files) for part, files in parts.items() if part != "test"),
            "test": len(parts["test"]),
        }
        builders.check_counts(counts, CORE50_COUNTS, request)
    names: tuple[str, ...] = CORE50_CATEGORIES
    if objects:
        names = tuple(f"{category} {number}" for category in CORE50_CATEGORIES for number in range(1, 6))
    return _trees.Listing(root=folder, parts=parts, class_names=names, notes={"layout": "128x128"})


def _core50_label(path: Path, folder: str, objects: bool) -> int:
    number = re.fullmatch(r"C_\d+_(\d+)_\d+", path.stem)
    if number is None or f"o{int(number[1])}" != folder:
        raise DataMissing(f"{readers.shown(path)} is not a frame C_<session>_<object>_<frame> of its folder")
    return (int(number[1]) - 1) // (1 if objects else 5)


# --- CDDB ---------------------------------------------------------------------------------------

CDDB_STREAMS = {
    "hard": ("gaugan", "biggan", "wild", "whichfaceisreal", "san"),
    "easy": ("gaugan", "biggan", "cyclegan", "imle", "deepfake", "crn", "wild"),
    "long": (
        "gaugan",
        "biggan",
        "cyclegan",
        "imle",
        "deepfake",
        "crn",
        "wild",
        "glow",
        "stargan_gf",
        "stylegan",
        "whichfaceisreal",
        "san",
    ),
}
CDDB_KINDS = ("0_real", "1_fake")
CDDB_SOURCE = "https://github.com/Coral79/CDDB"
CDDB_LICENCE = "that of its components"
CDDB = DataSet(
    title="CDDB",
    folders=("cddb", "CDDB"),
    layouts=("<generator>/{train,val}/[<object>/]{0_real,1_fake}/*",),
)


def cddb(request: ScenarioRequest, generators: Sequence[str]) -> _trees.Listing:
    """The files of some generators, parts ``GENERATOR train`` and ``GENERATOR test`` (its folder ``val``).

    Raises:
        DataMissing: The data are absent or incomplete, or an image is neither in ``0_real`` nor in ``1_fake``.
    """
    folder = _trees.folder_of(CDDB, request, CDDB_SOURCE)
    with CDDB.reading(data.data_root(request.data_root)):
        parts: dict[str, dict[str, int]] = {}
        for generator in generators:
            for split, part in (("train", "train"), ("val", "test")):
                where = folder / generator / split
                files = {}
                for name in readers.find_images(where).names:
                    kinds = [kind for kind in name.split("/")[:-1] if kind in CDDB_KINDS]
                    if len(kinds) != 1:
                        raise DataMissing(f"{readers.shown(where / name)} is in no folder {' or '.join(CDDB_KINDS)}")
                    files[f"{generator}/{split}/{name}"] = CDDB_KINDS.index(kinds[0])
                if len(set(files.values())) < len(CDDB_KINDS):
                    raise DataMissing(f"{readers.shown(where)} does not hold both {' and '.join(CDDB_KINDS)}")
                parts[f"{generator} {part}"] = files
    counts = ", ".join(f"{part} {len(files):,}" for part, files in parts.items())
    return _trees.Listing(
        root=folder, parts=parts, class_names=("real", "fake"), notes={"layout": "tree", "images": counts}
    )
