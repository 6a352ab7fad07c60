"""From a job to its record: what `bench run`, executors and Python callers share.

Nothing here prints. What a person should know is a `BenchWarning` or in the `Outcome`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from benchmark import data, registry
from benchmark.errors import BenchError, RunBusy, UsageError, shorten, shown, warn
from benchmark.files import check_folder, user_path
from benchmark.jobs import MOST_DIGITS, Job, Outcome
from benchmark.run.interruption import Interrupted
from benchmark.run.plan import Plan, resolve
from benchmark.specs import ScenarioSpec

if TYPE_CHECKING:
    import pluggy

    from benchmark.api import Scenario

MOST_SEEDS = 1000


def plan_of(job: Job) -> Plan:
    """The resolved run, before data and weights are loaded.

    Raises:
        UsageError: Unknown name, option or value, or a results folder that cannot be written.
        PluginError: A plugin is broken.
    """
    if job.download not in ("auto", "always", "never"):
        raise UsageError(f"download: {job.download!r} is unknown", hint="use auto, always or never")
    for name in ("seed", "class_order_seed", "init_seed", "data_seed", "validate"):
        value = getattr(job, name)
        if value is not None and not (type(value) is int and 0 <= value < 10**MOST_DIGITS):
            raise UsageError(f"{name}: {shown(value)} is not a whole number that is 0 or more")
    resolved = resolve(job)
    check_folder(user_path(job.out), "--out")
    return resolved


class Shelf:
    """Keeps the last scenario, which the next job often needs as well; one is in memory at a time."""

    def __init__(self) -> None:
        self._held: tuple[str, tuple[Scenario, float]] | None = None

    def scenario(self, plan: Plan, places: Mapping[str, Any]) -> tuple[Scenario, float]:
        """The scenario of a plan, and the seconds it took to build."""
        from benchmark.run import preparation

        options = [plan.scenario_name, plan.effective()["scenario"], plan.seeds["class_order"], plan.job.validate]
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


def run_jobs(jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Does runs one after the other in this process; one that fails does not stop the others.

    Raises:
        Interrupted: Ctrl-C ends them all; what is finished is kept.
    """
    shelf, hooks = Shelf(), life_cycle()
    for job in jobs:
        try:
            outcome = run_one(job, shelf, hooks)
        except Interrupted:
            raise
        except BenchError as error:
            status: Literal["skipped", "failed"] = "skipped" if isinstance(error, RunBusy) else "failed"
            outcome = Outcome(job=job, status=status, error=error)
        yield outcome


def life_cycle() -> pluggy.PluginManager:
    """The life-cycle plugins; a broken one is left out, with a warning."""
    return registry.life_cycle(lambda _, error: warn(f"{error.message}; left out"))


def run_one(job: Job, shelf: Shelf, hooks: pluggy.PluginManager) -> Outcome:
    """What `run_job` and `run_jobs` do with one job."""
    from benchmark.run import engine, places, preparation

    plan = plan_of(job)
    root = None if job.data_root is None else user_path(job.data_root)
    scenario, seconds = shelf.scenario(plan, {"data_root": root, "cache": data.cache_root(), "download": job.download})
    prepared = preparation.prepare(plan, scenario, data_seconds=seconds)
    for odd in prepared.warnings:
        warn(odd)
    out = user_path(job.out)
    path = places.record_path(out, prepared)
    known = not job.force and places.is_finished(path)
    if known:
        places.tidy(path)
    else:
        path = engine.execute(prepared, out, hooks=hooks, quiet=job.quiet, force=job.force)
    return Outcome(job=job, status="known" if known else "done", path=path, label=prepared.label)


def expand(names: list[str], settings: Mapping[str, str], table: Mapping[str, Any]) -> list[str]:
    """Replaces a scenario whose variants belong together by these: ``name`` or ``name/all`` by ``name/a``, ``name/b``.

    A bare name stays as it is when the variant's option is given in another way.

    Args:
        names: What was asked for.
        settings: ``--set`` assignments.
        table: The configuration file.

    Raises:
        UsageError: ``/all`` of a scenario without such variants.
    """
    expanded = []
    for name in names:
        plain, _, variant = name.partition("/")
        if variant not in ("", "all"):
            expanded.append(name)
            continue
        spec = cast("ScenarioSpec", registry.load_scenario(plain).spec)
        if variant and not spec.variants:
            raise UsageError(
                f"`{name}`: the variants of `{plain}` do not belong together", hint=f"name one: {plain}/..."
            )
        scenarios = table.get("scenario")
        options = scenarios.get(plain) if isinstance(scenarios, Mapping) else None
        chosen = f"scenario.{spec.variant}" in settings or spec.variant in (
            options if isinstance(options, Mapping) else ()
        )
        if spec.variants and (variant or not chosen):
            expanded += [f"{plain}/{one}" for one in spec.variants]
        else:
            expanded.append(name)
    return list(dict.fromkeys(expanded))


def parse_seeds(value: str | int | tuple[int | str, ...]) -> list[int]:
    """Reads ``0``, ``0,3`` or ``0-4``.

    Raises:
        UsageError: Not a list of whole numbers that are 0 or more.
    """
    if not isinstance(value, str):
        value = ",".join(map(str, value if isinstance(value, tuple) else (value,)))
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
                f"--seed {shorten(value)}: `{shorten(part)}` is not a seed or a range of up to {MOST_SEEDS}",
                hint="for example --seed 0,1,2 or --seed 0-4",
            )
        seeds += numbers
    return list(dict.fromkeys(seeds))
