"""Visual prompting of a dual encoder: one pattern of pixels trains, the texts of the classes classify.

Paper: Bahng, Jahanian, Sankaranarayanan, Isola. Exploring Visual Prompts for Adapting Large-Scale Models, 2022, arXiv
2203.17274.
Official code: hjbahng/visual_prompting at 679e71f, ``main_clip.py``; `bench_methods.visual_prompting` has the same
prompts for a ViT alone, and says what differs from the official code in both. Written anew, no code taken.

Differences from the paper and the official code:
- In a stream the experiences are trained in turn with the same pattern, and the classes seen so far compete; the paper
  has one task.
- The texts are encoded once per experience, which changes nothing: their tower is frozen.
- Not here: one of several templates for each class (ILM-VP's mapping for CLIP).

Trainable: 69,840 (padding 30, 224 px). Expected: CLIP ViT-B/16, 16 shots, mean of 11 data sets 74.4; ViT-B/32 68.3 (RVP
paper, Tables 1 and 3). No figure for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench_methods._pixel_prompting import OFFICIAL, PROMPTS, SOURCES, PixelConfig, PixelPrompting, uses
from benchmark import hookimpl
from benchmark.api import Context, ExperienceView
from benchmark.backbones.dual import dual_of
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class VisualPromptingClipConfig(PixelConfig):
    """Options of visual prompting of a dual encoder.

    Attributes:
        template: Text of a class; ``{}`` is its name in lower case.
    """

    template: str = "This is a photo of a {}"

    def __post_init__(self) -> None:
        PixelConfig.__post_init__(self)
        if "{}" not in self.template:
            raise ValueError(f"template: {self.template!r} has no place for the class; put {{}} where the name goes")


class VisualPromptingClip(PixelPrompting):
    """A dual encoder, and the texts of the classes seen."""

    config: VisualPromptingClipConfig

    def __init__(self, config: VisualPromptingClipConfig, context: Context) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone).requires_grad_(False).eval()
        self._seen: tuple[str, ...] = ()
        self._texts = torch.empty(0)  # (C, d), made anew from the names in every experience
        self._named: tuple[Sequence[str], Tensor] = ((), self._texts)
        self.to(context.device)

    def encode(self, images: Tensor) -> Tensor:
        """Image features ``(B, d)``."""
        return self.dual.image_features(images)

    def classify(self, features: Tensor) -> Tensor:
        """Scaled cosines to the texts."""
        return self.dual.logits(features, self._texts)

    def texts(self, names: Sequence[str]) -> Tensor:
        """Text features ``(len(names), d)`` of class names."""
        with torch.no_grad():
            return self.dual.class_features([name.lower().replace("-", " ") for name in names], [self.config.template])

    def meet(self, experience: ExperienceView) -> None:
        """Encodes the names of the classes seen."""
        self._learn(experience.class_names)

    def _learn(self, names: Sequence[str]) -> None:
        self._seen = tuple(names)
        self._texts = self.texts(self._seen)

    def extra_state(self) -> Mapping[str, Any]:
        """The names of the classes seen; their texts are made anew."""
        return {"names": list(self._seen)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `extra_state` returned."""
        if state["names"]:
            self._learn(state["names"])

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes known by name."""
        if self._named[0] != tuple(names):
            self._named = (tuple(names), self.texts(names))
        return self.dual.logits(self.encode(self.prompted(images, training=False)), self._named[1])


def uses_text(config: PixelConfig) -> frozenset[str]:
    """The form with texts reads class names, and takes any."""
    return uses(config) | {"class_names", "open_vocabulary"}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``visual-prompting-clip``."""
    return [
        MethodSpec(
            name="visual-prompting-clip",
            build=VisualPromptingClip,
            config=VisualPromptingClipConfig,
            summary="a pattern of pixels on every image trains; the dual encoder is frozen, class names classify",
            text=True,
            uses=uses_text,
            recipes={
                **PROMPTS,
                "clip": {**OFFICIAL, "normalize": "clip", "batch_size": 256},
                "ilm-additive": {
                    **OFFICIAL,
                    "prompt": "additive",
                    "warmup_steps": 0,
                    "epochs": 200,
                    "normalize": "clip",
                },
            },
            tracks={
                "nano": {"batch_size": 32, "lr": 0.1, "epochs": 2},
                "mini": {"batch_size": 64, "lr": 0.03, "epochs": 1},
            },
            rule="carried over from visual-prompting, not searched",
            sources={
                **SOURCES,
                "clip": "hjbahng/visual_prompting main_clip.py; last instead of best test epoch, no mixed precision",
                "ilm-additive": "ILM-VP, its recipe for CLIP, with one template",
                "template": "hjbahng/visual_prompting main_clip.py",
            },
            paper="arXiv:2203.17274",
            reference="hjbahng/visual_prompting@679e71f",
            published="visual-prompting",
        ),
    ]
