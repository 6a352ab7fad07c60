"""``bench sweep``: many runs, several at once, with a plan of what they will take."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmark.cli import asking, executing, live, terminal
from benchmark.errors import BenchError, UsageError
from benchmark.files import user_path
from benchmark.jobs import How, Job

if TYPE_CHECKING:
    from benchmark.run.forecast import Forecast
    from benchmark.run.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    asking.add_arguments(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B[,...]",
        help="every combination of these values of options, with keys as in --set; values that hold commas are parted "
        "by `;`; repeatable; also [sweep.grid] in the --config",
    )
    executing.add_arguments(how, alone="default 1")
    how.add_argument(
        "--results",
        action="append",
        type=user_path,
        metavar="DIR",
        help="further records to estimate times from (beside those in --out); repeatable",
    )
    how.add_argument("--force", action="store_true", help="run again what is finished, start anew what is not")
    how.add_argument("--dry-run", action="store_true", help="print the plan and what it will take, and stop")
    how.add_argument("--json", action="store_true", help="print the plan, or the records' summaries, as JSON")


def run(args: argparse.Namespace) -> int:
    """Plans, then runs, or resumes, everything that was asked for."""
    from benchmark.run import interruption, provenance

    with interruption.Stop().installed(), asking.warnings_said():
        try:
            return _run(args)
        except KeyboardInterrupt:  # while the plan was made, or between two outcomes
            raise interruption.Interrupted(
                "stopped; what is finished is kept", hint=f"resume with: {provenance.resume_command()}"
            ) from None


def _run(args: argparse.Namespace) -> int:
    from benchmark.run.forecast import forecast

    asked = asking.read(args, sweep=True)
    plans = _planned(args, asked)
    single = _distinct(plans)
    jobs, grids = [asked.jobs[place] for place in single], [asked.grids[place] for place in single]
    plans = [plans[place] for place in single]
    how, _ = executing.read(args, asked, alone=1)
    results = asked.picked["results"] or ()
    others = [user_path(folder) for folder in ((results,) if isinstance(results, str) else results)]
    forecasts = forecast(plans, user_path(str(asked.picked["out"])), others)
    labels = [_label(plan, point) for plan, point in zip(plans, grids, strict=True)]
    if args.dry_run and args.json:
        rows = zip(labels, plans, grids, forecasts, strict=True)
        terminal.show(json.dumps([_as_json(*row) for row in rows], indent=2))
        return 0
    lines = _plan_lines(plans, forecasts, how.workers)
    if args.dry_run:
        terminal.show("\n".join(lines))
        return 0
    if not args.quiet:
        terminal.say("\n".join(lines))
    state = live.State(jobs, labels, [0.0 if one.finished else one.seconds for one in forecasts], workers=how.workers)
    return _execute(args, jobs, asked.picked["executor"], state, how)


def _planned(args: argparse.Namespace, asked: asking.Asked) -> list[Plan]:
    from benchmark.run.jobs import plans_of

    try:
        return plans_of(asked.jobs)
    except UsageError as error:
        if args.set or not any(asked.grids):
            raise
        raise UsageError(error.message.replace("--set", "--grid"), hint=error.hint) from error


def _distinct(plans: Sequence[Plan]) -> list[int]:
    """Places of the runs that differ: 0.01 and 1e-2 are one value."""
    found: dict[tuple[str, ...], int] = {}
    for place, plan in enumerate(plans):
        given = json.dumps([dict(plan.seeds), dict(plan.given)], sort_keys=True, default=str)
        found.setdefault((plan.scenario_name, plan.method_label, given), place)
    return list(found.values())


def _label(plan: Plan, point: Mapping[str, str]) -> str:
    """One run of the sweep as lines name it."""
    varied = "".join(f", {key}={value}" for key, value in point.items())
    return f"{plan.method_label} on {plan.scenario_name}, seed {plan.seeds['seed']}{varied}"


def _as_json(label: str, plan: Plan, point: Mapping[str, str], expected: Forecast) -> dict[str, Any]:
    return {
        "label": label,
        "scenario": plan.scenario_name,
        "method": plan.method_label,
        "track": plan.track,
        "seed": plan.seeds["seed"],
        "grid": dict(point),
        "finished": expected.finished,
        "seconds": expected.seconds,
    }


def _plan_lines(plans: Sequence[Plan], forecasts: Sequence[Forecast], workers: int) -> list[str]:
    """The plan by scenario and method, and what is left of it together."""
    groups: dict[tuple[str, str], list[Forecast]] = {}
    for plan, one in zip(plans, forecasts, strict=True):
        groups.setdefault((plan.scenario_name, plan.method_label), []).append(one)
    table = [("scenario", "method", "runs", "finished", "to do")]
    for (scenario, method), ones in groups.items():
        finished = sum(one.finished for one in ones)
        table.append((scenario, method, str(len(ones)), str(finished), _together(ones, 1)))
    wide = [max(len(row[column]) for row in table) for column in range(5)]
    lines = [
        f"{scenario:<{wide[0]}}  {method:<{wide[1]}}  {runs:>{wide[2]}}  {finished:>{wide[3]}}  {cost}".rstrip()
        for scenario, method, runs, finished, cost in table
    ]
    left = [one for one in forecasts if not one.finished]
    at_once = f", {workers} at once" if workers > 1 else ""
    lines.append(f"{len(plans)} runs, {len(plans) - len(left)} finished: {_together(forecasts, workers)}{at_once}")
    return lines + _memory(left, workers)


def _together(ones: Sequence[Forecast], workers: int) -> str:
    """What the unfinished ones take."""
    left = [one for one in ones if not one.finished]
    known = [one.seconds for one in left if one.seconds is not None]
    if not left:
        return "nothing to do"
    if not known:
        return "unknown (no record of a run like these)"
    unknown = f", and {len(left) - len(known)} runs of unknown length" if len(known) < len(left) else ""
    return f"about {live.duration(max(sum(known) / workers, max(known)))}{unknown}"


def _memory(left: Sequence[Forecast], workers: int) -> list[str]:
    """A warning where runs that go on at once may need more memory than there is."""
    from benchmark.run import machine

    peaks = sorted((one.memory for one in left if one.memory), reverse=True)[:workers]
    there = machine.memory()
    if workers == 1 or there is None or sum(peaks) <= there:
        return []
    return [
        f"warning: {len(peaks)} of these at once took {sum(peaks) / 2**30:.1f} GiB of memory, and "
        f"{there / 2**30:.1f} GiB are free: take fewer --jobs"
    ]


def _execute(args: argparse.Namespace, jobs: list[Job], executor: str, state: live.State, how: How) -> int:
    from benchmark.cli import summary
    from benchmark.records import read
    from benchmark.run import executors

    failures: list[tuple[str, BenchError]] = []
    paths = []
    how = replace(how, started=state.started)
    with (
        live.shown(state, quiet=args.quiet),
        contextlib.closing(executors.execute(executor, jobs, how)) as outcomes,
    ):
        for outcome in outcomes:
            state.ended(outcome)
            if outcome.status == "failed" and outcome.error is not None:
                failures.append((state.label(outcome.job), outcome.error))
            if outcome.path is not None:
                paths.append(outcome.path)
    if args.json:
        terminal.show(json.dumps([summary.brief(read(path), path) for path in paths], indent=2))
    elif args.quiet:
        for path in paths:
            terminal.show(path)
    else:
        terminal.say(state.summary())
        terminal.say(f"`bench leaderboard --results {jobs[0].out}` shows the table")
    for label, error in failures:
        terminal.say(f"failed: {live.failure(label, error)}")
    return failures[0][1].exit_code if failures else 0
