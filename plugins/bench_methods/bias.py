"""Bias tuning (BitFit): every bias of the backbone and the head train.

Paper: Ben Zaken et al., BitFit, ACL 2022, arXiv 2106.10199; Cai et al., TinyTL, NeurIPS 2020,
arXiv 2007.11622; as a baseline of Jia et al., ECCV 2022, arXiv 2203.12119.
Official code: KMnP/vpt at 4410440, ``src/models/vit_models.py``, transfer type ``tinytl-bias``.

Differences from the official code:
- timm keeps the biases of query, key and value in one vector; count and arithmetic are the same. The key's
  part has no gradient but rounding (softmax does not see it), so Adam moves it by noise.
- In a stream the experiences are trained in turn; the paper has one task. The default trains with SGD, as
  `linear-probe` does; ``bias@vpt`` has the paper's protocol.

Trainable (ViT-B/16): 102,912 and the head (0.21 % of the model with 100 classes: VPT paper, Table 12).
Expected (ViT-B/16 ImageNet-21k): VTAB-1k Natural 73.30, Specialized 78.25, Structured 44.09, FGVC 88.41 (VPT paper,
Table 1). No figure for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_methods._recipes import VPT_ADAMW, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.selection import biases
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasConfig(ClassifierConfig):
    """Options of bias tuning (`ClassifierConfig`)."""

    epochs: int = 5


class Bias(Classifier):
    """The backbone's biases train, in eval mode."""

    def __init__(self, config: BiasConfig, context: Context) -> None:
        super().__init__(config, context)
        for parameter in biases(self.backbone):
            parameter.requires_grad_(True)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``bias``."""
    return [
        MethodSpec(
            name="bias",
            build=Bias,
            config=BiasConfig,
            summary="BitFit: the backbone's biases and the head train",
            uses=frozenset({"boundaries"}),
            recipes={"masked": {"mask": "current"}, "vpt": VPT_ADAMW},
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "lr": 0.003, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "vpt": VPT_SOURCE,
            },
            paper="arXiv:2106.10199",
            reference="KMnP/vpt@4410440",
            published="bias",
        )
    ]
