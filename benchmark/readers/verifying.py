"""Whether a file of a data set can be read to its end."""

from __future__ import annotations

import hashlib
from pathlib import Path

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.images import MOST_IMAGE_BYTES, SUFFIXES, check_image
from benchmark.readers.parquet import check_parquet

_BLOCK = 1 << 20


def problem(path: Path, md5: str = "") -> str | None:
    """Reads a file: images and tables of images are decoded, others read.

    Args:
        path: The file.
        md5: Published checksum, or empty.

    Returns:
        What is wrong with it, or None.
    """
    try:
        if md5:
            found = _md5(path)
            return None if found == md5 else f"its MD5 is {found} instead of {md5}"
        if path.suffix.lower() in SUFFIXES:
            check_image(files.shown(path.name), files.read_bytes(path, most=MOST_IMAGE_BYTES))
        elif path.suffix.lower() == ".parquet":
            check_parquet(path)
        else:
            _md5(path)
    except DataMissing as error:
        return error.message
    return None


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with files.opened(path, most=1 << 62) as file:
        try:
            while block := file.read(_BLOCK):
                digest.update(block)
        except OSError as error:
            raise files.cannot_read(path, error) from error
    return digest.hexdigest()
