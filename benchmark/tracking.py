"""Curves of runs for experiment trackers: what an author implements, `Tracker`, and the points that it is handed.

`benchmark.specs.TrackerSpec` registers one, ``bench run --tracker NAME`` chooses it. It is no part of what a run is,
and nothing that a tracker does harms a run or its record. Nothing here imports torch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.events import EpochEnded, ExperienceEnded, PastExperience, RunFailed, RunFinished, RunStarted

__all__ = ["Kind", "Point", "Tracker", "final", "flat"]

Kind = Literal["epoch", "experience"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What is known at one place of a run.

    Attributes:
        kind: Whether a pass over the training samples or an experience ended here.
        index: Index of the pass within the run, or of the experience, from 0.
        step: Place among all points of the run, from 0: passes and experiences count.
        values: Of passes ``loss/NAME``, each mean loss term, and ``seconds/train``, the training time of the experience
            so far. Of experiences ``accuracy/TEST``, a fraction for each test set that was shown, their unweighted mean
            ``average_accuracy``, and ``seconds/experience``, the training time of the experience.
    """

    kind: Kind
    index: int
    step: int
    values: Mapping[str, float]


class Tracker(abc.ABC):
    """Keeps the curves of one run; made anew for each, by `TrackerSpec.open`.

    Each point is written once, also when a run is interrupted and taken up again: its points are the same then, and
    those that `begin` says are there already are left out. Whatever a tracker raises is a warning that names it; it is
    told nothing more of the run, which goes on. Random state is put back after every call.
    """

    @abc.abstractmethod
    def begin(self, event: RunStarted) -> Collection[tuple[Kind, int]]:
        """Opens the run, or takes it up again.

        Args:
            event: The run. ``run_id`` is the same whenever it is taken up again, and of a repetition (``--force``).

        Returns:
            Kind and index of the points that were written before.
        """

    @abc.abstractmethod
    def write(self, point: Point) -> None:
        """Keeps one point; it must be on disk, or with a process that outlives this one, when this returns."""

    @abc.abstractmethod
    def finish(self, event: RunFinished) -> None:
        """Closes the run: its record is on disk. `final` has the numbers of it."""

    @abc.abstractmethod
    def fail(self, event: RunFailed) -> None:
        """Closes the run for now: it was interrupted, or failed; it may be taken up again."""


def final(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a record that are one number, by name."""
    values = record["metrics"] or {}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}


def flat(event: RunStarted) -> dict[str, bool | int | float | str]:
    """What a run is, as plain values by one name each: ``method``, ``seed.init``, ``option.method.lr``."""
    found: dict[str, Any] = {
        name: getattr(event, name)
        for name in ("run_id", "method", "scenario", "family", "track", "backbone", "device", "experiences")
    }
    found |= {("seed" if name == "seed" else f"seed.{name}"): value for name, value in event.seeds.items()}
    for group, options in event.config.items():
        found |= {f"option.{group}.{name}": value for name, value in options.items()}
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in found.items()}


def of_epoch(event: EpochEnded) -> Point:
    """The point of a pass."""
    values = {f"loss/{name}": value for name, value in event.losses.items()} | {"seconds/train": event.seconds}
    return Point(kind="epoch", index=event.run_epoch, step=event.run_epoch + event.experience, values=values)


def of_experience(event: ExperienceEnded, tests: Sequence[str]) -> Point:
    """The point of an experience.

    Args:
        event: Its end.
        tests: Names of the test sets.
    """
    return _experience(event.experience, event.accuracies, event.seconds, event.run_epochs, tests)


def of_past(past: Sequence[PastExperience], tests: Sequence[str]) -> Iterator[Point]:
    """The points of what a run has behind it; of passes only the losses are known then."""
    epochs = 0
    for one in past:
        for losses in one.losses:
            values = {f"loss/{name}": value for name, value in losses.items()}
            yield Point(kind="epoch", index=epochs, step=epochs + one.experience, values=values)
            epochs += 1
        if one.accuracies:
            yield _experience(one.experience, one.accuracies, one.seconds, epochs, tests)


def _experience(
    index: int, accuracies: Sequence[float | None], seconds: float, epochs: int, tests: Sequence[str]
) -> Point:
    shown = {f"accuracy/{name}": value for name, value in zip(tests, accuracies, strict=True) if value is not None}
    values = {**shown, "seconds/experience": seconds}
    if shown:
        values["average_accuracy"] = math.fsum(shown.values()) / len(shown)
    return Point(kind="experience", index=index, step=epochs + index, values=values)
