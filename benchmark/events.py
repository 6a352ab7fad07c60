"""What life-cycle plugins are told of: one frozen record per event, so that a field can be added and breaks no one.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.api import Method

__all__ = ["EpochEnded", "ExperienceEnded", "ExperienceStarted", "RunFailed", "RunFinished", "RunStarted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted:
    """A run begins, or is taken up again.

    Attributes:
        run_id: Identity of the run.
        scenario: Its name, with the variant.
        method: Its name, with the recipe unless that is the default.
        seed: The seed.
        experiences: Number of training experiences.
        path: Where the record will be.
    """

    run_id: str
    scenario: str
    method: str
    seed: int
    experiences: int
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperienceStarted:
    """An experience begins: `Method.begin_experience` was called, no batch was trained.

    Attributes:
        run_id: Identity of the run.
        experience: Its index, from 0.
        method: The method; look, do not touch.
    """

    run_id: str
    experience: int
    method: Method


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnded:
    """A pass over the training images is over. Methods with their own loop have one per experience.

    Attributes:
        run_id: Identity of the run.
        experience: Index of the experience, from 0.
        epoch: Index of the pass within the experience, from 0.
        epochs: Passes of the experience.
        losses: Mean loss terms of the pass.
        seconds: Training time of the experience so far.
    """

    run_id: str
    experience: int
    epoch: int
    epochs: int
    losses: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperienceEnded:
    """An experience was trained and evaluated, and is on disk.

    Attributes:
        run_id: Identity of the run.
        experience: Its index, from 0.
        accuracies: Row of the accuracy matrix, fractions in [0, 1]; None where not evaluated.
        method: The method; look, do not touch.
    """

    run_id: str
    experience: int
    accuracies: Sequence[float | None]
    method: Method


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished:
    """The record of a completed run is on disk.

    Attributes:
        run_id: Identity of the run.
        path: The record's file.
        record: Its content; do not change it.
    """

    run_id: str
    path: Path
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailed:
    """A run ended before its last experience; finished experiences are kept.

    Attributes:
        run_id: Identity of the run.
        path: Where its record is or would be.
        status: ``failed``, or ``interrupted`` by Ctrl-C.
        error: Why, in one line.
    """

    run_id: str
    path: Path
    status: Literal["failed", "interrupted"]
    error: str
