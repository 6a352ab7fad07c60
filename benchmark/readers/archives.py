"""Single files out of tar and zip archives; nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from benchmark.errors import DataMissing
from benchmark.readers import files


def read_member(archive: Path, name: str, *, most: int = files.MOST) -> bytes:
    """The content of one file in a tar archive (packed or not) or a zip archive.

    Args:
        archive: The archive.
        name: Path inside it.
        most: Bytes that the archive may have, and that may be unpacked to reach the end of the file.

    Raises:
        DataMissing: The archive is absent or damaged, has no such file, or unpacks to more.
    """
    where = f"{files.shown(archive)}: {name}"
    with files.opened(archive, most=most) as file:
        try:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    entry = packed.getinfo(name)
                    _bounded(entry.file_size, most, where)
                    with packed.open(entry) as content:
                        return _whole(content, entry.file_size, where)
            file.seek(0)
            with tarfile.open(fileobj=file) as tar:
                for member in tar:
                    # Members before it are unpacked on the way.
                    _bounded(member.offset_data + member.size, most, where)
                    if member.name == name:
                        found = tar.extractfile(member) if member.isreg() else None
                        if found is None:
                            raise DataMissing(f"{where} is not a file")
                        return _whole(found, member.size, where)
            raise KeyError("there is no such file in it")
        except (
            tarfile.TarError,
            zipfile.BadZipFile,
            zlib.error,
            KeyError,
            OSError,
            EOFError,
            RuntimeError,  # an encrypted zip
            NotImplementedError,
        ) as error:
            reason = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise DataMissing(f"{where} cannot be read: {reason}") from error


def _bounded(size: int, most: int, where: str) -> None:
    if size > most:
        raise DataMissing(f"{where}: {size:,} bytes would be unpacked, at most {most:,} are")


def _whole(content: IO[bytes], size: int, where: str) -> bytes:
    found = content.read(size + 1)
    if len(found) != size:
        raise DataMissing(f"{where} has {len(found):,} bytes instead of {size:,}")
    return found
