"""``bench run``: several scenarios, methods and seeds, one record each."""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmark.cli import asking, executing, terminal
from benchmark.errors import BenchError
from benchmark.jobs import How, Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    asking.add_arguments(parser)
    how = parser.add_argument_group("how")
    executing.add_arguments(how, alone="default: one after the other, in this process")
    how.add_argument("--force", action="store_true", help="run again what is finished, start anew what is not")
    how.add_argument("--dry-run", action="store_true", help="print every value and where it comes from, and stop")
    how.add_argument("--json", action="store_true", help="print the records' summaries as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs, or resumes, everything that was asked for."""
    from benchmark.run import interruption, provenance

    with interruption.Stop().installed(), asking.warnings_said():
        try:
            return _run(args)
        except KeyboardInterrupt:  # while plugins, data or weights were read; the engine answers for the rest
            raise interruption.Interrupted(
                "stopped between two runs; what is finished is kept",
                hint=f"resume with: {provenance.resume_command()}",
            ) from None


def _run(args: argparse.Namespace) -> int:
    from benchmark.run import jobs as running

    asked = asking.read(args)
    plans = running.plans_of(asked.jobs)
    how, rows = executing.read(args, asked, alone=0)
    if args.dry_run:
        where = [*asking.places(args, asked.picked, asked.origin), *rows]
        for name, options in asked.jobs[0].trackers.items():
            where += [("tracker", name, asked.origin["tracker"])]
            where += [(f"tracker.{name}.{key}", value, "its options") for key, value in options.items()]
        _print_dry_run([[*plan.rows(), *where] for plan in plans], as_json=args.json)
        return 0
    return _execute(args, asked.jobs, asked.picked["executor"], how)


def _print_dry_run(listing: list[list[tuple[str, Any, str]]], *, as_json: bool) -> None:
    if as_json:
        terminal.show(
            json.dumps([[{"key": k, "value": v, "origin": o} for k, v, o in rows] for rows in listing], indent=2)
        )
        return
    for place, values in enumerate(listing):
        if place:
            terminal.show("")
        rows = [(key, str(value), origin) for key, value, origin in values]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        second = min(second, 60)
        for key, value, origin in rows:
            terminal.show(f"{key:<{first}}  {value:<{second}}  {origin}")


def _execute(args: argparse.Namespace, jobs: list[Job], executor: str, how: How) -> int:
    from benchmark.cli import print_error, summary
    from benchmark.records import read
    from benchmark.run import executors, machine

    failures: list[BenchError] = []
    shown = []
    for outcome in executors.execute(executor, jobs, how):
        if outcome.error is not None:
            if len(jobs) == 1:
                raise outcome.error
            if outcome.status == "skipped":
                terminal.say(f"skipped: {outcome.error.message}")
                continue
            if outcome.error.message not in {failure.message for failure in failures}:  # twelve pairs miss one data set
                print_error(outcome.error)
            failures.append(outcome.error)
        if outcome.path is None or not machine.speaks():
            continue
        if outcome.status == "known" and not args.quiet:
            terminal.say(f"{outcome.label}: already done, not repeated (--force repeats it)")
        record = read(outcome.path)
        shown.append(summary.brief(record, outcome.path))
        if not args.json and not args.quiet:
            terminal.show(summary.render(record, outcome.path), coloured=True)
        elif args.quiet and not args.json:
            terminal.show(outcome.path)
    if args.json and machine.speaks():
        terminal.show(json.dumps(shown, indent=2))
    if failures:
        terminal.say(f"{len(failures)} of {len(jobs)} runs failed")
        return failures[0].exit_code
    return 0
