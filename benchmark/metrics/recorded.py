"""What a record stores under ``metrics``: all that a family asks for, from an accuracy matrix and its predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmark.families import Family
from benchmark.metrics import single, texts
from benchmark.metrics.adapting import stream_metrics
from benchmark.metrics.continual import (
    NAN,
    accuracy_matrix,
    as_matrix,
    avg_acc,
    avg_incremental_acc,
    avg_incremental_acc_task,
    bwt,
    bwt_all_pairs,
    final_acc,
    final_avg_acc,
    forgetting,
    forgetting_clipped,
    forgetting_first_last,
    forgetting_stepwise,
    fwt,
    fwt_upper,
    learning_acc,
    lower_triangle_acc,
    min_acc,
    seen_acc,
    unseen_acc,
    unseen_accs,
    whole_acc,
    whole_accs,
)

if TYPE_CHECKING:
    from benchmark.records.predictions import Predictions


def score_matrix(
    predictions: Predictions, family: Family, times: int | None = None, sets: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The matrix that a record stores under ``accuracy``: shares of right predictions, or BLEU of generated texts.

    Args:
        predictions: After every experience on every test set.
        family: Of the scenario.
        times: T; default: the largest experience + 1.
        sets: E; default: the largest test set + 1.

    Returns:
        R ``(T, E)``, NaN where nothing was predicted, and n ``(E,)``, the samples per test set.

    Raises:
        ValueError: See `accuracy_matrix` and `benchmark.metrics.texts.bleu_matrix`.
    """
    return (texts.bleu_matrix if family.generates else accuracy_matrix)(predictions, times, sets)


def transfer_metrics(family: Family, acc: float, further: Mapping[str, float]) -> dict[str, Any]:
    """Metrics of the families that transfer: fractions, NaN where a test set is missing.

    Args:
        family: Family of the scenario.
        acc: Accuracy on the test sets of the experiences after the last one.
        further: Accuracy on the other test sets, by name.

    Returns:
        What the family names: ``target_acc``, and ``source_acc``, what is left on held-out images of the source;
        ``base_acc``, ``new_acc`` and their ``harmonic_mean``; or ``source_acc``, ``transfer_acc`` (mean over the
        other data sets) and ``transfer_accs`` (one per data set). Nothing for streams.
    """
    values: dict[str, Any] = {family.own: acc} if family.own else {}
    values.update({metric: further.get(name, NAN) for name, metric in family.further.items()})
    if family.harmonic:
        values["harmonic_mean"] = single.harmonic_mean(acc, next(further.get(name, NAN) for name in family.further))
    if family.further_mean:
        others = list(further.values())
        values[family.further_mean] = float(np.mean(others)) if others else NAN
        values[f"{family.further_mean}s"] = others
    return values


def task_metrics(predictions: Predictions, times: int, sets: Sequence[int]) -> dict[str, Any]:
    """The same run as if the experience of every test sample were known: the best label among its classes.

    Args:
        predictions: Predictions with `Predictions.prediction_in_task`.
        times: T.
        sets: Test sets of the experiences, E of them.

    Returns:
        ``task_avg_acc`` (per experience), ``task_final_avg_acc``, ``task_final_acc``, ``task_avg_incremental_acc``,
        ``task_forgetting`` and ``task_learning_acc``: what the names without ``task_`` are, of the matrix R_task.

    Raises:
        ValueError: If there are no predictions in the task.
    """
    own = predictions.on(sets)
    if own.prediction_in_task is None:
        raise ValueError("predictions: without `prediction_in_task` there is no score within the task")
    matrix, n = accuracy_matrix(dataclasses.replace(own, prediction=own.prediction_in_task), times, len(sets))
    return {
        "task_avg_acc": avg_acc(matrix),
        "task_final_avg_acc": final_avg_acc(matrix),
        "task_final_acc": final_acc(matrix, n),
        "task_avg_incremental_acc": avg_incremental_acc(matrix, n),
        "task_forgetting": forgetting(matrix),
        "task_learning_acc": learning_acc(matrix),
    }


def null(value: Any) -> Any:
    """Replaces NaN by None in numbers, arrays and lists, for JSON."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [null(item) for item in value]
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(value)
    return None if math.isnan(number) else number


def continual_metrics(
    matrix: npt.ArrayLike | Sequence[Sequence[float | None]],
    counts: Sequence[float] | npt.ArrayLike,
    *,
    family: Family,
    further: Sequence[str] = (),
    baseline: Sequence[float | None] | npt.ArrayLike | None = None,
    predictions: Predictions | None = None,
    transfers: bool = True,
) -> dict[str, Any]:
    """Computes everything that a record stores under ``metrics``.

    Args:
        matrix: R ``(T, E)``, None or NaN where not evaluated.
        counts: n ``(E,)``, test images per column.
        family: Family of the scenario. Where texts are generated, `benchmark.metrics.texts.generation_metrics` stand
            in the place of all others but `transfer_metrics`. Forward transfer is null where classes grow, as one
            cannot be predicted before it was seen; ``fwt_upper``, ``domain_acc`` and ``worst_domain_acc`` exist for
            streams of domains only, ``unseen_acc``, ``whole_acc`` and the lists ``unseen_accs``, ``whole_accs`` and
            ``final_accs`` (by test set) where all names are known, those of `benchmark.metrics.adapting` for streams of
            test batches; for the rest see `transfer_metrics`.
        further: Names of the last columns, test sets that belong to no experience. They count in
            `transfer_metrics` alone.
        baseline: b ``(E,)``, accuracies of the untrained model.
        predictions: Single predictions; those after the last experience on the test sets of the
            experiences give ``mean_class_acc``, ``macro_f1`` and calibration, with logits ``nll`` and
            ``brier``, where they have labels within the experience the scores of `task_metrics`, and those of
            `benchmark.metrics.single.open_set` where the family has unknown classes.
        transfers: Whether the test sets are those of the scenario. Held-out training images are no target,
            no new classes and no other data set: without `transfer_metrics`.

    Returns:
        Names to a number, a list of numbers, or None where undefined; the same keys whenever the
        arguments are of the same kind.

    Raises:
        ValueError: If the shapes do not fit, see `as_matrix`.
    """
    whole = np.array(matrix, dtype=np.float64)
    own = whole.shape[1] - len(further) if whole.ndim == 2 else 0
    acc = as_matrix(whole[:, :own] if further else whole)
    n = np.asarray(counts, dtype=np.float64)
    if n.shape != (whole.shape[1],):
        raise ValueError(f"counts: {n.shape} for {whole.shape[1]} columns; give one count per test set")
    n = n[:own]
    ends = {name: float(value) for name, value in zip(further, whole[-1, own:], strict=True)}
    if family.generates:
        last = None if predictions is None else predictions.after(len(acc) - 1).on(range(own))
        written = texts.generation_metrics(acc, last)
        if transfers:
            written |= transfer_metrics(family, final_avg_acc(acc), ends)
        return {name: null(value) for name, value in written.items()}
    untrained = None if baseline is None else np.array(baseline, dtype=np.float64)
    values: dict[str, Any] = {
        "avg_acc": avg_acc(acc),
        "seen_acc": seen_acc(acc, n),
        "final_avg_acc": final_avg_acc(acc),
        "final_acc": final_acc(acc, n),
        "avg_incremental_acc": avg_incremental_acc(acc, n),
        "avg_incremental_acc_task": avg_incremental_acc_task(acc),
        "lower_triangle_acc": lower_triangle_acc(acc),
        "forgetting": forgetting(acc),
        "forgetting_curve": [forgetting(acc, t) for t in range(len(acc))],
        "forgetting_clipped": forgetting_clipped(acc),
        "forgetting_first_last": forgetting_first_last(acc),
        "forgetting_stepwise": forgetting_stepwise(acc),
        "bwt": bwt(acc),
        "bwt_all_pairs": bwt_all_pairs(acc),
        "fwt": NAN if family.grows else fwt(acc, untrained),
        "learning_acc": learning_acc(acc),
        "min_acc": min_acc(acc),
    }
    if family.domains:
        values["fwt_upper"] = fwt_upper(acc)
        values["domain_acc"] = acc[-1]
        values["worst_domain_acc"] = acc[-1].min()
    if family.names:
        values["unseen_acc"], values["unseen_accs"] = unseen_acc(acc), unseen_accs(acc)
        values["whole_acc"], values["whole_accs"] = whole_acc(acc), whole_accs(acc)
        values["final_accs"] = acc[-1]
    if family.adapts:
        known = dict(zip(further, [] if untrained is None else untrained[own:].tolist(), strict=False))
        values |= stream_metrics(
            acc[-1],
            n,
            before=None if untrained is None else untrained[:own],
            source_before=known.get("source", NAN),
            source_after=ends.get("source", NAN),
        )
    if transfers or family.adapts:
        values.update(transfer_metrics(family, final_avg_acc(acc), ends))
    if predictions is not None:
        last = predictions.after(len(acc) - 1).on(range(own))
        values.update(single.summary(last))
        if family.unknown and transfers:  # held-out training images are of known classes
            values.update(single.open_set(last.label, last.prediction))
        if predictions.prediction_in_task is not None:
            values.update(task_metrics(predictions, len(acc), range(own)))
    return {name: null(value) for name, value in values.items()}
