"""A classifier of several labelled domains, one of which is met only in the end: the risk of each domain by itself.

As facebookresearch/DomainBed at b93c22a1 (``domainbed/algorithms.py``) has it. There, every step draws the same number
of images from each domain; here a batch holds them in proportion to their numbers, and a domain without an image in
a batch has no risk in it. Shapes: B images of a batch, D domains.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import families
from benchmark.api import Batch, Context, ExperienceView, Scenario
from benchmark.config import Range
from benchmark.learners.adaptation import Adaptation, PlainConfig, needs_two_domains


@dataclass(frozen=True)
class Risks:
    """Mean losses of the domains in a batch.

    Attributes:
        each: ``(D,)``; 0 for a domain without an image.
        present: 1 for a domain that has one, ``(D,)``.
    """

    each: Tensor
    present: Tensor

    @property
    def mean(self) -> Tensor:
        """Over the domains in the batch, a scalar."""
        return self.average(self.each)

    @property
    def variance(self) -> Tensor:
        """Over the domains in the batch, divided by their number, a scalar."""
        return self.average((self.each - self.mean).square())

    def average(self, values: Tensor) -> Tensor:
        """Mean of one value per domain ``(D,)`` over the domains in the batch."""
        return (values * self.present).sum() / self.present.sum()


class SeveralDomains(Adaptation):
    """Knows which domain each image of a batch comes from (declare ``domains``).

    Args:
        config: Options.
        context: Backbone, device, family.

    Attributes:
        domains: D, of the experience that has begun.
    """

    def __init__(self, config: PlainConfig, context: Context) -> None:
        super().__init__(config, context)
        self.domains = 0

    def begin_experience(self, experience: ExperienceView) -> None:
        """Counts the domains, then what every classifier does."""
        self.domains = len(experience.source_domains)
        super().begin_experience(experience)

    @property
    def coupled(self) -> str | None:
        """See `Method.coupled`."""
        return "it compares the domains of a batch"

    def members(self, batch: Batch) -> Tensor:
        """1 where an image is of a domain, float32 ``(D, B)``."""
        if batch.domains is None:
            raise RuntimeError("the method does not declare `domains`, or the batch tells none")
        numbers = torch.arange(self.domains, device=batch.domains.device)
        return (numbers.unsqueeze(1) == batch.domains).float()

    def risks(self, losses: Tensor, members: Tensor) -> Risks:
        """Mean of the losses ``(B,)`` of each domain; nothing waits for a device."""
        weights = members.to(losses.dtype)
        counts = weights.sum(dim=1)
        return Risks((weights @ losses) / counts.clamp(min=1), (counts > 0).to(losses.dtype))

    def parts(self, batch: Batch) -> list[tuple[int, Tensor]]:
        """The domains that have images in a batch, and the positions of those: waits for the device once."""
        if batch.domains is None:
            raise RuntimeError("the method does not declare `domains`, or the batch tells none")
        order = batch.domains.argsort(stable=True)
        counts: list[int] = self.members(batch).sum(dim=1).long().tolist()
        return [(number, rows) for number, rows in enumerate(order.split(counts)) if counts[number]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PenalisedConfig(PlainConfig):
    """Options of a penalty on what domains differ in; the optimiser is DomainBed's Adam.

    A weight that jumps to 10 or 100 throws momentum off its way; Adam does not feel it but in its first steps.

    Attributes:
        backbone_lr_scale: Learning rate of the backbone relative to `lr`.
        penalty: Weight of the penalty, from step `anneal` on.
        anneal: Steps in which its weight is 1; behind them, the optimiser begins anew.
    """

    optimizer: Literal["sgd", "adam"] = "adam"
    lr: float = 5e-5
    backbone_lr_scale: float = 1.0
    weight_decay: float = 0.0
    schedule: Literal["progress", "steps", "constant"] = "constant"
    penalty: Annotated[float, Range(min=0, log=True)] = 1.0
    anneal: Annotated[int, Range(min=0, log=True)] = 500


class Penalised(SeveralDomains, abc.ABC):
    """The mean risk of the domains plus a penalty whose weight jumps (IRM, V-REx)."""

    config: PenalisedConfig

    @abc.abstractmethod
    def disagreement(self, logits: Tensor, labels: Tensor, members: Tensor, risks: Risks) -> Tensor:
        """The penalty, a scalar.

        Args:
            logits: ``(B, C)``.
            labels: ``(B,)``.
            members: See `members`.
            risks: Cross-entropy of each domain.
        """

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss and its terms."""
        logits = self.head(self.batch_features(batch))
        members = self.members(batch)
        losses = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=self.config.label_smoothing)
        risks = self.risks(losses, members)
        penalty = self.disagreement(logits, batch.labels, members, risks)
        weight = self.config.penalty if batch.place.step >= self.config.anneal else 1.0
        return {"loss": risks.mean + weight * penalty, "loss_ce": risks.mean, "penalty": penalty}

    def train_step(self, batch: Batch) -> dict[str, Tensor | float]:
        """One step of gradient descent; where the weight jumps, the optimiser forgets, as DomainBed's Adam does."""
        if batch.place.step == self.config.anneal:
            self.active_optimizer.state.clear()
        return self.learn(batch, self.terms(batch))


def generalises(scenario: Scenario) -> str | None:
    """`supports` of methods that learn from labelled domains for one that is held out."""
    family = families.get(scenario.family)
    if not family.shift or family.unlabelled:
        return "no domain is held out of it; use a dg scenario"
    return None


def needs_sources(scenario: Scenario) -> str | None:
    """`supports` of methods that compare labelled domains."""
    return generalises(scenario) or needs_two_domains(scenario)
