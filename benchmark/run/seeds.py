"""Seeds of the streams of random numbers: one for each place of a run."""

from __future__ import annotations

import hashlib


def derive(seed: int, *place: int | str) -> int:
    """A seed for one place of a run, independent of all others (SHA-256 of the parts)."""
    text = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
