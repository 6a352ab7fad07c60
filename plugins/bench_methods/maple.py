"""MaPLe: deep prompts in both towers of CLIP; those of the image tower are linear images of those of the text tower.

Paper: Khattak, Rasheed, Maaz, Khan, Khan. MaPLe: Multi-modal Prompt Learning, CVPR 2023, arXiv 2210.03117.
Official code: muzairkhattak/multimodal-prompt-learning at 69bce21a on KaiyangZhou/Dassl.pytorch at c61a1b57. Logits,
loss, gradients, three steps of SGD and a whole run with warm-up and cosine equal theirs
(tests/unit/methods/test_clip_towers_golden.py, ``tests/golden/newer_clip/maple``). Written anew, no code taken.

n vectors take the place of the first n words of "a photo of a NAME."; at the entry of each of the next J - 1 blocks
others take theirs. A linear map for each block makes prompts of the image tower from them: those of the first block
are appended behind the positions and before the first norm, the others replace them from block to block.

Differences from the official code:
- float32. The official code rounds visual and deep prompts to half precision whatever the run's precision is.
- The widths of the towers stand where the official code has 512 and 768.
- More blocks with prompts than the tower has are an error; the official code leaves the surplus unused.
- The last batch is used, and in streams of experiences the classes of the experience compete.

Trainable (ViT-B/16, n = 2, J = 9): 3,555,072. Expected (base-to-new, mean of 11 data sets): 82.28 / 75.14, H 78.55
(README). Not yet reproduced here; users get 90.0 instead of 94.1 on EuroSAT's base classes (its issue #28).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from bench_methods._deep_prompts import DeepConfig, DeepLearner
from benchmark import hookimpl
from benchmark.api import Batch, Context
from benchmark.backbones.two_towers import Coupling, image_features
from benchmark.learners.named import DASSL
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MaPLeConfig(DeepConfig):
    """Options of MaPLe; the defaults are its base-to-new setting. See `DeepConfig`."""

    epochs: int = 5
    lr: float = 0.0035


class MaPLe(DeepLearner):
    """Text prompts and the maps to the image tower train."""

    config: MaPLeConfig

    def __init__(self, config: MaPLeConfig, context: Context) -> None:
        super().__init__(config, context, vision=None)
        self.coupling = Coupling(self.dual, depth=config.depth)
        self.to(context.device)

    def image_features(self, images: Tensor) -> Tensor:
        """Features ``(B, d)``, not normalised."""
        return image_features(self.dual, images, prompts=self.coupling(self.prompts.text))

    def losses(self, batch: Batch, places: Tensor) -> Mapping[str, Tensor]:
        """The cross-entropy."""
        logits = self.dual.logits(self.image_features(batch.images), self.training_texts())
        return {"loss": F.cross_entropy(logits, places)}


# What a track changes is spelled out, so that a published recipe means the same on every track.
_PAPER: dict[str, object] = {
    "epochs": 5,
    "batch_size": 4,
    "augment": True,
    "vectors": 2,
    "words": "a photo of a",
    "depth": 9,
    "lr": 0.0035,
    "warmup": 1,
}
_CODE = "muzairkhattak/multimodal-prompt-learning at 69bce21a"
SOURCES = {
    "paper-base-to-new": f"{_CODE}, configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml",
    "official": "the same, with its budget on every track",
    "paper-cross-dataset": f"{_CODE}, vit_b16_c2_ep5_batch4_2ctx_cross_datasets.yaml",
    "lr": f"{_CODE}, configs",
    "depth": f"{_CODE}, configs",
    "vectors": f"{_CODE}, configs",
    "warmup": f"{_CODE}, configs: first epoch at 1e-5, which is one of five, and one of two",
    "momentum": DASSL,
    "weight_decay": DASSL,
    "mask": "adaptbench: the paper has one experience",
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``maple``."""
    return [
        MethodSpec(
            name="maple",
            build=MaPLe,
            config=MaPLeConfig,
            display="MaPLe",
            summary="MaPLe: deep prompts in both towers of CLIP, coupled by linear maps",
            uses=frozenset({"boundaries", "class_names", "open_vocabulary"}),
            recipes={
                "official": _PAPER,
                "paper-cross-dataset": {**_PAPER, "epochs": 2, "depth": 3, "lr": 0.0026},
            },
            default_recipe="paper-base-to-new",
            tracks={
                "nano": {
                    "augment": False,
                    "epochs": 3,
                    "batch_size": 16,
                    "words": "a drawing of",
                    "depth": 2,
                    "lr": 0.01,
                },
                "mini": {"epochs": 2, "batch_size": 16, "lr": 0.01},
            },
            rule="nano, lr: results/search.py, best on held-out training images; nano and mini: smaller budgets at "
            "larger batches, a guess; paper: published",
            toy={"epochs": 1, "depth": 2},
            sources=SOURCES,
            paper="arXiv:2210.03117",
            reference="muzairkhattak/multimodal-prompt-learning@69bce21a",
            text=True,
            tokens=True,
            published="maple",
        )
    ]
