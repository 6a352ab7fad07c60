"""What an author implements and is given: methods, scenarios, experiences; one file, as it is what an author reads.

A **scenario** is a pure function of (data root, seed, options) that returns a `Scenario`: an ordered list of
`Experience`s with training and test images. A **method** owns the training *step*; the engine (`benchmark.run.engine`)
owns the loop, the evaluation, the checkpoints and the record.

What the learner may not see is not handed to it: the engine gives a method an `ExperienceView` and a `Context` that
raise `UndeclaredUse` for everything outside the method's ``uses``. A view holds what it may show and no way back to
the scenario, so test and target labels are not among the objects that a method can reach. (It is no sandbox: code that
walks the interpreter's frames, or reads private names of this package, sees everything.)

**Adaptation.** A labelled source and an unlabelled target are one `Experience`: ``train`` and ``target``. A method
that declares ``unlabelled`` finds target images in every training batch:

* ``batch.target``: as many as ``batch_size``, augmented and normalised like the source images, ``batch.target_index``:
  their positions in ``view.unlabelled``;
* an epoch has ``ceil(len(source) / batch_size)`` steps, with or without a target, so that all methods of a table take
  the same number of steps. The target is an endless sequence of shuffled passes, so every target batch is full;
* `Method.reads` can ask for epochs of the source or of the target alone (source-free adaptation);
* which images come in which batch, and how they are augmented, follows from the data seed and the place in the run: a
  resumed run sees the same, and the source batches of a method do not depend on whether it reads the target.

``view.unlabelled`` is the whole target set in a fixed random order with labels -1 and ids that only count.
``view.source_domains`` and ``view.target_domain`` (declare ``domains``) are the names, ``batch.domains`` tells which
source each image comes from, ``view.class_names`` (declare ``class_names``) are the names of the classes.

**Frozen encoders.** A `FeatureMethod` trains on features of a frozen encoder of images or texts: the engine computes
them once per experience wherever images are not augmented at random, or with ``views=K`` for K augmented views of each
image, and every batch brings ``features`` (and ``target_features``) instead of what they were computed from.

**Classes that were never trained** (base-to-new, cross-dataset) are test sets of the scenario with their own classes
(`TestSet`). A method that declares ``open_vocabulary`` implements `Method.predict_named` and is given the names of
these classes, nothing else. So it is where the names of all experiences are known from the start
(`benchmark.families.Family.names`): then for every test set, trained or not.

**Generation.** In families that generate (`benchmark.families.Family.generates`) a method writes a text for every
sample: it says ``generates`` in its `MethodSpec` and implements `Method.generate`, which is asked instead of
`Method.predict`. What is to be learnt are the references of training samples (`Batch.references`,
``view.train.references``); those of test samples are never shown. A causal model returns its mean loss per token as
the loss term ``loss_per_token``.

Shapes: B batch, C classes, H and W pixels. Images are uint8 ``(B, 3, H, W)`` in `ImageSet`s and
float, normalised, at the model's input size in a `Batch`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor, nn

from benchmark.config import Range, check_ranges
from benchmark.errors import PluginError, UsageError
from benchmark.samples import ImageSet, ImageSource, Kind, Raw, References, Samples, Source, Text
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet, Wording
from benchmark.stepping import Stepper
from benchmark.trees import tensors_in
from benchmark.views import Context, ExperienceView, Manifest

if TYPE_CHECKING:
    from typing_extensions import Self

Transform = Literal["train", "test"]

__all__ = [
    "Batch",
    "Context",
    "Experience",
    "ExperienceView",
    "FeatureConfig",
    "FeatureMethod",
    "ImageSet",
    "ImageSource",
    "Kind",
    "LearnerConfig",
    "LoopMethod",
    "Manifest",
    "Method",
    "MethodConfig",
    "Place",
    "Raw",
    "References",
    "Samples",
    "Scenario",
    "ScenarioRequest",
    "Source",
    "TestSet",
    "Text",
    "Transform",
    "Wording",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerConfig:
    """Options that every method has. Subclass it, frozen; methods on images subclass `MethodConfig`.

    A number declares what it may be: ``rank: Annotated[int, Range(min=1)] = 8`` (`benchmark.config.Range`).

    Attributes:
        epochs: Passes over the training samples of each experience; 0 trains nothing.
        batch_size: Training samples per step.
    """

    epochs: Annotated[int, Range(min=0, log=True)] = 1
    batch_size: Annotated[int, Range(min=1, log=True)] = 128

    def __post_init__(self) -> None:
        """Checks ranges as fields declare them; subclasses call ``LearnerConfig.__post_init__(self)`` first.

        Raises:
            ValueError: ``"<field>: <value> ...; use ..."`` when a value is out of range.
        """
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodConfig(LearnerConfig):
    """Options that every method on images has. Subclass it, frozen, with the method's own fields.

    Attributes:
        normalize: Input normalisation: ``backbone`` (the checkpoint's own mean and standard
            deviation), ``zero_one``, ``half_half``, ``imagenet`` or ``clip``.
        augment: Whether training images are augmented as the scenario's input preset says.
    """

    normalize: str = "backbone"
    augment: bool = True

    def __post_init__(self) -> None:
        """Checks ranges as fields declare them; subclasses call ``MethodConfig.__post_init__(self)`` first.

        Raises:
            ValueError: ``"<field>: <value> ...; use ..."`` when a value is out of range.
        """
        LearnerConfig.__post_init__(self)
        allowed = ("backbone", "zero_one", "half_half", "imagenet", "clip")
        if self.normalize not in allowed:
            raise ValueError(f"normalize: {self.normalize!r} is unknown; use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch stands in the training of an experience; schedules follow it, and no method counts its steps.

    Attributes:
        epoch: Number of the pass, from 0.
        epochs: Passes of the experience.
        step: Steps of the experience before this one, over all passes.
        steps: Steps of the experience, over all passes.
        epoch_step: Steps of this pass before this one.
        epoch_steps: Steps of this pass.
    """

    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 1
    epoch_step: int = 0
    epoch_steps: int = 1


@dataclass(frozen=True)
class Batch:
    """One training batch, ready for the model.

    Attributes:
        inputs: What the run's pipeline makes of B samples, see `images` and `texts`; B is 0 in epochs that read the
            target alone, and where ``features`` come from a bank.
        labels: Labels ``(B,)``, int64.
        target: Unlabelled target inputs, T of them, prepared like ``inputs``; None unless the
            method declares ``unlabelled``, the experience has a target and the epoch reads it.
        target_index: Their positions in ``view.unlabelled``, int64 ``(T,)`` on the CPU, e.g. to look up
            pseudo-labels; None when ``target`` is.
        domains: Domain of each labelled sample, positions in ``view.source_domains``, int64 ``(B,)``;
            None unless the method declares ``domains`` and the domains have names.
        features: `FeatureMethod.encode` of the labelled samples, ``(B, d)``; None in other methods.
        target_features: The same of the target samples, ``(T, d)``; then ``target`` may be empty.
        place: Where it stands in the experience.
        references: Where texts are generated, those that may be written about each of the B samples, one or more;
            else None.
        index: Positions of the labelled samples in ``view.train``, int64 ``(B,)`` on the CPU, e.g. to average over
            passes; None in epochs that read the target alone.
    """

    inputs: Any
    labels: Tensor
    target: Any = None
    target_index: Tensor | None = None
    domains: Tensor | None = None
    features: Tensor | None = None
    target_features: Tensor | None = None
    place: Place = field(default_factory=Place)
    references: References | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """The inputs of a method on images: float ``(B, 3, S, S)`` at the model's size, augmented and normalised.

        Raises:
            PluginError: The batch holds something else.
        """
        if not isinstance(self.inputs, Tensor):
            raise PluginError("a method asks its batch for images, but it holds texts", hint="read `batch.texts`")
        return self.inputs

    @property
    def texts(self) -> Sequence[Text]:
        """The inputs of a method on texts: the fields of B examples.

        Raises:
            PluginError: The batch holds something else.
        """
        if isinstance(self.inputs, Tensor):
            raise PluginError("a method asks its batch for texts, but it holds images", hint="read `batch.images`")
        found: Sequence[Text] = self.inputs
        return found


class Method(nn.Module, abc.ABC):
    """A learner. Subclasses implement `train_step`, and `predict` where they classify, `generate` where they generate.

    The constructor stores parts and moves them to ``context.device``; it must not read data.
    Parameters, buffers and ``self.optimizer`` are checkpointed by the engine; anything else that
    must survive a restart goes through `extra_state` and `load_extra_state`.

    Args:
        config: The method's configuration, frozen.
        context: Pretrained model, device, family, and what was declared.
    """

    optimizer: torch.optim.Optimizer | None = None

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__()
        self.config = config
        self.context = context
        self.stepper = Stepper()

    def begin_experience(self, experience: ExperienceView) -> None:
        """Called before the first batch of each experience.

        Grow heads and make the optimiser here. On resume it is called again, from the state at
        the end of the previous experience, before the state in the middle is put back.
        """

    @abc.abstractmethod
    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Trains on one batch, the optimiser's step included.

        Returns:
            Loss terms for the log, the total under ``loss``; tensors may stay on the device.
        """

    @property
    def frozen(self) -> bool:
        """Whether the pretrained network stays in eval mode while the method trains. Default: nothing of it trains.

        In eval mode there is no dropout, and BatchNorm keeps the running statistics of the weight file; else they
        move, and are part of the checkpoint.
        """
        return not any(parameter.requires_grad for parameter in self.context.pretrained.module.parameters())

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a pretrained network that is `frozen` stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.context.pretrained.module.eval()
        return self

    @property
    def active_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of this experience.

        Raises:
            PluginError: There is none: `train_step` came before `begin_experience`, or that made none.
        """
        if self.optimizer is None:
            raise PluginError(
                f"{type(self).__name__} trains without an optimizer", hint="make `self.optimizer` in `begin_experience`"
            )
        return self.optimizer

    @property
    def coupled(self) -> str | None:
        """Why the loss is no mean over samples (statistics of a batch enter), in a few words; None: it is one.

        Runs that split batches (``engine.micro_batch``, ``torchrun``) are refused with it. No number depends on it.
        """
        return None

    def descend(
        self, loss: Tensor, *, factor: float | None = None, still: Sequence[nn.Module] = (), clip: float = 0.0
    ) -> None:
        """One step of the optimiser down a loss, whatever a run was asked for (`benchmark.stepping`).

        Args:
            loss: What is minimised, a scalar: the mean over the samples of the batch.
            factor: The learning rate of each group is its ``base_lr`` times this; None leaves all rates as they are.
            still: Modules that get no step.
            clip: Largest norm of the gradient of all that the optimiser moves; 0: any.
        """
        if factor is not None:
            for group in self.active_optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        self.stepper.descend(self.active_optimizer, loss, still=still, clip=clip)

    def reads(self, epoch: int) -> Literal["both", "source", "target"]:
        """What the batches of an epoch hold, in methods that declare ``unlabelled``.

        Asked only where the experience has a target; must depend on the configuration alone.

        Args:
            epoch: Number of the epoch within the experience, from 0.

        Returns:
            ``both``: labelled images with target images beside them, one pass over the labelled
            ones. ``source``: labelled images only. ``target``: one pass over the target images,
            ``batch.images`` and ``batch.labels`` are empty: source-free adaptation.
        """
        return "both"

    def passes(self) -> Sequence[Transform]:
        """The passes over the training images of the experience that has just begun, by their transform.

        Asked once per experience, after `begin_experience` (on resume again, from the same state); each
        pass is one epoch of batches for `train_step`. Override it where experiences differ, e.g. in a method that
        trains in the first one only, or where images are to be read as they are at test time.

        Returns:
            ``train`` (as ``augment`` says) or ``test`` (no augmentation) for each pass. Default: ``epochs``
            times ``train``. Empty: `train_step` is not called.
        """
        once: tuple[Transform, ...] = ("train",)
        return once * int(self.config.epochs)

    def end_experience(self, experience: ExperienceView) -> None:
        """Called after the last batch of each experience, before evaluation."""

    def predict(self, inputs: Any, /) -> Tensor:
        """Returns logits ``(B, K)`` for B inputs: normalised images ``(B, 3, S, S)``, or texts.

        K is the number of classes seen; more only if ``num_classes`` is declared. Called in eval
        mode without gradients; must depend on each input alone unless ``test_batch`` is declared,
        and must leave parameters, buffers and random state as they are.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not classify: it has no `predict`; say `classifies=False` in its MethodSpec"
        )

    def embed(self, inputs: Any, /) -> Tensor:
        """Returns the features ``(B, d)`` that the classifier reads, for B inputs as for `predict`.

        Asked where domains are compared without labels of the target (``engine.select=iwv``, ``dev``, ``circular``).
        What holds for `predict` holds here.
        """
        raise UsageError(
            f"{type(self).__name__} shows no features, which this rule of engine.select compares domains on",
            hint="use entropy, snd, mano or mixval, or implement `embed`",
        )

    def generate(self, inputs: Any, /) -> Sequence[str]:
        """Returns a text for each of B inputs, as for `predict`; asked in families that generate.

        Methods whose `MethodSpec` says ``generates`` implement it; what holds for `predict` holds here: a text must
        depend on its input alone (padding must not change it), and nothing may be drawn at random, so beams and greedy
        choices only.
        """
        raise NotImplementedError(
            f"{type(self).__name__} generates no texts: it has no `generate`, though its MethodSpec says `generates`"
        )

    def predict_task(self, inputs: Any, task: int, /) -> Tensor:
        """Returns logits ``(B, K)`` for inputs whose experience is known; called in task-incremental runs.

        Only methods that declare ``task_id`` are asked it, for a batch of one experience; what holds for `predict`
        holds here. All K classes have a column: those of other experiences are masked afterwards. Default: `predict`.

        Args:
            inputs: As for `predict`.
            task: Index of the experience that the inputs belong to, from 0.
        """
        return self.predict(inputs)

    def predict_named(self, inputs: Any, names: Sequence[str], /) -> Tensor:
        """Returns logits ``(B, len(names))`` among classes told by name, which need not have been trained.

        Methods that declare ``open_vocabulary`` implement it; what holds for `predict` holds here, and
        column k must depend on the image and the names alone: text features of the names may be
        kept between calls.

        Args:
            inputs: As for `predict`.
            names: Class names, as the scenario has them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not classify among names")

    def shortened(self, inputs: Any, /) -> int:
        """How many of some inputs it reads in part only, e.g. texts that are longer than its model takes.

        Asked once for every training and test set, in eval mode; must depend on the inputs and the configuration alone.
        The record keeps the counts. Default: none is.

        Args:
            inputs: As for `predict`.
        """
        return 0

    def extra_state(self) -> Mapping[str, Any]:
        """State besides parameters, buffers and the optimiser: tensors, numbers, strings, lists, dicts."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `extra_state` returned."""
        if state:
            raise TypeError(f"{type(self).__name__} returns extra state but does not load it")

    @property
    def deterministic(self) -> bool:
        """Whether all seeds give the same result, e.g. that of a convex problem; the contract then checks it."""
        return False

    def kept_between_experiences(self) -> Iterator[Tensor]:
        """Tensors that must be kept between two experiences besides the pretrained model.

        Counted as ``storage_bytes``. Default: parameters and buffers that are not the frozen
        model's, and all tensors of `extra_state`.
        """
        pretrained = self.context.pretrained
        frozen = {id(tensor) for tensor in pretrained.tensors() if not tensor.requires_grad}
        if not self.frozen:
            frozen -= {id(tensor) for tensor in pretrained.statistics().values()}
        seen: set[int] = set()
        for tensor in [*self.parameters(), *self.buffers(), *tensors_in(self.extra_state())]:
            if id(tensor) not in frozen and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig(MethodConfig):
    """Options of a method on a frozen image encoder.

    Attributes:
        views: Augmented views per training image whose features are computed once per experience; each batch takes
            one of them at random. 0 augments anew and encodes every batch. Without random augmentation features are
            always computed once.
    """

    views: Annotated[int, Range(min=0)] = 0


class FeatureMethod(Method):
    """A method whose encoder is frozen: `train_step` reads features.

    ``batch.features`` and ``batch.target_features`` are always there; whether they were computed once or for
    the batch is the engine's business (`FeatureConfig.views`). The pretrained network stays in eval mode.
    """

    config: Any  # a `FeatureConfig`; methods on texts do without, as texts have no random views

    @property
    def frozen(self) -> bool:
        """Always."""
        return True

    @abc.abstractmethod
    def encode(self, inputs: Any, /) -> Tensor:
        """Features ``(B, d)`` of B inputs, as for `predict`.

        Called without gradients; must depend on each input alone, and stay the same within an experience.
        """


class LoopMethod(Method):
    """A method that brings its own training loop, e.g. a strategy of another library.

    The engine calls `train_experience` instead of `train_step`; such a run resumes at the last
    finished experience, not in the middle of one.
    """

    @abc.abstractmethod
    def train_experience(self, experience: ExperienceView) -> Mapping[str, float]:
        """Trains on the whole experience and returns mean losses for the log."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Not used: the loop is the method's own."""
        raise TypeError(f"{type(self).__name__} trains whole experiences; the engine calls train_experience")
