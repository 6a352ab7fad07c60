"""A linear head for each experience that brings new classes: they are scored side by side, and old ones can rest.

Shapes: B images, D width of features, C classes, T heads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.backbones.heads import ClassHead, HeadInit


class TaskHeads(nn.Module):
    """Heads whose classes follow one another: the first has classes 0 to n - 1, the second goes on with n.

    A state dict with another number of heads can be loaded.

    Args:
        width: D.
        init: How rows are drawn (`benchmark.backbones.heads.ClassHead`).
    """

    like: Tensor

    def __init__(self, width: int, *, init: HeadInit = "trunc_normal") -> None:
        super().__init__()
        self.width, self.init = width, init
        self.heads = nn.ModuleList()
        self.register_buffer("like", torch.empty(0), persistent=False)  # device and precision of heads to come

    @property
    def sizes(self) -> list[int]:
        """Classes of each head."""
        return [head.classes for head in self.heads]  # type: ignore[misc]

    @property
    def classes(self) -> int:
        """C, classes of all heads."""
        return sum(self.sizes)

    def grow(self, classes: int) -> bool:
        """Adds a head for the classes that are lacking; old heads keep their values.

        Returns:
            Whether there is a new one.
        """
        new = classes - self.classes
        if new <= 0:
            return False
        self.heads.append(ClassHead(self.width, new, init=self.init).to(self.like))
        return True

    def train_only(self, classes: Iterable[int]) -> list[nn.Parameter]:
        """Lets the heads that have one of these classes train, and no other; returns their parameters."""
        wanted, first, found = set(classes), 0, []
        for head, size in zip(self.heads, self.sizes, strict=True):
            trains = not wanted.isdisjoint(range(first, first + size))
            head.requires_grad_(trains)
            found += list(head.parameters()) if trains else []
            first += size
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(B, C)`` of features ``(B, D)``."""
        if not self.heads:
            return features.new_zeros(len(features), 0)
        return torch.cat([head(features) for head in self.heads], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        found = re.compile(re.escape(prefix) + r"heads\.(\d+)\.")
        count = 1 + max((int(match[1]) for key in state_dict if (match := found.match(key))), default=-1)
        del self.heads[count:]
        while len(self.heads) < count:  # each takes its size as it loads
            self.heads.append(ClassHead(self.width, init=self.init).to(self.like))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
