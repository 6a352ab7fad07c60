"""Weight files into models: safetensors, the original JAX ``.npz``, and pickles that hold tensors only."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmark.errors import DataMissing, UsageError, shorten

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# Never part of a backbone here: classifiers, and the pre-logits layer that every code base drops.
DROPPED = ("head.", "head_dist.", "pre_logits.", "attn_pool.")
# Keys under which training programs keep the weights; averaged ones only where there are no others.
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
# What wrappers of models put before every name: DataParallel, torch.compile, and modules of training programs.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
DAMAGED = "fetch the file again and compare its size and SHA-256 with the source"
SAVE = (
    "safetensors.torch.save_file({k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}, "
    "'weights.safetensors')"
)
OTHER_FILE = "give the file of the named checkpoint, or the backbone that belongs to this file"


def fill(model: VisionTransformer, path: Path, *, resample: bool) -> nn.Linear | None:
    """Loads a weight file into a model, every tensor of it.

    Args:
        model: Built without a head.
        path: ``.safetensors``, ``.npz``, ``.pt``, ``.pth`` or ``.bin``.
        resample: Whether the position table may be resampled to the model's grid.

    Returns:
        The classifier that the file has for the model's class token, frozen; None if it has none.

    Raises:
        UsageError: The kind of file is refused.
        DataMissing: The file is damaged, or a tensor is missing, unknown or of another shape.
    """
    state = read(path)
    if any("/" in name for name in state):
        state = from_jax(state, path)
    put(model, _native(state, model, path, resample=resample), path)
    return _classifier(state, model, path)


def _classifier(state: Mapping[str, Tensor], model: VisionTransformer, path: Path) -> nn.Linear | None:
    """The head of a checkpoint, where it reads the class token as it is."""
    weight, bias = state.get("head.weight"), state.get("head.bias")
    between = any(name.startswith(("pre_logits.", "fc_norm.")) for name in state)
    if weight is None or bias is None or weight.ndim != 2 or between or model.global_pool != "token":
        return None
    head = nn.Linear(model.embed_dim, len(weight))
    put(head, {"weight": weight, "bias": bias}, path, named=lambda name: f"head.{name}")
    return head.requires_grad_(False).eval()


def put(
    model: nn.Module, state: Mapping[str, Tensor], path: Path | str, *, named: Callable[[str], str] = lambda name: name
) -> None:
    """Loads a state dict into a model, every tensor of it, as the model's own type.

    Floating-point numbers of any precision become the model's; whole numbers and truth values are not taken for them,
    nor the other way round.

    Args:
        model: The model.
        state: Tensors by the model's names.
        path: Where they come from, for messages.
        named: Name in the file of a tensor of the model, for messages.

    Raises:
        DataMissing: A tensor is missing, unknown, of another shape, not finite, or of another kind of number.
    """
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise DataMissing(f"weights {path}: tensor `{named(name)}` is missing", hint=OTHER_FILE)
        if state[name].shape != tensor.shape:
            raise DataMissing(
                f"weights {path}: tensor `{named(name)}` has shape {tuple(state[name].shape)}, "
                f"the backbone needs {tuple(tensor.shape)}",
                hint=OTHER_FILE,
            )
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise DataMissing(
                f"weights {path}: tensor `{named(name)}` holds {_kind(state[name])} numbers, "
                f"the backbone needs {_kind(tensor)} ones",
                hint=OTHER_FILE,
            )
        if not torch.isfinite(state[name].to(tensor.dtype)).all():
            raise DataMissing(
                f"weights {path}: tensor `{named(name)}` holds values that are not finite", hint=OTHER_FILE
            )
    extra = sorted(set(state) - set(wanted))
    if extra:
        raise DataMissing(f"weights {path}: tensor `{extra[0]}` is not part of the backbone", hint=OTHER_FILE)
    model.load_state_dict(dict(state), strict=True)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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
            f"d = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
            f"d = d.state_dict() if hasattr(d, 'state_dict') else d.get('state_dict', d.get('model', d)); {SAVE}",
        ) from error
    except Exception as error:  # a damaged archive makes torch raise what it likes
        raise DataMissing(f"weights {path}: damaged: {shorten(str(error))}", hint=DAMAGED) from error


def _is_script(path: Path) -> bool:
    """Whether a file is what ``torch.jit.save`` writes; OpenAI's CLIP files are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # damaged files are named by what reads them


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in what training programs save: ``{"model": {...}, "epoch": 3}``."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
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
    while (prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in state)), None)) is not None:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _odd(tensor: Tensor) -> str | None:
    """What keeps a tensor from being a weight, or None."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "sparse or nested"
    if tensor.is_complex():
        return "complex"
    return "without data" if tensor.device.type != "cpu" else None


def _native(state: dict[str, Tensor], model: VisionTransformer, path: Path, *, resample: bool) -> dict[str, Tensor]:
    """Renames to timm's names, drops heads, resamples the position table where that was asked for."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    if "blocks.0.attn.qkv.weight" not in state:  # OpenCLIP, DINOv2, ...: timm knows their names
        try:
            state = dict(checkpoint_filter_fn(state, model))
        except Exception as error:  # its converters index names that the file need not have
            raise DataMissing(f"weights {path}: not a known ViT checkpoint: {error!r}", hint=OTHER_FILE) from error
    state = {name: value for name, value in state.items() if not name.startswith(DROPPED)}
    table = state.get("pos_embed")
    if resample and table is not None and model.pos_embed is not None:
        state["pos_embed"] = resampled(table, model)
    return state


def resampled(table: Tensor, vit: VisionTransformer) -> Tensor:
    """A position table ``(1, N, D)``, resampled to a model's grid if it is of another."""
    from timm.layers import resample_abs_pos_embed

    if table.ndim != 3 or table.shape == vit.pos_embed.shape:
        return table
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    resized: Tensor = resample_abs_pos_embed(table, list(vit.patch_embed.grid_size), num_prefix_tokens=prefix)
    return resized


def from_jax(arrays: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Maps the original ViT checkpoints (``gs://vit_models``) to timm's names.

    Dense kernels are (in, out) and are transposed; the patch kernel (P, P, 3, D) becomes
    (D, 3, P, P); query, key and value kernels (D, H, d) are flattened, transposed and joined; the
    output kernel is (H, d, D).

    Raises:
        DataMissing: A tensor of the layout is missing.
    """
    prefix = "opt/target/" if "opt/target/embedding/kernel" in arrays else ""

    def get(name: str) -> Tensor:
        if prefix + name not in arrays:
            raise DataMissing(f"weights {path}: tensor `{prefix}{name}` is missing", hint=OTHER_FILE)
        if not arrays[prefix + name].is_floating_point():
            found = _kind(arrays[prefix + name])
            raise DataMissing(f"weights {path}: tensor `{prefix}{name}` holds {found} numbers", hint=OTHER_FILE)
        return arrays[prefix + name].to(torch.float32)

    state = {
        "cls_token": get("cls"),
        "pos_embed": get("Transformer/posembed_input/pos_embedding"),
        "patch_embed.proj.weight": get("embedding/kernel").permute(3, 2, 0, 1),
        "patch_embed.proj.bias": get("embedding/bias"),
        "norm.weight": get("Transformer/encoder_norm/scale"),
        "norm.bias": get("Transformer/encoder_norm/bias"),
    }
    if f"{prefix}head/kernel" in arrays:
        state |= {"head.weight": get("head/kernel").T, "head.bias": get("head/bias")}
    if f"{prefix}pre_logits/kernel" in arrays:
        state["pre_logits.weight"] = get("pre_logits/kernel").T
    stem = "Transformer/encoderblock_"
    depth = len({name.split(stem)[1].split("/")[0] for name in arrays if stem in name})
    for index in range(depth):
        block, target = f"{stem}{index}/", f"blocks.{index}."
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for layer, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            state[f"{target}{norm}.weight"] = get(f"{block}{layer}/scale")
            state[f"{target}{norm}.bias"] = get(f"{block}{layer}/bias")
        parts = ("query", "key", "value")
        kernels = [get(f"{attention}{part}/kernel").flatten(1).T for part in parts]
        state[f"{target}attn.qkv.weight"] = torch.cat(kernels)
        state[f"{target}attn.qkv.bias"] = torch.cat([get(f"{attention}{part}/bias").flatten() for part in parts])
        state[f"{target}attn.proj.weight"] = get(f"{attention}out/kernel").flatten(0, 1).T
        state[f"{target}attn.proj.bias"] = get(f"{attention}out/bias")
        for layer, linear in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            state[f"{target}mlp.{linear}.weight"] = get(f"{block}MlpBlock_3/{layer}/kernel").T
            state[f"{target}mlp.{linear}.bias"] = get(f"{block}MlpBlock_3/{layer}/bias")
    return {name: tensor.contiguous() for name, tensor in state.items()}
