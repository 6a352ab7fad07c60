"""Runs from Python: `run` does what ``bench run`` does, and returns the records."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Literal

from benchmark import config as configs
from benchmark import records
from benchmark.errors import BenchError, RunBusy, UsageError, warn
from benchmark.files import user_path
from benchmark.jobs import How, Job, Outcome
from benchmark.results.collection import Names, PathLike, Records, Seeds


def run(
    *,
    scenario: Names,
    method: Names,
    seeds: Seeds = 0,
    settings: Mapping[str, object] | None = None,
    grid: Mapping[str, Sequence[object]] | None = None,
    track: str | None = None,
    backbone: str | None = None,
    weights: PathLike | None = None,
    class_order_seeds: Seeds | None = None,
    init_seeds: Seeds | None = None,
    data_seeds: Seeds | None = None,
    validate: int = 0,
    out: PathLike = "runs",
    data_root: PathLike | None = None,
    download: Literal["auto", "always", "never"] = "auto",
    device: str = "auto",
    jobs: int | None = None,
    executor: str = "local",
    executor_options: Mapping[str, object] | None = None,
    tracker: Names = (),
    tracker_options: Mapping[str, Mapping[str, object]] | None = None,
    lock_kind: Literal["file", "lease"] = "file",
    force: bool = False,
    quiet: bool = True,
    errors: Literal["raise", "warn"] = "raise",
    **options: object,
) -> Records:
    """Does every combination of scenarios, methods and seeds, as ``bench run`` would.

    What is finished in ``out`` is read and not done again, and what was interrupted goes on where it was. Ctrl-C ends
    the call with `benchmark.run.interruption.Interrupted`; finished runs are kept, and the same call goes on.

    Args:
        scenario: One or several, e.g. ``"split-cifar100/10x10"`` or ``["glyphs-uda", "digits-uda"]``; a family stands
            for its variants.
        method: One or several, with or without recipe, e.g. ``"l2p@pilot,finetune"``.
        seeds: E.g. ``0``, ``"0-4"`` or ``[0, 3]``.
        settings: Options by the keys of ``--set``: ``{"scenario.train": 20, "l2p.lr": 0.01}``.
        grid: Options that differ, each with its values: ``{"lr": [0.1, 0.01]}``; every combination is run.
        track: Default: the scenario's first.
        backbone: Default: the track's.
        weights: File with weights of your own for the backbone.
        class_order_seeds: Seeds of the class order alone.
        init_seeds: Seeds of the initialisation alone.
        data_seeds: Seeds of data order and augmentation alone.
        validate: First N experiences, tested on held-out training samples, to choose hyper-parameters.
        out: Results folder.
        data_root: Folder with data sets; default ``BENCH_DATA`` or the user's data folder.
        download: ``auto`` (small sets are fetched), ``always`` or ``never``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        jobs: Runs at once, each in a process of its own; default: one after the other, in this process.
        executor: Where runs are done (``bench list executors``).
        executor_options: Its options.
        tracker: Experiment trackers that are told of the runs (``bench list trackers``), e.g. ``"tensorboard"``.
        tracker_options: Options of each, ``{"tensorboard": {"dir": "logs"}}``.
        lock_kind: ``file``, or ``lease`` where file locks do not work between machines that share ``out``.
        force: Whether finished runs are done again, and unfinished ones from the beginning.
        quiet: Whether there is no progress bar.
        errors: What happens to failures when several runs were asked for and all others are done: ``raise`` the first,
            or ``warn`` of each and return the rest. One run alone always raises.
        options: Options of the method or of every method, as ``settings`` without a dot: ``epochs=1``.

    Returns:
        The records, in the order of scenarios, seeds and methods.

    Raises:
        UsageError: Unknown name, option or value.
        PluginError: A plugin is broken or breaks its contract.
        DataMissing: Data or weights are absent or damaged.
        RunBusy: Another process works on the one run.
        RunFailed: Training had to stop; what is finished is kept.
        Interrupted: Ctrl-C, likewise.

    Example:
        >>> runs = run(scenario="split-glyphs", method="nearest-mean", seeds=[0, 1])
        >>> runs
        <2 records: 1 method, 1 scenario, 2 seeds>
        >>> 0 < runs[0].number("final_avg_acc") <= 1
        True
        >>> run(scenario="split-glyphs", method="nearest-mean", epoch=3)
        Traceback (most recent call last):
        benchmark.errors.UsageError: --set: unknown option `method.nearest-mean.epoch`
    """
    from benchmark.run import executors, requests
    from benchmark.run import jobs as running

    if errors not in ("raise", "warn"):
        raise UsageError(f"errors: {errors!r} is unknown", hint="use raise or warn")
    common = Job(
        scenario="",
        method="",
        track=track,
        backbone=backbone,
        weights=None if weights is None else str(user_path(weights)),
        settings=_settings(settings or {}, options),
        validate=validate,
        device=device,
        out=str(user_path(out)),
        data_root=None if data_root is None else str(user_path(data_root)),
        download=download,
        trackers=_trackers(tracker, tracker_options or {}),
        lock_kind=lock_kind,
        force=force,
        quiet=quiet,
    )
    asked, _ = requests.jobs_of(
        common,
        scenarios=scenario,
        methods=method,
        seeds=seeds,
        class_order_seeds=class_order_seeds,
        init_seeds=init_seeds,
        data_seeds=data_seeds,
        grid=_grid(grid or {}, common.settings),
    )
    if not asked:
        raise UsageError("no run was asked for", hint='name both, e.g. scenario="split-glyphs", method="l2p"')
    running.plans_of(asked)  # every name and option is checked before the first run
    layers = [configs.Layer("executor_options", executor_options or {})]
    chosen, _ = executors.options_of(executor, layers)
    how = How(workers=_workers(jobs), options=chosen)
    with contextlib.closing(executors.execute(executor, asked, how)) as outcomes:
        ended = {outcome.job: outcome for outcome in outcomes}
    return _records([ended[job] for job in asked], raising=errors == "raise", out=common.out)


def _records(outcomes: Sequence[Outcome], *, raising: bool, out: str) -> Records:
    """The records of finished runs.

    Raises:
        BenchError: One failed, and it was alone or ``raising``.
    """
    failed: list[tuple[Outcome, BenchError]] = [(one, one.error) for one in outcomes if one.error is not None]
    if failed and len(outcomes) == 1:
        raise failed[0][1]
    broken = [error for _, error in failed if not isinstance(error, RunBusy)]
    if broken and raising:
        error, left = broken[0], len(outcomes) - len(broken)
        error.hint = "; ".join(
            [
                *([error.hint] if error.hint else []),
                f'{len(broken)} of {len(outcomes)} runs failed, benchmark.load("{out}") reads the records of the others'
                if left
                else f"all {len(outcomes)} runs failed",
            ]
        )
        raise error
    for one, error in failed:
        verb = "skipped" if one.status == "skipped" else "failed"
        warn(f"{one.job.method} on {one.job.scenario}, seed {one.job.seed} {verb}: {error.message}")
    return Records({one.path: records.read(one.path) for one in outcomes if one.path is not None})


def _settings(settings: Mapping[str, object], options: Mapping[str, object]) -> dict[str, str]:
    """Options as ``--set`` takes them.

    Raises:
        UsageError: One is given twice.
    """
    for key in options.keys() & settings.keys():
        raise UsageError(f"`{key}` is an argument and in settings", hint="leave one of them out")
    return {key: configs.as_text(value) for key, value in {**settings, **options}.items()}


def _trackers(names: Names, options: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Trackers with their options as `benchmark.Job` has them.

    Raises:
        UsageError: There are options of another one.
    """
    split = names.split(",") if isinstance(names, str) else names
    found = {name.strip(): dict(options.get(name.strip(), {})) for name in split if name.strip()}
    for name in options.keys() - found.keys():
        raise UsageError(f"tracker_options: `{name}` is not among the trackers", hint=f'give tracker="{name}"')
    return found


def _grid(grid: Mapping[str, Sequence[object]], settings: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for key, values in grid.items():
        if key in settings:
            raise UsageError(f"`{key}` is in the settings and in the grid", hint="leave one of them out")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UsageError(f"grid: {key}: no list of values", hint=f'for example grid={{"{key}": [1, 2]}}')
        found[key] = tuple(dict.fromkeys(map(configs.as_text, values)))
    return found


def _workers(jobs: int | None) -> int:
    if jobs is None:
        return 0
    if type(jobs) is not int or jobs < 1:
        raise UsageError(f"jobs: {jobs!r} is too small", hint="at least one run goes on at a time; use a whole number")
    return jobs
