"""From a job to its record: what `bench run`, executors and Python callers share.

Nothing here prints. What a person should know is a `BenchWarning` or in the `Outcome`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from benchmark import data, registry
from benchmark.errors import BenchError, RunBusy, UsageError, shorten, shown, warn
from benchmark.files import check_folder, user_path
from benchmark.jobs import MOST_DIGITS, How, Job, Outcome
from benchmark.run import machine, tracking
from benchmark.run.interruption import Interrupted, Stop
from benchmark.run.plan import Plan, resolve
from benchmark.scenario_names import ScenarioName
from benchmark.specs import ScenarioSpec

if TYPE_CHECKING:
    import pluggy

    from benchmark.api import Scenario
    from benchmark.run.preparation import Prepared
    from benchmark.run.ranks import Ranks

MOST_SEEDS = 1000


def plan_of(job: Job) -> Plan:
    """The resolved run, before data and weights are loaded.

    Raises:
        UsageError: Unknown name, option or value, or a results folder that cannot be written.
        PluginError: A plugin is broken.
    """
    if job.download not in ("auto", "always", "never"):
        raise UsageError(f"download: {job.download!r} is unknown", hint="use auto, always or never")
    if job.lock_kind not in ("file", "lease"):
        raise UsageError(f"lock_kind: {job.lock_kind!r} is unknown", hint="use file or lease")
    for name in ("seed", "class_order_seed", "init_seed", "data_seed", "validate"):
        value = getattr(job, name)
        if value is not None and not (type(value) is int and 0 <= value < 10**MOST_DIGITS):
            raise UsageError(f"{name}: {shown(value)} is not a whole number that is 0 or more")
    resolved = resolve(job)
    tracking.check(job)
    check_folder(user_path(job.out), "--out")
    return resolved


def plans_of(jobs: Iterable[Job]) -> list[Plan]:
    """The resolved runs. See `plan_of`."""
    with registry.remembered():
        return [plan_of(job) for job in jobs]


class Shelf:
    """Keeps the last scenario, which the next job often needs as well; one is in memory at a time."""

    def __init__(self) -> None:
        self._held: tuple[str, tuple[Scenario, float]] | None = None

    def scenario(self, plan: Plan, places: Mapping[str, Any]) -> tuple[Scenario, float]:
        """The scenario of a plan, and the seconds it took to build."""
        from benchmark.run import preparation

        options = [
            plan.scenario_name,
            plan.tag,
            plan.effective()["scenario"],
            plan.seeds["class_order"],
            plan.job.validate,
            plan.job.validate_on,
            plan.job.lock,
        ]
        key = json.dumps([*options, {name: str(value) for name, value in places.items()}])
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, preparation.build_scenario(plan, places)
        return self._held[1]


def run_job(job: Job) -> Path:
    """Does one run, or what is left of it, as ``bench run`` would; life-cycle plugins are told.

    Returns:
        Path of the record; `benchmark.records.read` reads it.

    Raises:
        UsageError: Unknown name, option or value.
        PluginError: A plugin is broken or breaks its contract.
        DataMissing: Data or weights are absent or damaged.
        RunBusy: Another process works on it.
        RunFailed: Training had to stop; what is finished is kept.
        Interrupted: Ctrl-C, likewise.
    """
    path = run_one(job, Shelf(), life_cycle()).path
    return cast("Path", path)


def run_jobs(jobs: Iterable[Job], how: How | None = None) -> Generator[Outcome, None, None]:
    """Does runs one after the other in this process, or several at once; one that fails does not stop the others.

    Args:
        jobs: What to do; without ``workers``, each is asked for when the one before has ended.
        how: With ``workers``, each run is done in one of so many processes, and outcomes come as runs end.

    Raises:
        Interrupted: Ctrl-C ends them all; what is finished is kept.
    """
    how = how or How()
    if how.workers or machine.processes() > 1:
        jobs = list(jobs)
        _check_processes(jobs, how)
    if how.workers:
        from benchmark.run import pool

        yield from pool.run(list(jobs), how)
        return
    shelf, hooks = Shelf(), life_cycle()
    for job in jobs:
        how.started(job, "this process")
        try:
            outcome = run_one(job, shelf, hooks)
        except Interrupted:
            raise
        except BenchError as error:
            status: Literal["skipped", "failed"] = "skipped" if isinstance(error, RunBusy) else "failed"
            outcome = Outcome(job=job, status=status, error=error)
        yield outcome


def _check_processes(jobs: list[Job], how: How) -> None:
    """Makes sure that the processes of ``torchrun`` all work on one run.

    Raises:
        UsageError: They would not.
    """
    if machine.processes() > 1 and (len(jobs) > 1 or how.workers):
        raise UsageError(
            f"torchrun: {machine.processes()} processes share one run, but {len(jobs)} runs were asked for"
            + (f", {how.workers} at once" if how.workers else ""),
            hint="start torchrun once for each run; without torchrun, --jobs puts runs on different GPUs",
        )


def life_cycle() -> pluggy.PluginManager:
    """The life-cycle plugins; a broken one is left out, with a warning."""
    return registry.life_cycle(lambda _, error: warn(f"{error.message}; left out"))


def run_one(
    job: Job,
    shelf: Shelf,
    hooks: pluggy.PluginManager,
    check: Callable[[Prepared], None] = lambda prepared: None,
    stop: Stop | None = None,
) -> Outcome:
    """What `run_job` and `run_jobs` do with one job.

    Args:
        job: The job.
        shelf: Keeps its scenario.
        hooks: Life-cycle plugins.
        check: Told of data and weights before anything is trained; may raise.
        stop: Asks the run to end between two steps; default: Ctrl-C and SIGTERM do.
    """
    from benchmark.run import models, ranks

    plan = plan_of(job)
    models.check_backbone(plan)
    with ranks.joined(job.device) as processes:
        told = tracking.joined(hooks, job.trackers) if processes.first else registry.without_life_cycle()
        return _run_one(job, plan, shelf, told, check, processes, stop)


def _run_one(
    job: Job,
    plan: Plan,
    shelf: Shelf,
    hooks: pluggy.PluginManager,
    check: Callable[[Prepared], None],
    processes: Ranks,
    stop: Stop | None,
) -> Outcome:
    from benchmark.run import engine, places, preparation

    root = None if job.data_root is None else user_path(job.data_root)
    scenario, seconds = shelf.scenario(plan, {"data_root": root, "cache": data.cache_root(), "download": job.download})
    prepared = preparation.prepare(plan, scenario, data_seconds=seconds, ranks=processes)
    check(prepared)
    for odd in prepared.warnings if processes.first else ():
        warn(odd)
    out = user_path(job.out)
    if job.lock_kind == "lease":
        places.use_leases(out)
    path = places.record_path(out, prepared)
    known = not job.force and processes.told(places.is_finished(path, **plan.beside))
    if not known:
        quiet, force = job.quiet or not processes.first, job.force and processes.first
        engine.execute(prepared, out, hooks=hooks, quiet=quiet, force=force, stop=stop)
    elif processes.first:
        places.tidy(path)
    processes.wait()  # until the record is there
    return Outcome(job=job, status="known" if known else "done", path=path, label=prepared.label)


def expand(names: list[str], settings: Mapping[str, str], table: Mapping[str, Any]) -> list[str]:
    """Replaces a scenario whose variants belong together by these: ``name`` or ``name/all`` by ``name/a``, ``name/b``.

    Where variants have several parts, the first ones stand for all that begin so: ``name/set`` for ``name/set/1``,
    ``name/set/2``. A bare name stays as it is when the variant's option is given in another way.

    Args:
        names: What was asked for.
        settings: ``--set`` assignments.
        table: The configuration file.

    Raises:
        UsageError: ``/all`` of a scenario without such variants.
    """
    expanded = []
    for name in names:
        asked = ScenarioName.parse(name)
        plain, variant = asked.base, asked.variant
        if asked.tag:
            expanded.append(name)
            continue
        spec = cast("ScenarioSpec", registry.load_scenario(plain).spec)
        if variant not in ("", "all"):
            inside = [one for one in spec.variants if one.startswith(f"{variant}/")]
            expanded += [f"{plain}/{one}" for one in inside] or [name]
            continue
        if variant and not spec.variants:
            raise UsageError(
                f"`{name}`: the variants of `{plain}` do not belong together", hint=f"name one: {plain}/..."
            )
        scenarios = table.get("scenario")
        options = scenarios.get(plain) if isinstance(scenarios, Mapping) else None
        keys = {spec.variant, f"scenario.{spec.variant}", f"scenario.{plain}.{spec.variant}"}
        chosen = bool(keys & settings.keys()) or spec.variant in (options if isinstance(options, Mapping) else ())
        if spec.variants and (variant or not chosen):
            expanded += [f"{plain}/{one}" for one in spec.variants]
        else:
            expanded.append(name)
    return list(dict.fromkeys(expanded))


def parse_seeds(value: str | int | Sequence[int | str], option: str = "--seed") -> list[int]:
    """Reads ``0``, ``0,3`` or ``0-4``.

    Args:
        value: What was given.
        option: Where, for messages.

    Raises:
        UsageError: Not a list of whole numbers that are 0 or more.
    """
    if not isinstance(value, str):
        value = ",".join(map(str, value if isinstance(value, Sequence) else (value,)))
    seeds: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [first, last] if dash else [first, first]
        if not all(end.strip().isdecimal() and len(end.strip()) <= MOST_DIGITS for end in ends):
            numbers = range(0)
        else:
            numbers = range(int(ends[0]), int(ends[1]) + 1)
        if not numbers or len(numbers) > MOST_SEEDS:
            raise UsageError(
                f"{option} {shorten(value)}: `{shorten(part)}` is not a seed or a range of up to {MOST_SEEDS}",
                hint=f"for example {option} 0,1,2 or {option} 0-4",
            )
        seeds += numbers
    return list(dict.fromkeys(seeds))
