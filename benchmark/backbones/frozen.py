"""Features of frozen networks, computed once: whoever asks for those of samples that were met before is given them.

A function of a network and inputs says that it may be answered so::

    @frozen
    def middle_tokens(vit, images):                      # (B, 3, S, S) -> (B, D)
        return vit.forward_intermediates(images, indices=[5], intermediates_only=True)[0].mean((2, 3))

    features = middle_tokens(self.backbone, batch.images)

`benchmark.backbones.prompted_vit.cls_feature` and `DualEncoder.image_features` are such functions. A run knows the
inputs that it hands out as at test time, and which samples they are; asked about just these, of a network in eval mode
in which nothing trains, it answers with what it has kept (`benchmark.run.keeper`). Everything else is computed as if
nothing were there: other inputs, also changed ones, a network that trains or is in train mode, one with hooks.

What is kept belongs to the function, and to structure and weights of the network. So such a function must be a plain
one of a module, its values must follow from these two arguments alone, row by row, and it must change neither.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Network = TypeVar("Network", bound="nn.Module")


class Keeper(Protocol):
    """Who knows features."""

    def __call__(self, function: Callable[[Any, Any], Tensor], network: nn.Module, inputs: Any, /) -> Tensor | None:
        """Features ``(B, d)`` of B inputs, what ``function`` makes of them; None where they must be computed."""


_KEEPER: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


def frozen(function: Callable[[Network, Any], Tensor]) -> Callable[[Network, Any], Tensor]:
    """Marks a function of a network and B inputs, whose values ``(B, d)`` may be kept.

    Args:
        function: Of a module, neither nested nor a method.

    Raises:
        TypeError: It is something else.
    """
    if function.__qualname__ != function.__name__ or function.__name__ == "<lambda>":
        raise TypeError(f"{function.__qualname__} is no plain function of a module: nothing can be kept under its name")

    @functools.wraps(function)
    def answered(network: Network, inputs: Any) -> Tensor:
        kept = known(answered, network, inputs)
        return function(network, inputs) if kept is None else kept

    return answered


def known(function: Callable[[Any, Any], Tensor], network: nn.Module, inputs: Any) -> Tensor | None:
    """Features that are known already, for who would compute them in another way than ``function`` does.

    Args:
        function: Marked by `frozen`.
        network: In eval mode.
        inputs: B of them.

    Returns:
        ``(B, d)``, or None.
    """
    keeper = _KEEPER.get()
    return None if keeper is None else keeper(function, network, inputs)


@contextlib.contextmanager
def asking(keeper: Keeper | None) -> Iterator[None]:
    """Inside, functions marked by `frozen` ask ``keeper`` first, or nobody."""
    token = _KEEPER.set(keeper)
    try:
        yield
    finally:
        _KEEPER.reset(token)


def still(network: nn.Module) -> tuple[int, ...] | None:
    """Whether a network gives the same features as long as nobody changes it.

    Asked in every step, so it goes through the modules once.

    Returns:
        None where something trains, draws or listens; else numbers of which one changes when a module or a tensor is
        replaced, or a tensor changed in place.
    """
    found = []
    for module in network.modules():
        if module.training or module._forward_hooks or module._forward_pre_hooks:
            return None
        found.append(id(module))
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None:
                continue
            if tensor.requires_grad:
                return None
            found += (id(tensor), tensor._version)
    return tuple(found)
