"""MLP-k: a frozen backbone and a head of k linear layers on its class token.

Paper: a baseline of Jia et al., Visual Prompt Tuning, ECCV 2022, arXiv 2203.12119 (reported as Mlp-3).
Official code: KMnP/vpt at 4410440, ``src/models/mlp.py`` (transfer type ``linear``, ``MLP_NUM`` = k - 1).

Differences from the official code:
- In a stream the hidden layers are trained in turn on each experience and the last layer grows; the paper has one
  task. BatchNorm's running statistics then follow the newest experience: ``freeze_bn_after_first_task`` keeps
  those of the first one, ``norm=layer`` does without.
- A training batch of one image, on which the official code fails, uses the running statistics.
- The last layer of the default is drawn as that of `linear-probe`; ``mlp-k@vpt`` has the official one and
  the paper's protocol. Hidden layers are always drawn as officially.
- As in the official code, BatchNorm's statistics move in the first epoch of a warm-up, which has learning rate 0.

Trainable: (k - 1) (D^2 + 3 D) and the last layer; for ViT-B/16 592,128 a hidden layer.
Expected (ViT-B/16 ImageNet-21k, k = 3): VTAB-1k Natural 67.80, Specialized 72.83, Structured 30.62, FGVC 79.80 (VPT
paper, Table 1), below the linear probe. No figure for streams is published; not yet reproduced here on
the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_methods._recipes import VPT_SGD, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import ExperienceView
from benchmark.backbones.heads import HeadNorm, MLPHead
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpKConfig(ClassifierConfig):
    """Options of the MLP head.

    Attributes:
        k: Linear layers in all; 1 is the linear probe.
        norm: Behind each hidden layer: ``batch`` (official) or ``layer``.
        dropout: Rate behind each hidden layer.
        freeze_bn_after_first_task: After the first experience every BatchNorm is a fixed affine map.
    """

    epochs: int = 5
    k: Annotated[int, Range(min=1)] = 3
    norm: HeadNorm = "batch"
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1
    freeze_bn_after_first_task: bool = False

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        if self.freeze_bn_after_first_task and self.norm != "batch":
            raise ValueError("freeze_bn_after_first_task: True has no effect with norm `layer`; use `batch`")


class MlpK(Classifier):
    """Only the head trains."""

    config: MlpKConfig
    head: MLPHead
    last_bias = "head.last.bias"

    def make_head(self) -> MLPHead:
        """The head, its last layer without rows."""
        config = self.config
        return MLPHead(
            self.context.backbone.width,
            config.k - 1,
            norm=config.norm,
            dropout=config.dropout,
            init=config.head_init,
        )

    @property
    def coupled(self) -> str | None:
        """See `Method.coupled`."""
        return "norm=batch: BatchNorm takes statistics of a batch" if self.config.norm == "batch" else None

    def begin_experience(self, experience: ExperienceView) -> None:
        """As every classifier; what was frozen before a restart is frozen again."""
        self.head.restore_frozen()
        super().begin_experience(experience)

    def end_experience(self, experience: ExperienceView) -> None:
        """Freezes the norms, if that is asked for."""
        if self.config.freeze_bn_after_first_task:
            self.head.freeze_norms()


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``mlp-k``."""
    return [
        MethodSpec(
            name="mlp-k",
            build=MlpK,
            config=MlpKConfig,
            summary="frozen backbone, a head of k linear layers",
            uses=frozenset({"boundaries"}),
            recipes={
                "masked": {"mask": "current"},
                "frozen-bn": {"freeze_bn_after_first_task": True},
                "layer-norm": {"norm": "layer"},
                "vpt": {**VPT_SGD, "lr": 0.1},
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.003},
                "mini": {"batch_size": 16, "lr": 0.003, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "frozen-bn": "adaptbench: against statistics that follow the newest experience",
                "layer-norm": "adaptbench: likewise",
                "vpt": VPT_SOURCE,
                "k": "VPT paper, Table 1",
                "norm": "KMnP/vpt src/models/mlp.py",
                "dropout": "KMnP/vpt src/models/mlp.py",
            },
            paper="arXiv:2203.12119",
            reference="KMnP/vpt@4410440",
            published="mlp-k",
        )
    ]
