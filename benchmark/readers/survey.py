"""What a user's own images are, before anything is trained on them: counts, sizes, forms, and what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.index import index_files
from benchmark.readers.layouts import TEST, TRAIN, Layout, read_layout
from benchmark.readers.walk import subfolders

_THREADS = 4
FEW = 5
"""With fewer images the 80/20 cut leaves a class none to test on."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        layout: The images and their classes.
        per_class: Images of each class by its name: training, testing (or all, and zero, where nothing is given).
        sizes: How many images have which width and height, the most frequent first.
        forms: How many images have which format and mode, e.g. ``JPEG RGB``.
        bad: Why files cannot be read, by relative path.
        shared: Groups of equal files of which some are for training, some for testing.
        double: Other groups of equal files.
        disputed: Those of all groups whose files have different classes.
        few: Classes with fewer than `FEW` images, where the 80/20 cut would be made.
        single: Classes of one image.
        digest: Hash of all bytes.
    """

    layout: Layout
    per_class: Mapping[str, tuple[int, int]]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    forms: Mapping[str, int]
    bad: Mapping[str, str]
    shared: tuple[tuple[str, ...], ...]
    double: tuple[tuple[str, ...], ...]
    disputed: tuple[tuple[str, ...], ...]
    few: tuple[str, ...]
    single: tuple[str, ...]
    digest: str


def survey(path: Path, cache: Path, *, domains: bool | None = None, quiet: bool = False) -> Survey:
    """Looks at every image of a tree or a list; all are decoded once, and the index remembers it.

    Args:
        path: Folder or list.
        cache: Cache folder.
        domains: Whether images belong to domains; None: as the folders look.
        quiet: No progress bar.

    Raises:
        DataMissing: There are no images, or they are not laid out so.
    """
    layout = read_layout(path, domains=_has_domains(path) if domains is None else domains)
    indexed = index_files(layout.found, cache, decode=True, quiet=quiet)
    good = [row for row in range(len(layout.found)) if row not in indexed.bad]
    with ThreadPoolExecutor(_THREADS) as pool:
        heads = [head for head in pool.map(lambda row: _head(layout.found.path(row)), good) if head is not None]
    test = np.zeros(len(layout.labels), bool) if layout.test is None else layout.test
    counts = [np.bincount(layout.labels[part], minlength=len(layout.class_names)) for part in (~test, test)]
    groups: dict[bytes, list[int]] = {}
    for row in good:
        groups.setdefault(indexed.digests[row].tobytes(), []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    shared = [rows for rows in several if len(set(test[rows].tolist())) > 1]
    names = layout.class_names
    everything = dict(zip(names, (counts[0] + counts[1]).tolist(), strict=True))
    few = tuple(name for name, count in everything.items() if count < FEW)
    return Survey(
        layout=layout,
        per_class={name: (int(counts[0][label]), int(counts[1][label])) for label, name in enumerate(names)},
        sizes=tuple(Counter(size for size, _ in heads).most_common()),
        forms=dict(Counter(form for _, form in heads).most_common()),
        bad={_name(layout, row): problem for row, problem in sorted(indexed.bad.items())},
        shared=_named(layout, shared),
        double=_named(layout, [rows for rows in several if rows not in shared]),
        disputed=_named(layout, [rows for rows in several if len(set(layout.labels[rows].tolist())) > 1]),
        few=() if layout.test is not None else few,
        single=tuple(name for name, count in everything.items() if count == 1),
        digest=indexed.digest,
    )


def _has_domains(path: Path) -> bool:
    """Whether the folders in all folders of a tree are the same: classes in domains."""
    if files.kind(path) != "a folder":
        return False
    inside = [set(subfolders(path / name)) for name in subfolders(path)]
    first = inside[0] if len(inside) > 1 else set()
    try:
        return bool(first) and all(names == first for names in inside) and not _is_split(path)
    except DataMissing:
        return False


def _is_split(path: Path) -> bool:
    return {name.lower() for name in subfolders(path)} <= TRAIN | set(TEST)


def _head(path: Path) -> tuple[tuple[int, int], str] | None:
    """Size, format and mode of an image from its first bytes."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size, f"{image.format} {image.mode}"
    except Exception:  # what cannot be opened is among the bad ones already
        return None


def _name(layout: Layout, row: int) -> str:
    return files.shown(layout.found.names[row])


def _named(layout: Layout, groups: list[list[int]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(_name(layout, row) for row in rows) for rows in groups)
