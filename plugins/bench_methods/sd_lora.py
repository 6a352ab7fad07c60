"""SD-LoRA: directions of past low-rank changes stay, their magnitudes are learnt anew with every new change.

Paper: Wu, Piao, Huang, Wang, Li, Pfister, Meng, Ma, Wei. SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class
Incremental Learning, ICLR 2025, arXiv 2501.13198.
Official code: WuYichen-97/SD-Lora-CL at 8bacded. Features, losses, gradients and parameters after each of two and three
tasks equal those of its backbone classes to 1e-9 in float64; its training loop needs a GPU and checkpoints and is
restated in the recorded cases (tests/unit/methods/test_sd_lora_golden.py). Written anew, no code taken.

Differences from the paper and the official code:
- As in the code, and unlike the paper: all magnitudes start again at ``magnitude`` in every experience, and the last
  experience's change, which trained as it is, is from then on divided by its norms: the function jumps when an
  experience begins.
- A change that never trained (``epochs=0``) adds nothing; official: 0 / 0.
- The configurations name Adam and a cosine; what runs, there and here, is SGD with steps.
- The variants with falling ranks (RR) and distillation (KD) are no recipes: one is commented out there, one is lacking.
- Incomplete batches are kept; orders are the scenario's.

Trainable (ViT-B/16): 12 * 2 * 2 * 768 * 10 = 368,640 per experience, its magnitudes and the head; all changes are kept.
Expected (ViT-B/16 augreg_in21k_ft_in1k, released logs, one run each; last / mean over tasks): CIFAR-100 in 10 tasks
87.26 / 92.05, ImageNet-R in 10 tasks 78.17 / 82.59, in 5 tasks 79.32 / 83.00, ImageNet-A in 10 tasks 58.66 / 68.77.
Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from benchmark import hookimpl
from benchmark.api import Context, ExperienceView, Place
from benchmark.backbones.heads import HeadInit
from benchmark.backbones.lora import Branch, Branches
from benchmark.config import Range
from benchmark.learners.branches import BranchConfig, BranchLearner
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SDLoRAConfig(BranchConfig):
    """Options of SD-LoRA; the defaults are those of CIFAR-100.

    Attributes:
        magnitude: Where all magnitudes start in every experience.
        later_lr: Factor of `lr` from the second experience on.
        milestones: Epochs at which the learning rate is multiplied by `step_decay`.
        step_decay: By how much.
    """

    epochs: int = 20
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 0.008
    mask: Literal["none", "current"] = "current"
    head_init: HeadInit = "kaiming"
    magnitude: float = 0.8
    later_lr: Annotated[float, Range(above=0)] = 1.0
    milestones: tuple[int, ...] = ()
    step_decay: Annotated[float, Range(above=0, max=1)] = 0.05


class SDLoRA(BranchLearner):
    """Newest change, all magnitudes and head train."""

    config: SDLoRAConfig

    def __init__(self, config: SDLoRAConfig, context: Context) -> None:
        super().__init__(config, context)
        self.magnitudes = nn.Parameter(torch.empty(0, device=context.device))  # one per experience, for all blocks

    def open_branch(self) -> None:
        """Fresh factors; all magnitudes start again."""
        self.branches.open()
        self.magnitudes = nn.Parameter(self.magnitudes.new_full((len(self.branches),), self.config.magnitude))

    def begin_experience(self, experience: ExperienceView) -> None:
        """As every learner with branches; remembers whether it is the first experience."""
        self._later = self.head.classes > 0
        super().begin_experience(experience)

    def adapter(self, branches: Sequence[Branch]) -> Branches:
        """The newest as it is, those before as directions."""
        return Branches(branches, targets=self.targets, magnitudes=self.magnitudes, unit=True)

    def factor(self, place: Place) -> float:
        """Steps, on top of the schedule."""
        config = self.config
        passed = sum(place.epoch >= milestone for milestone in config.milestones)
        return super().factor(place) * config.step_decay**passed * (config.later_lr if self._later else 1.0)


_OFFICIAL: dict[str, object] = {"epochs": 20, "batch_size": 128, "lr": 0.008}
_IMAGENET_R: dict[str, object] = {**_OFFICIAL, "lr": 0.01}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``sd-lora``."""
    return [
        MethodSpec(
            name="sd-lora",
            build=SDLoRA,
            config=SDLoRAConfig,
            summary="SD-LoRA: a low-rank change per experience; those before stay as directions with learnt magnitudes",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "official": _OFFICIAL,
                "official-imagenet-r": _IMAGENET_R,
                "official-imagenet-a": {**_IMAGENET_R, "later_lr": 0.5, "milestones": (10, 15)},
                "official-domainnet": {
                    **_OFFICIAL,
                    "epochs": 10,
                    "lr": 0.02,
                    "milestones": (4, 6, 8),
                    "step_decay": 0.005,
                },
            },
            tracks={
                "nano": {"batch_size": 16, "epochs": 3, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule="nano, lr: results/search.py, best on held-out training images; mini: the published rate, fewer "
            "epochs, smaller batches, not searched",
            toy={"rank": 2},
            sources={
                "official": "WuYichen-97/SD-Lora-CL at 8bacded, exps/sdlora_c100.json, as models/sdlora.py reads it",
                "official-imagenet-r": "WuYichen-97/SD-Lora-CL at 8bacded, exps/sdlora_inr.json",
                "official-imagenet-a": "WuYichen-97/SD-Lora-CL at 8bacded, exps/sdlora_ina.json",
                "official-domainnet": "WuYichen-97/SD-Lora-CL at 8bacded, exps/sdlora_dom.json",
                "magnitude": "WuYichen-97/SD-Lora-CL at 8bacded, backbone/lora.py: ParameterWrapper",
                "rank": "WuYichen-97/SD-Lora-CL at 8bacded, models/sdlora.py",
                "step_decay": "WuYichen-97/SD-Lora-CL at 8bacded, exps/sdlora_ina.json",
            },
            paper="arXiv:2501.13198",
            reference="WuYichen-97/SD-Lora-CL@8bacded",
            published="sd-lora",
        )
    ]
