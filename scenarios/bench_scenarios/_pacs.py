"""Reads PACS: 9,991 images of 7 classes in four domains, from a tree of folders.

Source: Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017. Layout: ``<domain>/<class>/<image>``
below ``PACS/``, ``PACS/images/`` (Dassl) or ``PACS/kfold/`` (DomainBed); class index = alphabetical rank, folders are
matched by name (`benchmark.readers.class_folders`). The official lists ``<domain>_train_kfold.txt`` and
``<domain>_crossval_kfold.txt`` (90/10) are used for the split where all eight are there; otherwise 80/20 per class by
`benchmark.splits.train_test`, per domain, seed 0. Sample ids are ranks of (domain, class, file name). Decoded images
are kept in the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from benchmark import data, readers, splits
from benchmark.config import Range, check_ranges
from benchmark.data import DataSet, Form
from benchmark.errors import DataMissing
from benchmark.readers import Array
from benchmark.samples import Pixels, Samples
from benchmark.scenario import ScenarioRequest

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
DOMAINS = ("photo", "art_painting", "cartoon", "sketch")  # from natural to abstract
PAIRS = tuple(f"{source}-{target}" for source in DOMAINS for target in DOMAINS if source != target)
COUNTS = {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929}
ORIGINAL_SIDE = 227
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

SOURCE = "https://domaingeneralization.github.io; fetched by facebookresearch/DomainBed domainbed/scripts/download.py"
LICENCE = "none stated at the source"

PACS = DataSet(
    title="PACS",
    folders=("PACS", "pacs"),
    layouts=(
        "{photo,art_painting,cartoon,sketch}/<class>/*.jpg or *.png",
        "images/<domain>/<class>/*",
        "kfold/<domain>/<class>/*",
    ),
    source=SOURCE,
    licence=LICENCE,
    class_names=CLASSES,
    look=lambda root: _look(root),
    contents=lambda request: _contents(request),
    facts=Path(__file__).with_name("facts") / "pacs.json",
)

_READER = "2"  # part of every cache key; rises when the decoded arrays change


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsConfig:
    """Options of the PACS scenarios.

    Attributes:
        size: Side of the stored images in pixels: others are resized to it when they are read. 0 keeps
            the size of the files (227 pixels in the original, which takes 1.5 GB of memory).
    """

    size: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks the size."""
        check_ranges(self)


@dataclass(frozen=True)
class Pacs:
    """The data set in memory.

    Attributes:
        images: uint8 ``(9991, 3, S, S)``, sorted by domain, class, file name.
        source: The same as a source.
        labels: int64 ``(9991,)``.
        rows: Rows of each domain.
        train: For each domain the rows of its training part.
        test: Likewise of its test part.
        notes: For the record.
        partition: What made training and test parts (`benchmark.scenario.Scenario.partition`).
    """

    images: Array
    source: Pixels
    labels: Array
    rows: Mapping[str, Array]
    train: Mapping[str, Array]
    test: Mapping[str, Array]
    notes: Mapping[str, str]
    partition: str

    def subset(self, rows: Array, domains: Array | None = None) -> Samples:
        """Images of the given rows on the shared source, ids are rows."""
        import torch

        from benchmark.api import Samples

        places = torch.from_numpy(np.ascontiguousarray(rows))
        given = None if domains is None else torch.from_numpy(domains)
        return Samples(self.source, places, torch.from_numpy(self.labels[rows]), places, given)

    def several(self, parts: Mapping[str, Array], domains: Sequence[str]) -> Samples:
        """Rows of several domains, one after the other, each image with its domain."""
        rows = np.concatenate([parts[domain] for domain in domains])
        place = np.repeat(np.arange(len(domains)), [len(parts[domain]) for domain in domains])
        return self.subset(rows, place)


def load(config: PacsConfig, request: ScenarioRequest) -> Pacs:
    """Reads the data set, from the cache if it was decoded before.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    import torch

    root = data.data_root(request.data_root)
    with PACS.reading(root):
        base = _find(root)
        files, labels, names = _files(base)
        key = readers.file_key(files, base, _READER, f"size {config.size}")
        decode = functools.partial(_decode, files, config.size)
        kept = readers.cached_arrays(request.cache / f"pacs-{key}", decode)
        lists = _lists(base)
        domain_of = np.array([path.parent.parent.name for path in files])
        rows = {domain: np.flatnonzero(domain_of == domain) for domain in DOMAINS}
        known = {} if lists is None else {name: row for row, name in enumerate(names)}
        parts = {
            domain: _cut(labels, rows[domain]) if lists is None else _listed(lists[domain], domain, known, labels)
            for domain in DOMAINS
        }
    kept.notes["split"] = "80/20 per class and domain, seed 0" if lists is None else "official lists (90/10)"
    train, test = ({domain: part[place] for domain, part in parts.items()} for place in (0, 1))
    images = kept.arrays["images"]
    source = Pixels(torch.from_numpy(images), kept.digests["images"])
    # Lists are files that can be edited: with their hash, runs on other parts of the same images share no row.
    chosen = hashlib.sha256(b" ".join(train[domain].astype("<i8").tobytes() for domain in DOMAINS)).hexdigest()
    partition = "80/20 cut" if lists is None else f"official lists {chosen[:8]}"
    return Pacs(images, source, labels, rows, train, test, kept.notes, partition)


def _look(root: Path) -> Form | None:
    """What is below a data root, or None where there is nothing."""
    if data.find(PACS.folders, root) is None:
        return None
    return Form(name="tree", files=tuple(_files(_find(root))[0]))


def _contents(request: ScenarioRequest) -> tuple[dict[str, Samples], Mapping[str, str]]:
    """The images of each domain."""
    found = load(PacsConfig(), request)
    return {domain: found.subset(found.rows[domain]) for domain in sorted(DOMAINS)}, found.notes


def _find(root: Path) -> Path:
    """The folder with the four domains."""
    folder = data.find(PACS.folders, root)
    if folder is None:
        raise DataMissing(f"not found below {root}, and it is not fetched by itself; it is at {SOURCE}")
    for base in (folder, folder / "images", folder / "kfold"):
        present = [domain for domain in DOMAINS if readers.is_folder(base / domain)]
        if len(present) == len(DOMAINS):
            return base
        if present:
            absent = next(domain for domain in DOMAINS if domain not in present)
            raise DataMissing(f"{readers.shown(base / absent)} is missing")
    raise DataMissing(f"{readers.shown(folder)} has none of the folders {', '.join(DOMAINS)}")


def _files(base: Path) -> tuple[list[Path], Array, list[str]]:
    """All images in the order of (domain, class, file name) by code point, their labels, and what lists call them."""
    found: list[Path] = []
    labels: list[int] = []
    for domain in sorted(DOMAINS):
        before = len(found)
        for label, folder in enumerate(readers.class_folders({domain: base / domain}, CLASSES)[domain]):
            found += readers.image_files(folder, SUFFIXES)
            labels += [label] * (len(found) - len(labels))
        if len(found) - before != COUNTS[domain]:
            where = readers.shown(base / domain)
            raise DataMissing(f"{where} holds {len(found) - before:,} images instead of {COUNTS[domain]:,}")
    names = [
        f"{path.parent.parent.name}/{CLASSES[label]}/{path.name}" for path, label in zip(found, labels, strict=True)
    ]
    return found, np.array(labels, np.int64), names


def _decode(files: Sequence[Path], size: int) -> tuple[dict[str, Array], dict[str, str]]:
    blobs = ((readers.shown(path), readers.read_bytes(path, most=readers.MOST_IMAGE_BYTES)) for path in files)
    try:
        found = readers.decode(blobs, len(files), what="PACS", size=size)
    except DataMissing as error:
        more = "; --set scenario.size=N resizes all" if " pixels, others " in error.message else ""
        raise DataMissing(f"{error.message}{more}") from error
    wide, high = found.stored
    notes = {"layout": "tree", "pixels": f"{wide}x{high}" + (f", resized to {size}x{size}" if size else "")}
    if (wide, high) != (ORIGINAL_SIDE, ORIGINAL_SIDE):
        notes["resized"] = (
            f"this copy has {wide}x{high} pixels, the original {ORIGINAL_SIDE}x{ORIGINAL_SIDE}: "
            "not comparable with published figures"
        )
    # The original sketches are PNG files.
    if any(codec for path, codec in zip(files, found.codecs, strict=True) if path.parent.parent.name == "sketch"):
        notes["lossy"] = "JPEG sketches, the original ones are PNG"
    return {"images": found.images}, notes


def _lists(base: Path) -> dict[str, tuple[Path, Path]] | None:
    """The official lists of every domain, or None when there are none."""
    for folder in (base, base / "splits", base.parent / "splits", base.parent):
        found = {
            domain: (folder / f"{domain}_train_kfold.txt", folder / f"{domain}_crossval_kfold.txt")
            for domain in DOMAINS
        }
        there = [readers.is_file(path) for pair in found.values() for path in pair]
        if all(there):
            return found
        if any(there):
            absent = next(path for pair in found.values() for path in pair if not path.is_file())
            raise DataMissing(f"{readers.shown(absent)} is missing, but other official lists are there")
    return None


def _cut(labels: Array, rows: Array) -> tuple[Array, Array]:
    """Training and test rows of a domain without lists."""
    kept, held = splits.train_test(labels[rows])
    return rows[kept], rows[held]


def _listed(lists: tuple[Path, Path], domain: str, known: Mapping[str, int], labels: Array) -> tuple[Array, Array]:
    """Training and test rows of a domain from its two lists, in which labels start at 1.

    Raises:
        DataMissing: A list names an image that is not there or of another domain, or has a wrong label; or the two
            do not name each image of the domain once.
    """
    met: dict[int, str] = {}
    parts = []
    for path in lists:
        rows = []
        for name, (label, line) in readers.read_list(path).items():
            where = f"{readers.shown(path)}, line {line}"
            row = known.get(name)
            if row is None:
                raise DataMissing(f"{where}: there is no image {name}")
            if not name.startswith(f"{domain}/"):
                raise DataMissing(f"{where}: {name} is no image of {domain}")
            if label != labels[row] + 1:
                raise DataMissing(f"{where}: {name} has label {label}")
            if row in met:
                raise DataMissing(f"{where}: {name} is a training and a test image, it is in {met[row]} too")
            rows.append(row)
        met.update(dict.fromkeys(rows, readers.shown(path)))
        parts.append(np.array(sorted(rows), np.int64))
    absent = [name for name, row in known.items() if name.startswith(f"{domain}/") and row not in met]
    if absent:
        both = " and ".join(readers.shown(path) for path in lists)
        raise DataMissing(f"{both} name {len(met):,} of {COUNTS[domain]:,} images; {absent[0]} is in neither")
    return parts[0], parts[1]


def check_domain(field: str, domain: str) -> None:
    """Checks the name of a domain.

    Raises:
        ValueError: There is no such domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"{field}: {domain!r} is not a domain; use one of {', '.join(DOMAINS)}")
