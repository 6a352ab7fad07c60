"""One table: its rows, and the columns that the family of its scenario asks for.

========== =======================================================================================
stream     metrics of a stream of experiences
variants   variants of a scenario (source-target pairs, domains held out, numbers of shots), their mean
sets       test sets of one scenario (base and new classes, other data sets)
texts      scores of generated texts
segments   metrics of a stream of test batches, and errors of its segments
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
from benchmark.leaderboard.rows import Entry, Seeds
from benchmark.metrics.single import harmonic_mean, vtab_mean_groups
from benchmark.metrics.statistics import Summary, summarize
from benchmark.metrics.texts import BLEU_SIGNATURE, CHRF_SIGNATURE, RESAMPLES
from benchmark.records.schema import Record
from benchmark.tables import MISSING, Cell, Column

_NUMBER = re.compile("[0-9]{1,18}")


def family_of(run: Record) -> Family:
    """The family of a run's scenario, as its record tells it."""
    return families.of_record(run.scenario.family, run.scenario.family_facts)


def variant_of(run: Record) -> str | None:
    """The variant whose column a run belongs to, or None when its scenario has a table of its own.

    Of a variant of several parts, ``set/16``, it is the last one: every ``set`` has a table.
    """
    scenario = run.scenario
    variant: str = scenario.name.rpartition("/")[2] if "/" in scenario.name else ""
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

    @property
    def caption(self) -> str:
        """What the columns are."""
        return self.family.caption

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

    def behind(self, entry: Entry, key: str) -> tuple[str, list[list[tuple[Record, float]]]]:
        """What the cell of a column is the mean of: a metric, and for every seed its runs with their weights."""
        return key, [[(run, 1.0)] for run in entry.completed]


class Stream(Board):
    """Metrics of a stream as columns."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        shown = [run for entry in entries for run in entry.completed]
        keys = [key for key in self.family.columns if key == self.headline or defined(key, shown)]
        if all(_same(entry, "final_acc", self.headline) for entry in entries) and "final_acc" in keys[1:]:
            keys.remove("final_acc")  # the two are equal when all test sets have the same size
        titles = {key: self.family.columns[key] for key in keys}
        self.columns = (Column(self.headline, titles.pop(self.headline, self.headline)),)
        self.further = tuple(Column(key, title) for key, title in titles.items())

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        return entry.by_seed(self.headline)

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The metrics, each over all seeds."""
        return {column.key: entry.percent(entry.summary(column.key)) for column in (*self.columns, *self.further)}


class Texts(Stream):
    """Scores of generated texts as columns, the first with its interval over texts."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        self.columns += (Column("over_texts", "95 % over texts"),)
        packages = ("sacrebleu", "rouge-score")
        versions = {name: sorted({run.provenance.packages.get(name, "unknown") for run in runs}) for name in packages}
        self._scorers = {name: f"{name} {' and '.join(found)}" for name, found in versions.items()}

    @property
    def caption(self) -> str:
        """What the columns are, and what computed them."""
        bleu, rouge = self._scorers.values()
        return (
            f"{self.family.caption} BLEU and chrF: {bleu} ({BLEU_SIGNATURE}; {CHRF_SIGNATURE}); ROUGE-L: {rouge}, F "
            f"measure of the best reference, no stemming. 95 % over texts: percentiles of BLEU over {RESAMPLES:,} "
            "resamples of the test texts, mean over seeds."
        )

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The scores, each over all seeds."""
        low, high = (entry.summary(name).mean for name in ("bleu_low", "bleu_high"))
        over = Cell(MISSING)
        if low is not None and high is not None:
            over = Cell(f"[{rows.fixed(100 * low)}, {rows.fixed(100 * high)}]", high - low)
        return {**super().cells(entry), "over_texts": over}


class Variants(Board):
    """Variants of the scenario as columns."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        family = self.family
        self.metric = family.headline
        self.variants = sorted({variant_of(run) or "" for run in runs}, key=_natural)
        self.averaged = family.averaged and self.variants != [""]  # a scenario without variants has one column
        last = _heading(family.heading, self.variants[-1])
        self.groups = _groups(runs, self.variants) if self.averaged else {}
        self.headline = "mean" if self.averaged else f"variant {self.variants[-1]}"
        self.of = family.of if self.averaged else f"the column {last}"
        if self.groups:
            self.headline, self.of = "groups", "the mean of groups"
        self.means = [key for key in family.columns if defined(key, runs)]
        self.columns = (
            *(Column(f"variant {name}", _heading(family.heading, name), group=_start(name)) for name in self.variants),
            *(Column(f"group {name}", name.capitalize(), group="groups") for name in self.groups),
            *((Column("groups", "Mean of groups", group="groups"),) if self.groups else ()),
            *((Column("mean", f"Mean of {len(self.variants)}" if self.groups else "Mean"),) if self.averaged else ()),
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

    def over_variants(self, entry: Entry, metric: str, variants: Sequence[str] = ()) -> dict[Seeds, float]:
        """The mean over the variants, or some of them, for each seed that has them all."""
        known = self.values(entry, metric)
        parts = [known[variant] for variant in variants or self.variants]
        complete = sorted(set(parts[0]).intersection(*parts[1:]))
        return {seeds: sum(part[seeds] for part in parts) / len(parts) for seeds in complete}

    def over_groups(self, entry: Entry) -> dict[Seeds, float]:
        """The mean of the means of the groups for each seed that has all variants."""
        known = self.values(entry, self.metric)
        return {
            seeds: vtab_mean_groups([[known[one][seeds] for one in group] for group in self.groups.values()])
            for seeds in self.over_variants(entry, self.metric)
        }

    def behind(self, entry: Entry, key: str) -> tuple[str, list[list[tuple[Record, float]]]]:
        """Runs of a variant, of a group of them, or of all."""
        kind, _, name = key.partition(" ")
        groups = list(self.groups.values()) if key == "groups" else [self.variants]
        groups = [[name]] if kind == "variant" else [self.groups[name]] if kind == "group" else groups
        weights = {variant: 1 / len(groups) / len(group) for group in groups for variant in group}
        found: dict[Seeds, list[tuple[Record, float]]] = {}
        for run in entry.completed:
            if (weight := weights.get(variant_of(run) or "")) is not None:
                found.setdefault(rows.seeds_of(run), []).append((run, weight))
        metric = key if key in self.means else self.metric
        return metric, [found[seeds] for seeds in sorted(found) if len(found[seeds]) == len(weights)]

    def summary(self, entry: Entry, metric: str) -> Summary:
        """Of the mean over the variants."""
        return summarize(list(self.over_variants(entry, metric).values()))

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The mean over the groups or variants, or the last column, for each seed."""
        if self.groups:
            return self.over_groups(entry)
        if self.averaged:
            return self.over_variants(entry, self.metric)
        return self.values(entry, self.metric)[self.variants[-1]]

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The variants, their mean, and further metrics averaged over them."""
        found = {}
        for variant, values in self.values(entry, self.metric).items():
            summary = summarize(list(values.values()))
            found[f"variant {variant}"] = entry.percent(summary, spread=not self.averaged)
        for group, variants in self.groups.items():
            own = self.over_variants(entry, self.metric, variants)
            found[f"group {group}"] = entry.percent(summarize(list(own.values())))
        if self.groups:
            found["groups"] = entry.percent(summarize(list(self.over_groups(entry).values())))
        found["mean"] = entry.percent(self.summary(entry, self.metric))
        for name in self.means:
            found[name] = entry.percent(self.summary(entry, name), spread=False)
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
        found = {column.key: entry.percent(entry.summary(column.key)) for column in self.columns}
        if self.family.harmonic:
            single = entry.summary(self.headline)
            found[self.headline] = entry.percent(Summary(single.n, self.mean(entry), single.std, single.ci95))
        for place, name in enumerate(self.others):
            values = [run.numbers(f"{self.family.further_mean}s")[place : place + 1] for run in entry.completed]
            found[f"other {name}"] = entry.percent(summarize([part[0] if part else None for part in values]))
        return found


class Segments(Board):
    """Metrics of a stream of test batches, and the error of each of its segments."""

    def __init__(self, runs: Sequence[Record], entries: Sequence[Entry]) -> None:
        super().__init__(runs, entries)
        self.columns = tuple(Column(key, title) for key, title in self.family.columns.items())
        self.names = [test.name for test in runs[0].scenario.tests if not test.further]
        self.further = tuple(Column(f"segment {name}", name.replace("_", " "), group="segments") for name in self.names)

    def by_seed(self, entry: Entry) -> dict[Seeds, float]:
        """The headline for each seed."""
        return entry.by_seed(self.headline)

    def cells(self, entry: Entry) -> dict[str, Cell]:
        """The metrics over all seeds, and the mean error of every segment."""
        found = {column.key: entry.percent(entry.summary(column.key)) for column in self.columns}
        for place, name in enumerate(self.names):
            values = [run.numbers("errors")[place : place + 1] for run in entry.completed]
            summary = summarize([part[0] if part else None for part in values])
            found[f"segment {name}"] = entry.percent(summary, spread=False)
        return found


BOARDS: Mapping[str, type[Board]] = {
    "stream": Stream,
    "variants": Variants,
    "sets": Sets,
    "texts": Texts,
    "segments": Segments,
}


def defined(metric: str, runs: Sequence[Record]) -> bool:
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


def _start(variant: str) -> str:
    """What the columns of variants are grouped by where they are too many for one table: the first part of a pair."""
    return f"variants {variant.partition('-')[0]}" if "-" in variant else "variants"


def _groups(runs: Sequence[Record], variants: Sequence[str]) -> dict[str, list[str]]:
    """The variants of every group that the notes of scenarios name; nothing where they do not, or name one alone."""
    told = {variant_of(run) or "": run.scenario.notes.get("group", "") for run in runs}
    found: dict[str, list[str]] = {}
    for variant in variants:
        found.setdefault(told.get(variant, ""), []).append(variant)
    return dict(sorted(found.items())) if len(found) > 1 and "" not in found else {}


def _natural(variant: str) -> tuple[int, str]:
    """Numbers by size, then texts by alphabet."""
    return (int(variant), "") if _NUMBER.fullmatch(variant) else (0, variant)
