"""A linear classifier in closed form: ridge regression to one-hot labels on sums that grow with the stream.

After RanPAC (McDonnell et al., NeurIPS 2023, arXiv 2307.02251; RanPAC/RanPAC at 012927f), with or without the random
projection in front. Sums over images are all that is kept, so the classifier does not depend on the order
of the experiences but through the ridge parameter, which is chosen on the last one.

Shapes: n images, D width of features, M width of hidden features (D without projection), C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Solver = Literal["double", "lu"]
Scoring = Literal["linear", "cosine"]

RIDGES = tuple(10.0**power for power in range(-8, 9))
FIT_SHARE = 0.8  # of an experience's images; the rest chooses the ridge parameter
_ROWS = 2048  # hidden features that exist at a time


class RidgeHead(nn.Module):
    """``W = argmin |H W - Y|^2 + lambda |W|^2`` with ``H = relu(F R)``, over everything added so far.

    A state dict of another size can be loaded.

    Args:
        width: D.
        projection: M, columns of the random matrix R, drawn from N(0, 1) once and for all; 0: H = F.
        solver: ``double``: sums in float64, Cholesky, and the search for lambda by one eigendecomposition.
            ``lu``: sums in the features' precision and one LU decomposition per candidate, as the official code.
        scoring: ``linear``: ``H W``. ``cosine``: both normalised first, as LAMDA-PILOT scores.

    Attributes:
        gram: ``H^T H``, (M, M); empty before the first `add`.
        cross: ``H^T Y``, (M, C).
        weight: ``W^T``, (C, M).
        ridge: lambda of the last `add`.
    """

    matrix: Tensor
    gram: Tensor
    cross: Tensor
    weight: Tensor
    ridge: Tensor

    def __init__(
        self, width: int, *, projection: int = 0, solver: Solver = "double", scoring: Scoring = "linear"
    ) -> None:
        super().__init__()
        self.solver = solver
        self.scoring = scoring
        self.width = projection or width
        self.register_buffer("matrix", torch.randn(width, projection))
        self.register_buffer("gram", torch.empty(0, 0))
        self.register_buffer("cross", torch.empty(0, 0))
        self.register_buffer("weight", torch.empty(0, self.width))
        self.register_buffer("ridge", torch.ones((), dtype=torch.float64))

    def hidden(self, features: Tensor) -> Tensor:
        """H ``(n, M)`` of features ``(n, D)``."""
        return F.relu(features @ self.matrix) if self.matrix.shape[1] else features

    def add(self, features: Tensor, labels: Tensor, classes: int) -> list[float]:
        """Adds the images of one experience, chooses lambda on them, and solves for everything so far.

        The first 80 % of the images fit, the others judge: they must be in random order, and an
        experience of one image leaves lambda as it was.

        Args:
            features: ``(n, D)``.
            labels: ``(n,)``, int64.
            classes: C from now on.

        Returns:
            Mean squared error of each of `RIDGES` on the held-out images; none where nothing was chosen.
        """
        if len(labels) == 0 and len(self.gram) == 0:
            self.weight = features.new_zeros(classes, self.width)
            return []
        self._grow(classes, features)
        fit = int(FIT_SHARE * len(features))
        losses: list[float] = []
        if fit:
            one, other = (features[:fit], labels[:fit]), (features[fit:], labels[fit:])
            errors = self._errors_by_lu if self.solver == "lu" else self._errors_by_eigenvalues
            losses = [float(error) / (len(features) - fit) / classes for error in errors(*one, *other)]
            self.ridge = torch.tensor(RIDGES[losses.index(min(losses))], dtype=torch.float64, device=features.device)
        self._accumulate(features, labels, self.gram, self.cross)
        self.weight = self._solve(self.gram, self.cross, float(self.ridge)).T.contiguous()
        return losses

    def _grow(self, classes: int, like: Tensor) -> None:
        dtype = torch.float64 if self.solver == "double" else like.dtype
        if len(self.gram) == 0:
            self.gram = torch.zeros(self.width, self.width, dtype=dtype, device=like.device)
            self.cross = torch.zeros(self.width, 0, dtype=dtype, device=like.device)
        new = classes - self.cross.shape[1]
        if new > 0:
            self.cross = torch.cat([self.cross, self.cross.new_zeros(self.width, new)], dim=1)

    def _parts(self, features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """H and one-hot Y, some rows at a time, in the precision of the sums."""
        for some, their in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
            yield self.hidden(some).to(self.gram.dtype), F.one_hot(their, self.cross.shape[1]).to(self.gram.dtype)

    def _accumulate(self, features: Tensor, labels: Tensor, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        for hidden, targets in self._parts(features, labels):
            gram.addmm_(hidden.T, hidden)
            cross.addmm_(hidden.T, targets)
        return gram, cross

    def _sums(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """H^T H and H^T Y of these images alone."""
        return self._accumulate(features, labels, torch.zeros_like(self.gram), torch.zeros_like(self.cross))

    def _errors_by_eigenvalues(self, features: Tensor, labels: Tensor, held: Tensor, their: Tensor) -> Tensor:
        """Summed squared errors of all lambda, from one decomposition of the smaller of H^T H and H H^T."""
        if len(features) > self.width:
            gram, cross = self._sums(features, labels)
            values, basis = torch.linalg.eigh(gram)  # basis (M, k)
            targets = basis.T @ cross  # (k, C)
        else:
            hidden, one_hot = (torch.cat(parts) for parts in zip(*self._parts(features, labels), strict=True))
            values, left = torch.linalg.eigh(hidden @ hidden.T)
            basis, targets = hidden.T @ left, left.T @ one_hot
        values = values.clamp(min=0.0).unsqueeze(1)
        errors = torch.zeros(len(RIDGES), dtype=values.dtype, device=values.device)
        for some, wanted in self._parts(held, their):
            coordinates = some @ basis
            for place, ridge in enumerate(RIDGES):
                errors[place] += (coordinates @ (targets / (values + ridge)) - wanted).square().sum()
        return errors

    def _errors_by_lu(self, features: Tensor, labels: Tensor, held: Tensor, their: Tensor) -> Tensor:
        """The same with one decomposition each; a system that cannot be solved has an infinite error."""
        gram, cross = self._sums(features, labels)
        errors = torch.zeros(len(RIDGES), dtype=gram.dtype, device=gram.device)
        for place, ridge in enumerate(RIDGES):
            weight = self._solve(gram, cross, ridge)
            for some, wanted in self._parts(held, their):
                errors[place] += (some @ weight - wanted).square().sum()
        return errors.nan_to_num(nan=torch.inf)

    def _solve(self, gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
        """``(gram + ridge I)^-1 cross``, (M, C)."""
        shifted = gram.clone()
        shifted.diagonal().add_(ridge)
        if self.solver == "lu":
            solution: Tensor = torch.linalg.solve_ex(shifted, cross)[0]
            return solution
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            return torch.cholesky_solve(cross, factor)
        # Rounding made the smallest eigenvalues of the sums, which are 0 or more, smaller than -ridge.
        values, basis = torch.linalg.eigh(gram)
        solution = basis @ ((basis.T @ cross) / (values.clamp(min=0.0).unsqueeze(1) + ridge))
        return solution

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(n, C)`` of features ``(n, D)``."""
        hidden, weight = self.hidden(features).to(self.weight.dtype), self.weight
        if self.scoring == "cosine":
            hidden, weight = F.normalize(hidden, dim=1), F.normalize(weight, dim=1)
        return (hidden @ weight.T).to(features.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ("gram", "cross", "weight"):
            stored = state_dict.get(f"{prefix}{name}")
            if isinstance(stored, Tensor):
                setattr(self, name, torch.empty_like(stored, device=self.matrix.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
