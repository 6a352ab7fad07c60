"""Writing files so that nothing is ever half-written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from benchmark.errors import RunFailed


def replace_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file atomically: a temporary file beside it, fsync, ``os.replace``.

    Args:
        path: Target; its folder is made when missing.
        content: Whole content, or what writes it into the open file.

    Raises:
        RunFailed: The disk is full, or the folder cannot be written.
    """
    temporary: str | None = None
    try:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
