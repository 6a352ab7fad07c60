"""SWAD: the mean of the weights of every step in the valley of the validation loss.

Paper: Cha, Chun, Lee, Cho, Park, Lee, Park. SWAD: Domain Generalization by Seeking Flat Minima, NeurIPS 2021, arXiv
2102.08604.
Official code: khanrc/swad at 252190eb (``domainbed/swad.py``, ``lib/swa_utils.py``), compared on recorded numbers.

Empirical risk minimisation; after every step the weights go into the mean of a segment. Every `every` steps (and after
the first) the loss on held-out source images is measured and the segment is closed. The valley begins at the
oldest of `converge` segments, once its loss is the smallest, and ends where the smallest loss of `tolerance` segments
is above their mean times 1 + `ratio`. The answer is the mean over the segments in it; without a valley, the last one.

Differences from the official code:
- The steps behind the end of the valley are not taken: the engine's loop goes on, but nothing trains any more (the
  code stops). The costs in the record are those of a step that trains.
- The held-out images are the scenario's validation samples, else a fifth of the training images of every class and
  domain, which the engine holds out (`MethodSpec.holds_out`; the code: of every domain). The loss is their mean; the
  code's is the mean over domains, which is the same where these have equally many.
- The first segment is a copy that the first addition overwrites, as in the code: the segment in which the valley begins
  counts only where the rules add it again.
- Running statistics of BatchNorm are computed anew from the training images, as they are read at test time, in up to
  500 batches, where the backbone trains and has BatchNorm.

Expected: PACS 88.1 on average (ResNet-50; example output of the code's README, one run). Not yet reproduced here on the
paper track.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bench_methods._recipes import DOMAINBED_ADAM
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, Samples
from benchmark.config import Range
from benchmark.learners.adaptation import Adaptation, PlainConfig
from benchmark.learners.averaging import weights_of
from benchmark.learners.generalisation import generalises
from benchmark.specs import MethodSpec

Weights = dict[str, Tensor]
BATCHES = 500  # from which statistics of BatchNorm are computed


@dataclass(frozen=True, kw_only=True, slots=True)
class SWADConfig(PlainConfig):
    """Options of SWAD.

    Attributes:
        every: Steps between two measurements of the validation loss.
        converge: N_s, segments of which the oldest must be the best for the valley to begin.
        tolerance: N_e, segments that may be above the threshold.
        ratio: r, the threshold is 1 + r times the mean loss at the beginning.
    """

    every: Annotated[int, Range(min=1, log=True)] = 100
    converge: Annotated[int, Range(min=1)] = 3
    tolerance: Annotated[int, Range(min=1)] = 6
    ratio: Annotated[float, Range(min=0, log=True)] = 0.3


class Mean:
    """A mean of weights that begins as a copy, which the first addition overwrites.

    Attributes:
        weights: By name.
        count: Additions.
    """

    def __init__(self, weights: Mapping[str, Tensor], count: int = 0) -> None:
        self.weights: Weights = {name: value.detach().clone() for name, value in weights.items()}
        self.count = count

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor]) -> None:
        """One more."""
        for name, value in weights.items():
            mean = self.weights[name]
            mean.add_(value - mean, alpha=1 / (self.count + 1))
        self.count += 1


@dataclass(frozen=True)
class Segment:
    """Steps between two measurements.

    Attributes:
        weights: Their mean.
        loss: Validation loss at the end.
        end: Number of the last step.
    """

    weights: Weights
    loss: float
    end: int


class Valley:
    """Finds the valley of the validation loss, segment by segment.

    Args:
        converge: See `SWADConfig`.
        tolerance: Likewise.
        ratio: Likewise.

    Attributes:
        final: The mean over the segments in it; None before it has begun.
        begun: Last step of the segment in which it begins; None before.
        dead: Whether it is over.
    """

    def __init__(self, converge: int, tolerance: int, ratio: float) -> None:
        self.converge, self.tolerance, self.ratio = converge, tolerance, ratio
        self.oldest: deque[Segment] = deque(maxlen=converge)
        self.recent: deque[Segment] = deque(maxlen=tolerance)
        self.final: Mean | None = None
        self.begun: int | None = None
        self.threshold = 0.0
        self.dead = False

    def close(self, segment: Segment) -> None:
        """Takes a segment into account."""
        if self.dead:
            return
        self.oldest.append(segment)
        self.recent.append(segment)
        if self.final is None or self.begun is None:
            self._begin()
        elif self.recent[0].end >= self.begun:
            if min(one.loss for one in self.recent) > self.threshold:
                self.dead = True
            else:
                self.final.add(self.recent[0].weights)

    def _begin(self) -> None:
        losses = [one.loss for one in self.oldest]
        if len(losses) < self.converge or losses.index(min(losses)) != 0:
            return
        self.begun = self.oldest[0].end
        self.final = Mean(self.oldest[0].weights)
        self.threshold = sum(losses) / len(losses) * (1 + self.ratio)
        if self.tolerance < self.converge:
            for one in list(self.oldest)[1 : self.converge - self.tolerance + 1]:
                self.final.add(one.weights)
        elif self.tolerance > self.converge:
            waiting = list(self.recent)[: self.tolerance - self.converge + 1]
            above = [place for place, one in enumerate(waiting) if one.loss > self.threshold]
            first = above[-1] + 1 if above else 0
            for one in waiting[first + 1 :]:
                self.final.add(one.weights)

    def answer(self) -> Weights | None:
        """The weights in the end; None where no segment was closed. Nothing may be closed afterwards."""
        if self.final is None:
            return self.oldest[-1].weights if self.oldest else None
        if not self.dead:
            self.recent.popleft()
            while self.recent and min(one.loss for one in self.recent) <= self.threshold:
                self.final.add(self.recent.popleft().weights)
        return self.final.weights

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        queues = {name: [vars(one) for one in getattr(self, name)] for name in ("oldest", "recent")}
        final = None if self.final is None else {"weights": self.final.weights, "count": self.final.count}
        return {**queues, "final": final, "begun": self.begun, "threshold": self.threshold, "dead": self.dead}

    def load(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        self.oldest = deque((Segment(**one) for one in state["oldest"]), maxlen=self.converge)
        self.recent = deque((Segment(**one) for one in state["recent"]), maxlen=self.tolerance)
        self.final = None if state["final"] is None else Mean(**state["final"])
        self.begun, self.threshold, self.dead = state["begun"], state["threshold"], state["dead"]


class SWAD(Adaptation):
    """A classifier whose weights are averaged over the valley of its validation loss."""

    config: SWADConfig

    def __init__(self, config: SWADConfig, context: Context) -> None:
        super().__init__(config, context)
        self.valley = Valley(config.converge, config.tolerance, config.ratio)
        self.segment: Mean | None = None
        self._held: Samples | None = None

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows, makes the optimiser, looks at the held-out images."""
        super().begin_experience(experience)
        config = self.config
        self.valley, self.segment = Valley(config.converge, config.tolerance, config.ratio), None
        self._held = experience.validation

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step and its weights into the segment; behind the valley the loss alone."""
        if self.valley.dead:
            with torch.no_grad():
                return {name: term.detach() for name, term in self.terms(batch).items()}
        terms = self.learn(batch, self.terms(batch))
        weights = weights_of(self, buffers=False)
        if self.segment is None:
            self.segment = Mean(weights)
        self.segment.add(weights)
        if batch.place.step % self.config.every == 0:
            self.valley.close(Segment(self.segment.weights, self.held_out_loss(), batch.place.step))
            self.segment = None
        return terms

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean cross-entropy of the network on the held-out images, as at test time."""
        if self._held is None:
            raise RuntimeError("there are no held-out images")
        was_training, losses = self.training, []
        self.eval()
        for rows in torch.arange(len(self._held)).split(4 * self.config.batch_size):
            images = self.context.pipeline.eval(self._held.images(rows), self.context.device)
            labels = self._held.labels[rows].to(self.context.device, non_blocking=True)
            losses.append(F.cross_entropy(super().predict(images), labels, reduction="sum"))
        self.train(was_training)
        return float(torch.stack(losses).sum() / len(self._held))

    def end_experience(self, experience: ExperienceView) -> None:
        """The mean over the valley takes the place of the network."""
        super().end_experience(experience)
        answer = self.valley.answer()
        if answer is not None:
            own = weights_of(self, buffers=False)
            with torch.no_grad():
                for name, value in answer.items():
                    own[name].copy_(value)
            self.renew_statistics(experience.train)
        self.valley = Valley(self.config.converge, self.config.tolerance, self.config.ratio)
        self.segment, self._held = None, None

    @torch.no_grad()
    def renew_statistics(self, train: Samples) -> None:
        """Running statistics of BatchNorm as plain means over batches of training images."""
        norms = [part for part in self.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
        still = set(self.backbone.modules()) if self.frozen else set()
        norms = [part for part in norms if part not in still]
        if not norms:
            return
        kept = [part.momentum for part in norms]
        for part in norms:
            part.reset_running_stats()
            part.momentum = None  # a plain mean
        was_training = self.training
        self.train()
        order = torch.randperm(len(train))
        for rows in order.split(self.config.batch_size)[:BATCHES]:
            if len(rows) > 1:
                self.features(self.context.pipeline.eval(train.images(rows), self.context.device))
        self.train(was_training)
        for part, momentum in zip(norms, kept, strict=True):
            part.momentum = momentum

    def extra_state(self) -> Mapping[str, Any]:
        """Segments and valley."""
        segment = None if self.segment is None else {"weights": self.segment.weights, "count": self.segment.count}
        return {"valley": self.valley.state(), "segment": segment}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        state = self.here(state)
        self.valley.load(state["valley"])
        self.segment = None if state["segment"] is None else Mean(**state["segment"])

    def here(self, tree: Any) -> Any:
        """A nested state whose tensors are on the device of the run."""
        if isinstance(tree, Tensor):
            return tree.to(self.context.device)
        if isinstance(tree, Mapping):
            return {key: self.here(value) for key, value in tree.items()}
        return [self.here(value) for value in tree] if isinstance(tree, list) else tree


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``swad``."""
    return [
        MethodSpec(
            name="swad",
            display="SWAD",
            build=SWAD,
            config=SWADConfig,
            summary="the mean of the weights of every step in the valley of the validation loss",
            uses=frozenset({"boundaries", "validation"}),
            holds_out=True,
            waits=2,  # every `every` steps: the validation loss is read, its images are copied
            recipes={
                "domainbed": {**DOMAINBED_ADAM, "every": 100, "ratio": 0.3},
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1, "every": 5},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.03, "every": 5},
            },
            rule="nano, lr: results/search.py, best on held-out source images; more frequent measurements; mini: the "
            "values of source-only, not searched",
            toy={"iterations": 6, "every": 2, "converge": 2, "tolerance": 2},
            sources={
                "every": "khanrc/swad at 252190eb, config.yaml: checkpoint_freq; VLCS 50, DomainNet 500",
                "converge": "khanrc/swad at 252190eb, config.yaml: n_converge; likewise tolerance",
                "ratio": "khanrc/swad at 252190eb, config.yaml: tolerance_ratio; VLCS 0.2",
                "lr": "as source-only",
                "schedule": "as source-only",
                "domainbed": "khanrc/swad at 252190eb, config.yaml, on DomainBed's defaults",
            },
            paper="arXiv:2102.08604",
            reference="khanrc/swad@252190eb",
            supports=generalises,
            published="swad",
        )
    ]
