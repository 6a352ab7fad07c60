"""Steps that look for flat minima: the gradient of the worst point near the weights moves the weights.

Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021,
arXiv 2010.01412: with g the gradient of a loss at w, the step is that of the gradient at ``w + rho g / |g|``::

    slopes = self.stepper.slopes(self.task_loss(batch), parameters)
    with ascended(parameters, slopes, rho):
        loss = self.loss(batch)
        self.stepper.backward(optimizer, loss)
    self.stepper.whole(optimizer)
    self.stepper.step(optimizer)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

EPSILON = 1e-12  # beside the norm, as in the code of SAM, SDAT and SAR


@contextlib.contextmanager
def ascended(parameters: Sequence[Tensor], slopes: Sequence[Tensor | None], rho: float) -> Iterator[None]:
    """Inside, parameters are moved by ``rho`` along their gradient; behind, they are what they were, bit for bit.

    The gradient has one norm over all parameters. Gradients that are made inside stay.

    Args:
        parameters: What is moved.
        slopes: The gradient of each of them; None moves nothing.
        rho: Length of the move.
    """
    moved = [(parameter, slope) for parameter, slope in zip(parameters, slopes, strict=True) if slope is not None]
    kept = [parameter.detach().clone() for parameter, _ in moved]
    with torch.no_grad():
        if moved:
            norms = torch.stack([slope.norm() for _, slope in moved])
            scale = rho / (norms.norm() + EPSILON)
            for parameter, slope in moved:
                parameter.add_(slope * scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), before in zip(moved, kept, strict=True):
                parameter.copy_(before)
