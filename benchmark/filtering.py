"""Which records are meant by the name of a scenario, a track or a method: on the command line and in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from benchmark import registry
from benchmark.errors import did_you_mean
from benchmark.scenario_names import base_of

if TYPE_CHECKING:
    from benchmark.records.imported import Imported
    from benchmark.records.schema import Record

K = TypeVar("K")

__all__ = ["check_methods", "chosen", "imported", "label_of", "names_of"]


def chosen(found: Mapping[K, Record], scenarios: Sequence[str], tracks: Sequence[str]) -> dict[K, Record]:
    """Records of some scenarios and tracks, by the key they had.

    Args:
        found: Records by path.
        scenarios: Names, with or without variant, also other names of the same scenario; none: all.
        tracks: Likewise.

    Raises:
        UsageError: There is no record of such a scenario or track.
    """
    full = {run.scenario.name for run in found.values()}
    present = {part for name in full for part in _parts(name)}
    wanted: set[str] = set()
    for name in scenarios:
        matching = {name, *_aliases(name)} & present
        if not matching:
            raise did_you_mean("scenario in these records", name, present)
        wanted |= matching
    for name in tracks:
        if name not in (offered := {run.track for run in found.values()}):
            raise did_you_mean("track in these records", name, offered)
    return {
        path: run
        for path, run in found.items()
        if (not wanted or wanted & _parts(run.scenario.name)) and (not tracks or run.track in tracks)
    }


def imported(
    runs: Iterable[Imported], *, scenarios: Sequence[str], tracks: Sequence[str], methods: Sequence[str]
) -> list[Imported]:
    """Runs of other suites, by the scenario and track beside which they stand."""
    return [
        run
        for run in runs
        if (not scenarios or {*_parts(run.stands_by), run.scenario or ""} & set(scenarios))
        and (not tracks or run.track in ("", *tracks))
        and (not methods or run.method in methods)
    ]


def _parts(name: str) -> set[str]:
    """A name, the same without its variant or the last parts of it, and without its tag."""
    pieces = name.split("/")
    return {base_of(name), *("/".join(pieces[:count]) for count in range(1, len(pieces) + 1))}


def _aliases(name: str) -> set[str]:
    """Other names of a scenario: entry points of the same module, found without importing it."""
    base, slash, variant = name.partition("/")
    entries = registry.entries("scenarios")
    modules = {entry.module for entry in entries.get(base, [])}
    same = {other for other, claims in entries.items() if modules & {entry.module for entry in claims}}
    return {other + slash + variant for other in same}


def check_methods(found: Iterable[Record], methods: Sequence[str]) -> None:
    """Makes sure that there are runs of all of some methods.

    Raises:
        UsageError: There are none of one.
    """
    present = {name for run in found for name in names_of(run)}
    for name in methods:
        if name not in present:
            raise did_you_mean("method in these records", name, present)


def names_of(run: Record) -> set[str]:
    """What the method of a run may be called: by its name, with and without its recipe."""
    return {run.method.name, label_of(run)}


def label_of(run: Record) -> str:
    """The method of a run with its recipe."""
    return f"{run.method.name}@{run.method.recipe}"
