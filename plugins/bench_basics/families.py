"""The families of `benchmark.families`."""

from __future__ import annotations

from benchmark import hookimpl
from benchmark.families import FAMILIES, Family


@hookimpl
def bench_register_families() -> list[Family]:
    """Registers all of them."""
    return list(FAMILIES.values())
