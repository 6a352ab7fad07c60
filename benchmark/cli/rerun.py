"""``bench rerun``: repeats one record from the record alone, and says what is equal."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import asking, terminal
from benchmark.errors import EXIT_FAILED, EXIT_OK, UsageError
from benchmark.files import check_folder, user_path

if TYPE_CHECKING:
    from benchmark.records.comparison import Part

WORDS = {True: "equal", False: "DIFFERS", None: "unknown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("run", type=user_path, metavar="RECORD", help="path of a record, or the beginning of a run id")
    parser.add_argument(
        "--results",
        type=user_path,
        default=Path("runs"),
        metavar="DIR",
        help="for run ids (default: runs)",
    )
    parser.add_argument(
        "--compare", action="store_true", help="print every part that was compared; exit code 1 if a result differs"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        default=Path("reruns"),
        metavar="DIR",
        help="for the repetition (default: reruns)",
    )
    parser.add_argument("--device", help="another device than the record's; results may differ")
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets")
    parser.add_argument("--download", action="store_true", help="fetch data sets of any size")
    parser.add_argument("--no-download", action="store_true", help="never fetch anything (also BENCH_OFFLINE=1)")
    parser.add_argument("--scenario", metavar="NAME:PATH", help="where data of your own are, of a run on such")
    parser.add_argument("--weights", type=user_path, metavar="FILE", help="weights of your own, of a run with such")
    parser.add_argument(
        "--backbone", metavar="NAME", help="the architecture that these weights are for; default: the record's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Repeats the run and compares.

    Returns:
        0; with ``--compare`` 1 where a result differs.

    Raises:
        UsageError: No such record, or it cannot be repeated by this version.
        DataMissing: Data or weights are absent or are not the record's.
    """
    from benchmark import records
    from benchmark.records import comparison
    from benchmark.run import interruption
    from benchmark.run import rerun as running

    path = records.named(args.run, args.results)
    record = records.read(path)
    check_folder(args.out, "--out")
    if args.out.resolve() in path.resolve().parents:
        raise UsageError(
            f"--out {args.out}: the record lies below it, and would be written over", hint="choose another folder"
        )
    where = running.Where(
        out=str(args.out),
        data_root=None if args.data_root is None else str(args.data_root),
        download=asking.download_of(args),
        device=args.device,
        scenario=args.scenario,
        weights=None if args.weights is None else str(args.weights),
        backbone=args.backbone,
        quiet=args.quiet,
    )
    with interruption.Stop().installed(), asking.warnings_said():
        made, plan = running.rerun(record, where)
    again = records.read(made)
    parts = comparison.compare(
        record, again, old_file=path.with_suffix(".parquet"), new_file=made.with_suffix(".parquet")
    )
    added = running.defaults_since(record, plan)
    verdict = comparison.verdict(parts)
    if args.json:
        terminal.show(json.dumps(_facts(path, made, verdict, parts, added), indent=2))
    else:
        terminal.show(f"{plan.method_label} on {plan.scenario_name}, seed {plan.seeds['seed']}: {verdict}")
        _print(parts if args.compare else [part for part in parts if part.equal is False])
        if added and args.compare:
            told = ", ".join(f"{name}={value}" for name, value in sorted(added.items()))
            terminal.show(f"options that the record does not have, with their defaults: {told}")
        terminal.show(f"repetition: {made}")
    return EXIT_OK if comparison.reproduced(parts) or not args.compare else EXIT_FAILED


def _facts(path: Path, made: Path, verdict: str, parts: list[Part], added: dict[str, Any]) -> dict[str, Any]:
    shown = [{"group": p.group, "part": p.name, "equal": p.equal, "near": p.near, "detail": p.detail} for p in parts]
    return {"record": str(path), "repetition": str(made), "verdict": verdict, "parts": shown, "new_options": added}


def _print(parts: list[Part]) -> None:
    width = max((len(part.name) for part in parts), default=0)
    group = ""
    for part in parts:
        if part.group != group:
            group = part.group
            terminal.show(f"{group}:")
        word = "nearly" if part.near else WORDS[part.equal]
        terminal.show(f"  {part.name:<{width}}  {word:<7}  {part.detail}".rstrip())
