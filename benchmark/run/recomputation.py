"""Every metric of a run computed again from its predictions, without training (`bench metrics`, `bench verify`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark import families, metrics, registry
from benchmark.errors import DataMissing
from benchmark.files import sha256
from benchmark.records import predictions
from benchmark.run import measures

if TYPE_CHECKING:
    import numpy.typing as npt

    from benchmark.records import Record

TOLERANCE = 1e-9  # another numpy may sum in another order


@dataclass(frozen=True, kw_only=True)
class Recomputation:
    """What a run's files give, beside what its record says.

    Attributes:
        matrix: Accuracy matrix R ``(T, E)`` over the test sets of the experiences.
        values: All metrics that could be computed.
        source: What they were computed from: ``predictions``, or ``accuracy matrix`` where there are none.
        warnings: What the user should know, `damage` included.
        damage: What in the files is not as the record says.
        differences: Metrics that are not what the record says, with the recorded and the recomputed value.
    """

    matrix: npt.NDArray[np.float64]
    values: Mapping[str, Any]
    source: str
    warnings: tuple[str, ...]
    damage: tuple[str, ...]
    differences: Mapping[str, tuple[Any, Any]]


def recompute(path: Path, record: Record) -> Recomputation:
    """Computes the metrics of a completed run again.

    Args:
        path: Of the record; predictions lie beside it.
        record: What it holds.

    Raises:
        DataMissing: The record contradicts itself, or its predictions cannot be read.
    """
    try:
        return _recompute(path, record)
    except (ValueError, IndexError) as error:
        raise DataMissing(f"damaged record: {path}: {error}", hint="run it again with --force") from error


def _recompute(path: Path, record: Record) -> Recomputation:
    if not record["accuracy"] or len({len(row) for row in record["accuracy"]}) != 1:
        raise ValueError("accuracy: rows of one length are needed")
    recorded = np.array(record["accuracy"], dtype=np.float64)
    further = [test["name"] for test in record["scenario"]["tests"] if test["further"]]
    about: dict[str, Any] = {
        "family": families.of_record(record.scenario.family, record.scenario.family_facts),
        "further": further,
        "baseline": record["baseline"],
    }
    transfers = record.evaluated_on == "test"
    brought = [spec for spec in registry.load_metrics() if spec.name in record.metric_facts]
    own = recorded.shape[1] - len(further)
    metrics.as_matrix(recorded[:, :own])  # refuses other shapes, and values that are no fractions
    if len(record["counts"]) != recorded.shape[1]:
        raise ValueError(f"counts: {len(record['counts'])} for {recorded.shape[1]} test sets")
    file = predictions.file_of(path, record)
    if file is None or not file.is_file():
        values = metrics.continual_metrics(recorded, record["counts"], **about, transfers=transfers)
        known = measures.evidence(recorded, record["counts"], **about, predictions=None)
        values |= measures.measure([spec for spec in brought if "predictions" not in spec.needs], known, values)[0]
        # What only single predictions can tell cannot be recomputed and is not called different.
        warning = f"{file or 'the predictions file'} is not there: recomputed from the accuracy matrix of the record"
        return _compared(record, recorded[:, :own], values, "accuracy matrix", [warning], [])
    damage = []
    if sha256(file) != record["predictions"]["sha256"]:
        damage.append(f"{file}: the content differs from what the record says (sha256)")
    table = predictions.read(file)
    matrix, counts = metrics.score_matrix(table, about["family"], times=len(recorded), sets=recorded.shape[1])
    if not np.allclose(matrix, recorded, rtol=0, atol=TOLERANCE, equal_nan=True):
        damage.append("the accuracy matrix of the record differs from that of the predictions")
    about["predictions"] = table
    values = metrics.continual_metrics(matrix, counts, **about, transfers=transfers)
    values |= measures.measure(brought, measures.evidence(matrix, record["counts"], **about), values)[0]
    return _compared(record, matrix[:, :own], values, "predictions", [], damage)


def _compared(
    record: Record, matrix: Any, values: dict[str, Any], source: str, warnings: list[str], damage: list[str]
) -> Recomputation:
    return Recomputation(
        matrix=metrics.as_matrix(matrix),
        values=values,
        source=source,
        warnings=(*warnings, *damage),
        damage=tuple(damage),
        differences=dict(_differences(record["metrics"], values)),
    )


def _differences(recorded: Mapping[str, Any], recomputed: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name, value in recomputed.items():
        if not equal(recorded.get(name), value):
            yield name, (recorded.get(name), value)


def equal(a: Any, b: Any) -> bool:
    """Whether two metrics (numbers, lists of them, or None) are equal but for the order of a sum."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE)
    return bool(a == b)
