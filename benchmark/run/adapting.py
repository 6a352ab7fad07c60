"""The loop over a stream of test batches (`benchmark.scenario.TestStream`): each is answered once, in order.

What is drawn at random in a batch follows from the seed and the place in the stream, so a resumed run draws what the
uninterrupted one would have drawn. A checkpoint holds the method's state, the answers so far and the place; the state
at the end of training is that of the boundary behind the one experience.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmark.errors import DataMissing, PluginError, warn
from benchmark.guard import Guard
from benchmark.records import predictions
from benchmark.run import checkpoint, costs, evaluation, places
from benchmark.run.examination import Examiner
from benchmark.run.interruption import Stop
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress
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
        prepared: The run.
        done: What it has behind it; is told of costs and times.
        work: Folder of its checkpoints.
        stop: Ctrl-C.
        guard: Stands around the method's functions.
        examiner: Predicts the test images of the source afterwards.
        wall: Seconds that the run has taken so far, in all processes.
        still_ours: Is called before a checkpoint is written; raises where another process has taken the run over.
        quiet: No progress bar.
    """

    def __init__(
        self,
        prepared: Prepared,
        done: Progress,
        work: Path,
        stop: Stop,
        guard: Guard,
        examiner: Examiner,
        *,
        wall: Callable[[], float],
        still_ours: Callable[[], None],
        quiet: bool,
    ) -> None:
        self._prepared = prepared
        self._done = done
        self._file = work / places.STREAM
        self._stop = stop
        self._guard = guard
        self._examiner = examiner
        self._wall = wall
        self._still_ours = still_ours
        self._quiet = quiet
        self._seed = prepared.plan.seeds["init"]
        self._seen = len(prepared.stream.scenario.seen_classes(0))

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
        with self._bar(len(plan), first) as bar:
            for place, (batch, images) in enumerate(self._read(stream, plan[first:]), start=first):
                with self._stop.deferring():
                    answers.append(self._answer(method, stream.segments[batch.segment], batch, images, place == 0))
                bar.update()
                now = time.perf_counter()
                if self._stop.requested or now - saved >= self._prepared.plan.engine.checkpoint_seconds:
                    answers = [self._logits(answers)]
                    self._save(method, place + 1, answers[0], before + now - started)
                    saved = time.perf_counter()
                if self._stop.requested:
                    raise KeyboardInterrupt
        found = self._table(stream, self._logits(answers))
        last = len(self._prepared.stream.tests) - 1
        source = self._examiner.after(method, 0, [last], known=False)
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
        self._still_ours()
        with self._guard("extra_state"):
            checkpoint.save(
                self._file,
                {
                    "batches": batches,
                    "logits": logits,
                    "seconds": seconds,
                    "wall": self._wall(),
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

    def _bar(self, total: int, initial: int) -> Any:
        name = f"{self._prepared.plan.method_label} stream"
        disable = True if self._quiet else None  # None: only on a terminal
        return tqdm(total=total, initial=initial, desc=name, disable=disable, leave=False, unit="batch")


def _batches(stream: TestStream) -> Iterator[_Batch]:
    for index, segment in enumerate(stream.segments):
        for number, rows in enumerate(torch.split(torch.arange(len(segment.images)), stream.batch_size)):
            yield _Batch(index, number, rows)


def _adapted(twin: object, images: Any) -> Tensor:
    if not isinstance(twin, TestTimeMethod):
        raise PluginError("a copy of the method is no TestTimeMethod")
    return twin.adapt(images)
