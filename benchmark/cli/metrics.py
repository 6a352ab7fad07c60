"""``bench metrics``: recomputes every metric of a run from its predictions, without training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.records import Record

from benchmark.cli import terminal
from benchmark.files import user_path

VARIANTS = ("chaudhry", "clipped", "first-last", "stepwise")


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
    from benchmark.errors import EXIT_FAILED, EXIT_OK, UsageError
    from benchmark.run import provenance, recomputation

    path = records.named(args.run, args.results)
    record = records.read(path)
    if record["status"] != "completed":
        raise UsageError(
            f"{path}: this run is {record['status']}; metrics need a completed one",
            hint=f"resume it with: {provenance.without_force(record['provenance']['command'])}",
        )
    again = recomputation.recompute(path, record)
    values, source, differences = again.values, again.source, again.differences
    if args.forgetting:
        variant = metrics.FORGETTING[args.forgetting]
        values = {f"forgetting ({args.forgetting})": metrics.null(variant(again.matrix))}
        differences = {}
    for warning in again.warnings:
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
    return EXIT_FAILED if differences or again.damage else EXIT_OK


def _print(record: Record, source: str, values: Mapping[str, Any]) -> None:
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
