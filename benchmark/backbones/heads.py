"""Linear heads that grow with the classes seen, and masks over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

HeadInit = Literal["trunc_normal", "zeros", "torch", "vpt"]

# KMnP/vpt, src/models/mlp.py: the bias at which a sigmoid gives 0.01.
VPT_BIAS = -math.log(99.0)


class ClassHead(nn.Module):
    """``logits = W f + b`` with one row per class; new rows are added as classes come.

    A state dict of another size can be loaded: the head takes its size.

    Args:
        width: Feature width D.
        classes: Rows at the start.
        init: How new rows are drawn. ``trunc_normal``: standard deviation 0.02, bias 0.
            ``zeros``. ``torch``: as `torch.nn.Linear`. ``vpt``: Kaiming normal by fan-out, bias -4.59512.
    """

    def __init__(self, width: int, classes: int = 0, *, init: HeadInit = "trunc_normal") -> None:
        super().__init__()
        self.width = width
        self.init = init
        self.weight = nn.Parameter(torch.empty(0, width))
        self.bias = nn.Parameter(torch.empty(0))
        self.grow(classes)

    @property
    def classes(self) -> int:
        """Number of rows."""
        return len(self.weight)

    def grow(self, classes: int) -> bool:
        """Adds rows up to ``classes``; old rows keep their values.

        The parameters are new objects afterwards: make the optimiser after growing.

        Returns:
            Whether anything changed.
        """
        if classes <= self.classes:
            return False
        weight = self.weight.new_empty(classes, self.width)
        bias = self.bias.new_empty(classes)
        with torch.no_grad():
            self._draw(weight[self.classes :], bias[self.classes :], classes)
            weight[: self.classes] = self.weight
            bias[: self.classes] = self.bias
        self._take(weight, bias)
        return True

    def _draw(self, weight: Tensor, bias: Tensor, classes: int) -> None:
        bias.zero_()
        if self.init == "zeros":
            weight.zero_()
        elif self.init == "trunc_normal":
            nn.init.trunc_normal_(weight, std=0.02)
        elif self.init == "torch":
            bound = 1 / math.sqrt(self.width)
            weight.uniform_(-bound, bound)
            bias.uniform_(-bound, bound)
        else:
            weight.normal_(std=math.sqrt(2 / classes))
            bias.fill_(VPT_BIAS)

    def _take(self, weight: Tensor, bias: Tensor) -> None:
        trains = self.weight.requires_grad
        self.weight = nn.Parameter(weight, requires_grad=trains)
        self.bias = nn.Parameter(bias, requires_grad=trains)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits ``(B, C)`` for features ``(B, D)``."""
        return nn.functional.linear(features, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}weight")
        if isinstance(stored, Tensor) and stored.dim() == 2 and len(stored) != self.classes:
            self._take(self.weight.new_empty(len(stored), self.width), self.bias.new_empty(len(stored)))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def mask_logits(logits: Tensor, allowed: Sequence[int] | Tensor | None) -> Tensor:
    """Sets the logits of all other classes to -inf, in a new tensor.

    Use integer labels with it: one-hot labels times -inf give NaN.

    Args:
        logits: ``(B, C)``.
        allowed: Labels that stay; None returns the logits as they are.
    """
    if allowed is None:
        return logits
    blocked = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    blocked[torch.as_tensor(allowed, dtype=torch.int64, device=logits.device)] = False
    return logits.masked_fill(blocked, -math.inf)
