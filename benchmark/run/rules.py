"""What is the same for every batch and every evaluation of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from benchmark.guard import Guard
from benchmark.inputs.cuts import Drawn
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.pipeline import Inputs, Pipeline
from benchmark.run.computing import Computing
from benchmark.run.loader import Request, ahead
from benchmark.samples import Raw, Samples, in_files

_END: Any = object()
"""Behind the last answer: a source may answer anything, None too, and is told of it."""


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
        eval_order: ``shuffled``, ``natural`` or ``by-experience``.
        keep_logits: Whether an evaluation returns the logits.
        keep_choices: Whether an evaluation asks which parts each sample has chosen.
        task_known: Whether a test sample is classified among the classes of its experience.
        generates: Whether texts are generated, else samples are classified.
        scenario: Stands around the reading of its samples.
        workers: Processes that read image files ahead (`benchmark.run.loader`); None: as many as are of use.
        computing: Stands around passes through the network.
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
    keep_choices: bool = False
    task_known: bool = False
    generates: bool = False
    scenario: Guard = field(default_factory=lambda: Guard("scenario"))
    workers: int | None = None
    computing: Computing = field(default_factory=Computing)

    @property
    def asked(self) -> str:
        """The function of a method that answers."""
        return "generate" if self.generates else "predict"

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

    def test_batches(self, lengths: Sequence[int]) -> list[Tensor]:
        """Which samples of test sets that were joined are predicted together.

        Args:
            lengths: Of the sets.

        Returns:
            Places in the joined set.
        """
        count = sum(lengths)
        if self.eval_order == "by-experience":
            parts = torch.split(torch.arange(count), list(lengths))
            return [batch for part in parts for batch in torch.split(part, self.eval_batch_size) if len(batch)]
        if self.eval_order == "shuffled":
            places = torch.randperm(count, generator=torch.Generator().manual_seed(self.eval_seed))
        else:
            places = torch.arange(count)
        return [batch for batch in torch.split(places, self.eval_batch_size) if len(batch)]

    def read(self, samples: Samples, index: Tensor | slice) -> Raw:
        """Samples as their source has them.

        Raises:
            PluginError: Their source fails.
        """
        with self.scenario(f"{samples.kind}s"):
            found = samples.read(index)
        return self._whole(samples, found, len(samples.rows[index]))

    def _whole(self, samples: Samples, found: Raw, expected: int) -> Raw:
        what = f"{samples.kind}s"
        with self.scenario(what):
            count = len(found)
        if count != expected:
            raise self.scenario.refuse(what, found, hint=f"{expected} rows were asked for, and {count} came")
        return found

    def request(self, samples: Samples, index: Tensor, generator: torch.Generator | None = None) -> Request:
        """What is to be read for training, with random numbers from ``generator``, or for test time."""
        cut = None
        if generator is not None and isinstance(self.pipeline, ImagePipeline) and in_files(samples.source):
            cut = self.pipeline.cut(len(index), generator)
        return Request(samples, index, cut)

    def ahead(self, requests: Iterable[Request], sets: Sequence[Samples], count: int) -> Iterator[Raw]:
        """Answers requests in their order, files by workers. See `benchmark.run.loader.ahead`.

        Raises:
            PluginError: A source fails.
        """
        answers = ahead(requests, sets, count=count, workers=self.workers, device=self.device)
        while True:
            with self.scenario(f"{sets[0].kind}s"):
                found = next(answers, _END)
            if found is _END:
                return
            yield found

    def tests(self, samples: Samples, batches: Sequence[Tensor]) -> Iterator[Inputs]:
        """A set in batches as a method reads it at test time."""
        requests = (self.request(samples, batch) for batch in batches)
        for batch, raw in zip(batches, self.ahead(requests, (samples,), sum(map(len, batches))), strict=True):
            yield self._as_tested(samples, self._whole(samples, raw, len(batch)))

    def tested(self, samples: Samples, index: Tensor | slice) -> Inputs:
        """Samples as a method reads them at test time.

        Raises:
            PluginError: Their source fails, or has something that no pipeline takes.
        """
        return self._as_tested(samples, self.read(samples, index))

    def trained(self, raw: Raw, generator: torch.Generator, cut: Drawn | None = None) -> Inputs:
        """Samples as a method trains on them; ``cut`` is that of the request."""
        if cut is None:
            return self.pipeline.train(raw, generator, self.device)
        assert isinstance(self.pipeline, ImagePipeline)  # only such a pipeline makes cuts
        return self.pipeline.train(cast("Tensor", raw), generator, self.device, cut)

    def _as_tested(self, samples: Samples, raw: Raw) -> Inputs:
        with self.scenario(f"{samples.kind}s"):
            return self.pipeline.eval(raw, self.device)
