"""Metrics of single predictions: classes, adaptation and generalisation, calibration.

All are pure functions of small arrays; N predictions, C classes. Accuracies are fractions in
[0, 1]; what is undefined is NaN here and null in records. Metrics over time are in
`benchmark.metrics`.

Confidence is the largest softmax probability among the classes that were allowed at evaluation:
mask first, then softmax. A logit of ``-inf`` marks a class that was not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from benchmark.records.predictions import Predictions

Array = npt.NDArray[np.float64]
NAN = float("nan")
ECE_BINS = 15

# --- Classes ----------------------------------------------------------------------------------


def accuracy(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of right predictions: ``source_acc`` on source test data, ``target_acc`` on target test data."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    return float((truth == guess).mean()) if truth.size else NAN


def mean_class_acc(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Mean over the classes that occur of the accuracy within the class (headline of VisDA-2017)."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if not truth.size:
        return NAN
    count = np.bincount(truth)
    right = np.bincount(truth[truth == guess], minlength=len(count))
    return float((right[count > 0] / count[count > 0]).mean())


def macro_f1(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Mean over the classes that occur as a label of 2PR / (P + R) (CoOp's evaluator)."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if not truth.size:
        return NAN
    size = int(max(truth.max(), guess.max())) + 1
    count, given = np.bincount(truth, minlength=size), np.bincount(guess, minlength=size)
    right = np.bincount(truth[truth == guess], minlength=size)
    # 2PR/(P+R) = 2 right / (count + given), which is also right where P or R is zero.
    occurs = count > 0
    return float((2 * right[occurs] / (count + given)[occurs]).mean())


# --- Adaptation and generalisation ------------------------------------------------------------


def harmonic_mean(base: float, new: float) -> float:
    """``2BN / (B + N)``, 0 if both are 0.

    Over several data sets give the means of base and new (CoCoOp, MaPLe), not the mean of H.
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def h_score(known: float, unknown: float) -> float:
    """HOS of open-set adaptation: harmonic mean of OS* (mean class accuracy, known) and UNK."""
    return harmonic_mean(known, unknown)


def open_set(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float]:
    """Scores of open-set adaptation; the last label stands for everything unknown.

    Args:
        labels: ``(N,)``; the largest is that of unknown images, which there must be.
        predicted: ``(N,)``.

    Returns:
        ``known_acc`` (OS*: mean over the known classes of the accuracy within the class), ``unknown_acc`` (UNK) and
        their ``h_score``.
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if not truth.size:
        return {"known_acc": NAN, "unknown_acc": NAN, "h_score": NAN}
    known = truth < truth.max()
    inside, outside = mean_class_acc(truth[known], guess[known]), accuracy(truth[~known], guess[~known])
    return {"known_acc": inside, "unknown_acc": outside, "h_score": h_score(inside, outside)}


def transfer_gain(target: float, source_only: float) -> float:
    """Target accuracy minus that of source-only training with the same backbone and seed."""
    return target - source_only


def mean_corruption_error(accuracies: npt.ArrayLike, reference: npt.ArrayLike | None = None) -> float:
    """Mean over corruptions of the error.

    Args:
        accuracies: ``(K,)`` or, with severities, ``(K, V)``.
        reference: Accuracies of the reference model of the same shape; errors are summed over
            severities and divided by its (ImageNet-C divides by AlexNet's, CIFAR-C by nothing).
    """
    errors = 1 - np.atleast_2d(np.asarray(accuracies, dtype=np.float64).T).T
    if reference is None:
        return float(errors.mean())
    base = 1 - np.atleast_2d(np.asarray(reference, dtype=np.float64).T).T
    return float((errors.sum(axis=1) / base.sum(axis=1)).mean())


def worst_domain_acc(accuracies: npt.ArrayLike) -> float:
    """Smallest accuracy over the domains."""
    return float(np.min(np.asarray(accuracies, dtype=np.float64)))


def proxy_a_distance(error: float) -> float:
    """``2 (1 - 2 eps)`` with the held-out error of a domain classifier on frozen features."""
    return 2 * (1 - 2 * error)


def vtab_mean_groups(groups: Sequence[npt.ArrayLike]) -> float:
    """Mean of the group means (natural, specialized, structured), as VTAB papers report it."""
    return float(np.mean([np.mean(np.asarray(group, dtype=np.float64)) for group in groups]))


# --- Calibration ------------------------------------------------------------------------------


def calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    bins: int = ECE_BINS,
    norm: Literal["l1", "l2", "max"] = "l1",
) -> float:
    """Expected calibration error over equal-width bins (Naeini et al. 2015, Guo et al. 2017).

    Bins are ``(a, b]`` as in Guo's code; torchmetrics uses ``[a, b)``, which differs only for
    confidences on an edge. Biased upwards for small N: compare only equal N and equal ``bins``.

    Args:
        confidence: Top-1 probabilities ``(N,)`` in [0, 1].
        correct: Whether each prediction is right ``(N,)``.
        bins: Number of bins M.
        norm: ``l1`` (ECE), ``l2`` (root of the weighted mean square) or ``max`` (MCE).

    Raises:
        ValueError: If ``bins`` is below 1 or a confidence is outside [0, 1].
    """
    found = reliability(confidence, correct, bins=bins)
    used = found.size > 0
    if not used.any():
        return NAN
    gap = np.abs(found.confidence - found.right)[used] / found.size[used]
    share = found.size[used] / found.size.sum()
    if norm == "max":
        return float(gap.max())
    return float((share * gap).sum()) if norm == "l1" else float(np.sqrt((share * gap**2).sum()))


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Predictions by their confidence, in M bins ``(a, b]`` of equal width.

    Attributes:
        size: Predictions in each, ``(M,)``.
        confidence: Sum of their confidences, ``(M,)``.
        right: How many of them are right, ``(M,)``.
    """

    size: npt.NDArray[np.int64]
    confidence: Array
    right: Array


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = ECE_BINS) -> Bins:
    """What `calibration_error` and reliability diagrams are made of. See `calibration_error`."""
    conf, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if bins < 1:
        raise ValueError(f"bins: {bins} is too small; use 1 or more")
    if conf.size and not (conf.min() >= 0 and conf.max() <= 1):
        raise ValueError(f"confidence: values from {conf.min():g} to {conf.max():g}; use probabilities in [0, 1]")
    # Inner edges only: 0.0 falls into the first bin and 1.0 into the last without a guard.
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], conf, side="left")
    total_conf: Array = np.bincount(index, weights=conf, minlength=bins).astype(np.float64)
    total_right: Array = np.bincount(index, weights=right, minlength=bins).astype(np.float64)
    return Bins(size=np.bincount(index, minlength=bins), confidence=total_conf, right=total_right)


def probabilities(logits: npt.ArrayLike) -> Array:
    """Softmax over the last axis; ``-inf`` gives 0."""
    values = np.asarray(logits, dtype=np.float64)
    shifted: Array = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def nll(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean of ``-log p(y)``, natural logarithm.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``. A label that was not allowed (logit ``-inf``) makes the value infinite,
            which is returned as NaN: undefined.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if not truth.size:
        return NAN
    top = values.max(axis=1)
    log_total = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    result = float((log_total - values[np.arange(len(truth)), truth]).mean())
    return result if np.isfinite(result) else NAN


def brier(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean over samples of ``sum_c (p_c - 1[y = c])^2``, in [0, 2] (some authors divide by C).

    Args:
        probs: ``(N, C)``.
        labels: ``(N,)``.
    """
    values, truth = np.array(probs, dtype=np.float64), np.asarray(labels)
    if not truth.size:
        return NAN
    values[np.arange(len(truth)), truth] -= 1
    return float((values**2).sum(axis=1).mean())


def summary(predictions: Predictions) -> dict[str, float]:
    """What a record stores of the predictions after the last experience.

    Returns:
        ``mean_class_acc``, ``macro_f1``, ``ece``, ``ece_bins``, ``ece_samples``, and with logits
        ``nll`` and ``brier``.
    """
    labels, predicted = predictions.label, predictions.prediction
    values = {
        "mean_class_acc": mean_class_acc(labels, predicted),
        "macro_f1": macro_f1(labels, predicted),
        "ece": calibration_error(predictions.confidence, labels == predicted),
        "ece_bins": ECE_BINS,
        "ece_samples": len(labels),
    }
    if predictions.logits is not None:
        # A label outside the logits was never allowed either; pad so that it can be looked up.
        logits = predictions.logits
        missing = int(labels.max(initial=-1)) + 1 - logits.shape[1]
        if missing > 0:
            logits = np.pad(logits, ((0, 0), (0, missing)), constant_values=-np.inf)
        values["nll"] = nll(logits, labels)
        values["brier"] = brier(probabilities(logits), labels) if len(labels) else NAN
    return values
