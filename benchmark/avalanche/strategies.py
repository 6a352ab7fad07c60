"""Runs strategies of Avalanche as methods: write ``strategy``, get a row in the leaderboard.

A whole method, registered like any other::

    class Mine(AvalancheMethod):
        def strategy(self, model, optimizer, **common):
            from avalanche.training.supervised import Naive

            return Naive(model=model, optimizer=optimizer, **common)

    @hookimpl
    def bench_register_methods():
        return [MethodSpec(name="mine", build=Mine, config=AvalancheConfig, summary="my strategy",
                           uses=frozenset({"boundaries"}))]

**The model** takes float images ``(B, 3, H, W)`` in [0, 1] as stored and returns logits of the classes
seen; it resizes, normalises and, in training mode, augments inside, because strategies read data
sets by themselves. All weights train.

**A strategy lives for one experience.** It is made anew for each, and what it must not forget goes
through `AvalancheMethod.remember` and `AvalancheMethod.recall` as a tree of tensors and numbers. A
resumed run therefore takes the same road as an uninterrupted one and gives the same bits. A
strategy with plugins must define both.

**Difference from plain Avalanche:** the optimiser's momentum starts anew with each experience.
"""

from __future__ import annotations

import abc
import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from benchmark.api import Context, ExperienceView, ImageSet, LoopMethod, MethodConfig
from benchmark.avalanche import import_quietly, to_dataset
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.config import Range
from benchmark.errors import PluginError
from benchmark.inputs.images import ImagePipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class AvalancheConfig(MethodConfig):
    """Options that every adapted strategy has.

    Attributes:
        lr: Learning rate of backbone and head.
        optimizer: Made anew for each experience.
        momentum: Of ``sgd``.
        weight_decay: As the optimiser understands it.
    """

    epochs: int = 5
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 0.01
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0


class InputStage(nn.Module):
    """Stored images to model input: augmented in training mode, the test transform otherwise.

    The same tensor, asked for twice in a row, gets the same augmentation: a teacher (LwF) sees what
    its student sees. Copies of a model share the stage for that reason.
    """

    def __init__(self, pipeline: ImagePipeline) -> None:
        super().__init__()
        self.pipeline = pipeline
        self._last: tuple[Tensor, int, bool, Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> InputStage:
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns normalised ``(B, 3, S, S)`` for float ``(B, 3, H, W)`` in [0, 1]."""
        last = self._last
        if last is not None and last[0] is images and last[1:3] == (images._version, self.training):
            return last[3]
        raw = (images * 255.0).round().to(torch.uint8)  # exact: the values are multiples of 1/255
        # The global generator, which the engine seeds for each experience.
        ready = self.pipeline.train(raw, torch.default_generator) if self.training else self.pipeline.eval(raw)
        self._last = (images, images._version, self.training, ready)
        return ready

    def forget(self) -> None:
        """Frees the last batch."""
        self._last = None


class AdaptedModel(nn.Module):
    """Input stage, backbone (class token), linear head.

    Args:
        backbone: A timm vision transformer.
        head: Classifier on its class token.
        pipeline: Input transform of the run.
    """

    def __init__(self, backbone: nn.Module, head: ClassHead, pipeline: ImagePipeline) -> None:
        super().__init__()
        self.stage = InputStage(pipeline)
        self.backbone = backbone
        self.head = head

    def classify(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` for normalised images ``(B, 3, S, S)``."""
        logits: Tensor = self.head(cls_feature(self.backbone, images))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` for float images ``(B, 3, H, W)`` in [0, 1]."""
        return self.classify(self.stage(images))


class AvalancheMethod(LoopMethod):
    """A strategy of Avalanche as a method. Subclasses implement `strategy`.

    Attributes:
        full_head: True gives the head a row for every class from the start, for strategies that
            compare logits of different times; the method must declare ``num_classes``.
    """

    full_head: ClassVar[bool] = False
    config: AvalancheConfig

    def __init__(self, config: AvalancheConfig, context: Context) -> None:
        super().__init__(config, context)
        backbone = context.backbone.model.requires_grad_(True)
        head = ClassHead(context.backbone.width, context.num_classes if self.full_head else 0)
        self.model = AdaptedModel(backbone, head, context.image_pipeline).to(context.device)
        self._kept: Mapping[str, Any] = {}
        self._seen: list[int] = []
        self._done = 0

    @abc.abstractmethod
    def strategy(self, model: nn.Module, optimizer: torch.optim.Optimizer, **common: Any) -> Any:
        """Makes the strategy; called once per experience.

        Args:
            model: `AdaptedModel`, already grown for the classes of the experience.
            optimizer: Over all its parameters.
            common: The other arguments of ``SupervisedTemplate``: criterion, batch sizes, epochs,
                device, and an evaluator that does nothing.
        """

    def remember(self, strategy: Any) -> Mapping[str, Any]:
        """What the strategy must still know in the next experience, besides the model's weights.

        Returns:
            A tree of tensors, numbers, strings, lists and mappings; ``{}`` if there is nothing.

        Raises:
            PluginError: This default, when the strategy has plugins or is not a plain one.
        """
        templates = import_quietly("avalanche.training.templates")
        naive = import_quietly("avalanche.training.supervised").Naive
        plugins = [type(plugin).__name__ for plugin in strategy.plugins if _is_authors(plugin)]
        if plugins or type(strategy) not in (templates.SupervisedTemplate, naive):
            parts = ", ".join([type(strategy).__name__, *plugins])
            raise PluginError(
                f"{type(self).__name__} does not say what {parts} keeps between experiences",
                hint="define remember(strategy) and recall(strategy, kept); return {} when it keeps nothing",
            )
        return {}

    def recall(self, strategy: Any, kept: Mapping[str, Any]) -> None:
        """Puts back into a fresh strategy what `remember` returned after the previous experience."""

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes."""
        self.model.head.grow(experience.seen)

    def train_experience(self, experience: ExperienceView) -> Mapping[str, float]:
        """Trains a fresh strategy on the experience; returns the mean of its loss."""
        log = _LossMeter()
        with _without_avalanches_warnings():
            strategy = self.strategy(self.model, self._optimizer(), **self._common())
            strategy.plugins.append(log)
            strategy.clock.train_exp_counter = self._done
            if self._done:
                self.recall(strategy, self._kept)
            strategy.train(self._experience(experience), eval_streams=[], num_workers=0)
            self._kept = self.remember(strategy)
        self.model.stage.forget()
        self._seen = sorted({*self._seen, *experience.classes})
        self._done += 1
        return {"loss": log.total / log.samples} if log.samples else {}

    def _optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, self.model.parameters()
        if config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)

    def _common(self) -> dict[str, Any]:
        plugins = import_quietly("avalanche.training.plugins")
        return {
            "criterion": nn.CrossEntropyLoss(),
            "train_mb_size": self.config.batch_size,
            "train_epochs": self.config.epochs,
            "eval_mb_size": self.config.batch_size,
            "device": self.context.device,
            "evaluator": plugins.EvaluationPlugin(loggers=[]),
            "eval_every": -1,
        }

    def _experience(self, experience: ExperienceView) -> Any:
        """The experience for Avalanche, with what may be known of the stream so far."""
        datasets = import_quietly("avalanche.benchmarks.scenarios.dataset_scenario")
        stream = datasets.benchmark_from_datasets(train=[to_dataset(experience.train, task_labels=True)]).train_stream
        made = stream[0]
        made.current_experience = self._done
        made.classes_in_this_experience = set(experience.classes)
        made.previous_classes = set(self._seen)
        made.classes_seen_so_far = {*self._seen, *experience.classes}
        return made

    def predict(self, images: Tensor) -> Tensor:
        """Logits of the classes seen, ``(B, C)``."""
        logits = self.model.classify(images)
        # After a full head: rows of classes to come were never right in training.
        return logits[:, : max(self._seen) + 1] if self.full_head and self._seen else logits

    def extra_state(self) -> Mapping[str, Any]:
        """What the strategy remembers, and how far the stream has come."""
        return {"kept": self._kept, "seen": self._seen, "done": self._done}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `extra_state` returned."""
        self._kept, self._seen, self._done = state["kept"], list(state["seen"]), int(state["done"])


@contextlib.contextmanager
def _without_avalanches_warnings() -> Iterator[None]:
    """Drops warnings that come from inside Avalanche and that no user of ours can act on.

    Its ``deprecated`` decorator puts an ``always`` filter in front of ours, hence the recording.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"avalanche\.")
        warnings.filterwarnings("ignore", message="No loggers specified")  # wanted: we keep our own records
        yield
    for warning in caught:
        if not (issubclass(warning.category, DeprecationWarning) and "avalanche" in Path(warning.filename).parts):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


class _LossMeter:
    """A plugin that sums up the loss. It needs no base class: Avalanche calls the hooks it finds."""

    def __init__(self) -> None:
        self.total = 0.0
        self.samples = 0

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        count = len(strategy.mb_y)
        self.total += float(strategy.loss.detach()) * count
        self.samples += count


def _is_authors(plugin: object) -> bool:
    """Whether the author put it there, not Avalanche's template or we."""
    plugins = import_quietly("avalanche.training.plugins")
    clock = import_quietly("avalanche.training.plugins.clock").Clock
    periodic = import_quietly("avalanche.training.templates.base_sgd").PeriodicEval
    return not isinstance(plugin, (_LossMeter, plugins.EvaluationPlugin, clock, periodic))


# --- for remember and recall --------------------------------------------------------------------


def pack(dataset: Any) -> dict[str, Any]:
    """An Avalanche data set of stored images, as made by `benchmark.avalanche.to_dataset`, as tensors.

    Returns:
        ``images`` uint8 ``(M, 3, H, W)``, ``labels`` and ``ids`` int64 ``(M,)``, and ``logits``
        ``(M, K)`` if the data set has them.
    """
    count = len(dataset)
    pixels = [(dataset[place][0] * 255.0).round().to(torch.uint8) for place in range(count)]
    packed = {
        "images": torch.stack(pixels) if pixels else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        "labels": torch.tensor([int(dataset.targets[place]) for place in range(count)], dtype=torch.int64),
        "ids": torch.tensor([int(dataset.sample_ids[place]) for place in range(count)], dtype=torch.int64),
    }
    if count and hasattr(dataset, "logits"):
        packed["logits"] = torch.stack([dataset.logits[place] for place in range(count)])
    return packed


def unpack(packed: Mapping[str, Any]) -> Any:
    """The data set that `pack` took apart; its images belong to it."""
    images = packed["images"]
    kept = ImageSet(images, torch.arange(len(images)), packed["labels"], packed["ids"])
    extra = {"logits": list(packed["logits"].unbind())} if "logits" in packed else {}
    return to_dataset(kept, task_labels=True, **extra)


def pack_groups(policy: Any) -> dict[str, Any]:
    """The groups of a balanced memory (``BalancedExemplarsBuffer`` of reservoirs) as a tree."""
    return {
        "groups": [
            {
                "key": int(key),
                "size": int(group.max_size),
                "weights": group._buffer_weights.clone(),
                # A group that has no room yet holds an empty, untyped data set.
                "data": pack(group.buffer) if len(group.buffer) else None,
            }
            for key, group in policy.buffer_groups.items()
        ]
    }


def unpack_groups(policy: Any, kept: Mapping[str, Any]) -> None:
    """Puts back into a fresh memory what `pack_groups` returned."""
    storage = import_quietly("avalanche.training.storage_policy")
    for entry in kept["groups"]:
        group = storage.ReservoirSamplingBuffer(entry["size"])
        if entry["data"] is not None:
            group.buffer = unpack(entry["data"])
        group._buffer_weights = entry["weights"].clone()
        policy.buffer_groups[entry["key"]] = group
