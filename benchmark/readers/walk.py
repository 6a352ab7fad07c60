"""The image files below a folder, by name: found once, in one order, whatever the file system and the locale.

What copy tools and desktops leave behind is passed over at every level: hidden files and folders (``.DS_Store``,
``._x.jpg``, ``.ipynb_checkpoints``) and ``__MACOSX``. Links are followed; one that leads back to a folder above it is
an error.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.images import ALL_SUFFIXES

PASSED_OVER = frozenset({"__MACOSX"})
SLASH = "/"


class Names(Sequence[str]):
    """Many names in two arrays: a list of texts would cost a process 100 bytes each, and every worker its copy.

    Args:
        blob: The names, one after the other, as bytes of the file system.
        ends: Where each one ends, int64.
    """

    def __init__(self, blob: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self.blob = blob
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Packs names."""
        raw = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in raw], dtype=np.int64) if raw else np.empty(0, np.int64)
        return cls(np.frombuffer(b"".join(raw), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def raw(self, row: int) -> bytes:
        """One name as bytes."""
        start = int(self.ends[row - 1]) if row else 0
        return self.blob[start : int(self.ends[row])].tobytes()

    @overload
    def __getitem__(self, row: int, /) -> str: ...
    @overload
    def __getitem__(self, row: slice, /) -> list[str]: ...
    def __getitem__(self, row: int | slice, /) -> str | list[str]:
        """One name, or several."""
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return os.fsdecode(self.raw(row))

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.raws())

    def raws(self) -> Iterator[bytes]:
        """All names as bytes."""
        whole, start = self.blob.tobytes(), 0
        for end in self.ends.tolist():
            yield whole[start:end]
            start = end

    def take(self, rows: npt.NDArray[np.int64]) -> Names:
        """The names of some rows."""
        return Names.of(self[int(row)] for row in rows)


@dataclass(frozen=True)
class Found:
    """Image files below a folder.

    Attributes:
        root: The folder.
        names: Path of each file relative to it, with ``/``, in the order of code points.
        state: int64 ``(N, 3)``: size in bytes, times of modification and of the last change in nanoseconds.
        others: Files that are no images by their names, relative paths.
    """

    root: Path
    names: Names
    state: npt.NDArray[np.int64]
    others: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """Of one file."""
        return self.root / self.names[row]

    def take(self, rows: npt.NDArray[np.int64]) -> Found:
        """Some of the files, in the order of ``rows``."""
        return Found(self.root, self.names.take(rows), self.state[rows], self.others)


def find_images(root: Path, suffixes: frozenset[str] = ALL_SUFFIXES) -> Found:
    """All image files below a folder, at any depth.

    Args:
        root: The folder.
        suffixes: Of files that count as images, lower case; the case of a file's own does not matter.

    Raises:
        DataMissing: A folder cannot be read, or a link leads to a folder above it.
    """
    if not files.is_folder(root):
        raise DataMissing(f"there is no folder {files.shown(root)}")
    names: list[str] = []
    state = array("q")  # numbers, not objects: of these 600,000 files need 100 MiB
    others: list[str] = []
    # Folders yet to be read: path, name relative to the root, and who is above (device and file number).
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(os.fspath(root), "", ())]
    while pending:
        folder, below, above = pending.pop()
        own, found = _entries(folder, above)
        for entry, about in found:
            name = below + entry.name
            if stat.S_ISDIR(about.st_mode):
                pending.append((entry.path, name + SLASH, (*above, own)))
            elif not stat.S_ISREG(about.st_mode):
                kind = files.kind(Path(entry.path))
                raise DataMissing(f"{files.shown(entry.path)} is {kind}, not a file")
            elif entry.name[entry.name.rfind(".") :].lower() in suffixes:  # without a dot: the last letter
                names.append(name)
                state.extend((about.st_size, about.st_mtime_ns, about.st_ctime_ns))
            else:
                others.append(name)
    order = sorted(range(len(names)), key=names.__getitem__)
    kept = np.array(state, np.int64).reshape(-1, 3)[np.array(order, np.int64)]
    return Found(root, Names.of(names[place] for place in order), kept, tuple(sorted(others)))


def listed(root: Path, names: Iterable[str]) -> Found:
    """The files of a list, in its order.

    Raises:
        DataMissing: One of them is not there, or no regular file.
    """
    kept, state = [], []
    for name in names:
        path = root / name
        try:
            about = os.stat(path)
        except OSError as error:
            raise files.cannot_read(path, error) from error
        if not stat.S_ISREG(about.st_mode):
            raise DataMissing(f"{files.shown(path)} is {files.kind(path)}, not a file")
        kept.append(name)
        state.append((about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return Found(root, Names.of(kept), np.array(state, np.int64).reshape(-1, 3), ())


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in the order of code points; what is passed over does not count.

    Raises:
        DataMissing: It cannot be read.
    """
    _, found = _entries(os.fspath(folder), ())
    return sorted(entry.name for entry, about in found if stat.S_ISDIR(about.st_mode))


def _entries(
    folder: str, above: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], list[tuple[os.DirEntry[str], os.stat_result]]]:
    """What counts in a folder, links followed, and which folder it is."""
    try:
        own = os.stat(folder)
        here = own.st_dev, own.st_ino
        if here in above:
            raise DataMissing(f"{files.shown(folder)} is a link that leads back to a folder above it")
        found: list[tuple[Any, os.stat_result]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in PASSED_OVER:
                    continue
                try:
                    found.append((entry, entry.stat()))
                except OSError as error:
                    kind = files.kind(Path(entry.path))
                    raise DataMissing(f"{files.shown(entry.path)} is {kind}: {error.strerror}") from error
    except OSError as error:
        raise files.cannot_read(Path(folder), error) from error
    return here, found
