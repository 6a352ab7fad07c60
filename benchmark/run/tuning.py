"""Does a search: asks a strategy for points, has their runs done, writes each trial down as it ends.

Runs are those of ``--validate``: test samples are never read.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark import data, families
from benchmark.code_identity import ENGINE
from benchmark.config import as_dict
from benchmark.errors import RunFailed, UsageError
from benchmark.files import user_path, without_places
from benchmark.jobs import How, Job, Outcome
from benchmark.records import read as read_record
from benchmark.run import executors
from benchmark.run.jobs import Shelf, plan_of, plans_of
from benchmark.run.plan import Plan
from benchmark.tuning import axes as tuning_axes
from benchmark.tuning import strategies, trials
from benchmark.tuning.axes import Axis, Point
from benchmark.tuning.trials import Target, Trial

_FALLS = re.compile(r"(\w+_)?(error|forgetting|ece|nll|brier)(_\w+)?|slot_\w+")
"""Names of our metrics of which less is better, and of counts beside them."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search.

    Attributes:
        jobs: The runs of a trial, without the options that are searched.
        axes: These.
        target: What trials are of.
        start: Values of the axes without a search.
        code: What trials are computed with, as `Trial.code`.
        strategy: Name of one of `benchmark.tuning.strategies.STRATEGIES`.
        budget: Most trials, those of the log included.
        seed: Of the strategy.
        log: The file of trials.
    """

    jobs: tuple[Job, ...]
    axes: tuple[Axis, ...]
    target: Target
    start: Point
    code: str
    strategy: str
    budget: int
    seed: int
    log: Path

    def logged(self) -> list[Trial]:
        """The trials of the log that are of this search, whatever code they were computed with.

        Raises:
            UsageError: The log cannot be read.
        """
        keys = {axis.key for axis in self.axes}
        rows = trials.read(self.log)
        return [trial for target, trial in rows if target == self.target and set(trial.point) == keys]

    def known(self) -> list[Trial]:
        """Those that were computed with this code, in the order in which they were chosen; a point counts once."""
        found = sorted((one for one in self.logged() if one.code == self.code), key=lambda trial: trial.number)
        return list({trial.key: trial for trial in reversed(found)}.values())[::-1]


def judged_by(jobs: Sequence[Job], rule: str) -> list[Job]:
    """The runs of a trial under one of the rules of `benchmark.specs.SELECT`.

    To leave each source domain out in turn, scenarios are built: how many they have stands nowhere else.
    """
    if rule == "oracle":
        return [replace(job, validate_on="target") for job in jobs]
    if rule != "leave-one-domain-out":
        return list(jobs)
    shelf, found = Shelf(), []
    for job in jobs:
        root = None if job.data_root is None else user_path(job.data_root)
        places = {"data_root": root, "cache": data.cache_root(), "download": job.download}
        scenario, _ = shelf.scenario(plan_of(job), places)
        count = max(len(part.source_domains) for part in scenario.experiences)
        found += [replace(job, validate_on=f"domain:{place}") for place in range(max(1, count))]
    return found


def planned(
    jobs: Sequence[Job], axes: Sequence[Axis], *, scenario: str, metric: str, strategy: str, budget: int, log: Path
) -> Search:
    """A search of jobs that differ in scenario, seed and what is held out alone.

    Args:
        jobs: The runs of a trial.
        axes: What is searched.
        scenario: As it was asked for.
        metric: What is compared; empty: the final average accuracy, or what ranks the family where texts are written.
        strategy: Its name.
        budget: Most trials.
        log: File of the trials.

    Raises:
        UsageError: An option or value that there is not, nothing to search, or jobs that read test samples.
    """
    if not all(job.validate for job in jobs):
        raise UsageError("a search never reads test samples", hint="give the number of experiences to validate on")
    if _FALLS.fullmatch(metric):
        raise UsageError(
            f"--metric {metric}: the highest value wins, and of this one less is better, or it is a count",
            hint="use final_avg_acc, avg_incremental_acc or another one of which more is better",
        )
    if not axes:
        raise UsageError("nothing to search: no option says where a search begins", hint="--range KEY=LOW..HIGH")
    plans = plans_of(jobs)
    plan = plans[0]
    varied = {axis.key for axis in axes}
    common = {
        key: tuning_axes.plain(value)
        for key, value in plan.given.items()
        if plan.origin[key] != "--scenario" and key.removeprefix("method.") not in varied
    }
    if plan.job.backbone:
        common["backbone"] = plan.job.backbone
    if plan.job.weights:
        from benchmark.backbones.sources import own_digest  # with it torch, which a plan does without

        common["weights"] = own_digest(user_path(plan.job.weights))
    if plan.job.preset:
        common["preset"] = plan.job.preset
    for name in ("class_order_seed", "init_seed", "data_seed"):
        if any(getattr(job, name) not in (None, job.seed) for job in jobs):
            own = (job.seed if getattr(job, name) is None else getattr(job, name) for job in jobs)
            common[name.replace("_", " ")] = ",".join(map(str, dict.fromkeys(own)))
    if plan.job.validate_on:
        common["judged on"] = plan.job.validate_on.partition(":")[0]
    family = families.get(plan.scenario_spec.family)
    return Search(
        jobs=tuple(replace(job, quiet=True, force=False) for job in jobs),
        axes=tuple(axes),
        target=Target(
            method=plan.method_label,
            scenario=scenario,
            track=plan.track,
            options=json.dumps(common, sort_keys=True),
            experiences=plan.job.validate,
            seeds=",".join(map(str, dict.fromkeys(job.seed for job in jobs))),
            metric=metric or (family.headline if family.generates else "final_avg_acc"),
        ),
        start={axis.key: _in_force(plan, axis.key) for axis in axes},
        code="-".join(filter(None, (str(ENGINE), plan.method.code_sha256[:8], plan.backbone, plan.preset))),
        strategy=strategy,
        budget=budget,
        seed=jobs[0].seed,
        log=log,
    )


def _in_force(plan: Plan, key: str) -> Any:
    """The value of an option where no search sets it."""
    group, dot, name = key.rpartition(".")
    return tuning_axes.plain(as_dict(plan.engine if dot and group == "engine" else plan.method_config)[name])


def jobs_of(search: Search, point: Point) -> list[Job]:
    """The runs of a point."""
    chosen = tuning_axes.settings(point)
    return [replace(job, settings={**job.settings, **chosen}) for job in search.jobs]


def next_points(search: Search, done: Sequence[Trial], at_once: int) -> list[Point]:
    """What the strategy chooses now; nothing when the budget is used up or the search is over.

    Raises:
        UsageError: There is no such strategy, or the grid is larger than the budget.
    """
    choose = strategies.load(search.strategy)
    if (left := search.budget - len(done)) < 1:
        return []
    question = strategies.Question(
        axes=search.axes, trials=done, count=left, at_once=at_once, seed=search.seed, start=search.start
    )
    return choose(question)[:left]


def tune(search: Search, *, executor: str, how: How) -> Iterator[Trial]:
    """Every trial as it ends; those of the log are not repeated.

    A run that fails (logits that are not finite, a process that dies) makes a trial without a value, and so does a
    point that the method refuses; whatever else goes wrong ends the search.

    Raises:
        UsageError: The log is none, the grid is larger than the budget, or a run has no such metric.
        BenchError: What a run ends with, other than `RunFailed`.
    """
    done = search.known()
    while points := next_points(search, done, max(1, how.workers)):
        taken = {trial.number for trial in done}  # with gaps, where runs that ended in another order were stopped
        numbers = itertools.islice((number for number in itertools.count() if number not in taken), len(points))
        for trial in _batch(search, dict(zip(numbers, points, strict=True)), executor, how):
            trials.append(search.log, search.target, trial)
            done.append(trial)
            yield trial
        done.sort(key=lambda trial: trial.number)


def _batch(search: Search, points: Mapping[int, Point], executor: str, how: How) -> Iterator[Trial]:
    waiting: dict[int, list[Outcome | None]] = {}
    owner: dict[Job, tuple[int, int]] = {}
    for number, point in points.items():
        jobs = jobs_of(search, point)
        try:
            plans_of(jobs)
        except UsageError as error:  # two values that do not go together; the search itself was looked at before
            yield _trial(search, number, point, note=error.message)
            continue
        waiting[number] = [None] * len(jobs)
        owner |= {job: (number, place) for place, job in enumerate(jobs)}
    with contextlib.closing(executors.execute(executor, list(owner), how)) as outcomes:
        for outcome in outcomes:
            number, place = owner[outcome.job]
            waiting[number][place] = outcome
            finished = [one for one in waiting[number] if one is not None]
            if len(finished) == len(waiting[number]):
                yield _judged(search, number, points[number], finished)


def _judged(search: Search, number: int, point: Point, outcomes: Sequence[Outcome]) -> Trial:
    """A trial whose runs have ended."""
    values, samples = [], 0
    for outcome in outcomes:
        if outcome.error is not None:
            if not isinstance(outcome.error, RunFailed):
                raise outcome.error
            return _trial(search, number, point, note=without_places(outcome.error.message))
        assert outcome.path is not None  # of what is done or known
        record = read_record(outcome.path)
        value = (record.metrics or {}).get(search.target.metric)
        if value is None or isinstance(value, list):
            numbers = [name for name, one in (record.metrics or {}).items() if isinstance(one, (int, float))]
            defined = sorted(name for name in numbers if not _FALLS.fullmatch(name))
            raise UsageError(f"--metric {search.target.metric}: not defined here", hint=f"use {', '.join(defined)}")
        values.append(float(value))
        samples += sum(record.counts)
    return _trial(search, number, point, value=sum(values) / len(values), samples=samples)


def _trial(search: Search, number: int, point: Point, **result: Any) -> Trial:
    return Trial(number=number, point=point, strategy=search.strategy, code=search.code, **result)
