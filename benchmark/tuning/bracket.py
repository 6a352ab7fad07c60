"""Whether the best point of a search has worse neighbours on both sides, and what to try where it has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.tuning.axes import Axis, Point
from benchmark.tuning.trials import Trial, best, key


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A side of the best point on which nothing worse was found yet.

    Attributes:
        key: Of the option.
        up: Whether larger values are missing, else smaller ones.
        edge: The last value tried there, which is as good as the best one.
        point: What to try next.
    """

    key: str
    up: bool
    edge: float
    point: Point

    def __str__(self) -> str:
        return f"{self.key} {'above' if self.up else 'below'} {self.edge:g}"


def sides(axes: Sequence[Axis], trials: Sequence[Trial]) -> list[Side]:
    """What is open around the best point: nothing, if it is bracketed.

    From the best point every list of numbers is walked up and down, with the other options as they are there, over
    values that are as good, to the first one that is worse (one that failed is). Where there is none the side is open;
    unless the next value would be one that the option may not have.

    Args:
        axes: What is searched; lists of values.
        trials: What was tried, in the order in which it was chosen.
    """
    winner = best(trials)
    if winner is None:
        return []
    found = []
    scores = {trial.key: trial.score for trial in trials}
    for axis in (axis for axis in axes if axis.grows):
        known: set[float] = {*axis.values, *(trial.point[axis.key] for trial in trials)}
        numbers = sorted(known)
        for up in (False, True):
            here = winner.point[axis.key]
            ahead = sorted((value for value in numbers if (value > here if up else value < here)), reverse=not up)
            side = None
            for value in [*ahead, axis.beyond(numbers, up=up)]:
                if value is None:  # the option may not be that
                    break
                point = {**winner.point, axis.key: value}
                score = scores.get(key(point))
                if score is None:
                    side = Side(key=axis.key, up=up, edge=here, point=point)
                if score is None or score < winner.score:
                    break
                here = value
            if side is not None:
                found.append(side)
    return found
