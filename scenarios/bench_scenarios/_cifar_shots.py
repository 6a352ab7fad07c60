"""CIFAR-100 from a few images per class, for the scenarios that transfer.

CIFAR-100 has no validation list; as in the fixed lists of CoOp's data sets, a tenth of the training images of each
class is one (`benchmark.splits.holdout`, seed 0), and the shots are drawn from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _cifar, _shots
from benchmark import splits
from benchmark.config import Range, check_ranges
from benchmark.samples import Samples
from benchmark.scenario import ScenarioRequest

POOL = 450  # images per class that the shots are drawn from


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotsConfig:
    """Options of the CIFAR-100 scenarios from few images.

    Attributes:
        shots: Training images per class, 1..450.
        test: Test images per class, the first of the file; 0 for all 100.
    """

    shots: int = 16
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks that there are images enough."""
        _shots.check_shots(self.shots, most=POOL)
        check_ranges(self)


def draw(config: ShotsConfig, request: ScenarioRequest) -> tuple[Samples, Samples, Samples, dict[str, str]]:
    """Training, validation and test images of all 100 classes, and notes; the seed draws the first two."""
    import torch

    whole, notes = _cifar.image_sets(_cifar.CIFAR100, request, {"train": 0, "test": config.test})
    train = whole["train"]
    kept, held = (torch.from_numpy(rows) for rows in splits.holdout(train.labels, 0.1, seed=0))
    shots, validation = _shots.sample(train.subset(kept), train.subset(held), config.shots, request.seed)
    return shots, validation, whole["test"], notes
