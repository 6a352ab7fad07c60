"""The idx format of MNIST and its relatives: a header of sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.readers import files

_BYTES = 0x0800  # type code of unsigned bytes, above the number of dimensions


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The header of a file of unsigned bytes."""
    return np.array([_BYTES + len(shape), *shape], ">u4").tobytes()


def read_idx(path: Path, dimensions: int, *, most: int = files.MOST) -> npt.NDArray[np.uint8]:
    """An array of unsigned bytes from an idx file, plain or packed (``.gz``).

    Args:
        path: The file.
        dimensions: That it must have: 3 for grey images, 1 for labels.
        most: Bytes that it may have, unpacked.

    Raises:
        DataMissing: The file is absent or damaged, has other dimensions, or is larger.
    """
    name = files.shown(path)
    start = 4 * (1 + dimensions)
    with files.opened(path, most=most) as packed:
        file: Any = gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed
        try:
            head = file.read(start)
            magic = int.from_bytes(head[:4], "big")
            if len(head) < 4 or magic != _BYTES + dimensions:
                raise DataMissing(f"{name} is not an idx file: it begins with {magic} instead of {_BYTES + dimensions}")
            if len(head) < start:
                raise DataMissing(f"{name} is truncated: {len(head):,} bytes instead of {start:,}")
            shape = tuple(np.frombuffer(head, ">u4", offset=4).tolist())
            count = math.prod(shape)
            if count > most:
                raise DataMissing(f"{name} announces {count:,} bytes; a file of its kind has at most {most:,}")
            # One byte more than announced: a packed file is never unpacked further.
            content = file.read(count + 1)
        except (OSError, EOFError, zlib.error, MemoryError) as error:
            raise files.cannot_read(path, error) from error
    if len(content) < count:
        raise DataMissing(f"{name} is truncated: {start + len(content):,} bytes instead of {start + count:,}")
    if len(content) > count:
        raise DataMissing(f"{name} holds more than the {start + count:,} bytes that it announces")
    return np.frombuffer(content, np.uint8).reshape(shape)
