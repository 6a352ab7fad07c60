"""Classifier alignment: a head is trained on samples of Gaussians of all classes, behind a backbone that stays.

SLCA (Zhang et al., ICCV 2023, arXiv 2303.05118; GengDavid/SLCA at 169d4e6, ``models/slca.py``), and after it
HiDe-Prompt and MOS::

    sampler = Sampler(statistics.means, statistics.covariances(ridge=1e-4))
    align(head, head.parameters(), sampler, torch.arange(classes), Alignment(epochs=5, samples=256))

Shapes: K Gaussians, S samples of each, D width of features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.gaussian import Sampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """How a head is trained on samples: SGD, cosine per epoch to 0.

    Attributes:
        epochs: New samples are drawn in each.
        samples: S, of each Gaussian, and rows of a batch.
        batches: Batches of an epoch at most; None: all K, so that every sample is seen.
        lr: Learning rate of the first epoch.
        momentum: Of SGD.
        weight_decay: Of SGD.
    """

    epochs: int
    samples: int
    batches: int | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4


class Draws:
    """The random numbers of alignment; a test may give others."""

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, dtype=like.dtype, device=like.device)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, dtype=like.dtype, device=like.device)

    def permutation(self, count: int, like: Tensor) -> Tensor:
        """Of 0 to ``count - 1``."""
        return torch.randperm(count, device=like.device)


def align(
    score: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    sampler: Sampler,
    labels: Tensor,
    how: Alignment,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    change: Callable[[Tensor], Tensor] | None = None,
    draws: Draws | None = None,
) -> list[Tensor]:
    """Trains the parameters of a head on samples.

    Args:
        score: Features ``(S, D)`` to logits ``(S, C)``.
        parameters: What trains.
        sampler: K Gaussians.
        labels: Class of each Gaussian, int64 ``(K,)``.
        how: Epochs, samples, optimiser.
        loss: Of logits ``(S, C)`` and labels ``(S,)``.
        change: What happens to samples ``(K, S, D)`` before they are used.
        draws: Where random numbers come from.

    Returns:
        The loss of every step.
    """
    trained, draws = list(parameters), draws or Draws()
    if not trained or not len(labels):
        return []
    like = trained[0]
    optimizer = torch.optim.SGD(trained, lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    targets = labels.repeat_interleave(how.samples)
    losses = []
    for epoch in range(how.epochs):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * epoch / how.epochs))
        noise = draws.normal((len(labels), how.samples, sampler.means.shape[1]), sampler.means)
        samples = sampler.draw(how.samples, noise=noise)
        if change is not None:
            samples = change(samples)
        features = samples.flatten(0, 1).to(like.dtype)
        order = draws.permutation(len(features), features)
        for rows in torch.split(order, how.samples)[: how.batches]:
            found = loss(score(features[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            found.backward()
            optimizer.step()
            losses.append(found.detach())
    return losses


class Collected:
    """Features and labels of one pass over an experience, kept for its end."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Keeps features ``(B, D)`` and labels ``(B,)`` of a batch."""
        self._features.append(features.detach())
        self._labels.append(labels)

    def take(self) -> tuple[Tensor, Tensor] | None:
        """All of them, once: then there are none; None where there are none."""
        if not self._features:
            return None
        found = torch.cat(self._features), torch.cat(self._labels)
        self.clear()
        return found

    def state(self) -> Mapping[str, Any]:
        """For `benchmark.api.Method.extra_state`."""
        return {"features": self._features, "labels": self._labels}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Puts back what `state` returned."""
        self._features = [tensor.to(device) for tensor in state["features"]]
        self._labels = [tensor.to(device) for tensor in state["labels"]]
