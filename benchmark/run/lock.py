"""One process per run: an exclusive lock on a file that is gone when nobody works on the run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock inside the block, if nobody else does; the system lets it go when the process dies.

    The file is unlinked while it is locked, and whoever gets a lock looks whether the file still bears the name: else
    one process could hold a file that is gone while another makes a new one.

    Args:
        path: The lock file; its folder exists.

    Yields:
        Whether it is ours.

    Raises:
        OSError: The folder cannot be written, or the file system has no locks.
    """
    handle = _open(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):  # Windows keeps open files: then it goes below, or with the next run
                if _is_at(handle, path):  # else somebody has removed it, and another process may hold a new one
                    path.unlink()
            os.close(handle)
            if sys.platform == "win32":
                with contextlib.suppress(OSError):
                    path.unlink()


def _open(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
            if _is_at(handle, path):
                return handle
        except (BlockingIOError, PermissionError):
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it unlinked it between our open and our lock


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
