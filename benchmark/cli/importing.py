"""``bench import``: results of other suites, into imported runs that tables show in rows of their own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import terminal
from benchmark.errors import EXIT_OK, UsageError
from benchmark.files import check_folder, user_path

if TYPE_CHECKING:
    from benchmark.records.imported import Imported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("format", metavar="FORMAT", help="what wrote the files: `bench list importers`")
    parser.add_argument("files", nargs="+", type=user_path, metavar="FILE", help="results of that suite")
    parser.add_argument(
        "--out", type=user_path, default=Path("runs"), metavar="DIR", help="results folder (default: runs)"
    )
    parser.add_argument(
        "--beside", default="", metavar="SCENARIO", help="put the rows below ours of this scenario, as in our tables"
    )
    parser.add_argument("--track", default="", metavar="NAME", help="only below tables of this track; with --beside")
    told = parser.add_argument_group("what the files do not say")
    told.add_argument("--method", metavar="NAME", help="the method")
    told.add_argument("--scenario", metavar="NAME", help="the scenario, as the suite calls it")
    told.add_argument("--family", metavar="NAME", help="its family: `bench list families`")
    told.add_argument("--backbone", metavar="NAME", help="the pretrained model")
    told.add_argument("--seed", type=int, metavar="N", help="the seed")
    parser.add_argument("--dry-run", action="store_true", help="print what would be imported, write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Imports every run of every file; one file that cannot be read stops all, and nothing is written.

    Raises:
        UsageError: Unknown format, or a file of another format.
        DataMissing: A file is missing or damaged.
        PluginError: The importer is broken.
    """
    from benchmark import importing
    from benchmark.records import imported

    if args.track and not args.beside:
        raise UsageError("--track says which table of --beside is meant", hint="give --beside SCENARIO, too")
    check_folder(args.out, "--out")
    told = importing.Told(
        method=args.method,
        scenario=args.scenario,
        family=args.family,
        backbone=args.backbone,
        seed=args.seed,
        beside=args.beside,
        track=args.track,
    )
    found = [run for path in args.files for run in importing.import_file(args.format, path, told)]
    shown = []
    for one in found:
        path = args.out / one.path if args.dry_run else imported.write(args.out, one)
        shown.append(_facts(one, path))
        if not args.json and not args.quiet:
            _print(shown[-1])
        elif args.quiet and not args.json:
            terminal.show(path)
    if args.json:
        terminal.show(json.dumps(shown, indent=2))
    if not args.quiet:
        told_what = "would be imported" if args.dry_run else f"imported below {args.out / imported.FOLDER}"
        terminal.say(f"{len(found)} {'run' if len(found) == 1 else 'runs'} {told_what}")
    return EXIT_OK


def _facts(run: Imported, path: Path) -> dict[str, Any]:
    numbers = {name: value for name, value in run.metrics.items() if isinstance(value, float)}
    return {
        "path": str(path),
        "method": run.method,
        "part": run.part,
        "scenario": run.scenario,
        "backbone": run.backbone,
        "seed": run.seed,
        "complete": run.complete,
        "lines": [run.source.first_line, run.source.last_line],
        "metrics": numbers,
        "reported": {score.name: score.value for score in run.reported},
        "notes": run.notes,
    }


def _print(facts: dict[str, Any]) -> None:
    name = " ".join(str(part) for part in (facts["method"] or "unknown method", facts["part"]) if part)
    seed = "unknown seed" if facts["seed"] is None else f"seed {facts['seed']}"
    ended = {True: "", False: ", not to its end", None: ", unknown whether to its end"}[facts["complete"]]
    lines = "-".join(map(str, facts["lines"]))
    terminal.show(f"{name} on {facts['scenario'] or 'unknown scenario'}, {seed}, lines {lines}{ended}")
    for name in ("final_avg_acc", "avg_incremental_acc_task", "forgetting"):
        if name in facts["metrics"]:
            terminal.show(f"  {name:<28} {100 * facts['metrics'][name]:.2f} %  (ours, from its matrix)")
    for name, value in facts["reported"].items():
        terminal.show(f"  {name:<28} {value:.4f}  (reported)")
    for note in facts["notes"]:
        terminal.show(f"  note: {note}")
    terminal.show(f"  {facts['path']}")
