"""What a user's own images are: class folders, folders of domains, or a list, and which of them are for testing.

- classes: ``<class>/<image>``, or ``train/<class>/<image>`` and ``test/<class>/<image>``; images may lie deeper;
- domains: ``<domain>/<class>/<image>``, each domain with ``train`` and ``test`` below it or not;
- lists: ``path label`` per line (``train.txt`` and ``test.txt`` in a folder, or one file), or a CSV file with columns
  ``path``, ``label`` and, where there are any, ``split`` and ``domain``. Paths are relative to the list.

Classes and domains are numbered in the order of their names by code point, whole numbers by their value.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.walk import Found, find_images, listed, subfolders

TRAIN = frozenset({"train", "training"})
TEST = ("test", "testing", "val", "valid", "validation")
"""Names of folders and of values in a column, lower case; the first that is there is tested."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "image", "image_path", "filepath"),
    "label": ("label", "class", "target", "category"),
    "split": ("split", "set", "subset"),
    "domain": ("domain", "environment"),
}
MOST = 1 << 30
LISTS = (".txt", ".lst", ".csv", ".tsv")


@dataclass(frozen=True)
class Layout:
    """Images with their classes, sorted by path.

    Attributes:
        found: The files.
        labels: int64 ``(N,)``, positions in ``class_names``.
        class_names: In label order.
        domains: int64 ``(N,)``, positions in ``domain_names``; zeros where there are none.
        domain_names: In their order; empty where there are none.
        test: bool ``(N,)``, which images are for testing; None where nothing says so.
        form: What it was read as.
        left_out: Folders of images that are neither trained nor tested on.
    """

    found: Found
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    domains: npt.NDArray[np.int64]
    domain_names: tuple[str, ...]
    test: npt.NDArray[np.bool_] | None
    form: str
    left_out: tuple[str, ...] = ()

    def take(self, rows: npt.NDArray[np.int64]) -> Layout:
        """Some of the images."""
        test = None if self.test is None else self.test[rows]
        found, labels, domains = self.found.take(rows), self.labels[rows], self.domains[rows]
        return Layout(found, labels, self.class_names, domains, self.domain_names, test, self.form, self.left_out)


def read_layout(path: Path, *, domains: bool) -> Layout:
    """The images at a path.

    Args:
        path: A folder, or a list.
        domains: Whether images belong to domains.

    Raises:
        DataMissing: Nothing is there, or it is not laid out so; names what is wrong.
    """
    kind = files.kind(path)
    if kind == "a file":
        if path.suffix.lower() == ".tar":
            raise packed(path.parent, [path.name])
        if path.suffix.lower() not in LISTS:
            raise DataMissing(f"{files.shown(path)} is neither a folder nor a list ({', '.join(LISTS)})")
        return _of_rows(path.parent, list(_rows(path, "")), domains, f"list {path.name}")
    if kind != "a folder":
        raise DataMissing(f"there is {'nothing' if kind is None else kind} at {files.shown(path)}")
    lists = {name: path / f"{name}.txt" for name in ("train", "test")}
    if all(files.is_file(one) for one in lists.values()):
        rows = [row for name, one in lists.items() for row in _rows(one, name)]
        return _of_rows(path, rows, domains, "lists train.txt and test.txt")
    return _of_folders(path, domains)


def packed(folder: Path, names: Sequence[str]) -> DataMissing:
    """The error for images in tar archives, as webdataset keeps them: no library that is needed here reads these."""
    many = f" and {len(names) - 1:,} more archives" if len(names) > 1 else ""
    return DataMissing(
        f"{files.shown(folder / names[0])}{many}: images in tar archives (webdataset) are not read",
        hint="extract them (tar -xf) into class folders, or beside a list train.txt of `path label`; then name that "
        "folder, or make a known data set of it with `bench data add FOLDER`",
    )


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    split: str
    domain: str
    where: str


def _of_folders(root: Path, domains: bool) -> Layout:
    found = find_images(root)
    if not len(found):
        shards = [name for name in found.others if name.lower().endswith(".tar")]
        raise packed(root, shards) if shards else DataMissing(f"{files.shown(root)} holds no image")
    tops = subfolders(root)
    above = {name: _splits(subfolders(root / name)) for name in tops} if domains else {"": _splits(tops)}
    if domains and any(above.values()) != all(above.values()):
        odd = next(name for name, splits in above.items() if not splits)
        raise DataMissing(f"{files.shown(root / odd)} has no train and test folders, other domains have")
    left_out: set[str] = set()
    depth = (1 if domains else 0) + (1 if any(above.values()) else 0)
    known: dict[bytes, _Row | None] = {}  # what the images of a folder are; one look per folder, not per file
    rows, kept = [], []
    for place, raw in enumerate(found.names.raws()):
        folder = raw.rpartition(b"/")[0]
        if folder not in known:
            known[folder] = _row_of(root, os.fsdecode(raw), above, depth, left_out)
        row = known[folder]
        if row is not None:
            rows.append(row)
            kept.append(place)
    if left_out:
        found = found.take(np.array(kept, np.int64))
    layout = _layout(found, rows, domains, "folders" if depth == domains else "folders train and test")
    _check_folders(root, layout, above, left_out)
    return Layout(**{**layout.__dict__, "left_out": tuple(sorted(left_out))})


def _row_of(
    root: Path, name: str, above: Mapping[str, Mapping[str, str]], depth: int, left_out: set[str]
) -> _Row | None:
    """What an image is by the folders that it lies in; None where they are left out."""
    domains, parts = "" not in above, name.split("/")
    if len(parts) < depth + 2:
        wanted = "<domain>/<class>/<image>" if domains else "<class>/<image>"
        raise DataMissing(f"{files.shown(root / name)} lies in no class folder; {wanted} is expected")
    domain = parts[0] if domains else ""
    splits = above[domain]
    split = splits.get(parts[depth - 1]) if splits else ""
    if split is None:
        left_out.add("/".join(parts[:depth]))
        return None
    return _Row("", parts[depth], split, domain, "")


def _splits(names: Sequence[str]) -> dict[str, str]:
    """Which of these folders are for training and for testing; empty where they are class folders."""
    plain = {name.lower(): name for name in names}
    train = [name for low, name in plain.items() if low in TRAIN]
    test = [plain[low] for low in TEST if low in plain]
    if len(train) != 1 or not test or len(train) + len(test) != len(names):
        return {}
    return {train[0]: "train", test[0]: "test"}


def _check_folders(root: Path, layout: Layout, above: Mapping[str, Mapping[str, str]], left_out: set[str]) -> None:
    """Sees to it that every class folder holds images, and every domain and part all classes."""
    for domain, splits in above.items():
        for split in splits or {"": ""}:
            folder = root / domain / split
            empty = set(subfolders(folder)) - set(layout.class_names)
            if empty:
                raise DataMissing(f"{files.shown(folder / min(empty))} holds no image")
            inside = np.ones(len(layout.labels), bool)
            if domain:
                inside &= layout.domains == layout.domain_names.index(domain)
            if split and layout.test is not None:
                inside &= layout.test == (splits[split] == "test")
            absent = set(range(len(layout.class_names))) - set(np.unique(layout.labels[inside]).tolist())
            if absent:
                raise DataMissing(f"{files.shown(folder)} has no images of class {layout.class_names[min(absent)]}")


def _of_rows(root: Path, rows: list[_Row], domains: bool, form: str) -> Layout:
    if domains and not all(row.domain for row in rows):
        raise DataMissing(f"{form} has no column domain; a CSV file with columns path, label, domain is needed")
    first: dict[str, str] = {}
    for row in rows:
        if (before := first.setdefault(row.path, row.where)) != row.where:
            raise DataMissing(f"{row.where}: {files.shown(row.path)} is in {before} already")
    rows.sort(key=lambda row: row.path)
    return _layout(listed(root, [row.path for row in rows]), rows, domains, form)


def _layout(found: Found, rows: Sequence[_Row], domains: bool, form: str) -> Layout:
    classes = _numbered([row.label for row in rows])
    several = _numbered([row.domain for row in rows] if domains else [])
    splits = {row.split for row in rows}
    if "" in splits and len(splits) > 1:
        odd = next(row for row in rows if not row.split)
        raise DataMissing(f"{odd.where}: says neither train nor test, other rows do")
    test = None if splits <= {""} else np.array([row.split == "test" for row in rows], bool)
    if test is not None and (test.all() or not test.any()):
        raise DataMissing(f"{form}: every image is for {'testing' if test.all() else 'training'}")
    return Layout(
        found,
        np.array([classes[row.label] for row in rows], np.int64),
        tuple(files.shown(name) for name in classes),
        np.array([several.get(row.domain, 0) for row in rows], np.int64),
        tuple(files.shown(name) for name in several),
        test,
        form,
    )


def _numbered(names: Sequence[str]) -> dict[str, int]:
    unique = set(names)
    numbers = all(name.isascii() and name.isdecimal() for name in unique)
    return {
        name: place for place, name in enumerate(sorted(unique, key=lambda name: (int(name) if numbers else 0, name)))
    }


def _rows(path: Path, split: str) -> Iterator[_Row]:
    """The rows of a list.

    Raises:
        DataMissing: It is no UTF-8 or empty, a row has no label, a column is missing.
    """
    shown = files.shown(path)
    try:
        text = files.read_bytes(path, most=MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataMissing(f"{shown}: not UTF-8 ({error.reason} at byte {error.start})") from error
    count = 0
    for row in _table(path, text) if path.suffix.lower() in (".csv", ".tsv") else _lines(shown, text, split):
        count += 1
        yield row
    if not count:
        raise DataMissing(f"{shown} names no image")


def _lines(shown: str, text: str, split: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if line.strip() and not name.strip():
            raise DataMissing(f"{shown}, line {number}: {line[:80]!r} is not `path label`")
        if line.strip():
            yield _Row(name.strip(), label, split, "", f"{shown}, line {number}")


def _table(path: Path, text: str) -> Iterator[_Row]:
    shown = files.shown(path)
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    there = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    column = {kind: next((there[name] for name in names if name in there), None) for kind, names in COLUMNS.items()}
    for kind in ("path", "label"):
        if column[kind] is None:
            raise DataMissing(
                f"{shown} has no column {kind} ({', '.join(COLUMNS[kind])}), only {', '.join(there) or 'nothing'}"
            )
    for row in reader:
        where = f"{shown}, line {reader.line_num}"
        value = {kind: (row.get(name) or "").strip() if name else "" for kind, name in column.items()}
        if not value["path"] or not value["label"]:
            raise DataMissing(f"{where}: a row without a path or without a label")
        split = value["split"].lower()
        if split and split not in TRAIN and split not in TEST:
            raise DataMissing(f"{where}: split {value['split']!r:.40} is neither train nor test")
        split = "train" if split in TRAIN else "test" if split else ""
        yield _Row(value["path"], value["label"], split, value["domain"], where)
