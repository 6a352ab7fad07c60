"""Side-tuning: a small network runs beside the frozen backbone, and their features are blended.

Paper: Zhang et al., Side-Tuning, ECCV 2020, arXiv 1912.13503; as a baseline of Jia et al., ECCV 2022,
arXiv 2203.12119.
Official code: KMnP/vpt at 4410440, ``src/models/vit_models.py``, transfer type ``side``.

The feature is ``sigmoid(a) f_backbone + (1 - sigmoid(a)) f_side``, a = 0 at the start.

Differences from the official code:
- It always has torchvision's AlexNet with ImageNet-1k weights on 224 px. Here that is ``side=alexnet`` with
  ``side_weights=imagenet`` (or the checkpoint's file), the values of the paper track; nothing is downloaded, and
  without the file the run stops. The default, on tracks with small images and without weights, is a **randomly
  initialised** network of three convolutions (``side=small``): a learner of another kind, not to be compared
  with the published figures. AlexNet enlarges images below 64 px to 64 px, where it would have no output.
- One side network for all experiences; the ECCV 2020 paper adds one per task, which needs the task at test time.
- In its MAE and MoCo-v3 classes side-tuning does not work as released; here it works on any ViT.

Trainable (ViT-B/16, AlexNet): 2,469,696 + 9216 x 768 + 1 = 9,547,585, and the head: 10.09 % of the model with 100
classes (VPT paper, Table 12).
Expected (ViT-B/16 ImageNet-21k): VTAB-1k Natural 58.21, Specialized 68.12, Structured 23.41, FGVC 78.35 (VPT paper,
Table 1), below the linear probe. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench_methods._recipes import VPT_SGD, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.side_networks import Side, SideNetwork, load_alexnet
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SideTuningConfig(ClassifierConfig):
    """Options of side-tuning.

    Attributes:
        side: ``alexnet`` or ``small`` (`benchmark.backbones.side_networks.SideNetwork`).
        side_weights: ``random``; ``imagenet``: torchvision's AlexNet weights from the cache of torch.hub; or the
            path of that file. ``small`` has random weights only.
    """

    epochs: int = 5
    side: Side = "small"
    side_weights: str = "random"

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        if not self.side_weights:
            raise ValueError("side_weights: is empty; use `random`, `imagenet` or a file")
        if self.side == "small" and self.side_weights != "random":
            raise ValueError(f"side_weights: {self.side_weights!r} does not fit side `small`; use `random`")


class SideTuning(Classifier):
    """Side network, blend and head train."""

    def __init__(self, config: SideTuningConfig, context: Context) -> None:
        super().__init__(config, context)
        self.side = SideNetwork(config.side, context.backbone.width)
        if config.side_weights != "random":
            load_alexnet(self.side, None if config.side_weights == "imagenet" else Path(config.side_weights))
        self.blend = nn.Parameter(torch.zeros(()))
        self.to(context.device)

    def features(self, images: Tensor) -> Tensor:
        """Blended features ``(B, D)``."""
        with torch.no_grad():
            base = super().features(images)
        return blended(base, self.side(images), self.blend)


def blended(base: Tensor, side: Tensor, blend: Tensor) -> Tensor:
    """``sigmoid(a) f_b + (1 - sigmoid(a)) f_s`` for features ``(B, D)`` and a scalar a."""
    share = torch.sigmoid(blend)
    return share * base + (1 - share) * side


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``side-tuning``."""
    return [
        MethodSpec(
            name="side-tuning",
            build=SideTuning,
            config=SideTuningConfig,
            summary="a small network beside the frozen backbone, features blended",
            uses=frozenset({"boundaries"}),
            recipes={
                "masked": {"mask": "current"},
                # The weights are the track's affair: on the paper track they are AlexNet's.
                "vpt": {**VPT_SGD, "lr": 0.05, "side": "alexnet"},
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.003},
                "mini": {"batch_size": 16, "lr": 0.01, "epochs": 1},
                "paper": {"side": "alexnet", "side_weights": "imagenet"},
            },
            rule="nano, mini: results/search.py, best on held-out training images; paper: KMnP/vpt",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "vpt": f"{VPT_SOURCE}; lr: the small end, larger ones blow AlexNet up",
                "side": "adaptbench: runs anywhere; KMnP/vpt has AlexNet",
                "side_weights": "KMnP/vpt: ImageNet-1k, on the paper track",
            },
            paper="arXiv:1912.13503",
            reference="KMnP/vpt@4410440",
            published="side-tuning",
        )
    ]
