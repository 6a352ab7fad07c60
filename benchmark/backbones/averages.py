"""Moving averages of parameters: teachers of methods that learn from what they were."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def twin_of(module: Module) -> Module:
    """A copy that asks for no gradient: a teacher, or what a module was at the start."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """``teacher <- decay teacher + (1 - decay) student`` for every parameter; buffers stay.

    Args:
        teacher: A copy of the student (`twin_of`).
        student: Moves.
        decay: Between 0 and 1. From the first call on: a teacher begins as what the student was.
    """
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.mul_(decay).add_(fast.detach(), alpha=1 - decay)
