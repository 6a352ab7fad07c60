"""Few-shot training sets by the rule of CoOp, for any data set.

Sampling: `benchmark.splits.few_shot`, one ``random.Random(seed)`` per run, first the training list, then the
validation list with ``min(shots, 4)`` images per class (KaiyangZhou/CoOp ``datasets/*.py``, Dassl
``generate_fewshot_dataset``). Classes are cut into halves after sampling, as CoCoOp does.
"""

from __future__ import annotations

import math
import random

from benchmark import splits
from benchmark.samples import Samples

SHOTS = (1, 2, 4, 8, 16)
VALIDATION_SHOTS = 4


def check_shots(shots: int, most: int = 10_000) -> None:
    """Checks a number of shots.

    Raises:
        ValueError: It is not in 1..``most``.
    """
    if not 1 <= shots <= most:
        raise ValueError(f"shots: {shots} is out of range; use 1..{most}, published are {', '.join(map(str, SHOTS))}")


def sample(train: Samples, validation: Samples, shots: int, seed: int) -> tuple[Samples, Samples]:
    """Draws the training and the validation images of a run.

    Args:
        train: Images to draw from, in their canonical order.
        validation: Images for model selection, no image of ``train`` among them.
        shots: Images per class.
        seed: Seed of the run.
    """
    import torch

    generator = random.Random(seed)
    kept = splits.few_shot(train.labels, shots, generator)
    held = splits.few_shot(validation.labels, min(shots, VALIDATION_SHOTS), generator)
    return train.subset(torch.from_numpy(kept)), validation.subset(torch.from_numpy(held))


def base_classes(num_classes: int) -> tuple[int, ...]:
    """The first half of the classes, rounded up."""
    return tuple(range(math.ceil(num_classes / 2)))


def only(images: Samples, first: int, last: int) -> Samples:
    """The images with labels ``first`` to ``last`` - 1."""
    inside = (images.labels >= first) & (images.labels < last)
    return images.subset(inside.nonzero().flatten())
