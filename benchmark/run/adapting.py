"""The loop over a stream of test batches (`benchmark.scenario.TestStream`): each is answered once, in order.

What is drawn at random in a batch follows from the seed and the place in the stream, so a resumed run draws what the
uninterrupted one would have drawn. A checkpoint holds the method's state, the answers so far and the place; the state
at the end of training is that of the boundary behind the one experience.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import DataMissing, PluginError, warn
from benchmark.records import predictions
from benchmark.run import checkpoint, costs, evaluation, places
from benchmark.run.execution import Execution
from benchmark.run.seeds import derive
from benchmark.samples import Samples
from benchmark.scenario import Segment, TestStream
from benchmark.test_time import TestTimeMethod


@dataclass(frozen=True)
class _Batch:
    """A batch of the stream: where it stands, and which images of its segment it holds."""

    segment: int
    number: int
    rows: Tensor


class StreamRunner:
    """Lets a method answer the test stream of a run.

    Args:
        execution: Of the run.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._prepared = execution.prepared
        self._done = execution.done
        self._guard = execution.guard
        self._file = execution.work / places.STREAM
        self._seed = self._prepared.plan.seeds["init"]
        self._seen = len(self._prepared.stream.scenario.seen_classes(0))

    def run(self, method: TestTimeMethod, stream: TestStream) -> predictions.Predictions:
        """Answers of the stream, then predictions on test images of the source.

        Args:
            method: As training has left it.
            stream: What it answers.

        Raises:
            KeyboardInterrupt: The run was asked to stop, and a checkpoint was written.
            PluginError: The method fails, or answers with something that is no logits.
            RunFailed: Logits that are not finite.
        """
        done = self._done
        checkpoint.seed_everything(derive(self._seed, "stream"))
        with self._guard("eval"):
            method.eval()
        with self._guard("begin_stream"):
            method.begin_stream()
        done.trainable[-1] = costs.trainable(method)
        answers, first, before = self._resume(method)
        plan = list(_batches(stream))
        started = saved = time.perf_counter()
        with self._execution.bar("stream", total=len(plan), initial=first, unit="batch") as bar:
            for place, (batch, images) in enumerate(self._read(stream, plan[first:]), start=first):
                with self._execution.stop.deferring():
                    answers.append(self._answer(method, stream.segments[batch.segment], batch, images, place == 0))
                bar.update()
                now = time.perf_counter()
                if self._execution.stop.requested or now - saved >= self._prepared.plan.engine.checkpoint_seconds:
                    answers = [self._logits(answers)]
                    self._save(method, place + 1, answers[0], before + now - started)
                    saved = time.perf_counter()
                if self._execution.stop.requested:
                    raise KeyboardInterrupt
        found = self._table(stream, self._logits(answers))
        last = len(self._prepared.stream.tests) - 1
        source = self._execution.examiner.after(method, 0, [last], known=False)
        done.eval_images += len(found) + len(source)
        done.eval_seconds[-1] += before + time.perf_counter() - started
        done.storage[-1] = self._storage(method)
        return predictions.concat([found, source])

    def _storage(self, method: TestTimeMethod) -> int:
        with self._guard("kept_between_experiences"):
            return costs.storage_bytes(method)

    def _answer(self, method: TestTimeMethod, segment: Segment, batch: _Batch, images: Any, first: bool) -> Tensor:
        """Logits ``(B, C)`` for a batch, still on the device."""
        if segment.reset and batch.number == 0:
            with self._guard("reset_stream"):
                method.reset_stream()
        seed = derive(self._seed, "stream", batch.segment, batch.number)
        if first and self._prepared.counting:
            checkpoint.seed_everything(seed)
            method.stepper.part()
            with self._guard("adapt"), self._prepared.computing.forward():
                self._done.flops_train_step = costs.count_flops(method, lambda twin: _adapted(twin, images.clone()))
        checkpoint.seed_everything(seed)
        method.stepper.part()
        with self._guard("adapt"), self._prepared.computing.forward():
            found = method.adapt(images)
        name, seen = self._prepared.rules.name, self._seen
        return evaluation.shaped(
            found, len(batch.rows), self._guard, "adapt", name=name, least=seen, most=seen
        ).detach()

    def _logits(self, answers: Sequence[Tensor]) -> Tensor:
        """Answers of some batches, ``(N, C)``, on the CPU: the host waits for the device here alone."""
        return evaluation.finite(torch.cat([part.float() for part in answers]), "adapt", name=self._prepared.rules.name)

    def _read(self, stream: TestStream, plan: list[_Batch]) -> Iterator[tuple[_Batch, Any]]:
        """Every batch with its images as the method reads them."""
        rules = self._prepared.rules
        for index, group in itertools.groupby(plan, key=lambda batch: batch.segment):
            batches = list(group)
            images = rules.tests(stream.segments[index].images, [batch.rows for batch in batches])
            yield from zip(batches, images, strict=True)

    def _resume(self, method: TestTimeMethod) -> tuple[list[Tensor], int, float]:
        """Answers so far, number of batches behind, and seconds they took."""
        if not self._file.exists():
            return [], 0, 0.0
        try:
            saved = checkpoint.load(self._file)
        except DataMissing as error:
            warn(f"{error.message}; the test stream of {self._prepared.label} starts again")
            return [], 0, 0.0
        with self._guard("load_extra_state"):
            checkpoint.restore(method, saved["method"])
        self._done.resumed = saved["resumed"] + 1
        self._done.seconds = saved["wall"]
        self._done.flops_train_step = saved["flops"]
        return [saved["logits"].to(self._prepared.device)], saved["batches"], saved["seconds"]

    def _save(self, method: TestTimeMethod, batches: int, logits: Tensor, seconds: float) -> None:
        self._execution.still_ours()
        with self._guard("extra_state"):
            checkpoint.save(
                self._file,
                {
                    "batches": batches,
                    "logits": logits,
                    "seconds": seconds,
                    "wall": self._execution.wall(),
                    "resumed": self._done.resumed,
                    "flops": self._done.flops_train_step,
                    "method": checkpoint.snapshot(method),
                },
            )

    def _table(self, stream: TestStream, logits: Tensor) -> predictions.Predictions:
        """The answers as predictions, in the order of the stream."""
        images = Samples.concat([part.images.without_domains() for part in stream.segments])
        return predictions.table(
            0,
            test_set=torch.cat([stream.places(part) for part in stream.segments]),
            sample_id=images.ids,
            label=images.labels,
            prediction=logits.argmax(dim=1),
            top5=logits.topk(min(5, logits.shape[1]), dim=1).indices,
            confidence=logits.softmax(dim=1).amax(dim=1),
            logits=logits if self._prepared.rules.keep_logits else None,
        )


def _batches(stream: TestStream) -> Iterator[_Batch]:
    for index, segment in enumerate(stream.segments):
        for number, rows in enumerate(torch.split(torch.arange(len(segment.images)), stream.batch_size)):
            yield _Batch(index, number, rows)


def _adapted(twin: object, images: Any) -> Tensor:
    if not isinstance(twin, TestTimeMethod):
        raise PluginError("a copy of the method is no TestTimeMethod")
    return twin.adapt(images)
