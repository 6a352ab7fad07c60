"""Features of frozen encoders (`benchmark.api.FeatureMethod`), computed once per experience where that is possible.

They are computed once wherever samples are not augmented at random, or with ``views=K`` for K augmented views of each
sample; views follow from the data seed, so that a resumed run computes the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.api import FeatureMethod, Samples, Transform
from benchmark.run.keeper import Keeper, handing
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive

ENCODED_AT_ONCE = 256  # samples


class FeatureBank:
    """Features of the samples of one experience, each set and transform computed on first use.

    Args:
        encoder: The method.
        index: Number of the experience.
        rules: Pipeline, device, seed.
        keeper: Knows features of frozen networks; default: nobody does.
    """

    def __init__(self, encoder: FeatureMethod, index: int, rules: Rules, keeper: Keeper | None = None) -> None:
        self._encoder = encoder
        self._index = index
        self._rules = rules
        self._keeper = keeper
        self._kept: dict[tuple[Transform, str], Tensor] = {}

    def views(self, transform: Transform) -> int:
        """Views per sample that are kept for a pass; 0 where every batch is encoded."""
        return self._encoder.config.views if transform == "train" and self._rules.pipeline.random else 1

    def read(self, samples: Samples, transform: Transform, rows: Tensor, *place: int | str) -> Tensor:
        """Features ``(B, d)`` of samples, one of their views at random.

        Args:
            samples: The whole set.
            transform: Of the pass.
            rows: Positions in it.
            place: Where in the run, words for the set among them.
        """
        views, which = self.views(transform), [part for part in place if isinstance(part, str)]
        key = (transform, ":".join(which))
        if key not in self._kept:
            self._kept[key] = self._compute(samples, transform, views, *which)
        generator = torch.Generator().manual_seed(derive(self._rules.seed, "view", *place))
        view = torch.randint(views, rows.shape, generator=generator) if views > 1 else torch.zeros_like(rows)
        return self._kept[key][view, rows].to(self._rules.device, non_blocking=True)

    def encode(self, inputs: object) -> Tensor:
        """Features ``(B, d)`` of inputs as they are."""
        with torch.no_grad(), self._rules.computing.forward():
            found = self._encoder.encode(inputs)
        half = self._rules.computing.mixed and isinstance(found, Tensor)
        return found.to(torch.float32) if half else found

    def _compute(self, samples: Samples, transform: Transform, views: int, *which: str) -> Tensor:
        """Features of all samples, ``(views, N, d)`` on the CPU."""
        rules, parts = self._rules, []
        still = transform == "test" or not rules.pipeline.random
        for view in range(views):
            generator = torch.Generator().manual_seed(derive(rules.seed, self._index, "bank", view, *which))
            batches = torch.split(torch.arange(len(samples)), ENCODED_AT_ONCE)
            if still:
                for rows, ready in zip(batches, rules.tests(samples, batches), strict=True):
                    with handing(self._keeper, ready, [samples], rows, again=False):
                        parts.append(self.encode(ready).cpu())
                continue
            for rows in batches:
                request = rules.request(samples, rows, generator)
                raw = next(rules.ahead([request], (samples,), len(rows)))
                ready = rules.trained(raw, generator, request.cut)
                drawn: tuple[int | str, ...] = (rules.seed, self._index, view, *which)
                with handing(self._keeper, ready, [samples], rows, again=False, drawn=drawn):
                    parts.append(self.encode(ready).cpu())
        return torch.cat(parts).view(views, len(samples), -1)
