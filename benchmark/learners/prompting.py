"""A frozen ViT that is passed twice, as query and with prompts that the query chooses, and a masked head.

`QueryLearner` has the two passes, the head and the training step. `PromptLearner` is the one that puts prefixes
into the blocks, with the schedule of CODA-Prompt.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig
from benchmark.backbones import prompted_vit
from benchmark.backbones.blocks import Prefix, check_plain_blocks, run_blocks
from benchmark.backbones.frozen import known
from benchmark.backbones.heads import ClassHead, HeadInit, mask_logits
from benchmark.backbones.prompted_vit import CLS, Gelu
from benchmark.config import Range

Scaling = Literal["batch/256", "none"]
Schedule = Literal["constant", "late-cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLearnerConfig(MethodConfig):
    """Options of a method that puts prompts, chosen by a frozen query, into a frozen ViT.

    Attributes:
        prompts: ``off`` is the control: the same head and mask, on the class token.
        head_init: How rows of the head are drawn.
        train_mask: Classes in the training loss: those of the experience, or all
            (always all in domain-incremental streams).
        eval_logits: ``seen`` classes, or ``all`` C of them, untrained rows included.
        lr: Learning rate of Adam, which is made anew for each experience.
        lr_scaling: ``batch/256`` multiplies `lr` by ``batch_size / 256`` (`effective_lr`).
        clip: Largest gradient norm; 0 does not clip.
        clip_scope: Norm over the ``trainable`` parameters, or over ``all``: JAX counts the frozen
            backbone's gradients too, which costs a full backward pass.
        gelu: ``erf`` (PyTorch) or ``tanh`` (JAX) in the backbone.
    """

    epochs: int = 5
    prompts: Literal["on", "off"] = "on"
    head_init: HeadInit = "trunc_normal"
    train_mask: Literal["current", "none"] = "current"
    eval_logits: Literal["seen", "all"] = "seen"
    lr: Annotated[float, Range(above=0, log=True, search=(1e-3, 1.0))] = 0.03
    lr_scaling: Scaling = "batch/256"
    clip: Annotated[float, Range(min=0)] = 1.0
    clip_scope: Literal["trainable", "all"] = "trainable"
    gelu: Gelu = "erf"

    @property
    def effective_lr(self) -> float:
        """Learning rate that Adam gets at the start of each experience."""
        return self.lr * self.batch_size / 256 if self.lr_scaling == "batch/256" else self.lr


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLearnerConfig(QueryLearnerConfig):
    """Options of a method whose prompts are prefixes.

    Attributes:
        schedule: ``constant``, or ``late-cosine``: per epoch and one epoch late, as in the code of
            CODA-Prompt; epochs 0 and 1 run at the full rate, so with one or two epochs nothing changes.
    """

    schedule: Schedule = "constant"


def late_cosine(epoch: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch: ``cos(99 pi max(0, e - 1) / (200 (E - 1)))``.

    The scheduler of GT-RIPL/CODA-Prompt starts one step behind. It divides by zero for E = 1; here
    the factor is 1 whenever e < 2, whatever E. Behind the last epoch it stays as it was.
    """
    behind = max(0, min(epoch, epochs - 1) - 1)
    return 1.0 if behind == 0 else math.cos(99 * math.pi * behind / (200 * (epochs - 1)))


class Chosen(NamedTuple):
    """What a method puts into the backbone for a batch, and what it adds to the loss."""

    prefixes: Mapping[int, Prefix]  # empty where prompts are tokens
    penalty: Tensor  # scalar, added to the cross-entropy
    terms: Mapping[str, Tensor]  # for the log
    similarity: Tensor | None = None
    selection: Tensor | None = None
    table: Tensor | None = None  # of positions, where its gradient counts in `clip_scope=all`


class Pass(NamedTuple):
    """What one forward pass computes; without prompts `features` is the query and `chosen` None."""

    query: Tensor  # (B, D)
    chosen: Chosen | None
    features: Tensor  # (B, D)
    logits: Tensor  # (B, C)


class QueryLearner(Method):
    """The backbone serves twice, as query and with prompts.

    A subclass adds its parameters and `head`, in the order in which they are to be drawn, `choose` and `features`.
    """

    config: QueryLearnerConfig
    head: ClassHead

    def __init__(self, config: QueryLearnerConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = prompted_vit.freeze(context.backbone.model)
        prompted_vit.check_promptable(self.backbone)
        prompted_vit.set_gelu(self.backbone, config.gelu)
        self._allowed: Sequence[int] | None = None

    def new_head(self) -> ClassHead:
        """The head; when a subclass asks for it decides which random numbers it gets."""
        config = self.config
        classes = self.context.num_classes if config.eval_logits == "all" else 0
        return ClassHead(self.context.backbone.width, classes, init=config.head_init)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Grows the head, prepares the prompts, and only then makes a new Adam.

        Old moments would go on moving prompts that the new experience never uses; and an optimiser
        made before the prompts are replaced would train what is no longer there.
        """
        config = self.config
        if config.eval_logits == "seen":
            self.head.grow(experience.seen)
        masked = config.train_mask == "current" and not self.context.family.domains
        self._allowed = experience.classes if masked else None
        if config.prompts == "on":
            self.prepare_prompts(experience)
        self.optimizer = torch.optim.Adam(self._trainable(), lr=config.effective_lr)

    def prepare_prompts(self, experience: ExperienceView) -> None:
        """Called at the start of each experience, before the optimiser is made; only with prompts."""

    @abc.abstractmethod
    def choose(self, query: Tensor, *, training: bool) -> Chosen:
        """Prompts and loss terms for a batch.

        Args:
            query: ``(B, D)``, without gradient.
            training: Whether the rules of training apply.
        """

    @abc.abstractmethod
    def features(self, patches: Tensor, chosen: Chosen) -> Tensor:
        """Prompted pass: patches ``(B, N, D)`` to head inputs ``(B, D)``."""

    def _trainable(self) -> list[nn.Parameter]:
        head = list(self.head.parameters())
        known = {id(parameter) for parameter in (*self.backbone.parameters(), *head)}
        added = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [*added, *head] if self.config.prompts == "on" else head

    def run(self, images: Tensor, *, training: bool = False) -> Pass:
        """One forward pass: query, choice of prompts, prompted pass, head.

        Args:
            images: Normalised, ``(B, 3, S, S)``.
            training: Whether the rules of training apply.
        """
        patches, query = self._query(images)
        if self.config.prompts == "off":
            return Pass(query, None, query, self.head(query))
        chosen = self.choose(query, training=training)
        features = self.features(patches, chosen)
        return Pass(query, chosen, features, self.head(features))

    def _query(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches ``(B, N, D)`` and queries ``(B, D)``."""
        vit = self.backbone
        patches = prompted_vit.patch_tokens(vit, images)
        query = known(prompted_vit.cls_feature, vit, images)  # of samples that were met before
        if query is None:
            query = prompted_vit.query_feature(vit, patches)
        return patches, query

    def chosen_parts(self, images: Tensor) -> Tensor | None:
        """The prompts that each image has selected, numbered through all layers with keys of their own."""
        if self.config.prompts == "off":
            return None
        chosen = self.choose(self._query(images)[1], training=False)
        if chosen.selection is None or chosen.similarity is None:
            return None  # all prompts are weighed
        index, size = chosen.selection, chosen.similarity.shape[-1]
        if index.ndim == 2:
            return index
        first = size * torch.arange(len(index), device=index.device)
        return (index + first[:, None, None]).transpose(0, 1).flatten(1)

    @property
    def coupled(self) -> str | None:
        """Where everything enters the norm of the gradient, what no optimiser holds does too."""
        config = self.config
        if config.clip > 0 and config.clip_scope == "all" and config.prompts == "on":
            return "clip_scope=all: frozen weights enter the norm of the gradient of the whole batch"
        return None

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy over the allowed classes plus the method's own term, one step of Adam."""
        config, optimizer = self.config, self.active_optimizer
        everything = config.clip > 0 and config.clip_scope == "all" and config.prompts == "on"
        if everything:  # the frozen weights' gradients enter the norm and nothing else
            self.backbone.requires_grad_(True)
        result = self.run(batch.images, training=True)
        cross_entropy = F.cross_entropy(mask_logits(result.logits, self._allowed), batch.labels)
        loss = cross_entropy if result.chosen is None else cross_entropy + result.chosen.penalty
        stepper = self.stepper
        stepper.backward(optimizer, loss)
        terms = {"loss": loss.detach(), "loss_ce": cross_entropy.detach()}
        if result.chosen is not None:
            terms |= {name: term.detach() for name, term in result.chosen.terms.items()}
        clipped: list[Tensor] = [*self._trainable(), *(self.backbone.parameters() if everything else ())]
        if result.chosen is not None and result.chosen.table is not None:
            clipped.append(result.chosen.table)
        if not stepper.whole(optimizer, also=clipped):
            return terms
        if config.clip > 0:
            norm = nn.utils.clip_grad_norm_(clipped, config.clip).detach()
            # A scaled loss may overflow: then no step is made, and none has a length.
            terms["grad_norm"] = norm.nan_to_num(0.0, 0.0, 0.0) if stepper.scales else norm
        if everything:
            for parameter in self.backbone.parameters():
                parameter.grad = None
            self.backbone.requires_grad_(False)
        stepper.step(optimizer)
        return terms

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the classes seen, or of all (``eval_logits``)."""
        return self.run(images).logits


class PromptLearner(QueryLearner):
    """The prompts are prefixes of plain blocks; a subclass adds its parameters, after the head, and `choose`."""

    config: PromptLearnerConfig

    def __init__(self, config: PromptLearnerConfig, context: Context) -> None:
        prompted_vit.check_promptable(context.backbone.model)
        check_plain_blocks(context.backbone.model)
        super().__init__(config, context)
        self.head = self.new_head()

    def features(self, patches: Tensor, chosen: Chosen) -> Tensor:
        """The class token of the pass with prefixes."""
        tokens = prompted_vit.assemble(self.backbone, patches)
        return run_blocks(self.backbone, tokens, read=CLS, prefixes=chosen.prefixes)[:, 0]

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of Adam at the schedule's rate."""
        config = self.config
        if config.schedule == "late-cosine":
            factor = late_cosine(batch.place.epoch, config.epochs)
            for group in self.active_optimizer.param_groups:
                group["lr"] = config.effective_lr * factor
        return super().train_step(batch)


def uses(config: QueryLearnerConfig, *with_prompts: str) -> frozenset[str]:
    """What a configuration uses: borders, the number of classes for ``all`` logits, and the given keys with prompts."""
    used = {"boundaries"}
    if config.eval_logits == "all":
        used.add("num_classes")
    if config.prompts == "on":
        used.update(with_prompts)
    return frozenset(used)
