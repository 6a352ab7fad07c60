"""Trackers of a job: chosen by name, told of the run by the side of life-cycle plugins, and never in its way."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import pluggy

from benchmark import config as configs
from benchmark import events, registry
from benchmark.errors import BenchError, UsageError, warn
from benchmark.guard import Guard, said
from benchmark.hookspecs import hookimpl
from benchmark.jobs import Job
from benchmark.registry import Loaded
from benchmark.run.settings import part_options
from benchmark.specs import TrackerSpec
from benchmark.tracking import Kind, Point, Tracker, of_epoch, of_experience, of_past

T = TypeVar("T")


def options_of(name: str, layers: Sequence[configs.Layer]) -> tuple[Any, dict[str, str]]:
    """Options of a tracker: an object of its `config` class, or None, and where each value comes from.

    Raises:
        UsageError: There is no such tracker, option or value, or its library is not installed.
        PluginError: The tracker cannot be loaded.
    """
    spec = cast("TrackerSpec", registry.load("trackers", name).spec)
    found = part_options(spec.config, "tracker", name, layers)
    if spec.needs and importlib.util.find_spec(spec.needs) is None:
        raise UsageError(f"tracker `{name}` needs `{spec.needs}`, which is not installed", hint=spec.install or None)
    return found


def check(job: Job) -> None:
    """Looks at the trackers of a job.

    Raises:
        UsageError: See `options_of`.
        PluginError: See `options_of`.
    """
    for name, values in job.trackers.items():
        options_of(name, [configs.Layer("trackers", values)])


def joined(hooks: pluggy.PluginManager, trackers: Mapping[str, Mapping[str, Any]]) -> pluggy.PluginManager:
    """Life-cycle plugins, and behind them the trackers of one run.

    Args:
        hooks: The plugins; they stay as they are.
        trackers: `benchmark.Job.trackers`.
    """
    if not trackers:
        return hooks
    both = registry.without_life_cycle()
    for name, values in reversed(list(trackers.items())):  # the last registered is called first
        options, _ = options_of(name, [configs.Layer("trackers", values)])
        both.register(Told(registry.load("trackers", name), options), name=f"tracker {name}")
    for name, plugin in hooks.list_name_plugin():
        if plugin is not None:
            both.register(plugin, name=name)
    return both


class Told:
    """One tracker as a life-cycle plugin: tells it points, each once, until it raises.

    Args:
        loaded: Its spec.
        options: Object of its options.
    """

    def __init__(self, loaded: Loaded, options: Any) -> None:
        self._who = f"tracker `{loaded.entry.name}` of `{loaded.entry.distribution}`"
        self._spec = cast("TrackerSpec", loaded.spec)
        self._options = options
        self._tracker: Tracker | None = None
        self._known: set[tuple[Kind, int]] = set()
        self._tests: tuple[str, ...] = ()

    @hookimpl
    def bench_run_started(self, event: events.RunStarted) -> None:
        """Opens the run and brings its curves up to where it goes on."""
        self._tests = tuple(event.tests)
        self._tracker = self._call("open", self._open)
        if (tracker := self._tracker) is not None:
            self._known = self._call("begin", lambda: set(tracker.begin(event))) or set()
        for point in of_past(event.past, self._tests):
            self._write(point)

    @hookimpl
    def bench_epoch_ended(self, event: events.EpochEnded) -> None:
        """Writes the point of a pass."""
        self._write(of_epoch(event))

    @hookimpl
    def bench_experience_ended(self, event: events.ExperienceEnded) -> None:
        """Writes the point of an experience."""
        self._write(of_experience(event, self._tests))

    @hookimpl
    def bench_run_finished(self, event: events.RunFinished) -> None:
        """Closes the run."""
        if (tracker := self._tracker) is not None:
            self._call("finish", lambda: tracker.finish(event))

    @hookimpl
    def bench_run_failed(self, event: events.RunFailed) -> None:
        """Closes the run for now."""
        if (tracker := self._tracker) is not None:
            self._call("fail", lambda: tracker.fail(event))

    def _open(self) -> Tracker:
        tracker = self._spec.open(self._options)
        if not isinstance(tracker, Tracker):
            raise Guard(self._who).refuse("open", tracker, hint="return a benchmark.tracking.Tracker")
        return tracker

    def _write(self, point: Point) -> None:
        if (tracker := self._tracker) is not None and (point.kind, point.index) not in self._known:
            self._call("write", lambda: tracker.write(point))
            self._known.add((point.kind, point.index))

    def _call(self, what: str, function: Callable[[], T]) -> T | None:
        """What the tracker returns; None, with a warning, where it raises: then it is told nothing more."""
        from benchmark.run import checkpoint

        state = checkpoint.random_state()
        try:
            with Guard(self._who)(what):
                return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._tracker = None
            told = error.message if isinstance(error, BenchError) else f"{self._who}: {said(error)}"
            warn(f"{told}; the run goes on without it")
            return None
        finally:
            checkpoint.set_random_state(state)
