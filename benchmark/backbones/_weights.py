"""Weight files into models: every tensor in its shape, or an error that names the first that is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmark.backbones._weight_files import OTHER_FILE, read
from benchmark.errors import DataMissing, plain, shorten

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# Never part of a backbone here: classifiers, and the pre-logits layer that every code base drops.
DROPPED = ("head.", "head_dist.", "pre_logits.", "attn_pool.")
MOST_NAMES = 3  # of the file and of the backbone, where they differ


def fill(model: nn.Module, path: Path, *, resample: bool, heads: Sequence[str] = ()) -> nn.Linear | None:
    """Loads a weight file into a network of timm, every tensor of it.

    Args:
        model: Built without a head.
        path: ``.safetensors``, ``.npz``, ``.pt``, ``.pth`` or ``.bin``.
        resample: Whether position tables may be resampled to the model's grid.
        heads: What classifiers of the architecture are called, where it is no `VisionTransformer`.

    Returns:
        The classifier that the file has for the model's feature, frozen; None if it has none.

    Raises:
        UsageError: The kind of file is refused.
        DataMissing: The file is damaged, or a tensor is missing, unknown or of another shape.
    """
    from timm.models.vision_transformer import VisionTransformer

    state = read(path)
    if any("/" in name for name in state):
        state = from_jax(state, path)
    put(model, _native(state, model, path, resample=resample, heads=heads), path)
    if len(heads) > 1:  # none of them reads the feature alone
        return None
    if isinstance(model, VisionTransformer):
        return _classifier(state, model, path)
    return _head(state, heads[0], path) if heads else None


def _head(state: Mapping[str, Tensor], name: str, path: Path) -> nn.Linear | None:
    """The head of a checkpoint of another architecture: timm's models without a head give what it reads."""
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if weight is None or bias is None or weight.ndim != 2:
        return None
    head = nn.Linear(weight.shape[1], len(weight))
    put(head, {"weight": weight, "bias": bias}, path, named=lambda part: f"{name}.{part}")
    return head.requires_grad_(False).eval()


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
    told = f"the file begins with {_first(state)}; the backbone with {_first([named(name) for name in wanted])}"
    for name, tensor in wanted.items():
        if name not in state:
            raise DataMissing(f"weights {path}: tensor `{named(name)}` is missing", hint=f"{OTHER_FILE}; {told}")
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
        raise DataMissing(
            f"weights {path}: tensor `{extra[0]}` is not part of the backbone", hint=f"{OTHER_FILE}; {told}"
        )
    model.load_state_dict(dict(state), strict=True)


def _first(names: Iterable[str]) -> str:
    """The first names and how many there are."""
    every = [plain(name) for name in names]
    return ", ".join(f"`{shorten(name, 60)}`" for name in every[:MOST_NAMES]) + f" ({len(every)} in all)"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _native(
    state: dict[str, Tensor], model: Any, path: Path, *, resample: bool, heads: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Renames to timm's names, drops heads, resamples position tables where that was asked for."""
    from timm.models.vision_transformer import VisionTransformer

    plain_vit = isinstance(model, VisionTransformer)
    dropped = DROPPED if plain_vit else tuple(f"{head.partition('.')[0]}." for head in heads)
    wanted = model.state_dict()

    def kept(some: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in some.items() if name in wanted or not name.startswith(dropped)}

    # Old files have no count of batches, which nothing reads.
    counts = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")}
    names = wanted.keys() - counts.keys()
    fits = kept(state).keys() - counts.keys() == names
    moved = resample and not plain_vit and any(state[name].shape != wanted[name].shape for name in names & state.keys())
    if not fits or moved:
        state = _converted(state, model, path, known=len(names & state.keys()) > len(names) // 2, resample=resample)
    state = {**(counts if counts.keys().isdisjoint(state) else {}), **kept(state)}
    table = state.get("pos_embed")
    if plain_vit and resample and table is not None and model.pos_embed is not None:
        state["pos_embed"] = resampled(table, model)
    return state


def _converted(
    state: dict[str, Tensor], model: nn.Module, path: Path, *, known: bool, resample: bool
) -> dict[str, Tensor]:
    """The state by timm's names; it knows those of OpenCLIP, DINOv2, torchvision and the official code of each model.

    Args:
        state: As the file has it.
        model: The network.
        path: For messages.
        known: Whether most names are timm's already; then what its converter cannot read is left as it is.
        resample: Whether tables may get another shape on the way.

    Raises:
        DataMissing: The names are of a kind that timm does not know.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        found = dict(convert(dict(state), model))
    except Exception as error:  # its converters index names that the file need not have
        if known:
            return state
        raise DataMissing(f"weights {path}: no checkpoint of this model: {error!r}", hint=OTHER_FILE) from error
    if resample:
        return found
    return {**found, **{name: state[name] for name in found if name in state}} if known else found


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
