"""Memories of features: keys with labels that vote for classes by their nearness (Tip-Adapter and its like).

    cache = FeatureCache(width)
    rows = cache.grow(labels)                     # before an optimiser is made: the keys are a parameter
    cache.put(rows, keys)                         # (N, d), of length one
    votes = cache.votes(cosines, columns, sharpness=5.5)     # (B, C)

Shapes: B images, N keys, C classes, d width of features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FeatureCache(nn.Module):
    """Keys and their labels; it grows by rows, and a state dict of another size can be loaded.

    Args:
        width: d.
        trained: Whether the keys train.

    Attributes:
        keys: ``(N, d)``, a parameter.
        labels: int64 ``(N,)``.
    """

    labels: Tensor

    def __init__(self, width: int, *, trained: bool = False) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(0, width), requires_grad=trained)
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def grow(self, labels: Tensor) -> slice:
        """Adds rows of zeros for labels ``(N',)``; the old rows keep their values.

        The parameter is a new object afterwards: make the optimiser after growing.

        Returns:
            Where the new rows are.
        """
        old = self.keys
        fresh = old.new_zeros(len(labels), old.shape[1])
        self.keys = nn.Parameter(torch.cat([old.detach(), fresh]), requires_grad=old.requires_grad)
        self.labels = torch.cat([self.labels, labels.to(self.labels.device)])
        return slice(len(old), len(self.keys))

    @torch.no_grad()
    def put(self, rows: slice, keys: Tensor) -> None:
        """Sets the keys of some rows."""
        self.keys[rows] = keys.to(self.keys)

    def affinity(self, features: Tensor) -> Tensor:
        """Products ``(B, N)`` of features ``(B, d)`` and keys: cosines where both have length one."""
        return features @ self.keys.T

    def votes(self, affinity: Tensor, columns: Tensor, *, sharpness: float) -> Tensor:
        """``sum over the keys of a class of exp(-sharpness (1 - affinity))``.

        Args:
            affinity: ``(B, N)``.
            columns: Which of C columns each label is voted into, ``(labels, C)``, zeros and ones: one row per label.
            sharpness: beta.

        Returns:
            ``(B, C)``.
        """
        near = torch.exp(-sharpness * (1 - affinity))
        return near @ columns.to(near)[self.labels]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}keys")
        if isinstance(stored, Tensor) and len(stored) != len(self.keys):
            empty = self.keys.new_empty(len(stored), self.keys.shape[1])
            self.keys = nn.Parameter(empty, requires_grad=self.keys.requires_grad)
            self.labels = self.labels.new_empty(len(stored))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
