"""Puts one table together: its rows, cells, caption and footnotes, on the columns of its board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmark.leaderboard import boards, machine, rows, sampling, selected
from benchmark.leaderboard.footnotes import Footnotes, machines, row_facts, table_facts, time_facts
from benchmark.leaderboard.sampling import Sampling
from benchmark.metrics.statistics import summarize
from benchmark.records.schema import Method, Record
from benchmark.tables import MISSING, Cell, Column, Row, Table

_COMMON = (
    "± is the sample standard deviation (ddof = 1) over seeds; n is in the column Seeds. 95 % interval: Student's t, "
    "of {of}, within 0 to 100; deterministic: every seed gave the same accuracies. Gain: difference of {of} to the "
    "best control. Bold (*) marks {of} that is higher than in every other row that is no upper bound: each paired t "
    "test over common seeds has p < 0.05 (all must pass, so there is no correction; what is on every seed below a "
    "beaten row is beaten, too); never with one seed. {selection}"
)
_SHORT = (
    "{of} in %, ± standard deviation over seeds. Bold: higher than in every other row that is no upper bound "
    "(each paired t test over seeds p < 0.05)."
)


def table(
    title: str,
    runs: Sequence[Record],
    validation: int,
    controls: Mapping[str, Method],
    methods: Sequence[str],
    names: Mapping[str, str],
    sampled: Sampling | None,
    differing: rows.Unsettled,
    raw: bool,
) -> Table:
    """Tabulates the runs of one table.

    Args:
        title: Of the table.
        runs: Runs of one family, of one scenario or of variants that belong together.
        validation: Runs on validation data that are left out.
        controls: Methods that are always shown, by name.
        methods: Show only these beside the controls; default all.
        names: What rows and methods are called instead, see `rows.rename`.
        sampled: How accuracies get intervals over test samples; None: they get none.
        differing: Options that labels tell in any case, see `rows.unsettled`.
        raw: Whether it has the values of each run for machines.
    """
    entries = rows.entries_of(runs, differing)
    called = rows.rename(entries, names)
    shown = rows.chosen(entries, methods, controls)
    board = boards.BOARDS[boards.family_of(runs[0]).board](runs, shown)
    brought = {name: fact for run in runs for name, fact in run.metric_facts.items() if boards.defined(name, runs)}
    expected = {rows.seeds_of(run) for run in runs}
    reference = rows.best_control(entries, board.mean)
    verdict = rows.verdict(entries, board.by_seed)
    best = verdict[1][verdict[0].best] if verdict is not None and not verdict[0].unbeaten else None
    columns = (
        Column("method", "Method", "left"),
        *board.columns,
        Column("ci95", "95 % interval (%)"),
        Column("gain", "Gain (points)"),
        *board.further,
        *(Column(f"metric {name}", fact.heading) for name, fact in sorted(brought.items())),
        Column("params_trainable", "Trainable params"),
        Column("train_seconds", "Training (s)"),
        Column("seeds", "Seeds"),
    )
    notes = Footnotes()
    usual = next(iter(machines(runs)), "")
    found = []
    shown = rows.ordered(shown, board.mean)
    for entry in shown:
        marks = tuple(notes.mark(fact) for fact in row_facts(entry.runs))
        cells = {
            **{
                f"metric {name}": (entry.percent if fact.percent else rows.number)(board.summary(entry, name))
                for name, fact in brought.items()
            },
            **board.cells(entry),
            "method": Cell(entry.label, called[entry.label], marks=marks),
            "ci95": rows.interval(summarize(list(board.by_seed(entry).values())), deterministic=entry.deterministic),
            "gain": rows.gain(entry, reference, board.mean),
            "params_trainable": rows.mean_of([rows.cost(run, "params_trainable") for run in entry.completed], ",.0f"),
            "train_seconds": rows.mean_of([sum(run.timing.train_seconds) for run in entry.completed], ",.1f"),
            "seeds": rows.count(entry, set(board.by_seed(entry)), expected),
        }
        if sampled is not None:
            cells |= {key: _with_interval(cell, *board.behind(entry, key), sampled) for key, cell in cells.items()}
        slow = [notes.mark(fact) for fact in time_facts(entry.completed, usual)]
        cells["train_seconds"] = replace(cells["train_seconds"], marks=tuple(slow))
        if entry is best:
            cells[board.headline] = replace(cells[board.headline], bold=True)
        found.append(Row(tuple(cells[column.key] for column in columns), entry.group))
    for name in sorted(set(controls) - {entry.method for entry in entries}):
        blank = {"method": Cell(names.get(name, name), name), "seeds": Cell("missing", 0)}
        group = "control" if controls[name].stream == "sequential" else "upper bound"
        found.append(Row(tuple(blank.get(column.key, Cell(MISSING)) for column in columns), group))
    found.sort(key=lambda row: rows.GROUPS.index(row.group))  # stable: missing controls end their group
    caption = f"{board.caption} {_COMMON.format(of=board.of, selection=selected.selection_text(runs))}"
    if sampled is not None:
        caption += f" {sampled.text}"
    lacking = sampled.lacking(shown) if sampled is not None else ""
    said = (rows.verdict_text(verdict, board.by_seed), lacking, *table_facts(runs, validation, names))
    told = [text for text in said if text]
    footnotes = (*notes.all(), *(("", text) for text in told))
    numbers = tuple(machine.raw(run, entry.label) for entry in shown for run in entry.runs) if raw else ()
    return Table(title, caption, columns, tuple(found), footnotes, numbers, _SHORT.format(of=board.of.capitalize()))


def _with_interval(cell: Cell, metric: str, seeds: Sequence[Sequence[tuple[Record, float]]], how: Sampling) -> Cell:
    """An accuracy with its interval over test samples behind it; other cells as they are."""
    if not isinstance(cell.value, float) or (found := sampling.interval(seeds, metric, how)) is None:
        return cell
    low, high = (rows.fixed(100 * end) for end in found)
    return replace(cell, text=f"{cell.text} [{low}, {high}]", interval=found)
