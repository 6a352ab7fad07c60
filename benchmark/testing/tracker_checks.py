"""Checks that every experiment tracker and every life-cycle plugin must pass: runs do not know of it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pluggy

from benchmark import hookspecs, registry
from benchmark.errors import BenchError, BenchWarning, PluginError, UsageError, did_you_mean
from benchmark.events import RunStarted
from benchmark.registry import Loaded
from benchmark.run import engine, tracking
from benchmark.run.interruption import Interrupted
from benchmark.testing.comparisons import difference, equal_trees
from benchmark.testing.disturbances import Stop, StopAtStep
from benchmark.testing.example_runs import toy_subject
from benchmark.testing.laboratory import MethodSubject, Outcome, manager, outcome
from benchmark.testing.observation import CheckFailed, CheckSkipped, Watcher, surroundings
from benchmark.tracking import Kind, Point


class Told(tracking.Told):
    """A tracker that is told of a run, and what it was told.

    Attributes:
        known: Points that it said were written before.
        written: Points that it was given.
    """

    known: set[tuple[Kind, int]]

    @hookspecs.hookimpl
    def bench_run_started(self, event: RunStarted) -> None:
        """Keeps what it knows before it is told more."""
        self.written: list[tuple[Kind, int]] = []
        super().bench_run_started(event)
        self.known = self._known - set(self.written)

    def _write(self, point: Point) -> None:
        if (point.kind, point.index) not in self._known:
            self.written.append((point.kind, point.index))
        super()._write(point)


@dataclass
class TrackerSubject:
    """A tracker, or a life-cycle plugin, under test.

    Attributes:
        name: Its name.
        tracker: What it registered, or None of a life-cycle plugin.
        module: The life-cycle plugin, or None of a tracker.
    """

    name: str
    tracker: Loaded | None = None
    module: ModuleType | None = None

    @cached_property
    def alone(self) -> Outcome:
        """The toy run without it."""
        return toy_subject().run(look=True)

    @cached_property
    def told(self) -> Outcome:
        """The same run with it."""
        subject = toy_subject()
        with _elsewhere() as folder:
            watcher = Watcher(subject.prepare(subject.scenario()))
            path = engine.execute(watcher.prepared, folder, hooks=self.hooks(watcher), quiet=True)
            return outcome(path, watcher)

    def told_of(self) -> Told:
        """The tracker for one run, with its default options.

        Raises:
            CheckSkipped: Its library is not installed, or it is no tracker.
        """
        if self.tracker is None:
            raise CheckSkipped("it is a life-cycle plugin: it is told again of what is done again")
        try:
            options, _ = tracking.options_of(self.name, [])
        except UsageError as error:
            raise CheckSkipped(f"{error.message}; {error.hint}") from error
        return Told(self.tracker, options)

    def hooks(self, *others: object) -> pluggy.PluginManager:
        """It, and others."""
        made = manager(others)
        made.register(self.module or self.told_of(), name=self.name)
        return made


def tracker_subject(name: str) -> TrackerSubject:
    """The subject for a registered tracker.

    Raises:
        UsageError: No such tracker.
        PluginError: Its plugin is broken.
    """
    return TrackerSubject(name, tracker=registry.load("trackers", name))


def listener_subject(name: str) -> TrackerSubject:
    """The subject for an installed life-cycle plugin, of the group ``bench``.

    Raises:
        UsageError: No such plugin.
        PluginError: It is broken, or two packages claim the name.
    """
    known = registry.listeners()
    if name not in known:
        raise did_you_mean("life-cycle plugin", name, known)
    if len(known[name]) > 1:
        who = " and ".join(f"`{entry.distribution}` ({entry.module})" for entry in known[name])
        raise PluginError(f"`{name}` is claimed by {who}", hint="uninstall one of them, or rename its entry point")
    (entry,) = known[name]
    return TrackerSubject(name, module=registry.load_listener(entry))


def hooks(subject: TrackerSubject) -> None:
    """It listens to at least one event of runs."""
    known = [name for name in vars(hookspecs) if name.startswith("bench_")]
    if subject.module and not any(callable(getattr(subject.module, name, None)) for name in known):
        raise CheckFailed(
            "it implements no hook of runs", hint="docs/hooks.md has every hook; mark yours by `@hookimpl`"
        )


def run(subject: TrackerSubject) -> None:
    """A run with it gives the numbers of a run without it, bit for bit."""
    if (found := difference(subject.alone, subject.told, scenario_part=False)) is not None:
        raise CheckFailed(f"with it, {found}", hint="draw no random numbers, and change nothing that you are given")
    for one, two in zip(subject.alone.watcher.sights, subject.told.watcher.sights, strict=True):
        if one.state.keys() != two.state.keys() or any(not two.state[key].equal(one.state[key]) for key in one.state):
            raise CheckFailed("with it, the method has other weights", hint="look at the method, do not touch it")


def around(subject: TrackerSubject) -> None:
    """Random generators, threads, folder, environment and default types are left as they are."""
    subject.told  # noqa: B018 - imports, which may set variables once, are over now
    own = toy_subject()
    with _elsewhere() as folder:
        before = surroundings()
        engine.execute(own.prepare(own.brief()), folder, hooks=subject.hooks(), quiet=True)
        after = surroundings()
    for name, value in before.items():
        if not equal_trees(value, after[name]):
            raise CheckFailed(f"a run with it changes {name}", hint="put it back, or do without")


def resume(subject: TrackerSubject) -> None:
    """A run that is stopped and taken up again goes through, to the same numbers."""
    own = toy_subject()
    with _elsewhere() as folder:
        for stop in (Stop(step=1), Stop(after=0), Stop(before=2)):
            _stop(own, folder, [subject.module or subject.told_of()], stop)
        watcher = Watcher(own.prepare(own.scenario(), every_step=True), look=False)
        path = engine.execute(watcher.prepared, folder, hooks=subject.hooks(watcher), quiet=True)
        done = outcome(path, watcher)
    if (found := difference(subject.alone, done, scenario_part=False)) is not None:
        raise CheckFailed(f"stopped and resumed, {found}", hint="change nothing that you are given")


def points(subject: TrackerSubject) -> None:
    """Every point of a run that was interrupted is written once: it knows what it has, and only that."""
    own = toy_subject()
    written: list[tuple[Kind, int]] = []
    with _elsewhere() as folder:
        for stop in (Stop(step=1), Stop(after=0), Stop(before=2), None):
            told = subject.told_of()
            if stop is None:
                prepared = own.prepare(own.scenario(), every_step=True)
                engine.execute(prepared, folder, hooks=manager([told]), quiet=True)
            else:
                _stop(own, folder, [told], stop)
            if told.known != set(written):
                raise CheckFailed(
                    f"taken up again, it knows {sorted(told.known)}; written were {sorted(written)}",
                    hint="`begin` returns kind and index of every point that was written before",
                )
            written += told.written
    if len(written) != len(set(written)) or not written:
        raise CheckFailed(f"points were written twice, or none: {sorted(written)}")


def failed(subject: TrackerSubject) -> None:
    """A run that fails ends with its own error, not with one of the tracker."""
    own = toy_subject()
    prepared = own.prepare(own.scenario())

    class Fails:
        @hookspecs.hookimpl
        def bench_experience_started(self) -> None:
            raise KeyError(REASON)

    with _elsewhere() as folder:
        try:
            engine.execute(prepared, folder, hooks=subject.hooks(Fails()), quiet=True)
        except BenchError as error:
            if REASON in error.message:
                return
            raise CheckFailed(f"the run failed for another reason: {error.message}", hint=error.hint) from error
    raise CheckFailed("the run did not fail")


REASON = "this run was made to fail"


def _stop(own: MethodSubject, folder: Path, told: list[object], stop: Stop) -> None:
    prepared = own.prepare(own.scenario(), every_step=True)
    watcher = Watcher(prepared, stop_before=stop.before, stop_after=stop.after, look=False)
    with contextlib.suppress(Interrupted):
        engine.execute(prepared, folder, hooks=manager([*told, watcher]), quiet=True, stop=StopAtStep(stop.step))
        raise CheckFailed(f"the run was not stopped {stop}: it did not get there")


@contextlib.contextmanager
def _elsewhere() -> Iterator[Path]:
    """An empty folder, which is the current one: trackers may write where they are.

    Raises:
        CheckFailed: The tracker failed where a run only warns of it: when the run had failed already.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BenchWarning)
        os.chdir(folder)
        try:
            yield Path(folder) / "runs"
        finally:
            os.chdir(before)
    for warning in caught:
        if re.search("life-cycle plugin|tracker `", str(warning.message)):
            raise CheckFailed(str(warning.message), hint="it may be told of a failure at any time")


TRACKER_CHECKS: dict[str, Callable[[TrackerSubject], None]] = {
    "hooks": hooks,
    "run": run,
    "surroundings": around,
    "resume": resume,
    "points": points,
    "failed": failed,
}
