"""Options of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

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
