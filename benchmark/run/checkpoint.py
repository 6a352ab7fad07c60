"""Checkpoints as one file each: no pickle, written atomically, verified before anything of it is used.

A checkpoint is a tree of mappings, lists, tuples, numbers, strings, None and tensors, in the safetensors
format: tensors in its tensor section, the rest in its JSON header, so one `os.replace` commits both. The
SHA-256 of these bytes follows them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmark.api import Method
from benchmark.errors import DataMissing, PluginError
from benchmark.files import replace_file

_TENSOR = "__tensor__"
_TUPLE = "__tuple__"
_ITEMS = "__items__"
_DIGEST = hashlib.sha256().digest_size
_AGAIN = "run again with --force to start from the beginning"


def save(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes a tree; the old file stays whole until the new one is.

    Raises:
        TypeError: The tree holds something that is neither JSON nor a tensor.
        RunFailed: The disk is full or the folder is not writable.
    """
    tensors, header = encoded(tree)
    content = safetensors.torch.save(tensors, metadata={"tree": header})
    replace_file(path, content + hashlib.sha256(content).digest())


def encoded(tree: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a tree, each on its own, by the names that stand for them in the JSON text of the rest.

    Raises:
        TypeError: The tree holds something that is neither JSON nor a tensor.
    """
    tensors: dict[str, Tensor] = {}
    header = json.dumps(_encode(tree, tensors, "state"))
    # safetensors refuses tensors that share memory, and writes contiguous ones only.
    return {key: tensor.detach().to("cpu").contiguous().clone() for key, tensor in tensors.items()}, header


def decoded(header: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tree that `encoded` was given."""
    tree: dict[str, Any] = _decode(json.loads(header), tensors)
    return tree


def load(path: Path) -> dict[str, Any]:
    """Reads what `save` wrote; tensors are on the CPU.

    Raises:
        DataMissing: The file cannot be read, or a byte of it is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataMissing(f"checkpoint {path} cannot be read: {error.strerror}", hint=_AGAIN) from error
    content, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise DataMissing(f"checkpoint {path} is damaged: its bytes are not those that were written", hint=_AGAIN)
    length = int.from_bytes(content[:8], "little")  # the format: length of the header, header, tensors
    header: str = json.loads(content[8 : 8 + length])["__metadata__"]["tree"]
    return decoded(header, safetensors.torch.load(content))


def _encode(value: object, tensors: dict[str, Tensor], key: str) -> object:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        tensors[key] = value
        return {_TENSOR: key}
    if isinstance(value, Mapping):
        if all(isinstance(name, str) and not name.startswith("__") for name in value):
            return {name: _encode(item, tensors, f"{key}.{name}") for name, item in value.items()}
        return {_ITEMS: [[_key(name), _encode(item, tensors, f"{key}.{name}")] for name, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, tensors, f"{key}.{place}") for place, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, tensors, f"{key}.{place}") for place, item in enumerate(value)]
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{key}: {type(value).__name__} cannot be kept in a checkpoint; use tensors, numbers, text, lists")


def _key(name: object) -> int | str:
    if isinstance(name, (int, str)):
        return name
    raise TypeError(f"a key of type {type(name).__name__} cannot be kept in a checkpoint; use text or whole numbers")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        if _TUPLE in value:
            return tuple(_decode(item, tensors) for item in value[_TUPLE])
        if _ITEMS in value:
            return {name: _decode(item, tensors) for name, item in value[_ITEMS]}
        return {name: _decode(item, tensors) for name, item in value.items()}
    return value


def snapshot(method: Method) -> dict[str, Any]:
    """State of a method: trained weights of its model, its own parameters and buffers, optimiser, extras.

    The frozen part of the pretrained model is left out: it comes from the weight file again. Where the model
    trains, its buffers are there as well.
    """
    pretrained = method.context.pretrained
    shared = {id(tensor) for tensor in pretrained.tensors()}
    own = {name: t for name, t in method.state_dict(keep_vars=True).items() if id(t) not in shared}
    trained: dict[str, Tensor] = {name: p for name, p in pretrained.module.named_parameters() if p.requires_grad}
    if not method.frozen:  # in training mode statistics of BatchNorm move
        trained |= pretrained.statistics()
    return {
        "backbone": trained,
        "method": own,
        "buffers": [name for name, tensor in own.items() if not isinstance(tensor, nn.Parameter)],
        "optimizer": None if method.optimizer is None else method.optimizer.state_dict(),
        "stepper": dict(method.stepper.state()),
        "extra": dict(method.extra_state()),
    }


def restore(method: Method, state: Mapping[str, Any]) -> None:
    """Puts a snapshot back into a method that was built, and grown, in the same way.

    Raises:
        PluginError: The state does not fit the method.
    """
    try:
        with torch.no_grad():
            own = method.context.pretrained.module.state_dict(keep_vars=True)
            for name, tensor in state["backbone"].items():
                own[name].copy_(tensor)
            unexpected = _load(method, state["method"], state["buffers"])
        if unexpected:
            raise ValueError(f"it has no module for {', '.join(unexpected[:3])}; make every module in `__init__`")
        if method.optimizer is not None and state["optimizer"] is not None:
            method.optimizer.load_state_dict(state["optimizer"])
        method.stepper.load_state(state.get("stepper", {}))
        method.load_extra_state(state["extra"])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise PluginError(
            f"method {type(method).__name__} cannot take its checkpoint back: {error}",
            hint="run again with --force to start from the beginning; the contract check `resume` tests this",
        ) from error


def _load(method: Method, saved: Mapping[str, Tensor], buffers: Sequence[str]) -> list[str]:
    """Loads parameters and buffers, grown ones too; returns the names that the method has no place for.

    A module may resize its own while it loads. What still has another shape than its saved state takes the saved shape,
    and what is not there yet, or None, is registered: a buffer of one row per class is built empty, or later.
    """
    try:
        unexpected = method.load_state_dict(saved, strict=False).unexpected_keys
    except RuntimeError:
        own = method.state_dict(keep_vars=True)
        grown = [name for name, tensor in saved.items() if name in own and own[name].shape != tensor.shape]
        if not grown:
            raise
        for name in grown:
            own[name].data = own[name].new_empty(saved[name].shape)
        unexpected = method.load_state_dict(saved, strict=False).unexpected_keys
    return [name for name in unexpected if not _fill(method, name, saved[name], buffer=name in buffers)]


def _fill(method: Method, name: str, tensor: Tensor, *, buffer: bool) -> bool:
    """Registers a tensor that the method will make in `begin_experience`; tells whether its module is there."""
    path, _, leaf = name.rpartition(".")
    try:
        module = method.get_submodule(path)
    except AttributeError:
        return False
    owned = tensor.to(method.context.device)
    module.__dict__.pop(leaf, None)  # a plain None until then
    if buffer:
        module.register_buffer(leaf, owned)
    else:
        module.register_parameter(leaf, nn.Parameter(owned, requires_grad=owned.is_floating_point()))
    return True


def random_state() -> dict[str, Any]:
    """States of the global generators of torch, numpy and Python."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    python = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(name), np.asarray(keys).astype(np.int64), int(position), int(has_gauss), float(cached)],
        "python": [python[0], list(python[1]), python[2]],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts back what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys).astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seeds the global generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Global random state and grad mode as found afterwards."""
    state = random_state()
    try:
        with torch.enable_grad():
            yield
    finally:
        set_random_state(state)
