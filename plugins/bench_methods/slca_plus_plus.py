"""SLCA++: SLCA that trains low-rank changes, biases and norms instead of everything, with a symmetric cross-entropy.

Paper: Zhang, Wang, Kang, Chen, Wei. SLCA++: Unleash the Power of Sequential Fine-tuning for Continual Learning with
Pre-training, arXiv 2408.08295.
Official code: GengDavid/SLCA at 169d4e6, ``models/slca_pp.py``. Losses, gradients, parameters, rates, statistics, every
step of the alignment, heads and their scales equal theirs to 1e-9 in float64 (tests/unit/methods/test_slca_golden.py).
Written anew, no code taken.

What differs from `slca`: what trains of the backbone, a cosine per epoch with one floor for all groups, the loss,
samples that are rescaled at random instead of means that shrink, and heads of older experiences that are larger at
test time.

Differences from the official code:
- The low-rank changes of the MLPs are left out: there they are allocated, and never train.
- Rows of A are singular vectors, whose signs are arbitrary: numbers are compared after loading the recorded ones.
- As in `slca`, the task of a class is the one that it came in; there its number divided by the size of the present
  task: ``slca++@official``.

Trainable (ViT-B/16): low-rank changes 147,456, norms 38,400, other biases 83,712, class token 768, and the head.
Expected: the repository gives no figure as text. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods.slca import SLCA, SLCAConfig, supports
from benchmark import hookimpl
from benchmark.api import Context, ExperienceView, Place
from benchmark.backbones.blocks import BlockAdapter, check_plain_blocks, run_blocks
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.backbones.task_heads import TaskHeads
from benchmark.config import Range
from benchmark.specs import MethodSpec

SCALE = 0.8  # of the low-rank changes
TRAINED = ("norm", "bias", "cls_token")  # parts of names
WIDTH = 0.02  # of the random scale of samples


@dataclass(frozen=True, kw_only=True, slots=True)
class SLCAPlusPlusConfig(SLCAConfig):
    """Options of SLCA++.

    Attributes:
        backbone_lr_scale: Learning rate of the backbone relative to the head's; of the low-rank changes behind the
        first experience, in which theirs is half the head's. milestones: Only their number counts: the floor of the
        cosine is the backbone's rate, a tenth of it for each. rank: r of the low-rank changes of query, key and value.
        cross_entropy: Weight a of the cross-entropy. reverse: Weight b of the reverse cross-entropy. scale: mu: how
        much larger heads are at test time for each experience since theirs.
    """

    backbone_lr_scale: Annotated[float, Range(above=0, log=True)] = 0.1
    rank: Annotated[int, Range(min=1)] = 4
    cross_entropy: Annotated[float, Range(min=0)] = 1.0
    reverse: Annotated[float, Range(min=0)] = 0.1
    scale: Annotated[float, Range(min=0)] = 0.02


class SharedLoRA(BlockAdapter):
    """``W x`` becomes ``W x + 0.8 B A x`` for query, key and value, which share A.

    Args:
        weight: W, ``(3 D, D)``; the first r rows of its right singular vectors are A at the start, B is 0.
        rank: r.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows = torch.linalg.svd(weight.detach(), full_matrices=False)[2][:rank]
        self.down = nn.Parameter(rows.clone())
        self.up = nn.Parameter(torch.zeros(len(weight), rank, dtype=weight.dtype, device=weight.device))

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the changes; queries are ``(B, n, D)``, keys and values ``(B, N, D)``."""
        low = F.linear(normed, self.down)
        asked = low if wanted is normed else F.linear(wanted, self.down)
        up_query, up_key, up_value = self.up.chunk(3)
        query = query + SCALE * F.linear(asked, up_query)
        return query, key + SCALE * F.linear(low, up_key), value + SCALE * F.linear(low, up_value)


class SLCAPlusPlus(SLCA):
    """SLCA with another choice of what trains, loss, and samples."""

    config: SLCAPlusPlusConfig

    def __init__(self, config: SLCAPlusPlusConfig, context: Context) -> None:
        super().__init__(config, context)
        check_plain_blocks(self.backbone)
        self.changes = nn.ModuleList(SharedLoRA(block.attn.qkv.weight, config.rank) for block in self.backbone.blocks)
        self.to(context.device)

    def switch_on(self) -> None:
        """Norms, biases and the class token."""
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(any(part in name for part in TRAINED))

    def groups(self, heads: list[nn.Parameter], experience: ExperienceView) -> list[dict[str, Any]]:
        """Heads, the backbone's own, and the low-rank changes, which are fast in the first experience."""
        config, first = self.config, len(self.heads.heads) == 1
        low = {"params": list(self.changes.parameters()), "base_lr": config.lr * (0.5 if first else self._slow)}
        return [*super().groups(heads, experience), low]

    @property
    def _slow(self) -> float:
        return self.config.backbone_lr_scale

    def set_rates(self, place: Place) -> None:
        """Cosine per epoch from each group's rate to the floor."""
        config = self.config
        floor = config.lr * self._slow * 0.1 ** len(config.milestones)
        share = 0.5 * (1 + math.cos(math.pi * place.epoch / config.epochs))
        for group in self.active_optimizer.param_groups:
            group["lr"] = floor + (group["base_lr"] - floor) * share

    def features(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of the changed backbone."""
        changes = cast("Sequence[BlockAdapter]", self.changes)
        return run_blocks(self.backbone, embed(self.backbone, images), read=CLS, adapters=changes)[:, 0]

    def loss(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy, and its reverse: labels and predictions change places, with logarithms of at least ln 1e-4."""
        cross_entropy = F.cross_entropy(logits, labels)
        chances = logits.softmax(dim=1).clamp(min=1e-7, max=1.0)
        others = chances.sum(dim=1) - chances.gather(1, labels.unsqueeze(1)).squeeze(1)
        reverse = -math.log(1e-4) * others.mean()
        loss = self.config.cross_entropy * cross_entropy + self.config.reverse * reverse
        return {"loss": loss, "loss_ce": cross_entropy, "loss_reverse": reverse}

    def means(self, tasks: Tensor) -> Tensor:
        """Means as they are."""
        return self.statistics.means

    def changed(self, samples: Tensor, tasks: Tensor) -> Tensor:
        """The older a class, the smaller its samples, with a random part."""
        age = (len(self.heads.heads) - 1 - tasks).to(samples.dtype).unsqueeze(1)
        drawn = self.draws.uniform((samples.shape[0], samples.shape[1]), samples)
        return samples / (1 + (self.config.scale + WIDTH * (drawn - 0.5)) * age).unsqueeze(2)

    def scales(self) -> Tensor:
        """How much larger each class's features are at test time, ``(C,)``."""
        sizes = torch.tensor(self.heads.sizes, device=self.weight.device)
        ages = torch.arange(len(sizes) - 1, -1, -1, device=self.weight.device).repeat_interleave(sizes)
        return 1 + self.config.scale * ages.to(self.heads.like.dtype)

    def readout(self, heads: TaskHeads) -> tuple[Tensor, Tensor]:
        """Weights of aligned heads are scaled, which is to scale the features."""
        weight, bias = super().readout(heads)
        return weight * self.scales().unsqueeze(1), bias


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``slca++``."""
    hard = {"epochs": 50, "milestones": (40,), "cross_entropy": 0.5, "reverse": 0.5, "weight_decay": 0.0}
    return [
        MethodSpec(
            name="slca++",
            build=SLCAPlusPlus,
            config=SLCAPlusPlusConfig,
            summary="SLCA with low-rank changes, biases and norms, and a symmetric cross-entropy",
            display="SLCA++",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "cub200": {"epochs": 50, "milestones": (40,)},
                "imagenet-r": hard,
                "cars": {**hard, "logit_norm": 0.05},
                "official": {"official_quirks": True},
            },
            default_recipe="cifar100",
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.1},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule="nano and mini, lr: results/search.py, within the noise of the best on held-out training images; "
            "alignment as published",
            toy={"samples": 8, "align_epochs": 1},
            sources={
                "rank": "SLCA at 169d4e6, exps/slcapp/*.json",
                "scale": "SLCA at 169d4e6, exps/slcapp/*.json: fc_scale_mu",
                "cifar100": "SLCA at 169d4e6, exps/slcapp, CIFAR-100",
                "cub200": "SLCA at 169d4e6, exps/slcapp, CUB-200; weight decay: the module's default",
                "imagenet-r": "SLCA at 169d4e6, exps/slcapp, ImageNet-R",
                "cars": "SLCA at 169d4e6, exps/slcapp, Cars-196",
                "official": "SLCA at 169d4e6, models/slca_pp.py",
            },
            paper="arXiv:2408.08295",
            reference="GengDavid/SLCA@169d4e6",
            supports=supports,
        )
    ]
