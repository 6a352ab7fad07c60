"""Rows of tables held against each other: over seeds, over test samples, by experience and class, over scenarios.

Nothing is compared that the seeds or samples of both do not share. Where predictions are needed, they lie beside the
records; where they do not, that is told, not guessed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmark.leaderboard.rows import seeds_of
from benchmark.leaderboard.scores import Board, Score, boards_of
from benchmark.metrics import pairs, ranking
from benchmark.metrics.statistics import Paired, holm, paired_t
from benchmark.records import predictions

if TYPE_CHECKING:
    from benchmark.records.schema import Record

PathOf = Callable[["Record"], Path | None]
"""Where the predictions of a run lie, or None where they do not."""


@dataclass(frozen=True, kw_only=True)
class OverSamples:
    """Two rows on the same test samples after the last experience.

    Attributes:
        samples: Distinct test samples.
        difference: Of the accuracies, test sets with equal weight, mean over seeds.
        low: End of its 95 % bootstrap interval over samples.
        high: The other end.
        mcnemar: McNemar's exact test for each common seed, by the seed.
        classes: Difference of the accuracy by class (original label), mean over seeds.
    """

    samples: int
    difference: float
    low: float
    high: float
    mcnemar: Mapping[int, pairs.McNemar]
    classes: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows of one table.

    Attributes:
        x: Label of the first.
        y: Of the second.
        n: Seeds that both have.
        difference: Mean of x - y over these, a fraction.
        test: Paired t test; None with fewer than two common seeds.
        adjusted: Its p value after Holm's correction over the pairs of this comparison.
        ranked: Wilcoxon's signed rank test; None with fewer than two common seeds, or where all are equal.
        effect: Cohen's d_z.
        needed: Seeds that would show this difference with a power of `benchmark.metrics.pairs.POWER`.
        experiences: Difference of the accuracy on each test set after the last experience, by its name.
        samples: Over test samples; None where predictions are not there.
    """

    x: str
    y: str
    n: int
    difference: float | None
    test: Paired | None
    adjusted: float | None
    ranked: pairs.SignedRank | None
    effect: float | None
    needed: int | None
    experiences: Mapping[str, float]
    samples: OverSamples | None


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Several rows over several scenarios.

    Attributes:
        labels: What was asked for.
        scenarios: Blocks of equal weight: tables of one scenario (other splits, variants, options) are averaged first.
        scores: Means over seeds, ``(scenarios, labels)``.
        runs: For each label, for each scenario, one value a run.
        ranks: Average rank of each.
        friedman: None with fewer than three rows or two scenarios.
        difference: Nemenyi's critical difference.
        duels: Every pair, by places of `labels`.
        iqm: Interquartile mean of each, with the ends of its interval over runs; NaN where a scenario has one run.
        improvement: Probability that a run of the first is better than one of the second, by places.
    """

    labels: Sequence[str]
    scenarios: Sequence[str]
    scores: npt.NDArray[np.float64]
    runs: Sequence[Sequence[Sequence[float]]]
    ranks: npt.NDArray[np.float64]
    friedman: ranking.Friedman | None
    difference: float
    duels: Mapping[tuple[int, int], ranking.Duel]
    iqm: Sequence[tuple[float, float, float]]
    improvement: Mapping[tuple[int, int], float]


def choose(board: Board, asked: Sequence[str]) -> list[Score]:
    """The rows of a table that were asked for, in that order; fewer where it lacks some.

    Raises:
        ValueError: A name stands for several rows.
    """
    found = []
    for name in asked:
        exact = [row for row in board.rows if row.label == name]
        matching = exact or [row for row in board.rows if name in row.names]
        if len(matching) > 1:
            labels = ", ".join(f"`{row.label}`" for row in matching)
            raise ValueError(f"`{name}` is several rows of {board.title}: {labels}")
        found += matching
    return found


# --- two rows of one table ------------------------------------------------------------------------


def compare(chosen: Sequence[Score], path_of: PathOf) -> list[Pair]:
    """Every pair of rows of one table, p values corrected for their number."""
    found = [_pair(x, y, path_of) for x, y in itertools.combinations(chosen, 2)]
    tested = [place for place, pair in enumerate(found) if pair.test is not None]
    adjusted = holm([pair.test.p for pair in found if pair.test is not None])
    by_place = dict(zip(tested, adjusted, strict=True))
    return [replace(pair, adjusted=by_place.get(place)) for place, pair in enumerate(found)]


def _pair(x: Score, y: Score, path_of: PathOf) -> Pair:
    common = sorted(x.values.keys() & y.values.keys())
    one, two = [x.values[seeds] for seeds in common], [y.values[seeds] for seeds in common]
    test = paired_t(one, two)
    gaps = [a - b for a, b in zip(one, two, strict=True)]
    return Pair(
        x=x.label,
        y=y.label,
        n=len(common),
        difference=sum(gaps) / len(gaps) if gaps else None,
        test=test,
        adjusted=None,
        ranked=pairs.signed_rank(one, two),
        effect=None if test is None else pairs.effect_size(test),
        needed=None if test is None else pairs.seeds_needed(test),
        experiences=_experiences(x, y),
        samples=_over_samples(x, y, path_of),
    )


def _common(x: Score, y: Score) -> list[tuple[Record, Record]]:
    """Runs of the same scenario, variant and seeds."""
    theirs = {(run.scenario.name, seeds_of(run)): run for run in y.runs}
    keys = [(run, (run.scenario.name, seeds_of(run))) for run in x.runs]
    return [(run, theirs[key]) for run, key in keys if key in theirs]


def _experiences(x: Score, y: Score) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one, two in _common(x, y):
        for test, a, b in zip(one.scenario.tests, one.accuracy[-1], two.accuracy[-1], strict=True):
            if a is not None and b is not None:
                several = len({run.scenario.name for run in x.runs}) > 1
                name = f"{one.scenario.name.rpartition('/')[2]}: {test.name}" if several else test.name
                found.setdefault(name, []).append(a - b)
    return {name: sum(gaps) / len(gaps) for name, gaps in found.items()}


def _over_samples(x: Score, y: Score, path_of: PathOf) -> OverSamples | None:
    """Both on the same samples; None where a file is not there, or samples are no classified ones."""
    gaps: dict[tuple[str, int], dict[int, list[float]]] = {}
    by_class: dict[int, list[float]] = {}
    tests: dict[int, tuple[list[bool], list[bool]]] = {}
    for one, two in _common(x, y):
        read = [_final(run, path_of) for run in (one, two)]
        if read[0] is None or read[1] is None:
            return None
        for key, (label, right) in read[0].items():
            if key not in read[1]:
                continue
            other = read[1][key][1]
            test_set, sample = key
            gaps.setdefault((one.scenario.name, test_set), {}).setdefault(sample, []).append(right - other)
            by_class.setdefault(label, []).append(right - other)
            pair = tests.setdefault(one.seeds.seed, ([], []))
            pair[0].append(right)
            pair[1].append(other)
    if not gaps:
        return None
    sets = [np.array([np.mean(values) for values in samples.values()]) for samples in gaps.values()]
    low, high = pairs.over_samples(sets)
    return OverSamples(
        samples=sum(map(len, sets)),
        difference=float(np.mean([values.mean() for values in sets])),
        low=low,
        high=high,
        mcnemar={seed: pairs.mcnemar(*both) for seed, both in sorted(tests.items())},
        classes={label: float(np.mean(values)) for label, values in sorted(by_class.items())},
    )


def _final(run: Record, path_of: PathOf) -> dict[tuple[int, int], tuple[int, bool]] | None:
    """Original label, and whether it was right, of each sample of the experiences' test sets after the last one."""
    path = path_of(run)
    if path is None:
        return None
    own = [place for place, test in enumerate(run.scenario.tests) if not test.further]
    last = predictions.read(path).after(len(run.accuracy) - 1).on(own)
    if last.text is not None:
        return None
    order = np.asarray(run.scenario.class_order)
    within = last.label < len(order)
    labels = np.where(within, order[np.where(within, last.label, 0)], last.label) if len(order) else last.label
    right = last.label == last.prediction
    keys = zip(last.test_set.tolist(), last.sample_id.tolist(), strict=True)
    return dict(zip(keys, zip(labels.tolist(), right.tolist(), strict=True), strict=True))


# --- several scenarios ----------------------------------------------------------------------------


def rank(boards: Iterable[tuple[Board, Sequence[Score]]], asked: Sequence[str]) -> Ranks | None:
    """All that were asked for over the scenarios that have them all.

    Args:
        boards: Tables with the rows that were chosen from them.
        asked: Names, which become the labels: a row may be called otherwise in every table.

    Returns:
        The ranks; None with fewer than two scenarios.
    """
    blocks: dict[str, list[Sequence[Score]]] = {}
    for board, chosen in boards:
        if len(chosen) == len(asked):
            blocks.setdefault(f"{board.scenario} ({board.track})", []).append(chosen)
    if len(blocks) < 2:
        return None
    runs = [[_runs([chosen[place] for chosen in same]) for same in blocks.values()] for place in range(len(asked))]
    scores = np.array([[np.mean(values) for values in row] for row in runs]).T
    fewest = min(len(values) for row in runs for values in row)
    # The bootstrap draws runs within scenarios and needs as many of each; the first seeds of all are taken.
    tables = [np.array([values[:fewest] for values in row]).T for row in runs]
    places = list(itertools.combinations(range(len(asked)), 2))
    return Ranks(
        labels=list(asked),
        scenarios=list(blocks),
        scores=scores,
        runs=runs,
        ranks=ranking.average_ranks(scores),
        friedman=ranking.friedman(scores) if len(asked) > 2 else None,
        difference=ranking.critical_difference(len(asked), len(blocks)),
        duels=ranking.duels(scores),
        iqm=[
            (ranking.iqm(table), *(ranking.interval(ranking.iqm, table) if fewest > 1 else (np.nan, np.nan)))
            for table in tables
        ],
        improvement={(i, j): ranking.probability_of_improvement(runs[i], runs[j]) for i, j in places},
    )


def rank_all(records: Iterable[Record], *, fewest: int, most: int) -> Ranks:
    """All rows that every scenario of some records has, for figures.

    Args:
        records: Of any scenarios.
        fewest: Scenarios that there must be.
        most: Rows that there may be.

    Raises:
        ValueError: Fewer scenarios have two or more rows in common, or there are too many of these.
    """
    boards = [board for board in boards_of(records) if board.rows]
    blocks = {(board.scenario, board.track) for board in boards}
    # Tables of a scenario that lack some of the rows are passed over if another one has them all.
    labels_of = [{row.label for board in boards if _block(board) == one for row in board.rows} for one in blocks]
    there = Counter(name for labels in labels_of for name in labels)
    labels = sorted(name for name, number in there.items() if number == len(blocks))
    if len(blocks) < fewest or len(labels) < 2:
        common = ", ".join(f"{name} {number}" for name, number in there.most_common(5))
        raise ValueError(
            f"{len(blocks)} scenarios have {len(labels)} methods in common; it needs {fewest} and 2 (methods by number "
            f"of scenarios: {common or 'none'})"
        )
    if len(labels) > most:
        raise ValueError(f"{len(labels)} methods are too many for one figure; choose up to {most}, e.g. by method")
    ranks = rank([(board, choose(board, labels)) for board in boards], labels)
    if ranks is None or len(ranks.scenarios) < len(blocks):
        raise ValueError("no table of some scenario has all methods that others have; name fewer methods")
    return ranks


def _block(board: Board) -> tuple[str, str]:
    return board.scenario, board.track


def _runs(same: Sequence[Score]) -> list[float]:
    """One value per combination of seeds: the mean over the tables of one scenario; of what all of these have."""
    common = sorted(set(same[0].values).intersection(*(score.values for score in same)))
    if common:
        return [float(np.mean([score.values[seeds] for score in same])) for seeds in common]
    return [float(np.mean([np.mean(list(score.values.values())) for score in same]))]
