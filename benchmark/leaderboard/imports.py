"""Rows of other suites' results: below ours in a group of their own, or in tables of their own; never a row with ours.

A row is all imported runs of one setting, over their seeds. It is never bold, has no gain and is in no test; its
footnote says whose file it is from. Where the suite computed a number by the same definition as ours and its file has
no matrix to compute it from, that number is shown, and a footnote says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from benchmark.families import Family
from benchmark.leaderboard.footnotes import Footnotes
from benchmark.leaderboard.rows import percent, setting
from benchmark.metrics.statistics import summarize
from benchmark.records.imported import Imported
from benchmark.scenario_names import base_of
from benchmark.tables import MISSING, Cell, Column, Row, Scalar, Table

GROUP = "imported"
OPTIONS = 4  # that a label names
CAPTION = (
    "Results of another suite, read from its files: data, weights and code are theirs, nobody verified them here. ± is "
    "the sample standard deviation (ddof = 1) over seeds. In percent where the heading says so."
)
FILES = 3  # named in a footnote
REPORTED = "as the suite reported it; its file has no matrix to compute it from"
_COLUMNS: Mapping[str, str] = {
    **Family(name="any", summary="").columns,
    "avg_incremental_acc_task": "Avg. incr. acc., task mean (%)",
}


@dataclass
class Entry:
    """All imported runs of one setting: one row."""

    label: str
    runs: list[Imported]


def beside(tables: Sequence[Table], imported: Iterable[Imported]) -> list[Table]:
    """Adds rows of other suites to tables, and tables for those that belong to none.

    Args:
        tables: Of our records.
        imported: Runs of other suites; each is counted once.
    """
    found = list(tables)
    alone: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in _entries({run.import_id: run for run in imported}.values()):
        places = [place for place, table in enumerate(tables) if _belongs(entry.runs[0], table)]
        for place in places:
            found[place] = _with_row(found[place], entry)
        if not places:
            first = entry.runs[0]
            alone.setdefault((first.stands_by, first.scenario or "", first.source.suite), []).append(entry)
    return found + [_own(*key, rows) for key, rows in sorted(alone.items())]


def _entries(runs: Iterable[Imported]) -> list[Entry]:
    """Runs by setting; where labels would be equal, with what else differs."""
    settings: dict[str, list[Imported]] = {}
    for run in runs:
        settings.setdefault(json.dumps(_setting(run), sort_keys=True), []).append(run)
    entries = []
    for key in sorted(settings):
        shapes: dict[str, list[Imported]] = {}
        ordered = sorted(settings[key], key=lambda run: (run.complete is False, run.seed or 0, run.import_id))
        for run in ordered:
            shape = repr((run.tests, run.experiences))
            if run.complete is False and shapes:  # a run that was cut off may not know its shape
                shape = next(iter(shapes))
            shapes.setdefault(shape, []).append(run)
        entries += [Entry(_label(group[0]), group) for group in shapes.values()]
    same: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        first = entry.runs[0]
        same.setdefault((entry.label, first.stands_by, first.scenario or ""), []).append(entry)
    for group in same.values():
        told = [_flat(_setting(entry.runs[0])) for entry in group]
        names = sorted({name for values in told for name in values})
        differing = [name for name in names if len({str(values.get(name)) for values in told}) > 1]
        for entry, values in zip(group, told, strict=True):
            shown = ", ".join(setting(name, values.get(name)) for name in differing[:OPTIONS])
            more = f", {len(differing) - OPTIONS} more" if len(differing) > OPTIONS else ""
            entry.label += f" ({shown}{more})" if shown else ""
    return entries


def _setting(run: Imported) -> dict[str, Any]:
    """What runs of one row have in common."""
    values = msgspec.to_builtins(run)
    names = ("stands_by", "track", "scenario", "method", "part", "family", "backbone", "selection", "config")
    return {"importer": run.source.importer, "suite": run.source.suite, **{name: values[name] for name in names}}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in values.items() if name != "config"}, **values["config"]}


def _belongs(run: Imported, table: Table) -> bool:
    """Whether the caller said that a run stands below this table."""
    return bool(run.stands_by) and any(
        run.stands_by in (ours["scenario"], base_of(str(ours["scenario"]))) and run.track in ("", ours["track"])
        for ours in table.runs
        if ours.get("status") != GROUP
    )


def _label(first: Imported) -> str:
    name = " ".join(part for part in (first.method or "unknown method", first.part) if part)
    return f"{name} ({first.source.suite})"


def _facts(runs: Sequence[Imported]) -> list[str]:
    """Whose numbers these are, and what their importer found odd."""
    first = runs[0]
    files = [f"{run.source.file} ({run.source.sha256[:8]}, lines {_lines(run)})" for run in runs]
    more = f" and {len(files) - FILES} more" if len(files) > FILES else ""
    backbone = first.backbone or "unknown"
    facts = [
        f"imported from {first.source.suite}: {', '.join(files[:FILES])}{more}; backbone {backbone}, "
        "its weights, the data and the code not verified"
    ]
    if first.told:
        facts.append("told at import, not in the file: " + ", ".join(f"{k}={v}" for k, v in sorted(first.told.items())))
    if first.seed_scope:
        facts.append(f"the seed varies: {first.seed_scope}")
    return facts + sorted({f"import: {note}" for run in runs for note in run.notes})


def _lines(run: Imported) -> str:
    return f"{run.source.first_line}-{run.source.last_line}"


def _cell(runs: Sequence[Imported], metric: str, notes: Footnotes) -> Cell:
    known = [(value, theirs) for run in _whole(runs) for value, theirs in [run.number(metric)] if value is not None]
    cell = percent(summarize([value for value, _ in known]))
    return replace(cell, marks=(notes.mark(REPORTED),)) if any(theirs for _, theirs in known) else cell


def _whole(runs: Iterable[Imported]) -> list[Imported]:
    return [run for run in runs if run.complete is not False]


def _seeds(runs: Sequence[Imported]) -> Cell:
    whole = _whole(runs)
    seeds = {run.seed for run in whole if run.seed is not None}
    text = str(len(seeds)) if len(seeds) == len(whole) else f"{len(whole)}, seeds unknown"
    if len(whole) < len(runs):
        text += f", {len(runs) - len(whole)} incomplete"
    return Cell(text, len(whole))


def _with_row(table: Table, entry: Entry) -> Table:
    """A table of ours with one more row at its end."""
    label, runs = entry.label, entry.runs
    notes = Footnotes()
    for mark, text in table.footnotes:
        if mark:
            notes.mark(text)
    marks = tuple(notes.mark(fact) for fact in _facts(runs))
    special = {"method": Cell(label, label, marks=marks), "seeds": _seeds(runs)}
    cells = []
    for column in table.columns:
        metric = column.key if column.key in _COLUMNS else ""
        cells.append(special.get(column.key) or (_cell(runs, metric, notes) if metric else Cell(MISSING)))
    general = tuple(pair for pair in table.footnotes if not pair[0])
    raw = (*table.runs, *(_raw(run, label) for run in runs))
    return replace(table, rows=(*table.rows, Row(tuple(cells), GROUP)), footnotes=(*notes.all(), *general), runs=raw)


def _own(stands_by: str, scenario: str, suite: str, rows: Sequence[Entry]) -> Table:
    """A table of one scenario of a suite."""
    every = [run for entry in rows for run in entry.runs]
    metrics = [name for name in _COLUMNS if any(run.number(name)[0] is not None for run in every)]
    others = dict.fromkeys(score.name for run in every for score in run.reported if not score.metric)
    units = {score.name: score.unit for run in every for score in run.reported}
    notes = Footnotes()
    columns = (
        Column("method", "Method", "left"),
        *(Column(name, _COLUMNS[name]) for name in metrics),
        *(Column(f"reported {name}", f"{name} (%)" if units[name] == "fraction" else name) for name in others),
        Column("seeds", "Seeds"),
    )
    found = []
    for entry in rows:
        label, runs = entry.label, entry.runs
        marks = tuple(notes.mark(fact) for fact in _facts(runs))
        cells = [Cell(label, label, marks=marks), *(_cell(runs, name, notes) for name in metrics)]
        for name in others:
            scores = [score for run in _whole(runs) for score in run.reported if score.name == name]
            summary = summarize([score.value for score in scores])
            if units[name] == "fraction":
                cell = percent(summary)
            else:
                cell = Cell(MISSING) if summary.mean is None else Cell(f"{summary.mean:.4g}", summary.mean)
            told = sorted({score.definition for score in scores})
            cells.append(replace(cell, marks=tuple(notes.mark(f"reported: {text}") for text in told)))
        found.append(Row((*cells, _seeds(runs)), GROUP))
    title = f"{scenario or 'unknown scenario'} ({suite}), imported"
    general: list[tuple[str, str]] = []
    if stands_by:
        title += f", for {stands_by}"
        general = [("", f"There is no table of ours for {stands_by} here.")]
    raw = tuple(_raw(run, entry.label) for entry in rows for run in entry.runs)
    return Table(title, CAPTION, columns, tuple(found), (*notes.all(), *general), raw)


def _raw(run: Imported, label: str) -> dict[str, Scalar]:
    """One imported run for machines; ``status`` tells it from ours."""
    numbers: dict[str, Any] = {name: value for name, value in run.metrics.items() if not isinstance(value, list)}
    return {
        "scenario": run.stands_by or run.scenario,
        "family": run.family,
        "track": run.track,
        "backbone": run.backbone,
        "row": label,
        "method": run.method,
        "run_id": run.import_id,
        "status": GROUP,
        "seed": run.seed,
        **numbers,
        **{f"reported {score.name}": score.value for score in run.reported},
        "imported_from": run.source.suite,
        "imported_scenario": run.scenario,
        "imported_by": run.source.importer,
        "imported_file": run.source.file,
        "imported_sha256": run.source.sha256,
        "imported_lines": _lines(run),
        "imported_complete": run.complete,
    }
