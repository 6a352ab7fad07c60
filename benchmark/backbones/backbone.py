"""What a pretrained model is to the engine and to methods (loaded by `benchmark.loading`)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor, nn

    from benchmark.backbones.dual import DualEncoder
    from benchmark.backbones.features import FeatureModel


@dataclass(frozen=True, kw_only=True)
class Pretrained(abc.ABC):
    """Weights that a method is given: what engine, checkpoint and record need to know of them.

    Attributes:
        name: As given on the command line, e.g. ``timm:vit_base_patch16_224.augreg_in21k``; of weights that the
            user brought ``custom:FILE-HASH``.
        sha256: Hash of the weight file.
        description: One line: what it is and what it was trained on.
        licence: As its source states it.
        own_weights: Whether the user brought the weights, so that no name of a checkpoint stands for them.
    """

    what: ClassVar[str]
    """What it is, for messages."""
    reads: ClassVar[Literal["image", "text"]]
    """What it is given."""

    name: str
    sha256: str
    description: str = ""
    licence: str = ""
    own_weights: bool = False

    @property
    @abc.abstractmethod
    def module(self) -> nn.Module:
        """Everything that was pretrained: moved to the device, frozen, and kept in a checkpoint where it trains."""

    @property
    def tower(self) -> nn.Module:
        """The part that every prediction goes through: its weights count whether or not a method holds them."""
        return self.module

    def tensors(self) -> list[Tensor]:
        """All that comes from the weight file, and need not be stored again unless it trains."""
        return [*self.module.parameters(), *self.module.buffers()]

    def statistics(self) -> dict[str, Tensor]:
        """What training moves without a gradient, by its name in `module`: its stored buffers, e.g. of BatchNorm."""
        stored = self.module.state_dict(keep_vars=True)
        weights = {id(parameter) for parameter in self.module.parameters()}
        return {name: tensor for name, tensor in stored.items() if id(tensor) not in weights}

    @cached_property
    def parameters(self) -> int:
        """Number of weights of `tower`."""
        return sum(parameter.numel() for parameter in self.tower.parameters())


@dataclass(frozen=True, kw_only=True)
class Backbone(Pretrained):
    """A pretrained vision model and the input it was trained on.

    Attributes:
        model: Without a head, in eval mode: timm's `VisionTransformer` where it is a plain one, with tokens that
            prompts and adapters can join; any other network as a `FeatureModel`, which gives features alone.
        mean: Per channel, the checkpoint's own, for values in [0, 1].
        std: Per channel, likewise.
        dual: The dual encoder that ``model`` is a part of; None where there is no text tower.
        classifier: The checkpoint's own classifier on the feature, frozen; None where its file has none.
            A method that takes it as a part does not store it again.
    """

    what: ClassVar[str] = "a vision backbone"
    reads: ClassVar[Literal["image", "text"]] = "image"

    model: VisionTransformer | FeatureModel
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dual: DualEncoder | None = None
    classifier: nn.Linear | None = None

    @property
    def module(self) -> nn.Module:
        """The model, or the dual encoder around it."""
        return self.model if self.dual is None else self.dual

    @property
    def tower(self) -> nn.Module:
        """The image tower."""
        tower: nn.Module = self.model
        return tower

    def tensors(self) -> list[Tensor]:
        """Those of the module, and the checkpoint's classifier."""
        return [*super().tensors(), *(() if self.classifier is None else self.classifier.parameters())]

    def features(self, images: Tensor) -> Tensor:
        """One feature vector per image, ``(B, D)``, whatever the model is.

        The class token after the final LayerNorm of a plain vision transformer, else what the model pools: its
        checkpoint's classifier reads the same.

        Args:
            images: Normalised, ``(B, 3, S, S)``.
        """
        from benchmark.backbones.prompted_vit import cls_feature

        return cls_feature(self.model, images)

    @property
    def image_size(self) -> int:
        """Side S of the input in pixels."""
        embed = getattr(self.model, "patch_embed", None)
        side = self.model.image_size if embed is None else embed.img_size
        return int(side[0] if isinstance(side, tuple) else side)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels.

        Raises:
            NoTokens: The model has none (`benchmark.backbones.features`).
        """
        return int(self.model.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """Width D of tokens and features."""
        return int(self.model.embed_dim)

    @property
    def depth(self) -> int:
        """Number of blocks.

        Raises:
            NoTokens: The model has none (`benchmark.backbones.features`).
        """
        return len(self.model.blocks)


@dataclass(frozen=True, kw_only=True)
class Nothing(Pretrained):
    """What a method without a pretrained model is built with."""

    what: ClassVar[str] = "no pretrained model"

    name: str = "none"
    sha256: str = ""
    description: str = "no pretrained model"

    @cached_property
    def module(self) -> nn.Module:
        """A module without weights."""
        from torch import nn

        return nn.Module()
