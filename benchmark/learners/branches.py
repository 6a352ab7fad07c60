"""A frozen ViT with low-rank changes of its projections, one more per experience, all of them added up.

`BranchLearner` has the branches, the pass and the training of the newest one; a subclass says what else differs, e.g.
where the branches come from or how they are weighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from benchmark.api import Context, ExperienceView
from benchmark.backbones.blocks import check_plain_blocks, run_blocks
from benchmark.backbones.lora import Branch, Branches
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.backbones.task_modules import TaskModules
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchConfig(ClassifierConfig):
    """Options of a method with one low-rank change per experience.

    Attributes:
        rank: r of each change.
    """

    rank: Annotated[int, Range(min=1)] = 10


class BranchLearner(Classifier):
    """Head and newest branch train; the branches before stay as they are.

    Attributes:
        targets: Projections that change, letters of ``qkv``.
        shared: Whether the projections of a block share A.
    """

    config: BranchConfig
    targets = "qv"
    shared = False

    def __init__(self, config: BranchConfig, context: Context) -> None:
        super().__init__(config, context)
        check_plain_blocks(self.backbone)
        self.branches = TaskModules(self._make)
        self.to(context.device)
        self._adapters: list[Branches] = []

    def _make(self) -> nn.ModuleList:
        width, rank, targets = self.context.backbone.width, self.config.rank, len(self.targets)
        return nn.ModuleList(
            Branch(width, rank=rank, targets=targets, shared=self.shared) for _ in self.backbone.blocks
        )

    def adapter(self, branches: Sequence[Branch]) -> Branches:
        """How the branches of a block are added up, in the order of experiences."""
        return Branches(branches, targets=self.targets)

    @property
    def adapters(self) -> Sequence[Branches]:
        """Of every block, with all branches opened so far."""
        count = len(self.branches)
        if count and (not self._adapters or len(self._adapters[0].branches) != count):
            self._adapters = [self.adapter(each) for each in zip(*self.branches, strict=True)]
        return self._adapters

    def begin_experience(self, experience: ExperienceView) -> None:
        """Opens a branch in every block, then as every classifier."""
        self.open_branch()
        super().begin_experience(experience)

    def open_branch(self) -> None:
        """Adds a fresh branch that trains; a subclass says which of its parameters."""
        self.branches.open()

    def features(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the pass with all branches."""
        tokens = embed(self.backbone, images)
        return run_blocks(self.backbone, tokens, read=CLS, adapters=self.adapters)[:, 0]
