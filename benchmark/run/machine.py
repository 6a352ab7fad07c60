"""What this machine has for runs: cores and free memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int | None:
    """Bytes of memory that are free, or None where the system does not say."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return None


def processes() -> int:
    """How many processes ``torchrun`` has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def speaks() -> bool:
    """Whether this process tells what became of a run: the first of those of ``torchrun``."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"
