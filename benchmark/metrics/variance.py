"""Where the spread of a score comes from: class order, initialisation or data order.

Runs that differ in one of these seeds alone say how much that one matters while the others stay as they are (its own
effect and whatever it does together with them). Variances of several such groups are pooled by degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.metrics.statistics import CONFIDENCE

Seeds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """Spread from one cause.

    Attributes:
        runs: Runs that it was computed from.
        groups: Groups of runs with everything else equal.
        degrees: Of freedom: runs less groups.
        std: Pooled standard deviation (ddof = 1 in each group).
        low: Lower end of its 95 % interval (chi-squared; for values that are normal).
        high: Upper end; infinite only where nothing bounds it.
    """

    runs: int
    groups: int
    degrees: int
    std: float
    low: float
    high: float


def component(groups: Sequence[Sequence[float]]) -> Component | None:
    """Pools the variances of groups of two or more values; None where there is none."""
    from scipy.special import chdtri

    used = [group for group in groups if len(group) > 1]
    if not used:
        return None
    squares = math.fsum((value - math.fsum(group) / len(group)) ** 2 for group in used for value in group)
    degrees = sum(len(group) - 1 for group in used)
    tail = (1 - CONFIDENCE) / 2
    upper, lower = float(chdtri(degrees, tail)), float(chdtri(degrees, 1 - tail))  # quantiles from above
    return Component(
        runs=sum(map(len, used)),
        groups=len(used),
        degrees=degrees,
        std=math.sqrt(squares / degrees),
        low=math.sqrt(squares / upper),
        high=math.sqrt(squares / lower) if lower else math.inf,
    )


def alone(values: Mapping[Seeds, float], factor: int) -> Component | None:
    """The spread from one seed with the others fixed.

    Args:
        values: One value per combination of seeds.
        factor: Place of the seed that varies.

    Returns:
        Its spread; None where no two runs differ in it alone.
    """
    groups: dict[Seeds, list[float]] = {}
    for seeds, value in sorted(values.items()):
        groups.setdefault(seeds[:factor] + seeds[factor + 1 :], []).append(value)
    return component(list(groups.values()))


def together(values: Mapping[Seeds, float]) -> Component | None:
    """The spread where all seeds differ at once: of runs of which no two share any seed; None with fewer than two.

    Of several such sets the first is taken, in the order of the seeds; equal seeds (``--seed N``) come first.
    """
    chosen: list[Seeds] = []
    for seeds in sorted(values, key=lambda seeds: (len(set(seeds)) > 1, seeds)):
        if not any(one == other for taken in chosen for one, other in zip(taken, seeds, strict=True)):
            chosen.append(seeds)
    return component([[values[seeds] for seeds in chosen]])
