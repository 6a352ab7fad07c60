"""A folder of derived files that processes share: how much may lie there, what goes first, who may write.

Below the cache folder, one folder for each kind of thing (`benchmark.readers.decoded`, `benchmark.run.feature_files`),
in it one for each way of making it, in that the files. A file is written whole under another name and renamed, and
never changed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.errors import warn

SUFFIX = ".safetensors"
FEATURES = "features"
"""Folder of `benchmark.run.feature_files`, here for who lists it without torch."""
_LOCK_SECONDS = 30.0
_ABANDONED_SECONDS = 3600.0  # since a half-written file was touched


class Place:
    """The folder of one kind of kept things.

    Args:
        root: Cache folder.
        name: Of the folder in it.
        most: Bytes that may lie there, those of other runs included. What was used longest ago goes first; what this
            run has used or written stays.
        what: What is kept, for messages.
    """

    def __init__(self, root: Path, name: str, most: int, *, what: str) -> None:
        self.folder = root / name
        self.most = most
        self.what = what
        self.began = time.time()
        self.notes: list[str] = []
        self._said: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                self.cannot("permission denied")
        except OSError as error:
            self.cannot(error.strerror or str(error))

    def tell(self, text: str) -> None:
        """Warns once; what a worker process has to say waits in `notes` until the run's process fetches it."""
        from torch.utils.data import get_worker_info

        if text in self._said:
            return
        self._said.add(text)
        if get_worker_info() is None:
            warn(text)
        else:
            self.notes.append(text)

    def fetch_notes(self) -> list[str]:
        """What a worker has to say, once."""
        notes, self.notes = self.notes, []
        return notes

    def cannot(self, problem: str) -> None:
        """Says that nothing more is kept."""
        self.tell(f"{self.what} are not kept: {self.folder} cannot be written ({problem})")

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[bool]:
        """Holds the lock of the folder, and says whether ``size`` bytes more may be written.

        Raises:
            OSError: The folder cannot be written, or others hold the lock for too long.
        """
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
            yield self._free(size)

    def _free(self, size: int) -> bool:
        """Removes what was used longest ago until there is room."""
        known = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # removed at this moment
                about = path.stat()
                if path.suffix == SUFFIX:
                    known.append((about.st_mtime, about.st_size, path))
                elif path.suffix == ".part" and about.st_mtime < time.time() - _ABANDONED_SECONDS:
                    path.unlink()
        total = size + sum(taken for _, taken, _ in known)
        for used, taken, path in sorted(known):
            if total <= self.most or used >= self.began:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= taken
        return total <= self.most

    def discard(self, path: Path, problem: str, then: str) -> None:
        """Removes a file that is not what was written, and says so.

        Args:
            path: The file.
            problem: What is wrong with it.
            then: What happens now.
        """
        self.tell(f"{path} is damaged ({problem}); it is removed, and {then}")
        with contextlib.suppress(OSError):
            path.unlink()


def used(path: Path) -> None:
    """Notes that a file was used: what is used last goes last."""
    with contextlib.suppress(OSError):
        os.utime(path)
