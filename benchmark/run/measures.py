"""Metrics of plugins: computed when a run is complete, kept in its record with what tables need of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.errors import PluginError
from benchmark.families import Family
from benchmark.guard import Guard
from benchmark.records.predictions import Predictions
from benchmark.specs import MetricSpec

LARGEST = 1e100  # a record holds no number whose square is none


def evidence(
    rows: Any,
    counts: Sequence[int],
    *,
    further: Sequence[str],
    family: Family,
    baseline: Sequence[float | None] | None,
    predictions: Predictions | None,
) -> dict[str, Any]:
    """What metrics may be computed from (`benchmark.specs.NEEDS`).

    Args:
        rows: R ``(T, E)``, an array; the last columns are the further test sets. Of generated texts there are no
            accuracies: metrics that need some are None.
        counts: Test samples per column.
        further: Names of the further test sets.
        family: Of the scenario.
        baseline: Accuracies of the untrained model, or None.
        predictions: All predictions, or None.
    """
    own = rows.shape[1] - len(further)
    classified = not family.generates
    return {
        "accuracy": rows[:, :own] if classified else None,
        "counts": np.array(counts[:own]),
        "further": dict(zip(further, rows[-1, own:].tolist(), strict=True)) if classified else None,
        "baseline": None if baseline is None else np.array(baseline, dtype=np.float64)[:own],
        "family": family,
        "predictions": predictions,
    }


def measure(
    specs: Sequence[MetricSpec], evidence: Mapping[str, Any], taken: Mapping[str, Any]
) -> tuple[dict[str, float | None], dict[str, dict[str, Any]]]:
    """Computes them.

    Args:
        specs: The metrics.
        evidence: What `MetricSpec.needs` may name; None for what this run has not.
        taken: Metrics by name that the core has computed.

    Returns:
        The values by name, None where one is not defined or the run lacks what it needs; and by name what tables need:
        ``heading`` and ``percent``.

    Raises:
        PluginError: A metric fails, returns no number, or has the name of one of the core's.
    """
    values: dict[str, float | None] = {}
    facts: dict[str, dict[str, Any]] = {}
    for spec in specs:
        guard = Guard(f"metric `{spec.name}`")
        if spec.name in taken:
            raise PluginError(f"metric `{spec.name}`: another one has this name", hint="choose a different one")
        needed = {name: evidence[name] for name in spec.needs}
        values[spec.name] = None
        facts[spec.name] = {"heading": spec.heading, "percent": spec.percent}
        if any(value is None for value in needed.values()):
            continue
        with guard("compute"):
            found = spec.compute(**needed)
        if found is None:
            continue
        with guard("compute"):
            number = float(found)
        if math.isinf(number) or abs(number) > LARGEST:
            raise guard.refuse("compute", found, hint="return a finite number, or None where it is not defined")
        values[spec.name] = None if math.isnan(number) else number
    return values, facts
