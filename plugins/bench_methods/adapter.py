"""Adapter tuning: a bottleneck in every block and the head train, the backbone is frozen.

Paper: Houlsby et al., ICML 2019, arXiv 1902.00751; the placement behind the MLP alone: Pfeiffer et al.,
AdapterFusion, EACL 2021, arXiv 2005.00247; as a baseline of Jia et al., ECCV 2022, arXiv 2203.12119.
Official code: KMnP/vpt at 4410440, ``src/models/vit_adapter/vit.py`` (it has the Pfeiffer placement only).

Differences from the official code:
- It starts with all four tensors of an adapter at 0. Then only the up-projection's bias ever gets a
  gradient: what is learned is a constant vector per block. The default draws the down-projection (``init=kaiming``), so
  that the model still starts unchanged and everything learns. ``adapter@zeros-official`` is the released
  initialisation; the tensors that cannot move are left out of its optimiser, which changes nothing but
  the count of trainable parameters.
- ``adapter@houlsby`` has a second adapter behind each attention; weights are drawn as in Houlsby et al.
- In a stream the experiences are trained in turn with the same adapters; the paper has one task. The default
  trains with SGD, as `linear-probe` does: without a mask, Adam's first steps on new classes wipe out the old
  ones. ``adapter@vpt`` has the paper's protocol (and the corrected initialisation).

Trainable (ViT-B/16, r = floor(D / R)): 12 (2 D r + r + D) = 1,779,840 for R = 8, and the head: 2.12 % of the model
with 100 classes (VPT paper, Table 12).
Expected (ViT-B/16 ImageNet-21k): VTAB-1k Natural 70.39, Specialized 77.11, Structured 33.43, FGVC 85.66 (VPT paper,
Table 1); another implementation has far more (mean 71.44 in V-PETL Bench), as the remark on zeros suggests. No figure
for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from torch import Tensor, nn

from bench_methods._recipes import VPT_ADAMW, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.adapters import AdapterInit, Bottleneck, HoulsbyAdapter, PfeifferAdapter, reduced
from benchmark.backbones.blocks import BlockAdapter, check_plain_blocks, run_blocks
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig(ClassifierConfig):
    """Options of adapter tuning.

    Attributes:
        placement: ``pfeiffer``: one adapter a block, behind the MLP. ``houlsby``: another one behind the attention.
        reduction: R; the bottleneck is the backbone's width divided by it, rounded down.
        init: ``kaiming``: down-projection drawn, the rest 0. ``small``: weights with standard deviation 0.01.
            ``zeros``: everything 0, where only the last bias can learn.
    """

    epochs: int = 5
    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    reduction: Annotated[int, Range(min=1)] = 8
    init: AdapterInit = "kaiming"


class Adapter(Classifier):
    """Adapters and head train."""

    def __init__(self, config: AdapterConfig, context: Context) -> None:
        super().__init__(config, context)
        check_plain_blocks(self.backbone)
        width = context.backbone.width
        bottleneck = reduced(width, config.reduction)
        kind = PfeifferAdapter if config.placement == "pfeiffer" else HoulsbyAdapter
        self.adapters = nn.ModuleList(kind(width, bottleneck, config.init) for _ in self.backbone.blocks)
        if config.init == "zeros":
            for part in self.adapters.modules():
                if isinstance(part, Bottleneck):
                    part.requires_grad_(False)
                    part.up.bias.requires_grad_(True)
        self.to(context.device)

    def features(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the adapted pass."""
        adapters = cast("Sequence[BlockAdapter]", self.adapters)
        return run_blocks(self.backbone, embed(self.backbone, images), read=CLS, adapters=adapters)[:, 0]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``adapter``."""
    return [
        MethodSpec(
            name="adapter",
            build=Adapter,
            config=AdapterConfig,
            summary="a bottleneck adapter in every block and the head train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "masked": {"mask": "current"},
                "zeros-official": {"init": "zeros", "placement": "pfeiffer", "reduction": 8},
                "houlsby": {"placement": "houlsby", "init": "small"},
                "vpt": {**VPT_ADAMW, "placement": "pfeiffer", "reduction": 8, "init": "kaiming"},
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "lr": 0.01, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "zeros-official": "KMnP/vpt src/models/vit_adapter/vit.py",
                "houlsby": "Houlsby et al., sections 2.1 and 3.6; GELU as in KMnP/vpt",
                "vpt": VPT_SOURCE,
                "reduction": "KMnP/vpt; the paper searches 8, 64 and 256",
                "init": "adaptbench; the official zeros are a saddle point",
            },
            paper="arXiv:1902.00751",
            reference="KMnP/vpt@4410440",
            published="adapter",
        )
    ]
