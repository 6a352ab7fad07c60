"""The check that a method runs on a GPU, for machines without one: see `benchmark.testing.pretended_device`."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark import records
from benchmark.api import Scenario
from benchmark.errors import PluginError
from benchmark.events import EpochEnded, ExperienceStarted
from benchmark.hookspecs import hookimpl
from benchmark.run import engine
from benchmark.run.interruption import Interrupted
from benchmark.testing import pretended_device
from benchmark.testing.comparisons import close
from benchmark.testing.disturbances import StopAtStep
from benchmark.testing.laboratory import TOLERANCE, MethodSubject, Outcome, manager, outcome
from benchmark.testing.observation import Answers, CheckFailed, CheckSkipped, Watcher
from benchmark.testing.pretended_device import Traffic

KNOWN = ("transformers/masking_utils.py",)
"""Where a library waits, whatever a method does: transformers asks whether a batch of texts is padded at all."""
COPIES = 24
"""Copies between host and device that a training step may make: samples, labels and the numbers of an augmentation."""


class Meter(StopAtStep):
    """Counts the traffic of every training step of a process: of the step, and of the way to the next one.

    Attributes:
        steps: For each but the first of an experience, which may prepare what the others use: the copies made, and
            where the host waited.
    """

    def __init__(self, traffic: Traffic, stop: int = -1) -> None:
        super().__init__(stop)
        self._traffic = traffic
        self._begun: tuple[int, int] | None = None
        self._first = True
        self.steps: list[tuple[int, list[str]]] = []

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Asked by the engine around every step."""
        self._count()
        with super().deferring():
            self._begun = self._traffic.copies, len(self._traffic.waits)
            yield
        self._ended = self._traffic.copies, len(self._traffic.waits)

    def _count(self, *, whole: bool = True) -> None:
        """The step that is over, with the way to here or without."""
        if self._begun is not None and not self._first:
            copies, waits = self._traffic.copies, len(self._traffic.waits)
            if not whole:
                copies, waits = self._ended
            self.steps.append((copies - self._begun[0], self._traffic.waits[self._begun[1] : waits]))
        self._first = self._first and self._begun is None
        self._begun = None

    @hookimpl
    def bench_experience_started(self, event: ExperienceStarted) -> None:
        """The next step is a first one."""
        self._first = True

    @hookimpl
    def bench_epoch_ended(self, event: EpochEnded) -> None:
        """What lies between two epochs, e.g. that losses are read, belongs to no step."""
        self._count(whole=False)


def device(subject: MethodSubject) -> None:
    """It runs on a GPU, a pretended one: as on the CPU, stopped and resumed, and no training step waits for it."""
    if (reason := pretended_device.missing()) is not None:
        raise CheckSkipped(reason)
    judge(compared(subject, subject.scenario(experiences=2, train=6, test=1)), subject.spec.waits)


def judge(meters: Sequence[Meter], allowed: int) -> None:
    """Fails where a step waits or copies more than it may. Methods with a loop of their own have no steps to look at.

    Args:
        meters: What was counted.
        allowed: `MethodSpec.waits` of the method.
    """
    for copies, waits in (step for meter in meters for step in meter.steps):
        waits = [wait for wait in waits if not any(place in wait for place in KNOWN)]
        if len(waits) > allowed:
            told = "; ".join(f"{what} ({count} times)" for what, count in Counter(waits).most_common(4))
            raise CheckFailed(
                f"in a training step the host waits {len(waits)} times for the device, {allowed} are fine: {told}",
                hint="keep numbers on the device and copy to it with non_blocking=True; `MethodSpec.waits` allows some",
            )
        if copies > COPIES:
            raise CheckFailed(
                f"a training step makes {copies} copies between host and device, at most {COPIES} are fine",
                hint="copy what stays the same once",
            )


def compared(subject: MethodSubject, scenario: Scenario) -> list[Meter]:
    """Runs a method on the CPU, and on a pretended GPU, where it is stopped before its second step and resumed.

    Returns:
        What was counted in the pieces on the GPU.

    Raises:
        CheckFailed: The two runs differ, or devices are mixed.
    """
    with sdpa_kernel(SDPBackend.MATH):
        expected = subject.run(scenario)
        with tempfile.TemporaryDirectory() as folder, pretended_device.present() as traffic:
            meters = [Meter(traffic, stop=1)]
            try:
                with contextlib.suppress(Interrupted):
                    found = _piece(subject, scenario, Path(folder), meters[-1], every_step=True)
                    meters.clear()  # it has no second step
                if meters:
                    meters.append(Meter(traffic))
                    found = _piece(subject, scenario, Path(folder), meters[-1])
            except PluginError as error:
                if not isinstance(error.__cause__, NotImplementedError):
                    raise
                raise CheckSkipped(f"it uses what a pretended device cannot do: {error.message}") from error
    alike(found, expected)
    return meters


def _piece(
    subject: MethodSubject, scenario: Scenario, folder: Path, meter: Meter, *, every_step: bool = False
) -> Outcome:
    prepared = subject.prepare(scenario, device=pretended_device.NAME, every_step=every_step)
    watcher = Watcher(prepared, look=False)
    path = engine.execute(prepared, folder, hooks=manager([watcher, meter]), quiet=True, stop=meter)
    return outcome(path, watcher)


def alike(found: Outcome, expected: Outcome) -> None:
    """Fails where a run on a device is not that on the CPU, but for rounding."""
    what, hint = "on a GPU and on the CPU", "does it ask which device it is on, or draw random numbers there only?"
    one, two = (records.comparable(run.record)["cost"] for run in (found, expected))
    for name in one:  # FLOPs are those of the kernels of a device, e.g. of an LSTM
        if one[name] != two[name] and not name.startswith(("flops", "macs")):
            raise CheckFailed(f"{what} its {name} differs: {one[name]} and {two[name]}", hint=hint)
    for one, two in zip(_losses(found), _losses(expected), strict=True):
        if not math.isclose(one, two, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise CheckFailed(f"{what} its losses differ: {one} and {two}", hint=hint)
    close(_answers(found), _answers(expected), f"{what} it predicts otherwise", hint)


def _losses(run: Outcome) -> list[float]:
    return [value for experience in run.record["losses"] for epoch in experience for value in epoch.values()]


def _answers(run: Outcome) -> Answers:
    kept = run.predictions
    order = np.lexsort((kept.sample_id, kept.test_set, kept.experience))
    if kept.logits is None:
        return tuple(str(text) for text in (kept.text if kept.text is not None else kept.prediction)[order])
    return torch.from_numpy(kept.logits[order])
