"""Several methods over several scenarios: ranks and their tests, aggregate scores, profiles.

Ranks: Friedman, Iman and Davenport (1980), Nemenyi, critical differences as in Demšar (2006). Aggregates: Agarwal et
al. (2021), "Deep reinforcement learning at the edge of the statistical precipice" (rliable). Higher is better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmark.metrics.statistics import SIGNIFICANCE, holm

RESAMPLES = 2000

Scores = npt.NDArray[np.float64]


def _table(scores: npt.ArrayLike, what: str) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"{what}: shape {values.shape}; use (scenarios, methods) with two methods or more")
    if np.isnan(values).any():
        raise ValueError(f"{what}: every method needs a value on every scenario")
    return values


def average_ranks(scores: npt.ArrayLike) -> Scores:
    """Mean rank of each method over scenarios, 1 is best, ties share their mean.

    Args:
        scores: S ``(scenarios, methods)``.

    Returns:
        ``(methods,)``.

    Raises:
        ValueError: A value is missing, or there are fewer than two methods.
    """
    from scipy import stats

    ranks: Scores = stats.rankdata(-_table(scores, "average_ranks"), axis=1).mean(axis=0)
    return ranks


@dataclass(frozen=True, slots=True)
class Friedman:
    """Whether any method ranks differently from another.

    Attributes:
        chi2: Friedman's statistic, corrected for ties.
        p: Its p value by the chi-squared distribution.
        f: Iman and Davenport's statistic, less conservative; infinite where all scenarios agree.
        p_f: Its p value.
    """

    chi2: float
    p: float
    f: float
    p_f: float


def friedman(scores: npt.ArrayLike) -> Friedman:
    """Friedman's test and Iman and Davenport's.

    Raises:
        ValueError: As `average_ranks`; or fewer than three methods or two scenarios.
    """
    from scipy import stats

    values = _table(scores, "friedman")
    n, k = values.shape
    if n < 2 or k < 3:
        raise ValueError(f"friedman: {n} scenarios and {k} methods; it needs 2 and 3")
    if (values == values[:, :1]).all():
        return Friedman(0.0, 1.0, 0.0, 1.0)
    test = stats.friedmanchisquare(*values.T)
    chi2 = float(test.statistic)
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-12 else math.inf
    return Friedman(chi2, float(test.pvalue), f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))))


def critical_difference(methods: int, scenarios: int, significance: float = SIGNIFICANCE) -> float:
    """Nemenyi's: two methods differ if their average ranks are at least so far apart."""
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1 - significance, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * scenarios))


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, ...]]:
    """Largest sets of two or more methods whose ranks lie less than a critical difference apart.

    Returns:
        Places of their methods, best first; the sets by their best method.
    """
    order = sorted(range(len(ranks)), key=lambda place: (ranks[place], place))
    found: list[tuple[int, ...]] = []
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and ranks[order[end + 1]] - ranks[order[start]] < difference:
            end += 1
        group = tuple(order[start : end + 1])
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return found


@dataclass(frozen=True, slots=True)
class Duel:
    """Two methods over scenarios.

    Attributes:
        wins: Scenarios on which the first is better.
        ties: On which they are equal.
        losses: On which it is worse.
        p: Wilcoxon's signed rank test over scenarios; None where they never differ.
        adjusted: The same after Holm's correction over all pairs; None likewise.
    """

    wins: int
    ties: int
    losses: int
    p: float | None
    adjusted: float | None


def duels(scores: npt.ArrayLike) -> dict[tuple[int, int], Duel]:
    """Every pair of methods over scenarios.

    Raises:
        ValueError: As `average_ranks`.
    """
    from benchmark.metrics.pairs import signed_rank

    values = _table(scores, "duels")
    pairs = list(itertools.combinations(range(values.shape[1]), 2))
    tests = {
        (i, j): signed_rank(values[:, i].tolist(), values[:, j].tolist()) if len(values) > 1 else None for i, j in pairs
    }
    known = [pair for pair in pairs if tests[pair] is not None]
    adjusted = dict(zip(known, holm([test.p for pair in known if (test := tests[pair])]), strict=True))
    found = {}
    for i, j in pairs:
        gaps = np.round(values[:, i] - values[:, j], 12)
        test = tests[i, j]
        counts = int((gaps > 0).sum()), int((gaps == 0).sum()), int((gaps < 0).sum())
        found[i, j] = Duel(*counts, None if test is None else test.p, adjusted.get((i, j)))
    return found


# --- aggregate scores over runs and scenarios -------------------------------------------------------


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all values, ``(runs, scenarios)``."""
    from scipy import stats

    return float(stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=None))


def median_of_means(values: npt.ArrayLike) -> float:
    """Median over scenarios of the mean over runs."""
    return float(np.median(np.asarray(values, dtype=np.float64).mean(axis=0)))


def mean(values: npt.ArrayLike) -> float:
    """Mean over all runs and scenarios."""
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def optimality_gap(values: npt.ArrayLike, gamma: float = 1.0) -> float:
    """Mean of what is missing to ``gamma``."""
    return float(np.maximum(0.0, gamma - np.asarray(values, dtype=np.float64)).mean())


def probability_of_improvement(x: Sequence[npt.ArrayLike], y: Sequence[npt.ArrayLike]) -> float:
    """Mean over scenarios of P(x > y) + P(x = y) / 2 over all pairs of runs.

    Args:
        x: For each scenario the values of the runs of one method.
        y: Of the other.

    Raises:
        ValueError: If the numbers of scenarios differ.
    """
    shares = []
    for one, two in zip(x, y, strict=True):
        gaps = np.round(np.asarray(one, dtype=np.float64)[:, None] - np.asarray(two, dtype=np.float64)[None], 12)
        shares.append(float((gaps > 0).mean() + (gaps == 0).mean() / 2))
    return float(np.mean(shares))


def interval(
    statistic: Callable[[Scores], float],
    values: npt.ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Stratified bootstrap: runs are drawn again within each scenario.

    It covers what varies over runs, not over scenarios.

    Args:
        statistic: Of `values`, e.g. `iqm`.
        values: Z ``(runs, scenarios)``.
        resamples: Number of resamples.
        seed: Of the resampling.
        confidence: Share of the resamples within the interval.

    Returns:
        Both ends.
    """
    scores = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(np.take_along_axis(scores, generator.integers(0, len(scores), size=scores.shape), 0))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def performance_profile(values: npt.ArrayLike, thresholds: npt.ArrayLike) -> Scores:
    """Share of all values, ``(runs, scenarios)``, that lie above each threshold."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    above: Scores = (flat[:, None] > np.asarray(thresholds, dtype=np.float64)[None]).mean(axis=0)
    return above
