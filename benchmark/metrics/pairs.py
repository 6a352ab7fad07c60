"""Two methods on one scenario: over seeds and over test samples, with what the data cannot decide.

Formulas and test vectors: Demšar (2006); Dietterich (1998) for McNemar's test; Efron and Tibshirani (1993) for the
bootstrap. Values are fractions, one per seed or per sample; nothing here knows a record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmark.metrics.statistics import SIGNIFICANCE, Paired

POWER = 0.8
RESAMPLES = 10_000
MOST_SEEDS = 1000  # that `seeds_needed` looks for


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Outcome of Wilcoxon's signed rank test.

    Attributes:
        p: Two-sided p value, exact where no two absolute differences are equal and none is zero.
        smallest: The smallest p value that so many pairs can give.
    """

    p: float
    smallest: float


def signed_rank(x: Sequence[float], y: Sequence[float]) -> SignedRank | None:
    """Wilcoxon's signed rank test of pairs.

    Returns:
        The test; None with fewer than two pairs, or where all are equal.

    Raises:
        ValueError: If the lengths differ.
    """
    from scipy import stats

    if len(x) != len(y):
        raise ValueError(f"signed_rank: {len(x)} and {len(y)} values; both methods need the same seeds")
    # Differences of percentages that are equal on paper differ in their last bits.
    gaps = [round(a - b, 12) for a, b in zip(x, y, strict=True)]
    if len(gaps) < 2 or not any(gaps):
        return None
    return SignedRank(float(stats.wilcoxon(gaps).pvalue), smallest_signed_rank(len(gaps)))


def smallest_signed_rank(n: int) -> float:
    """The smallest two-sided p value of the exact signed rank test of n pairs: with fewer than 6 never below 0.05."""
    return min(1.0, 2.0 ** (1 - n))


def effect_size(test: Paired) -> float | None:
    """Cohen's d_z: the mean difference in standard deviations of the differences; None where these are all equal."""
    return None if not math.isfinite(test.t) or test.t == 0 else test.t / math.sqrt(test.n)


def seeds_needed(test: Paired, *, significance: float = SIGNIFICANCE, power: float = POWER) -> int | None:
    """How many seeds would show a difference like this one.

    Args:
        test: What so many seeds gave.
        significance: Level of the two-sided paired t test.
        power: Probability with which it is to pass if the true difference and spread are those that were seen.

    Returns:
        The least number of pairs, by the noncentral t distribution; None where even `MOST_SEEDS` would not do, or
        nothing differs.
    """
    from scipy import stats

    effect = effect_size(test)
    if effect is None:
        return 2 if math.isinf(test.t) else None

    def enough(n: int) -> bool:
        quantile = stats.t.ppf(1 - significance / 2, n - 1)
        # The other tail, a significant difference the wrong way round, is negligible at such a power.
        return bool(stats.nct.sf(quantile, n - 1, abs(effect) * math.sqrt(n)) >= power)

    low, high = 2, 2
    while not enough(high):
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class McNemar:
    """Outcome of McNemar's exact test.

    Attributes:
        only_x: Samples that x alone has right.
        only_y: Samples that y alone has right.
        p: Two-sided p value (binomial); 1 where the two never differ.
    """

    only_x: int
    only_y: int
    p: float


def mcnemar(x: npt.ArrayLike, y: npt.ArrayLike) -> McNemar:
    """Whether two classifiers that were trained once are right on the same number of test samples.

    Args:
        x: Whether the first is right, bool ``(N,)``.
        y: The second, on the same samples.

    Raises:
        ValueError: If the lengths differ.
    """
    from scipy import stats

    one, two = np.asarray(x, dtype=bool), np.asarray(y, dtype=bool)
    if one.shape != two.shape:
        raise ValueError(f"mcnemar: {one.shape} and {two.shape}; both need the same samples")
    only_x, only_y = int((one & ~two).sum()), int((two & ~one).sum())
    different = only_x + only_y
    p = float(stats.binomtest(only_x, different).pvalue) if different else 1.0
    return McNemar(only_x, only_y, p)


def over_samples(
    gaps: Sequence[npt.ArrayLike], *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a difference of accuracies over the drawing of test samples (percentile bootstrap).

    Args:
        gaps: For each test set, ``(N_j,)``: how much more often x is right than y on each sample, averaged over seeds,
            in [-1, 1]. Test sets are resampled apart and have the same weight, as in ``final_avg_acc``.
        resamples: Number of resamples.
        seed: Of the resampling.
        confidence: Share of the resamples within the interval.

    Returns:
        Both ends.

    Raises:
        ValueError: If there is no test set, or an empty one.
    """
    generator = np.random.default_rng(seed)
    sets = [np.asarray(values, dtype=np.float64) for values in gaps]
    if not sets or not all(len(values) for values in sets):
        raise ValueError("over_samples: every test set needs samples")
    means = np.zeros(resamples)
    for values in sets:
        # A resample only needs how often each distinct value is drawn: there are few (seeds + 1 at most on each side).
        distinct, counts = np.unique(values, return_counts=True)
        drawn = generator.multinomial(len(values), counts / len(values), size=resamples)
        means += drawn @ distinct / len(values)
    means /= len(sets)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
