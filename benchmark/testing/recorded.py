"""Numbers recorded from another implementation, to compare a method with.

A case is a pair of files. ``NAME.npz`` holds the inputs (``input.*``), the weights of the backbone (``backbone.*``) and
of the method, and under ``f64.`` whatever the other implementation computed from them in float64. ``NAME.json`` says
how: under ``config`` the options, under ``reference`` the code.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmark.backbones.backbone import Backbone
from benchmark.backbones.dual import dual_of
from benchmark.backbones.features import FeatureModel
from benchmark.testing import closed_form

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
Kind = Literal["outputs", "loss", "gradients", "parameters"]


def kind_of(key: str) -> Kind:
    """What a recorded quantity is, by its name: ``grad.*`` or ``grad1.*``, ``after3.*``, ``*loss*``, else an output."""
    key = re.sub(r"^task\d+\.", "", key)
    if key.startswith("grad"):
        return "gradients"
    if re.match(r"after\d*(_buffers)?\.", key):
        return "parameters"
    return "loss" if "loss" in key else "outputs"


class TinyCNN(nn.Module):
    """The network of cases on convolutions and BatchNorm: two of each, 3 channels in, 12 features out.

    ``relu(bn1(conv1))``, 2 x 2 mean pooling, ``relu(bn2(conv2))``, the mean over pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 12)`` of images ``(B, 3, H, W)``."""
        found = F.avg_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        return F.relu(self.bn2(self.conv2(found))).mean(dim=(2, 3))


class Recorded:
    """Arrays of one case, and the largest deviation of every quantity compared so far.

    Args:
        folder: Where the pair of files is.
        name: Of the files.
        dtype: Of the tensors handed out, float64 or float32.

    Attributes:
        meta: The json.
        arrays: The arrays by name.
        worst: Deviations by name.
    """

    def __init__(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        self.name, self.dtype, self._folder = name, dtype, folder
        self.meta: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.worst: dict[str, float] = {}

    def tensor(self, key: str) -> Tensor:
        """An array; numbers with a point in the case's precision."""
        value = torch.from_numpy(self.arrays[key])
        return value.to(self.dtype) if value.is_floating_point() else value

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin with a prefix, without it."""
        return {key[len(prefix) :]: self.tensor(key) for key in self.arrays if key.startswith(prefix)}

    def computed(self, prefix: str) -> list[str]:
        """Names, for `compare`, that begin with a prefix."""
        return [key.removeprefix("f64.") for key in self.arrays if key.startswith(f"f64.{prefix}")]

    def vit(self) -> VisionTransformer:
        """The recorded backbone, in float32."""
        shape = self.meta["config"]["vit"]
        model = VisionTransformer(
            img_size=shape["img_size"],
            patch_size=shape["patch_size"],
            embed_dim=shape["width"],
            depth=shape["depth"],
            num_heads=shape["heads"],
            mlp_ratio=shape["mlp_ratio"],
            num_classes=0,
        )
        model.load_state_dict(self.part("backbone."))
        return model

    def cnn(self, prefix: str) -> FeatureModel:
        """A `TinyCNN` with recorded weights and statistics, in float32, as a model that gives features.

        Args:
            prefix: What their names begin with, e.g. ``method.backbone.``.
        """
        net = TinyCNN()
        net.load_state_dict(self.part(prefix), strict=False)  # the counters of BatchNorm are not recorded
        return FeatureModel(net, name="tiny", width=12, image_size=8)

    def clip(self) -> Backbone:
        """The recorded dual encoder, in float32: of ``backbones/NAME.npz`` beside the folder of the case.

        Its token table has the rows of those words that a case uses, the other rows are zero.
        """
        known = _clip(self._folder.parent / "backbones", self.meta["backbone"])
        words = dual_of(known).tokenizer  # is large, and never changes
        return copy.deepcopy(known, {id(words): words})

    def images(self, key: str) -> Tensor:
        """Images ``(..., 3, S, S)`` that belong to `clip`.

        Args:
            key: Of positions in ``backbones/NAME_images.npz``; ``pool`` for all of them.
        """
        with np.load(self._folder.parent / "backbones" / f"{self.meta['backbone']}_images.npz") as arrays:
            pool = torch.from_numpy(arrays["pool.images"]).to(self.dtype)
        return pool if key == "pool" else pool[torch.from_numpy(self.arrays[key])]

    def compare(self, key: str, mine: Tensor | float | None, *, limit: float | None = None) -> None:
        """Notes the largest deviation, relative to the largest number or 1; integers and infinities must be equal.

        Args:
            key: Name without ``f64.``.
            mine: What was computed here.
            limit: Instead of 1e-9 in float64 and 1e-5 in float32.

        Raises:
            AssertionError: It deviates by more, or has another shape.
        """
        assert mine is not None, f"{self.name}: {key} was not computed"
        wanted, got = self.arrays[f"f64.{key}"], torch.as_tensor(mine).detach().numpy()
        assert got.shape == wanted.shape, f"{self.name}: {key} has shape {got.shape}, not {wanted.shape}"
        finite = np.isfinite(wanted)
        exact = np.ones_like(finite) if wanted.dtype.kind == "i" else ~finite
        assert np.array_equal(got[exact], wanted[exact]), f"{self.name}: {key} differs"
        error = 0.0
        if not exact.all():
            error = float(np.abs(got[finite] - wanted[finite]).max() / max(1.0, np.abs(wanted[finite]).max()))
        self.worst[key] = error
        assert error < (LIMITS[self.dtype] if limit is None else limit), f"{self.name}: {key} deviates by {error:.1e}"

    def deviations(self) -> dict[Kind, tuple[float, str]]:
        """The largest deviation of each kind of quantity compared so far, and the quantity."""
        found: dict[Kind, tuple[float, str]] = {}
        for key, error in self.worst.items():
            found[kind_of(key)] = max(found.get(kind_of(key), (0.0, "")), (error, key))
        return found

    def report(self, label: str = "") -> None:
        """Prints the largest deviation of each kind, the largest first; seen with ``pytest -s``."""
        precision = str(self.dtype).removeprefix("torch.")
        for kind, (error, key) in sorted(self.deviations().items(), key=lambda item: -item[1][0]):
            print(f"{self.name:24s} {label:8s} {precision:8s} {kind:10s} {key:40s} {error:.1e}")


@functools.cache
def _clip(folder: Path, name: str) -> Backbone:
    told = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["architecture"]
    with np.load(folder / f"{name}.npz") as arrays:
        state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    rows, ids = state.pop("token_embedding.rows"), state.pop("token_embedding.ids")
    table = torch.zeros(told["vocab_size"], told["transformer_width"])
    table[ids.long()] = rows.to(torch.float32)
    state = {key: value.to(torch.float32) for key, value in state.items()}
    architecture = {
        "embed_dim": told["embed_dim"],
        "quick_gelu": told["activation"] == "QuickGELU",
        "vision_cfg": {
            "image_size": told["image_resolution"],
            "layers": told["vision_layers"],
            "width": told["vision_width"],
            "head_width": told["vision_width"] // told["vision_heads"],
            "patch_size": told["vision_patch_size"],
        },
        "text_cfg": {
            "context_length": told["context_length"],
            "vocab_size": told["vocab_size"],
            "width": told["transformer_width"],
            "heads": told["transformer_heads"],
            "layers": told["transformer_layers"],
        },
    }
    return closed_form.clip_backbone(architecture, {**state, "token_embedding.weight": table}, name=name)
