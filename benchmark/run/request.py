"""What the user asked for, for one run, and the options of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from benchmark.config import Range, check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Options of the engine, ``--set engine.NAME=VALUE``.

    Attributes:
        eval_batch_size: Test images per forward pass.
        eval_order: ``shuffled`` mixes the test images of all experiences in one fixed order;
            ``natural`` evaluates one test set after the other, as most published code does. Only
            methods that use ``test_batch`` can tell the difference.
        save_logits: Whether the predictions file keeps the logits.
        checkpoint_seconds: Least time between two checkpoints in the middle of an experience.
        select: Which epoch of an experience is kept. ``last``; ``source-validation``: the best on a
            tenth of the labelled training images, which is held out (or on the validation images that
            the scenario brings); ``target-oracle``: the best on the target's test images, which no
            one could do without their labels: an upper bound, and marked in tables.
        task_known: Runs a stream whose classes grow as task-incremental: a test sample is classified among the
            classes of its experience, and methods that use ``task_id`` are told it.
    """

    eval_batch_size: Annotated[int, Range(min=1)] = 256
    eval_order: Literal["shuffled", "natural"] = "shuffled"
    save_logits: bool = False
    checkpoint_seconds: Annotated[float, Range(min=0)] = 30.0
    select: Literal["last", "source-validation", "target-oracle"] = "last"
    task_known: bool = False

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ValueError: A value is out of range.
        """
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What the user asked for, for one scenario, method and seed.

    Attributes:
        scenario: ``name`` or ``name/variant``.
        method: ``name`` or ``name@recipe``.
        seed: Seed of class order, initialisation and data order, unless given apart.
        class_order_seed: Seed of the class order alone.
        init_seed: Seed of the initialisation alone.
        data_seed: Seed of the data order and augmentation alone.
        track: Track, or None for the scenario's first.
        backbone: Backbone, or None for the track's.
        weights: Local weight file, or None.
        settings: ``--set`` assignments.
        file: Tables of the configuration file.
        file_name: Its name, for messages.
        validate: Number of experiences to use with held-out training images as test sets (test
            data are not touched); 0 runs the real protocol.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``.
        origin: Where the values above come from, for ``--dry-run``: ``--track``, a file, ``default``.
    """

    scenario: str
    method: str
    seed: int = 0
    class_order_seed: int | None = None
    init_seed: int | None = None
    data_seed: int | None = None
    track: str | None = None
    backbone: str | None = None
    weights: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    file_name: str = ""
    validate: int = 0
    device: str = "auto"
    origin: Mapping[str, str] = field(default_factory=dict)
