"""Hashes of what samples show, by which data are recognised whatever files they came from.

A source's digest depends on nothing but its samples: the same pixels from Parquet, a folder or a cache give the same
hash, one changed pixel gives another. torch is not needed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_ROWS = 256  # samples in memory at once


def array_digest(dtype: str, shape: Sequence[int], sha256: str) -> str:
    """Digest of an array from the SHA-256 of its bytes, which are in C order.

    Args:
        dtype: Name of its type as numpy says it, e.g. ``uint8``.
        shape: Its shape.
        sha256: Of its bytes, hexadecimal.
    """
    head = f"adaptbench content 1\n{dtype} {','.join(map(str, shape))}\n{sha256}\n"
    return hashlib.sha256(head.encode()).hexdigest()


def digest_of(source: Any) -> str:
    """The digest of a source: its own ``digest`` if it has one, else that of its samples, read once.

    Args:
        source: As in `benchmark.samples.ImageSet`: a tensor or anything that gives samples by row.
    """
    own = getattr(source, "digest", None)
    if isinstance(own, str):
        return own
    rows = len(source) if hasattr(source, "__len__") else source.shape[0]
    digest, dtype, shape = hashlib.sha256(), "json", (rows,)
    for start in range(0, rows, _ROWS):
        part = _samples(source, start, min(start + _ROWS, rows))
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).data)
            dtype, shape = str(part.dtype), (rows, *part.shape[1:])
        else:
            for sample in part:
                digest.update(json.dumps(sample, sort_keys=True).encode() + b"\n")
    return array_digest(dtype, shape, digest.hexdigest())


def _samples(source: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop`` - 1: an array where the source gives tensors, else what it gives."""
    import torch

    found = source[start:stop] if isinstance(source, torch.Tensor) else source[torch.arange(start, stop)]
    return found.numpy() if isinstance(found, torch.Tensor) else found


def joined(digests: Iterable[str]) -> str:
    """One digest for several, each counted once, in whatever order they come."""
    return hashlib.sha256("\n".join(["adaptbench contents 1", *sorted(set(digests))]).encode()).hexdigest()
