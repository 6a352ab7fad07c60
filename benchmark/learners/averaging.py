"""Means of weights over the steps of a training: what is averaged, kept in a checkpoint, and put into a network.

A method holds a `WeightAverage` and says when weights count::

    self.average.follow(self)      # it is what the network is
    self.average.add(self)         # the mean over all weights that were added, the first of which was followed
    with self.average.inside(self):
        logits = super().predict(images)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def weights_of(module: nn.Module, *, buffers: bool = True) -> dict[str, Tensor]:
    """Parameters of a module and its stored buffers of real numbers (statistics of BatchNorm), by name."""
    stored = module.state_dict(keep_vars=True)
    found = {name: value for name, value in stored.items() if value.is_floating_point()}
    if buffers:
        return found
    own = {name for name, _ in module.named_parameters()}
    return {name: value for name, value in found.items() if name in own}


class WeightAverage:
    """A uniform mean of weights.

    Args:
        buffers: Whether statistics of BatchNorm are averaged, too.

    Attributes:
        count: Weights that were added to the first ones.
        tensors: The mean by name; empty before anything was followed.
    """

    def __init__(self, *, buffers: bool = True) -> None:
        self.buffers = buffers
        self.count = 0
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """The mean becomes a copy of a module's weights; the count stays."""
        weights = weights_of(module, buffers=self.buffers)
        if self.tensors.keys() != weights.keys():
            self.tensors = {name: value.detach().clone() for name, value in weights.items()}
            return
        for name, value in weights.items():
            self.tensors[name].copy_(value)

    @torch.no_grad()
    def add(self, module: nn.Module) -> None:
        """One more: ``count += 1``, ``mean = (mean * count + weights) / (count + 1)``."""
        self.count += 1
        for name, value in weights_of(module, buffers=self.buffers).items():
            mean = self.tensors[name]
            mean.mul_(self.count / (self.count + 1)).add_(value, alpha=1 / (self.count + 1))

    @torch.no_grad()
    def put_into(self, module: nn.Module) -> None:
        """Gives a module these weights."""
        weights = weights_of(module, buffers=self.buffers)
        for name, mean in self.tensors.items():
            weights[name].copy_(mean)

    @contextlib.contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Inside, a module has these weights; behind, its own, bit for bit. Nothing happens while there are none."""
        kept = {name: value.detach().clone() for name, value in weights_of(module, buffers=self.buffers).items()}
        self.put_into(module)
        try:
            yield
        finally:
            if self.tensors:
                with torch.no_grad():
                    for name, value in weights_of(module, buffers=self.buffers).items():
                        value.copy_(kept[name])

    def clear(self) -> None:
        """Forgets everything."""
        self.count, self.tensors = 0, {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"count": self.count, "tensors": dict(self.tensors)}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Puts back what `state` returned, on a device."""
        self.count = state["count"]
        self.tensors = {name: value.to(device) for name, value in state["tensors"].items()}
