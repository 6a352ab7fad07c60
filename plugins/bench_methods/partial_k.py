"""Partial-k: the last k blocks, the final LayerNorm and the head train; everything below is frozen.

Paper: as a baseline of Jia et al., Visual Prompt Tuning, ECCV 2022, arXiv 2203.12119; the idea is
Yosinski et al., NeurIPS 2014, arXiv 1411.1792.
Official code: KMnP/vpt at 4410440, ``src/models/vit_models.py``, transfer types ``partial-1``, ``-2``, ``-4``.

Differences from the official code:
- Blocks are chosen by position, for any k and depth; the code matches names (``layer.1`` is in ``layer.10``).
- In its MAE and MoCo-v3 classes the final norm is left out by a wrong comparison: ``norm=false`` gives that.
- In a stream the experiences are trained in turn with the same blocks, as `finetune` does; the paper has
  one task. The default trains as `finetune` does; ``partial-k@vpt`` has the paper's protocol.

Trainable (ViT-B/16): 7,087,872 per block, 1,536 in the norm, and the head; k = 1 with 100 classes is 8.35 % of
the model (VPT paper, Table 12).
Expected (ViT-B/16 ImageNet-21k, k = 1): VTAB-1k Natural 69.44, Specialized 78.53, Structured 34.17, FGVC 82.63 (VPT
paper, Table 1). No figure for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_methods._recipes import VPT_ADAMW, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.selection import last_blocks
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialKConfig(ClassifierConfig):
    """Options of partial fine-tuning.

    Attributes:
        k: Blocks that train, counted from the last; 0 trains the norm and the head alone.
        norm: Whether the final LayerNorm trains.
    """

    epochs: int = 5
    k: Annotated[int, Range(min=0)] = 1
    norm: bool = True


class PartialK(Classifier):
    """The last blocks train, in eval mode as the rest of the backbone."""

    def __init__(self, config: PartialKConfig, context: Context) -> None:
        super().__init__(config, context)
        for parameter in last_blocks(self.backbone, config.k, norm=config.norm):
            parameter.requires_grad_(True)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``partial-k``."""
    return [
        MethodSpec(
            name="partial-k",
            build=PartialK,
            config=PartialKConfig,
            summary="the last k blocks, the final norm and the head train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={"masked": {"mask": "current"}, "vpt": {**VPT_ADAMW, "batch_size": 1280}},
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "lr": 0.01, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "vpt": VPT_SOURCE,
                "k": "VPT paper, Table 1",
                "norm": "KMnP/vpt src/models/vit_models.py, class ViT",
            },
            paper="arXiv:2203.12119",
            reference="KMnP/vpt@4410440",
            published="partial-k",
        )
    ]
