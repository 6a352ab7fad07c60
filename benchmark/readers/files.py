"""Opening what a data root holds: regular files of a sane size, folders that can be listed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from benchmark.errors import DataMissing

MOST = 1 << 30
"""Bytes that a file may have unless its reader says otherwise (1 GiB)."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def shown(path: Path | str) -> str:
    """A path for messages; bytes of its name that are no UTF-8 appear as their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def kind(path: Path) -> str | None:
    """What a path is, links followed: ``a file``, ``a folder``, ``a FIFO``, ..., or None where nothing is.

    Raises:
        DataMissing: It cannot be told, e.g. because a folder above it cannot be entered.
    """
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "neither a file nor a folder")
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads to itself"
        if error.errno in _ABSENT:
            return "a link that leads nowhere" if os.path.islink(path) else None
        raise cannot_read(path, error) from error


def is_file(path: Path) -> bool:
    """Whether there is a regular file.

    Raises:
        DataMissing: Something else is there.
    """
    return _is(path, "a file")


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        DataMissing: Something else is there.
    """
    return _is(path, "a folder")


def _is(path: Path, wanted: str) -> bool:
    found = kind(path)
    if found not in (None, wanted):
        raise DataMissing(f"{shown(path)} is {found}, not {wanted}")
    return found is not None


def listing(folder: Path) -> list[Path]:
    """What a folder holds, hidden entries left out, in the order of their names by code point.

    Raises:
        DataMissing: It is no folder, or cannot be read.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise cannot_read(folder, error) from error
    return [folder / name for name in names]


def opened(path: Path, *, most: int = MOST) -> BinaryIO:
    """Opens a regular file for reading; the caller closes it.

    Args:
        path: The file, links followed.
        most: Bytes that it may have.

    Raises:
        DataMissing: It is absent, no regular file, larger, or cannot be read.
    """
    try:
        # Without the flag, opening a FIFO that nobody writes to waits for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from error
    file = os.fdopen(handle, "rb") if not stat.S_ISDIR(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise DataMissing(f"{shown(path)} is a folder, not a file")
    state = os.fstat(handle)
    problem = ""
    if not stat.S_ISREG(state.st_mode):
        problem = f"is {_KINDS.get(stat.S_IFMT(state.st_mode), 'no file')}, not a file"
    elif state.st_size > most:
        problem = f"has {state.st_size:,} bytes; a file of its kind has at most {most:,}"
    if problem:
        file.close()
        raise DataMissing(f"{shown(path)} {problem}")
    return file


def read_bytes(path: Path, *, most: int = MOST) -> bytes:
    """The whole content of a regular file. See `opened`."""
    with opened(path, most=most) as file:
        try:
            return file.read()
        except OSError as error:
            raise cannot_read(path, error) from error


def cannot_read(path: Path, error: Exception) -> DataMissing:
    """The error for a file or folder that could not be read."""
    return DataMissing(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}")
