"""Classes that no training image shows: which test images of an open set a closed classifier does not know.

A method that has no answer ``unknown`` of its own gives logits of the K trained classes. It is scored by the rule of
tim-learn/SHOT (``object/image_source.py``, ``cal_acc_oda``): 2-means, begun at 0 and 1, over the entropies of all test
images in units of ln K; an image whose entropy lies above the middle of the two centres is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5  # inside the logarithm, as there


@dataclass(frozen=True, slots=True)
class Unknown:
    """The label of what no training image shows.

    Attributes:
        label: Of every such test image; the number K of trained classes.
        sets: Test sets that have such images, by index.
    """

    label: int
    sets: tuple[int, ...]


def by_entropy(logits: Tensor) -> Tensor:
    """Which rows are unknown, bool ``(N,)``.

    The centres are moved until they stay, in float64; scikit-learn, as there, stops when they hardly move. With a
    single class every entropy is 0 and nothing is unknown.

    Args:
        logits: Of all test images, ``(N, K)``.
    """
    if logits.shape[1] < 2:
        return torch.zeros(len(logits), dtype=torch.bool)
    shares = logits.double().softmax(dim=1)
    entropies = -(shares * torch.log(shares + EPSILON)).sum(dim=1) / torch.tensor(logits.shape[1]).double().log()
    low, high = 0.0, 1.0
    while True:
        above = entropies > (low + high) / 2
        # A centre without images stays where it is.
        moved = tuple(
            float(part.mean()) if len(part := entropies[rows]) else centre
            for rows, centre in ((~above, low), (above, high))
        )
        if moved == (low, high):
            return above
        low, high = moved
