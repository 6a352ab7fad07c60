"""Logistic regression on frozen features: scikit-learn's objective, and its stopping rule, without scikit-learn.

``C * sum of the cross-entropies + |W|^2 / 2``, the bias free, minimised by L-BFGS-B of scipy from zeros in float64, as
``LogisticRegression(C=C, max_iter=...)`` does (solver ``lbfgs``, tolerance 1e-4). Two classes have one weight vector,
as there, so their penalty is not that of a softmax with two rows::

    fitted = fit_logistic(features, labels, classes, strength=0.316)
    logits = features @ fitted.weight.T + fitted.bias

Shapes: N images, d feature width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize, special
from torch import Tensor

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-4  # of the largest gradient of the mean loss
LINE_SEARCH = 50  # most evaluations per step


@dataclass(frozen=True)
class Fitted:
    """A linear classifier.

    Attributes:
        weight: float64 ``(C, d)``; of two classes the second row is minus the first.
        bias: float64 ``(C,)``; sums to 0.
        loss: Mean cross-entropy of the images that it was fitted to.
        iterations: Steps of L-BFGS.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    iterations: int


def fit_logistic(
    features: Tensor, labels: Tensor, classes: Sequence[int], *, strength: float, max_iter: int = 1000
) -> Fitted:
    """Fits the classifier; the same images in the same order give the same bits.

    Args:
        features: ``(N, d)``.
        labels: ``(N,)``, each of them in ``classes``.
        classes: C labels; rows come in this order. A class without images is one that is never right.
        strength: C of scikit-learn, the inverse of the penalty.
        max_iter: Most steps; stopping there is not an error.
    """
    x: Array = features.detach().cpu().numpy().astype(np.float64)
    order = {label: row for row, label in enumerate(classes)}
    y = np.array([order[label] for label in labels.tolist()], dtype=np.int64)
    penalty = 1.0 / (strength * len(x))
    count, width = len(classes), x.shape[1]
    if count == 1:  # always right
        return Fitted(torch.zeros(1, width, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0.0, 0)
    rows = 1 if count == 2 else count

    def objective(flat: Array) -> tuple[float, Array]:
        parameters = flat.reshape(rows, width + 1)
        weight, bias = parameters[:, :width], parameters[:, width]
        loss, slope = _cross_entropy(x @ weight.T + bias, y)
        gradient = np.concatenate([slope.T @ x + penalty * weight, slope.sum(axis=0)[:, None]], axis=1)
        return loss + 0.5 * penalty * float((weight * weight).sum()), gradient.ravel()

    options = {"maxiter": max_iter, "maxls": LINE_SEARCH, "gtol": TOLERANCE, "ftol": 64 * np.finfo(np.float64).eps}
    start = np.zeros(rows * (width + 1))
    found: Any = optimize.minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
    solution = np.asarray(found.x, dtype=np.float64).reshape(rows, width + 1)
    if rows < count:
        solution = np.concatenate([-solution, solution]) / 2
    weight, bias = np.ascontiguousarray(solution[:, :width]), np.ascontiguousarray(solution[:, width])
    loss, _ = _cross_entropy(x @ weight.T + bias, y)
    return Fitted(torch.from_numpy(weight), torch.from_numpy(bias), loss, int(found.nit))


def _cross_entropy(logits: Array, labels: npt.NDArray[np.int64]) -> tuple[float, Array]:
    """Mean cross-entropy and its gradient by the logits, which are ``(N, C)`` or, of two classes, ``(N, 1)``."""
    count = len(logits)
    if logits.shape[1] == 1:
        sign = np.where(labels == 1, 1.0, -1.0)[:, None]
        loss = np.logaddexp(0.0, -sign * logits).sum() / count
        return float(loss), -sign * special.expit(-sign * logits) / count
    log_sum = special.logsumexp(logits, axis=1, keepdims=True)
    rows = np.arange(count)
    slope = np.exp(logits - log_sum)
    slope[rows, labels] -= 1.0
    return float((log_sum[:, 0] - logits[rows, labels]).sum() / count), slope / count
