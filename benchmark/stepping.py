"""How an optimiser goes down a loss: the one place where gradients are made and steps are taken.

`benchmark.api.Method.descend` uses it, and so does whoever needs something between gradient and step::

    stepper = self.stepper
    stepper.backward(optimizer, loss)
    if stepper.whole(optimizer):  # else more parts of the batch follow
        stepper.step(optimizer)

A method that steps this way needs to know nothing of what a run was asked for: losses that are scaled because
gradients of half precision vanish (``engine.precision=fp16``), batches in parts whose gradients are added
(``engine.micro_batch``), parts of a batch in other processes (``torchrun``). The engine says which by `Stepper.part`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Gather = Callable[[Sequence[Tensor]], None]
"""Adds the gradients of parameters over all processes."""


class Stepper:
    """Makes gradients and takes steps for one method.

    Args:
        scaler: Scales losses of half precision; None: nothing is scaled.
        gather: Where a batch is shared among processes; None: there is one.
        mixed: Kind of device where losses are computed in mixed precision; None: they are not.
        measured: Gradients are made and left where they are, and no step is taken.

    Attributes:
        descents: How often gradients were made since `part`.
        stepped: Whether a step was begun since `part`.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler | None = None,
        gather: Gather | None = None,
        *,
        mixed: str | None = None,
        measured: bool = False,
    ) -> None:
        self._scaler = scaler
        self._mixed = mixed
        self._gather = gather
        self._measured = measured
        self.part()

    def part(self, weight: float = 1.0, *, first: bool = True, last: bool = True) -> None:
        """Says what the next loss is of.

        Args:
            weight: Share of the part in the loss of its batch.
            first: Whether gradients begin with it.
            last: Whether the batch is complete in this process with it.
        """
        self._weight, self._first, self._last = weight, first, last
        self.descents = 0
        self.stepped = False

    @property
    def scales(self) -> bool:
        """Whether losses are scaled."""
        return self._scaler is not None

    def backward(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Makes the gradients of a loss, or adds them to those of the parts before it.

        Args:
            optimizer: Of what trains.
            loss: A scalar, the mean over the samples at hand.
        """
        self.descents += 1
        if self._first:
            optimizer.zero_grad(set_to_none=True)
        if self._weight != 1.0:
            loss = loss * self._weight
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        # Each gradient has the precision of what it is of.
        with contextlib.nullcontext() if self._mixed is None else torch.autocast(self._mixed, enabled=False):
            loss.backward()

    def slopes(self, loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """Gradients of a loss, in its own units, that no optimiser sees; None of what the loss does not depend on.

        Only of the samples at hand: a method that asks says in `benchmark.api.Method.coupled` why its batches cannot be
        split.

        Args:
            loss: A scalar.
            parameters: Of what.
        """
        self.descents += 1
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        with contextlib.nullcontext() if self._mixed is None else torch.autocast(self._mixed, enabled=False):
            found = torch.autograd.grad(loss * scale if scale != 1.0 else loss, list(parameters), allow_unused=True)
        return [slope if slope is None or scale == 1.0 else slope / scale for slope in found]

    def whole(self, optimizer: torch.optim.Optimizer, also: Sequence[Tensor] = ()) -> bool:
        """Whether gradients are those of the whole batch; then they are complete and not scaled any more.

        Args:
            optimizer: Of what trains.
            also: Further tensors whose gradients are looked at, e.g. in a norm.
        """
        if not self._last:
            return False
        if self._gather is not None:
            self._gather([parameter for group in optimizer.param_groups for parameter in group["params"]])
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
            scale = self._scaler.get_scale()
            known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            for tensor in also:
                if tensor.grad is not None and id(tensor) not in known:
                    tensor.grad.div_(scale)
        return True

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step; a scaled loss whose gradients overflowed makes none, and the next is scaled less."""
        self.stepped = True
        if self._measured:
            return
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def descend(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, *, still: Sequence[nn.Module] = (), clip: float = 0.0
    ) -> None:
        """All of it, as `benchmark.api.Method.descend` has it."""
        self.backward(optimizer, loss)
        if not self.whole(optimizer):
            return
        for module in still:
            module.zero_grad(set_to_none=True)  # an optimiser passes over what has no gradient, decay included
        if clip:
            moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(moved, clip)
        self.step(optimizer)

    def state(self) -> Mapping[str, Any]:
        """For a checkpoint: the scale of losses."""
        return {} if self._scaler is None else dict(self._scaler.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(dict(state))

    def __deepcopy__(self, memo: Any) -> Stepper:
        """That of a twin, which is tried out alone: no part, no other process, nothing scaled."""
        return Stepper(mixed=self._mixed, measured=self._measured)
