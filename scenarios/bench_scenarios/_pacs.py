"""Reads PACS: 9,991 images of 7 classes in four domains, from a tree of folders.

Source: Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017. Layout: ``<domain>/<class>/<image>``
below ``PACS/``, ``PACS/images/`` (Dassl) or ``PACS/kfold/`` (DomainBed); class index = alphabetical rank. The official
lists ``<domain>_train_kfold.txt`` and ``<domain>_crossval_kfold.txt`` (90/10) are used for the split where all eight
are there; otherwise 80/20 per class by `benchmark.splits.train_test`, per domain, seed 0. Sample ids are ranks of
(domain, class, file name). Decoded images are kept in the cache folder.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark import data, splits
from benchmark.data import Array, DataSet

if TYPE_CHECKING:
    from benchmark.api import ImageSet, ScenarioRequest

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
DOMAINS = ("photo", "art_painting", "cartoon", "sketch")  # from natural to abstract
PAIRS = tuple(f"{source}-{target}" for source in DOMAINS for target in DOMAINS if source != target)
COUNTS = {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929}
ORIGINAL_SIDE = 227
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

PACS = DataSet(
    title="PACS",
    folders=("PACS", "pacs"),
    layouts=(
        "{photo,art_painting,cartoon,sketch}/<class>/*.jpg or *.png",
        "images/<domain>/<class>/*",
        "kfold/<domain>/<class>/*",
    ),
)
SOURCE = "https://domaingeneralization.github.io; fetched by facebookresearch/DomainBed domainbed/scripts/download.py"
LICENCE = "none stated at the source"

_READER = "1"  # part of every cache key; rises when the decoded arrays change


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsConfig:
    """Options of the PACS scenarios.

    Attributes:
        size: Side of the stored images in pixels: others are resized to it when they are read. 0 keeps
            the size of the files (227 pixels in the original, which takes 1.5 GB of memory).
    """

    size: int = 0

    def __post_init__(self) -> None:
        """Checks the size."""
        if self.size < 0:
            raise ValueError(f"size: {self.size} is negative; use a number of pixels, or 0 for that of the files")


@dataclass(frozen=True)
class Pacs:
    """The data set in memory.

    Attributes:
        images: uint8 ``(9991, 3, S, S)``, sorted by domain, class, file name.
        labels: int64 ``(9991,)``.
        rows: Rows of each domain.
        train: For each domain the rows of its training part.
        test: Likewise of its test part.
        notes: For the record.
    """

    images: Array
    labels: Array
    rows: Mapping[str, Array]
    train: Mapping[str, Array]
    test: Mapping[str, Array]
    notes: Mapping[str, str]

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    @property
    def mark(self) -> str:
        """What follows the hash in the fingerprint."""
        return "-lossy" if "lossy" in self.notes else ""

    def subset(self, rows: Array, domains: Array | None = None) -> ImageSet:
        """Images of the given rows on the shared source, ids are rows."""
        import torch

        from benchmark.api import ImageSet

        places = torch.from_numpy(np.ascontiguousarray(rows))
        given = None if domains is None else torch.from_numpy(domains)
        return ImageSet(torch.from_numpy(self.images), places, torch.from_numpy(self.labels[rows]), places, given)

    def several(self, parts: Mapping[str, Array], domains: Sequence[str]) -> ImageSet:
        """Rows of several domains, one after the other, each image with its domain."""
        rows = np.concatenate([parts[domain] for domain in domains])
        place = np.repeat(np.arange(len(domains)), [len(parts[domain]) for domain in domains])
        return self.subset(rows, place)


def load(config: PacsConfig, request: ScenarioRequest) -> Pacs:
    """Reads the data set, from the cache if it was decoded before.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    root = data.data_root(request.data_root)
    base = _find(root)
    files = _files(base, root)
    key = data.file_key(files, base, _READER, f"size {config.size}")
    decode = functools.partial(_decode, files, config.size, root)
    arrays, notes = data.cached_arrays(request.cache / f"pacs-{key}", decode)
    domain_of = np.array([path.parent.parent.name for path in files])
    labels = np.array([CLASSES.index(path.parent.name) for path in files], np.int64)
    rows = {domain: np.flatnonzero(domain_of == domain) for domain in DOMAINS}
    lists = _lists(base, root)
    train, test = {}, {}
    if lists is None:
        notes["split"] = "80/20 per class and domain, seed 0"
        for domain in DOMAINS:
            kept, held = splits.train_test(labels[rows[domain]])
            train[domain], test[domain] = rows[domain][kept], rows[domain][held]
    else:
        notes["split"] = "official lists (90/10)"
        known = {path.relative_to(base).as_posix(): row for row, path in enumerate(files)}
        for domain in DOMAINS:
            train[domain], test[domain] = (_rows_of(path, known, root) for path in lists[domain])
    return Pacs(arrays["images"], labels, rows, train, test, notes)


def _find(root: Path) -> Path:
    """The folder with the four domains."""
    folder = data.find(PACS.folders, root)
    if folder is None:
        raise PACS.missing(root, f"not found below {root}, and it is not fetched by itself; it is at {SOURCE}")
    for base in (folder, folder / "images", folder / "kfold"):
        present = [domain for domain in DOMAINS if (base / domain).is_dir()]
        if len(present) == len(DOMAINS):
            return base
        if present:
            absent = next(domain for domain in DOMAINS if domain not in present)
            raise PACS.missing(root, f"{base / absent} is missing")
    raise PACS.missing(root, f"{folder} has none of the folders {', '.join(DOMAINS)}")


def _files(base: Path, root: Path) -> list[Path]:
    """All images in the order of (domain, class, file name) by code point."""
    found = []
    for domain in sorted(DOMAINS):
        names = sorted(path.name for path in (base / domain).iterdir() if path.is_dir())
        if tuple(names) != CLASSES:
            raise PACS.missing(root, f"{base / domain} holds {', '.join(names) or 'nothing'}, not {', '.join(CLASSES)}")
        own = [
            path
            for name in names
            for path in sorted((base / domain / name).iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if len(own) != COUNTS[domain]:
            raise PACS.missing(root, f"{base / domain} holds {len(own):,} images instead of {COUNTS[domain]:,}")
        found += own
    return found


def _decode(files: Sequence[Path], size: int, root: Path) -> tuple[dict[str, Array], dict[str, str]]:
    from PIL import Image
    from tqdm import tqdm

    out: Array = np.empty((0, 3, 1, 1), np.uint8)
    stored: tuple[int, int] | None = None
    lossy = False
    for row, path in enumerate(tqdm(files, desc="decoding PACS", unit="img", disable=None)):
        blob = path.read_bytes()
        try:
            with Image.open(io.BytesIO(blob)) as opened:
                image = opened.convert("RGB")
        except Exception as error:  # PIL raises what its decoders raise
            raise PACS.missing(root, f"{path} is not a readable image: {error}") from error
        if stored is None:
            stored = image.size
        if image.size != stored and not size:
            raise PACS.missing(
                root,
                f"{path} has {image.size[0]}x{image.size[1]} pixels, others {stored[0]}x{stored[1]}; "
                "--set scenario.size=N resizes all",
            )
        if size and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        if row == 0:
            out = np.empty((len(files), 3, image.size[1], image.size[0]), np.uint8)
        out[row] = np.asarray(image).transpose(2, 0, 1)
        # The original sketches are PNG files.
        lossy = lossy or (path.parent.parent.name == "sketch" and blob[:2] == b"\xff\xd8")
    wide, high = stored or (0, 0)
    notes = {"layout": "tree", "pixels": f"{wide}x{high}" + (f", resized to {size}x{size}" if size else "")}
    if (wide, high) != (ORIGINAL_SIDE, ORIGINAL_SIDE):
        notes["resized"] = (
            f"this copy has {wide}x{high} pixels, the original {ORIGINAL_SIDE}x{ORIGINAL_SIDE}: "
            "not comparable with published figures"
        )
    if lossy:
        notes["lossy"] = "JPEG sketches, the original ones are PNG"
    return {"images": out}, notes


def _lists(base: Path, root: Path) -> dict[str, tuple[Path, Path]] | None:
    """The official lists of every domain, or None when there are none."""
    for folder in (base, base / "splits", base.parent / "splits", base.parent):
        found = {
            domain: (folder / f"{domain}_train_kfold.txt", folder / f"{domain}_crossval_kfold.txt")
            for domain in DOMAINS
        }
        there = [path.is_file() for pair in found.values() for path in pair]
        if all(there):
            return found
        if any(there):
            absent = next(path for pair in found.values() for path in pair if not path.is_file())
            raise PACS.missing(root, f"{absent} is missing, but other official lists are there")
    return None


def _rows_of(path: Path, known: Mapping[str, int], root: Path) -> Array:
    """Rows of a list of ``relative/path label`` lines; labels are checked, and start at 1."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        row = known.get(name)
        if not name:
            continue
        if row is None:
            raise PACS.missing(root, f"{path}, line {number}: there is no image {name}")
        if label != str(CLASSES.index(name.split("/")[1]) + 1):
            raise PACS.missing(root, f"{path}, line {number}: {name} has label {label}")
        rows.append(row)
    return np.array(sorted(rows), np.int64)


def check_domain(field: str, domain: str) -> None:
    """Checks the name of a domain.

    Raises:
        ValueError: There is no such domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"{field}: {domain!r} is not a domain; use one of {', '.join(DOMAINS)}")
