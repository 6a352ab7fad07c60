"""What is watched during a run: states, logits, and everything that a method asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from benchmark.api import ExperienceView, Manifest, Method, Raw, Samples
from benchmark.errors import BenchError
from benchmark.events import ExperienceEnded, ExperienceStarted
from benchmark.hookspecs import hookimpl
from benchmark.inputs.pipeline import Pipeline
from benchmark.run import checkpoint
from benchmark.run.preparation import Prepared
from benchmark.testing.raw import split
from benchmark.trees import tensors_in

Answers: TypeAlias = "Tensor | tuple[str, ...]"
"""Logits ``(N, C)`` or N texts."""


class CheckFailed(BenchError, AssertionError):
    """A plugin breaks its contract."""


class CheckSkipped(Exception):
    """A check does not apply; its text says why."""


@dataclass(frozen=True)
class Sight:
    """What was seen after one experience.

    Attributes:
        state: Copies of all tensors by name: weights, buffers, optimiser and extra state.
        answers: The logits of all test samples of the stream met so far, in natural order, or the texts for them.
        seen: Number of classes seen.
        raw: Those test samples, as their source has them.
        labels: Their labels.
    """

    state: dict[str, Tensor]
    answers: Answers
    seen: int
    raw: Raw
    labels: Tensor


class Watcher:
    """A life-cycle plugin that looks at the method before and after every experience."""

    def __init__(self, prepared: Prepared, *, stop_before: int = -1, stop_after: int = -1, look: bool = True) -> None:
        self.prepared = prepared
        self.stop_before = stop_before
        self.stop_after = stop_after
        self.look = look
        self.method: Method | None = None
        self.sights: list[Sight] = []
        self.start: dict[str, Tensor] = {}
        self.frozen: set[str] = set()
        self.promised: dict[str, tuple[Tensor, Tensor]] = {}
        self.moved: set[str] = set()

    @hookimpl
    def bench_experience_started(self, event: ExperienceStarted) -> None:
        """Remembers the weights that are frozen, and those that the optimiser promises to train."""
        if event.experience == self.stop_before:
            raise KeyboardInterrupt
        self.method = method = event.method
        if not self.look:
            return
        backbone = method.context.pretrained.module
        if not self.start:
            self.start = {name: p.detach().clone() for name, p in backbone.named_parameters()}
            self.frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
        names = {id(p): f"backbone.{name}" for name, p in backbone.named_parameters()}
        names |= {id(p): name for name, p in method.named_parameters() if id(p) not in names}
        groups = [] if method.optimizer is None else method.optimizer.param_groups
        held = [p for group in groups for p in group["params"] if p.requires_grad]
        self.promised = {names.get(id(p), "an unnamed tensor"): (p, p.detach().clone()) for p in held}

    @hookimpl
    def bench_experience_ended(self, event: ExperienceEnded) -> None:
        """Looks at the state and the answers."""
        if self.look and self.method is not None:
            self.moved |= {name for name, (now, then) in self.promised.items() if not torch.equal(now, then)}
            self.sights.append(self._sight(self.method, event.experience))
        if event.experience == self.stop_after:
            raise KeyboardInterrupt

    def _sight(self, method: Method, experience: int) -> Sight:
        stream = self.prepared.stream
        tests = Samples.concat([stream.tests[place] for place in stream.tests_seen[experience]])
        raw = tests.read(slice(None))
        return Sight(
            state=state_of(method),
            answers=answers(method, self.prepared, raw),
            seen=len(stream.scenario.seen_classes(experience)),
            raw=raw,
            labels=tests.labels,
        )


def state_of(method: Method) -> dict[str, Tensor]:
    """Copies of every tensor of a method's state, by name."""
    found = {f"backbone.{name}": t for name, t in method.context.pretrained.module.state_dict().items()}
    found |= method.state_dict()
    for group, tree in (
        ("optimizer", method.optimizer.state_dict() if method.optimizer is not None else {}),
        ("extra", method.extra_state()),
    ):
        found |= {f"{group}[{place}]": tensor for place, tensor in enumerate(tensors_in(tree))}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@contextmanager
def evaluating(method: Method) -> Iterator[None]:
    """Eval mode without gradients, as the engine predicts; mode as found afterwards."""
    was_training = method.training
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        method.train(was_training)


def predict(method: Method, pipeline: Pipeline, raw: Raw, sizes: int | None = None) -> Tensor:
    """Logits of raw samples, ``sizes`` at a time (default: all at once)."""
    size = len(raw) if sizes is None else sizes
    with evaluating(method):
        device = method.context.device
        return torch.cat([method.predict(pipeline.eval(part, device)).detach().cpu() for part in split(raw, size)])


def generate(method: Method, pipeline: Pipeline, raw: Raw, sizes: int | None = None) -> tuple[str, ...]:
    """Texts for raw samples, ``sizes`` at a time (default: all at once)."""
    size = len(raw) if sizes is None else sizes
    device = method.context.device
    with evaluating(method):
        return tuple(text for part in split(raw, size) for text in method.generate(pipeline.eval(part, device)))


def answers(method: Method, prepared: Prepared, raw: Raw, sizes: int | None = None) -> Answers:
    """What a method answers in a run: texts where these are generated, else logits."""
    if prepared.rules.generates:
        return generate(method, prepared.pipeline, raw, sizes)
    return predict(method, prepared.pipeline, raw, sizes)


class SpyManifest(Manifest):
    """A manifest that remembers what was refused, even if the method swallows the error."""

    def __init__(self, method: str, uses: frozenset[str]) -> None:
        super().__init__(method, uses)
        self.refused: list[str] = []

    def need(self, use: str, what: str) -> None:
        """Remembers a refusal."""
        if use not in self.uses:
            self.refused.append(f"{what} (`{use}`)")
        super().need(use, what)


class SpyView(ExperienceView):
    """A view that remembers, in the manifest, who looks behind its promised attributes."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):
            reader = sys._getframe(1).f_globals.get("__name__", "")
            if reader not in ("benchmark.api", "benchmark.views", "benchmark.run.engine", __name__):
                manifest: SpyManifest = super().__getattribute__("_manifest")
                manifest.refused.append(f"the private attribute `{name}` of its view (in {reader})")
        return super().__getattribute__(name)


def surroundings() -> dict[str, Any]:
    """What a run must leave as it is, by the words for it."""
    return {
        "the random state": checkpoint.random_state(),
        "grad mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the number of threads": torch.get_num_threads(),
        "the working folder": os.getcwd(),
        "the environment": dict(os.environ),
    }
