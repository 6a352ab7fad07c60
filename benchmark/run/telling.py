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


class Teller:
    """The life-cycle plugins of one run.

    Args:
        hooks: The plugins.
        prepared: The run.
        path: Where its record will be.
    """

    def __init__(self, hooks: pluggy.PluginManager, prepared: Prepared, path: Path) -> None:
        self._hooks = hooks
        self._plan = prepared.plan
        self._run_id = prepared.run_id
        self._path = path

    def run_started(self, experiences: int) -> None:
        """See `benchmark.events.RunStarted`."""
        event = events.RunStarted(
            run_id=self._run_id,
            scenario=self._plan.scenario_name,
            method=self._plan.method_label,
            seed=self._plan.seeds["seed"],
            experiences=experiences,
            path=self._path,
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
            run_id=self._run_id, experience=index, epoch=epoch, epochs=epochs, losses=dict(losses), seconds=seconds
        )
        with self._called("bench_epoch_ended") as hook:
            hook.bench_epoch_ended(event=event)

    def experience_ended(self, index: int, accuracies: Sequence[float | None], method: Method) -> None:
        """See `benchmark.events.ExperienceEnded`."""
        event = events.ExperienceEnded(
            run_id=self._run_id, experience=index, accuracies=tuple(accuracies), method=method
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
        event = events.RunFailed(run_id=self._run_id, path=self._path, status=status, error=f"{error}")
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
