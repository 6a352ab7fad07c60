"""Nearest class mean (SimpleCIL): cosine to the mean feature of each class; nothing is trained.

Paper: Zhou, Cai, Ye, Zhan, Liu. Revisiting Class-Incremental Learning with Pre-Trained Models,
arXiv 2303.07338 (SimpleCIL); nearest means on a frozen ViT also in Janson et al., arXiv 2210.04428.
Official code: zhoudw-zdw/RevisitingCIL at a2e6b71 and LAMDA-CL/LAMDA-PILOT at 5240714 (class-
incremental), RanPAC/RanPAC at 012927f (its NCM rows; sums over domains).

Differences from the paper:
- Sums are accumulated batch by batch in float64, which gives the same means in one pass and works on
  streams without borders; the official code stacks all features of a task.
- A class that comes again is merged (``reappearing=merge``, as RanPAC does over domains). The
  official class-incremental code overwrites it: ``reappearing=overwrite``.

The test transform is used in training too, one pass. Features are averaged first and normalised
afterwards; the other order is another classifier (``normalise_before_mean``).

Expected (ViT-B/16 augreg_in21k, CIFAR-100, any split): 81.28 last accuracy (RevisitingCIL logs,
seed 1993). Deterministic: no seeds. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig
from benchmark.backbones.prompted_vit import check_promptable, cls_feature, freeze
from benchmark.backbones.prototypes import ClassMeans
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestMeanConfig(MethodConfig):
    """Options of the nearest-mean classifier.

    Attributes:
        reappearing: What happens to a class that comes again in a later experience: ``merge`` adds
            to its sum, ``overwrite`` starts it anew.
        normalise_before_mean: Average normalised features instead of raw ones.
    """

    augment: bool = False
    reappearing: Literal["merge", "overwrite"] = "merge"
    normalise_before_mean: bool = False

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.epochs != 1:
            raise ValueError(f"epochs: {self.epochs} passes make no better mean than one; use 1")
        if self.augment:
            raise ValueError("augment: true would average augmented images; use false, the test transform")


class NearestMean(Method):
    """Sums and counts per class; logits are cosines."""

    config: NearestMeanConfig

    def __init__(self, config: NearestMeanConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = freeze(context.backbone.model)
        check_promptable(self.backbone)
        self.prototypes = ClassMeans(context.backbone.width, normalise=config.normalise_before_mean)
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Forgets the classes that come again, if they are to be overwritten."""
        if self.config.reappearing == "overwrite":
            self.prototypes.forget(experience.classes)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Adds a batch to the sums. There is no loss: the entry is 0."""
        with torch.no_grad():
            self.prototypes.add(cls_feature(self.backbone, batch.images), batch.labels)
        return {"loss": 0.0}

    def predict(self, images: Tensor) -> Tensor:
        """Cosines ``(B, classes seen)`` for normalised images."""
        cosines: Tensor = self.prototypes(cls_feature(self.backbone, images))
        return cosines


def uses(config: NearestMeanConfig) -> frozenset[str]:
    """Overwriting needs to know where an experience begins; merging needs nothing."""
    return frozenset({"boundaries"}) if config.reappearing == "overwrite" else frozenset()


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``nearest-mean``."""
    return [
        MethodSpec(
            name="nearest-mean",
            build=NearestMean,
            config=NearestMeanConfig,
            summary="cosine to the mean feature of each class (SimpleCIL); trains nothing",
            uses=uses,
            recipes={"simplecil": {"reappearing": "overwrite", "normalize": "zero_one"}},
            default_recipe="merge",
            rule="nothing to choose",
            waits=1,  # which label is the largest: without boundaries it is not told how many classes there are
            sources={"simplecil": "LAMDA-PILOT models/simplecil.py at 5240714", "merge": "RanPAC at 012927f"},
            paper="arXiv:2303.07338",
            reference="zhoudw-zdw/RevisitingCIL@a2e6b71",
            control=True,
            published="nearest-mean",
        )
    ]
