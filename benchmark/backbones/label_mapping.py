"""From the logits of a frozen source classifier to those of target classes: which class reads which.

::

    mapping = LabelMapping(multiplicity=1)
    counts = count_matrix(classifier(features).argmax(dim=1), labels, sources=1000, targets=10)
    mapping.assign(range(10), frequent(counts))
    logits = mapping(classifier(features))               # (B, 10)

The greedy assignment is that of OPTML-Group/ILM-VP at 84ca042, ``algorithms/flm_calculation.py`` (Chen et al., CVPR
2023, arXiv 2211.11635).

Shapes: B batch, K source classes, C target classes, m source classes per target class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class LabelMapping(nn.Module):
    """Source classes of each target class, ``(C, m)``; it grows, and a state dict of another size can be loaded.

    Args:
        multiplicity: m; their logits are averaged.
    """

    sources: Tensor

    def __init__(self, multiplicity: int = 1) -> None:
        super().__init__()
        self.register_buffer("sources", torch.zeros(0, multiplicity, dtype=torch.int64))

    def assign(self, classes: Sequence[int], sources: Tensor) -> None:
        """Gives classes their sources ``(len(classes), m)``, in place of those they have."""
        labels = torch.as_tensor(classes, device=self.sources.device)
        more = int(labels.max()) + 1 - len(self.sources)
        if more > 0:
            self.sources = torch.cat([self.sources, self.sources.new_full((more, self.sources.shape[1]), -1)])
        self.sources[labels] = sources.to(self.sources)

    def taken(self, without: Sequence[int] = ()) -> Tensor:
        """Sources in use, but for those of some classes."""
        kept = torch.ones(len(self.sources), dtype=torch.bool)
        kept[[label for label in without if label < len(kept)]] = False
        used = self.sources[kept.to(self.sources.device)].flatten()
        return used[used >= 0]

    def forward(self, logits: Tensor) -> Tensor:
        """Returns ``(B, C)`` for source logits ``(B, K)``."""
        return logits[:, self.sources.flatten()].reshape(len(logits), *self.sources.shape).mean(dim=2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}sources")
        if isinstance(stored, Tensor):
            self.sources = self.sources.new_zeros(len(stored), self.sources.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def in_order(classes: Sequence[int], multiplicity: int) -> Tensor:
    """The fixed mapping: class i reads sources ``i m .. i m + m - 1``, whatever they mean; ``(len(classes), m)``."""
    return torch.as_tensor(classes).unsqueeze(1) * multiplicity + torch.arange(multiplicity)


def at_random(classes: int, sources: int, multiplicity: int, taken: Tensor) -> Tensor:
    """Distinct sources, none of those taken, from torch's generator; ``(classes, m)``."""
    free = torch.ones(sources, dtype=torch.bool)
    free[taken.cpu()] = False
    order = torch.randperm(sources)
    return order[free[order]][: classes * multiplicity].view(classes, multiplicity)


def count_matrix(predicted: Tensor, labels: Tensor, *, sources: int, targets: int) -> Tensor:
    """How often images of a target class are taken for a source class: int64 ``(K, C)``."""
    return torch.bincount(predicted * targets + labels, minlength=sources * targets).view(sources, targets)


def frequent(counts: Tensor, multiplicity: int = 1, taken: Tensor | None = None) -> Tensor:
    """The frequency mapping: the largest count first, each source once.

    Of equal counts, that of the smaller source, then of the smaller target, comes first.

    Args:
        counts: ``(K, C)`` of `count_matrix`.
        multiplicity: m.
        taken: Sources that may not be used.

    Returns:
        ``(C, m)``, sources of a class in rising order.
    """
    left = counts.cpu().numpy().astype(np.int64, copy=True)
    if taken is not None:
        left[taken.cpu().numpy()] = -1
    targets = left.shape[1]
    found: list[list[int]] = [[] for _ in range(targets)]
    for _ in range(targets * multiplicity):
        source, target = np.unravel_index(left.argmax(), left.shape)
        found[target].append(int(source))
        left[source] = -1
        if len(found[target]) == multiplicity:
            left[:, target] = -1
    return torch.tensor([sorted(row) for row in found]).view(targets, multiplicity)
