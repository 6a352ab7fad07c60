"""Loss terms of training steps as numbers: read at once on the CPU, and some steps at a time on a device.

To read a number the host waits until the device has computed everything before it, and the device then waits for the
host. The numbers and their sums are the same either way; a loss that is not finite is noticed some steps later, and
before a checkpoint is written.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from benchmark.guard import Guard

Losses = dict[str, float]
Terms: TypeAlias = "dict[str, float | Tensor]"
"""Loss terms of one step; those on the device are tensors of shape ``()`` that no one else holds."""

READ_EVERY = 50  # steps


def terms_of(found: object, guard: Guard, what: str, *, needs: str = "") -> Terms:
    """What a method returned as its losses.

    Args:
        found: A mapping of names to numbers or tensors of one element.
        guard: Of the method.
        what: Its function.
        needs: A term that must be among them.

    Raises:
        PluginError: They are something else.
    """
    hint = "return a mapping of names to numbers or tensors of one element, the total under `loss`"
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise guard.refuse(what, found, hint=hint)
    if needs and needs not in found:
        raise guard.refuse(f"{what} without `{needs}`", found, hint=hint)
    terms: Terms = {}
    for name, value in found.items():
        real = isinstance(value, numbers.Real) or (
            isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
        )
        if not real:
            raise guard.refuse(f"{what}: {name}", value, hint=hint)
        with guard(what):
            if isinstance(value, Tensor) and value.device.type not in ("cpu", "meta"):
                terms[name] = value.detach().reshape(()).clone()  # the method may change its own in place
            else:
                terms[name] = float(value.detach() if isinstance(value, Tensor) else value)
    return terms


def read(steps: list[Terms]) -> list[Losses]:
    """The numbers of some steps, by one copy from the device for each type of number."""
    waiting: dict[torch.dtype, list[Tensor]] = {}
    for terms in steps:
        for value in terms.values():
            if isinstance(value, Tensor):
                waiting.setdefault(value.dtype, []).append(value)
    numbers_of = {dtype: iter(torch.stack(values).cpu().tolist()) for dtype, values in waiting.items()}
    return [
        {name: float(next(numbers_of[v.dtype])) if isinstance(v, Tensor) else v for name, v in terms.items()}
        for terms in steps
    ]


class Tally:
    """Sums of the loss terms of one epoch, each step's times its samples.

    Args:
        sums: So far; changed as terms are read.
        judge: Is given the terms of each step and its number; raises where they are not finite.
    """

    def __init__(self, sums: Losses, judge: Callable[[Losses, int], None]) -> None:
        self.sums = sums
        self._judge = judge
        self._waiting: list[tuple[Terms, int, int]] = []

    def add(self, terms: Terms, weight: int, step: int) -> None:
        """Takes the terms of a step over ``weight`` samples."""
        self._waiting.append((terms, weight, step))
        if len(self._waiting) >= READ_EVERY or not any(isinstance(value, Tensor) for value in terms.values()):
            self.read()

    def read(self) -> Losses:
        """Reads what waits on the device; returns the sums."""
        waiting, self._waiting = self._waiting, []
        for losses, (_, weight, step) in zip(read([terms for terms, _, _ in waiting]), waiting, strict=True):
            self._judge(losses, step)
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * weight
        return self.sums
