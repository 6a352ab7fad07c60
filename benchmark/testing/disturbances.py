"""What must not matter to a run of a method, and ways to change it: numbers, hidden answers, interruptions."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.api import Experience, ExperienceView, LoopMethod, Manifest, Method, Scenario
from benchmark.records import Record
from benchmark.run import interruption
from benchmark.run.preparation import Prepared
from benchmark.testing import raw


@dataclass(frozen=True)
class Stop:
    """A place at which a run is stopped: before or after an experience, or before a training step."""

    before: int = -1
    after: int = -1
    step: int = -1

    def __str__(self) -> str:
        if self.step >= 0:
            return f"before training step {self.step}"
        return f"after experience {self.after}" if self.after >= 0 else f"at the start of experience {self.before}"


class StopAtStep(interruption.Stop):
    """Stops a run as Ctrl-C would, before one of the training steps of this process; never if it is negative."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Asked by the engine around every step."""
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        with super().deferring():
            yield


def renumbered(base: type[ExperienceView]) -> type[ExperienceView]:
    """A kind of view before whose experiences come seven empty ones; everything that may be read is the same."""

    class Renumbered(base):  # type: ignore[valid-type,misc]  # a class that is an argument
        """The view."""

        def __init__(self, scenario: Scenario, index: int, manifest: Manifest) -> None:
            first = scenario.experiences[0]
            nothing = first.train.subset(torch.arange(0))
            empty = Experience(train=nothing, test=nothing, classes=())
            shifted = dataclasses.replace(scenario, experiences=(*[empty] * 7, *scenario.experiences))
            super().__init__(shifted, index + 7, manifest)

    return Renumbered


def other_labels(scenario: Scenario) -> Scenario:
    """The scenario with other labels and references of all test and target samples."""
    parts = tuple(
        dataclasses.replace(
            part,
            test=raw.other_answers(part.test),
            target_labels=None if part.target_labels is None else part.target_labels.flip(0),
        )
        for part in scenario.experiences
    )
    tests = tuple(dataclasses.replace(test, images=raw.other_answers(test.images)) for test in scenario.tests)
    return dataclasses.replace(scenario, experiences=parts, tests=tests)


def stops_of(prepared: Prepared, method: Method, record: Record) -> list[Stop]:
    """One place of every kind, in the order of a run: each stop is of a process that the one before it made resume.

    They are the second step of all, a late step of the first experience, in the middle of the second experience after
    a boundary has been crossed, between experiences, and at the start of the last one.

    Args:
        prepared: The run, undisturbed.
        method: The method that it trained.
        record: Its record.
    """
    last = len(prepared.stream.scenario.experiences) - 1
    steps: list[int] = []
    first = 0
    if not isinstance(method, LoopMethod):
        config: Any = prepared.plan.method_config
        passes = [len(losses) for losses in record["losses"]]  # a method may make none at all
        images = len(prepared.stream.scenario.experiences[0].train)
        first = -(-images // config.batch_size) * passes[0]
        end = first + 2 if last and passes[1] else first
        steps = [step for step in sorted({1, first - 1, first + 1}) if 0 < step < end]
        steps += [first + batches for batches in _in_stream(prepared)]
    found = [Stop(step=step - before) for before, step in zip([0, *steps], steps, strict=False)]
    crossed = any(step > first for step in steps)
    found += [Stop(after=index) for index in range(int(crossed), last)]
    at_start = Stop(before=last)
    return [*found, at_start] if last else [at_start, *found]


def _in_stream(prepared: Prepared) -> tuple[int, ...]:
    """Of a stream of test batches: behind the first one, between two segments, and in the middle of the second."""
    stream = prepared.stream.scenario.test_stream
    if stream is None:
        return ()
    segment = -(-len(stream.segments[0].images) // stream.batch_size)
    return (1, segment, segment + 2)
