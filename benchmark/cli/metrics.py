"""``bench metrics``: recomputes every metric of a run from its predictions, without training."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.records import Record

from benchmark.cli import terminal
from benchmark.errors import shown
from benchmark.files import sha256, user_path

VARIANTS = ("chaudhry", "clipped", "first-last", "stepwise")
TOLERANCE = 1e-9  # another numpy may sum in another order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("run", type=user_path, metavar="RUN", help="path of a record, or the beginning of a run id")
    parser.add_argument(
        "--results",
        type=user_path,
        default=Path("runs"),
        metavar="DIR",
        help="where run ids are looked up (default: runs)",
    )
    parser.add_argument("--forgetting", choices=VARIANTS, metavar="NAME", help=f"only one of {', '.join(VARIANTS)}")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the metrics; says on stderr where they differ from the record.

    Returns:
        0, or 1 if something differs.

    Raises:
        UsageError: No such run, or it was not completed.
        DataMissing: The record or its predictions are damaged.
    """
    from benchmark import metrics, records
    from benchmark.errors import EXIT_FAILED, EXIT_OK, DataMissing, UsageError
    from benchmark.run import provenance

    path: Path = args.run
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise UsageError(f"no record at {path}", hint="give the path of a record, or a run id with --results DIR")
        path = records.find(args.results, str(args.run))
    record = records.read(path)
    if record["status"] != "completed":
        raise UsageError(
            f"{path}: this run is {record['status']}; metrics need a completed one",
            hint=f"resume it with: {provenance.without_force(record['provenance']['command'])}",
        )
    try:
        matrix, values, source, warnings = _recompute(path, record)
    except (ValueError, IndexError) as error:
        raise DataMissing(f"damaged record: {path}: {error}", hint="run it again with --force") from error
    differences = dict(_differences(record["metrics"], values))
    if args.forgetting:
        variant = metrics.FORGETTING[args.forgetting]
        values = {f"forgetting ({args.forgetting})": metrics.null(variant(matrix))}
        differences = {}
    for warning in warnings:
        terminal.say(f"warning: {warning}")
    for name, (recorded, recomputed) in differences.items():
        terminal.say(f"warning: {name} is {recorded} in the record, but {recomputed} from the {source}")
    if args.json:
        terminal.show(
            json.dumps(
                {
                    "run_id": record["run_id"],
                    "source": source,
                    "metrics": values,
                    "differences": {
                        name: {"recorded": recorded, "recomputed": recomputed}
                        for name, (recorded, recomputed) in differences.items()
                    },
                },
                indent=1,
            )
        )
    else:
        _print(record, source, values)
    return EXIT_FAILED if differences or any("differ" in warning for warning in warnings) else EXIT_OK


def _recompute(path: Path, record: Record) -> tuple[Any, dict[str, Any], str, list[str]]:
    """R, the metrics, what they were computed from, and what the user should know."""
    import numpy as np

    from benchmark import families, metrics, registry
    from benchmark.records import predictions
    from benchmark.run import measures

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
    name = record["predictions"]["file"] if record["predictions"] else None
    if name is not None and not re.fullmatch(r"[^/\\:\0]*[^/\\:\0.]", name):
        raise ValueError(f"predictions.file: {shown(name)} is not the name of a file beside the record")
    file = None if name is None else path.with_name(name)
    if file is None or not file.is_file():
        values = metrics.continual_metrics(recorded, record["counts"], **about, transfers=transfers)
        known = measures.evidence(recorded, record["counts"], **about, predictions=None)
        values |= measures.measure([spec for spec in brought if "predictions" not in spec.needs], known, values)[0]
        # What only single predictions can tell cannot be recomputed and is not called different.
        warning = f"{file or 'the predictions file'} is not there: recomputed from the accuracy matrix of the record"
        return metrics.as_matrix(recorded[:, :own]), values, "accuracy matrix", [warning]
    warnings = []
    if sha256(file) != record["predictions"]["sha256"]:
        warnings.append(f"{file}: the content differs from what the record says (sha256)")
    table = predictions.read(file)
    matrix, counts = metrics.accuracy_matrix(table, times=len(recorded), sets=recorded.shape[1])
    if not np.allclose(matrix, recorded, rtol=0, atol=TOLERANCE, equal_nan=True):
        warnings.append("the accuracy matrix of the record differs from that of the predictions")
    about["predictions"] = table
    values = metrics.continual_metrics(matrix, counts, **about, transfers=transfers)
    values |= measures.measure(brought, measures.evidence(matrix, record["counts"], **about), values)[0]
    return metrics.as_matrix(matrix[:, :own]), values, "predictions", warnings


def _differences(recorded: dict[str, Any], recomputed: dict[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    """Metrics that were recomputed and are not what the record says."""
    return [
        (name, (recorded.get(name), value))
        for name, value in recomputed.items()
        if not _equal(recorded.get(name), value)
    ]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE)
    return bool(a == b)


def _print(record: Record, source: str, values: dict[str, Any]) -> None:
    label = f"{record['scenario']['name']}  {record['method']['name']}@{record['method']['recipe']}"
    terminal.show(f"{label}  seed {record['seeds']['seed']}  ({record['run_id']}, from the {source})")
    width = max(map(len, values))
    for name, value in values.items():
        terminal.show(f"{name:<{width}}  {_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_show(item) for item in value)
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.6f}"
