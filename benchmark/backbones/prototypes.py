"""Class means of features, kept as sums and counts, and cosines to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassMeans(nn.Module):
    """Mean feature of each class; it grows with the labels it meets.

    Sums are float64, so the means are those of one pass over everything, whatever the batches were. A
    state dict of another size can be loaded.

    Args:
        width: Feature width D.
        normalise: Average normalised features instead of raw ones, which is another classifier.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, width: int, *, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.register_buffer("sums", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    @property
    def classes(self) -> int:
        """Largest label met plus 1."""
        return len(self.counts)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Adds features ``(B, D)`` of the given labels ``(B,)``."""
        if len(labels) == 0:
            return
        new = int(labels.max()) + 1 - self.classes
        if new > 0:
            self.sums = torch.cat([self.sums, self.sums.new_zeros(new, self.sums.shape[1])])
            self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        features = F.normalize(features, dim=1) if self.normalise else features
        self.sums.index_add_(0, labels, features.to(self.sums.dtype))
        self.counts.index_add_(0, labels, torch.ones_like(labels))

    def forget(self, labels: Iterable[int]) -> None:
        """Starts classes anew; labels that were never met do not matter."""
        known = [label for label in labels if label < self.classes]
        self.sums[known] = 0.0
        self.counts[known] = 0

    @property
    def means(self) -> Tensor:
        """Mean features, float64 ``(classes, D)``; zeros for a class without images."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(1)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines ``(B, classes)`` of features ``(B, D)``; -inf for a class without images."""
        cosines = F.normalize(features.to(self.sums.dtype), dim=1) @ F.normalize(self.means, dim=1).T
        return cosines.masked_fill(self.counts == 0, -math.inf).to(features.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}counts")
        if isinstance(stored, Tensor):
            self.sums = self.sums.new_zeros(len(stored), self.sums.shape[1])
            self.counts = self.counts.new_zeros(len(stored))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
