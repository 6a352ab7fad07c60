"""Sequential full fine-tuning: backbone and head are trained on each experience in turn.

Paper: the FT-seq row of Wang et al., Learning to Prompt, CVPR 2022, arXiv 2112.08654, Table 1; full
fine-tuning as such: Jia et al., Visual Prompt Tuning, ECCV 2022, arXiv 2203.12119.
Official code: KMnP/vpt at 4410440 (transfer type ``end2end``); no code of FT-seq was released.

Differences from the papers:
- The head has a row per class *seen* and grows; FT-seq's has all C rows from the start. Unseen rows
  only shift the softmax a little in training and are never right at test time.
- No dropout and no warm-up; ``finetune@vpt`` has the protocol of the VPT paper: dropout 0.1 behind the position
  table and twice in each MLP, warm-up, its AdamW, one point of its grid of learning rates.
- `mask` is ``none``, as in FT-seq. Much of the gap to prompt methods comes from their mask over the
  current classes, not from prompts, so run ``finetune@masked`` beside it.

Expected (ViT-B/16 ImageNet-21k, Split CIFAR-100, 10 tasks): 33.61 ± 0.85 final average accuracy,
forgetting 86.87 ± 0.20 (L2P paper, Table 1); with the mask 77.61 (gqk/LAE, issue #1). Not yet
reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_methods._recipes import VPT_ADAMW, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.prompted_vit import set_dropout
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig(ClassifierConfig):
    """Options of sequential fine-tuning.

    Attributes:
        backbone_lr_scale: Learning rate of the backbone relative to the head's.
        dropout: In training, behind the position table and behind both layers of each block's MLP.
    """

    epochs: int = 5
    backbone_lr_scale: float = 1.0
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        if self.backbone_lr_scale <= 0:
            raise ValueError(
                f"backbone_lr_scale: {self.backbone_lr_scale} is not positive; "
                "to freeze the backbone use `linear-probe`"
            )


class Finetune(Classifier):
    """Every weight trains."""

    def __init__(self, config: FinetuneConfig, context: Context) -> None:
        super().__init__(config, context, backbone_lr_scale=config.backbone_lr_scale)
        if config.dropout > 0:
            set_dropout(self.backbone, config.dropout)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``finetune``."""
    return [
        MethodSpec(
            name="finetune",
            build=Finetune,
            config=FinetuneConfig,
            summary="sequential full fine-tuning, nothing done against forgetting",
            tokens=lambda config: config.dropout > 0,  # it is put into the blocks
            uses=frozenset({"boundaries"}),
            recipes={
                "masked": {"mask": "current"},
                "slow-backbone": {"backbone_lr_scale": 0.01},
                "vpt": {**VPT_ADAMW, "lr": 0.0001, "dropout": 0.1},
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.001},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "mask": "L2P paper, FT-seq is unmasked; masked: gqk/LAE issue #1",
                "slow-backbone": "adaptbench: a control between finetune and linear-probe",
                "vpt": VPT_SOURCE,
                "dropout": "KMnP/vpt at 4410440, src/models/vit_backbones/vit.py",
            },
            paper="arXiv:2112.08654",
            reference="KMnP/vpt@4410440",
            control=True,
            published="finetune",
        )
    ]
