"""Names of plugins from the metadata of installed packages: read once, nothing of a package is imported.

``BENCH_DISABLE_PLUGINS=a,b`` hides names.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from dataclasses import dataclass

LIFE_CYCLE_GROUP = "bench"


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin name and where it comes from.

    Attributes:
        name: Name on the command line.
        module: Module that holds the plugin.
        distribution: ``"adaptbench 0.1.0"``, or the file of a ``-p`` plugin.
    """

    name: str
    module: str
    distribution: str


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("BENCH_DISABLE_PLUGINS", "").split(",") if name.strip()}


@functools.cache  # name and version are parsed from a file whenever they are asked for
def _distribution(dist: importlib.metadata.Distribution | None) -> str:
    return f"{dist.name} {dist.version}" if dist is not None else "unknown distribution"


@functools.lru_cache(maxsize=1)
def read() -> dict[str, list[importlib.metadata.EntryPoint]]:
    """The entry points of every group of ours."""
    # One look at all packages: to ask for one group reads them all, too.
    everything = importlib.metadata.entry_points()
    ours = (group for group in everything.groups if f"{group}.".startswith(f"{LIFE_CYCLE_GROUP}."))
    return {group: list(everything.select(group=group)) for group in ours}


def installed(group: str, *, hidden: bool = False) -> dict[str, list[Entry]]:
    """All plugins of an entry-point group by name, without importing any.

    Args:
        group: Such as ``bench.methods``.
        hidden: Whether those that ``BENCH_DISABLE_PLUGINS`` hides are there too.
    """
    found: dict[str, list[Entry]] = {}
    disabled = set() if hidden else _disabled()
    for point in read().get(group, ()):
        if point.name in disabled:
            continue
        entry = Entry(point.name, point.value, _distribution(point.dist))
        # The same distribution can be visible twice (editable install in the current folder).
        if entry not in found.setdefault(point.name, []):
            found[point.name].append(entry)
    return found
