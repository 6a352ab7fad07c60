"""LoRA: low-rank changes of the attention's projections and the head train, the backbone is frozen.

Paper: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv 2106.09685.
Official code: microsoft/LoRA at 0771c1e, ``loralib/layers.py`` (``MergedLinear`` on the fused projection).

Differences from the official code:
- It has language models only. Here query and value of a ViT are changed, as in the paper's main results.
- No dropout on the low-rank path; no merge in eval mode (`benchmark.backbones.lora.merge` is exact to
  rounding, but would change weights during evaluation).
- In a stream the experiences are trained in turn with the same matrices. The default trains with SGD, as
  `linear-probe` does; ``lora@vpt`` has the protocol that this benchmark uses for all tuning baselines.

Trainable: rank x 2 D per changed projection; ViT-B/16 with rank 8 on query and value 294,912, and the head.
Expected (ViT-B/16 ImageNet-21k): VTAB-1k mean 74.5 (Zhang et al., Neural Prompt Search, arXiv 2206.04673, Table 1),
but of a variant: its code has one A of rank 8 for query, key and value together, which is as many weights as ours.
No figure for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from torch import Tensor, nn

from bench_methods._recipes import VPT_ADAMW, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.blocks import BlockAdapter, check_plain_blocks, run_blocks
from benchmark.backbones.lora import PARTS, LoRA, LoRAInit
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRAConfig(ClassifierConfig):
    """Options of LoRA.

    Attributes:
        rank: r of each change.
        alpha: The change is scaled by ``alpha / rank``.
        targets: Projections that change, letters of ``qkv``.
        init: How A is drawn: ``kaiming`` (official code) or ``gaussian``; B starts at 0.
    """

    epochs: int = 5
    rank: Annotated[int, Range(min=1)] = 8
    alpha: Annotated[float, Range(above=0)] = 8.0
    targets: str = "qv"
    init: LoRAInit = "kaiming"

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        if not self.targets or set(self.targets) - set(PARTS) or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets: {self.targets!r} is not made of different letters of {PARTS}; use e.g. 'qv'")


class LoRATuning(Classifier):
    """Low-rank changes and head train."""

    def __init__(self, config: LoRAConfig, context: Context) -> None:
        super().__init__(config, context)
        check_plain_blocks(self.backbone)
        self.changes = nn.ModuleList(
            LoRA(
                context.backbone.width,
                rank=config.rank,
                alpha=config.alpha,
                targets=config.targets,
                init=config.init,
            )
            for _ in self.backbone.blocks
        )
        self.to(context.device)

    def features(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the pass with changed projections."""
        changes = cast("Sequence[BlockAdapter]", self.changes)
        return run_blocks(self.backbone, embed(self.backbone, images), read=CLS, adapters=changes)[:, 0]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lora``."""
    return [
        MethodSpec(
            name="lora",
            build=LoRATuning,
            config=LoRAConfig,
            summary="low-rank changes of query and value projections and the head train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={"masked": {"mask": "current"}, "vpt": {**VPT_ADAMW, "rank": 8, "alpha": 8.0, "targets": "qv"}},
            tracks={
                "nano": {"batch_size": 32, "lr": 0.001, "epochs": 2},
                "mini": {"batch_size": 16, "lr": 0.01, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "vpt": f"{VPT_SOURCE}; LoRA is no baseline of that paper",
                "targets": "LoRA paper, section 7.1",
                "alpha": "LoRA paper, section 4.1: the first rank that is tried",
                "init": "microsoft/LoRA loralib/layers.py; the paper says Gaussian",
                "rank": "ZhangYuanhan-AI/NOAH experiments/LoRA/ViT-B_prompt_lora_8.yaml",
            },
            paper="arXiv:2106.09685",
            reference="microsoft/LoRA@0771c1e",
            published="lora",
        )
    ]
