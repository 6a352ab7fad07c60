"""What `dann`, `cdan` and `sdat` share: a discriminator of domains behind a gradient that is reversed.

As in thuml/Transfer-Learning-Library at c4aa59eb, ``tllib/modules/{grl,domain_discriminator}.py``: the
discriminator gets the gradient of its own loss, what comes before it that gradient times minus lambda, and lambda
rises from 0 to 1. `Conditional` is the model of CDAN, whose discriminator sees features and predictions together
(``tllib/alignment/cdan.py``, see `bench_methods.cdan`).

Private: a method outside this package builds on `benchmark.backbones`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, autograd, nn

from benchmark.api import Batch, Context, ExperienceView, Place
from benchmark.config import Range
from benchmark.learners.adaptation import Adaptation, AdaptationConfig, BatchNorm, Norm, entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig(AdaptationConfig):
    """Options of the discriminator.

    Attributes:
        trade_off: Weight of the adversarial loss.
        warmup_alpha: a in lambda = 2 / (1 + exp(-a p)) - 1, the factor of the reversed gradient.
        warmup_steps: N in p = step / N; 0: p is the share of the training that is done.
        hidden: Width of the two hidden layers of the discriminator.
        hidden_norm: ``batch`` puts a BatchNorm behind each of them.
    """

    trade_off: Annotated[float, Range(min=0, log=True)] = 1.0
    warmup_alpha: Annotated[float, Range(min=0)] = 10.0
    warmup_steps: Annotated[int, Range(min=0)] = 0
    hidden: Annotated[int, Range(min=1)] = 1024
    hidden_norm: Norm = "batch"


def warm_up(progress: float, alpha: float) -> float:
    """Lambda: 0 at the beginning, towards 1."""
    return 2 / (1 + math.exp(-alpha * progress)) - 1


class _Reversal(autograd.Function):
    """The identity, whose gradient is multiplied by minus lambda."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * -ctx.strength, None


def reverse(features: Tensor, strength: float) -> Tensor:
    """The same features; going back, their gradient is multiplied by ``-strength``."""
    return cast("Tensor", _Reversal.apply(features, strength))


def make_discriminator(inputs: int, outputs: int, config: AdversarialConfig) -> nn.Sequential:
    """Two hidden layers with BatchNorm and ReLU, then logits of the domains; initialised as torch does."""
    layers: list[nn.Module] = []
    for width in (inputs, config.hidden):
        layers += [nn.Linear(width, config.hidden)]
        layers += [BatchNorm(config.hidden)] if config.hidden_norm == "batch" else []
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(config.hidden, outputs))


def source_or_target(logits: Tensor, sources: int) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy per image of the logits ``(B + T, 1)`` that an image is a source image.

    Args:
        logits: Of source images, then of target images.
        sources: B.

    Returns:
        Losses ``(B,)`` and ``(T,)``.
    """
    is_source = -F.logsigmoid(logits[:sources, 0])
    is_target = -F.logsigmoid(-logits[sources:, 0])
    return is_source, is_target


class Adversarial(Adaptation):
    """A classifier with a discriminator, which is made for an experience and given up after it.

    At test time nobody asks it, so it counts neither as a parameter nor as something that must be kept.
    """

    config: AdversarialConfig
    discriminator: nn.Sequential | None

    def __init__(self, config: AdversarialConfig, context: Context) -> None:
        super().__init__(config, context)
        self.discriminator = None
        self.weight = config.trade_off

    def begin_experience(self, experience: ExperienceView) -> None:
        """Makes the discriminator, then what every classifier makes."""
        self.grow_head(experience.seen)
        self.discriminator = self.discriminator_of(experience).to(self.context.device)
        super().begin_experience(experience)

    def discriminator_of(self, experience: ExperienceView) -> nn.Sequential:
        """The discriminator for an experience."""
        return make_discriminator(self.width, 1, self.config)

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets discriminator and optimiser go."""
        super().end_experience(experience)
        self.discriminator = None

    def strength(self, place: Place) -> float:
        """Lambda in a step."""
        config = self.config
        progress = place.step / config.warmup_steps if config.warmup_steps else self.progress(place)
        return warm_up(progress, config.warmup_alpha)

    def discriminate(self, features: Tensor) -> Tensor:
        """Logits of the domains, ``(B, 1)`` or ``(B, domains)``."""
        if self.discriminator is None:
            raise RuntimeError("train_step before begin_experience")
        result: Tensor = self.discriminator(features)
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionalConfig(AdversarialConfig):
    """Options of a discriminator of features together with predictions (CDAN).

    Attributes:
        entropy: Whether images with certain predictions count more (CDAN+E).
        randomized: Whether the outer product is projected: ``auto`` where it is wider than `widest`.
        randomized_dim: Width m of the projection.
        widest: Widest outer product that is not projected under ``auto``.
    """

    entropy: bool = False
    randomized: Literal["auto", "always", "never"] = "auto"
    randomized_dim: Annotated[int, Range(min=1)] = 1024
    widest: Annotated[int, Range(min=0)] = 4096


def outer(features: Tensor, predictions: Tensor) -> Tensor:
    """The outer product of each row, ``(B, C * d)``; entry ``c * d + j`` is ``g_c f_j``."""
    return torch.einsum("bc,bd->bcd", predictions, features).flatten(1)


def certainty(predictions: Tensor) -> Tensor:
    """Weights ``1 + exp(-H)`` with mean 1, ``(B,)``."""
    weights = 1 + torch.exp(-entropy(predictions))
    return weights / weights.mean()


class RandomMap(nn.Module):
    """The projection ``(R_f f) * (R_g g) / sqrt(m)`` of an outer product; its inner products are right on average.

    Args:
        width: d.
        classes: C.
        outputs: m.
    """

    of_features: Tensor
    of_predictions: Tensor

    def __init__(self, width: int, classes: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("of_features", torch.randn(width, outputs))
        self.register_buffer("of_predictions", torch.randn(classes, outputs))

    def forward(self, features: Tensor, predictions: Tensor) -> Tensor:
        """Returns ``(B, m)``."""
        outputs = self.of_features.shape[1]
        return (features @ self.of_features) * (predictions @ self.of_predictions) / math.sqrt(outputs)


class Conditional(Adversarial):
    """Adversarial training on features and predictions: the model of CDAN."""

    config: ConditionalConfig
    projection: RandomMap | None

    def __init__(self, config: ConditionalConfig, context: Context) -> None:
        super().__init__(config, context)
        self.projection = None

    def discriminator_of(self, experience: ExperienceView) -> nn.Sequential:
        """One logit; draws the projection where there is one."""
        config, classes = self.config, experience.seen
        wide = config.randomized == "auto" and classes * self.width > config.widest
        if config.randomized == "always" or wide:
            self.projection = RandomMap(self.width, classes, config.randomized_dim).to(self.context.device)
        width = classes * self.width if self.projection is None else config.randomized_dim
        return make_discriminator(width, 1, config)

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets the projection go, too."""
        super().end_experience(experience)
        self.projection = None

    def conditioned(self, features: Tensor, predictions: Tensor) -> Tensor:
        """T(f, g), ``(B, C * d)`` or ``(B, m)``."""
        if self.projection is None:
            return outer(features, predictions)
        result: Tensor = self.projection(features, predictions)
        return result

    def alignment(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """The discriminator's loss behind the reversal."""
        predictions = logits.softmax(dim=1).detach()
        found = self.discriminate(reverse(self.conditioned(features, predictions), self.strength(batch.place)))
        losses = torch.cat(source_or_target(found, len(batch)))
        return (losses * certainty(predictions)).mean() if self.config.entropy else losses.mean()
