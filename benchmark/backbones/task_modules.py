"""Modules that a method has once per experience: opened, frozen, copied, averaged, merged, chosen.

A set is any module, most often the adapters of all blocks::

    sets = TaskModules(lambda: nn.ModuleList(AdaptFormer(width, 64) for _ in vit.blocks))
    sets.open()                                    # begin_experience: those before are frozen from now on
    tokens = run_blocks(vit, embed(vit, images), adapters=sets.current, read=CLS)
    features = [run_blocks(..., adapters=one, ...) for one in sets]              # all that were kept
    sets.open(like=sets.current)                   # goes on from the last one instead of a fresh one
    blend(sets.current, average(list(sets)[:-1]), 0.1)                           # merged, in place

A checkpoint with more sets than there are can be loaded: as many are made as it has, frozen until one is opened.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TaskModules(nn.Module):
    """A list of modules of one kind, one more per experience; the last one may train.

    Args:
        make: Makes a fresh one, on the CPU; random numbers come from torch's global generator.
    """

    place: Tensor

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self.kept = nn.ModuleList()
        # Where new ones go, and in which precision: it moves with the method, even while the list is empty.
        self.register_buffer("place", torch.empty(0), persistent=False)

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.kept)

    def __getitem__(self, index: int) -> Any:
        return self.kept[index]

    @property
    def current(self) -> Any:
        """The last one.

        Raises:
            IndexError: None was opened.
        """
        if not len(self.kept):
            raise IndexError("no set was opened yet: call `open` in `begin_experience`")
        return self.kept[-1]

    def open(self, *, like: nn.Module | None = None) -> Any:
        """Freezes all that are there and adds one that trains; make the optimiser afterwards.

        Args:
            like: Start from a copy of it; default: a fresh one.

        Returns:
            The new one.
        """
        self.kept.requires_grad_(False)
        made = self._make() if like is None else copy.deepcopy(like)
        self.kept.append(made.to(self.place).requires_grad_(True))
        return made

    def keep(self, module: nn.Module) -> None:
        """Adds a frozen copy of a module that is trained elsewhere."""
        self.kept.append(copy.deepcopy(module).requires_grad_(False))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = f"{prefix}kept."
        numbers = [int(key[len(stored) :].split(".", 1)[0]) for key in state_dict if key.startswith(stored)]
        with torch.random.fork_rng(devices=[]):  # their values are in the state: nothing is to be drawn for them
            while len(self.kept) <= max(numbers, default=-1):
                self.kept.append(self._make().to(self.place).requires_grad_(False))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def average(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The mean of each parameter over modules of one kind, by its name, without gradient.

    Raises:
        ValueError: There is none.
    """
    if not modules:
        raise ValueError("the average of no module is not defined")
    each = [dict(module.named_parameters()) for module in modules]
    return {name: torch.stack([one[name].detach() for one in each]).mean(dim=0) for name in each[0]}


def blend(module: nn.Module, other: nn.Module | Mapping[str, Tensor], share: float) -> None:
    """Moves every parameter towards another one, in place: ``p <- (1 - share) p + share q``.

    With ``share = 1 - decay`` it is one step of a moving average.

    Args:
        module: What is changed.
        other: A module of its kind, or tensors by the names of its parameters.
        share: Between 0, nothing changes, and 1.
    """
    wanted = dict(other.named_parameters()) if isinstance(other, nn.Module) else other
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.mul_(1 - share).add_(wanted[name], alpha=share)
