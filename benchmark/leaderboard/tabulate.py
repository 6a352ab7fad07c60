"""From records to tables: a pure function, so that the same records give the same bytes.

One table per scenario (name, version, options), track, and weights that see the images; where the variants
of a scenario belong together (`benchmark.leaderboard.boards`) they are columns of one. Rows are configurations,
averaged over seeds (`benchmark.leaderboard.rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.leaderboard import boards, rows
from benchmark.records.schema import Method, Record
from benchmark.records.store import without_garbage_collection
from benchmark.tables import Cell, Column, Row, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "leaderboard", "render_text"]

HEADLINE = "final_avg_acc"


def leaderboard(records: Iterable[Record], *, methods: Sequence[str] = ()) -> list[Table]:
    """Tabulates records.

    Args:
        records: Records of any scenarios; each run is counted once. Runs on validation data are
            left out and counted in a footnote.
        methods: Show only these (``name`` or ``name@recipe``) beside the controls; default all.

    Returns:
        Tables sorted by scenario, version, options, track and image tower.
    """
    with without_garbage_collection():
        return _tables(_unique(records), methods)


def _tables(unique: Sequence[Record], methods: Sequence[str]) -> list[Table]:
    controls: dict[tuple[str, str], dict[str, Method]] = {}
    for run in unique:
        if run.method.control:
            controls.setdefault(_peers(run), {})[run.method.name] = run.method
    by_table: dict[tuple[Any, ...], list[Record]] = {}
    for run in unique:
        by_table.setdefault(_table_key(run), []).append(run)
    titles = Counter(_title(runs) for runs in by_table.values())
    tables = []
    for key in sorted(by_table):
        runs = by_table[key]
        tested = [run for run in runs if run.evaluated_on == "test"]
        if tested:
            title = _title(runs)
            if titles[title] > 1:
                title += _title_details(runs[0])
            left_out = len(runs) - len(tested)
            tables.append(boards.table(title, tested, left_out, controls.get(_peers(runs[0]), {}), methods))
    return tables


def _peers(run: Record) -> tuple[str, str]:
    """Tables that share their controls: of one kind and on one image tower, as not every control runs on all."""
    return boards.family_of(run).kind, _image_tower(run)[0]


def _image_tower(run: Record) -> tuple[str, str]:
    """Name and hash of the weights that see the images: backbones that share them are rows of one table."""
    return run.backbone.image_name, run.backbone.image_sha256


def _unique(records: Iterable[Record]) -> list[Record]:
    """One record per run id, a completed one if there is any."""
    found: dict[str, Record] = {}
    for run in records:
        known = found.get(run.run_id)
        if known is None or (known.status != "completed" and run.status == "completed"):
            found[run.run_id] = run
    return [found[run_id] for run_id in sorted(found)]


def _table_key(run: Record) -> tuple[Any, ...]:
    options = repr(sorted(_options(run).items()))  # several times as fast as JSON
    return _name(run), run.scenario.version, options, run.track, *_image_tower(run)


def _name(run: Record) -> str:
    """The scenario's name; without the variant where variants are columns."""
    name: str = run.scenario.name
    return name if boards.variant_of(run) is None else name.partition("/")[0]


def _options(run: Record) -> dict[str, Any]:
    """Options of the scenario that set tables apart."""
    scenario = run.scenario
    options: dict[str, Any] = scenario.options
    if boards.variant_of(run) is None:
        return options
    return {name: value for name, value in options.items() if name != scenario.variant_option}


def _title(runs: Sequence[Record]) -> str:
    """What a table is of; where its rows differ in their text tower, the backbone is that of the images."""
    run = runs[0]
    backbones = {run.backbone.name for run in runs}
    backbone = backbones.pop() if len(backbones) == 1 else _image_tower(run)[0]
    return f"{_name(run)} (version {run.scenario.version}), track {run.track}, {backbone}"


def _title_details(run: Record) -> str:
    """What sets tables of one name apart: options of the scenario and the weights."""
    options = ", ".join(f"{name}={rows.show(value)}" for name, value in sorted(_options(run).items()))
    return f", weights {_image_tower(run)[1][:8]}" + (f", {options}" if options else "")
