"""A classifier of labelled and unlabelled images together: backbone, bottleneck, head, one optimiser, one schedule.

The classifier is that of thuml/Transfer-Learning-Library at c4aa59eb (``tllib/modules/classifier.py``): pretrained
backbone, optional bottleneck, linear head; what is new learns ten times faster than the backbone. Source and target
images go through it together, as there, so BatchNorm in the bottleneck sees both in training; at test time it uses
its running statistics, and a prediction depends on its image alone. A method that adapts overrides
`Adaptation.alignment`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import families
from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Place, Scenario, Transform
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.prompted_vit import check_promptable, cls_feature, freeze
from benchmark.config import Range

Norm = Literal["batch", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptationConfig(MethodConfig):
    """Options of the classifier and of its training.

    Attributes:
        epochs: Passes over the labelled images.
        iterations: Training steps in all, rounded up to whole passes; it takes the place of `epochs`. 0: `epochs`.
        lr: Learning rate of everything that is new, at the start.
        backbone_lr_scale: Learning rate of the backbone relative to `lr`; 0 freezes it.
        optimizer: ``sgd`` (Nesterov) or ``adam``; made anew for each experience.
        momentum: Of SGD; the first beta of Adam.
        second_beta: Of Adam.
        weight_decay: On everything that trains, as the optimiser understands it.
        schedule: All learning rates are multiplied by ``(1 + lr_gamma * x) ** -lr_decay``; x is the share of the
            training that is done (``progress``) or the number of steps (``steps``). ``constant`` does nothing.
        lr_gamma: See `schedule`.
        lr_decay: See `schedule`.
        bottleneck: Width of the layer between class token and head; 0 for none.
        bottleneck_norm: ``batch`` puts a BatchNorm behind it.
        label_smoothing: Share of the label that is spread over all classes.
    """

    epochs: int = 30
    batch_size: int = 32
    iterations: Annotated[int, Range(min=0)] = 0
    lr: Annotated[float, Range(above=0, log=True, search=(1e-3, 0.3))] = 0.01
    backbone_lr_scale: Annotated[float, Range(min=0, log=True)] = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    second_beta: Annotated[float, Range(min=0, below=1)] = 0.999
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.001
    schedule: Literal["progress", "steps", "constant"] = "progress"
    lr_gamma: Annotated[float, Range(min=0)] = 10.0
    lr_decay: Annotated[float, Range(min=0)] = 0.75
    bottleneck: Annotated[int, Range(min=0)] = 256
    bottleneck_norm: Norm = "batch"
    label_smoothing: Annotated[float, Range(min=0, below=1)] = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainConfig(AdaptationConfig):
    """Options of methods whose head is on the class token.

    Attributes:
        bottleneck: Width of a layer between class token and head; 0 for none.
    """

    bottleneck: int = 0


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm for which a training batch of one, which has no variance, is no error.

    It is normalised by the running statistics then, which stay as they are.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Returns normed features ``(B, D)``."""
        if self.training and len(features) == 1:
            return F.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(features)


class Adaptation(Method):
    """Cross-entropy on labelled images plus ``weight`` times a term that a subclass adds in `alignment`.

    Args:
        config: Options.
        context: Backbone, device, family.
    """

    config: AdaptationConfig
    head: nn.Module
    weight = 1.0

    def __init__(self, config: AdaptationConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model
        check_promptable(self.backbone)
        if config.backbone_lr_scale > 0:
            self.backbone.requires_grad_(True)
        else:
            freeze(self.backbone)
        self.bottleneck = self.make_bottleneck(context.backbone.width)
        self.width = config.bottleneck or context.backbone.width
        self.head = self.make_head()
        self.to(context.device)
        self._per_pass = 1

    def make_bottleneck(self, width: int) -> nn.Sequential:
        """Linear, BatchNorm, ReLU, initialised as torch does; empty where there is none."""
        config = self.config
        if config.bottleneck == 0:
            return nn.Sequential()
        norm = BatchNorm(config.bottleneck) if config.bottleneck_norm == "batch" else nn.Identity()
        return nn.Sequential(nn.Linear(width, config.bottleneck), norm, nn.ReLU())

    def make_head(self) -> nn.Module:
        """The head, without rows; it has a `grow`."""
        return ClassHead(self.width, init="torch")

    def grow_head(self, classes: int) -> None:
        """Adds the rows of new classes."""
        if isinstance(self.head, ClassHead):
            self.head.grow(classes)

    @property
    def frozen(self) -> bool:
        """Unless the backbone trains."""
        return self.config.backbone_lr_scale == 0

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes and makes the optimiser."""
        self.grow_head(experience.seen)
        self._per_pass = max(1, math.ceil(len(experience.train) / self.config.batch_size))
        self.optimizer = self.make_optimizer()

    def passes(self) -> Sequence[Transform]:
        """``epochs`` passes, or as many as `iterations` need."""
        once: tuple[Transform, ...] = ("train",)
        count = self.config.epochs
        if self.config.iterations:
            count = math.ceil(self.config.iterations / self._per_pass)
        return once * count

    def make_optimizer(self) -> torch.optim.Optimizer:
        """One group for what is new, one for the backbone; each has a ``base_lr``."""
        config = self.config
        old = {id(parameter) for parameter in self.backbone.parameters()}
        new = [parameter for parameter in self.parameters() if id(parameter) not in old and parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": new, "base_lr": config.lr}]
        if config.backbone_lr_scale > 0:
            groups.append({"params": list(self.backbone.parameters()), "base_lr": config.lr * config.backbone_lr_scale})
        for group in groups:
            group["lr"] = group["base_lr"]
        if config.optimizer == "adam":
            return torch.optim.Adam(
                groups, lr=config.lr, betas=(config.momentum, config.second_beta), weight_decay=config.weight_decay
            )
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )

    def progress(self, place: Place) -> float:
        """Share of the training that is done before a step, in [0, 1)."""
        return place.step / place.steps

    def factor(self, place: Place) -> float:
        """Where the schedule is: factor of all learning rates in a step."""
        config = self.config
        if config.schedule == "constant":
            return 1.0
        done = self.progress(place) if config.schedule == "progress" else place.step
        return float((1 + config.lr_gamma * done) ** -config.lr_decay)

    def features(self, images: Tensor) -> Tensor:
        """The head's input ``(B, d)`` for normalised images: the class token, through the bottleneck."""
        result: Tensor = self.bottleneck(cls_feature(self.backbone, images))
        return result

    def batch_features(self, batch: Batch) -> Tensor:
        """The head's input for the source images of a batch, then for its target images, ``(B + T, d)``.

        All go through the network together, so BatchNorm sees one batch of both domains.
        """
        return self.features(batch.images if batch.target is None else torch.cat([batch.images, batch.target]))

    def alignment(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor | None:
        """The term that draws domains together, or None.

        Args:
            batch: The batch.
            features: Of its source images, then of its target images, ``(B + T, d)``.
            logits: Likewise, ``(B + T, C)``.
        """
        return None

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss and its terms, for source and target images that go through the classifier together."""
        features = self.batch_features(batch)
        logits = self.head(features)
        cross_entropy = F.cross_entropy(logits[: len(batch)], batch.labels, label_smoothing=self.config.label_smoothing)
        alignment = self.alignment(batch, features, logits)
        if alignment is None:
            return {"loss": cross_entropy, "loss_ce": cross_entropy}
        loss = cross_entropy + self.weight * alignment
        return {"loss": loss, "loss_ce": cross_entropy, "alignment": alignment}

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        return self.learn(batch, self.terms(batch))

    def learn(
        self, batch: Batch, terms: Mapping[str, Tensor], *, still: Sequence[nn.Module] = ()
    ) -> dict[str, Tensor | float]:
        """One step of the optimiser at the rate of the batch's place.

        Args:
            batch: The batch.
            terms: ``loss`` is what is minimised.
            still: Modules that get no step.

        Returns:
            The terms, for the log.
        """
        self.descend(terms["loss"], factor=self.factor(batch.place), still=still)
        return {name: term.detach() for name, term in terms.items()}

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets the optimiser go."""
        self.optimizer = None

    def embed(self, images: Tensor) -> Tensor:
        """The head's input, ``(B, d)``."""
        return self.features(images)

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes seen, ``(B, C)``."""
        result: Tensor = self.head(self.features(images))
        return result


def entropy(predictions: Tensor) -> Tensor:
    """Entropy of each row, ``(B,)``; 1e-5 is added inside the logarithm, as in the official code of CDAN and SHOT."""
    return -(predictions * torch.log(predictions + 1e-5)).sum(dim=1)


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """How much classes are confused in a batch: the loss of MCC, a scalar.

    Predictions of temperature T, weighted by their certainty, give the mass ``M = Y^T diag(W) Y`` of each pair of
    classes; rows are scaled to 1, and what lies off the diagonal is the loss. The weights have mean 1 over the batch
    and no gradient.

    Source: Jin et al., ECCV 2020, arXiv 1912.03699, equations 3 to 8; thuml/Transfer-Learning-Library at c4aa59eb,
    ``tllib/self_training/mcc.py`` (1e-5 inside the logarithm of the entropy).

    Args:
        logits: Of unlabelled images, ``(B, C)``.
        temperature: T.
    """
    predictions = (logits / temperature).softmax(dim=1)
    weights = 1 + torch.exp(-entropy(predictions.detach()))
    weights = weights * len(weights) / weights.sum()
    confusion = (predictions * weights.unsqueeze(1)).T @ predictions  # (C, C), symmetric
    confusion = confusion / confusion.sum(dim=1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]


def needs_target(scenario: Scenario) -> str | None:
    """`supports` of methods that adapt to unlabelled images."""
    if any(part.target is None for part in scenario.experiences):
        return "it has no unlabelled target domain to adapt to"
    return None


def needs_two_domains(scenario: Scenario) -> str | None:
    """`supports` of methods that align source and target or, where a domain is held out, source domains."""
    family = families.get(scenario.family)
    if family.shift and not family.unlabelled:
        if any(len(part.source_domains) < 2 for part in scenario.experiences):
            return "it has one source domain and no target: there are no two domains to align"
        return None
    return needs_target(scenario)
