"""Folders of images: ``<split>/<class>/<image>``, labels by the names of the class folders."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.images import MOST_IMAGE_BYTES, SUFFIXES, Decoded, decode


def class_folders(splits: Mapping[str, Path], class_names: Sequence[str]) -> dict[str, list[Path]]:
    """The class folders of every split in label order.

    A folder is called by its class (case, ``_``, ``-`` and blanks do not matter, and a number before the name such as
    ``0_apple`` is set aside), or all folders of all splits are called by numbers, the same ones in each split, which
    are ranked.

    Args:
        splits: Folder of each split.
        class_names: Names of the classes in label order.

    Raises:
        DataMissing: A folder is no class, a class has no folder or two, or the splits do not agree; names the folders.
    """
    found = {split: [path for path in files.listing(folder) if os.path.isdir(path)] for split, folder in splits.items()}
    every = [path for folders in found.values() for path in folders]
    # ASCII digits alone: others that Unicode counts as decimal would be a second spelling of the same number.
    if every and all(re.fullmatch("[0-9]+", path.name) for path in every):
        ranked = {split: _keyed(folders, lambda path: int(path.name)) for split, folders in found.items()}
        first = next(iter(ranked))
        for split, numbers in ranked.items():
            _count(splits[split], len(numbers), len(class_names))
            if numbers.keys() != ranked[first].keys():
                strange = min(numbers.keys() ^ ranked[first].keys())
                raise DataMissing(
                    f"{files.shown(splits[first])} and {files.shown(splits[split])} have different class folders: "
                    f"only one of them has {strange}"
                )
        return {split: [numbers[number] for number in sorted(numbers)] for split, numbers in ranked.items()}
    known = {_plain(name): name for name in class_names}
    ordered = {}
    for split, folders in found.items():
        named = _keyed(folders, lambda path: _plain(path.name))
        absent = [name for plain, name in known.items() if plain not in named]
        strange_ones = [path for plain, path in named.items() if plain not in known]
        if strange_ones or absent:
            raise _disagreement(splits[split], len(folders), strange_ones, absent, class_names)
        ordered[split] = [named[plain] for plain in known]
    return ordered


def _keyed(folders: Sequence[Path], key: Callable[[Path], Any]) -> dict[Any, Path]:
    """Folders by what their names mean; two that mean the same are an error."""
    found: dict[Any, Path] = {}
    for path in folders:
        twin = found.setdefault(key(path), path)
        if twin is not path:
            raise DataMissing(f"{files.shown(twin)} and {files.shown(path)} are the same class")
    return found


def _plain(name: str) -> str:
    """A class name without case, separators and a leading number."""
    plain = re.sub(r"[\s_-]+", " ", name).strip().casefold()
    return re.sub(r"^[0-9]+[ .]+(?=\S)", "", plain)


def _count(folder: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise DataMissing(f"{files.shown(folder)} has {found} class folders instead of {wanted}")


def _disagreement(
    folder: Path, found: int, strange: Sequence[Path], absent: Sequence[str], class_names: Sequence[str]
) -> DataMissing:
    said = f"{files.shown(folder)} has {found} class folders instead of {len(class_names)}: "
    told = said if found != len(class_names) else ""
    parts = []
    if strange:
        which = files.shown(strange[0])
        close = absent if len(absent) == 1 else difflib.get_close_matches(_plain(strange[0].name), absent, n=1)
        parts.append(f"{which} is none of the classes" + (f" (should it be {close[0]}?)" if close else ""))
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        parts.append(f"{files.shown(folder)} has no folder {', '.join(absent[:5])}{more}")
    return DataMissing(told + "; ".join(parts))


def image_files(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Image files of one folder in the order of their names by code point."""
    return [path for path in files.listing(folder) if path.suffix.lower() in suffixes]


def read_tree(folders: Sequence[Path], *, what: str, size: int = 0) -> tuple[Decoded, npt.NDArray[np.int64]]:
    """The images of the class folders of one split, sorted by folder name, then file name, and their labels.

    Args:
        folders: In label order, from `class_folders`.
        what: Name for the progress bar.
        size: See `decode`.

    Raises:
        DataMissing: See `decode`.
    """
    label = {folder: number for number, folder in enumerate(folders)}
    paths = [path for folder in sorted(folders) for path in image_files(folder)]
    labels = np.array([label[path.parent] for path in paths], np.int64)
    blobs = ((files.shown(path), files.read_bytes(path, most=MOST_IMAGE_BYTES)) for path in paths)
    return decode(blobs, len(paths), what=what, size=size), labels
