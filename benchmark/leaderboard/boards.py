"""Tables of the families that transfer: each has its own columns.

============== ===================================================================================
``uda``        source-target pairs, their mean, per-class mean, source accuracy kept
``dg``         domains held out, their mean, source accuracy kept
``few-shot``   numbers of shots
base-to-new    base, new, harmonic mean
cross-dataset  the data set that was trained, the others, their mean
============== ===================================================================================

Where variants are columns, one table holds all runs of a scenario that differ in the variant alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.leaderboard import rows
from benchmark.leaderboard.footnotes import Footnotes, row_facts, table_facts
from benchmark.leaderboard.rows import Entry, Record, Seeds
from benchmark.metrics.single import harmonic_mean
from benchmark.metrics.statistics import Summary, summarize
from benchmark.tables import MISSING, Cell, Column, Row, Table


@dataclass(frozen=True)
class Layout:
    """How a family whose variants are columns is tabulated.

    Attributes:
        metric: What a column shows.
        title: Heading of a column, from the variant.
        mean: Whether the mean over the columns is the headline; else it is the last column.
        extra: Further metrics, averaged over the columns, with their headings.
        caption: What the columns are.
    """

    metric: str
    title: str
    mean: bool
    extra: Mapping[str, str]
    caption: str


LAYOUTS: dict[str, Layout] = {
    "uda": Layout(
        "target_acc",
        "{}",
        True,
        {"mean_class_acc": "Per-class mean (%)", "source_acc": "Source kept (%)"},
        "Accuracy on target test images for each source-target pair, in percent. Mean: plain mean of the pairs. "
        "Per-class mean: mean over classes of the accuracy within the class; source kept: accuracy on source test "
        "images after adaptation; both averaged over the pairs.",
    ),
    "dg": Layout(
        "target_acc",
        "{}",
        True,
        {"source_acc": "Sources (%)"},
        "Accuracy on the domain that was held out, one column per domain, in percent. Mean: plain mean of the domains. "
        "Sources: accuracy on test images of the other domains, averaged.",
    ),
    "few-shot": Layout(
        "final_acc",
        "{} shots",
        False,
        {},
        "Accuracy on the full test set after training on that many images per class, in percent.",
    ),
}

_OPEN = {
    "base-to-new": "Base: accuracy on base classes among base names; new: on classes that were not trained among "
    "their own names; H: harmonic mean of the averaged base and new accuracies, ± over the H of single seeds; all in "
    "percent.",
    "cross-dataset": "Accuracy on the data set that was trained and, among their own names and with nothing "
    "retrained, on others; mean: of the others; all in percent.",
}
FAMILIES = frozenset({*LAYOUTS, *_OPEN})
_COMMON = (
    "± is the sample standard deviation (ddof = 1) over seeds; n is in the column Seeds. 95 % interval: Student's t, "
    "of {of}. Gain: difference of {of} to the best control. Bold (*) marks {of} that is higher than in every other "
    "row that is no upper bound (paired t tests over common seeds, Holm, p < 0.05); never with one seed. {selection}"
)


def variant_of(run: Record) -> str | None:
    """The variant whose column a run belongs to, or None when its scenario has a table of its own."""
    scenario = run["scenario"]
    variant: str = scenario["name"].partition("/")[2]
    return variant if scenario["family"] in LAYOUTS and variant and scenario["variant_option"] else None


def table(
    title: str, runs: Sequence[Record], validation: int, controls: Mapping[str, Any], methods: Sequence[str]
) -> Table:
    """Tabulates the runs of one table.

    Args:
        title: Of the table.
        runs: Runs of one family, of one scenario or of variants that belong together.
        validation: Runs on validation data that are left out.
        controls: Methods that are always shown, by name.
        methods: Show only these beside the controls; default all.
    """
    family = runs[0]["scenario"]["family"]
    board = _Variants(runs) if family in LAYOUTS else _OwnColumns(runs)
    entries = rows.entries_of(runs)
    expected = {rows.seeds_of(run) for run in runs}
    reference = rows.best_control(entries, board.mean)
    best = rows.best(entries, board.by_seed)
    shown = rows.chosen(rows.ordered(entries, board.mean), methods, controls)
    columns = (
        Column("method", "Method", "left"),
        *board.columns,
        Column("ci95", "95 % interval (%)"),
        Column("gain", "Gain (points)"),
        Column("params_trainable", "Trainable params"),
        Column("train_seconds", "Training (s)"),
        Column("seeds", "Seeds"),
    )
    notes = Footnotes()
    found = []
    for entry in shown:
        marks = tuple(notes.mark(fact) for fact in row_facts(entry.runs))
        cells = {
            **board.cells(entry),
            "method": Cell(entry.label, entry.label, marks=marks),
            "ci95": rows.interval(summarize(list(board.by_seed(entry).values()))),
            "gain": rows.gain(entry, reference, board.mean),
            "params_trainable": rows.mean_of([rows.cost(run, "params_trainable") for run in entry.completed], ",.0f"),
            "train_seconds": rows.mean_of([sum(run["timing"]["train_seconds"]) for run in entry.completed], ",.1f"),
            "seeds": rows.count(entry, set(board.by_seed(entry)), expected),
        }
        if entry is best:
            cells[board.headline] = Cell(cells[board.headline].text, cells[board.headline].value, bold=True)
        found.append(Row(tuple(cells[column.key] for column in columns), entry.group))
    for name in sorted(set(controls) - {entry.method for entry in entries}):
        blank = {"method": Cell(name, name), "seeds": Cell("missing", 0)}
        group = "control" if controls[name]["stream"] == "sequential" else "upper bound"
        found.append(Row(tuple(blank.get(column.key, Cell(MISSING)) for column in columns), group))
    found.sort(key=lambda row: rows.GROUPS.index(row.group))  # stable: missing controls end their group
    caption = f"{board.caption} {_COMMON.format(of=board.of, selection=rows.selection_text(runs))}"
    footnotes = (*notes.all(), *(("", text) for text in table_facts(runs, validation)))
    raw = tuple(rows.raw(run, entry.label) for entry in shown for run in entry.runs)
    return Table(title, caption, columns, tuple(found), footnotes, raw)


class _Variants:
    """Variants of the scenario as columns."""

    def __init__(self, runs: Sequence[Record]) -> None:
        self.layout = LAYOUTS[runs[0]["scenario"]["family"]]
        self.variants = sorted({variant_of(run) or "" for run in runs}, key=_natural)
        self.caption = self.layout.caption
        self.averaged = self.layout.mean and self.variants != [""]  # a scenario without variants has one column
        last = _heading(self.layout.title, self.variants[-1])
        self.headline = "mean" if self.averaged else f"variant {self.variants[-1]}"
        self.of = "the mean" if self.averaged else f"the column {last}"
        defined = [
            name for name in self.layout.extra if any((run["metrics"] or {}).get(name) is not None for run in runs)
        ]
        self.columns = (
            *(Column(f"variant {name}", _heading(self.layout.title, name)) for name in self.variants),
            *((Column("mean", "Mean"),) if self.averaged else ()),
            *(Column(name, self.layout.extra[name]) for name in defined),
        )
        self._kept: dict[tuple[int, str], dict[str, dict[Seeds, float]]] = {}

    def values(self, entry: Entry, metric: str) -> dict[str, dict[Seeds, float]]:
        """The metric by variant and seeds, where it is defined."""
        key = (id(entry), metric)
        if key not in self._kept:
            found: dict[str, dict[Seeds, float]] = {variant: {} for variant in self.variants}
            for run in entry.completed:
                value = run["metrics"].get(metric)
                if value is not None:
                    found[variant_of(run) or ""][rows.seeds_of(run)] = value
            self._kept[key] = found
        return self._kept[key]

    def over_variants(self, entry: Entry, metric: str) -> dict[Seeds, float]:
        """The mean over the variants for each seed that has them all."""
        parts = list(self.values(entry, metric).values())
        complete = sorted(set(parts[0]).intersection(*parts[1:]))
        return {seeds: sum(part[seeds] for part in parts) / len(parts) for seeds in complete}

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        metric = self.layout.metric
        if self.averaged:
            return self.over_variants(entry, metric)
        return self.values(entry, metric)[self.variants[-1]]

    def mean(self, entry: Entry) -> float | None:
        """The headline, over seeds."""
        return summarize(list(self.by_seed(entry).values())).mean

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The cells of the columns."""
        found = {}
        for variant, values in self.values(entry, self.layout.metric).items():
            summary = summarize(list(values.values()))
            found[f"variant {variant}"] = rows.percent(summary, spread=not self.averaged)
        found["mean"] = rows.percent(summarize(list(self.over_variants(entry, self.layout.metric).values())))
        for name in self.layout.extra:
            found[name] = rows.percent(summarize(list(self.over_variants(entry, name).values())), spread=False)
        return found


class _OwnColumns:
    """Test sets of one scenario as columns."""

    def __init__(self, runs: Sequence[Record]) -> None:
        self.family = runs[0]["scenario"]["family"]
        self.caption = _OPEN[self.family]
        self.columns: tuple[Column, ...]
        if self.family == "base-to-new":
            self.headline, self.of = "harmonic_mean", "H"
            self.columns = (
                Column("base_acc", "Base (%)"),
                Column("new_acc", "New (%)"),
                Column("harmonic_mean", "H (%)"),
            )
        else:
            self.headline, self.of = "transfer_acc", "the mean"
            self.others = [test["name"] for test in runs[0]["scenario"]["tests"] if test["further"]]
            self.columns = (
                Column("source_acc", "Trained (%)"),
                *(Column(f"other {name}", f"{name} (%)") for name in self.others),
                Column("transfer_acc", "Mean (%)"),
            )

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        return entry.by_seed(self.headline)

    def mean(self, entry: Entry) -> float | None:
        """The headline, over seeds; H is that of the averaged accuracies."""
        if self.family != "base-to-new":
            return entry.summary(self.headline).mean
        base, new = (entry.summary(name).mean for name in ("base_acc", "new_acc"))
        return None if base is None or new is None else harmonic_mean(base, new)

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The cells of the columns."""
        found = {column.key: rows.percent(entry.summary(column.key)) for column in self.columns}
        if self.family == "base-to-new":
            single = entry.summary("harmonic_mean")
            found["harmonic_mean"] = rows.percent(Summary(single.n, self.mean(entry), single.std, single.ci95))
            return found
        for place, name in enumerate(self.others):
            values = [(run["metrics"].get("transfer_accs") or [])[place : place + 1] for run in entry.completed]
            found[f"other {name}"] = rows.percent(summarize([part[0] if part else None for part in values]))
        return found


def _heading(form: str, variant: str) -> str:
    if not variant:
        return "Accuracy (%)"
    return form.format(variant) if variant != "1" else form.format(variant).removesuffix("s")


def _natural(variant: str) -> tuple[int, str]:
    """Numbers by size, then texts by alphabet."""
    return (int(variant), "") if variant.isdigit() else (0, variant)
