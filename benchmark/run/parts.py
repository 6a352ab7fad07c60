"""Parts of a batch: those that are trained on one after the other, and those of several processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmark.api import Batch


class Part(NamedTuple):
    """A part of a batch.

    Attributes:
        batch: The samples.
        weight: Its share of the loss.
        number: Among all parts of the batch, in all processes.
    """

    batch: Batch
    weight: float
    number: int


def size_of(batch: Batch) -> int:
    """Samples that the loss of a batch is a mean over: the labelled ones, or the target's where it is alone."""
    return len(batch) or (0 if batch.target_index is None else len(batch.target_index))


def cut(batch: Batch, rows: slice) -> Batch:
    """Some samples of a batch of labelled samples, or of one of target samples."""
    count = size_of(batch)

    def some(values: Any) -> Any:
        return values if values is None or len(values) != count else values[rows]

    names = (
        "inputs",
        "labels",
        "target",
        "target_index",
        "domains",
        "features",
        "target_features",
        "references",
        "index",
    )
    return dataclasses.replace(batch, **{name: some(getattr(batch, name)) for name in names})


def split(batch: Batch, *, size: int = 0, rank: int = 0, ranks: int = 1) -> list[Part]:
    """The parts of a batch that one process trains on, at least one.

    Args:
        batch: The whole batch.
        size: Most samples of a part; 0: any.
        rank: Number of the process.
        ranks: How many there are; each gets as many samples as the others, the last ones fewer.
    """
    count = size_of(batch)
    share = math.ceil(count / ranks)
    size = min(size or share, share)
    each = math.ceil(share / size)
    found = []
    for place in range(each):
        first = rank * share + place * size
        last = min(first + size, (rank + 1) * share, count)
        if first < last:
            found.append(Part(cut(batch, slice(first, last)), (last - first) / count, rank * each + place))
    # A process without a sample still takes the step that the others take.
    return found or [Part(cut(batch, slice(0, 1)), 0.0, rank * each)]


def together(found: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Loss terms of a batch from those of its parts; what only some parts tell is the mean over these."""
    names = dict.fromkeys(name for weight, terms in found if weight for name in terms)
    sums: dict[str, float] = {}
    for name in names:
        told = [(weight, terms[name]) for weight, terms in found if name in terms and weight]
        sums[name] = sum(weight * value for weight, value in told) / sum(weight for weight, _ in told)
    return sums
