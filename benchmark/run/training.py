"""The loop over epochs and batches of one experience, with checkpoints in the middle."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from benchmark.api import Batch, Experience, ExperienceView, FeatureMethod, LoopMethod, Method, Transform
from benchmark.errors import RunFailed
from benchmark.guard import Guard
from benchmark.run import checkpoint, costs, places
from benchmark.run.examination import Examiner
from benchmark.run.feed import Feed
from benchmark.run.interruption import Stop
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress
from benchmark.run.selection import Selection

Losses = dict[str, float]


class Trainer:
    """Trains the experiences of one run.

    Args:
        prepared: The run.
        done: What it has behind it; is told of the cost of a step.
        work: Folder of its checkpoints.
        stop: Ctrl-C.
        guard: Stands around the method's functions.
        examiner: For model selection.
        told: Is called after every epoch with its index, their number, its losses and the seconds so far.
        wall: Seconds that the run has taken so far, in all processes.
        quiet: No progress bars.
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
        told: Callable[[int, int, int, Losses, float], None],
        wall: Callable[[], float],
        quiet: bool,
    ) -> None:
        self._prepared = prepared
        self._plan = prepared.plan
        self._scenario = prepared.stream.scenario
        self._done = done
        self._work = work
        self._stop = stop
        self._guard = guard
        self._examiner = examiner
        self._told = told
        self._quiet = quiet
        self._wall = wall

    def train_loop(self, method: LoopMethod, view: ExperienceView, index: int) -> tuple[list[Losses], float]:
        """Lets a method with its own loop train; returns its losses and the seconds it took."""
        manifest = self._prepared.context.manifest
        if self._is_last(index):
            with self._guard("train_experience"):
                self._done.flops_train_step = costs.loop_step_flops(method, self._scenario, index, manifest)
        started = time.perf_counter()
        with self._bar(1, index) as bar:
            with self._guard("train_experience"):
                terms = method.train_experience(view)
            losses = self._checked("train_experience", terms)
            bar.update()
        self._finite(losses, index, 0, 0)
        seconds = time.perf_counter() - started
        self._told(index, 0, 1, losses, seconds)
        return [losses], seconds

    def passes(self, method: Method) -> tuple[Transform, ...]:
        """The passes of the experience that has just begun.

        Raises:
            PluginError: The method names other passes than there are.
        """
        with self._guard("passes"):
            found = method.passes()
        if not isinstance(found, (list, tuple)) or not all(one in ("train", "test") for one in map(str, found)):
            raise self._guard.refuse("passes", found, hint='return a tuple of "train" and "test", one per pass')
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
        guard, stop = self._guard, self._stop
        feed = self._feed(method, experience, index, passes)
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
            selection.load(middle["selection"])
        started = saved = time.perf_counter()
        with self._bar(sum(feed.steps), index, sum(feed.steps[:first_epoch]) + first_step) as bar:
            for epoch in range(first_epoch, feed.epochs):
                for step in range(first_step if epoch == first_epoch else 0, feed.steps[epoch]):
                    batch = self._batch(feed, method, epoch, step)
                    if self._is_last(index) and epoch == step == 0:
                        pause = time.perf_counter()
                        with guard("train_step"):
                            self._done.flops_train_step = costs.step_flops(method, batch)
                        started += time.perf_counter() - pause  # counting is not training
                    with stop.deferring():
                        with guard("train_step"):
                            found = method.train_step(batch)
                        terms = self._checked("train_step", found, needs="loss")
                    self._finite(terms, index, epoch, step)
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + value * feed.weight(batch)
                    bar.update()
                    now = time.perf_counter()
                    if stop.requested or now - saved >= self._plan.engine.checkpoint_seconds:
                        place = {"epoch": epoch, "step": step + 1, "losses": losses, "sums": sums}
                        place["selection"] = selection.state()
                        self._save(method, index, place, before + now - started)
                        saved = time.perf_counter()
                    if stop.requested:
                        raise KeyboardInterrupt
                losses.append({name: value / feed.samples(epoch) for name, value in sums.items()})
                sums = {}
                pause = time.perf_counter()
                if selection.images is not None and feed.epochs > 1:
                    score = self._examiner.score(method, index, selection.images)
                    with guard("extra_state"):
                        selection.consider(method, epoch, score, candidate=feed.adapted(epoch))
                self._told(index, epoch, feed.epochs, losses[-1], before + pause - started)
                started += time.perf_counter() - pause  # neither selecting nor telling is training
        with guard("load_extra_state"):
            selection.put_back(method)
        return losses, before + time.perf_counter() - started

    def _feed(self, method: Method, experience: Experience, index: int, passes: Sequence[Transform]) -> Feed:
        with self._guard("reads"):
            return Feed(method, experience, index, passes, self._prepared.rules)

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

    def _checked(self, what: str, terms: object, *, needs: str = "") -> Losses:
        """Loss terms as numbers.

        Raises:
            PluginError: They are something else.
        """
        hint = "return a mapping of names to numbers or tensors of one element, the total under `loss`"
        if not isinstance(terms, Mapping) or not all(isinstance(name, str) for name in terms):
            raise self._guard.refuse(what, terms, hint=hint)
        if needs and needs not in terms:
            raise self._guard.refuse(f"{what} without `{needs}`", terms, hint=hint)
        losses = {}
        for name, value in terms.items():
            real = isinstance(value, numbers.Real) or (
                isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
            )
            if not real:
                raise self._guard.refuse(f"{what}: {name}", value, hint=hint)
            with self._guard(what):
                losses[name] = float(value.detach() if isinstance(value, Tensor) else value)
        return losses

    def _finite(self, terms: Losses, index: int, epoch: int, step: int) -> None:
        bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
        if bad:
            raise RunFailed(
                f"{self._prepared.label}: {bad} at experience {index}, epoch {epoch}, step {step}",
                hint=f"lower the learning rate; {places.kept(self._work)}",
            )

    def _is_last(self, index: int) -> bool:
        return index == len(self._scenario.experiences) - 1

    def _save(self, method: Method, index: int, place: Mapping[str, Any], seconds: float) -> None:
        with self._guard("extra_state"):
            checkpoint.save(
                self._work / places.MIDDLE,
                {
                    "experience": index,
                    **place,
                    "seconds": seconds,
                    "wall": self._wall(),
                    "baseline": self._done.baseline,
                    "flops": self._done.flops_train_step,
                    "resumed": self._done.resumed,
                    "random": checkpoint.random_state(),
                    "method": checkpoint.snapshot(method),
                },
            )

    def _bar(self, total: int, index: int, initial: int = 0) -> Any:
        name = f"{self._plan.method_label} {index + 1}/{len(self._scenario.experiences)}"
        disable = True if self._quiet else None  # None: only on a terminal
        return tqdm(total=total, initial=initial, desc=name, disable=disable, leave=False, unit="step")
