"""Weight files into models: safetensors, the original JAX ``.npz``, and pickles that hold tensors only."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmark.errors import DataMissing, UsageError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# Never part of a backbone here: classifiers, and the pre-logits layer that every code base drops.
DROPPED = ("head.", "head_dist.", "pre_logits.", "attn_pool.")
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
    if path.suffix == ".npz":
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

    Args:
        model: The model.
        state: Tensors by the model's names.
        path: Where they come from, for messages.
        named: Name in the file of a tensor of the model, for messages.

    Raises:
        DataMissing: A tensor is missing, unknown, of another shape, or not finite.
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
        if not torch.isfinite(state[name]).all():
            raise DataMissing(
                f"weights {path}: tensor `{named(name)}` holds values that are not finite", hint=OTHER_FILE
            )
    extra = sorted(set(state) - set(wanted))
    if extra:
        raise DataMissing(f"weights {path}: tensor `{extra[0]}` is not part of the backbone", hint=OTHER_FILE)
    model.load_state_dict(dict(state), strict=True)


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

    Raises:
        UsageError: Unknown suffix, or a pickle that needs more than tensors.
        DataMissing: Damaged.
    """
    damaged = "fetch the file again and compare its size and SHA-256 with the source"
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        if path.suffix == ".npz":
            if not zipfile.is_zipfile(path):
                raise ValueError("not a zip archive")  # numpy would speak of pickles
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # numpy leaks a damaged one
                return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise DataMissing(f"weights {path}: damaged or not a {path.suffix} file: {error}", hint=damaged) from error
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise UsageError(
            f"weights {path}: files of kind `{path.suffix or path.name}` are not read",
            hint="use .safetensors, .npz, or .pt/.pth/.bin with tensors only",
        )
    if _is_script(path):
        raise UsageError(
            f"weights {path}: refused, because it is a TorchScript archive, which is a program",
            hint="convert it where you trust it: safetensors.torch.save_file(torch.jit.load(FILE, "
            "map_location='cpu').state_dict(), 'weights.safetensors')",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of unusual protocols: they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"weights {path}: refused, because it is a pickle that would run code when opened, or is damaged",
            hint="convert it where you trust it: safetensors.torch.save_file(torch.load(FILE)['state_dict'], "
            "'weights.safetensors')",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataMissing(f"weights {path}: damaged: {error}", hint=damaged) from error
    return _unwrap(content, path)


def _is_script(path: Path) -> bool:
    """Whether a file is what ``torch.jit.save`` writes; OpenAI's CLIP files are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # damaged files are named by what reads them


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in what training programs save: ``{"model": {...}, "epoch": 3}``."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataMissing(f"weights {path}: holds no state dict of tensors", hint="save `model.state_dict()`")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


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
