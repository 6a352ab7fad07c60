"""What a run has behind it: goes into its record, and survives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import DataMissing


@dataclass
class Progress:
    """The finished part of a run.

    Attributes:
        experience: Number of finished experiences.
        losses: Mean loss terms per experience and epoch.
        rows: Rows of the accuracy matrix, fractions; None where not evaluated.
        selected: Chosen epoch (None: nothing to choose) and scores per epoch, per experience.
        selection_facts: What must be known of the scores.
        baseline: Accuracy of the untrained model per test set, or None where that means nothing.
        train_seconds: Per experience.
        eval_seconds: Per experience.
        eval_images: Images predicted.
        trainable: Trainable parameters, per experience.
        storage: Bytes kept, after each experience.
        flops_train_step: Of one step of the last experience, once it is known.
        resumed: How often the run was taken up again.
        peak_memory_bytes: Most memory of any process that worked on it.
        seconds: Wall time of the work that is kept, of all processes that worked on it.
        parts: SHA-256 of the predictions file of every experience.
        shortened_train: Training samples of each experience that the method reads in part only.
        shortened_test: The same of each test set, by its position.
        micro_batch: Samples at once that ``engine.batch_fallback`` has come down to; 0: it was not needed.
    """

    experience: int = 0
    losses: list[list[dict[str, float]]] = field(default_factory=list)
    rows: list[list[float | None]] = field(default_factory=list)
    selected: list[tuple[int | None, list[float | None]]] = field(default_factory=list)
    selection_facts: dict[str, Any] = field(default_factory=dict)
    baseline: list[float] | None = None
    train_seconds: list[float] = field(default_factory=list)
    eval_seconds: list[float] = field(default_factory=list)
    eval_images: int = 0
    trainable: list[int] = field(default_factory=list)
    storage: list[int] = field(default_factory=list)
    flops_train_step: int | None = None
    resumed: int = 0
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    parts: list[str] = field(default_factory=list)
    shortened_train: list[int] = field(default_factory=list)
    shortened_test: dict[str, int] = field(default_factory=dict)
    micro_batch: int = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(vars(self))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """What `state` returned.

        Raises:
            DataMissing: Another version of adaptbench wrote it.
        """
        try:
            return cls(**state)
        except TypeError as error:
            raise DataMissing(f"a checkpoint of another version of adaptbench: {error}") from error
