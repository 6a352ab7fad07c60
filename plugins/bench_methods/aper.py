"""APER (ADAM): a module trained in the first experience, then class means of frozen and tuned features together.

Paper: Zhou, Cai, Ye, Zhan, Liu. Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and
Adaptivity Are All You Need, IJCV 2024, arXiv 2303.07338 (there first named ADAM).
Official code: zhoudw-zdw/RevisitingCIL at a2e6b71; LAMDA-CL/LAMDA-PILOT at 5240714, ``models/aper_*.py``. No tensors
of it are recorded. Its parts are those of RanPAC's first session, which equal RanPAC's code, and of the
class means of `nearest-mean`, which equal LAMDA-PILOT's; the whole equals an independent restatement of the text to
1e-9 in float64 (tests/unit/methods/test_aper.py). Written anew, no code taken.

Differences from the official code:
- Class means are float64 sums in one pass. A class that comes again is added to its mean; official: overwritten.
- Learning rates differ by data set there (about 0.01); a recipe has one.
- ``aper@tuned-only`` leaves the frozen half out: "NCM + phase 1" of the RanPAC paper.
- Class order is the scenario's (numpy seed 1993 there).

The feature is twice the backbone's width and costs two passes. ``aper@finetune`` keeps a second backbone.
Expected (ViT-B/16 augreg_in21k, CIFAR-100 Inc5, last accuracy): finetune 81.27, vpt-shallow 81.80, vpt-deep 82.65,
adapter 85.14; without adaptation (`nearest-mean`) 81.28 (released logs). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench_methods._first_session import FirstSession, FirstSessionConfig
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.backbones.prototypes import ClassMeans
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class APERConfig(FirstSessionConfig):
    """Options of APER.

    Attributes:
        branches: ``both``: features of the frozen and of the tuned model side by side; ``tuned``: the latter alone.
    """

    branches: Literal["both", "tuned"] = "both"

    def __post_init__(self) -> None:
        FirstSessionConfig.__post_init__(self)
        if self.adaptation == "none":
            raise ValueError("adaptation: none makes it nearest-mean; use that, or adapter, ssf, vpt-deep, ...")


class APER(FirstSession):
    """The first session's module and class means."""

    config: APERConfig

    def __init__(self, config: APERConfig, context: Context) -> None:
        super().__init__(config, context)
        width = context.backbone.width * (2 if config.branches == "both" else 1)
        self.prototypes = ClassMeans(width).to(context.device)

    def features(self, images: Tensor) -> Tensor:
        """``[frozen; tuned]`` class tokens, ``(B, 2 D)``; ``(B, D)`` of the tuned model alone."""
        tuned = self.tuned(images)
        return tuned if self.config.branches == "tuned" else torch.cat([cls_feature(self.backbone, images), tuned], 1)

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Adds to the class means."""
        self.prototypes.add(features, labels)

    def predict(self, images: Tensor) -> Tensor:
        """Cosines ``(B, classes seen)`` for normalised images."""
        cosines: Tensor = self.prototypes(self.features(images))
        return cosines


OFFICIAL: dict[str, object] = {"epochs": 20, "batch_size": 48, "lr": 0.01, "normalize": "zero_one"}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``aper``."""
    return [
        MethodSpec(
            name="aper",
            build=APER,
            config=APERConfig,
            summary="class means of frozen and adapted features; adapts in the first experience only (ADAM)",
            tokens=lambda config: config.adaptation not in ("none", "finetune"),
            uses=frozenset({"boundaries"}),
            recipes={
                "ssf": {"adaptation": "ssf"},
                "vpt-shallow": {"adaptation": "vpt-shallow"},
                "vpt-deep": {"adaptation": "vpt-deep"},
                "finetune": {"adaptation": "finetune"},
                "tuned-only": {"branches": "tuned"},
                "official": {"adaptation": "adapter", **OFFICIAL},
            },
            default_recipe="adapter",
            tracks={
                "nano": {"batch_size": 16, "epochs": 3, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 3, "lr": 0.03},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            toy={"bottleneck": 8},
            sources={
                "epochs": "RevisitingCIL at a2e6b71, exps/aper_*.json",
                "lr": "RevisitingCIL at a2e6b71, exps/aper_*.json: about 0.01; momentum 0.9, decay 5e-4, batch 48",
                "adapter": "RevisitingCIL at a2e6b71, exps/aper_adapter: bottleneck 64, scale 0.1",
                "ssf": "RevisitingCIL at a2e6b71, models/aper_ssf.py",
                "vpt-shallow": "RevisitingCIL at a2e6b71, models/aper_vpt.py: 5 tokens at the end, in front of block 0",
                "vpt-deep": "RevisitingCIL at a2e6b71, models/aper_vpt.py: 5 tokens at the end of every block",
                "finetune": "RevisitingCIL at a2e6b71, models/aper_finetune.py",
                "tuned-only": "RanPAC at 012927f, experiment 5",
                "official": "RevisitingCIL at a2e6b71, exps/aper_adapter: images in [0, 1]",
            },
            paper="arXiv:2303.07338",
            reference="zhoudw-zdw/RevisitingCIL@a2e6b71",
            published="aper",
        )
    ]
