"""What features of a frozen network depend on besides the inputs: the network itself, and the arithmetic."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.backbones import blocks
from benchmark.code_identity import ENGINE, code_hash
from benchmark.run.provenance import versions

_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype)
_COMPILED = "_compiled_call_impl"  # of a module that was compiled in place


def digest(network: nn.Module) -> str:
    """SHA-256 of structure and weights of a network, in hexadecimal.

    The structure is the type of every module and all its public attributes that are numbers, words, types or functions,
    e.g. which GELU it is.
    """
    found = hashlib.sha256(json.dumps(_structure(network)).encode())
    for name, tensor in _tensors(network).items():
        own = tensor.detach().to("cpu").contiguous()
        found.update(f"{name} {own.dtype} {tuple(own.shape)}".encode())
        found.update(own.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _structure(network: nn.Module) -> list[Any]:
    return [
        [
            name,
            _name(type(module)),
            getattr(module, _COMPILED, None) is not None,
            {
                key: told
                for key, value in sorted(vars(module).items())
                if not key.startswith("_") and key != "training" and (told := _told(value)) is not None
            },
        ]
        for name, module in network.named_modules()
    ]


def _told(value: object) -> Any:
    """A value as JSON, or None where it is no plain one."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return [_told(item) for item in value]
    return _name(value) if isinstance(value, (type, FunctionType)) else None


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def function_facts(function: Callable[..., Tensor]) -> dict[str, Any]:
    """The name of a function, and what stands for its code: our own number, or the hash of a stranger's module."""
    module = sys.modules[function.__module__]
    ours = function.__module__.split(".")[0] == "benchmark"
    return {"function": _name(function), "code": ENGINE if ours else code_hash(module)}


def arithmetic(device: torch.device) -> dict[str, Any]:
    """What else decides about last bits: versions, processor, threads, and how torch is told to compute."""
    kind = device.type
    facts: dict[str, Any] = {
        "packages": {name: versions().get(name) for name in ("torch", "timm", "open_clip_torch")},
        "device": kind,
        "machine": _machine(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "dtype": repr(torch.get_default_dtype()),
        "autocast": repr(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "",
        "mkldnn": torch.backends.mkldnn.enabled,
        "compiled": blocks.compiled(),
    }
    if kind == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
            "cudnn": [torch.backends.cudnn.version(), torch.backends.cudnn.benchmark],
        }
    return facts


@functools.cache
def _machine() -> list[str]:
    """The processor: a folder may be shared by machines whose matrix products differ in last bits."""
    told = [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return [*told, platform.processor()]
    return [*told, *dict.fromkeys(line for line in lines if line.startswith(("model name", "CPU part")))]
