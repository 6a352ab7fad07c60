"""How a run computes: in which precision, deterministic or not, compiled, with what kept in memory.

One place each: `Computing.installed` holds for a whole run, `Computing.forward` stands around every call of a method
that passes samples through a network (``train_step``, ``predict``, ``generate``, ``encode``).

Mixed precision is torch's autocast. Weights, optimisers, losses of many terms and what a method computes when an
experience begins or ends stay float32, and so do training steps of a method without an optimiser: it solves for its
weights in closed form, and a Gram matrix in bfloat16 has no inverse worth the name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmark.backbones import blocks
from benchmark.backbones.backbone import Backbone, Pretrained
from benchmark.errors import UsageError
from benchmark.run.options import EngineConfig, Precision
from benchmark.stepping import Gather, Stepper

BACKEND = "inductor"
"""Of torch.compile."""

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Computing:
    """How a run computes.

    Attributes:
        device: Kind of device.
        precision: As `EngineConfig.precision`.
        compile: As `EngineConfig.compile`.
        deterministic: As `EngineConfig.deterministic`.
        again: As `EngineConfig.activation_checkpointing`.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    compile: bool = False
    deterministic: bool = True
    again: bool = False

    @classmethod
    def of(cls, engine: EngineConfig, device: torch.device, pretrained: Pretrained) -> Computing:
        """What the options of a run ask of a device and a model.

        Raises:
            UsageError: The device or the model cannot do it.
        """
        _check_precision(engine.precision, device)
        for name in ("compile", "activation_checkpointing"):
            if getattr(engine, name) and not _has_blocks(pretrained):
                raise UsageError(
                    f"engine.{name}=true: `{pretrained.name}` has no blocks of a ViT, which is what it is for",
                    hint=f"leave engine.{name} out, or give a ViT with --backbone",
                )
        if engine.compile and (reason := _no_compiler(device.type, BACKEND)) is not None:
            raise UsageError(
                f"engine.compile=true: torch.compile does not work here: {reason}",
                hint="it needs a C++ compiler, and on CUDA triton; or leave engine.compile out",
            )
        return cls(
            device=device.type,
            precision=engine.precision,
            compile=engine.compile,
            deterministic=engine.deterministic,
            again=engine.activation_checkpointing,
        )

    @property
    def mixed(self) -> bool:
        """Whether networks compute in half precision."""
        return self.precision in _HALVES

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Precision of float32 products, algorithms and blocks inside, as found afterwards."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_algorithms(self.deterministic))
            if self.device == "cuda":
                stack.enter_context(_tensor_float(self.precision == "tf32"))
            compiled = _compiled if self.compile else None
            stack.enter_context(blocks.computed(again=self.again, compiled=compiled))
            yield

    @contextlib.contextmanager
    def forward(self, *, half: bool = True) -> Iterator[None]:
        """Stands around a pass through a network.

        Args:
            half: Whether half precision is wanted, if the run has it.
        """
        if not (half and self.mixed):
            yield
            return
        # Without a cache of weights in half precision: one of a pass without gradients would serve a pass with
        # gradients, and one from before a step the pass behind it. Frozen weights are never kept there anyway.
        with torch.autocast(self.device, dtype=_HALVES[self.precision], cache_enabled=False):
            yield

    def stepper(self, gather: Gather | None = None) -> Stepper:
        """How a method's optimiser goes down its losses."""
        scaler = torch.amp.GradScaler(self.device) if self.precision == "fp16" else None
        return Stepper(scaler, gather, mixed=self.device if self.mixed else None)


def _check_precision(precision: Precision, device: torch.device) -> None:
    """Makes sure that a device has a precision.

    Raises:
        UsageError: It has not.
    """
    hint = "use engine.precision=float32"
    kind = device.type
    if precision == "tf32" and kind != "cuda":
        raise UsageError(
            f"engine.precision=tf32: TensorFloat-32 is a format of CUDA devices, not of `{kind}`", hint=hint
        )
    if kind == "cuda" and precision in ("tf32", "bf16"):
        name, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        if major < 8 and torch.version.hip is None:
            raise UsageError(
                f"engine.precision={precision}: `{name}` has compute capability {major}.{minor}, this needs 8.0",
                hint="use engine.precision=fp16, or float32",
            )
    if precision in _HALVES and not torch.amp.is_autocast_available(kind):
        raise UsageError(f"engine.precision={precision}: torch has no mixed precision on `{kind}`", hint=hint)


def _has_blocks(pretrained: Pretrained) -> bool:
    return isinstance(pretrained, Backbone) and hasattr(pretrained.model, "blocks")


@contextlib.contextmanager
def _algorithms(deterministic: bool) -> Iterator[None]:
    """Deterministic algorithms inside, or the fastest ones.

    With the former torch would also fill all fresh memory before it is written, which takes about a hundredth of the
    time of a small network and changes nothing that an operation returns.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if deterministic:  # read when cuBLAS makes its first product; without it torch warns of every one
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@contextlib.contextmanager
def _tensor_float(allowed: bool) -> Iterator[None]:
    """TensorFloat-32 in products and convolutions inside, or full float32, which cuDNN does not take by itself."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@lru_cache
def _compiled(function: Any) -> Any:
    """One compiled function for all blocks: it is made once for each kind of block and shape of input."""
    return torch.compile(function, backend=BACKEND)


@lru_cache
def _no_compiler(device: str, backend: str) -> str | None:
    """Why nothing can be compiled for a kind of device, or None."""

    def twice(values: Tensor) -> Tensor:
        return values * 2

    try:
        torch.compile(twice, backend=backend)(torch.ones(2, device=device))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None
