"""What life-cycle plugins are told of: one frozen record per event, so that a field can be added and breaks no one.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.api import Method

__all__ = [
    "EpochEnded",
    "ExperienceEnded",
    "ExperienceStarted",
    "PastExperience",
    "RunFailed",
    "RunFinished",
    "RunStarted",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PastExperience:
    """What is known of an experience when a run is taken up again.

    Attributes:
        experience: Its index, from 0.
        losses: Mean loss terms of each finished pass.
        accuracies: Row of the accuracy matrix, fractions in [0, 1], None where not evaluated; empty while the
            experience is not over.
        seconds: Its training time so far.
    """

    experience: int
    losses: Sequence[Mapping[str, float]]
    accuracies: Sequence[float | None]
    seconds: float


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
        family: Family of the scenario.
        track: Name of the track.
        backbone: Name of the pretrained model.
        device: Where it computes.
        seeds: ``seed``, ``class_order``, ``init``, ``data``.
        config: Every option that can change a number, by group: ``scenario``, ``method``, ``engine``.
        tests: Names of the test sets, the columns of the accuracy matrix.
        resumed: How often it was taken up again; 0: it begins.
        past: What is finished. A pass that ended behind the last checkpoint is done, and told of, once more.
    """

    run_id: str
    scenario: str
    method: str
    seed: int
    experiences: int
    path: Path
    family: str = ""
    track: str = ""
    backbone: str = ""
    device: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tests: Sequence[str] = ()
    resumed: int = 0
    past: Sequence[PastExperience] = ()


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
        run_epoch: Index of the pass within the run, from 0; the same after an interruption.
    """

    run_id: str
    experience: int
    epoch: int
    epochs: int
    losses: Mapping[str, float]
    seconds: float
    run_epoch: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperienceEnded:
    """An experience was trained and evaluated, and is on disk.

    Attributes:
        run_id: Identity of the run.
        experience: Its index, from 0.
        accuracies: Row of the accuracy matrix, fractions in [0, 1]; None where not evaluated.
        method: The method; look, do not touch.
        seconds: Training time of the experience.
        run_epochs: Passes of the run so far.
    """

    run_id: str
    experience: int
    accuracies: Sequence[float | None]
    method: Method
    seconds: float = 0.0
    run_epochs: int = 0


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
        finished: Number of finished experiences.
    """

    run_id: str
    path: Path
    status: Literal["failed", "interrupted"]
    error: str
    finished: int = 0
