"""Joint training: full fine-tuning on all experiences at once, the upper bound.

Paper: the upper-bound row of Wang et al., CVPR 2022, arXiv 2112.08654, Table 1.
Official code: none released; the training step is that of `finetune`.

Differences from the paper: number of passes, optimiser and schedule of that row are not published;
ours are the options below. The engine merges the whole stream into one experience, so there is one
evaluation, and forgetting is not defined.

Expected (ViT-B/16 ImageNet-21k, Split CIFAR-100): 90.85 ± 0.12 (L2P paper, Table 1). The linear
probe on all data, ``joint@linear``: 87.9 (RanPAC, its frozen ViT). Not yet reproduced here on the
paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from benchmark import hookimpl
from benchmark.api import Context
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig, Schedule
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class JointConfig(ClassifierConfig):
    """Options of joint training.

    Attributes:
        backbone_lr_scale: Learning rate of the backbone relative to the head's; 0 freezes it.
    """

    epochs: int = 10
    schedule: Schedule = "cosine"
    backbone_lr_scale: Annotated[float, Range(min=0)] = 1.0


class Joint(Classifier):
    """One experience, every class in it."""

    def __init__(self, config: JointConfig, context: Context) -> None:
        super().__init__(config, context, backbone_lr_scale=config.backbone_lr_scale)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``joint``."""
    return [
        MethodSpec(
            name="joint",
            build=Joint,
            config=JointConfig,
            summary="full fine-tuning on all data at once (upper bound)",
            uses=frozenset({"boundaries"}),
            recipes={"linear": {"backbone_lr_scale": 0.0}},
            tracks={
                "nano": {"batch_size": 32, "epochs": 4, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={"linear": "RanPAC paper tables, joint linear probe"},
            paper="arXiv:2112.08654",
            control=True,
            stream="joint",
            published="joint",
        )
    ]
