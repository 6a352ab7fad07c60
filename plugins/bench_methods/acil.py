"""ACIL, G-ACIL and AIR: recursive ridge regression on random features of a frozen backbone.

Paper: Zhuang, Weng, Wei, Xie, Toh, Lin. ACIL: Analytic Class-Incremental Learning with Absolute Memorization and
Privacy Protection, NeurIPS 2022, arXiv 2205.14922; G-ACIL: arXiv 2403.15706; AIR: Fang et al., arXiv 2408.10349.
Official code: ZHUANGHP/Analytic-continual-learning at 0afd6bf. Inverse, solution and logits after the first batch and
after every task, and AIR's sums, equal theirs to 1e-9 in float64 (tests/unit/methods/test_closed_form_golden.py).
Written anew, no code taken.

The solution is that of all images at once, however they arrive: G-ACIL, where classes come mixed (``--set
stream=blurry``), is the same recursion. ``acil@air`` gives each class the same weight.

Differences from the official code:
- The backbone is frozen and pretrained. There a ResNet is trained on half of the classes first; here
  ``adaptation=finetune`` or a light module trains in the first experience (`_first_session`).
- No checkpoint is chosen on test data, as ``backbone.pth`` is there.
- C is the largest label met plus 1, as there: labels must be in order of appearance, which those of streams are.
- gamma is 0.1, as in the commands; the class's own default is 1e-3.

Nothing trains by gradients. Kept: R (M D), the inverse (M^2: 512 MB for M = 8192) and W (M C); AIR: M^2 C.
Expected: none is published for a frozen ViT; near RanPAC without its first session (89.0 on CIFAR-100, 10 tasks).
With ResNet-32 and half of CIFAR-100 trained first 63.38 (README). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from bench_methods._first_session import Adaptation, FirstSessionConfig, StreamingSession
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.recursive_ridge import RecursiveRidge, Weighting
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ACILConfig(FirstSessionConfig):
    """Options of ACIL; those of training matter where `adaptation` is not ``none``.

    Attributes:
        adaptation: What trains in the first experience; ``none``: nothing.
        projection: M, number of random features; 0 does without.
        gamma: Penalty on the squared weights.
        weighting: ``samples``, or ``classes``: each class has the same weight (AIR).
    """

    adaptation: Adaptation = "none"
    projection: Annotated[int, Range(min=0)] = 8192
    gamma: Annotated[float, Range(above=0, log=True, search=(1e-3, 1e3))] = 0.1
    weighting: Weighting = "samples"


class ACIL(StreamingSession):
    """A random matrix and a solution that every batch updates."""

    config: ACILConfig

    def __init__(self, config: ACILConfig, context: Context) -> None:
        super().__init__(config, context)
        self.ridge = RecursiveRidge(
            context.backbone.width, hidden=config.projection, ridge=config.gamma, weighting=config.weighting
        ).to(context.device)

    def absorb(self, features: Tensor, labels: Tensor) -> None:
        """Updates the solution, or the sums of each class."""
        self.ridge.add(features, labels)

    def settle(self) -> None:
        """With equal weights for classes the solution comes here."""
        self.ridge.settle()

    def predict(self, images: Tensor) -> Tensor:
        """Scores ``(B, largest label met + 1)`` for normalised images."""
        scores: Tensor = self.ridge(self.tuned(images))
        return scores


def uses(config: ACILConfig) -> frozenset[str]:
    """A first session must know where it ends; nothing else does."""
    return frozenset() if config.adaptation == "none" else frozenset({"boundaries"})


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``acil``."""
    return [
        MethodSpec(
            name="acil",
            build=ACIL,
            config=ACILConfig,
            summary="recursive ridge regression on random features; all images at once, however they come",
            display="ACIL",
            tokens=lambda config: config.adaptation not in ("none", "finetune"),
            uses=uses,
            recipes={
                "air": {"weighting": "classes", "projection": 2048},
                "adapter": {"adaptation": "adapter"},
                "finetune": {"adaptation": "finetune"},
            },
            default_recipe="frozen",
            tracks={"nano": {"projection": 1000}, "mini": {"projection": 2000}},
            rule="nano, gamma: results/search.py, best on held-out training images; projection: as ranpac's, so that "
            "they can be compared; mini: not searched",
            toy={"projection": 64, "bottleneck": 8},
            waits=1,  # which label is the largest: without boundaries it is not told how many classes there are
            sources={
                "projection": "ACIL at 0afd6bf, commands for CIFAR-100",
                "gamma": "ACIL at 0afd6bf, commands; the class's default is 1e-3",
                "frozen": "ACIL at 0afd6bf, base ratio 0 with a pretrained backbone",
                "air": "ACIL at 0afd6bf, analytic/AIR.py; M: adaptbench, it keeps M^2 numbers a class",
                "adapter": "adaptbench: first session as in RanPAC, instead of training a ResNet",
                "finetune": "adaptbench: first session of all weights, instead of training a ResNet",
            },
            paper="arXiv:2205.14922",
            reference="ZHUANGHP/Analytic-continual-learning@0afd6bf",
            published="acil",
        )
    ]
