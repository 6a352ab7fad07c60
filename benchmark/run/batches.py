"""How one batch is trained on: at once, or in parts whose gradients are added.

A batch is the weighted sum of its parts: those of ``engine.micro_batch`` one after the other, those of several
processes (`benchmark.run.ranks`) at the same time. Each part draws from random streams of its own, derived from its
place, so that two processes with one part each train as one process with two, and a resumed run as one that was not
stopped.

Only a loss that is a mean over samples can be split. A method says why its own is none (`Method.coupled`); besides,
the gradient of a few samples is compared with that of their halves on a copy, once in an experience, and what does
not agree is refused.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmark.api import Batch, LoopMethod, Method
from benchmark.errors import PluginError, RunFailed, UsageError, warn
from benchmark.guard import Guard
from benchmark.run import checkpoint, memory
from benchmark.run.losses import Terms, read
from benchmark.run.parts import Part, cut, size_of, split, together
from benchmark.run.plan import Plan
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress
from benchmark.run.seeds import derive
from benchmark.stepping import Stepper

PROBED = 6  # samples whose gradient is compared with that of parts of them
PROBE_TOLERANCE = 1e-3  # sums in another order differ by about 1e-6; what is coupled by far more

Handing = Callable[[], contextlib.AbstractContextManager[None]]
Value = TypeVar("Value")


def check_loop(method: Method, plan: Plan) -> None:
    """Makes sure that a method with a loop of its own is asked for nothing that the engine's loop would do.

    Raises:
        UsageError: It is.
    """
    engine = plan.engine
    if engine.ranks > 1 and plan.method_spec.adapts:
        raise UsageError(
            f"engine.ranks={engine.ranks}: a stream of test batches is answered by one process",
            hint="start it without torchrun",
        )
    asked = {
        f"engine.ranks={engine.ranks}": engine.ranks > 1,
        f"engine.micro_batch={engine.micro_batch}": engine.micro_batch > 0,
        "engine.batch_fallback=true": engine.batch_fallback,
        "engine.precision=fp16": engine.precision == "fp16",
    }
    for option, given in asked.items():
        if given and isinstance(method, LoopMethod):
            raise UsageError(
                f"{option}: not with method `{plan.method_spec.name}`: it brings its own training loop",
                hint="leave it out; engine.precision=bf16 works with every method",
            )


class BatchTrainer:
    """Trains a method on the batches of one experience.

    Args:
        method: The method.
        prepared: The run.
        done: Remembers a part size that was found.
        guard: Stands around the method's functions.
        index: The experience.
        checked: Loss terms, from what `Method.train_step` returned.
        kept: Tells what is left of a run that fails.

    Raises:
        UsageError: The method cannot do what the run asks for.
    """

    def __init__(
        self,
        method: Method,
        prepared: Prepared,
        done: Progress,
        guard: Guard,
        index: int,
        *,
        checked: Callable[[object], Terms],
        kept: Callable[[], str],
    ) -> None:
        self._method = method
        self._prepared = prepared
        self._engine = prepared.plan.engine
        self._done = done
        self._guard = guard
        self._index = index
        self._checked = checked
        self._kept = kept
        self._splittable = False
        self._room = memory.room(prepared.device)
        self._name = prepared.plan.method_spec.name

    @property
    def size(self) -> int:
        """Most samples at once; 0: whole batches."""
        return self._done.micro_batch or self._engine.micro_batch

    @property
    def _splits(self) -> bool:
        return bool(self.size) or self._prepared.ranks.count > 1

    def step(self, batch: Batch, handing: Handing, meanwhile: Callable[[], None]) -> Terms:
        """Trains on one batch; returns its loss terms, which may still be on the device.

        Args:
            batch: The whole of it.
            handing: Lets the method ask for known features of the whole of it.
            meanwhile: Is called once the device has its work, before its numbers are waited for.

        Raises:
            RunFailed: Memory is full.
            UsageError: The batch cannot be split.
        """
        return self._fitting(
            batch, lambda: self._parts(batch, meanwhile) if self._splits else self._whole(batch, handing, meanwhile)
        )

    def flops(self, batch: Batch, count: Callable[[Method, Batch], int]) -> int:
        """FLOPs of a step on a batch; of one in parts they are as many times those of its first part."""

        def counted() -> int:
            first = split(batch, size=self.size, ranks=self._prepared.ranks.count)[0].batch if self._splits else batch
            with self._guard("train_step"), self._prepared.computing.forward():
                found = count(self._method, first)
            return round(found * size_of(batch) / size_of(first))

        return self._fitting(batch, counted)

    def _fitting(self, batch: Batch, work: Callable[[], Value]) -> Value:
        """Does some work on a batch, with ``engine.batch_fallback`` in parts that are small enough."""
        self._method.stepper.part()
        versions, known = self._versions(), self._done.micro_batch
        random = checkpoint.random_state() if self._engine.batch_fallback else None
        failed: RunFailed | None = None
        while True:
            try:
                if self._splits:
                    self._check(batch)
                return work()
            except UsageError as error:
                if failed is None:
                    raise
                self._done.micro_batch = known
                raise RunFailed(f"{failed.message}; {error.message}", hint=failed.hint) from error
            except Exception as error:
                if not memory.memory_is_full(error):
                    raise
                failed = memory.explained(
                    error,
                    label=self._prepared.label,
                    doing="a training step",
                    rows=self._at_once(batch),
                    option=self._option(batch),
                    before=self._room,
                    kept=self._kept(),
                )
                if not self._again(batch, versions):
                    raise failed from error
            # Outside of the handler, which holds on to what the step had computed.
            self._smaller(batch)
            if random is not None:
                checkpoint.set_random_state(random)

    def _whole(self, batch: Batch, handing: Handing, meanwhile: Callable[[], None]) -> Terms:
        self._method.stepper.part()
        with handing():
            found = self._train_step(batch)
        meanwhile()
        return self._checked(found)

    def _parts(self, batch: Batch, meanwhile: Callable[[], None]) -> Terms:
        ranks, method = self._prepared.ranks, self._method
        parts = split(batch, size=self.size, rank=ranks.number, ranks=ranks.count)
        state, found = checkpoint.random_state(), list[Terms]()
        place = batch.place.step
        for part in parts:
            seed = derive(self._prepared.plan.seeds["init"], "part", self._index, place, part.number)
            checkpoint.seed_everything(seed)
            method.stepper.part(part.weight, first=part is parts[0], last=part is parts[-1])
            terms = self._train_step(part.batch)
            if part is parts[-1]:
                meanwhile()
            self._once(method.stepper)
            found.append(self._checked(terms))
        checkpoint.set_random_state(state)
        told = [(part.weight, losses) for part, losses in zip(parts, read(found), strict=True)]
        return {**together(ranks.all(told))}

    def _train_step(self, batch: Batch) -> Any:
        half = self._method.optimizer is not None  # else it adds up what a closed form needs
        with self._own_steps_refused(), self._guard("train_step"), self._prepared.computing.forward(half=half):
            return self._method.train_step(batch)

    @contextlib.contextmanager
    def _own_steps_refused(self) -> Iterator[None]:
        """A step that passes by the method's `Stepper` would use gradients that are scaled, or of a part alone."""
        stepper = self._method.stepper
        if not (self._splits or stepper.scales):
            yield
            return

        def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            if not stepper.stepped:
                raise self._refused("it steps its optimiser itself, not by `Method.descend`")

        handle = register_optimizer_step_pre_hook(look)
        try:
            yield
        finally:
            handle.remove()

    def _asked(self) -> tuple[str, str]:
        """What asks for more than whole batches in full precision, and how to do without."""
        engine = self._engine
        if self._prepared.ranks.count > 1:
            return f"engine.ranks={engine.ranks}", "start it without torchrun"
        if engine.micro_batch:
            return f"engine.micro_batch={engine.micro_batch}", "leave engine.micro_batch out"
        if self._done.micro_batch:
            return "engine.batch_fallback=true", "lower batch_size"
        return f"engine.precision={engine.precision}", "use engine.precision=bf16, or float32"

    def _refused(self, reason: str) -> UsageError:
        option, instead = self._asked()
        return UsageError(f"{option}: not with method `{self._name}`: {reason}", hint=instead)

    def _once(self, stepper: Stepper) -> None:
        if stepper.descents != 1:
            raise self._refused(f"its training step goes down a loss {stepper.descents} times instead of once")

    def _check(self, batch: Batch) -> None:
        """Makes sure that batches like this one can be split.

        Raises:
            UsageError: They cannot.
        """
        if size_of(batch) and len(batch) and batch.target_index is not None:
            raise self._refused("its loss has a mean over labelled and another over target samples of a batch")
        if self._splittable:
            return
        with self._guard("coupled"):
            reason = self._method.coupled
        if reason is not None:
            raise self._refused(str(reason))
        if self._method.optimizer is None:
            raise self._refused("it has no optimiser, so there are no gradients to add")
        self._probe(batch)
        self._splittable = True

    def _probe(self, batch: Batch) -> None:
        """Compares the gradient of a few samples with that of their parts, on a copy of the method."""
        few = cut(batch, slice(0, min(PROBED, max(2, self._at_once(batch)))))
        if size_of(few) < 2:
            return
        first = 2 if size_of(few) > 3 else 1  # where there are more, a part has a variance
        halves = [
            Part(some := cut(few, rows), size_of(some) / size_of(few), number)
            for number, rows in enumerate((slice(0, first), slice(first, None)))
        ]
        whole = self._gradients([Part(few, 1.0, 0)])
        try:
            gap = _difference(whole, self._gradients(halves))
        except PluginError as error:
            raise self._refused(f"its training step fails on {first} samples: {error.message}") from error
        if not gap <= PROBE_TOLERANCE:
            raise self._refused(
                f"the gradient of a batch is not the mean of those of its parts (they differ by {gap:.1%}): its loss "
                "couples the samples of a batch, or draws random numbers",
            )

    def _gradients(self, parts: Sequence[Part]) -> list[Tensor | None]:
        """What the optimiser would step along, in full precision and without dropout."""
        state = checkpoint.random_state()
        twin = copy.deepcopy(self._method)
        twin.stepper = Stepper(measured=True)
        for module in twin.modules():
            module.training = isinstance(module, nn.modules.batchnorm._NormBase)
        twin.training = True
        try:
            for part in parts:
                checkpoint.seed_everything(derive(self._prepared.plan.seeds["init"], "probe"))
                twin.stepper.part(part.weight, first=part is parts[0], last=part is parts[-1])
                with self._own_steps_refused_of(twin), self._guard("train_step"):
                    twin.train_step(copy.deepcopy(part.batch))
                self._once(twin.stepper)
        finally:
            checkpoint.set_random_state(state)
        groups = twin.active_optimizer.param_groups
        return [parameter.grad for group in groups for parameter in group["params"]]

    @contextlib.contextmanager
    def _own_steps_refused_of(self, twin: Method) -> Iterator[None]:
        method, self._method = self._method, twin
        try:
            with self._own_steps_refused():
                yield
        finally:
            self._method = method

    # ---- when memory is full

    def _versions(self) -> list[int]:
        """Counters of in-place changes of what a step may change."""
        if not self._engine.batch_fallback:
            return []
        module = self._method.context.pretrained.module
        tensors = itertools.chain(self._method.parameters(), self._method.buffers(), module.parameters())
        return [tensor._version for tensor in tensors]

    def _again(self, batch: Batch, versions: Sequence[int]) -> bool:
        """Whether the step may be tried again in smaller parts: nothing of it must have been done."""
        done = self._method.stepper.stepped or self._versions() != versions
        return self._engine.batch_fallback and not done and self._at_once(batch) > 1 and self._prepared.ranks.count == 1

    def _at_once(self, batch: Batch) -> int:
        share = math.ceil(size_of(batch) / self._prepared.ranks.count)
        return min(self.size or share, share)

    def _option(self, batch: Batch) -> str:
        """Which option lowers the samples at once."""
        both = len(batch) > 0 and batch.target_index is not None
        return "method.batch_size" if both or self._method.coupled else "engine.micro_batch"

    def _smaller(self, batch: Batch) -> None:
        """Halves the parts."""
        if self._method.optimizer is not None:
            self._method.optimizer.zero_grad(set_to_none=True)
        memory.release(self._prepared.device)
        self._done.micro_batch = self._at_once(batch) // 2
        warn(f"{self._prepared.label}: out of memory: batches go on in parts of {self._done.micro_batch} samples")


def _difference(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    """Norm of the difference of two gradients over that of the first; what has none counts as zero."""
    total = apart = 0.0
    for first, second in zip(one, other, strict=True):
        if first is None and second is None:
            continue
        shape = first if first is not None else second
        assert shape is not None
        first, second = (torch.zeros_like(shape) if found is None else found for found in (first, second))
        total += float(first.double().square().sum())
        apart += float((first - second).double().square().sum())
    return math.sqrt(apart / total) if total else math.sqrt(apart)
