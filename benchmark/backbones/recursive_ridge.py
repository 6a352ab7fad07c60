"""Ridge regression to one-hot labels, solved anew after every batch: random features, no boundaries, no search.

ACIL and G-ACIL (Zhuang et al., arXiv 2205.14922 and 2403.15706) and AIR (Fang et al., arXiv 2408.10349);
ZHUANGHP/Analytic-continual-learning at 0afd6bf, ``analytic/AnalyticLinear.py`` and ``Buffer.py``. `RidgeHead`
(`benchmark.backbones.ridge`) is the same classifier with sums instead of the recursion, and a search for lambda.

Everything is float64: with a small lambda float32 loses several digits. Shapes: B images, D width of features, M width
of hidden features, C classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weighting = Literal["samples", "classes"]

_ROWS = 512  # of a block update, whose small system has as many unknowns


class RecursiveRidge(nn.Module):
    """``W = (sum_i H_i^T H_i + lambda I)^-1 sum_i H_i^T Y_i`` with ``H = relu(F R^T)``, whatever the batches were.

    Args:
        width: D.
        hidden: M, rows of R, uniform within ``1 / sqrt(D)``; 0: H = F.
        ridge: lambda.
        weighting: ``samples``: every image counts as much. ``classes``: every class does (AIR); M^2 numbers for each
            class are kept, and `settle` solves.

    Attributes:
        matrix: R, float64 ``(M, D)``.
        inverse: ``(sum H^T H + lambda I)^-1``, ``(M, M)``; empty with ``classes``.
        weight: W, ``(M, C)``.
        grams: With ``classes``: ``H^T H`` of each, ``(C, M, M)``.
        sums: With ``classes``: sum of H of each, ``(M, C)``.
        counts: With ``classes``: images of each, ``(C,)``.
    """

    matrix: Tensor
    inverse: Tensor
    weight: Tensor
    grams: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, width: int, *, hidden: int = 0, ridge: float = 0.1, weighting: Weighting = "samples") -> None:
        super().__init__()
        self.ridge, self.weighting = ridge, weighting
        self.width = hidden or width
        double = torch.float64
        bound = 1 / math.sqrt(width)
        self.register_buffer("matrix", torch.empty(hidden, width, dtype=double).uniform_(-bound, bound))
        self.register_buffer("weight", torch.zeros(self.width, 0, dtype=double))
        per_class = weighting == "classes"
        kept = torch.zeros(0, 0, dtype=double) if per_class else torch.eye(self.width, dtype=double) / ridge
        self.register_buffer("inverse", kept)
        self.register_buffer("grams", torch.zeros(0, *(2 * [self.width if per_class else 0]), dtype=double))
        self.register_buffer("sums", torch.zeros(self.width if per_class else 0, 0, dtype=double))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    @property
    def classes(self) -> int:
        """C: largest label met plus 1."""
        return self.weight.shape[1]

    def hidden(self, features: Tensor) -> Tensor:
        """H, float64 ``(B, M)``."""
        features = features.to(self.weight.dtype)
        return F.relu(features @ self.matrix.T) if len(self.matrix) else features

    def _grow(self, classes: int) -> None:
        new = classes - self.classes
        if new <= 0:
            return
        self.weight = F.pad(self.weight, (0, new))
        if self.weighting == "classes":
            self.sums, self.counts = F.pad(self.sums, (0, new)), F.pad(self.counts, (0, new))
            self.grams = torch.cat([self.grams, self.grams.new_zeros(new, self.width, self.width)])

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """Learns features ``(B, D)`` of labels ``(B,)``; waits for the device to learn which label is the largest."""
        if len(labels) == 0:
            return
        self._grow(int(labels.max()) + 1)
        for some, their in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
            hidden = self.hidden(some)
            if self.weighting == "classes":
                self._sum(hidden, their)
            else:
                targets = hidden.new_zeros(len(their), self.classes).scatter_(1, their.unsqueeze(1), 1.0)
                self._update(hidden, targets)

    def _update(self, hidden: Tensor, targets: Tensor) -> None:
        """Woodbury: ``P <- P - P H^T (I + H P H^T)^-1 H P``, then ``W <- W + P H^T (Y - H W)``."""
        spread = self.inverse @ hidden.T  # (M, B)
        small = hidden @ spread
        small.diagonal().add_(1.0)
        self.inverse -= spread @ torch.cholesky_solve(spread.T, torch.linalg.cholesky_ex(small)[0])
        self.weight += self.inverse @ (hidden.T @ (targets - hidden @ self.weight))

    def _sum(self, hidden: Tensor, labels: Tensor) -> None:
        for label in labels.unique().tolist():
            rows = hidden[labels == label]
            self.grams[label].addmm_(rows.T, rows)
            self.sums[:, label] += rows.sum(dim=0)
            self.counts[label] += len(rows)

    @torch.no_grad()
    def settle(self) -> None:
        """Solves with a weight of ``1 / n_c``, scaled to a mean of 1, for every class; else there is nothing to do."""
        if self.weighting == "samples" or not self.classes:
            return
        weights = torch.where(self.counts > 0, 1 / self.counts.to(self.sums.dtype), 0.0)
        weights = weights * (self.classes / weights.sum())
        gram = torch.einsum("c,cij->ij", weights, self.grams)
        gram.diagonal().add_(self.ridge)
        self.weight = torch.cholesky_solve(self.sums * weights, torch.linalg.cholesky_ex(gram)[0])

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(B, C)`` of features ``(B, D)``."""
        return (self.hidden(features) @ self.weight).to(features.dtype)
