"""LAE: one small module learns on, a moving average of it remembers, and both are asked.

Paper: Gao, Zhao, Sun, Xi, Zhang, Ghanem, Zhang. A Unified Continual Learning Framework with General Parameter-Efficient
Tuning, ICCV 2023, arXiv 2303.10070. Learning, accumulation, ensemble.
Official code: gqk/LAE at 1680e49. Features, losses, gradients, both modules and heads after each of two tasks and
predictions equal its to 1e-9 in float64, for adapters, LoRA and prefixes (tests/unit/methods/test_lae_golden.py).
Written anew, no code taken.

Differences from the official code:
- One head with a row per class seen; official: a head per task, side by side. Rows of old classes get no gradient.
- Scores are logarithms of the larger of two probabilities, which have the same order.
- Incomplete batches are kept (official: dropped); orders are the scenario's.
- The prefix stands in front of all tokens (official: behind the class token), which attention does not see. Its
  attention is divided by its sum, which official code bounds by 1e-12 from below.
- A chain of several averages (``num_emas``) is left out.

The decay of the average is per *step*: with few steps the second module stays what it was after the first
experience; the tracks have smaller decays.

Trainable (ViT-B/16): adapters 5 (2 * 768 * 5 + 5 + 768 + 1) = 42,270; LoRA 5 (4 * 5 * 768 + 2) = 76,810; prefixes
5 (2 * 10 * 768 + 2) = 76,810; and the head. The module is kept twice, and test images are passed twice.
Expected (ViT-B/16 ImageNet-21k; VPT-NSP2, NeurIPS 2024, Table 2): CIFAR-100 in 10 tasks 85.59 ± 0.46, in 20 tasks
83.93 ± 0.28, ImageNet-R 72.66 ± 0.63. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones.adapters import AttentionAdapter
from benchmark.backbones.blocks import BlockAdapter, check_plain_blocks, run_blocks
from benchmark.backbones.heads import HeadInit, mask_logits
from benchmark.backbones.lora import LoRA
from benchmark.backbones.prefixes import CompensatedPrefix
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.backbones.task_modules import TaskModules, blend
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig, Optimizer
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LAEConfig(ClassifierConfig):
    """Options of LAE; the defaults are those of CIFAR-100.

    Attributes:
        module: What is added to the backbone: ``adapter`` (beside the attention), ``lora`` (keys and values) or
            ``prefix`` (compensated). Their scales are learnt.
        blocks: Number of blocks that have it, from the first one on (all, if there are fewer).
        bottleneck: Of an adapter.
        rank: Of LoRA.
        prefix_length: Rows in front of the keys, and as many in front of the values.
        frozen_epochs: Epochs at the start of every experience but the first in which the head alone trains.
        decay: What the average keeps of itself in a step.
    """

    epochs: int = 5
    batch_size: int = 24
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 2.8125e-3
    optimizer: Optimizer = "adam"
    mask: Literal["none", "current"] = "current"
    head_init: HeadInit = "small"
    module: Literal["adapter", "lora", "prefix"] = "adapter"
    blocks: Annotated[int, Range(min=1)] = 5
    bottleneck: Annotated[int, Range(min=1)] = 5
    rank: Annotated[int, Range(min=1)] = 5
    prefix_length: Annotated[int, Range(min=1)] = 10
    frozen_epochs: Annotated[int, Range(min=0)] = 3
    decay: Annotated[float, Range(min=0, max=1)] = 0.9999


class LAE(Classifier):
    """The module that learns, its average from the second experience on, and one head for both."""

    config: LAEConfig

    def __init__(self, config: LAEConfig, context: Context) -> None:
        super().__init__(config, context)
        check_plain_blocks(self.backbone)
        self.online = self._make()
        self.offline = TaskModules(self._make)
        self.to(context.device)

    def _make(self) -> nn.ModuleList:
        config, blocks, width = self.config, self.backbone.blocks, self.context.backbone.width
        made: list[BlockAdapter] = []
        for block in blocks[: config.blocks]:
            if config.module == "adapter":
                made.append(AttentionAdapter(width, config.bottleneck))
            elif config.module == "lora":
                made.append(LoRA(width, rank=config.rank, targets="kv", learn_scale=True))
            else:
                made.append(CompensatedPrefix(width, config.prefix_length, heads=block.attn.num_heads))
        return nn.ModuleList(made)

    def begin_experience(self, experience: ExperienceView) -> None:
        """From the second experience on there is an average, which begins as the module that has learnt the first."""
        if self.head.classes and not len(self.offline):
            self.offline.keep(self.online)
        super().begin_experience(experience)

    def adapted(self, images: Tensor, modules: nn.ModuleList) -> Tensor:
        """Class token ``(B, D)`` of the pass with the modules of one of the two."""
        rest = [None] * (len(self.backbone.blocks) - len(modules))
        adapters: list[BlockAdapter | None] = [*modules, *rest]
        return run_blocks(self.backbone, embed(self.backbone, images), read=CLS, adapters=adapters)[:, 0]

    def features(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the pass with the module that learns."""
        return self.adapted(images, self.online)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A step of head and module, or of the head alone; then the average moves."""
        frozen = len(self.offline) > 0 and batch.place.epoch < self.config.frozen_epochs
        with torch.set_grad_enabled(not frozen):
            features = self.features(batch.images)
        loss = F.cross_entropy(mask_logits(self.head(features), self._allowed), batch.labels)
        self.descend(loss, factor=self.factor(batch.place))
        if self.stepper.stepped:  # once per batch, though it may come in parts
            for average in self.offline:
                blend(average, self.online, 1 - self.config.decay)
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Log of the larger of both probabilities, ``(B, classes seen)``."""
        experts: Sequence[nn.ModuleList] = [self.online, *self.offline]
        scores = [self.head(self.adapted(images, one)).log_softmax(dim=1) for one in experts]
        return torch.stack(scores).amax(dim=0)


_CIFAR: dict[str, object] = {
    "epochs": 5,
    "frozen_epochs": 3,
    "lr": 2.8125e-3,
    "batch_size": 24,
    "normalize": "zero_one",
}
_OTHERS: dict[str, object] = {**_CIFAR, "epochs": 50, "frozen_epochs": 30, "lr": 4.6875e-4}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lae``."""
    return [
        MethodSpec(
            name="lae",
            build=LAE,
            config=LAEConfig,
            summary="LAE: a small module learns, its moving average remembers; the surer of both answers",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "lora": {"module": "lora"},
                "prefix": {"module": "prefix"},
                "official": _CIFAR,
                "official-lora": {**_CIFAR, "module": "lora"},
                "official-prefix": {**_CIFAR, "module": "prefix"},
                "official-imagenet-r": _OTHERS,
            },
            default_recipe="adapter",
            tracks={
                "nano": {"batch_size": 16, "epochs": 3, "frozen_epochs": 1, "lr": 0.003, "decay": 0.99},
                "mini": {"batch_size": 16, "epochs": 2, "frozen_epochs": 1, "lr": 0.01, "decay": 0.99},
            },
            rule="nano, lr: results/search.py, best on held-out training images; few steps: a smaller decay, the head "
            "first for a third of the epochs; mini: not searched",
            toy={"frozen_epochs": 1, "prefix_length": 2},
            sources={
                "lora": "gqk/LAE at 1680e49, config: LoRA of rank 5",
                "prefix": "gqk/LAE at 1680e49, config: Prefix of length 10",
                "official": "gqk/LAE at 1680e49, config: CIFAR-100, Adapter5",
                "official-lora": "gqk/LAE at 1680e49, config: CIFAR-100, LoRA5",
                "official-prefix": "gqk/LAE at 1680e49, config: CIFAR-100, Prefix10",
                "official-imagenet-r": "gqk/LAE at 1680e49, config: ImageNet-R and DomainNet",
                "decay": "gqk/LAE at 1680e49, main.py: per step",
                "blocks": "gqk/LAE at 1680e49, config: blocks 0 to 4",
            },
            paper="arXiv:2303.10070",
            reference="gqk/LAE@1680e49",
            published="lae",
        )
    ]
