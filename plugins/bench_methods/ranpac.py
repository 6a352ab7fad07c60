"""RanPAC: random projections of frozen features and a ridge classifier in closed form.

Paper: McDonnell, Gong, Parvaneh, Abbasnejad, van den Hengel. RanPAC: Random Projections and Pre-trained Models for
Continual Learning, NeurIPS 2023, arXiv 2307.02251.
Official code: RanPAC/RanPAC at 012927f; another one: LAMDA-CL/LAMDA-PILOT at 5240714. Sums, ridge parameter, solution
and logits, and three steps of the first session with each module, equal theirs to 1e-9 in float64
(tests/unit/methods/test_ranpac_golden.py). Written anew, no code taken.

Phase 1 trains a light module with a cosine head in the first experience; phase 2 sums ``H^T H`` and ``H^T Y`` over
``H = relu(F R)`` of every experience and solves, with a ridge parameter chosen on the last fifth of its images.

Differences from the official code:
- Sums and solutions are float64, and the search for the ridge parameter takes one eigendecomposition; official: float32
  and 17 LU decompositions, ``ranpac@official``. Where the parameter is well determined both give the same.
- Q has a column per class seen; official code has all C from the start. Columns of unseen classes are zero.
- R is drawn before phase 1, with the method; official code draws it afterwards.
- An experience of one image leaves the ridge parameter as it was (at first 1).
- Modules and checkpoints differ by data set in the paper (adapter: CIFAR-100, CUB; ssf: ImageNet-R, ImageNet-A, VTAB;
  vpt: OmniBenchmark, Cars); pick the recipe. Class order is the scenario's.
- LAMDA-PILOT scores the ridge solution with cosines, ``ranpac@pilot``: another classifier.

Trainable in phase 1 (ViT-B/16, adapter): 12 (2 * 768 * 64 + 64 + 768) = 1,189,632, and the head. Kept: R (D M),
``H^T H`` (M^2: 800 MB in float64 for M = 10,000) and ``H^T Y`` (M C).
Expected (ViT-B/16 augreg_in21k, CIFAR-100, 10 tasks): 92.2; no projection 90.6, no phase 1 89.0, neither 87.0
(``paper_tables/``; within 1 % over seeds and orders). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from bench_methods._first_session import FirstSession, FirstSessionConfig
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.ridge import RidgeHead, Scoring, Solver
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RanPACConfig(FirstSessionConfig):
    """Options of RanPAC.

    Attributes:
        projection: M, number of random features; 0 does without.
        scoring: ``linear``, or ``cosine`` of random features and ridge solution.
        solver: ``double``: float64. ``lu``: the official arithmetic (`benchmark.backbones.ridge.RidgeHead`).
    """

    projection: Annotated[int, Range(min=0)] = 10_000
    scoring: Scoring = "linear"
    solver: Solver = "double"


class RanPAC(FirstSession):
    """The first session's module, a random matrix, and sums."""

    config: RanPACConfig

    def __init__(self, config: RanPACConfig, context: Context) -> None:
        super().__init__(config, context)
        width = context.backbone.width
        self.ridge = RidgeHead(width, projection=config.projection, solver=config.solver, scoring=config.scoring).to(
            context.device
        )

    def features(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of the adapted model."""
        return self.tuned(images)

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Adds to the sums and solves."""
        self.ridge.add(features, labels, classes)

    def predict(self, images: Tensor) -> Tensor:
        """Scores ``(B, classes seen)`` for normalised images."""
        scores: Tensor = self.ridge(self.tuned(images))
        return scores


OFFICIAL: dict[str, object] = {
    "adaptation": "adapter",
    "epochs": 20,
    "batch_size": 48,
    "lr": 0.01,
    "projection": 10_000,
    "scoring": "linear",
    "solver": "lu",
    "normalize": "zero_one",
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``ranpac``."""
    return [
        MethodSpec(
            name="ranpac",
            build=RanPAC,
            config=RanPACConfig,
            summary="random projection and closed-form ridge head, after adaptation in the first experience",
            tokens=lambda config: config.adaptation not in ("none", "finetune"),
            uses=frozenset({"boundaries"}),
            recipes={
                "official": OFFICIAL,
                "no-phase1": {"adaptation": "none"},
                "no-projection": {"projection": 0},
                "no-phase1-no-projection": {"adaptation": "none", "projection": 0},
                "ssf": {"adaptation": "ssf"},
                "vpt": {"adaptation": "vpt-deep"},
                "pilot": {**OFFICIAL, "scoring": "cosine"},
            },
            default_recipe="double",
            tracks={
                "nano": {"batch_size": 16, "epochs": 3, "lr": 0.01, "projection": 1000},
                "mini": {"batch_size": 16, "epochs": 3, "lr": 0.3, "projection": 2000},
            },
            rule="lr: results/search.py, best on held-out training images",
            toy={"projection": 64, "bottleneck": 8},
            sources={
                "epochs": "RanPAC at 012927f, args/*_publish.csv, experiment 7",
                "lr": "RanPAC at 012927f, args/*_publish.csv: with momentum 0.9, weight decay 5e-4, batch 48",
                "projection": "RanPAC at 012927f, args/*_publish.csv; 5,000 on CDDB",
                "double": "adaptbench: official arithmetic in float64",
                "official": "RanPAC at 012927f, experiment 7 on CIFAR-100 and CUB",
                "no-phase1": "RanPAC at 012927f, experiment 4",
                "no-projection": "RanPAC at 012927f, experiment 6",
                "no-phase1-no-projection": "RanPAC at 012927f, experiment 3",
                "ssf": "RanPAC at 012927f, args/*_publish.csv: ImageNet-R, ImageNet-A, VTAB",
                "vpt": "RanPAC at 012927f, args/*_publish.csv: OmniBenchmark, Cars",
                "pilot": "LAMDA-PILOT models/ranpac.py and backbone/linears.py at 5240714",
            },
            paper="arXiv:2307.02251",
            reference="RanPAC/RanPAC@012927f",
            published="ranpac",
        )
    ]
