"""Weight files as tensors by name: safetensors, ``.npz``, and pickles that hold tensors only; no code is run."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from benchmark.errors import DataMissing, UsageError, shorten

# Keys under which training programs keep the weights; averaged ones only where there are no others, and of a teacher
# and its student the teacher.
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "network",
    "module",
    "backbone",
    "teacher",
    "state_dict_ema",
    "model_ema",
    "ema",
)
# What wrappers of models put before every name: DataParallel, torch.compile, and modules of training programs.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "encoder.", "net.", "network.", "teacher.")
# What programs that pretrain keep beside a backbone that has such a prefix.
BESIDE = ("head.", "fc.", "classifier.", "projector.", "projection_head.", "predictor.", "decoder.", "criterion.")
DAMAGED = "fetch the file again and compare its size and SHA-256 with the source"
# Of a whole checkpoint the first of the keys above, of a whole module its tensors.
FIND = (
    f"d = next((d[k] for k in {list(WRAPPERS)} if k in d), d) if isinstance(d, dict) else d; "
    "d = d.state_dict() if hasattr(d, 'state_dict') else d"
)
SAVE = (
    "safetensors.torch.save_file({k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}, "
    "'weights.safetensors')"
)
OTHER_FILE = "give the file of the named checkpoint, or the backbone that belongs to this file"


def words(path: Path) -> list[str]:
    """The vocabulary that a dual encoder's file keeps beside its tensors.

    Raises:
        UsageError: The file is of a kind that keeps none.
        DataMissing: It is damaged or keeps none.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"weights {path}: no vocabulary", hint="give the .safetensors file, which keeps one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            found = str((file.metadata() or {})["words"])
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise DataMissing(f"weights {path}: damaged, or without a vocabulary: {error}", hint=OTHER_FILE) from error
    return found.split()


def read(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file, without running code from it.

    Entries that are no tensors are left out, and what programs wrap around a state dict is taken off: the mapping of
    a checkpoint (`WRAPPERS`) and prefixes that all names have in common (`PREFIXES`).

    Raises:
        UsageError: Unknown suffix, or a pickle that needs more than tensors.
        DataMissing: Damaged, or a tensor is of a kind that no model here has: sparse, quantised, complex, without data.
    """
    if not path.is_file():  # a pipe would wait for ever
        raise DataMissing(f"weights {path}: not a file", hint="give the path of a .safetensors or .npz file")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        content: Any = _of_safetensors(path)
    elif suffix == ".npz":
        content = _of_numpy(path)
    elif suffix in (".pt", ".pth", ".bin"):
        content = _of_pickle(path)
    else:
        raise UsageError(
            f"weights {path}: files of kind `{path.suffix or path.name}` are not read",
            hint="use .safetensors, .npz, or .pt/.pth/.bin with tensors only",
        )
    state = _unwrap(content, path)
    for name, tensor in state.items():
        if odd := _odd(tensor):
            raise DataMissing(f"weights {path}: tensor `{name}` is {odd}", hint=OTHER_FILE)
    return state


def _of_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, ValueError, KeyError, MemoryError, safetensors.SafetensorError) as error:
        raise DataMissing(f"weights {path}: damaged or not a .safetensors file: {error}", hint=DAMAGED) from error


def _of_numpy(path: Path) -> Mapping[str, Tensor]:
    """The arrays of numbers, where each holds as many as its header says."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    shape, kind = _header(stream)
                    size = math.prod(shape) * kind.itemsize
                    if not kind.hasobject and stream.tell() + size != member.file_size:
                        raise ValueError(f"`{name}` declares {size} bytes and does not hold them")
                if kind.kind in "fiubc":
                    array = np.asarray(arrays[name])
                    found[name] = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataMissing(f"weights {path}: damaged or not a .npz file: {error}", hint=DAMAGED) from error
    return found


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a ``.npy`` file."""
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = reader(stream)
    return shape, kind


def _of_pickle(path: Path) -> Any:
    if _is_script(path):
        raise UsageError(
            f"weights {path}: refused, because it is a TorchScript archive, which is a program",
            hint=f"where you trust it, convert it in Python: import torch, safetensors.torch; "
            f"d = torch.jit.load({str(path)!r}, map_location='cpu').state_dict(); {SAVE}",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of unusual protocols: they are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"weights {path}: refused, because it is a pickle that would run code when opened, or is damaged",
            hint=f"where you trust it, convert it in Python: import torch, safetensors.torch; "
            f"d = torch.load({str(path)!r}, map_location='cpu', weights_only=False); {FIND}; {SAVE}",
        ) from error
    except Exception as error:  # a damaged archive makes torch raise what it likes
        why = shorten(str(error)) or type(error).__name__
        raise DataMissing(f"weights {path}: damaged: {why}", hint=DAMAGED) from error


def _is_script(path: Path) -> bool:
    """Whether a file is what ``torch.jit.save`` writes; OpenAI's CLIP files are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # damaged files are named by what reads them


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in what training programs save: ``{"model": {...}, "epoch": 3}``."""
    outer: set[int] = set()  # a pickle may hold itself
    while isinstance(content, Mapping):
        outer.add(id(content))
        inside = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]]
        inner = next((one for one in inside if id(one) not in outer), None)
        if inner is None:
            break
        content = inner
    state = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise DataMissing(f"weights {path}: holds no state dict of tensors", hint="save `model.state_dict()`")
    while (prefix := next((one for one in PREFIXES if _common(one, state)), None)) is not None:
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state


def _common(prefix: str, names: Iterable[str]) -> bool:
    """Whether all names have a prefix, or all but those of heads beside it."""
    found = {name.startswith(prefix) for name in names if not name.startswith(BESIDE)}
    return found == {True}


def _odd(tensor: Tensor) -> str | None:
    """What keeps a tensor from being a weight, or None."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "sparse or nested"
    if tensor.is_complex():
        return "complex"
    return "without data" if tensor.device.type != "cpu" else None
