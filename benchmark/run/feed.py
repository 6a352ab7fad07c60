"""Which samples come in which batch of an experience, and how they are prepared.

Everything follows from the data seed and the place in the run (experience, epoch, step), so that a
resumed run sees what the uninterrupted one would have seen. Labelled samples have random streams of
their own: they are the same whether or not a method also reads a target.

Methods on a frozen encoder are handed features (`benchmark.run.features`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmark.api import Batch, Experience, FeatureMethod, Method, Place, Samples, Transform
from benchmark.errors import PluginError
from benchmark.inputs.pipeline import Inputs
from benchmark.run.features import FeatureBank
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive

READS = ("both", "source", "target")


class Feed:
    """The batches of one experience.

    Args:
        method: Is asked what its epochs read.
        experience: Its samples.
        index: Its number.
        passes: The transform of each epoch (`Method.passes`).
        rules: Of the run.

    Attributes:
        epochs: Number of epochs, one per pass.
        steps: Steps of each epoch.
    """

    def __init__(
        self, method: Method, experience: Experience, index: int, passes: Sequence[Transform], rules: Rules
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
        self._orders: dict[tuple[int | str, ...], Tensor] = {}
        self._rules = rules
        self._bank = FeatureBank(method, index, rules) if isinstance(method, FeatureMethod) else None
        self.epochs = len(self._passes)
        self._reads = ["source" if self._target is None else method.reads(epoch) for epoch in range(self.epochs)]
        for epoch, reads in enumerate(self._reads):
            if reads not in READS:
                raise PluginError(
                    f"{type(method).__name__}.reads({epoch}) returned {reads!r}", hint=f"return {', '.join(READS)}"
                )
        self.steps = [math.ceil(self.samples(epoch) / self._size) for epoch in range(self.epochs)]

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
        around = slice(step * self._size, (step + 1) * self._size)
        place = self.place(epoch, step)
        if reads == "target":
            rows = self._order(self._target_size(), "target", epoch)[around]
            target, features = self._ready(self._target, rows, epoch, step, "target")
            none = torch.empty(0, dtype=torch.int64, device=self._device)
            nothing = self._pipeline.nothing(self._device)
            return Batch(
                nothing, none, target, rows, features=_no_rows(features), target_features=features, place=place
            )
        rows = self._order(len(self._source), epoch)[around]
        inputs, features = self._ready(self._source, rows, epoch, step)
        labels = self._source.labels[rows].to(self._device)
        domains = None
        if self._tells_domains:
            known = self._source.domains
            domains = torch.zeros_like(labels) if known is None else known[rows].to(self._device)
        if reads == "source":
            return Batch(inputs, labels, domains=domains, features=features, place=place)
        rows = self._endless(epoch, step)
        target, target_features = self._ready(self._target, rows, epoch, step, "target")
        return Batch(inputs, labels, target, rows, domains, features, target_features, place)

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

    def _target_size(self) -> int:
        return 0 if self._target is None else len(self._target)

    def _endless(self, epoch: int, step: int) -> Tensor:
        """Positions of the next target batch: one shuffled pass after the other, over all epochs that mix."""
        mixed = zip(self._reads[:epoch], self.steps[:epoch], strict=True)
        first = (sum(steps for reads, steps in mixed if reads == "both") + step) * self._size
        places = torch.arange(first, first + self._size)
        count = self._target_size()
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

    def _ready(
        self, samples: Samples | None, rows: Tensor, epoch: int, *place: int | str
    ) -> tuple[Inputs, Tensor | None]:
        """Samples as the pass wants them, augmented or as at test time, and their features if the method reads some.

        Features from a bank come without inputs.
        """
        if samples is None:
            raise RuntimeError("there is no target to read")
        transform, bank = self._passes[epoch], self._bank
        place = (self._index, epoch, *place)
        if bank is not None and bank.views(transform) > 0:
            return self._pipeline.nothing(self._device), bank.read(samples, transform, rows, *place)
        raw = self._rules.read(samples, rows)
        if transform == "test":
            ready = self._pipeline.eval(raw, self._device)
        else:
            generator = torch.Generator().manual_seed(derive(self._seed, *place))
            ready = self._pipeline.train(raw, generator, self._device)
        return ready, None if bank is None else bank.encode(ready)


def _no_rows(features: Tensor | None) -> Tensor | None:
    return None if features is None else features[:0]
