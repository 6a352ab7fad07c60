"""What is the same for every batch and every evaluation of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmark.guard import Guard
from benchmark.inputs.pipeline import Inputs, Pipeline
from benchmark.samples import Raw, Samples


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
        scenario: Stands around the reading of its samples.
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
    scenario: Guard = field(default_factory=lambda: Guard("scenario"))

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

    def read(self, samples: Samples, index: Tensor | slice) -> Raw:
        """Samples as their source has them.

        Raises:
            PluginError: Their source fails.
        """
        what, expected = f"{samples.kind}s", len(samples.rows[index])
        with self.scenario(what):
            found = samples.read(index)
            count = len(found)
        if count != expected:
            raise self.scenario.refuse(what, found, hint=f"{expected} rows were asked for, and {count} came")
        return found

    def tested(self, samples: Samples, index: Tensor | slice) -> Inputs:
        """Samples as a method reads them at test time.

        Raises:
            PluginError: Their source fails, or has something that no pipeline takes.
        """
        raw = self.read(samples, index)
        with self.scenario(f"{samples.kind}s"):
            return self.pipeline.eval(raw, self.device)
