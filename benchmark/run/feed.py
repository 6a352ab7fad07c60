"""Which images come in which batch of an experience, and how they are augmented.

Everything follows from the data seed and the place in the run (experience, epoch, step), so that a
resumed run sees what the uninterrupted one would have seen. Labelled images have random streams of
their own: they are the same whether or not a method also reads a target.

Methods on a frozen encoder (`benchmark.api.FeatureMethod`) are handed features, from a bank that is computed once per
experience where that is possible; its views, too, follow from the data seed, so that a resumed run computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmark.api import Batch, Experience, FeatureMethod, ImageSet, Method, Transform
from benchmark.errors import PluginError
from benchmark.inputs.images import InputPipeline
from benchmark.run.seeds import derive

READS = ("both", "source", "target")
ENCODED_AT_ONCE = 256  # images


class Feed:
    """The batches of one experience.

    Args:
        method: Is asked what its epochs read.
        experience: Its images.
        index: Its number.
        passes: The transform of each epoch (`Method.passes`).
        batch_size: Labelled images per step, and target images per step.
        uses: What the method declared.
        seed: Data seed of the run.
        pipeline: Input transform.
        device: Where batches go.

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
        *,
        batch_size: int,
        uses: frozenset[str],
        seed: int,
        pipeline: InputPipeline,
        device: torch.device,
    ) -> None:
        self._source = experience.train
        self._target = experience.target if "unlabelled" in uses else None
        self._tells_domains = "domains" in uses and bool(experience.source_domains)
        self._index = index
        self._size = batch_size
        self._passes = tuple(passes)
        self._seed = seed
        self._pipeline = pipeline
        self._device = device
        self._orders: dict[tuple[int | str, ...], Tensor] = {}
        self._encoder = method if isinstance(method, FeatureMethod) else None
        self._banks: dict[tuple[Transform, str], Tensor] = {}
        self.epochs = len(self._passes)
        self._reads = ["source" if self._target is None else method.reads(epoch) for epoch in range(self.epochs)]
        for epoch, reads in enumerate(self._reads):
            if reads not in READS:
                raise PluginError(
                    f"{type(method).__name__}.reads({epoch}) returned {reads!r}", hint=f"return {', '.join(READS)}"
                )
        self.steps = [math.ceil(self.images(epoch) / self._size) for epoch in range(self.epochs)]

    def images(self, epoch: int) -> int:
        """Number of images that one epoch passes over: the weights of the batches' losses add up to it."""
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
        place = slice(step * self._size, (step + 1) * self._size)
        if reads == "target":
            rows = self._order(self._target_size(), "target", epoch)[place]
            target, features = self._ready(self._target, rows, epoch, step, "target")
            none = torch.empty(0, dtype=torch.int64, device=self._device)
            return Batch(target[:0], none, target, rows, features=_no_rows(features), target_features=features)
        rows = self._order(len(self._source), epoch)[place]
        images, features = self._ready(self._source, rows, epoch, step)
        labels = self._source.labels[rows].to(self._device)
        domains = None
        if self._tells_domains:
            known = self._source.domains
            domains = torch.zeros_like(labels) if known is None else known[rows].to(self._device)
        if reads == "source":
            return Batch(images, labels, domains=domains, features=features)
        around = self._endless(epoch, step)
        target, target_features = self._ready(self._target, around, epoch, step, "target")
        return Batch(images, labels, target, around, domains, features, target_features)

    def weight(self, batch: Batch) -> int:
        """How many images of the epoch's pass are in a batch."""
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
        self, images: ImageSet | None, rows: Tensor, epoch: int, *place: int | str
    ) -> tuple[Tensor, Tensor | None]:
        """Images as the pass wants them, augmented or as at test time, and their features if the method reads some.

        Features from a bank come without images.
        """
        if images is None:
            raise RuntimeError("there is no target to read")
        transform = self._passes[epoch]
        place = (self._index, epoch, *place)
        if (views := self._views(transform)) > 0:
            bank = self._bank(images, transform, views, *(part for part in place if isinstance(part, str)))
            generator = torch.Generator().manual_seed(derive(self._seed, "view", *place))
            view = torch.randint(views, rows.shape, generator=generator) if views > 1 else torch.zeros_like(rows)
            size = self._pipeline.size
            return torch.empty(0, 3, size, size, device=self._device), bank[view, rows].to(self._device)
        raw = images.images(rows).to(self._device)
        if transform == "test":
            ready = self._pipeline.eval(raw)
        else:
            ready = self._pipeline.train(raw, torch.Generator().manual_seed(derive(self._seed, *place)))
        if self._encoder is None:
            return ready, None
        with torch.no_grad():
            return ready, self._encoder.encode(ready)

    def _views(self, transform: Transform) -> int:
        """Views per image in the bank of a pass; 0 where images are read."""
        if self._encoder is None:
            return 0
        return self._encoder.config.views if transform == "train" and self._pipeline.random else 1

    def _bank(self, images: ImageSet, transform: Transform, views: int, *which: str) -> Tensor:
        """Features of all images, ``(views, N, d)`` on the CPU, computed on first use."""
        encoder, key = self._encoder, (transform, ":".join(which))
        if encoder is None:
            raise RuntimeError("only methods on frozen encoders have a bank of features")
        if key not in self._banks:
            parts = []
            for view in range(views):
                generator = torch.Generator().manual_seed(derive(self._seed, self._index, "bank", view, *which))
                for rows in torch.split(torch.arange(len(images)), ENCODED_AT_ONCE):
                    raw = images.images(rows).to(self._device)
                    still = transform == "test" or not self._pipeline.random
                    ready = self._pipeline.eval(raw) if still else self._pipeline.train(raw, generator)
                    with torch.no_grad():
                        parts.append(encoder.encode(ready).cpu())
            self._banks[key] = torch.cat(parts).view(views, len(images), -1)
        return self._banks[key]


def _no_rows(features: Tensor | None) -> Tensor | None:
    return None if features is None else features[:0]
