"""Classes as Gaussians in feature space: statistics that grow, covariances made invertible, classifiers, samples.

Statistics are exact whatever the batches were (Chan, Golub, LeVeque, 1983), so a class may come in pieces, and two
halves of a stream merge by adding scatter matrices. What papers do with them are functions of tensors below: shrinking
(FeCAM, Goswami et al., NeurIPS 2023, arXiv 2309.14062; OAS, Chen et al., 2010; Kubokawa and Srivastava, 2008, as in GDA
for CLIP, Wang et al., ICLR 2024), correlation normalisation and Tukey's transform (FeCAM), linear discriminants (SLDA,
Hayes and Kanan, 2020), Mahalanobis distances, and samples for classifier alignment (SLCA, Zhang et al., ICCV 2023).

Shapes: n images, D width of features, C classes. Everything is computed in float64 unless tensors of another type are
handed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kept = Literal["full", "diagonal", "shared"]


class ClassGaussians(nn.Module):
    """Counts, means and scatter matrices of classes, from features in any number of batches.

    A state dict of another size can be loaded.

    Args:
        width: D.
        kept: ``full``: a matrix for each class, 8 D^2 C bytes. ``diagonal``: variances only. ``shared``: one matrix
            of all classes, each sample centred at the mean of its class.

    Attributes:
        counts: int64 ``(C,)``.
        means: float64 ``(C, D)``; zeros for a class without images.
        scatter: Sum of ``(x - mean)(x - mean)^T``, float64: ``(C, D, D)``, its diagonals ``(C, D)``, or ``(D, D)``.
    """

    counts: Tensor
    means: Tensor
    scatter: Tensor

    def __init__(self, width: int, *, kept: Kept = "full") -> None:
        super().__init__()
        self.kept = kept
        sizes = {"full": (0, width, width), "diagonal": (0, width), "shared": (width, width)}
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("means", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("scatter", torch.zeros(sizes[kept], dtype=torch.float64))

    @property
    def classes(self) -> int:
        """Largest label met plus 1."""
        return len(self.counts)

    def _grow(self, classes: int) -> None:
        new = classes - self.classes
        if new <= 0:
            return
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self.means = torch.cat([self.means, self.means.new_zeros(new, self.means.shape[1])])
        if self.kept != "shared":
            self.scatter = torch.cat([self.scatter, self.scatter.new_zeros(new, *self.scatter.shape[1:])])

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """Adds features ``(B, D)`` of the given labels ``(B,)``; waits for the device, so not for every small step."""
        if len(labels) == 0:
            return
        self._grow(int(labels.max()) + 1)
        features = features.to(self.means.dtype)
        for label in labels.unique().tolist():
            rows = features[labels == label]
            number, before = len(rows), int(self.counts[label])
            mean = rows.mean(dim=0)
            rows, step = rows - mean, mean - self.means[label]
            between = before * number / (before + number)  # how much two means of one class add to its scatter
            if self.kept == "diagonal":
                self.scatter[label] += rows.square().sum(dim=0) + between * step.square()
            else:
                into = self.scatter if self.kept == "shared" else self.scatter[label]
                into.addmm_(rows.T, rows).addr_(step, step, alpha=between)
            self.means[label] += step * (number / (before + number))
            self.counts[label] += number

    def forget(self, labels: Iterable[int]) -> None:
        """Starts classes anew; labels that were never met do not matter.

        Raises:
            ValueError: The covariance is shared: what a class added to it cannot be taken out.
        """
        if self.kept == "shared":
            raise ValueError("a class cannot be taken out of a shared covariance; keep `full` or `diagonal` ones")
        known = [label for label in labels if label < self.classes]
        for kept in (self.counts, self.means, self.scatter):
            kept[known] = 0

    def covariances(self, *, ridge: float = 0.0) -> Tensor:
        """Unbiased covariances, shaped as `scatter`, plus ``ridge I``.

        The divisor is n - 1 of the class; that of a shared matrix is n - 1 of everything, as where a residual is a
        sample (GDA). A class of one image has the covariance ``ridge I``.
        """
        if self.kept == "shared":
            scaled = self.scatter / (self.counts.sum() - 1).clamp(min=1)
        else:
            divisors = (self.counts - 1).clamp(min=1).to(self.scatter.dtype)
            scaled = self.scatter / divisors.view(-1, *[1] * (self.scatter.dim() - 1))
        if self.kept == "diagonal":
            return scaled + ridge
        scaled.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return scaled

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ("counts", "means", "scatter"):
            stored = state_dict.get(f"{prefix}{name}")
            if isinstance(stored, Tensor):
                setattr(self, name, torch.empty_like(stored, device=self.means.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Sampler:
    """Draws from Gaussians; what is costly, the Cholesky factors, is computed once.

    Args:
        means: ``(K, D)``.
        covariances: ``(K, D, D)``; ``(K, D)``: variances; ``(D, D)``: one for all (where K = D, give it three
            dimensions).

    Raises:
        ValueError: A covariance is not positive definite, as where a class has fewer images than D and there is no
            ridge.
    """

    def __init__(self, means: Tensor, covariances: Tensor) -> None:
        self.means = means
        self.diagonal = covariances.dim() == 2 and covariances.shape == means.shape
        if self.diagonal:
            if bool((covariances < 0).any()):
                raise ValueError("a variance is negative")
            self.factors = covariances.sqrt()
            return
        self.factors, failed = torch.linalg.cholesky_ex(covariances)
        if bool(failed.any()):
            raise ValueError("a covariance is not positive definite: add a ridge (`covariances(ridge=1e-4)`)")

    def draw(self, count: int, *, noise: Tensor | None = None) -> Tensor:
        """Samples ``(K, count, D)``: ``mean + L e``.

        Args:
            count: Samples of each Gaussian.
            noise: Standard normal e, ``(K, count, D)``; drawn if not given.
        """
        means = self.means.unsqueeze(1)
        if noise is None:
            noise = torch.randn(len(means), count, means.shape[2], dtype=means.dtype, device=means.device)
        noise = noise.to(means.dtype)
        if self.diagonal:
            return means + noise * self.factors.unsqueeze(1)
        return means + noise @ self.factors.mT


def shrink(covariance: Tensor, *, diagonal: float, off_diagonal: float = 0.0) -> Tensor:
    """``S + a1 v I + a2 c (1 - I)``: v the mean of the diagonal, c that of other entries that are not zero (FeCAM).

    Args:
        covariance: S, ``(..., D, D)``.
        diagonal: a1.
        off_diagonal: a2.
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    others = covariance * (1 - identity)
    counts = (others != 0).sum(dim=(-2, -1)).clamp(min=1)
    common = others.sum(dim=(-2, -1)) / counts
    added = diagonal * variance[..., None, None] * identity
    return covariance + added + off_diagonal * common[..., None, None] * (1 - identity)


def correlation(covariance: Tensor) -> Tensor:
    """``S_ij / sqrt(S_ii S_jj)`` of S ``(..., D, D)``: classes of different spread become comparable (FeCAM, eq. 10).

    Raises:
        ValueError: A variance is not positive; shrink first.
    """
    deviations = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    if not bool((deviations > 0).all()):
        raise ValueError("a feature does not vary, so nothing correlates with it: shrink the covariance first")
    return covariance / (deviations.unsqueeze(-1) * deviations.unsqueeze(-2))


def tukey(features: Tensor, power: float) -> Tensor:
    """``x^power``, and ``log x`` for power 0: skewed, non-negative features become closer to Gaussian (FeCAM, eq. 9).

    Raises:
        ValueError: A feature is negative (not positive, for the logarithm), as those of a ViT are: powers of it are no
            numbers.
    """
    if power == 1:
        return features
    if bool((features <= 0).any() if power <= 0 else (features < 0).any()):
        raise ValueError("Tukey's transform needs non-negative features (ReLU); those of a ViT are not; use power 1")
    return features.log() if power == 0 else features.pow(power)


def oracle_approximating(residuals: Tensor) -> Tensor:
    """Covariance ``(D, D)`` shrunk to a multiple of I: OAS of Chen et al., 2010, as in scikit-learn, mean taken as 0.

    Args:
        residuals: Centred features ``(n, D)``.
    """
    count, width = residuals.shape
    empirical = residuals.T @ residuals / count
    variance = empirical.diagonal().mean()
    squares = empirical.square().mean()
    divisor = (count + 1) * (squares - variance.square() / width)
    weight = torch.where(divisor > 0, (squares + variance.square()) / divisor, torch.ones_like(divisor)).clamp(max=1)
    shrunk = (1 - weight) * empirical
    shrunk.diagonal().add_(weight * variance)
    return shrunk


def kubokawa_srivastava(scatter: Tensor, count: int) -> Tensor:
    """Inverse covariance ``D ((n - 1) S + tr(S) I)^+``, which exists for fewer samples than D (GDA for CLIP, eq. 6).

    Args:
        scatter: ``(n - 1) S``, ``(D, D)``: sum over samples centred at the means of their classes.
        count: n.
    """
    width = len(scatter)
    shifted = scatter.clone()
    shifted.diagonal().add_(scatter.diagonal().sum() / max(count - 1, 1))
    inverse: Tensor = width * torch.linalg.pinv(shifted)
    return inverse


def linear_discriminant(means: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Linear classifier of Gaussians with one covariance, without priors.

    Args:
        means: ``(C, D)``.
        precision: Inverse covariance ``(D, D)``, symmetric.

    Returns:
        W ``(C, D)`` and b ``(C,)``: a score ``x W^T + b`` is the log density, up to what all classes share.
    """
    weight = means @ precision
    return weight, -0.5 * (weight * means).sum(dim=1)


def mahalanobis(features: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
    """Squared distances ``(n, C)``: ``(x - mean)^T P (x - mean)``.

    Args:
        features: ``(n, D)``.
        means: ``(C, D)``.
        precisions: P, ``(C, D, D)``, or ``(D, D)`` for all classes.
    """
    columns = []
    for label, mean in enumerate(means):  # one class at a time: (n, C, D) would be large
        centred = features - mean
        precision = precisions if precisions.dim() == 2 else precisions[label]
        columns.append(((centred @ precision) * centred).sum(dim=1))
    return torch.stack(columns, dim=1) if columns else features.new_zeros(len(features), 0)
