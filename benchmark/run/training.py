"""The loop over epochs and batches of one experience, with checkpoints in the middle."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmark.api import Batch, Experience, ExperienceView, FeatureMethod, LoopMethod, Method, Transform
from benchmark.errors import RunFailed, UsageError
from benchmark.run import checkpoint, costs, places
from benchmark.run.batches import BatchTrainer
from benchmark.run.execution import Execution
from benchmark.run.feed import Feed
from benchmark.run.keeper import Keeper
from benchmark.run.losses import Losses, Tally, read, terms_of
from benchmark.run.selection import Selection


class Trainer:
    """Trains the experiences of one run.

    Args:
        execution: Of the run.
        keeper: Knows features of frozen networks.
        told: Is called after every epoch with its index, their number, its losses and the seconds so far.
    """

    def __init__(
        self, execution: Execution, keeper: Keeper, told: Callable[[int, int, int, Losses, float], None]
    ) -> None:
        self._execution = execution
        self._prepared = execution.prepared
        self._plan = self._prepared.plan
        self._scenario = self._prepared.stream.scenario
        self._done = execution.done
        self._work = execution.work
        self._guard = execution.guard
        self._keeper = keeper
        self._told = told

    def train_loop(self, method: LoopMethod, view: ExperienceView, index: int) -> tuple[list[Losses], float]:
        """Lets a method with its own loop train; returns its losses and the seconds it took."""
        manifest = self._prepared.context.manifest
        if self._counts(index):
            with self._guard("train_experience"):
                self._done.flops_train_step = costs.loop_step_flops(method, self._scenario, index, manifest)
        started = time.perf_counter()
        with self._bar(1, index) as bar:
            with self._guard("train_experience"), self._prepared.computing.forward():
                terms = method.train_experience(view)
            (losses,) = read([terms_of(terms, self._guard, "train_experience")])
            bar.update()
        self._finite(index, 0, losses, 0)
        seconds = time.perf_counter() - started
        self._told(index, 0, 1, losses, seconds)
        return [losses], seconds

    def passes(self, method: Method) -> tuple[Transform, ...]:
        """The passes of the experience that has just begun.

        Raises:
            PluginError: The method names other passes than there are.
            UsageError: It makes several where the stream has one.
        """
        with self._guard("passes"):
            found = method.passes()
        if not isinstance(found, (list, tuple)) or not all(one in ("train", "test") for one in map(str, found)):
            raise self._guard.refuse("passes", found, hint='return a tuple of "train" and "test", one per pass')
        online = self._plan.arrival.stream == "online" and self._plan.method_spec.stream == "sequential"
        if online and len(found) > 1:
            raise UsageError(
                f"method `{self._plan.method_spec.name}` makes {len(found)} passes over an experience, "
                "an online stream has one",
                hint="choose options of the method under which it makes one, e.g. epochs=0",
            )
        return tuple(found)

    def train(
        self,
        method: Method,
        experience: Experience,
        index: int,
        passes: Sequence[Transform],
        middle: Mapping[str, Any] | None,
        selection: Selection,
    ) -> tuple[list[Losses], float]:
        """Trains one experience, from its middle if there is one.

        Args:
            method: After its `begin_experience`.
            experience: The training images.
            index: The experience.
            passes: What `passes` returned.
            middle: Checkpoint in the middle of the experience.
            selection: Keeps the best epoch.

        Returns:
            Mean loss terms per epoch, and the seconds it took.
        """
        guard, stop = self._guard, self._execution.stop
        feed = self._feed(method, experience, index, passes)
        trainer = BatchTrainer(
            method,
            self._prepared,
            self._done,
            guard,
            index,
            checked=lambda found: terms_of(found, guard, "train_step", needs="loss"),
            kept=lambda: places.kept(self._work),
        )
        first_epoch, first_step = 0, 0
        losses: list[Losses] = []
        sums: Losses = {}
        before = 0.0
        if middle is not None:
            with guard("load_extra_state"):
                checkpoint.restore(method, middle["method"])
            checkpoint.set_random_state(middle["random"])
            first_epoch, first_step, losses, sums = (middle[name] for name in ("epoch", "step", "losses", "sums"))
            before = middle["seconds"]
            self._done.baseline = middle["baseline"]
            self._done.flops_train_step = middle["flops"]
            self._done.micro_batch = middle.get("micro_batch", 0)
            selection.load(middle["selection"])
        ranks, ahead = self._prepared.ranks, _Ahead(self._prepared.device)
        ranks.share(method)
        started = saved = time.perf_counter()
        behind = sum(feed.steps[:first_epoch]) + first_step
        with contextlib.closing(feed), self._bar(sum(feed.steps), index, behind) as bar:
            for epoch in range(first_epoch, feed.epochs):
                tally = Tally(sums, partial(self._finite, index, epoch))
                for step in range(first_step if epoch == first_epoch else 0, feed.steps[epoch]):
                    batch = ahead.take(epoch, step) or self._batch(feed, method, epoch, step)
                    if self._counts(index) and epoch == step == 0:
                        pause = time.perf_counter()
                        self._done.flops_train_step = trainer.flops(batch, costs.step_flops)
                        started += time.perf_counter() - pause  # counting is not training

                    def meanwhile(epoch: int = epoch, step: int = step + 1) -> None:
                        if step < feed.steps[epoch]:
                            ahead.make(epoch, step, lambda: self._batch(feed, method, epoch, step))

                    with stop.deferring():
                        terms = trainer.step(batch, partial(feed.handing, batch, epoch, step), meanwhile)
                    stopping = ranks.any(stop.requested)
                    tally.add(terms, feed.weight(batch), step)
                    bar.update()
                    now = time.perf_counter()
                    if stopping or now - saved >= self._plan.engine.checkpoint_seconds:
                        place = {"epoch": epoch, "step": step + 1, "losses": losses, "sums": tally.read()}
                        place["selection"] = selection.state()
                        self._save(method, index, place, before + now - started)
                        saved = time.perf_counter()
                    if stopping:
                        raise KeyboardInterrupt
                losses.append({name: value / feed.samples(epoch) for name, value in tally.read().items()})
                sums = {}
                pause = time.perf_counter()
                if selection.judge is not None and feed.epochs > 1:
                    score = selection.judge(method)
                    with guard("extra_state"):
                        selection.consider(method, epoch, score, candidate=feed.adapted(epoch))
                self._told(index, epoch, feed.epochs, losses[-1], before + pause - started)
                started += time.perf_counter() - pause  # neither selecting nor telling is training
        if selection.undecided:
            raise RunFailed(
                f"{self._prepared.label}: after every epoch nearly all predictions on the target are one class, so "
                f"engine.select={self._plan.engine.select} takes none",
                hint="lower the learning rate or the trade-off, or use --set engine.select=last",
            )
        with guard("load_extra_state"):
            selection.put_back(method)
        return losses, before + time.perf_counter() - started

    def _feed(self, method: Method, experience: Experience, index: int, passes: Sequence[Transform]) -> Feed:
        with self._guard("reads"):
            return Feed(method, experience, index, passes, self._prepared.rules, self._keeper)

    def _batch(self, feed: Feed, method: Method, epoch: int, step: int) -> Batch:
        if not isinstance(method, FeatureMethod):
            with self._prepared.rules.scenario("images"):
                return feed.batch(epoch, step)
        with self._guard("encode"):
            batch = feed.batch(epoch, step)
        sides = [(batch.features, len(batch))]
        if batch.target_index is not None:
            sides.append((batch.target_features, len(batch.target_index)))
        for found, rows in sides:
            if rows and not (isinstance(found, Tensor) and found.ndim == 2 and len(found) == rows):
                raise self._guard.refuse("encode", found, hint=f"return features of shape ({rows}, d)")
        return batch

    def _finite(self, index: int, epoch: int, terms: Losses, step: int) -> None:
        bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
        if bad:
            raise RunFailed(
                f"{self._prepared.label}: {bad} at experience {index}, epoch {epoch}, step {step}",
                hint=f"lower the learning rate; {places.kept(self._work)}",
            )

    def _is_last(self, index: int) -> bool:
        return index == len(self._scenario.experiences) - 1

    def _counts(self, index: int) -> bool:
        """Whether the FLOPs of a step are counted in an experience."""
        return self._prepared.counting and self._is_last(index)

    def _save(self, method: Method, index: int, place: Mapping[str, Any], seconds: float) -> None:
        self._execution.still_ours()
        with self._guard("extra_state"):
            checkpoint.save(
                self._work / places.MIDDLE,
                {
                    "experience": index,
                    **place,
                    "seconds": seconds,
                    "wall": self._execution.wall(),
                    "baseline": self._done.baseline,
                    "flops": self._done.flops_train_step,
                    "micro_batch": self._done.micro_batch,
                    "resumed": self._done.resumed,
                    "random": checkpoint.random_state(),
                    "method": checkpoint.snapshot(method),
                },
            )

    def _bar(self, total: int, index: int, initial: int = 0) -> Any:
        what = f"{index + 1}/{len(self._scenario.experiences)}"
        return self._execution.bar(what, total=total, initial=initial, unit="step")


class _Ahead:
    """One batch on its way to a device while that computes on the one before; none on the CPU, which does both.

    Args:
        device: Of the run.
    """

    def __init__(self, device: torch.device) -> None:
        self._beside = device.type != "cpu"
        self._held: tuple[int, int, Batch] | None = None

    def make(self, epoch: int, step: int, batch: Callable[[], Batch]) -> None:
        """Makes the batch of a step, if that is of use."""
        if self._beside:
            self._held = epoch, step, batch()

    def take(self, epoch: int, step: int) -> Batch | None:
        """The batch of a step, if it was made ahead."""
        held, self._held = self._held, None
        return held[2] if held is not None and held[:2] == (epoch, step) else None
