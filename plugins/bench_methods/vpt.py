"""VPT: trained prompts in the input of a frozen ViT (``vpt-shallow``), or in that of every block (``vpt-deep``).

Paper: Jia, Tang, Chen, Cardie, Belongie, Hariharan, Lim. Visual Prompt Tuning, ECCV 2022, arXiv 2203.12119.
Official code: KMnP/vpt at 4410440, ``src/models/vit_prompt/vit.py`` and ``vit_ablations.py``, whose switches are
options here. Features, losses, gradients and three steps equal theirs to 1e-9 in float64
(tests/unit/methods/test_visual_prompts_golden.py). Written anew, no code taken.

Differences from the paper and the official code:
- In a stream the experiences are trained in turn with the same prompts; the paper has one task. The default trains
  with Adam; ``@vpt`` has the paper's protocol at one point of its grid; ``@masked`` lets only the current classes
  compete. ``prompts=off`` is the control: the same head on the class token.
- Prompts stand behind the patches, not between them and the class token. They have no positions, so nothing
  changes; what is thrown away before the next block is not computed. On a ViT with ``norm_pre`` it covers them.
- ``direction=last`` puts prompts between all tokens. The released code also removes p patches there, which it
  takes for old prompts: ``lost_patches``, recipe ``last-2-official``.
- ``shared`` has one tensor; the official code also counts deep prompts that are never used.
- Prompts from class means (``init``) are computed from the first experience, one prompt a class; the official code
  reads a file. Pixels that are normalised (``pad``, ``prepend-pixel-imgnettransform``) are so like the input.
- Prompt lengths of the recipes for ``pad`` and ``below``: adaptbench; the paper searches them.
- Not here: Swin, MAE, ConvNets; images of rectangular patches are fine, register tokens are refused.

Trainable without the head: p D (shallow), L p D (deep); ViT-B/16 and p = 100: 921,600 of 86,724,870 with 6 classes
(their demo notebook). Expected (ViT-B/16 orig_in21k, VTAB-1k Natural / Specialized / Structured, FGVC): shallow 76.81
/ 79.66 / 46.98, 84.62; deep 78.48 / 82.43 / 54.98, 89.11 (paper, Table 1). One prompt trained through 5-datasets ends
at 51.96 (L2P paper, Table 5). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench_methods._recipes import VPT_SGD, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context, ExperienceView
from benchmark.backbones.selection import biases
from benchmark.backbones.visual_prompts import (
    BorderPrompts,
    ChannelPrompts,
    PixelInit,
    PixelPrompts,
    Readout,
    TokenLocation,
    TokenPrompts,
    VisualPrompts,
    cls_states,
    prompted_features,
)
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.classifier import Classifier, ClassifierConfig, Optimizer
from benchmark.specs import MethodSpec

Location = Literal[
    "prepend",
    "add",
    "add-1",
    "prepend-pixel",
    "prepend-pixel-gaussian",
    "prepend-pixel-imgnettransform",
    "pad",
    "below",
]
Init = Literal["random", "final-cls", "cls-nolastl", "cls-nofirstl"]
Transfer = Literal["prompt", "prompt+bias", "prompt-noupdate", "cls", "cls-reinit", "cls+prompt", "cls-reinit+prompt"]
TOKENS: tuple[TokenLocation, ...] = ("prepend", "add", "add-1")
PIXELS: dict[str, PixelInit] = {
    "prepend-pixel": "uniform",
    "prepend-pixel-gaussian": "gaussian",
    "prepend-pixel-imgnettransform": "image",
}
CHUNK = 64  # images at once, for class means


@dataclass(frozen=True, kw_only=True, slots=True)
class VPTConfig(ClassifierConfig):
    """Options of VPT-Shallow, and most of VPT-Deep.

    Attributes:
        prompts: ``off`` is the control: the same head on the class token, and nothing else trains.
        location: ``prepend``: p more tokens. ``add``, ``add-1``: a vector for each token, or one for all, is
            added. ``prepend-pixel``: p more patches of pixels, drawn like tokens, from a normal distribution
            (``-gaussian``) or as an image (``-imgnettransform``). ``pad``: a frame of p pixels. ``below``: p more
            channels, with which the patch embedding trains.
        prompt_length: p; ``add`` and ``add-1`` do not read it. 0 with an ``init`` from classes: as many.
        project: Width from which a trained linear map leads to that of the backbone; 0 for none.
        prompt_dropout: Rate on token prompts, a mask for each image and block.
        init: ``random``: uniform within ``sqrt(6 / (3 P^2 + D))``. From the mean class token of each class of the
            first experience: ``final-cls`` behind the last block; ``cls-nolastl`` in front of the block that the
            prompt enters; ``cls-nofirstl`` behind it.
        readout: Head input: class token, or mean of the patch tokens (``image``), of the prompt tokens or of both
            (``global``).
        transfer: What trains besides the head, in the words of KMnP/vpt; ``cls`` is the class token, drawn anew
            with ``cls-reinit``; ``cls`` alone has no prompts.
    """

    epochs: int = 5
    lr: float = 0.01
    optimizer: Optimizer = "adam"
    prompts: Literal["on", "off"] = "on"
    location: Location = "prepend"
    prompt_length: int = 10
    project: Annotated[int, Range(min=0)] = 0
    prompt_dropout: Annotated[float, Range(min=0, below=1)] = 0.0
    init: Init = "random"
    readout: Readout = "cls"
    transfer: Transfer = "prompt"

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        tokens = self.location in TOKENS
        if self.prompt_length < (0 if self.init != "random" else 1):
            raise ValueError(f"prompt_length: {self.prompt_length} is too small; use 1 or more")
        for name in ("project", "prompt_dropout"):
            if getattr(self, name) and not tokens:
                raise ValueError(f"{name}: has no effect with location `{self.location}`; use 0")
        if self.init != "random" and (self.location != "prepend" or self.project or self.prompt_length):
            raise ValueError(
                f"init: `{self.init}` makes one prompt a class: it needs prompt_length 0, project 0, location `prepend`"
            )
        prepends = self.location.startswith("prepend") and self.with_prompts
        if self.readout == "prompt" and not prepends:
            raise ValueError("readout: `prompt` needs prompt tokens; use cls, image or global")

    @property
    def with_prompts(self) -> bool:
        """Whether there are prompts."""
        return self.prompts == "on" and "prompt" in self.transfer


@dataclass(frozen=True, kw_only=True, slots=True)
class VPTDeepConfig(VPTConfig):
    """Options of VPT-Deep: those of VPT-Shallow, with the location ``prepend``, ``add`` or ``add-1``, and where.

    Attributes:
        depth: Blocks that get prompts of their own; 0 for all.
        direction: Whether they are the ``first`` or the ``last`` blocks.
        expand: Whether the outputs of the last prompts go on as tokens; else they are removed.
        shared: The same prompts in front of every block.
        lost_patches: With ``direction=last``, as released: p patches are lost at the first prompted block.
    """

    prompt_dropout: float = 0.1
    depth: Annotated[int, Range(min=0)] = 0
    direction: Literal["first", "last"] = "first"
    expand: bool = True
    shared: bool = False
    lost_patches: bool = False

    def __post_init__(self) -> None:
        if self.location not in TOKENS:
            raise ValueError(f"location: `{self.location}` is for vpt-shallow; use one of {', '.join(TOKENS)}")
        VPTConfig.__post_init__(self)
        prepended = self.location == "prepend"
        if not self.expand and not (prepended and self.direction == "first"):
            raise ValueError("expand: false needs location `prepend` and direction `first`")
        if self.lost_patches and not (prepended and self.direction == "last" and self.init == "random"):
            raise ValueError("lost_patches: needs location `prepend`, direction `last` and init `random`")
        if self.init != "random" and (self.depth or self.shared):
            raise ValueError(f"init: `{self.init}` is for prompts in every block; use depth 0 and shared false")


class VPT(Classifier):
    """Prompts and head train; what else does, `VPTConfig.transfer` says."""

    config: VPTConfig

    def __init__(self, config: VPTConfig, context: Context) -> None:
        super().__init__(config, context)
        self.visual = self._make_prompts() if config.with_prompts else VisualPrompts()
        if config.readout == "prompt" and config.init == "random" and self.visual.last == 0:
            raise UsageError("readout: no prompt tokens come out of the last block", hint="use cls, image or global")
        parts = config.transfer.split("+") if config.prompts == "on" else []
        if "prompt-noupdate" in parts:
            self.visual.requires_grad_(False)
        elif isinstance(self.visual, ChannelPrompts):
            self.backbone.patch_embed.proj.requires_grad_(True)
        if "bias" in parts:
            for parameter in biases(self.backbone):
                parameter.requires_grad_(True)
        if "cls" in parts or "cls-reinit" in parts:
            self.backbone.cls_token.requires_grad_(True)
        if "cls-reinit" in parts:
            with torch.no_grad():
                self.backbone.cls_token.normal_(std=1e-6)
        self.to(context.device)

    def _make_prompts(self) -> VisualPrompts:
        config, vit, normalize = self.config, self.backbone, self.context.image_pipeline.normalize
        if config.location in PIXELS:
            return PixelPrompts(vit, config.prompt_length, init=PIXELS[config.location], normalize=normalize)
        if config.location == "pad":
            return BorderPrompts(vit, config.prompt_length, normalize=normalize)
        if config.location == "below":
            return ChannelPrompts(vit, config.prompt_length)
        where: dict[str, Any] = {}
        if isinstance(config, VPTDeepConfig):
            blocks = len(vit.blocks)
            depth = config.depth or blocks
            if depth > blocks:
                raise UsageError(f"depth: {depth} is more than this backbone has blocks ({blocks})")
            where = {
                "layers": range(depth) if config.direction == "first" else range(blocks - depth, blocks),
                "shared": config.shared,
                "expand": config.expand,
                "lost": config.lost_patches,
            }
        return TokenPrompts(
            vit,
            config.prompt_length,
            location=config.location,  # type: ignore[arg-type]  # the other ones returned above
            project=config.project,
            dropout=config.prompt_dropout,
            **where,
        )

    def begin_experience(self, experience: ExperienceView) -> None:
        """Makes prompts from the first classes, where they come from classes; then rows and optimiser."""
        if isinstance(self.visual, TokenPrompts) and self.visual.length == 0:
            self.visual.set_rows(self._class_prompts(experience, len(self.visual.layers)))
        super().begin_experience(experience)

    def _class_prompts(self, experience: ExperienceView, layers: int) -> Tensor:
        """Mean class tokens of the experience's classes, ``(layers, classes, D)``."""
        labels = experience.train.labels.to(self.context.device)
        classes, place = torch.unique(labels, return_inverse=True)
        states = []
        for first in range(0, len(labels), CHUNK):
            part = slice(first, first + CHUNK)
            raw = experience.train.images(part).to(self.context.device)
            states.append(cls_states(self.backbone, self.context.pipeline.eval(raw)))
        every = torch.cat(states, dim=1)  # (L + 1, images, D)
        sums = every.new_zeros(len(every), len(classes), every.shape[2]).index_add_(1, place, every)
        means: Tensor = sums / place.bincount().unsqueeze(1)
        if self.config.init == "final-cls":
            return means[-1:].expand(layers, -1, -1)
        return means[:layers] if self.config.init == "cls-nolastl" else means[1 : 1 + layers]

    def features(self, images: Tensor) -> Tensor:
        """What `VPTConfig.readout` says of the prompted pass, ``(B, D)``."""
        return prompted_features(self.backbone, images, self.visual, self.config.readout)


# Names of the paper's ablations; what a track changes besides stays as the track says. lr and weight_decay: two of the
# three data sets in KMnP/vpt's demo.ipynb.
_VPT: dict[str, object] = {**VPT_SGD, "batch_size": 128, "lr": 1.0, "weight_decay": 0.001, "prompt_length": 10}
BOTH: dict[str, dict[str, object]] = {
    "masked": {"mask": "current"},
    "vpt": _VPT,
    "add": {"location": "add"},
    "add-1": {"location": "add-1"},
    "image-pool": {"readout": "image"},
    "prompt-pool": {"readout": "prompt"},
    "global-pool": {"readout": "global"},
    "project": {"project": 16},
    "final-cls": {"init": "final-cls", "prompt_length": 0},
    "cls-nolastl": {"init": "cls-nolastl", "prompt_length": 0},
    "cls-nofirstl": {"init": "cls-nofirstl", "prompt_length": 0},
    "prompt-bias": {"transfer": "prompt+bias"},
    "prompt-noupdate": {"transfer": "prompt-noupdate"},
}
SHALLOW: dict[str, dict[str, object]] = {
    **BOTH,
    "vpt": {**_VPT, "lr": 5.0, "prompt_dropout": 0.0},
    "prepend-pixel": {"location": "prepend-pixel"},
    "prepend-pixel-gaussian": {"location": "prepend-pixel-gaussian"},
    "prepend-pixel-imgnettransform": {"location": "prepend-pixel-imgnettransform"},
    "pad": {"location": "pad", "prompt_length": 8},
    "below": {"location": "below", "prompt_length": 1},
    "cls": {"transfer": "cls"},
    "cls-reinit": {"transfer": "cls-reinit"},
    "cls-prompt": {"transfer": "cls+prompt"},
    "cls-reinit-prompt": {"transfer": "cls-reinit+prompt"},
}
DEEP: dict[str, dict[str, object]] = {
    **BOTH,
    "vpt": {**_VPT, "prompt_dropout": 0.1},
    "first-2": {"depth": 2},
    "first-2-no-expand": {"depth": 2, "expand": False},
    "last-2": {"depth": 2, "direction": "last"},
    "last-2-official": {"depth": 2, "direction": "last", "lost_patches": True},
    "shared": {"shared": True},
}
SOURCES = {
    "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
    "vpt": f"{VPT_SOURCE}; prompt_length: one of the searched 1, 5, 10, 50, 100, 200",
    "optimizer": "adaptbench; KMnP/vpt trains prompts with SGD",
    "prompt_length": "adaptbench: one of the lengths that the paper searches",
    "prompt_dropout": "paper and KMnP/vpt demo.ipynb: 0.1 deep, 0 shallow",
    "project": "KMnP/vpt has the switch; the width is adaptbench's",
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``vpt-shallow`` and ``vpt-deep``."""
    rule = "results/search.py: best on held-out training images of the first experiences"
    return [
        MethodSpec(
            name="vpt-shallow",
            build=VPT,
            config=VPTConfig,
            summary="prompts in the input of a frozen ViT, and the head, train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes=SHALLOW,
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule=rule,
            sources=SOURCES,
            paper="arXiv:2203.12119",
            reference="KMnP/vpt@4410440",
            published="vpt-shallow",
        ),
        MethodSpec(
            name="vpt-deep",
            build=VPT,
            config=VPTDeepConfig,
            summary="prompts in the input of every block of a frozen ViT, and the head, train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes=DEEP,
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule=rule,
            sources=SOURCES,
            paper="arXiv:2203.12119",
            reference="KMnP/vpt@4410440",
            published="vpt-deep",
        ),
    ]
