"""Methods on dual encoders whose classes are told by name, trained by SGD as Dassl.pytorch does.

Most code that adapts CLIP stands on KaiyangZhou/Dassl.pytorch (read at c61a1b57, ``dassl/optim``): SGD with momentum
and decay on everything that trains, and a learning rate that changes from epoch to epoch along a cosine, behind first
epochs at a constant rate of 1e-5. `NamedLearner` has this, the names of the classes seen, and those that compete in
the loss; a method gives `NamedLearner.losses` and `benchmark.api.Method.predict_named`::

    @dataclass(frozen=True, kw_only=True, slots=True)
    class MineConfig(MethodConfig, NamedOptions): ...

    class Mine(NamedLearner):
        def losses(self, batch, places):
            return {"loss": F.cross_entropy(self.logits(batch.images), places)}

Options come from `NamedOptions` beside those of the kind of method: ``MethodConfig``, or ``FeatureConfig`` where
the image tower is frozen (``class Mine(NamedLearner, FeatureMethod)``).

Streams of experiences are not in these papers: what was learned goes on, optimiser and schedule start anew, and the
classes of the experience compete.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, Method, Place
from benchmark.backbones.dual import dual_of
from benchmark.config import Range
from benchmark.optimizers import delayed_cosine

DASSL = "KaiyangZhou/Dassl.pytorch at c61a1b57, dassl/config/defaults.py; in no configuration of the method"
"""Source of values that Dassl.pytorch sets where the method does not."""


@dataclass(frozen=True, kw_only=True)
class NamedOptions:
    """Options of SGD and of the classes in its loss; a second base beside a configuration with slots.

    Attributes:
        lr: Learning rate of SGD at the top of its cosine.
        momentum: Of SGD.
        weight_decay: Of SGD, on everything that trains.
        warmup: First epochs with the constant `warmup_lr`; the cosine counts from their end, but over `epochs`.
        warmup_lr: Learning rate in these.
        mask: Classes in the training loss: those of the experience (``current``), or all seen so far (``none``).
            The same in domain-incremental streams and where there is one experience.
    """

    __slots__ = ()  # two bases with slots of their own could not be combined

    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.1))] = 0.002
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0005
    warmup: Annotated[int, Range(min=0)] = 1
    warmup_lr: Annotated[float, Range(above=0)] = 0.00001
    mask: Literal["current", "none"] = "current"


class NamedMethod(Method):
    """A method that tells classes apart by their names: the names of the classes seen, and predictions among them.

    Args:
        config: Options.
        context: Backbone with a text tower.

    Attributes:
        dual: The dual encoder.
        names: Names of the classes seen, in label order.
    """

    config: Any

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone)
        self.names: tuple[str, ...] = ()

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes."""
        self.names = experience.class_names

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        return self.predict_named(images, self.names)

    def extra_state(self) -> Mapping[str, Any]:
        """Names of the classes seen."""
        return {"names": list(self.names)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the names back."""
        self.names = tuple(state["names"])


class NamedLearner(NamedMethod):
    """The classes that compete, and SGD on what a subclass adds to the pretrained network.

    Args:
        config: Options, `NamedOptions` among them.
        context: Backbone with a text tower.

    Attributes:
        competing: Labels that compete in the training loss.
    """

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.competing: tuple[int, ...] = ()

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes and makes the optimiser."""
        super().begin_experience(experience)
        masked = self.config.mask == "current" and not self.context.family.domains
        self.competing = tuple(experience.classes) if masked else tuple(range(len(self.names)))
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD on `trainable`, in one group."""
        config = self.config
        return torch.optim.SGD(
            self.trainable(), lr=self.rate(Place()), momentum=config.momentum, weight_decay=config.weight_decay
        )

    def trainable(self) -> list[nn.Parameter]:
        """What SGD trains, in one group: everything that is not the pretrained network."""
        frozen = {id(parameter) for parameter in self.context.pretrained.module.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in frozen]

    def rate(self, place: Place) -> float:
        """Learning rate of a step; it changes from epoch to epoch."""
        config = self.config
        return delayed_cosine(
            place.epoch, lr=config.lr, period=config.epochs, warmup=config.warmup, warmup_lr=config.warmup_lr
        )

    def set_rate(self, place: Place) -> None:
        """Puts `rate` into the optimiser."""
        for group in self.active_optimizer.param_groups:
            group["lr"] = self.rate(place)

    @property
    def competing_names(self) -> tuple[str, ...]:
        """Names of the classes that compete in the loss, K of them."""
        return tuple(self.names[label] for label in self.competing)

    def places(self, labels: Tensor) -> Tensor:
        """Positions of labels ``(B,)`` among the classes that compete."""
        place = torch.full((len(self.names),), -1, dtype=torch.int64)
        place[list(self.competing)] = torch.arange(len(self.competing))
        return place.to(labels.device, non_blocking=True)[labels]

    @abc.abstractmethod
    def losses(self, batch: Batch, places: Tensor) -> Mapping[str, Tensor]:
        """Loss terms of a batch, the total under ``loss``, with gradients.

        Args:
            batch: The batch.
            places: Right classes among those that compete, int64 ``(B,)``.
        """

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step down the total."""
        self.set_rate(batch.place)
        terms = self.losses(batch, self.places(batch.labels))
        self.descend(terms["loss"])
        return {name: term.detach() for name, term in terms.items()}


def features_of(batch: Batch) -> Tensor:
    """Image features ``(B, d)`` of a batch of a `benchmark.api.FeatureMethod`.

    Raises:
        RuntimeError: It has none: the method is another one.
    """
    if batch.features is None:
        raise RuntimeError("a batch without features")
    return batch.features


class TextFeatures:
    """Zero-shot weights of the classes asked for, without gradients; those of the last lists of names are kept.

    They depend on the frozen text tower alone, so nothing of it is state of the run.

    Args:
        compute: Makes the features ``(C, d)`` of a list of names.
        kept: Lists of names whose features are kept.
    """

    def __init__(self, compute: Callable[[Sequence[str]], Tensor], kept: int = 8) -> None:
        self._compute = compute
        self._most = kept
        self._features: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def __call__(self, names: Sequence[str]) -> Tensor:
        """Features ``(C, d)``."""
        key = tuple(names)
        if key not in self._features:
            while len(self._features) >= self._most:
                del self._features[next(iter(self._features))]
            self._features[key] = self._compute(key)
        return self._features[key]
