"""One table: its rows, and the columns that the family of its scenario asks for.

========== =======================================================================================
stream     metrics of a stream of experiences
variants   variants of a scenario (source-target pairs, domains held out, numbers of shots), their mean
sets       test sets of one scenario (base and new classes, other data sets)
========== =======================================================================================

Where variants are columns, one table holds all runs of a scenario that differ in the variant alone.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from benchmark import families
from benchmark.families import Family
from benchmark.leaderboard import rows
from benchmark.leaderboard.footnotes import Footnotes, row_facts, table_facts
from benchmark.leaderboard.rows import Entry, Seeds
from benchmark.metrics.single import harmonic_mean
from benchmark.metrics.statistics import Summary, summarize
from benchmark.records.schema import Method, Record
from benchmark.tables import MISSING, Cell, Column, Row, Table

_NUMBER = re.compile("[0-9]{1,18}")
_COMMON = (
    "± is the sample standard deviation (ddof = 1) over seeds; n is in the column Seeds. 95 % interval: Student's t, "
    "of {of}. Gain: difference of {of} to the best control. Bold (*) marks {of} that is higher than in every other "
    "row that is no upper bound (paired t tests over common seeds, Holm, p < 0.05); never with one seed. {selection}"
)


def family_of(run: Record) -> Family:
    """The family of a run's scenario, as its record tells it."""
    return families.of_record(run.scenario.family, run.scenario.family_facts)


def variant_of(run: Record) -> str | None:
    """The variant whose column a run belongs to, or None when its scenario has a table of its own."""
    scenario = run.scenario
    variant: str = scenario.name.partition("/")[2]
    return variant if variant and scenario.variant_option and family_of(run).board == "variants" else None


class Board(ABC):
    """The columns of one table.

    Attributes:
        family: Of the scenario.
        headline: Column that ranks the rows.
        of: What it is called in the caption.
        columns: First columns, with the headline among them.
        further: Columns behind the interval and the gain.
    """

    family: Family
    headline: str
    of: str
    columns: tuple[Column, ...]
    further: tuple[Column, ...] = ()

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        self.family = family_of(runs[0])
        self.headline = self.family.headline
        self.of = self.family.of

    @abstractmethod
    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed, a fraction."""

    @abstractmethod
    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The cells of `columns` and `further`, by key."""

    def mean(self, entry: Entry) -> float | None:
        """The headline, over seeds."""
        return summarize(list(self.by_seed(entry).values())).mean

    def summary(self, entry: Entry, metric: str) -> Summary:
        """Any metric over seeds; where variants are columns, of its mean over them."""
        return entry.summary(metric)


class Stream(Board):
    """Metrics of a stream as columns."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        shown = [run for entry in entries for run in entry.completed]
        keys = [key for key in self.family.columns if key == self.headline or _defined(key, shown)]
        if all(_same(entry, "final_acc", self.headline) for entry in entries) and "final_acc" in keys:
            keys.remove("final_acc")  # the two are equal when all test sets have the same size
        titles = {key: self.family.columns[key] for key in keys}
        self.columns = (Column(self.headline, titles.pop(self.headline, self.headline)),)
        self.further = tuple(Column(key, title) for key, title in titles.items())

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        return entry.by_seed(self.headline)

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The metrics, each over all seeds."""
        return {column.key: rows.percent(entry.summary(column.key)) for column in (*self.columns, *self.further)}


class Variants(Board):
    """Variants of the scenario as columns."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        family = self.family
        self.metric = family.headline
        self.variants = sorted({variant_of(run) or "" for run in runs}, key=_natural)
        self.averaged = family.averaged and self.variants != [""]  # a scenario without variants has one column
        last = _heading(family.heading, self.variants[-1])
        self.headline = "mean" if self.averaged else f"variant {self.variants[-1]}"
        self.of = family.of if self.averaged else f"the column {last}"
        self.means = [key for key in family.columns if _defined(key, runs)]
        self.columns = (
            *(Column(f"variant {name}", _heading(family.heading, name)) for name in self.variants),
            *((Column("mean", "Mean"),) if self.averaged else ()),
            *(Column(key, family.columns[key]) for key in self.means),
        )
        self._kept: dict[tuple[int, str], dict[str, dict[Seeds, float]]] = {}

    def values(self, entry: Entry, metric: str) -> dict[str, dict[Seeds, float]]:
        """The metric by variant and seeds, where it is defined."""
        key = (id(entry), metric)
        if key not in self._kept:
            found: dict[str, dict[Seeds, float]] = {variant: {} for variant in self.variants}
            for run in entry.completed:
                value = run.number(metric)
                if value is not None:
                    found[variant_of(run) or ""][rows.seeds_of(run)] = value
            self._kept[key] = found
        return self._kept[key]

    def over_variants(self, entry: Entry, metric: str) -> dict[Seeds, float]:
        """The mean over the variants for each seed that has them all."""
        parts = list(self.values(entry, metric).values())
        complete = sorted(set(parts[0]).intersection(*parts[1:]))
        return {seeds: sum(part[seeds] for part in parts) / len(parts) for seeds in complete}

    def summary(self, entry: Entry, metric: str) -> Summary:
        """Of the mean over the variants."""
        return summarize(list(self.over_variants(entry, metric).values()))

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The mean over the variants, or the last column, for each seed."""
        if self.averaged:
            return self.over_variants(entry, self.metric)
        return self.values(entry, self.metric)[self.variants[-1]]

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The variants, their mean, and further metrics averaged over them."""
        found = {}
        for variant, values in self.values(entry, self.metric).items():
            summary = summarize(list(values.values()))
            found[f"variant {variant}"] = rows.percent(summary, spread=not self.averaged)
        found["mean"] = rows.percent(self.summary(entry, self.metric))
        for name in self.means:
            found[name] = rows.percent(self.summary(entry, name), spread=False)
        return found


class Sets(Board):
    """Test sets of one scenario as columns."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        family = self.family
        self.others = []
        if family.further_mean:
            self.others = [test.name for test in runs[0].scenario.tests if test.further]
        first, *rest = (Column(key, title) for key, title in family.columns.items())
        self.columns = (first, *(Column(f"other {name}", f"{name} (%)") for name in self.others), *rest)

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        return entry.by_seed(self.headline)

    def mean(self, entry: Entry) -> float | None:
        """The headline, over seeds; a harmonic mean is that of the averaged accuracies."""
        if not self.family.harmonic:
            return entry.summary(self.headline).mean
        names = (self.family.own, *self.family.further.values())
        base, new = (entry.summary(name).mean for name in names[:2])
        return None if base is None or new is None else harmonic_mean(base, new)

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The metrics, each over all seeds."""
        found = {column.key: rows.percent(entry.summary(column.key)) for column in self.columns}
        if self.family.harmonic:
            single = entry.summary(self.headline)
            found[self.headline] = rows.percent(Summary(single.n, self.mean(entry), single.std, single.ci95))
        for place, name in enumerate(self.others):
            values = [run.numbers(f"{self.family.further_mean}s")[place : place + 1] for run in entry.completed]
            found[f"other {name}"] = rows.percent(summarize([part[0] if part else None for part in values]))
        return found


BOARDS: Mapping[str, type[Board]] = {"stream": Stream, "variants": Variants, "sets": Sets}


def table(
    title: str, runs: Sequence[Record], validation: int, controls: Mapping[str, Method], methods: Sequence[str]
) -> Table:
    """Tabulates the runs of one table.

    Args:
        title: Of the table.
        runs: Runs of one family, of one scenario or of variants that belong together.
        validation: Runs on validation data that are left out.
        controls: Methods that are always shown, by name.
        methods: Show only these beside the controls; default all.
    """
    entries = rows.entries_of(runs)
    shown = rows.chosen(entries, methods, controls)
    board = BOARDS[family_of(runs[0]).board](runs, shown)
    brought = {name: fact for run in runs for name, fact in run.metric_facts.items() if _defined(name, runs)}
    expected = {rows.seeds_of(run) for run in runs}
    reference = rows.best_control(entries, board.mean)
    best = rows.best(entries, board.by_seed)
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
    found = []
    shown = rows.ordered(shown, board.mean)
    for entry in shown:
        marks = tuple(notes.mark(fact) for fact in row_facts(entry.runs))
        cells = {
            **{
                f"metric {name}": (rows.percent if fact.percent else rows.number)(board.summary(entry, name))
                for name, fact in brought.items()
            },
            **board.cells(entry),
            "method": Cell(entry.label, entry.label, marks=marks),
            "ci95": rows.interval(summarize(list(board.by_seed(entry).values()))),
            "gain": rows.gain(entry, reference, board.mean),
            "params_trainable": rows.mean_of([rows.cost(run, "params_trainable") for run in entry.completed], ",.0f"),
            "train_seconds": rows.mean_of([sum(run.timing.train_seconds) for run in entry.completed], ",.1f"),
            "seeds": rows.count(entry, set(board.by_seed(entry)), expected),
        }
        if entry is best:
            cells[board.headline] = Cell(cells[board.headline].text, cells[board.headline].value, bold=True)
        found.append(Row(tuple(cells[column.key] for column in columns), entry.group))
    for name in sorted(set(controls) - {entry.method for entry in entries}):
        blank = {"method": Cell(name, name), "seeds": Cell("missing", 0)}
        group = "control" if controls[name].stream == "sequential" else "upper bound"
        found.append(Row(tuple(blank.get(column.key, Cell(MISSING)) for column in columns), group))
    found.sort(key=lambda row: rows.GROUPS.index(row.group))  # stable: missing controls end their group
    caption = f"{board.family.caption} {_COMMON.format(of=board.of, selection=rows.selection_text(runs))}"
    footnotes = (*notes.all(), *(("", text) for text in table_facts(runs, validation)))
    raw = tuple(rows.raw(run, entry.label) for entry in shown for run in entry.runs)
    return Table(title, caption, columns, tuple(found), footnotes, raw)


def _defined(metric: str, runs: Sequence[Record]) -> bool:
    """Whether a finished run knows the metric."""
    return any(run.number(metric) is not None for run in runs)


def _same(entry: Entry, one: str, other: str) -> bool:
    a, b = entry.summary(one).mean, entry.summary(other).mean
    return a is None or b is None or abs(a - b) < 1e-9


def _heading(form: str, variant: str) -> str:
    if not variant:
        return "Accuracy (%)"
    title = form.replace("{}", variant)
    return title if variant != "1" else title.removesuffix("s")


def _natural(variant: str) -> tuple[int, str]:
    """Numbers by size, then texts by alphabet."""
    return (int(variant), "") if _NUMBER.fullmatch(variant) else (0, variant)
