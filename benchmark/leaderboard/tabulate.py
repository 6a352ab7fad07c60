"""From records to tables: a pure function, so that the same records give the same bytes.

One table per scenario (name, version, options), track, and weights that see the images; where the variants
of a scenario belong together (`benchmark.leaderboard.boards`) they are columns of one. Rows are configurations,
averaged over seeds (`benchmark.leaderboard.rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.backbones import loading
from benchmark.leaderboard import boards, rows
from benchmark.leaderboard.footnotes import Footnotes, row_facts, table_facts
from benchmark.leaderboard.rows import Entry, Record
from benchmark.records.store import without_garbage_collection
from benchmark.tables import MISSING, Cell, Column, Row, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "leaderboard", "render_text"]

HEADLINE = "final_avg_acc"
_ACCURACIES = {
    "final_avg_acc": "Final avg. acc. (%)",
    "final_acc": "Final acc. (%)",
    "worst_domain_acc": "Worst domain (%)",
    "avg_incremental_acc": "Avg. incr. acc. (%)",
    "forgetting": "Forgetting (points)",
    "learning_acc": "Learning acc. (%)",
}
_CAPTION = (
    "Mean ± sample standard deviation (ddof = 1) over seeds, in percent; n is in the column Seeds. "
    "95 % interval: Student's t, of the mean. Final avg. acc.: mean over test sets after the last experience; "
    "forgetting: Chaudhry et al. (2018), may be negative. Gain: difference of the means to the best sequential "
    "control. {bold} marks a final average accuracy that is higher than that of every other sequential row "
    "(paired t tests over common seeds, Holm, p < 0.05); never with one seed. {selection}"
)


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
    controls: dict[tuple[str, str], dict[str, Any]] = {}
    for run in unique:
        if run["method"]["control"]:
            controls.setdefault(_peers(run), {})[run["method"]["name"]] = run["method"]
    by_table: dict[tuple[Any, ...], list[Record]] = {}
    for run in unique:
        by_table.setdefault(_table_key(run), []).append(run)
    titles = Counter(_title(runs) for runs in by_table.values())
    tables = []
    for key in sorted(by_table):
        runs = by_table[key]
        tested = [run for run in runs if run["evaluated_on"] == "test"]
        if tested:
            title = _title(runs)
            if titles[title] > 1:
                title += _title_details(runs[0])
            make = boards.table if _kind(runs[0]) in boards.FAMILIES else _table
            tables.append(make(title, tested, len(runs) - len(tested), controls.get(_peers(runs[0]), {}), methods))
    return tables


def _peers(run: Record) -> tuple[str, str]:
    """Tables that share their controls: of one kind and on one image tower, as not every control runs on all."""
    return _kind(run), _image_tower(run)[0]


def _image_tower(run: Record) -> tuple[str, str]:
    """Name and hash of the weights that see the images.

    A bundled dual encoder shares them with another backbone; methods on either are rows of one table.
    """
    name, digest = run["backbone"]["name"], run["backbone"]["sha256"]
    return loading.image_towers().get(digest, (name, digest))


def _kind(run: Record) -> str:
    """Streams of experiences are one kind, the other families are apart."""
    family: str = run["scenario"]["family"]
    return family if family in boards.FAMILIES else "stream"


def _unique(records: Iterable[Record]) -> list[Record]:
    """One record per run id, a completed one if there is any."""
    found: dict[str, Record] = {}
    for run in records:
        known = found.get(run["run_id"])
        if known is None or (known["status"] != "completed" and run["status"] == "completed"):
            found[run["run_id"]] = run
    return [found[run_id] for run_id in sorted(found)]


def _table_key(run: Record) -> tuple[Any, ...]:
    options = repr(sorted(_options(run).items()))  # several times as fast as JSON
    return _name(run), run["scenario"]["version"], options, run["track"], *_image_tower(run)


def _name(run: Record) -> str:
    """The scenario's name; without the variant where variants are columns."""
    name: str = run["scenario"]["name"]
    return name if boards.variant_of(run) is None else name.partition("/")[0]


def _options(run: Record) -> dict[str, Any]:
    """Options of the scenario that set tables apart."""
    scenario = run["scenario"]
    options: dict[str, Any] = scenario["options"]
    if boards.variant_of(run) is None:
        return options
    return {name: value for name, value in options.items() if name != scenario["variant_option"]}


def _title(runs: Sequence[Record]) -> str:
    """What a table is of; where its rows differ in their text tower, the backbone is that of the images."""
    run = runs[0]
    backbones = {run["backbone"]["name"] for run in runs}
    backbone = backbones.pop() if len(backbones) == 1 else _image_tower(run)[0]
    return f"{_name(run)} (version {run['scenario']['version']}), track {run['track']}, {backbone}"


def _title_details(run: Record) -> str:
    """What sets tables of one name apart: options of the scenario and the weights."""
    options = ", ".join(f"{name}={rows.show(value)}" for name, value in sorted(_options(run).items()))
    return f", weights {_image_tower(run)[1][:8]}" + (f", {options}" if options else "")


def _mean(entry: Entry) -> float | None:
    return entry.summary(HEADLINE).mean


# --- Tables -----------------------------------------------------------------------------------


def _table(
    title: str, runs: Sequence[Record], validation: int, controls: Mapping[str, Any], methods: Sequence[str]
) -> Table:
    entries = rows.entries_of(runs)
    missing = sorted(set(controls) - {entry.method for entry in entries})
    expected = {rows.seeds_of(run) for run in runs}
    reference = rows.best_control(entries, _mean)
    best = rows.best(entries, lambda entry: entry.by_seed(HEADLINE))
    shown = rows.chosen(rows.ordered(entries, _mean), methods, controls)
    columns = _columns(shown)
    notes = Footnotes()
    found = []
    for entry in shown:
        marks = tuple(notes.mark(fact) for fact in row_facts(entry.runs))
        done = {rows.seeds_of(run) for run in entry.completed}
        cells = {
            "method": Cell(entry.label, entry.label, marks=marks),
            "ci95": rows.interval(entry.summary(HEADLINE)),
            "gain": rows.gain(entry, reference, _mean),
            "params_trainable": rows.mean_of([rows.cost(run, "params_trainable") for run in entry.completed], ",.0f"),
            "train_seconds": rows.mean_of([sum(run["timing"]["train_seconds"]) for run in entry.completed], ",.1f"),
            "seeds": rows.count(entry, done, expected),
            **{metric: rows.percent(entry.summary(metric)) for metric in _ACCURACIES},
        }
        if entry is best:
            cells[HEADLINE] = Cell(cells[HEADLINE].text, cells[HEADLINE].value, bold=True)
        found.append(Row(tuple(cells[column.key] for column in columns), entry.group))
    found += [_missing_row(name, controls[name], columns) for name in missing]
    found.sort(key=lambda row: rows.GROUPS.index(row.group))  # stable: missing controls end their group
    footnotes = [*notes.all(), *(("", text) for text in table_facts(runs, validation))]
    raw = tuple(rows.raw(run, entry.label) for entry in shown for run in entry.runs)
    caption = _CAPTION.format(bold="Bold (*)", selection=rows.selection_text(runs))
    return Table(title, caption, columns, tuple(found), tuple(footnotes), raw)


def _columns(entries: Sequence[Entry]) -> tuple[Column, ...]:
    """The columns that say something in this table."""

    def means(metric: str) -> list[float | None]:
        return [entry.summary(metric).mean for entry in entries]

    keys = [metric for metric in _ACCURACIES if metric == HEADLINE or any(mean is not None for mean in means(metric))]
    pairs = zip(means("final_acc"), means(HEADLINE), strict=True)
    if all(a is None or b is None or abs(a - b) < 1e-9 for a, b in pairs) and "final_acc" in keys:
        keys.remove("final_acc")  # the two are equal when all test sets have the same size
    return (
        Column("method", "Method", "left"),
        Column(HEADLINE, _ACCURACIES[HEADLINE]),
        Column("ci95", "95 % interval (%)"),
        Column("gain", "Gain (points)"),
        *(Column(key, _ACCURACIES[key]) for key in keys if key != HEADLINE),
        Column("params_trainable", "Trainable params"),
        Column("train_seconds", "Training (s)"),
        Column("seeds", "Seeds"),
    )


def _missing_row(name: str, about: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    cells = {"method": Cell(name, name), "seeds": Cell("missing", 0)}
    group = "control" if about["stream"] == "sequential" else "upper bound"
    return Row(tuple(cells.get(column.key, Cell(MISSING)) for column in columns), group)
