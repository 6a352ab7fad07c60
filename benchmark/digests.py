"""Hashes of what samples show, by which data are recognised whatever files they came from.

A digest depends on nothing but decoded samples: the same pixels from Parquet, a folder or a cache give the same hash,
one changed pixel gives another. torch is not needed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def array_digest(dtype: str, shape: Sequence[int], sha256: str) -> str:
    """Digest of an array from the SHA-256 of its bytes, which are in C order.

    Args:
        dtype: Name of its type as numpy says it, e.g. ``uint8``.
        shape: Its shape.
        sha256: Of its bytes, hexadecimal.
    """
    head = f"adaptbench array 1\n{dtype} {','.join(map(str, shape))}\n{sha256}\n"
    return hashlib.sha256(head.encode()).hexdigest()


def digest_of_array(array: npt.NDArray[Any]) -> str:
    """Digest of an array in memory."""
    kept = np.ascontiguousarray(array)
    return array_digest(str(kept.dtype), kept.shape, hashlib.sha256(kept.data).hexdigest())


def joined(digests: Iterable[str]) -> str:
    """One digest for several, each counted once, in whatever order they come."""
    return hashlib.sha256("\n".join(["adaptbench contents 1", *sorted(set(digests))]).encode()).hexdigest()
