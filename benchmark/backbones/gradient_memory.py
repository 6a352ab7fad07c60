"""Which directions of a layer's inputs past experiences used: the dual gradient projection memory (DualGPM).

Liang and Li, Adaptive Plasticity Improvement for Continual Learning, CVPR 2023, in the form of InfLoRA (CVPR 2024,
arXiv 2404.00228; liangyanshuo/InfLoRA at e08b00e, ``methods/inflora.py``, ``update_DualGPM``).

Shapes: D width of inputs, m columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


class DualMemory:
    """An orthonormal basis of the inputs that matter, or of those that do not: whichever is smaller.

    Attributes:
        basis: F, ``(D, m)``, float64; m is at most D / 2.
        retains: Whether F spans what may still change; else it spans what past experiences used.
    """

    def __init__(self, basis: Tensor, *, retains: bool = False) -> None:
        self.basis = basis
        self.retains = retains

    @classmethod
    def empty(cls, width: int, device: torch.device) -> DualMemory:
        """The memory before the first experience."""
        return cls(torch.empty(width, 0, dtype=torch.float64, device=device))

    def free(self, correlation: Tensor) -> Tensor:
        """The part of inputs' autocorrelation ``(D, D)`` in directions that may change."""
        inside = self.basis @ (self.basis.T @ correlation)
        return inside if self.retains else correlation - inside

    def update(self, correlation: Tensor, share: float) -> None:
        """Takes in the inputs of an experience that is over; waits for the device.

        Args:
            correlation: M, their autocorrelation ``(D, D)``, float64.
            share: How much of their energy, the sum of squared singular values of M, is to be protected.
        """
        free = self.free(correlation)
        left, values, _ = torch.linalg.svd(free)
        parts = (values.square() / correlation.square().sum()).tolist()
        count = 0
        if self.retains:
            covered = sum(parts)
            for part in parts:
                if covered < 1 - share:
                    break
                covered, count = covered - part, count + 1
            if count:
                gone = left[:, :count]
                rest, _, _ = torch.linalg.svd(self.basis - gone @ (gone.T @ self.basis))
                self.basis = rest[:, : max(0, self.basis.shape[1] - count)]
            return
        width, known = self.basis.shape
        covered = 1 - sum(parts)
        for part in parts:
            # The first experience stops before the share is reached, the later ones behind it.
            if covered + part * (known == 0) >= share:
                break
            covered, count = covered + part, count + 1
        count = max(count, int(known == 0))
        if count:
            self.basis = torch.cat([self.basis, left[:, :count]], dim=1)[:, :width]
        if self.basis.shape[1] > width / 2:
            everything, _, _ = torch.linalg.svd(self.basis)
            self.basis, self.retains = everything[:, self.basis.shape[1] :], True
