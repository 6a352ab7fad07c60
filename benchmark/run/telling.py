"""Tells life-cycle plugins of the events of one run; what they raise is blamed on the right one."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pluggy

from benchmark import events
from benchmark.api import Method
from benchmark.guard import Guard
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress


class Teller:
    """The life-cycle plugins of one run.

    Args:
        hooks: The plugins.
        prepared: The run.
        path: Where its record will be.
    """

    def __init__(self, hooks: pluggy.PluginManager, prepared: Prepared, path: Path) -> None:
        self._hooks = hooks
        self._prepared = prepared
        self._plan = prepared.plan
        self._run_id = prepared.run_id
        self._path = path
        self._done = Progress()

    def run_started(self, done: Progress, middle: Mapping[str, Any] | None) -> None:
        """See `benchmark.events.RunStarted`.

        Args:
            done: What the run has behind it; asked again at every event.
            middle: Checkpoint in the middle of the experience to go on with, if there is one.
        """
        self._done = done
        plan, stream = self._plan, self._prepared.stream
        event = events.RunStarted(
            run_id=self._run_id,
            scenario=plan.scenario_name,
            method=plan.method_label,
            seed=plan.seeds["seed"],
            experiences=len(stream.scenario.experiences),
            path=self._path,
            family=stream.scenario.family,
            track=plan.track,
            backbone=self._prepared.pretrained.name,
            device=str(self._prepared.device),
            seeds=dict(plan.seeds),
            config=plan.effective(),
            tests=tuple(stream.names),
            resumed=done.resumed,
            past=tuple(_past(done, middle)),
        )
        with self._called("bench_run_started") as hook:
            hook.bench_run_started(event=event)

    def experience_started(self, index: int, method: Method) -> None:
        """See `benchmark.events.ExperienceStarted`."""
        event = events.ExperienceStarted(run_id=self._run_id, experience=index, method=method)
        with self._called("bench_experience_started") as hook:
            hook.bench_experience_started(event=event)

    def epoch_ended(self, index: int, epoch: int, epochs: int, losses: Mapping[str, float], seconds: float) -> None:
        """See `benchmark.events.EpochEnded`."""
        event = events.EpochEnded(
            run_id=self._run_id,
            experience=index,
            epoch=epoch,
            epochs=epochs,
            losses=dict(losses),
            seconds=seconds,
            run_epoch=_epochs(self._done, index) + epoch,
        )
        with self._called("bench_epoch_ended") as hook:
            hook.bench_epoch_ended(event=event)

    def experience_ended(self, index: int, accuracies: Sequence[float | None], method: Method) -> None:
        """See `benchmark.events.ExperienceEnded`."""
        event = events.ExperienceEnded(
            run_id=self._run_id,
            experience=index,
            accuracies=tuple(accuracies),
            method=method,
            seconds=self._done.train_seconds[index],
            run_epochs=_epochs(self._done, index + 1),
        )
        with self._called("bench_experience_ended") as hook:
            hook.bench_experience_ended(event=event)

    def run_finished(self, record: Mapping[str, Any]) -> None:
        """See `benchmark.events.RunFinished`."""
        event = events.RunFinished(run_id=self._run_id, path=self._path, record=record)
        with self._called("bench_run_finished") as hook:
            hook.bench_run_finished(event=event)

    def run_failed(self, status: Literal["failed", "interrupted"], error: BaseException) -> None:
        """See `benchmark.events.RunFailed`."""
        event = events.RunFailed(
            run_id=self._run_id,
            path=self._path,
            status=status,
            error=f"{error}",
            finished=self._done.experience,
        )
        with self._called("bench_run_failed") as hook:
            hook.bench_run_failed(event=event)

    @contextlib.contextmanager
    def _called(self, name: str) -> Iterator[Any]:
        """Around the call of a hook: an exception is blamed on the plugin whose function is in its trace."""

        def culprit(error: BaseException) -> str:
            codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
            plugins = getattr(self._hooks.hook, name).get_hookimpls()
            guilty = [one.plugin_name for one in plugins if getattr(one.function, "__code__", None) in codes]
            names = guilty[:1] or [one.plugin_name for one in plugins]
            return f"life-cycle plugin `{' or '.join(names)}`"

        with Guard(culprit, hint="-v shows where; BENCH_DISABLE_PLUGINS=NAME leaves it out")(name):
            yield self._hooks.hook


def _epochs(done: Progress, experience: int) -> int:
    """Passes over the training images before an experience."""
    return sum(map(len, done.losses[:experience]))


def _past(done: Progress, middle: Mapping[str, Any] | None) -> Iterator[events.PastExperience]:
    for index in range(done.experience):
        row = done.rows[index] if index < len(done.rows) else ()
        losses = tuple(map(dict, done.losses[index]))
        yield events.PastExperience(
            experience=index, losses=losses, accuracies=tuple(row), seconds=done.train_seconds[index]
        )
    if middle is not None:
        losses = tuple(map(dict, middle["losses"]))
        yield events.PastExperience(experience=done.experience, losses=losses, accuracies=(), seconds=middle["seconds"])
