"""Statistics over seeds: mean, spread, intervals, and paired comparisons of two methods.

The suite's ``±`` is the sample standard deviation (ddof = 1); its interval is Student's t. With one
seed both are undefined, never 0. Overlap of two intervals is not a test: methods are compared by
`paired_t` over the seeds that both have, with `holm` for several comparisons. That one is better than *every* other
needs every single test to pass and no correction (`beats_all`): the more tests, the harder it gets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

Values = Mapping[Any, float]
"""One value per seed, by whatever names the seed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Values of one quantity over seeds.

    Attributes:
        n: Number of values.
        mean: Their mean, or None if there is none or one is undefined.
        std: Standard deviation with ddof = 1; None for n < 2.
        ci95: Half width of the 95 % t interval of the mean; None for n < 2.
    """

    n: int
    mean: float | None
    std: float | None
    ci95: float | None


def summarize(values: Sequence[float | None]) -> Summary:
    """Summarises one value per seed.

    An undefined value (None or NaN) makes the mean undefined; it is not skipped.
    """
    n = len(values)
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    if len(known) < n or not n:
        return Summary(n, None, None, None)
    # fsum is exact, so that the order of the seeds does not change the last bit; for a handful of
    # values it is also ten times as fast as numpy.
    mean = math.fsum(known) / n
    if n < 2:
        return Summary(n, mean, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    return Summary(n, mean, std, t_quantile(n - 1) * std / math.sqrt(n))


def bounds(mean: float, half: float, *, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """An interval, cut to what the quantity can be: no accuracy is below 0 or above 1."""
    return max(low, mean - half), min(high, mean + half)


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share of ``n`` independent samples, for the sampling of the test set.

    Args:
        share: Right ones among them, in [0, 1]. A mean over seeds is fine: the same samples are behind each, so ``n``
            stays their number, and the interval is if anything too wide.
        n: Number of samples.
        confidence: Probability that the interval covers the share of all samples there could be.

    Returns:
        Both ends, in [0, 1].

    Raises:
        ValueError: ``n`` is not positive, or ``share`` is no share.
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"wilson: a share of {share} of {n} samples; use 0..1 of 1 or more")
    from scipy.special import ndtri

    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return bounds(middle, half)


RESAMPLES = 2000


def bootstrap_mean(
    strata: Sequence[tuple[Sequence[float], float]], *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of a weighted sum of means, resampled within each stratum with replacement.

    Args:
        strata: Values of the samples of a stratum (one test set), and the weight of their mean.
        resamples: Number of resamples, from a fixed seed: the same values have the same interval, in whatever order.
        confidence: Share of the resamples within the interval.

    Returns:
        Both ends.

    Raises:
        ValueError: A stratum has no samples.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    total = np.zeros(resamples)
    for values, weight in strata:
        if not len(values):
            raise ValueError("bootstrap: a stratum without samples")
        # Values are shares over a handful of seeds, so few are different: drawing how often each occurs is the same
        # as drawing samples, and takes no memory.
        distinct, times = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
        drawn = generator.multinomial(len(values), times / len(values), size=resamples)
        total += weight * (drawn @ distinct) / len(values)
    tail = (1 - confidence) / 2
    low, high = np.quantile(total, [tail, 1 - tail])
    return float(low), float(high)


@functools.lru_cache(maxsize=1024)
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t, e.g. 2.776 for 4 degrees of freedom at 95 %."""
    from scipy.special import stdtrit  # scipy.stats would take ten times as long to import

    return float(stdtrit(degrees, 0.5 + confidence / 2))


@dataclass(frozen=True, slots=True)
class Paired:
    """Outcome of a paired t test.

    Attributes:
        n: Number of pairs.
        difference: Mean of x - y.
        t: Test statistic; infinite if all differences are equal and not zero.
        p: Two-sided p value.
        ci95: Half width of the 95 % interval of the mean difference.
    """

    n: int
    difference: float
    t: float
    p: float
    ci95: float


def paired_t(x: Sequence[float], y: Sequence[float]) -> Paired | None:
    """Compares two methods on the same seeds.

    Args:
        x: One value per seed.
        y: Values of the other method on the same seeds, in the same order.

    Returns:
        The test, or None with fewer than two pairs.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"paired_t: {len(x)} and {len(y)} values; both methods need the same seeds")
    n = len(x)
    if n < 2:
        return None
    from scipy.special import stdtr

    # fsum as in `summarize`: the order of the seeds changes nothing.
    gaps = [float(a) - float(b) for a, b in zip(x, y, strict=True)]
    mean = math.fsum(gaps) / n
    error = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (n - 1) / n)
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    p = 1.0 if t == 0 else min(1.0, 2 * float(stdtr(n - 1, -abs(t))))
    return Paired(n, mean, t, p, t_quantile(n - 1) * error)


def smallest_effect(n: int, confidence: float = CONFIDENCE) -> float | None:
    """The smallest mean difference that a paired t test of ``n`` pairs calls significant.

    Returns:
        In standard deviations of the differences, e.g. 2.48 for 3 pairs; None with fewer than two.
    """
    return None if n < 2 else t_quantile(n - 1, confidence) / math.sqrt(n)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one row is better than every other.

    Attributes:
        best: Place of the row with the highest mean.
        unbeaten: Places of the other rows that it is not shown to be better than, the least tested first: those that
            share fewer than two seeds with it, then by falling p value.
        closest: Place of the first of them; where there is none, of the row with the second highest mean.
        test: The test between `best` and `closest`; None where they share fewer than two seeds.
    """

    best: int
    unbeaten: tuple[int, ...]
    closest: int
    test: Paired | None


def beats_all(rows: Sequence[Values], significance: float = SIGNIFICANCE) -> Verdict | None:
    """Whether the row with the highest mean is better than every other.

    It is when a paired t test over common seeds passes against each of them. There is no correction for their number:
    the claim is wrong only if at least one of its parts is, and each part is wrong with a probability of at most
    ``significance`` (an intersection-union test; Berger, 1982). A row that on every seed of such a test is no higher
    than the row that it was passed against counts as beaten with it: what is worse throughout takes nothing away
    because it varies more.

    Args:
        rows: One value per seed, for every row.
        significance: Largest p value that passes.

    Returns:
        The verdict; None with fewer than two rows that have a value.
    """
    there = [place for place, row in enumerate(rows) if row]
    if len(there) < 2:
        return None
    means = {place: summarize(list(rows[place].values())).mean or 0.0 for place in there}
    best = max(there, key=means.__getitem__)
    own = rows[best]
    tests: dict[int, Paired | None] = {}
    for place in there:
        if place != best:
            common = [seed for seed in own if seed in rows[place]]
            tests[place] = paired_t([own[seed] for seed in common], [rows[place][seed] for seed in common])
    passed = [
        place for place, test in tests.items() if test is not None and test.difference > 0 and test.p < significance
    ]
    unbeaten = [place for place in tests if place not in passed and not _below(rows, place, passed, own)]
    unbeaten.sort(key=lambda place: (-_doubt(tests[place]), -means[place], place))
    closest = unbeaten[0] if unbeaten else max(tests, key=means.__getitem__)
    return Verdict(best, tuple(unbeaten), closest, tests[closest])


def _below(rows: Sequence[Values], place: int, passed: Sequence[int], own: Values) -> bool:
    """Whether a row is no higher than one of the beaten ones, on every seed of that one's test."""
    theirs = rows[place]
    for other in passed:
        common = [seed for seed in own if seed in rows[other]]
        if all(seed in theirs and theirs[seed] <= rows[other][seed] for seed in common):
            return True
    return False


def _doubt(test: Paired | None) -> float:
    """How little a test tells a row from the best one; most where there is none, or where it is no lower."""
    if test is None:
        return 3.0
    return test.p if test.difference > 0 else 2.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p values for several comparisons (Holm 1979), in the order given."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
