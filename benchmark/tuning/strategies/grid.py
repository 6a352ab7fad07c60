"""All combinations; then what lies beyond the edge, until the best point is bracketed (`benchmark.tuning.bracket`)."""

from __future__ import annotations

import itertools

from benchmark.errors import UsageError
from benchmark.tuning.axes import Point
from benchmark.tuning.bracket import sides
from benchmark.tuning.strategies import Question
from benchmark.tuning.trials import key


def choose(asked: Question) -> list[Point]:
    """The points of the grid that were not tried; then those next to the best one.

    Raises:
        UsageError: The grid is larger than the budget.
    """
    listed = [axis.listed() for axis in asked.axes]
    tried = {trial.key for trial in asked.trials}
    points = [
        dict(zip([axis.key for axis in listed], values, strict=True))
        for values in itertools.product(*(axis.values for axis in listed))
    ]
    if left := [point for point in points if key(point) not in tried]:
        if len(left) > asked.count:
            raise UsageError(
                f"the grid has {len(points)} points, more than the budget",
                hint=f"--budget {len(points) + len(asked.trials) - len(points) + len(left)} or more; it grows until "
                "the best point has worse neighbours. Or narrow it with --range and --grid",
            )
        return [*left]
    return [side.point for side in sides(listed, asked.trials) if side.point is not None][: asked.count]
