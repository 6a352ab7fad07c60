"""Normalisation layers at test time: whose statistics BatchNorm uses, and which scales and shifts adapt.

In eval mode BatchNorm uses the running statistics of training; adaptation to a test batch puts those of the batch in
their place, in whole or in part, only while a context of `batch_statistics` is open: nothing of the model changes, and
its running statistics stay. A channel with a single value (one image, one place) has no variance: it uses the running
statistics in any case.

Sources: Nado et al., arXiv 2006.10963; Schneider et al., NeurIPS 2020, arXiv 2006.16971; DequanWang/tent at e9e926a6
(``tent.py``, ``norm.py``); mariodoebler/test-time-adaptation at 8b2ed632 (``methods/bn.py``).

Shapes: B images, K channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Kind = Literal["batch", "layer", "group"]
KINDS: dict[Kind, tuple[type[nn.Module], ...]] = {
    "batch": (_BatchNorm,),
    "layer": (nn.LayerNorm,),
    "group": (nn.GroupNorm,),
}


def norms(model: nn.Module, kinds: Sequence[Kind] = ("batch", "layer", "group")) -> dict[str, nn.Module]:
    """The normalisation layers of a model by their names, in order."""
    wanted = tuple(kind for name in kinds for kind in KINDS[name])
    return {name: part for name, part in model.named_modules() if isinstance(part, wanted)}


def affine_parameters(
    model: nn.Module, kinds: Sequence[Kind] = ("batch", "layer", "group"), *, without: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Scales and shifts of normalisation layers by their names, in order.

    Args:
        model: Any.
        kinds: Of layers.
        without: Names of layers that are left out.
    """
    return {
        f"{name}.{part}": parameter
        for name, norm in norms(model, kinds).items()
        if name not in without
        for part, parameter in norm.named_parameters(recurse=False)
        if part in ("weight", "bias")
    }


@contextlib.contextmanager
def batch_statistics(model: nn.Module, *, share: float = 1.0, moves: bool = False) -> Iterator[None]:
    """Inside, every BatchNorm normalises by statistics of its batch.

    Args:
        model: Any.
        share: Of the batch; what is left is the running statistics' (``alpha``). At 1 the variance is the biased one,
            as in training; below it is unbiased, as in ``AlphaBatchNorm`` of the source above.
        moves: Whether the running statistics move as in training, though they are not used.
    """
    found = [norm for norm in norms(model, ("batch",)).values() if isinstance(norm, _BatchNorm)]
    for norm in found:
        norm.forward = partial(_normalised, norm, share=share, moves=moves)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in found:
            del norm.forward


def _normalised(norm: _BatchNorm, values: Tensor, *, share: float, moves: bool) -> Tensor:
    """BatchNorm of a batch ``(B, K, ...)`` by its own statistics."""
    mean, variance = norm.running_mean, norm.running_var
    if values.numel() == values.shape[1]:
        return F.batch_norm(values, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
    if share == 1:
        momentum = 0.0 if norm.momentum is None else norm.momentum
        kept = (mean, variance) if moves else (None, None)
        return F.batch_norm(values, *kept, norm.weight, norm.bias, True, momentum, norm.eps)
    if mean is None or variance is None:
        raise RuntimeError("a BatchNorm that keeps no running statistics has nothing to mix those of a batch with")
    rest = [0, *range(2, values.ndim)]
    own_variance, own_mean = torch.var_mean(values.detach(), dim=rest, unbiased=True)
    mixed = (1 - share) * mean + share * own_mean, (1 - share) * variance + share * own_variance
    return F.batch_norm(values, *mixed, norm.weight, norm.bias, False, 0.0, norm.eps)
