"""Files and folders: written so that nothing is ever half-written, hashed, named by users, checked before work begins.

And the switches of the environment that say how they are to be treated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from benchmark.errors import RunFailed, UsageError, plain, shorten

_PART = r"""[^\s\\/'"|,;:()<>]+"""
_PLACE = re.compile(rf"(?<![\w./:~\\-])(?:[A-Za-z]:[\\/]|/)(?:{_PART}[\\/])+({_PART})[\\/]?")
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


def replace_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file atomically: a temporary file beside it, fsync, ``os.replace``.

    Args:
        path: Target, or a link to it; its folder is made when missing.
        content: Whole content, or what writes it into the open file.

    Raises:
        RunFailed: The disk is full, the folder cannot be written, or a device, a pipe or a folder is in the way.
    """
    temporary: str | None = None
    try:
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():  # `os.replace` would put a file where a device was
            raise RunFailed(f"cannot write {path}: it is not a regular file", hint="choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only the owner can read
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def cannot_write(path: Path, error: OSError) -> RunFailed:
    """The error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunFailed(
            f"no space left for {path}", hint="free some space and give the same command again: it resumes"
        )
    return RunFailed(f"cannot write {path}: {error.strerror or error}", hint="choose a folder that you can write to")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, read in pieces.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as users write it: ``~`` and ``~name`` are home folders.

    Raises:
        UsageError: There is no such user, or it can be no path at all: a name is too long, links form a circle.
    """
    if "\0" in os.fspath(text):
        raise UsageError(f"`{plain(os.fspath(text))}` cannot be a path", hint="take the null character out")
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(path)
    except OSError as error:
        raise UsageError(f"{shorten(plain(os.fspath(text)))}: {error.strerror}", hint="give another path") from error
    except RuntimeError as error:
        raise UsageError(
            f"{plain(os.fspath(text))}: there is no such home folder", hint="write ./~ for a folder of that name"
        ) from error
    return path


def without_places(text: str) -> str:
    """A message in which absolute paths are their last parts: where a file lay says nothing to a reader elsewhere.

    Args:
        text: Of any length. What is no path of two parts or more stays: ``/``, ``n/a``, ``~/runs``, addresses.
    """
    return _PLACE.sub(r"\1", text)


def check_folder(path: Path, option: str) -> None:
    """Sees to it, before any work, that files can be written into a folder; makes nothing.

    Args:
        path: The folder; it may not exist yet.
        option: What named it, for messages.

    Raises:
        UsageError: A part of the path is a file, cannot be written or is not UTF-8.
    """
    name = f"{option} {shorten(plain(str(path)))}"
    other = "choose a folder that you can write to"
    try:
        str(path).encode()
        there = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.lexists(parent))
        if not there.is_dir():
            raise UsageError(f"{name}: {plain(str(there))} is not a folder", hint=other)
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"{name}: {plain(str(there))} cannot be written", hint=other)
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: the name is not UTF-8", hint=other) from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}", hint=other) from error


def check_file(path: Path, option: str) -> None:
    """Sees to it, before any work, that a file can be written; makes nothing.

    Args:
        path: The file; it may not exist yet.
        option: What named it, for messages.

    Raises:
        UsageError: Its folder cannot be written, or it is a folder, a device or a pipe.
    """
    check_folder(path.parent, option)
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{option} {shorten(plain(str(path)))}: it is not a regular file",
            hint="give the name of a file; to write into a pipe or a device, leave the option out and use `>`",
        )


def switched_on(*variables: str) -> bool:
    """Whether one of these environment variables says yes: 1, true, yes or on.

    Raises:
        UsageError: One holds neither that nor 0, false, no, off or nothing.
    """
    found = False
    for variable in variables:
        value = os.environ.get(variable, "").strip().lower()
        if value not in _YES | _NO:
            raise UsageError(f"{variable}={shorten(plain(value))} is neither yes nor no", hint="use 1 or 0")
        found = found or value in _YES
    return found


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
