"""Source models that meet a stream of test batches: one training for all of them, then what a method adds.

`SourceModel` is a whole method: it trains a classifier on the source (`benchmark.learners.classifier`) and answers the
stream with it as it is. Training draws the same numbers in every subclass, so all methods of a table start from one
source model. `EntropyModel` adds an optimiser for scales and shifts of normalisation layers, as TENT has it.

A subclass says which parameters adapt (`SourceModel.adapted`), how BatchNorm normalises in the stream
(`SourceModel.statistics`), and what is done with a batch (`SourceModel.adapt`); the rest, `reset_stream` included, is
here.

Shapes: B images of a batch, C classes, S side of the input in pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from benchmark.api import Context, ExperienceView, Transform
from benchmark.backbones.heads import ClassHead, MLPHead
from benchmark.backbones.normalization import affine_parameters, batch_statistics, norms
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.test_time import Answers, TestTimeMethod


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig(ClassifierConfig):
    """Options of the source model.

    Attributes:
        classifier: ``trained``: a head is trained on the source, and the backbone with it. ``own``: the checkpoint's
            own classifier answers, and nothing is trained; its classes must be those of the scenario.
        backbone_lr_scale: Learning rate of the backbone relative to `lr`; 0 trains the head alone.
    """

    epochs: int = 10
    batch_size: int = 64
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 5e-4
    schedule: Literal["constant", "cosine", "epoch-cosine"] = "cosine"
    classifier: Literal["trained", "own"] = "trained"
    backbone_lr_scale: Annotated[float, Range(min=0, log=True)] = 1.0

    @property
    def answers(self) -> Answers:
        """Whether an answer is that of the model before or after it has adapted to its batch."""
        return "before"


class SourceModel(Classifier, TestTimeMethod):
    """The source model in eval mode: the row that every table of test-time adaptation needs.

    Args:
        config: Options.
        context: Backbone, device, family.
    """

    config: SourceConfig

    def __init__(self, config: SourceConfig, context: Context) -> None:
        own = config.classifier == "own"
        super().__init__(config, context, backbone_lr_scale=0.0 if own else config.backbone_lr_scale)
        self._streaming = False
        self._start: dict[str, Tensor] = {}
        self.check_model()

    def check_model(self) -> None:
        """Refuses a backbone that the method cannot adapt; here none.

        Raises:
            UsageError: It is one.
        """

    def make_head(self) -> ClassHead | MLPHead:
        """The head, without rows; or the checkpoint's own.

        Raises:
            UsageError: The checkpoint has no classifier.
        """
        head = super().make_head()
        if self.config.classifier == "own":
            classifier = self.context.backbone.classifier
            if classifier is None or not isinstance(head, ClassHead):
                raise UsageError(
                    f"classifier=own: the file of `{self.context.backbone.name}` has no classifier",
                    hint="use classifier=trained, or another --backbone",
                )
            head.grow(classifier.out_features)
            head.load_state_dict({"weight": classifier.weight, "bias": classifier.bias})
            head.requires_grad_(False)
        return head

    # ---- source

    @property
    def frozen(self) -> bool:
        """Unless the backbone trains, or moves in the stream."""
        return super().frozen and not self._streaming

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for the classes and makes the optimiser.

        Raises:
            UsageError: The checkpoint's own classifier has other classes than the source.
        """
        if self.config.classifier == "trained":
            super().begin_experience(experience)
        elif isinstance(self.head, ClassHead) and self.head.classes != experience.seen:
            raise UsageError(
                f"classifier=own: the checkpoint knows {self.head.classes} classes, the scenario has {experience.seen}",
                hint="use classifier=trained",
            )

    def passes(self) -> Sequence[Transform]:
        """None where the checkpoint's own classifier answers."""
        return super().passes() if self.config.classifier == "trained" else ()

    # ---- stream

    def adapted(self) -> dict[str, nn.Parameter]:
        """The parameters that adapt, by their names; asked after all were frozen. Default: none."""
        return {}

    def moving(self) -> dict[str, Tensor]:
        """Everything that the stream changes and `reset_stream` puts back, by name; default: what adapts."""
        return dict(self.adapted())

    def stream_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer | None:
        """The optimiser of the stream, made anew by `reset_stream`. Default: none."""
        return None

    def statistics(self) -> AbstractContextManager[None]:
        """How BatchNorm normalises in the stream, and after it in `predict`. Default: by its running statistics."""
        return contextlib.nullcontext()

    def begin_stream(self) -> None:
        """Freezes all but what adapts, and keeps what `reset_stream` puts back."""
        self._streaming = True
        self.requires_grad_(False)
        for parameter in self.adapted().values():
            parameter.requires_grad_(True)
        self._start = {name: tensor.detach().clone() for name, tensor in self.moving().items()}
        self.optimizer = self.stream_optimizer(list(self.adapted().values()))

    @torch.no_grad()
    def reset_stream(self) -> None:
        """Puts back what has moved, and makes the optimiser anew."""
        for name, tensor in self.moving().items():
            tensor.copy_(self._start[name])
        self.optimizer = self.stream_optimizer(list(self.adapted().values()))

    def stream_logits(self, images: Tensor) -> Tensor:
        """Logits ``(B, C)`` as the stream computes them."""
        with self.statistics():
            return self.logits(images)

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """Answers a batch; nothing adapts."""
        return self.stream_logits(images)

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, C)``: of the source model, after the stream of what it has become."""
        return self.stream_logits(images) if self._streaming else self.logits(images)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepConfig(SourceConfig):
    """Options of methods that take steps of an optimiser in the stream.

    Attributes:
        adapt_lr: Learning rate in the stream.
        adapt_optimizer: Of the stream.
        adapt_momentum: Of ``sgd`` in the stream; the first beta of ``adam`` is 0.9.
        nesterov: Of ``sgd`` in the stream.
        adapt_decay: Weight decay in the stream.
        steps: Steps on every batch; the answer is that of the forward pass before the last one.
        reset_batch: Whether everything is put back before every batch (``episodic``).
    """

    adapt_lr: Annotated[float, Range(above=0, log=True, search=(1e-5, 1e-1))] = 1e-3
    adapt_optimizer: Literal["adam", "sgd"] = "adam"
    adapt_momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    nesterov: bool = False
    adapt_decay: Annotated[float, Range(min=0)] = 0.0
    steps: Annotated[int, Range(min=1)] = 1
    reset_batch: bool = False

    @property
    def answers(self) -> Answers:
        """The answer is that before the step, unless steps on the batch came before."""
        return "before" if self.steps == 1 else "after"


class EntropyModel(SourceModel):
    """Scales and shifts of normalisation layers go down a loss of the answers; BatchNorm normalises by the batch.

    A subclass gives the `objective`.
    """

    config: StepConfig

    def check_model(self) -> None:
        """Refuses a backbone without normalisation layers."""
        if not affine_parameters(self.backbone):
            raise UsageError(
                f"`{self.context.backbone.name}` has no normalisation layer with a scale and a shift to adapt",
                hint="give a network with BatchNorm, LayerNorm or GroupNorm by --backbone",
            )

    def adapted(self) -> dict[str, nn.Parameter]:
        """Scales and shifts of all BatchNorm, LayerNorm and GroupNorm layers of the backbone."""
        return affine_parameters(self.backbone)

    def statistics(self) -> AbstractContextManager[None]:
        """Those of the batch."""
        return batch_statistics(self.backbone)

    def stream_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer | None:
        """Adam or SGD, as the options say."""
        config = self.config
        if config.adapt_optimizer == "adam":
            return torch.optim.Adam(parameters, lr=config.adapt_lr, weight_decay=config.adapt_decay)
        return torch.optim.SGD(
            parameters,
            lr=config.adapt_lr,
            momentum=config.adapt_momentum,
            nesterov=config.nesterov,
            weight_decay=config.adapt_decay,
        )

    def objective(self, logits: Tensor) -> Tensor | None:
        """What a step goes down, a scalar; None: no step is taken."""
        raise NotImplementedError(f"{type(self).__name__} has no `objective`")

    def adapt(self, images: Tensor) -> Tensor:
        """Answers, then takes a step (or several)."""
        if self.config.reset_batch:
            self.reset_stream()
        for _ in range(self.config.steps):
            logits = self.stream_logits(images)
            loss = self.objective(logits)
            if loss is not None:
                self.descend(loss)
        return logits.detach()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each prediction in nats, ``(B,)``, without an epsilon."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def needs_batch_norm(model: SourceModel) -> None:
    """Refuses a backbone without BatchNorm, whose statistics a method adapts.

    Raises:
        UsageError: It has none.
    """
    if not norms(model.backbone, ("batch",)):
        raise UsageError(
            f"`{model.context.backbone.name}` has no BatchNorm whose statistics could adapt: the method would be the "
            "source",
            hint="give a network with BatchNorm by --backbone, e.g. nano-cnn or timm:resnet50.tv_in1k",
        )
