"""Linear heads that grow with the classes seen, and masks over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

HeadInit = Literal["trunc_normal", "zeros", "torch", "vpt", "small", "kaiming"]
HeadNorm = Literal["batch", "layer"]

# KMnP/vpt, src/models/mlp.py: the bias at which a sigmoid gives 0.01.
VPT_BIAS = -math.log(99.0)


class ClassHead(nn.Module):
    """``logits = W f + b`` with one row per class; new rows are added as classes come.

    A state dict of another size can be loaded: the head takes its size.

    Args:
        width: Feature width D.
        classes: Rows at the start.
        init: How new rows are drawn. ``trunc_normal``: standard deviation 0.02, bias 0.
            ``zeros``. ``torch``: as `torch.nn.Linear`. ``vpt``: Kaiming normal by fan-out, bias -4.59512. ``small``:
            standard deviation 0.001, bias 0. ``kaiming``: Kaiming uniform by fan-in with gain 1, bias 0.
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
        elif self.init == "small":
            weight.normal_(std=0.001)
        elif self.init == "kaiming":
            bound = math.sqrt(3 / self.width)
            weight.uniform_(-bound, bound)
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


class CosineHead(nn.Module):
    """``logits = sigma * cos(f, w_c)`` with one row per class and one learnable scale; grows as `ClassHead` does.

    As in RanPAC/RanPAC (012927f) and LAMDA-PILOT (5240714): rows are uniform in ``1 / sqrt(D)``, sigma starts at 1,
    the norm in the cosine is at least 1e-12.

    Args:
        width: Feature width D.
        classes: Rows at the start.
    """

    def __init__(self, width: int, classes: int = 0) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(0, width))
        self.sigma = nn.Parameter(torch.ones(1))
        self.grow(classes)

    @property
    def classes(self) -> int:
        """Number of rows."""
        return len(self.weight)

    def grow(self, classes: int) -> bool:
        """Adds rows up to ``classes``, as `ClassHead.grow`."""
        if classes <= self.classes:
            return False
        bound = 1 / math.sqrt(self.width)
        fresh = self.weight.new_empty(classes - self.classes, self.width).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), fresh]))
        return True

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits ``(B, C)`` for features ``(B, D)``."""
        rows = nn.functional.normalize(self.weight, dim=1)
        return self.sigma * nn.functional.linear(nn.functional.normalize(features, dim=1), rows)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}weight")
        if isinstance(stored, Tensor) and len(stored) != self.classes:
            self.weight = nn.Parameter(self.weight.new_empty(len(stored), self.width))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class MLPHead(nn.Module):
    """Hidden layers ``dropout(norm(relu(W f + b)))`` of the feature's width, then a growing `ClassHead`.

    The order, the norm behind the non-linearity, is that of KMnP/vpt at 4410440, ``src/models/mlp.py``; hidden
    weights are drawn as there (Kaiming normal by fan-out), hidden biases as `torch.nn.Linear` does. A training batch
    of one image has no variance: BatchNorm then uses its running statistics and leaves them as they are.

    Args:
        width: Feature width D, also that of the hidden layers.
        hidden: Number of hidden layers; 0 is a linear head.
        norm: ``batch`` (BatchNorm1d, the official one) or ``layer``.
        dropout: Rate behind each hidden layer.
        init: How rows of the last layer are drawn.
    """

    norms_frozen: Tensor

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        norm: HeadNorm = "batch",
        dropout: float = 0.1,
        init: HeadInit = "trunc_normal",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            linear = nn.Linear(width, width)
            nn.init.kaiming_normal_(linear.weight, a=0, mode="fan_out")
            normed = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
            layers += [linear, nn.ReLU(), normed, nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.last = ClassHead(width, init=init)
        self.register_buffer("norms_frozen", torch.tensor(False))

    @property
    def classes(self) -> int:
        """Number of rows of the last layer."""
        return self.last.classes

    def grow(self, classes: int) -> bool:
        """Adds rows to the last layer, as `ClassHead.grow`."""
        return self.last.grow(classes)

    def freeze_norms(self) -> None:
        """Makes every BatchNorm a fixed affine map: statistics, scale and shift stay. Kept in the state dict."""
        self.norms_frozen.fill_(True)
        self.restore_frozen()

    def restore_frozen(self) -> None:
        """After a state dict was loaded: freezes what it says is frozen. Call it before the optimiser is made."""
        for layer in self.hidden:
            if isinstance(layer, nn.BatchNorm1d):
                layer.requires_grad_(not self.norms_frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> MLPHead:
        """Sets the mode; a frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.norms_frozen:
            for layer in self.hidden:
                if isinstance(layer, nn.BatchNorm1d):
                    layer.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits ``(B, C)`` for features ``(B, D)``."""
        for layer in self.hidden:
            if isinstance(layer, nn.BatchNorm1d) and len(features) == 1:
                features = nn.functional.batch_norm(
                    features, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
                )
            else:
                features = layer(features)
        logits: Tensor = self.last(features)
        return logits


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
    stay = torch.as_tensor(allowed, dtype=torch.int64).to(logits.device, non_blocking=True)
    blocked.index_fill_(0, stay, False)
    return logits.masked_fill(blocked, -math.inf)
