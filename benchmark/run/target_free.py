"""How good a model is on a target whose labels nobody has: scores of predictions, features and source images.

All are pure functions of arrays, in float64. What each reads: entropy, SND, MaNo and MixVal the predictions on the
target alone; importance weighting (IWV), DEV and circular validation labelled source images, too. None reads a target
label.
A model that predicts one class for everything has the lowest entropy, the highest SND and perfect MixVal: see
`collapsed`.

Sources, by function: the authors' code where it was recorded, else the paper. N images, C classes, d feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]

CLIP = 1e-6  # of a domain classifier's probability: weights stay finite
TAYLOR = 5.0  # MaNo: up to this mean loss, logits are read through a polynomial


def _rows(values: npt.ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def collapsed(logits: npt.ArrayLike, most: float = 0.9) -> bool:
    """Whether more than a share ``most`` of all predictions ``(N, C)`` are one class."""
    labels = _rows(logits).argmax(axis=1)
    return bool(np.bincount(labels).max() > most * len(labels))


def entropy(logits: npt.ArrayLike) -> float:
    """Mean entropy of predictions ``(N, C)``; less is better.

    Morerio et al., Minimal-Entropy Correlation Alignment, ICLR 2018.
    """
    logs = special.log_softmax(_rows(logits), axis=1)
    return float(-(np.exp(logs) * logs).sum(axis=1).mean())


def soft_neighborhood_density(logits: npt.ArrayLike, temperature: float = 0.05) -> float:
    """SND: mean entropy of the softmax over the other images' cosines of predictions; more is better.

    Saito et al., Tune It the Right Way, ICCV 2021; VisionLearningGroup/SND at 6aae9707 has 1e-5 inside the logarithm,
    which is left out here. At most about ``ln(N - 1)``, so only comparable for one N.

    Args:
        logits: ``(N, C)``, N at least 2.
        temperature: Of the softmax.
    """
    shares = special.softmax(_rows(logits), axis=1)
    shares /= np.linalg.norm(shares, axis=1, keepdims=True)
    cosines = shares @ shares.T / temperature
    np.fill_diagonal(cosines, -1 / temperature)
    logs = special.log_softmax(cosines, axis=1)
    return float(-(np.exp(logs) * logs).sum(axis=1).mean())


def mean_loss(logits: npt.ArrayLike) -> float:
    """MaNo's criterion: mean of ``-log softmax`` over all N x C entries."""
    return float(-special.log_softmax(_rows(logits), axis=1).mean())


def matrix_norm(logits: npt.ArrayLike, *, taylor: bool | None = None, power: float = 4.0) -> float:
    """MaNo: the norm of the matrix of normalised logits; more is better.

    Xie et al., MaNo, NeurIPS 2024; Renchunzi-Xie/MaNo at 1ae2fe96, ``src/mano/mano.py``.

    Args:
        logits: ``(N, C)``.
        taylor: Whether logits are normalised by ``1 + z + z^2 / 2``, shifted to a minimum of 0, else by the softmax.
            None: as the authors do, where `mean_loss` is at most 5. Scores of the two are not comparable.
        power: p of the norm.
    """
    rows = _rows(logits)
    if mean_loss(rows) <= TAYLOR if taylor is None else taylor:
        rows = 1 + rows + rows**2 / 2
        rows = rows - rows.min(axis=1, keepdims=True)
        total = rows.sum(axis=1, keepdims=True)
        shares = np.divide(rows, total, out=np.full_like(rows, 1 / rows.shape[1]), where=total > 0)
    else:
        shares = special.softmax(rows, axis=1)
    return float((shares**power).mean() ** (1 / power))


def mixing_consistency(labels: npt.ArrayLike, order: npt.ArrayLike, mixed: npt.ArrayLike) -> tuple[float, float]:
    """MixVal: how often a mixture of two images is predicted as the one that prevails in it; more is better.

    Hu et al., Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation, NeurIPS 2023. The authors
    (LHXXHB/MixVal at e11324e3) mix each batch with its own reverse; here partners are any images.

    Args:
        labels: Predicted ``(N,)``.
        order: Partner of each image, ``(N,)``; image i prevails.
        mixed: What the mixtures are predicted to be, ``(N,)``.

    Returns:
        Of pairs with one label, and of pairs with two; NaN where there is no such pair.
    """
    own, partners, found = (np.asarray(values) for values in (labels, order, mixed))
    same, right = own == own[partners], own == found
    within = float(right[same].mean()) if same.any() else float("nan")
    between = float(right[~same].mean()) if (~same).any() else float("nan")
    return within, between


@dataclass(frozen=True)
class Weights:
    """How much more likely an image is on the target than on the source.

    Attributes:
        values: ``(n,)``.
    """

    values: Array

    @property
    def effective(self) -> float:
        """The effective number of images, ``(sum w)^2 / sum w^2``: near 1, a single image decides."""
        total = float((self.values**2).sum())
        return float(self.values.sum()) ** 2 / total if total else 0.0


def classifier_weights(target_share: npt.ArrayLike, sources: int, targets: int) -> Weights:
    """Weights from a classifier that tells the domains apart, ``(n_s / n_t) D(target) / D(source)``.

    Args:
        target_share: D(target) for each image, ``(n,)``; cut off at 1e-6 on both sides.
        sources: Source images that the classifier was trained on.
        targets: Target images, likewise.
    """
    shares = np.clip(_rows(target_share), CLIP, 1 - CLIP)
    return Weights(sources / targets * shares / (1 - shares))


def log_density(points: npt.ArrayLike, at: npt.ArrayLike, bandwidth: float = 1.0) -> Array:
    """Log of a Gaussian kernel density of some points ``(m, d)``, at others ``(n, d)``; returns ``(n,)``."""
    known, asked = _rows(points), _rows(at)
    squares = (asked**2).sum(axis=1)[:, None] - 2 * asked @ known.T + (known**2).sum(axis=1)
    width = known.shape[1]
    constant = np.log(len(known)) + width * np.log(bandwidth) + width / 2 * np.log(2 * np.pi)
    found: Array = special.logsumexp(-np.maximum(squares, 0) / (2 * bandwidth**2), axis=1) - constant
    return found


def density_weights(target: npt.ArrayLike, source: npt.ArrayLike, at: npt.ArrayLike, bandwidth: float = 1.0) -> Weights:
    """Weights from two kernel densities, which sum to 1: what IWV takes.

    Args:
        target: Features of target images, ``(m, d)``.
        source: Features of source images, ``(k, d)``.
        at: Features of the images that are weighted, ``(n, d)``.
        bandwidth: Of both densities.
    """
    logs = log_density(target, at, bandwidth) - log_density(source, at, bandwidth)
    return Weights(special.softmax(logs))


def importance_weighted(errors: npt.ArrayLike, weights: Weights) -> float:
    """IWV: the weighted mean of errors ``(n,)`` on source images; less is better.

    Sugiyama, Krauledat, Müller, Covariate Shift Adaptation by Importance Weighted Cross Validation, JMLR 2007.
    """
    return float((weights.values * _rows(errors)).sum() / weights.values.sum())


def deep_embedded_risk(errors: npt.ArrayLike, weights: Weights) -> float:
    """DEV: the importance-weighted risk with a control variate, which may be negative; less is better.

    You et al., Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019;
    thuml/Deep-Embedded-Validation at abf9c96c, ``dev.py``. Weights that are all equal vary with nothing: then it is the
    weighted mean.

    Args:
        errors: ``(n,)``, on source images that were not trained; n at least 2.
        weights: Of these images.
    """
    values = weights.values
    losses = values * _rows(errors)
    variance = float(values.var(ddof=1))
    eta = -float(np.cov(losses, values, ddof=1)[0, 1]) / variance if variance > 0 else 0.0
    return float(losses.mean() + eta * values.mean() - eta)
