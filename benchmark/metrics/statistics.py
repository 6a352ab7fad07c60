"""Statistics over seeds: mean, spread, intervals, and paired comparisons of two methods.

The suite's ``±`` is the sample standard deviation (ddof = 1); its interval is Student's t. With one
seed both are undefined, never 0. Overlap of two intervals is not a test: methods are compared by
`paired_t` over the seeds that both have, with `holm` for several comparisons.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


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

    gaps = np.asarray(x, dtype=np.float64) - np.asarray(y, dtype=np.float64)
    mean, std = float(gaps.mean()), float(gaps.std(ddof=1))
    error = std / math.sqrt(n)
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    p = 1.0 if t == 0 else min(1.0, 2 * float(stdtr(n - 1, -abs(t))))
    return Paired(n, mean, t, p, t_quantile(n - 1) * error)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p values for several comparisons (Holm 1979), in the order given."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
