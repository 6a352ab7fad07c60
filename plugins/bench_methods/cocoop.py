"""CoCoOp: a small network adds to the learned context a vector that depends on the image.

Paper: Zhou, Yang, Loy, Liu. Conditional Prompt Learning for Vision-Language Models, CVPR 2022, arXiv 2203.05557.
Official code: KaiyangZhou/CoOp at ff61507c on KaiyangZhou/Dassl.pytorch at c61a1b57. Logits, loss, gradients and two
steps of SGD equal theirs (tests/unit/methods/test_cocoop_golden.py). Written anew, no code taken.

``v = f(x) / |f(x)|``, ``ctx(x) = ctx + h(v)`` with one vector h(v) for all M places, then CoOp with a context per
image. h is the Meta-Net: a layer of d / 16 units, ReLU, a layer of the text tower's width.

Differences from the official code:
- The prompts of a batch go through the text tower together instead of image by image, about ``rows`` texts at a time:
  the same gradients to rounding. What the texts of an image begin with alike passes the tower once per image.
- float32; the official default trains in half precision.
- Image features come from the engine, and streams of experiences are handled as in `coop`.

The published batch is one image: larger ones make fewer steps. Prediction costs a pass of the text tower per image and
class, about which nothing can be kept.

Expected (ViT-B/16): base-to-new, mean of 11 data sets: 80.47 / 71.69, H 75.83; ImageNet to ten others: 65.74 (paper,
as copied in arXiv 2512.06811). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._context_learner import ContextConfig, ContextLearner
from benchmark import hookimpl
from benchmark.api import Batch, Context
from benchmark.backbones.text_prompts import TextPrompts
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.named import DASSL, features_of
from benchmark.specs import MethodSpec

REDUCTION = 16  # width of the features relative to the hidden layer


@dataclass(frozen=True, kw_only=True, slots=True)
class CoCoOpConfig(ContextConfig):
    """Options of CoCoOp; the defaults are its published setting.

    Attributes:
        rows: Texts that are encoded at once, images times classes: bounds the memory, changes nothing else. At
            least the texts of one image.
    """

    epochs: int = 10
    batch_size: int = 1
    vectors: int = 4
    words: str = "a photo of a"
    rows: Annotated[int, Range(min=1)] = 1024


class CoCoOp(ContextLearner):
    """Context and Meta-Net train."""

    config: CoCoOpConfig

    def __init__(self, config: CoCoOpConfig, context: Context) -> None:
        super().__init__(config, context)
        width = self.dual.feature_width
        if width < REDUCTION:
            raise UsageError(
                f"the features of `{context.backbone.name}` are {width} wide, CoCoOp needs {REDUCTION} or more",
                hint="use another backbone, or coop",
            )
        self.meta_net = nn.Sequential(
            nn.Linear(width, width // REDUCTION), nn.ReLU(), nn.Linear(width // REDUCTION, self.dual.text_width)
        )
        self.to(context.device)

    def logits(self, features: Tensor, prompts: TextPrompts) -> Tensor:
        """Logits ``(B, C)`` of the classes of ``prompts``.

        Args:
            features: Image features ``(B, d)``, not normalised.
            prompts: Texts of C classes.
        """
        v = F.normalize(features, dim=-1)
        ctx = self.ctx.vectors + self.meta_net(v).unsqueeze(1)  # (B, M, d_t)
        t = F.normalize(prompts.features(ctx.unsqueeze(1), chunk=self.config.rows), dim=-1)  # (B, C, d)
        return self.dual.logit_scale.exp() * torch.einsum("bd,bcd->bc", v, t)

    def losses(self, batch: Batch, places: Tensor) -> Mapping[str, Tensor]:
        """The cross-entropy; all prompts of the batch stay in memory."""
        return {"loss": F.cross_entropy(self.logits(features_of(batch), self.training_prompts()), places)}

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step, some images at a time so that only their passes are kept in memory."""
        features, places, prompts = features_of(batch), self.places(batch.labels), self.training_prompts()
        self.set_rate(batch.place)
        optimizer = self.active_optimizer
        optimizer.zero_grad(set_to_none=True)
        total = features.new_zeros(())
        size = max(1, self.config.rows // len(prompts))
        for some, right in zip(torch.split(features, size), torch.split(places, size), strict=True):
            loss = F.cross_entropy(self.logits(some, prompts), right, reduction="sum") / len(features)
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return {"loss": total}

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name."""
        return self.logits(self.encode(images), self.bank.prompts(names))


# What a track changes is spelled out, so that a published recipe means the same on every track.
_PAPER: dict[str, object] = {"epochs": 10, "batch_size": 1, "augment": True, "views": 0, "lr": 0.002, "warmup": 1}
RECIPES: dict[str, dict[str, object]] = {
    "ctxv1": {**_PAPER, "vectors": 4, "words": "a photo of a"},
    "random-4": {**_PAPER, "vectors": 4, "words": ""},
    "random-8": {**_PAPER, "vectors": 8, "words": ""},
    "random-16": {**_PAPER, "vectors": 16, "words": ""},
    "pda-source-only": {**_PAPER, "vectors": 16, "words": "", "lr": 0.001, "batch_size": 32},
}
SOURCES = {
    "published": "configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml at ff61507c",
    "ctxv1": "the same, with its budget on every track",
    "random-4": "configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1.yaml at ff61507c",
    "random-8": "configs/trainers/CoCoOp/vit_b16_c8_ep10_batch1.yaml at ff61507c",
    "random-16": "configs/trainers/CoCoOp/vit_b16_c16_ep10_batch1.yaml at ff61507c",
    "pda-source-only": "BaiShuanghao/Prompt-based-Distribution-Alignment at 21b0f444, README",
    "lr": "configs/trainers/CoCoOp at ff61507c",
    "warmup": "configs/trainers/CoCoOp at ff61507c: first epoch at 1e-5; the period stays `epochs`, as in Dassl",
    "momentum": DASSL,
    "weight_decay": DASSL,
    "mask": "adaptbench: the paper has one experience",
    "views": "adaptbench; 0 is the official way",
    "rows": "adaptbench; the official code takes one image at a time",
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``cocoop``."""
    return [
        MethodSpec(
            name="cocoop",
            build=CoCoOp,
            config=CoCoOpConfig,
            summary="CoCoOp: CoOp with a context that depends on the image",
            uses=frozenset({"boundaries", "class_names", "open_vocabulary"}),
            recipes=RECIPES,
            default_recipe="published",
            tracks={
                "nano": {
                    "augment": False,
                    "epochs": 2,
                    "batch_size": 16,
                    "vectors": 3,
                    "words": "a drawing of",
                    "lr": 0.01,
                },
                "mini": {"views": 2, "epochs": 2, "batch_size": 16, "vectors": 4, "words": "", "lr": 0.01},
            },
            rule="nano, lr: results/search.py, best on held-out training images; mini: a guess; paper: published",
            sources=SOURCES,
            paper="arXiv:2203.05557",
            reference="KaiyangZhou/CoOp@ff61507c",
            text=True,
            published="cocoop",
        )
    ]
