"""One run in several processes, started by ``torchrun``: each takes its part of every batch.

Nothing but gradients and loss terms is exchanged. Every process builds the same method from the same seeds, reads the
same batches and evaluates the same test sets; the first alone writes records, checkpoints and plugins' files. Gradients
are added with `torch.distributed.all_reduce` (what DistributedDataParallel does too; it wants one forward of one module
per step, which is not what methods have).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from benchmark.api import Method
from benchmark.errors import UsageError
from benchmark.run import machine

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        number: Of this one, from 0.
        count: How many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.number == 0

    def all(self, values: Sequence[Value]) -> list[Value]:
        """What all processes have, in their order."""
        if self.count == 1:
            return list(values)
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, list(values))
        return [value for some in found for value in some]

    def told(self, value: Value) -> Value:
        """What the first process has."""
        return self.all([value])[0]

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them."""
        return any(self.all([flag]))

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    def add(self, parameters: Sequence[Tensor]) -> None:
        """Adds gradients over all processes; what has one in some of them gets one in all."""
        if self.count == 1 or not parameters:
            return
        device = parameters[0].device
        there = torch.tensor([parameter.grad is not None for parameter in parameters], device=device).to(torch.int32)
        distributed.all_reduce(there, op=distributed.ReduceOp.MAX)
        moved = [parameter for parameter, has in zip(parameters, there.tolist(), strict=True) if has]
        for parameter in moved:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in moved if parameter.grad is not None]
        for some in _buckets(grads):
            flat = torch.cat([grad.flatten() for grad in some])
            distributed.all_reduce(flat)
            for grad, whole in zip(some, flat.split([grad.numel() for grad in some]), strict=True):
                grad.copy_(whole.view_as(grad))

    def share(self, method: Method) -> None:
        """Gives every process the weights and buffers of the first: devices may differ in their last bits."""
        if self.count == 1:
            return
        pretrained = method.context.pretrained.module
        trained = [parameter for parameter in pretrained.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for tensor in [*method.parameters(), *method.buffers(), *trained]:
                distributed.broadcast(tensor.data, src=0)

    @contextlib.contextmanager
    def folder(self, out: Path) -> Iterator[Path]:
        """Where this process writes: the results folder, or one that nobody reads."""
        if self.first:
            yield out
            return
        with tempfile.TemporaryDirectory(prefix="bench-rank-") as name:
            yield Path(name)

    def copied(self, work: Path, own: Path) -> None:
        """Gives every process the checkpoints that the first one found."""
        if self.count == 1:
            return
        self.wait()  # until the first has taken the lock and thrown away what is not wanted
        if not self.first and work.exists():
            shutil.copytree(work, own, dirs_exist_ok=True)
        self.wait()


def _buckets(grads: Sequence[Tensor], most: int = 2**23) -> Iterator[list[Tensor]]:
    """Gradients of one type in groups of so many numbers: one exchange for each."""
    for dtype in dict.fromkeys(grad.dtype for grad in grads):
        some: list[Tensor] = []
        for grad in grads:
            if grad.dtype == dtype:
                some.append(grad)
                if sum(one.numel() for one in some) >= most:
                    yield some
                    some = []
        if some:
            yield some


def device_of(name: str) -> str:
    """The device of this process: each takes a GPU of its own."""
    if machine.processes() == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextlib.contextmanager
def joined(name: str) -> Iterator[Ranks]:
    """Connects the processes of a run while it is done.

    Args:
        name: Its device.

    Raises:
        UsageError: There are fewer GPUs than processes.
    """
    count = machine.processes()
    if count == 1:
        yield Ranks()
        return
    where = torch.device(device_of(name))
    if where.type == "cuda":
        if (where.index or 0) >= torch.cuda.device_count():
            raise UsageError(
                f"torchrun: {where} of {torch.cuda.device_count()} GPUs",
                hint="start as many processes as there are GPUs",
            )
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
