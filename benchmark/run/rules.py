"""What is the same for every batch and every evaluation of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmark.inputs.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How samples reach a method, in training and at test time.

    Attributes:
        name: Of the method, for messages.
        uses: What it declares.
        pipeline: From raw samples to its input.
        device: Where inputs go.
        seed: Data seed of the run.
        eval_seed: Of the order of an evaluation.
        batch_size: Labelled samples per step, and target samples per step.
        eval_batch_size: Samples per forward pass of an evaluation.
        eval_order: ``shuffled`` or ``natural``.
        keep_logits: Whether an evaluation returns the logits.
        task_known: Whether a test sample is classified among the classes of its experience.
    """

    name: str
    uses: frozenset[str]
    pipeline: Pipeline
    device: torch.device
    seed: int
    eval_seed: int
    batch_size: int
    eval_batch_size: int = 256
    eval_order: str = "shuffled"
    keep_logits: bool = False
    task_known: bool = False

    @property
    def open_head(self) -> bool:
        """Whether logits of unseen classes are allowed."""
        return "num_classes" in self.uses

    @property
    def told_task(self) -> bool:
        """Whether the method is told the experience of test samples."""
        return self.task_known and "task_id" in self.uses

    @property
    def per_sample(self) -> bool:
        """Whether a prediction must depend on its sample alone."""
        return "test_batch" not in self.uses
