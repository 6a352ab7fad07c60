"""MCD: two classifiers that differ on the target, and features on which they agree.

Paper: Saito, Watanabe, Ushiku, Harada. Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018,
arXiv 1712.02560.
Official code: compared with thuml/Transfer-Learning-Library at c4aa59eb (``tllib/alignment/mcd.py``, ``mcd.py``); the
authors' own, mil-tokyo/MCD_DA, was not run.

One training step has 2 + K descents, each with a forward pass of its own. A: backbone and both heads, down the
cross-entropies on the source plus `balance` times a term that asks for balanced predictions on the target. B: the heads
alone, down the same minus `trade_off` times their discrepancy (mean absolute difference of their probabilities on the
target). C, `generator_steps` times: the backbone alone, down the discrepancy.

Differences from the official code:
- The answer is the mean of the two heads' logits; the library reports the head that is better on the target's labels.
- The last epoch counts, passes keep their last, smaller batch.
- One optimiser holds both sides, in groups of their own (the backbone without momentum, as there): what has no gradient
  in a descent gets no step.

Expected (Office-Home): ResNet-50 67.8, ViT-B/16 73.0 on average over 12 pairs, where source only has 75.0 (the
library's README, best epoch on the target). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._recipes import TLL, TLL_VIT
from benchmark import hookimpl
from benchmark.api import Batch, Context
from benchmark.backbones.heads import ClassHead
from benchmark.config import Range
from benchmark.learners.adaptation import Adaptation, BatchNorm, PlainConfig, needs_target
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MCDConfig(PlainConfig):
    """Options of MCD.

    Attributes:
        hidden: Width of the two hidden layers of each head.
        dropout: Rate before the first and the second hidden layer.
        trade_off: Weight of the discrepancy.
        balance: Weight of the term for balanced predictions.
        generator_steps: K, how often the backbone goes down the discrepancy in a step.
        backbone_momentum: Momentum of the backbone; `momentum` is that of the heads.
    """

    lr: float = 0.001
    backbone_lr_scale: Annotated[float, Range(above=0, log=True)] = 1.0
    weight_decay: float = 0.0005
    schedule: Literal["progress", "steps", "constant"] = "constant"
    hidden: Annotated[int, Range(min=1)] = 1024
    dropout: Annotated[float, Range(min=0, below=1)] = 0.5
    trade_off: Annotated[float, Range(min=0, log=True)] = 10.0
    balance: Annotated[float, Range(min=0, log=True)] = 0.01
    generator_steps: Annotated[int, Range(min=1)] = 4
    backbone_momentum: Annotated[float, Range(min=0, below=1)] = 0.0


def discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of two sets of probabilities ``(B, C)``, over all B x C numbers."""
    return (one - other).abs().mean()


def unbalanced(shares: Tensor) -> Tensor:
    """Cross-entropy of the uniform distribution against the mean of predictions ``(B, C)``."""
    return -torch.log(shares.mean(dim=0) + 1e-6).mean()


class MCD(Adaptation):
    """A backbone under two heads."""

    config: MCDConfig
    head: nn.Sequential

    def __init__(self, config: MCDConfig, context: Context) -> None:
        super().__init__(config, context)
        self.other = self.make_head().to(context.device)

    def make_head(self) -> nn.Sequential:
        """Two hidden layers with BatchNorm, then a linear layer with no rows yet; drawn as torch does."""
        config = self.config
        layers: list[nn.Module] = []
        for width in (self.width, config.hidden):
            layers += [nn.Dropout(config.dropout), nn.Linear(width, config.hidden), BatchNorm(config.hidden), nn.ReLU()]
        return nn.Sequential(*layers, ClassHead(config.hidden, init="torch"))

    def grow_head(self, classes: int) -> None:
        """Adds the rows of new classes to both heads."""
        for head in (self.head, self.other):
            last = head[-1]
            if isinstance(last, ClassHead):
                last.grow(classes)

    @property
    def coupled(self) -> str | None:
        """See `Method.coupled`."""
        return "it takes several steps in one, and balances the predictions of a batch"

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Plain momentum for the heads, another one for the backbone."""
        optimizer = super().make_optimizer()
        if self.config.optimizer == "sgd":
            heads, backbone = optimizer.param_groups
            heads["nesterov"] = backbone["nesterov"] = False
            backbone["momentum"] = self.config.backbone_momentum
        return optimizer

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One pass: the loss of A, and the discrepancy on the target.

        Returns:
            Two scalars.
        """
        features, sources = self.batch_features(batch), len(batch)
        loss, shares = features.new_zeros(()), []
        for head in (self.head, self.other):
            logits = head(features)
            shares.append(logits[sources:].softmax(dim=1))
            loss = loss + F.cross_entropy(logits[:sources], batch.labels, label_smoothing=self.config.label_smoothing)
            loss = loss + self.config.balance * unbalanced(shares[-1])
        return loss, discrepancy(*shares)

    def phases(self, batch: Batch) -> list[Tensor]:
        """Takes the 2 + K steps; returns the loss of each."""
        config, factor = self.config, self.factor(batch.place)
        both = [self.head, self.other]
        loss, _ = self.losses(batch)
        self.descend(loss, factor=factor)
        found = [loss.detach()]
        loss, apart = self.losses(batch)
        loss = loss - config.trade_off * apart
        self.descend(loss, factor=factor, still=[self.backbone, self.bottleneck])
        found.append(loss.detach())
        for _ in range(config.generator_steps):
            loss = config.trade_off * self.losses(batch)[1]
            self.descend(loss, factor=factor, still=both)
            found.append(loss.detach())
        return found

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """All phases on one batch; the loss is that of A."""
        first, second, *rest = self.phases(batch)
        return {"loss": first, "loss_heads": second, "discrepancy": torch.stack(rest).mean()}

    def predict(self, images: Tensor) -> Tensor:
        """Mean logits of the two heads, ``(B, C)``."""
        features = self.features(images)
        result: Tensor = (self.head(features) + self.other(features)) / 2
        return result


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``mcd``."""
    return [
        MethodSpec(
            name="mcd",
            display="MCD",
            build=MCD,
            config=MCDConfig,
            summary="two classifiers that differ on the target, and features on which they agree",
            uses=frozenset({"boundaries", "unlabelled"}),
            recipes={
                "tll": {
                    "iterations": 30_000,
                    "batch_size": 24,
                    "lr": 0.001,
                    "schedule": "constant",
                    "trade_off": 30.0,
                    "hidden": 1024,
                    "normalize": "imagenet",
                },
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.01, "hidden": 256},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.001, "hidden": 256},
            },
            rule="nano, lr: results/search.py, best on held-out source images; nano and mini: epochs, batch size and "
            "width of cdan; mini, lr: of its backbone, not searched",
            toy={"iterations": 3, "hidden": 12, "generator_steps": 1},
            sources={
                "lr": f"{TLL}, mcd.py; likewise weight_decay, momentum, backbone_momentum, hidden, balance",
                "schedule": f"{TLL}, mcd.py: constant",
                "trade_off": f"{TLL}, mcd.sh: 10 for Office-31; paper: 1, with the discrepancy summed otherwise",
                "generator_steps": f"{TLL}, mcd.py: num_k; paper, section 4.2: 4",
                "tll": TLL_VIT + "; mcd.sh",
            },
            paper="arXiv:1712.02560",
            reference=TLL,
            supports=needs_target,
            published="mcd",
        )
    ]
