"""``bench tune``: chooses options of a method on held-out training data; the winner becomes a preset."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import asking, executing, live, searching, terminal
from benchmark.errors import EXIT_FAILED, EXIT_OK, warn
from benchmark.files import check_file, replace_file, user_path
from benchmark.jobs import How
from benchmark.specs import SELECT
from benchmark.tuning.axes import words
from benchmark.tuning.trials import Trial, best

if TYPE_CHECKING:
    from benchmark.run.tuning import Search

ORACLE = "oracle"  # the rule that reads labels of test samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    searching.add_arguments(parser)
    how = parser.add_argument_group("how")
    how.add_argument("--save", type=user_path, metavar="FILE.toml", help="the winner (default: beside the log)")
    executing.add_arguments(how, alone="default: one after the other, in this process")
    how.add_argument("--test", action="store_true", help="then run what won on test data, by the real protocol")
    how.add_argument("--dry-run", action="store_true", help="print what would be searched, and stop")
    how.add_argument("--json", action="store_true", help="print the trials and the winner as JSON")


def run(args: argparse.Namespace) -> int:
    """Does, or goes on with, one search or those of a protocol."""
    from benchmark.run import interruption, provenance

    with interruption.Stop().installed(), asking.warnings_said():
        try:
            return _run(args)
        except KeyboardInterrupt:
            raise interruption.Interrupted(
                "stopped; the trials of the log are kept", hint=f"resume with: {provenance.resume_command()}"
            ) from None


def _run(args: argparse.Namespace) -> int:
    asked, searches, rule = searching.read(args)
    how, _ = executing.read(args, asked, alone=0)
    if rule == ORACLE:
        warn("labels of test samples choose these values: an upper bound; name the rule beside every figure")
    if not args.dry_run:  # a search is too long to find out at its end
        if args.save:
            check_file(args.save, "--save")
        check_file(searches[0].log, "--log")
    found = []
    for search in searches:
        known = search.known()
        if others := len(search.logged()) - len(known):
            warn(
                f"{search.log}: {others} trials were computed with other code, model or input preset; they do not count"
            )
        if args.dry_run:
            _show_plan(search, known, as_json=args.json)
            continue
        found.append(_done(args, search, known, asked.picked["executor"], how, rule, alone=len(searches) == 1))
    if args.dry_run:
        return EXIT_OK
    tested = _tested(args, searches, found, asked, how, rule) if args.test else []
    return _show(args, searches, found, tested, rule)


def _done(
    args: argparse.Namespace, search: Search, known: list[Trial], executor: str, how: How, rule: str, *, alone: bool
) -> dict[str, Any]:
    """Does what is left of a search and writes its winner down."""
    from benchmark.run import tuning

    if not args.quiet:
        terminal.say("\n".join(_plan_lines(search, known)))
    for trial in tuning.tune(search, executor=executor, how=how):
        known.append(trial)
        if not args.quiet:
            terminal.say(_line(search, trial, known))
    done = sorted(known, key=lambda trial: trial.number)
    winner = best(done)
    path = args.save or search.log.with_suffix(".toml")
    if not alone:
        path = path.with_stem(searching.as_name(f"{path.stem}-{search.target.scenario}-{search.target.seeds}"))
    if winner is None:
        terminal.say(f"no trial of {search.log} has a value")
    else:
        _write(path, search, winner, done, rule)
    return {"trials": done, "winner": winner, "path": path}


def _write(path: Path, search: Search, winner: Trial, done: Sequence[Trial], rule: str) -> None:
    """Writes the winner down."""
    from benchmark.scenario_names import base_of
    from benchmark.tuning import presets
    from benchmark.tuning.bracket import sides

    open_sides = sides([axis.listed() for axis in search.axes], done) if search.strategy == "grid" else []
    notes = [f"{len(done)} trials, {search.strategy}, code {winner.code}"]
    if rule != next(iter(SELECT)):
        notes.append(f"chosen by {rule}: {SELECT[rule]}")
    if open_sides:
        notes.append(f"not bracketed: nothing worse was tried of {', '.join(map(str, open_sides))}")
        warn(f"the budget ended before the best point had worse neighbours: {', '.join(map(str, open_sides))}")
    text = presets.render(
        search.target,
        winner,
        method=search.jobs[0].method.partition("@")[0],
        scenarios=dict.fromkeys(base_of(job.scenario) for job in search.jobs),
        weights=search.jobs[0].weights,
        notes=notes,
    )
    replace_file(path, text.encode())


def _tested(
    args: argparse.Namespace,
    searches: Sequence[Search],
    found: Sequence[dict[str, Any]],
    asked: asking.Asked,
    how: How,
    rule: str,
) -> list[float | None]:
    """What the winner of each search has on test data: the headline of its family, mean of its runs."""
    from benchmark import families
    from benchmark.records import read
    from benchmark.run import executors

    out = str(asked.picked["out"])
    if rule == ORACLE:  # no table may take these for what anyone could have
        out = str(user_path(out) / "tuned" / ORACLE)
    groups = [
        searching.real(search, one["winner"].point, out) if one["winner"] else []
        for search, one in zip(searches, found, strict=True)
    ]
    jobs = list(dict.fromkeys(job for group in groups for job in group))
    values = {}
    with contextlib.closing(executors.execute(asked.picked["executor"], jobs, how)) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            assert outcome.path is not None  # of what is done or known
            record = read(outcome.path)
            family = families.of_record(record.scenario.family, record.scenario.family_facts)
            value = (record.metrics or {}).get(family.headline)
            values[outcome.job] = value if isinstance(value, (int, float)) else math.nan
            if not args.quiet:
                terminal.say(f"on test data: {outcome.label}: {family.headline} {values[outcome.job]:.4f}")
    return [statistics.fmean(values[job] for job in group) if group else None for group in groups]


def _plan_lines(search: Search, known: Sequence[Trial]) -> list[str]:
    """What is searched, and about how long it takes."""
    from benchmark.run import jobs, tuning
    from benchmark.run.forecast import forecast

    target = search.target
    lines = [
        f"{target.method} on {target.scenario}, track {target.track}, seed {target.seeds}: {target.metric} on held-out "
        f"data of the first {target.experiences} experience(s), {len(search.jobs)} run(s) a trial"
    ]
    for axis in search.axes:
        ends = ", ".join(map(str, axis.values)) if axis.values else f"{axis.low:.4g}..{axis.high:.4g}"
        scale = ", steps of factors" if axis.log and len(axis.values) != 1 else ""
        lines.append(f"  {axis.key}: {ends}{scale}")
    plans = jobs.plans_of(tuning.jobs_of(search, search.start))
    seconds = [one.seconds for one in forecast(plans, user_path(search.jobs[0].out))]
    each = None if None in seconds else sum(one for one in seconds if one is not None)
    cost = "of unknown length" if each is None else f"of about {live.duration(each)}"
    lines.append(f"{search.strategy}: at most {search.budget} trials {cost}, {len(known)} of them in {search.log}")
    return lines


def _show_plan(search: Search, known: Sequence[Trial], *, as_json: bool) -> None:
    from benchmark.run import tuning

    points = tuning.next_points(search, known, 1)
    if as_json:
        terminal.show(json.dumps({"known": [_as_json(one) for one in known], "next": [dict(one) for one in points]}))
        return
    terminal.show("\n".join([*_plan_lines(search, known), *(f"next: {words(point)}" for point in points)]))


def _as_json(trial: Trial) -> dict[str, Any]:
    return {"number": trial.number, "point": dict(trial.point), "value": trial.value, "note": trial.note}


def _line(search: Search, trial: Trial, known: Sequence[Trial]) -> str:
    value = f"failed: {trial.note}" if trial.value is None else f"{trial.value:.4f}"
    top = best(known)
    so_far = "" if top is None or top == trial else f" (best {top.value:.4f}: {words(top.point)})"
    return f"[{len(known)}/{search.budget}] {words(trial.point)}: {value}{so_far}"


def _show(
    args: argparse.Namespace,
    searches: Sequence[Search],
    found: Sequence[dict[str, Any]],
    tested: Sequence[float | None],
    rule: str,
) -> int:
    """Tells the winners, and what they have on test data."""
    scores = [*tested] or [None] * len(found)
    if args.json:
        shown = [
            {
                "scenario": search.target.scenario,
                "seeds": search.target.seeds,
                "select": rule,
                "best": None if one["winner"] is None else _as_json(one["winner"]),
                "test": score,
                "trials": [_as_json(trial) for trial in one["trials"]],
                "log": str(search.log),
                "preset": str(one["path"]),
            }
            for search, one, score in zip(searches, found, scores, strict=True)
        ]
        terminal.show(json.dumps(shown, indent=2))
    for search, one, score in zip(searches, found, scores, strict=True):
        if args.json or one["winner"] is None:
            continue
        if args.quiet:
            terminal.show(str(one["path"]))
            continue
        top, place = one["winner"], f"{search.target.scenario}, seed {search.target.seeds}: " * (len(found) > 1)
        on_test = "" if score is None else f"; on test data {score:.4f}"
        terminal.show(f"{place}best of {len(one['trials'])}: {words(top.point)}: {top.value:.4f}{on_test}")
        terminal.say(f"`bench run --config {one['path']}` runs it on test data")
    if len(found) > 1 and tested and not args.json:
        terminal.show(_over_seeds(searches, tested, rule))
    return EXIT_OK if all(one["winner"] is not None for one in found) else EXIT_FAILED


def _over_seeds(searches: Sequence[Search], tested: Sequence[float | None], rule: str) -> str:
    """Mean over scenarios, then mean and standard error over seeds, with the rule that chose."""
    seeds: dict[str, list[float]] = {}
    for search, score in zip(searches, tested, strict=True):
        seeds.setdefault(search.target.seeds, []).append(math.nan if score is None else score)
    means = [statistics.fmean(scores) for scores in seeds.values()]
    error = f" ± {statistics.stdev(means) / math.sqrt(len(means)):.4f}" if len(means) > 1 else ""
    return f"on test data, chosen by {rule}: {statistics.fmean(means):.4f}{error} ({len(means)} seeds)"
