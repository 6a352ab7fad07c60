"""Lists of images as CoOp's code reads them: ``split_zhou_*.json``, FGVC-Aircraft's text files, ``classnames.txt``.

Source: KaiyangZhou/CoOp ``datasets/oxford_pets.py`` (``read_split``), ``fgvc_aircraft.py`` and ``imagenet.py``
(``read_classnames``). The order of a list is kept, since shots are drawn by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import readers
from benchmark.errors import DataMissing

PARTS = ("train", "val", "test")
_MOST = 1 << 27


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The lists of a data set.

    Attributes:
        files: The files that they were read from.
        parts: Names of images and their labels by part (`PARTS`), in the order of the lists.
        class_names: In label order, as the lists have them.
    """

    files: tuple[Path, ...]
    parts: Mapping[str, Mapping[str, int]]
    class_names: tuple[str, ...]


def read_split(path: Path) -> Lists:
    """Reads a file ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``.

    Raises:
        DataMissing: It is absent, is not such a file, repeats an image, or its labels are not 0..C-1 with one name
            each, all of them trained.
    """
    where = readers.shown(path)
    if not readers.is_file(path):
        raise DataMissing(
            f"{where} is missing; it is linked in CoOp's DATASETS.md, and no other split gives the published images"
        )
    try:
        content = json.loads(readers.read_bytes(path, most=_MOST).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataMissing(f"{where} is no JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise DataMissing(f"{where} has not the three lists {', '.join(PARTS)}")
    labels = _Labels(where)
    for part in PARTS:
        for number, entry in enumerate(content[part], 1):
            labels.add(part, *_entry(entry, f"{where}, {part} entry {number}"), f"{part} entry {number}")
    return Lists(files=(path,), parts=labels.parts, class_names=labels.class_names())


def _entry(entry: Any, where: str) -> tuple[str, int, str]:
    """One entry of a split file; its path must stay below the folder of the images."""
    known = isinstance(entry, list) and len(entry) == 3
    if not known or [type(value) for value in entry] != [str, int, str] or entry[1] < 0 or not entry[2].strip():
        raise DataMissing(f"{where}: {str(entry)[:80]!r} is not [path, label, class name]")
    name = entry[0].replace("\\", "/")
    if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise DataMissing(f"{where}: {entry[0][:80]!r} is no path below the folder of the images")
    return name, entry[1], entry[2]


def read_variants(folder: Path) -> Lists:
    """Reads FGVC-Aircraft's ``variants.txt`` and ``images_variant_{train,val,test}.txt``, lines of ``number variant``.

    Raises:
        DataMissing: One is absent, or a line is not such a line or repeats an image.
    """
    names = folder / "variants.txt"
    variants = {line: label for label, line in enumerate(_lines(names))}
    found = [names]
    labels = _Labels(readers.shown(folder))
    for part in PARTS:
        path = folder / f"images_variant_{part}.txt"
        for number, line in enumerate(_lines(path), 1):
            image, _, variant = line.partition(" ")
            if not re.fullmatch("[0-9]+", image) or variant not in variants:
                raise DataMissing(
                    f"{readers.shown(path)}, line {number}: {line[:80]!r} is not `number variant` of variants.txt"
                )
            labels.add(part, f"{image}.jpg", variants[variant], variant, f"line {number} of {path.name}")
        found.append(path)
    return Lists(files=tuple(found), parts=labels.parts, class_names=labels.class_names())


def read_class_names(path: Path) -> dict[str, str]:
    """Names of ImageNet's classes by their WordNet ids, lines of ``wnid name``, in the order of the ids.

    Raises:
        DataMissing: It is absent, or a line is not such a line or repeats an id.
    """
    if not readers.is_file(path):
        raise DataMissing(f"{readers.shown(path)} is missing; it is linked in CoOp's DATASETS.md")
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        wnid, _, name = line.partition(" ")
        if not re.fullmatch("n[0-9]{8}", wnid) or not name.strip():
            raise DataMissing(f"{readers.shown(path)}, line {number}: {line[:80]!r} is not `wnid name`")
        if wnid in found:
            raise DataMissing(f"{readers.shown(path)}, line {number}: {wnid} has a name already")
        found[wnid] = name.strip()
    return dict(sorted(found.items()))


def _lines(path: Path) -> list[str]:
    try:
        text = readers.read_bytes(path, most=_MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataMissing(f"{readers.shown(path)} is no UTF-8: {error.reason}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataMissing(f"{readers.shown(path)} is empty")
    return lines


class _Labels:
    """Images and classes as they come, checked.

    Args:
        where: File or folder, for messages.
    """

    def __init__(self, where: str) -> None:
        self.parts: dict[str, dict[str, int]] = {part: {} for part in PARTS}
        self._where = where
        self._met: dict[str, str] = {}
        self._names: dict[int, str] = {}

    def add(self, part: str, image: str, label: int, name: str, place: str) -> None:
        """One image of a list."""
        before = self._met.setdefault(image, place)
        if before is not place:
            raise DataMissing(f"{self._where}, {place}: {image} is {before} already")
        if self._names.setdefault(label, name) != name:
            raise DataMissing(
                f"{self._where}, {place}: label {label} is {name!r} here and {self._names[label]!r} before"
            )
        self.parts[part][image] = label

    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        for part, images in self.parts.items():
            if not images:
                raise DataMissing(f"{self._where} has no image of {part}")
        trained = set(self.parts["train"].values())
        if absent := (set(range(len(trained))) | self._names.keys()) - trained:
            raise DataMissing(f"{self._where}: no training image has label {min(absent)}; all of 0..C-1 are needed")
        return tuple(self._names[label] for label in range(len(trained)))
