"""Continual-learning metrics: pure functions of the accuracy matrix.

R has shape ``(T, E)``: ``R[i, j]`` is the accuracy, a fraction in [0, 1], on test set j after
training on experience i. Rows are time (as in Avalanche and Mammoth; google-research/l2p,
l2p-pytorch and LAMDA-PILOT store the transpose). Three shapes occur:

* ``T == E``: one test set per experience;
* ``E == 1``: one joint test set for the whole stream;
* ``T == 1``: one training on everything (``joint``), evaluated on E test sets.

Cells that were not evaluated are NaN. A metric that needs such a cell, or that has no meaning for
the shape, is NaN here and null in records; nothing skips a NaN. Metrics of single predictions
(calibration, mean class accuracy, ...) are in `benchmark.metrics.single`.

Sources: Lopez-Paz & Ranzato 2017 (GEM); Chaudhry et al. 2018 (Riemannian Walk); Díaz-Rodríguez et
al. 2018; De Lange et al. 2023; code of l2p-pytorch, LAMDA-PILOT, Mammoth, CODA-Prompt and Avalanche.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from benchmark.records.predictions import Predictions

Array = npt.NDArray[np.float64]
NAN = float("nan")


def as_matrix(rows: npt.ArrayLike | Sequence[Sequence[float | None]]) -> Array:
    """Turns the ``accuracy`` of a record into R.

    Args:
        rows: T rows of E fractions; None (null) becomes NaN.

    Returns:
        Matrix ``(T, E)``.

    Raises:
        ValueError: If it is not a matrix of one of the three shapes, or a value is outside [0, 1].
    """
    matrix = np.array(rows, dtype=np.float64)  # None becomes NaN
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"accuracy: a matrix (T, E) is needed, not shape {matrix.shape}")
    times, sets = matrix.shape
    if times != sets and 1 not in matrix.shape:
        raise ValueError(f"accuracy: {times} rows and {sets} columns; use T = E, E = 1 or T = 1")
    known = matrix[~np.isnan(matrix)]
    if known.size and (known.min() < 0 or known.max() > 1):
        raise ValueError(f"accuracy: values from {known.min():g} to {known.max():g}; use fractions in [0, 1]")
    return matrix


def accuracy_matrix(predictions: Predictions, times: int | None = None, sets: int | None = None) -> tuple[Array, Array]:
    """Counts right predictions, in integers.

    Args:
        predictions: Predictions after every experience on every test set.
        times: T; default: the largest experience + 1.
        sets: E; default: the largest test set + 1.

    Returns:
        R ``(T, E)``, NaN where nothing was predicted, and n ``(E,)``, the samples per test set.

    Raises:
        ValueError: If a test set has different sizes after different experiences.
    """
    rows = int(predictions.experience.max(initial=-1)) + 1 if times is None else times
    columns = int(predictions.test_set.max(initial=-1)) + 1 if sets is None else sets
    cell = predictions.experience.astype(np.int64) * columns + predictions.test_set
    total = np.bincount(cell, minlength=rows * columns).reshape(rows, columns)
    right = np.bincount(cell[predictions.label == predictions.prediction], minlength=rows * columns)
    counts = total.max(axis=0, initial=0)
    odd = np.argwhere((total > 0) & (total != counts))
    if len(odd):
        i, j = odd[0]
        raise ValueError(f"test set {j} has {total[i, j]} predictions after experience {i}, but {counts[j]} elsewhere")
    with np.errstate(invalid="ignore"):
        return right.reshape(rows, columns) / total, counts.astype(np.float64)


def accuracy_row(test_set: npt.ArrayLike, correct: npt.ArrayLike, sets: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """One row of R, counted in integers.

    Args:
        test_set: Test set of each prediction ``(N,)``.
        correct: Whether it is right ``(N,)``.
        sets: E.

    Returns:
        Accuracies ``(E,)``, NaN where nothing was predicted, and counts ``(E,)``.
    """
    index = np.asarray(test_set, dtype=np.int64)
    total = np.bincount(index, minlength=sets)
    right = np.bincount(index[np.asarray(correct, dtype=bool)], minlength=sets)
    with np.errstate(invalid="ignore"):
        return right / total, total


# --- Accuracy after each experience -----------------------------------------------------------


def _seen(matrix: Array, time: int) -> slice:
    """Columns of the test sets that belong to experiences 0..time."""
    return slice(None) if 1 in matrix.shape else slice(0, time + 1)


def _square(matrix: Array) -> bool:
    """Whether there is a stream with one test set per experience, so that time and test set can be compared."""
    return bool(matrix.shape[0] == matrix.shape[1])


def avg_acc(matrix: Array) -> Array:
    """Task mean A_i of the test sets seen so far, every test set with the same weight; ``(T,)``."""
    return np.array([matrix[i, _seen(matrix, i)].mean() for i in range(len(matrix))])


def seen_acc(matrix: Array, counts: npt.ArrayLike) -> Array:
    """Sample mean Â_i over all test images seen so far; ``(T,)``."""
    weights = np.asarray(counts, dtype=np.float64)
    values = []
    for i in range(len(matrix)):
        part = _seen(matrix, i)
        total = weights[part].sum()
        values.append((weights[part] * matrix[i, part]).sum() / total if total else NAN)
    return np.array(values)


def final_avg_acc(matrix: Array) -> float:
    """Task mean after the last experience, A_{T-1} (the headline of L2P, DualPrompt, Mammoth)."""
    return float(avg_acc(matrix)[-1])


def final_acc(matrix: Array, counts: npt.ArrayLike) -> float:
    """Sample mean after the last experience, Â_{T-1} (CODA-Prompt, PILOT's "last")."""
    return float(seen_acc(matrix, counts)[-1])


def avg_incremental_acc(matrix: Array, counts: npt.ArrayLike) -> float:
    """Mean over time of the sample mean: "average accuracy" of PILOT and PyCIL, which is a much higher number."""
    return NAN if _joint(matrix) else float(seen_acc(matrix, counts).mean())


def avg_incremental_acc_task(matrix: Array) -> float:
    """Mean over time of the task mean: "average anytime accuracy" of online papers."""
    return NAN if _joint(matrix) else float(avg_acc(matrix).mean())


def lower_triangle_acc(matrix: Array) -> float:
    """Mean of the lower triangle with its diagonal (accuracy of Díaz-Rodríguez et al. 2018)."""
    return float(matrix[np.tril_indices(len(matrix))].mean()) if _square(matrix) else NAN


def _joint(matrix: Array) -> bool:
    """Whether there is one row for several test sets: no time to average over."""
    return bool(matrix.shape[0] == 1 and matrix.shape[1] > 1)


# --- Forgetting -------------------------------------------------------------------------------


def _past(matrix: Array, time: int | None) -> int:
    """Index of the row asked for, or 0 when there is no past to forget."""
    row = len(matrix) - 1 if time is None else time
    return row if _square(matrix) else 0


def forgetting(matrix: Array, time: int | None = None) -> float:
    """Chaudhry et al. 2018: best accuracy before experience t minus the one after it.

    The maximum runs over ``j <= i <= t-1``, so the value can be negative (backward gain).

    Args:
        matrix: R ``(T, T)``.
        time: Row t; default: the last one.

    Returns:
        Mean over j < t, in [-1, 1]; NaN for t = 0.
    """
    t = _past(matrix, time)
    return float(np.mean([matrix[j:t, j].max() - matrix[t, j] for j in range(t)])) if t else NAN


def forgetting_matrix(matrix: Array) -> Array:
    """What `forgetting` is the mean of: row t, column j < t is the forgetting of test set j after experience t.

    Args:
        matrix: R ``(T, T)``.

    Returns:
        ``(T, T)``, NaN on and above the diagonal, and everywhere where R is not square.
    """
    found = np.full(matrix.shape, NAN)
    for t in range(1, len(matrix) if _square(matrix) else 0):
        for j in range(t):
            found[t, j] = matrix[j:t, j].max() - matrix[t, j]
    return found


def forgetting_clipped(matrix: Array, time: int | None = None) -> float:
    """As `forgetting`, but the maximum includes row t: never negative (l2p-pytorch, PILOT, Mammoth)."""
    t = _past(matrix, time)
    return float(np.mean([matrix[j : t + 1, j].max() - matrix[t, j] for j in range(t)])) if t else NAN


def forgetting_first_last(matrix: Array, time: int | None = None) -> float:
    """Accuracy right after learning minus accuracy now (Avalanche's ``StreamForgetting``); equals minus `bwt`."""
    t = _past(matrix, time)
    return float(np.mean([matrix[j, j] - matrix[t, j] for j in range(t)])) if t else NAN


def forgetting_stepwise(matrix: Array, time: int | None = None) -> float:
    """Mean over steps s = 1..t of the mean loss from row s-1 to row s (CODA-Prompt ``calc_forgetting.py``)."""
    t = _past(matrix, time)
    return float(np.mean([(matrix[s - 1, :s] - matrix[s, :s]).mean() for s in range(1, t + 1)])) if t else NAN


FORGETTING: Mapping[str, Callable[[Array], float]] = {
    "chaudhry": forgetting,
    "clipped": forgetting_clipped,
    "first-last": forgetting_first_last,
    "stepwise": forgetting_stepwise,
}
"""Variants by the name under which ``bench metrics --forgetting`` knows them."""


# --- Transfer ---------------------------------------------------------------------------------


def bwt(matrix: Array) -> float:
    """Backward transfer of GEM: mean over j < T-1 of ``R[T-1, j] - R[j, j]``."""
    last = _past(matrix, None)
    return float((matrix[last, :last] - np.diag(matrix)[:last]).mean()) if last else NAN


def bwt_all_pairs(matrix: Array) -> float:
    """Backward transfer of Díaz-Rodríguez et al. 2018: mean over all i > j of ``R[i, j] - R[j, j]``."""
    if not _past(matrix, None):
        return NAN
    rows, columns = np.tril_indices(len(matrix), k=-1)
    return float((matrix[rows, columns] - matrix[columns, columns]).mean())


def remembering(matrix: Array) -> float:
    """``1 - |min(BWT, 0)|`` with `bwt_all_pairs` (Díaz-Rodríguez et al. 2018)."""
    value = bwt_all_pairs(matrix)
    return NAN if math.isnan(value) else 1 + min(value, 0.0)


def positive_bwt(matrix: Array) -> float:
    """``max(BWT, 0)`` with `bwt_all_pairs` (Díaz-Rodríguez et al. 2018)."""
    value = bwt_all_pairs(matrix)
    return NAN if math.isnan(value) else max(value, 0.0)


def fwt(matrix: Array, baseline: npt.ArrayLike | None) -> float:
    """Forward transfer of GEM: mean over j >= 1 of ``R[j-1, j] - b[j]``.

    Args:
        matrix: R ``(T, T)`` with the cells above the diagonal.
        baseline: b ``(T,)``, accuracy of the untrained model with the head as it will be trained.
    """
    if baseline is None or not _past(matrix, None):
        return NAN
    untrained = np.asarray(baseline, dtype=np.float64)
    return float((np.diag(matrix, k=1) - untrained[1:]).mean())


def fwt_upper(matrix: Array) -> float:
    """Mean of the strict upper triangle, without a baseline (Díaz-Rodríguez et al. 2018)."""
    return float(matrix[np.triu_indices(len(matrix), k=1)].mean()) if _past(matrix, None) else NAN


# --- Every test set predicted after every experience -------------------------------------------


def unseen_accs(matrix: Array) -> Array:
    """Mean accuracy on each test set before its experience, ``R[0..j-1, j]``; ``(T,)``, NaN for j = 0 ("transfer")."""
    if not _square(matrix):
        return np.full(matrix.shape[1], NAN)
    return np.array([matrix[:j, j].mean() if j else NAN for j in range(len(matrix))])


def unseen_acc(matrix: Array) -> float:
    """Transfer of ZSCL: mean of `unseen_accs` over j >= 1 (Zheng et al. 2023, ``mtil/results.ipynb``).

    Every test set has the same weight, whatever the number of rows above its diagonal: not `fwt_upper`.
    """
    return float(unseen_accs(matrix)[1:].mean()) if _past(matrix, None) else NAN


def whole_accs(matrix: Array) -> Array:
    """Mean accuracy on each test set over all experiences, those before its own included; ``(T,)``."""
    return matrix.mean(axis=0) if _square(matrix) else np.full(matrix.shape[1], NAN)


def whole_acc(matrix: Array) -> float:
    """Average of ZSCL: mean over all of R. Its "last" is `final_avg_acc`."""
    return float(whole_accs(matrix).mean())


# --- Plasticity and stability -----------------------------------------------------------------


def learning_acc(matrix: Array) -> float:
    """Mean of the diagonal: accuracy on each experience right after learning it."""
    return float(np.diag(matrix).mean()) if _square(matrix) else NAN


def intransigence(matrix: Array, reference: npt.ArrayLike) -> Array:
    """Reference accuracy minus ``R[j, j]``, ``(T,)`` (Chaudhry et al. 2018).

    Args:
        matrix: R ``(T, T)``.
        reference: ``(T,)``; with one joint model per j this is the paper's intransigence, with
            single-task models ``plasticity_gap``, with the last row of one joint run
            ``intransigence_joint_final``.

    Raises:
        ValueError: If the matrix is not square.
    """
    if not _square(matrix):
        raise ValueError(f"intransigence needs one test set per experience, not R of shape {matrix.shape}")
    difference: Array = np.asarray(reference, dtype=np.float64) - np.diag(matrix)
    return difference


def min_acc(matrix: Array, time: int | None = None) -> float:
    """Mean over j < t of the worst accuracy after learning, ``min R[j+1..t, j]`` (De Lange et al. 2023)."""
    t = _past(matrix, time)
    return float(np.mean([matrix[j + 1 : t + 1, j].min() for j in range(t)])) if t else NAN


# --- Adaptation, generalisation, new classes --------------------------------------------------
