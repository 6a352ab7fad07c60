"""Whole archives unpacked to disk: regular files below one folder, of a sane size, or nothing at all."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from benchmark.errors import DataMissing
from benchmark.readers import files

MOST_BYTES = 1 << 40
"""Bytes that an archive may unpack to unless its entry says otherwise (1 TiB)."""
MOST_FILES = 20_000_000
MOST_RATIO = 200
"""Times its own size that an archive may unpack to, beyond `FREE_BYTES`; archives of images stay below 2."""
FREE_BYTES = 1 << 28

_BLOCK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted zip
    NotImplementedError,
    ValueError,  # a member's name with a null byte
)


def unpack(archive: Path, folder: Path, *, most: int = MOST_BYTES) -> None:
    """Unpacks a tar archive (packed or not) or a zip archive into a new folder.

    It is unpacked beside the folder and gets its name once it is whole; whatever goes wrong, nothing is left behind.

    Args:
        archive: The archive.
        folder: Does not exist yet, or is empty.
        most: Bytes that it may unpack to.

    Raises:
        DataMissing: The archive is absent or damaged, holds a path that leads out of the folder, a link, a device, or
            more than `most` bytes; or the folder cannot be written or holds something.
    """
    where = files.shown(archive)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataMissing(f"{files.shown(folder)} is there already, and is not overwritten")
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataMissing(f"{files.shown(folder)} cannot be made: {error.strerror or error}") from error
    try:
        with files.opened(archive, most=1 << 62) as file:
            bound = _Bound(where, min(most, max(FREE_BYTES, MOST_RATIO * os.fstat(file.fileno()).st_size)))
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            (_unzip if zipped else _untar)(file, stage, bound)
        os.chmod(stage, 0o777 & ~_umask())
        if folder.exists():
            folder.rmdir()
        stage.replace(folder)
    except _BROKEN as error:
        raise DataMissing(f"{where} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


class _Bound:
    """Counts what is unpacked, and refuses what is too much."""

    def __init__(self, where: str, most: int) -> None:
        self.where, self.most = where, most
        self.bytes = self.files = 0

    def add(self, size: int, count: int = 0) -> None:
        self.bytes += size
        self.files += count
        if self.bytes > self.most or self.files > MOST_FILES:
            what = f"{self.most:,} bytes" if self.bytes > self.most else f"{MOST_FILES:,} files"
            raise DataMissing(f"{self.where} unpacks to more than {what}; it is not what it should be")

    def name(self, name: str) -> None:
        """Refuses a name that is absolute or leads upwards, in the manner of any system."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/" or parts[0].endswith(":"):
            raise DataMissing(f"{self.where} holds the path `{files.shown(name)}`, which leads out of its folder")

    def refuse(self, name: str, what: str) -> None:
        raise DataMissing(f"{self.where}: {files.shown(name)} is {what}; only files and folders are unpacked")


def _untar(file: IO[bytes], stage: Path, bound: _Bound) -> None:
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            if member.name in (".", "./"):
                continue
            bound.name(member.name)
            if not (member.isreg() or member.isdir()):
                bound.refuse(member.name, "a link" if member.issym() or member.islnk() else "no file")
            bound.add(member.size, 1)  # before it is unpacked
            tar.extract(member, stage, filter="data")


def _unzip(file: IO[bytes], stage: Path, bound: _Bound) -> None:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            bound.name(entry.filename)
            mode = entry.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                bound.refuse(entry.filename, "a link" if stat.S_ISLNK(mode) else "no file")
            target = stage / entry.filename
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            bound.add(0, 1)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as content, target.open("xb") as out:
                for block in _blocks(content):  # what it says of its size may be untrue
                    bound.add(len(block))
                    out.write(block)


def _blocks(content: Any) -> Iterator[bytes]:
    while block := content.read(_BLOCK):
        yield block


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
