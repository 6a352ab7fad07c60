"""Data sets of image files: which files are trained and tested, and what they show; images stay in their files.

A reader lists names relative to a folder with labels (`Listing`); `cut` makes samples of them. Sample ids are the
ranks of the names by code point over the whole list, so they depend neither on the file system nor on which part is
used.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark import builders, data, readers, splits
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.samples import Samples
from benchmark.scenario import ScenarioRequest

Labelled = Mapping[str, int]
"""Names of files, relative to a folder and with ``/``, and their original labels."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a data set.

    Attributes:
        root: Folder that the names are relative to.
        parts: Files of each part, e.g. ``train`` and ``test``, or ``photo train``.
        class_names: In label order.
        notes: For the record.
        partition: See `benchmark.scenario.Scenario.partition`.
    """

    root: Path
    parts: Mapping[str, Labelled]
    class_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""


def folder_of(dataset: DataSet, request: ScenarioRequest, where: str) -> Path:
    """The folder of a data set below the data root.

    Raises:
        DataMissing: There is none.
    """
    root = data.data_root(request.data_root)
    folder = data.find(dataset.folders, root)
    if folder is None:
        raise dataset.missing(root, f"not found below {root}, and it is not fetched by itself; it is at {where}")
    return folder


def samples(
    listing: Listing, request: ScenarioRequest, *, as_listed: bool = False, upright: bool = True
) -> dict[str, Samples]:
    """The samples of every part, on one source.

    Args:
        listing: The files.
        request: Cache folder.
        as_listed: Keep the order of the listing; default: that of the names.
        upright: Turn images as their EXIF data say.

    Raises:
        DataMissing: A file is absent or no image, or is in two parts.
    """
    import torch

    names = sorted({name for part in listing.parts.values() for name in part})
    if len(names) < sum(len(part) for part in listing.parts.values()):
        raise DataMissing(_twice(listing))
    source = source_of(readers.listed(listing.root, names), request, upright=upright)
    place = {name: row for row, name in enumerate(names)}
    found = {}
    for what, part in listing.parts.items():
        if not part:
            raise DataMissing(f"{what}: there is no image")
        ordered = list(part) if as_listed else sorted(part)
        rows = torch.tensor([place[name] for name in ordered])
        labels = torch.tensor([part[name] for name in ordered])
        found[what] = Samples(source, rows, labels)
    return found


def source_of(found: readers.Found, request: ScenarioRequest, *, upright: bool = True) -> readers.FileImages:
    """Image files as a source, turned as their EXIF data say or not.

    Raises:
        DataMissing: One of them is no image.
    """
    indexed = readers.index_files(found, request.cache)
    if indexed.bad:
        row = min(indexed.bad)
        more = f", and {len(indexed.bad) - 1} more cannot be read" if len(indexed.bad) > 1 else ""
        raise DataMissing(f"{indexed.bad[row]}{more}")
    return readers.FileImages(indexed, upright=upright)


def cut(listing: Listing, request: ScenarioRequest) -> builders.Cut:
    """Training and test samples of a listing with the parts ``train`` and ``test``. See `samples`."""
    found = samples(listing, request)
    return builders.Cut(
        train=found["train"],
        test=found["test"],
        class_names=listing.class_names,
        notes=listing.notes,
        partition=listing.partition,
    )


def domains(listing: Listing, names: Sequence[str], request: ScenarioRequest, *, joint: str = "") -> builders.Domains:
    """Training and test samples of a listing with the parts ``DOMAIN train`` and ``DOMAIN test``. See `samples`.

    Args:
        listing: The files.
        names: Of the domains.
        request: Cache folder.
        joint: Name of the part that is the one test set of all domains, if there is one.
    """
    found = samples(listing, request)
    return builders.Domains(
        train={name: found[f"{name} train"] for name in names},
        test={name: found[joint or f"{name} test"] for name in names},
        class_names=listing.class_names,
        notes=listing.notes,
        partition=listing.partition,
    )


def _twice(listing: Listing) -> str:
    met: dict[str, str] = {}
    for what, part in listing.parts.items():
        for name in part:
            if name in met:
                return f"{name} is in {met[name]} and in {what}"
            met[name] = what
    raise AssertionError


# --- Folders of classes -------------------------------------------------------------------------


def class_folders(folder: Path) -> dict[str, list[str]]:
    """The images of every class folder, at any depth below it; names relative to ``folder``.

    Raises:
        DataMissing: The folder is absent, holds images outside class folders, or a class folder without images.
    """
    found = readers.find_images(folder)
    classes: dict[str, list[str]] = {name: [] for name in readers.subfolders(folder)}
    for name in found.names:
        first, slash, _ = name.partition("/")
        if not slash:
            raise DataMissing(f"{readers.shown(folder / name)} is in no class folder")
        classes[first].append(name)
    for name, files in classes.items():
        if not files:
            raise DataMissing(f"{readers.shown(folder / name)} holds no image")
    return classes


def numbered(folders: Iterable[str], wanted: int, where: Path) -> dict[str, int]:
    """Labels of class folders: alphabetical ranks.

    Raises:
        DataMissing: There are more or fewer than there should be.
    """
    names = sorted(folders)
    if len(names) != wanted:
        raise DataMissing(f"{readers.shown(where)} has {len(names)} class folders instead of {wanted}")
    return {name: label for label, name in enumerate(names)}


def of_classes(root: Path, own: str, classes: Sequence[str]) -> dict[str, int]:
    """The images of the folders of known classes, ``own/<class>/``, with the places of these as labels.

    Args:
        root: Folder that the names are relative to.
        own: Folder below it.
        classes: Names of the class folders, in label order.

    Raises:
        DataMissing: See `class_folders`; or a class has no folder, or a folder is none of a class.
    """
    found = class_folders(root / own)
    if strange := sorted(found.keys() ^ set(classes)):
        what = "has no folder" if strange[0] in classes else "has the folder"
        raise DataMissing(f"{readers.shown(root / own)} {what} {strange[0]}")
    labels = {name: label for label, name in enumerate(classes)}
    return {f"{own}/{name}": labels[one] for one, names in found.items() for name in names}


def split_tree(folder: Path, wanted: int) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Parts and class folders of a tree ``{train,test}/<class>/<image>``.

    Raises:
        DataMissing: See `class_folders`; or the two splits have different classes.
    """
    parts: dict[str, dict[str, int]] = {}
    labels: dict[str, int] = {}
    for split in ("train", "test"):
        found = class_folders(folder / split)
        own = numbered(found, wanted, folder / split)
        if labels and own != labels:
            strange = min(own.keys() ^ labels.keys())
            raise DataMissing(f"{readers.shown(folder)}: train and test have different classes, e.g. {strange}")
        labels = own
        parts[split] = {f"{split}/{name}": labels[one] for one, names in found.items() for name in names}
    return parts, list(labels)


def own_cut(files: Labelled, seed: int = 0) -> tuple[dict[str, int], dict[str, int]]:
    """80 % of every class and the rest, by `benchmark.splits.train_test`; names in the order of code points."""
    names = sorted(files)
    train, test = splits.train_test([files[name] for name in names], seed=seed)
    return {names[row]: files[names[row]] for row in train}, {names[row]: files[names[row]] for row in test}


OWN_CUT = "80/20 cut"
"""`Scenario.partition` of `own_cut`."""


def plain(name: str) -> str:
    """A folder's name as words: ``001.Black_footed_Albatross`` is ``Black footed Albatross``."""
    number, point, rest = name.partition(".")
    return (rest if point and number.isdigit() and rest else name).replace("_", " ").strip()


def wordnet_names(folder: Path, wnids: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of WordNet ids, and a note where there are none.

    They are taken from ``classnames.txt`` (as CoOp's) or the ``README.txt`` of ImageNet-R and -A, lines of
    ``wnid name``; without these files, and for other folders than WordNet ids, the names of the folders stand.
    """
    known: dict[str, str] = {}
    for file in (folder / "README.txt", folder / "classnames.txt"):
        if readers.is_file(file):
            for line in readers.read_bytes(file, most=1 << 24).decode("utf-8", "replace").splitlines():
                wnid, _, name = line.strip().partition(" ")
                if len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() and name.strip():
                    known[wnid] = name.strip().replace("_", " ")
    names = tuple(known.get(wnid) or plain(wnid) for wnid in wnids)
    if len(set(names)) < len(names):  # ImageNet has two cranes and two maillots
        names = tuple(
            name if names.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)
        )
    absent = sum(wnid not in known for wnid in wnids)
    return names, {"class names": f"{absent} of {len(names)} are names of folders"} if absent else {}


# --- Tiny copies --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def tiny(suffix: str, shade: int, side: int = 8) -> bytes:
    """The bytes of a tiny image, for `benchmark.specs.ScenarioSpec.miniature` and tests."""
    from PIL import Image

    pixels = np.random.RandomState(shade).randint(0, 256, (side, side + 2, 3)).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG" if suffix == ".png" else "JPEG")
    return packed.getvalue()


def write(root: Path, names: Iterable[str]) -> None:
    """Writes a tiny image to each of some names below a folder."""
    made: set[Path] = set()
    for number, name in enumerate(names):
        path = root / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(tiny(path.suffix.lower(), number % 200))
