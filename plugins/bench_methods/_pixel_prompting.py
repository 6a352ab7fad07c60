"""What `visual-prompting` and `visual-prompting-clip` share: a trained pattern of pixels in front of a frozen model.

Private: a method outside this package builds on `benchmark.backbones`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Place
from benchmark.backbones.heads import mask_logits
from benchmark.backbones.pixel_prompts import AdditiveProgram, ExpansiveProgram, FramePrompt, PatchPrompt
from benchmark.backbones.pixel_prompts import Place as Corner
from benchmark.config import Range

Prompt = Literal["padding", "fixed-patch", "random-patch", "additive", "expansive"]
CHUNK = 128  # images at once, where the training set is looked at as a whole

# lr 40 belongs to a prompt from N(0, 1), a long warm-up and many epochs.
OFFICIAL: dict[str, object] = {
    "prompt": "padding",
    "prompt_size": 0,
    "optimizer": "sgd",
    "lr": 40.0,
    "warmup_steps": 1000,
    "schedule": "cosine",
    "epochs": 1000,
    "augment": False,
}
PROMPTS: dict[str, dict[str, object]] = {
    "masked": {"mask": "current"},
    "fixed-patch": {"prompt": "fixed-patch"},
    "random-patch": {"prompt": "random-patch"},
    "random-patch-official": {"prompt": "random-patch", "test_position": "batch"},
    "additive": {"prompt": "additive"},
    "expansive": {"prompt": "expansive"},
}
SOURCES = {
    "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
    "fixed-patch": "hjbahng/visual_prompting models/prompters.py",
    "random-patch": "hjbahng/visual_prompting models/prompters.py; the place at test time is adaptbench's",
    "random-patch-official": "hjbahng/visual_prompting models/prompters.py: one place per test batch",
    "additive": "ILM-VP models/visual_prompt.py, its prompt for CLIP",
    "expansive": "ILM-VP models/visual_prompt.py, its prompt for classifiers; the image is shrunk by us",
    "optimizer": "adaptbench, for few steps; the paper has SGD with learning rate 40",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelConfig(MethodConfig):
    """Options of both forms.

    Attributes:
        prompts: ``off`` is the control: the frozen classifier on images as they are.
        prompt: ``padding``: a frame. ``fixed-patch``, ``random-patch``: a square in the upper left corner, or at a
            new place in every step. All drawn from N(0, 1). ``additive``: a frame that starts at 0. ``expansive``:
            a frame of values in [0, 1] around the image, which shrinks.
        prompt_size: Width of the frame or side of the square in pixels; 0: 30 at 224 pixels, to scale.
        test_position: Where a random patch is at test time: in the ``middle``, or where the content of the test
            ``batch`` says.
        mask: Classes that compete in the training loss: ``none`` lets all classes seen compete, ``current`` only those
            of the experience (without effect in domain-incremental streams).
        optimizer: Made anew for each experience.
        lr: Learning rate of the prompt.
        momentum: Of ``sgd``.
        warmup_steps: Steps in which the rate rises to ``lr``.
        schedule: What follows: ``constant``, or ``cosine`` to 0, per step.
        drops: Shares of the epochs after which the rate falls to a tenth.
    """

    epochs: int = 5
    prompts: Literal["on", "off"] = "on"
    prompt: Prompt = "padding"
    prompt_size: Annotated[int, Range(min=0)] = 0
    test_position: Literal["middle", "batch"] = "middle"
    mask: Literal["none", "current"] = "none"
    optimizer: Literal["sgd", "adam"] = "adam"
    lr: Annotated[float, Range(above=0, log=True, search=(1e-2, 10.0))] = 0.1
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    warmup_steps: Annotated[int, Range(min=0)] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    drops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if any(not 0 < share < 1 for share in self.drops):
            raise ValueError(f"drops: {self.drops} are no shares; use numbers between 0 and 1")
        if self.test_position == "batch" and self.prompt != "random-patch":
            raise ValueError(f"test_position: `batch` has no effect with prompt `{self.prompt}`; use `random-patch`")


class PixelPrompting(Method):
    """The prompt trains; a subclass says what a frozen model makes of images and features."""

    config: PixelConfig

    def __init__(self, config: PixelConfig, context: Context) -> None:
        super().__init__(config, context)
        size = context.backbone.image_size
        width = config.prompt_size or max(1, round(30 * size / 224))
        self.prompt: FramePrompt | PatchPrompt | AdditiveProgram | ExpansiveProgram | None = None
        if config.prompts == "on":
            if config.prompt == "padding":
                self.prompt = FramePrompt(size, width)
            elif config.prompt == "additive":
                self.prompt = AdditiveProgram(size, width)
            elif config.prompt == "expansive":
                self.prompt = ExpansiveProgram(size, size - 2 * width, context.image_pipeline.normalize)
            else:
                self.prompt = PatchPrompt(size, width)
        self._inner = (size - 2 * width, size - 2 * width)
        self._allowed: Sequence[int] | None = None

    @abc.abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Features ``(B, d)`` of normalised images ``(B, 3, S, S)``."""

    @abc.abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` of features."""

    @abc.abstractmethod
    def meet(self, experience: ExperienceView) -> None:
        """Prepares the classifier for the classes of an experience."""

    def prompted(self, images: Tensor, *, training: bool) -> Tensor:
        """Normalised images ``(B, 3, S, S)`` with the prompt; nothing is clamped."""
        prompt = self.prompt
        if prompt is None:
            return images
        if isinstance(prompt, PatchPrompt):
            return prompt(images, self._place(prompt, images, training))  # type: ignore[no-any-return]
        if isinstance(prompt, ExpansiveProgram):
            pipeline = self.context.image_pipeline
            mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (pipeline.mean, pipeline.std))
            images = F.interpolate(images * std + mean, size=self._inner, mode="bilinear", antialias=True)
        return prompt(images)  # type: ignore[no-any-return]

    def _place(self, prompt: PatchPrompt, images: Tensor, training: bool) -> Corner:
        if self.config.prompt == "fixed-patch":
            return 0, 0
        if training:
            return prompt.draw()
        return prompt.middle() if self.config.test_position == "middle" else prompt.place_of(images)

    def logits(self, images: Tensor, *, training: bool = False) -> Tensor:
        """Logits ``(B, classes seen)`` of normalised images, prompted."""
        return self.classify(self.encode(self.prompted(images, training=training)))

    def whole(self, experience: ExperienceView) -> Iterator[tuple[Tensor, Tensor]]:
        """All training images under the test transform, with labels, some at a time."""
        train, device = experience.train, self.context.device
        for first in range(0, len(train), CHUNK):
            part = slice(first, first + CHUNK)
            yield self.context.pipeline.eval(train.images(part).to(device)), train.labels[part].to(device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Prepares the classifier and makes the optimiser."""
        config = self.config
        self.meet(experience)
        masked = config.mask == "current" and not self.context.family.domains
        self._allowed = experience.classes if masked else None
        groups = self.groups()
        if not groups:
            self.optimizer = None
        elif config.optimizer == "adam":
            self.optimizer = torch.optim.Adam(groups)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=config.momentum)

    def groups(self) -> list[dict[str, Any]]:
        """Groups of the optimiser, each with its ``base_lr``."""
        lr = self.config.lr
        return [{"params": list(self.prompt.parameters()), "lr": lr, "base_lr": lr}] if self.prompt is not None else []

    def factor(self, place: Place) -> float:
        """Factor of all learning rates in a step."""
        config, step = self.config, place.step
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        passed = sum(place.epoch >= share * config.epochs for share in config.drops)
        done = (step - config.warmup_steps) / max(1, place.steps - config.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0
        return cosine * 0.1**passed

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy and one step; without anything to train, only the loss."""
        logits = self.logits(batch.images, training=True)
        loss = F.cross_entropy(mask_logits(logits, self._allowed), batch.labels)
        if self.optimizer is not None:
            self.descend(loss, factor=self.factor(batch.place))
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes seen, ``(B, C)``."""
        return self.logits(images)


def uses(config: PixelConfig) -> frozenset[str]:
    """A place that follows from the test batch depends on the other test images."""
    leaks = config.prompts == "on" and config.test_position == "batch"
    return frozenset({"boundaries", "test_batch"} if leaks else {"boundaries"})
