"""From records to tables: a pure function, so that the same records give the same bytes.

One table per scenario (name, version, options), data (what was decoded, how it was cut), track, and weights that see
the images; where the variants of a scenario belong together (`benchmark.leaderboard.boards`) they are columns of one.
Rows are configurations, averaged over seeds (`benchmark.leaderboard.rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmark.leaderboard import assembly, boards, imports, rows
from benchmark.leaderboard.sampling import Sampling
from benchmark.records.imported import Imported
from benchmark.records.schema import Method, Record
from benchmark.records.store import without_garbage_collection
from benchmark.tables import Cell, Column, Row, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "leaderboard", "render_text"]

HEADLINE = "final_avg_acc"


def leaderboard(
    records: Iterable[Record],
    *,
    methods: Sequence[str] = (),
    names: Mapping[str, str] = MappingProxyType({}),
    sampling: Sampling | None = None,
    imported: Iterable[Imported] = (),
    raw: bool = True,
) -> list[Table]:
    """Tabulates records.

    Args:
        records: Records of any scenarios; each run is counted once. Runs on validation data are
            left out and counted in a footnote.
        methods: Show only these (``name`` or ``name@recipe``) beside the controls; default all.
        names: What rows are called instead: by label, by ``name@recipe`` or by the method's name.
        sampling: How accuracies get intervals over test samples (`benchmark.leaderboard.sampling`); default: none.
        imported: Runs of other suites: in rows of their own, below ours, or in tables of their own behind them.
        raw: Whether tables have `Table.runs`, which takes as long as all the rest and which people do not see.

    Returns:
        Tables sorted by scenario, version, options, track, data and image tower.
    """
    with without_garbage_collection():
        return imports.beside(_tables(_unique(records), methods, names, sampling, raw), imported)


def _tables(
    unique: Sequence[Record], methods: Sequence[str], names: Mapping[str, str], sampling: Sampling | None, raw: bool
) -> list[Table]:
    controls: dict[tuple[str, ...], dict[str, Method]] = {}
    for run in unique:
        if run.method.control:
            controls.setdefault(_peers(run), {})[run.method.name] = run.method
    differing = rows.unsettled(unique)
    return [
        assembly.table(
            title, tested, left_out, controls.get(_peers(tested[0]), {}), methods, names, sampling, differing, raw
        )
        for title, tested, left_out in _tested(unique)
    ]


def grouped(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """The runs of every table with its title, in the order of the tables, each run once."""
    return [(title, runs) for title, runs, _ in _tested(_unique(records))]


def _tested(unique: Sequence[Record]) -> Iterator[tuple[str, list[Record], int]]:
    """Title, runs, and how many on validation data were left out, of every table that has a run."""
    found = _grouped(unique)
    titles = _titles(found)
    for key in sorted(found):
        tested = [run for run in found[key] if run.evaluated_on == "test"]
        if tested:
            yield titles[key], tested, len(found[key]) - len(tested)


def _unique(records: Iterable[Record]) -> list[Record]:
    """One record per run id, a completed one if there is any."""
    found: dict[str, Record] = {}
    for run in records:
        known = found.get(run.run_id)
        if known is None or (known.status != "completed" and run.status == "completed"):
            found[run.run_id] = run
    return [found[run_id] for run_id in sorted(found)]


def _peers(run: Record) -> tuple[str, ...]:
    """Tables that share their controls: of one kind and on one image tower, as not every control runs on all."""
    return boards.family_of(run).kind, *_image_tower(run)


def _image_tower(run: Record) -> tuple[str, str]:
    """Name and hash of the weights that see the images: backbones that share them are rows of one table."""
    return run.backbone.image_name, run.backbone.image_sha256


# --- What belongs together --------------------------------------------------------------------

Key = tuple[Any, ...]


def _grouped(runs: Iterable[Record]) -> dict[Key, list[Record]]:
    """Runs by table. No two runs of one table saw different data under the same name."""
    found: dict[Key, list[Record]] = {}
    for run in runs:
        found.setdefault(_key(run), []).append(run)
    apart: dict[Key, list[Record]] = {}
    for key, group in found.items():
        mixed = _mixed(group)
        for run in group:
            apart.setdefault((*key, run.scenario.fingerprint if mixed else ""), []).append(run)
    return apart


def _key(run: Record) -> Key:
    scenario = run.scenario
    options = repr(sorted(_options(run).items()))  # several times as fast as JSON
    # Where nobody knows what was decoded, the notes of the scenario tell apart at least what it says itself.
    notes = "" if scenario.content else repr(sorted(scenario.notes.items()))
    family = f"{scenario.family} {scenario.family_facts or ''}"
    data: tuple[object, ...] = scenario.content, scenario.partition, _lossy(run), notes
    apart = scenario.data_by_variant or boards.family_of(run).collection
    if apart and boards.variant_of(run) is not None:
        data = scenario.partition, _lossy(run)
    return _name(run), scenario.version, options, run.track, family, *data, *_image_tower(run)


def _mixed(runs: Iterable[Record]) -> bool:
    """Whether a variant has different data for the same class order, although nothing else says so."""
    prints: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        if run.evaluated_on == "test":
            place = run.scenario.name, run.seeds.class_order
            prints.setdefault(place, set()).add(run.scenario.fingerprint)
    return any(len(found) > 1 for found in prints.values())


def _lossy(run: Record) -> bool:
    return run.scenario.fingerprint.endswith("-lossy")


def _name(run: Record) -> str:
    """The scenario's name; without the (last part of the) variant where variants are columns."""
    name = run.scenario.name
    return name if boards.variant_of(run) is None else name.rpartition("/")[0]


def _options(run: Record) -> dict[str, Any]:
    """Options of the scenario that set tables apart."""
    scenario = run.scenario
    options: dict[str, Any] = scenario.options
    if boards.variant_of(run) is None:
        return options
    return {name: value for name, value in options.items() if name != scenario.variant_option}


# --- Titles -----------------------------------------------------------------------------------


def _titles(found: dict[Key, list[Record]]) -> dict[Key, str]:
    """A title for every table; where two would be equal, with what else sets them apart."""
    titles = {key: _title(runs) for key, runs in found.items()}
    for title, number in Counter(titles.values()).items():
        if number > 1:
            same = [key for key, other in titles.items() if other == title]
            facts = {key: _facts(key, found[key][0]) for key in same}
            names = sorted({name for known in facts.values() for name in known})
            differing = [name for name in names if len({known.get(name) for known in facts.values()}) > 1]
            for key in same:
                told = [f"{name} {facts[key].get(name, 'unknown')}" for name in differing]
                titles[key] = f"{title}, {', '.join(told)}"
    return titles


def _title(runs: Sequence[Record]) -> str:
    """What a table is of: the scenario with all that is not as its track has it, the track, the weights.

    Where rows differ in their text tower, the backbone is that of the images.
    """
    run = runs[0]
    about = [f"version {run.scenario.version}"]
    about += [run.scenario.partition] if run.scenario.partition else []
    about += ["lossy copy"] if _lossy(run) else []
    about += [run.scenario.family] if boards.family_of(run).task_id else []
    options = {name: value for run in runs for name, value in rows.changed(run, "scenario").items()}
    options.pop(run.scenario.variant_option, None)  # part of the name
    about += [rows.setting(name, value) for name, value in sorted(options.items())]
    backbones = {run.backbone.name for run in runs}
    backbone = backbones.pop() if len(backbones) == 1 else run.backbone.image_name
    if run.backbone.own_weights:
        backbone += f" (own weights {run.backbone.image_sha256[:8]})"
    return f"{_name(run)} ({', '.join(about)}), track {run.track}, {backbone}"


def _facts(key: Key, run: Record) -> dict[str, str]:
    """Whatever may set tables of one title apart, as text."""
    facts = {name: rows.show(value) for name, value in _options(run).items()}
    facts |= {f"{name}:": text for name, text in run.scenario.notes.items()} if not run.scenario.content else {}
    facts["content"] = run.scenario.content[:8] or "unknown"
    facts["weights"] = run.backbone.image_sha256[:8]
    facts["fingerprint"] = str(key[-1])[:8]
    return facts
