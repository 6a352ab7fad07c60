"""How points are chosen: one small file per strategy, all behind one signature (`Strategy`).

A strategy is a pure function of what is asked, so that a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from benchmark.errors import did_you_mean
from benchmark.tuning.axes import Axis, Point
from benchmark.tuning.trials import Trial

STRATEGIES = {
    "random": "the values in force first, then random ones of every range",
    "grid": "all combinations; then every list of numbers grows until the best point has worse neighbours",
    "optuna": "the values in force first, then where good ones were (tree-structured Parzen estimators); an extra",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a strategy is asked.

    Attributes:
        axes: What is searched.
        trials: What was tried, in the order in which it was chosen.
        count: Most points that may still be tried, at least one.
        at_once: Points that are tried side by side.
        seed: Of all random choices.
        start: The values that options have without a search.
    """

    axes: Sequence[Axis]
    trials: Sequence[Trial]
    count: int
    at_once: int = 1
    seed: int = 0
    start: Point = field(default_factory=dict)


class Strategy(Protocol):
    """``choose`` of a file of this package."""

    def __call__(self, asked: Question, /) -> list[Point]:
        """The next points, none of them tried before; none: the search is over."""
        ...


def load(name: str) -> Strategy:
    """A strategy by its name.

    Raises:
        UsageError: There is none, or it needs an extra that is not installed.
    """
    if name not in STRATEGIES:
        raise did_you_mean("strategy", name, STRATEGIES)
    return cast("Strategy", importlib.import_module(f"{__name__}.{name}").choose)
