"""Random search (Bergstra and Bengio, 2012): the values in force first, then independent draws."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from benchmark.tuning.axes import Axis, Point
from benchmark.tuning.strategies import Question
from benchmark.tuning.trials import key

_FRUITLESS = 1000  # draws in a row that were there before: the axes hold no more points


def choose(asked: Question) -> list[Point]:
    """All points that may still be tried.

    A draw depends on the seed, its number and the key of the option alone: one range more or less changes no other
    value, and a larger budget goes on where the smaller one ended.
    """
    tried = {trial.key for trial in asked.trials}
    found: list[Point] = []
    fruitless = 0
    for point in _draws(asked.axes, asked.seed, asked.start):
        if key(point) in tried:
            fruitless += 1
        else:
            tried.add(key(point))
            found.append(point)
            fruitless = 0
        if len(found) == asked.count or fruitless == _FRUITLESS:
            return found
    raise AssertionError  # there is always another draw


def _draws(axes: Sequence[Axis], seed: int, start: Point) -> Iterator[Point]:
    if start:
        yield start
    number = 0
    while True:
        number += 1
        yield {axis.key: axis.at(random.Random(f"{seed} {number} {axis.key}").random()) for axis in axes}
