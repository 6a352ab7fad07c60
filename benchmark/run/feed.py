"""Which samples come in which batch of an experience, and how they are prepared.

Everything follows from the data seed and the place in the run (experience, epoch, step), so that a
resumed run sees what the uninterrupted one would have seen. Labelled samples have random streams of
their own: they are the same whether or not a method also reads a target.

Methods on a frozen encoder are handed features (`benchmark.run.features`).
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.api import Batch, Experience, FeatureMethod, Method, Place, Samples, Transform
from benchmark.errors import PluginError
from benchmark.inputs.pipeline import Inputs
from benchmark.run.features import FeatureBank
from benchmark.run.keeper import Keeper, handing
from benchmark.run.loader import Request
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive
from benchmark.samples import Raw, in_files

READS = ("both", "source", "target")

Where = tuple[int | str, ...]


class _Asked(NamedTuple):
    """What one step reads of one set: where its random numbers come from is its place."""

    samples: Samples
    rows: Tensor
    epoch: int
    step: int
    words: tuple[str, ...] = ()

    @property
    def place(self) -> Where:
        return (self.epoch, self.step, *self.words)


class Feed:
    """The batches of one experience.

    Args:
        method: Is asked what its epochs read.
        experience: Its samples.
        index: Its number.
        passes: The transform of each epoch (`Method.passes`).
        rules: Of the run.
        keeper: Knows features of frozen networks; default: nobody does.

    Attributes:
        epochs: Number of epochs, one per pass.
        steps: Steps of each epoch.
    """

    def __init__(
        self,
        method: Method,
        experience: Experience,
        index: int,
        passes: Sequence[Transform],
        rules: Rules,
        keeper: Keeper | None = None,
    ) -> None:
        self._source = experience.train
        self._target = experience.target if "unlabelled" in rules.uses else None
        self._tells_domains = "domains" in rules.uses and bool(experience.source_domains)
        self._index = index
        self._size = rules.batch_size
        self._passes = tuple(passes)
        self._seed = rules.seed
        self._pipeline = rules.pipeline
        self._device = rules.device
        self._orders: dict[Where, Tensor] = {}
        self._coming: Generator[tuple[Where, Raw], None, None] | None = None
        self._rules = rules
        self._keeper = keeper
        self._bank = FeatureBank(method, index, rules, keeper) if isinstance(method, FeatureMethod) else None
        if keeper is not None:
            keeper.look_again()
        self.epochs = len(self._passes)
        self._reads = ["source" if self._target is None else method.reads(epoch) for epoch in range(self.epochs)]
        for epoch, reads in enumerate(self._reads):
            if reads not in READS:
                raise PluginError(
                    f"{type(method).__name__}.reads({epoch}) returned {reads!r}", hint=f"return {', '.join(READS)}"
                )
        self.steps = [math.ceil(self.samples(epoch) / self._size) for epoch in range(self.epochs)]

    def close(self) -> None:
        """Ends the processes that read ahead: what they read points back here, so nobody else would for a while."""
        if self._coming is not None:
            self._coming.close()

    def samples(self, epoch: int) -> int:
        """Number of samples that one epoch passes over: the weights of the batches' losses add up to it."""
        if self._reads[epoch] == "target" and self._target is not None:
            return len(self._target)
        return len(self._source)

    def adapted(self, epoch: int) -> bool:
        """Whether the model after an epoch is one that the method stands for: the target was read, if it ever is."""
        reads = [part != "source" for part in self._reads]
        return any(reads[: epoch + 1]) or not any(reads)

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of one step."""
        reads = self._reads[epoch]
        place = self.place(epoch, step)
        ready = [self._ready(asked) for asked in self._asked(epoch, step)]
        if reads == "target":
            (rows, target, features) = ready[0]
            none = torch.empty(0, dtype=torch.int64, device=self._device)
            nothing = self._pipeline.nothing(self._device)
            return Batch(
                nothing, none, target, rows, features=_no_rows(features), target_features=features, place=place
            )
        index, inputs, features = ready[0]
        labels = self._source.labels[index].to(self._device, non_blocking=True)
        domains = None
        if self._tells_domains:
            known = self._source.domains
            domains = torch.zeros_like(labels) if known is None else known[index].to(self._device, non_blocking=True)
        told = self._source.referring(index)
        if reads == "source":
            return Batch(inputs, labels, domains=domains, features=features, place=place, references=told, index=index)
        rows, target, target_features = ready[1]
        return Batch(inputs, labels, target, rows, domains, features, target_features, place, told, index)

    def handing(self, batch: Batch, epoch: int, step: int) -> AbstractContextManager[None]:
        """Lets a method ask for known features of a batch: of its labelled samples, if nothing is drawn for them."""
        if not len(batch) or self._bank is not None or self._drawn(epoch):
            return nullcontext()
        still = sum(not self._drawn(other) for other in range(self.epochs))
        rows = self._asked(epoch, step)[0].rows
        return handing(self._keeper, batch.inputs, [self._source], rows, again=still > 1)

    def _drawn(self, epoch: int) -> bool:
        """Whether samples of a pass are augmented at random."""
        return self._passes[epoch] == "train" and self._pipeline.random

    def _asked(self, epoch: int, step: int) -> list[_Asked]:
        """What one step reads: rows of labelled samples, of the target, or of both."""
        reads = self._reads[epoch]
        around = slice(step * self._size, (step + 1) * self._size)
        asked = []
        if reads != "target":
            rows = self._order(len(self._source), epoch)[around]
            asked.append(_Asked(self._source, rows, epoch, step))
        if reads != "source" and self._target is not None:
            order = self._order(len(self._target), "target", epoch)[around] if reads == "target" else None
            rows = self._endless(epoch, step, len(self._target)) if order is None else order
            asked.append(_Asked(self._target, rows, epoch, step, ("target",)))
        return asked

    def place(self, epoch: int, step: int) -> Place:
        """Where a step stands in the experience."""
        return Place(
            epoch=epoch,
            epochs=self.epochs,
            step=sum(self.steps[:epoch]) + step,
            steps=sum(self.steps),
            epoch_step=step,
            epoch_steps=self.steps[epoch],
        )

    def weight(self, batch: Batch) -> int:
        """How many samples of the epoch's pass are in a batch."""
        return len(batch) or (0 if batch.target_index is None else len(batch.target_index))

    def _endless(self, epoch: int, step: int, count: int) -> Tensor:
        """Positions of the next target batch: one shuffled pass after the other, over all epochs that mix."""
        mixed = zip(self._reads[:epoch], self.steps[:epoch], strict=True)
        first = (sum(steps for reads, steps in mixed if reads == "both") + step) * self._size
        places = torch.arange(first, first + self._size)
        passes = places // count
        rows = torch.empty_like(places)
        for number in sorted(set(passes.tolist())):
            inside = passes == number
            rows[inside] = self._order(count, "target pass", number)[places[inside] % count]
        return rows

    def _order(self, count: int, *place: int | str) -> Tensor:
        """The permutation of one pass; the last few are kept."""
        if place not in self._orders:
            while len(self._orders) > 3:
                del self._orders[next(iter(self._orders))]
            generator = torch.Generator().manual_seed(derive(self._seed, self._index, *place))
            self._orders[place] = torch.randperm(count, generator=generator)
        return self._orders[place]

    def _ready(self, asked: _Asked) -> tuple[Tensor, Inputs, Tensor | None]:
        """Rows, samples as the pass wants them, augmented or as at test time, and features if the method reads some.

        Features from a bank come without inputs.
        """
        rows, transform, bank = asked.rows, self._passes[asked.epoch], self._bank
        if bank is not None and self._kept(asked):
            features = bank.read(asked.samples, transform, rows, self._index, *asked.place)
            return rows, self._pipeline.nothing(self._device), features
        request, generator = self._request(asked)
        raw = self._read(asked)
        if generator is None:
            ready = self._pipeline.eval(raw, self._device)
        else:
            ready = self._rules.trained(raw, generator, request.cut)
        return rows, ready, None if bank is None else bank.encode(ready)

    def _kept(self, asked: _Asked) -> bool:
        """Whether a step gets features that were computed before, and no samples."""
        return self._bank is not None and self._bank.views(self._passes[asked.epoch]) > 0

    def _request(self, asked: _Asked) -> tuple[Request, torch.Generator | None]:
        """What is read for one step, and the random numbers that are left for what follows."""
        if self._passes[asked.epoch] == "test":
            return self._rules.request(asked.samples, asked.rows), None
        generator = torch.Generator().manual_seed(derive(self._seed, self._index, *asked.place))
        return self._rules.request(asked.samples, asked.rows, generator), generator

    def _read(self, asked: _Asked) -> Raw:
        """Samples of one step; files were read ahead, and whoever goes back or jumps has that begin anew."""
        if not in_files(asked.samples.source):
            return self._rules.read(asked.samples, asked.rows)
        while True:
            for place, raw in self._coming or ():
                if place == asked.place:
                    return raw
                break
            self._coming = self._ahead(asked)

    def _ahead(self, first: _Asked) -> Generator[tuple[Where, Raw], None, None]:
        """Reads files from one step on to the end of the experience, each answer with its place."""
        places: deque[Where] = deque()

        def later() -> Iterator[_Asked]:
            epoch, step = first.epoch, first.step
            while epoch < self.epochs:
                yield from self._asked(epoch, step)
                epoch, step = (epoch, step + 1) if step + 1 < self.steps[epoch] else (epoch + 1, 0)

        def requests() -> Iterator[Request]:
            for asked in itertools.dropwhile(lambda asked: asked.place != first.place, later()):
                if in_files(asked.samples.source) and not self._kept(asked):
                    places.append(asked.place)
                    yield self._request(asked)[0]

        sets = [samples for samples in (self._source, self._target) if samples is not None]
        filed = [samples for samples in sets if in_files(samples.source)]
        count = sum(self.steps[first.epoch :]) * self._size
        for raw in self._rules.ahead(requests(), filed, count):
            yield places.popleft(), raw


def _no_rows(features: Tensor | None) -> Tensor | None:
    return None if features is None else features[:0]
