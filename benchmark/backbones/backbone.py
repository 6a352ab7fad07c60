"""What a pretrained model is to the engine and to methods (loaded by `benchmark.loading`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from benchmark.backbones.dual import DualEncoder


@dataclass(frozen=True)
class Backbone:
    """A pretrained vision transformer and the input it was trained on.

    Attributes:
        name: As given on the command line, e.g. ``timm:vit_base_patch16_224.augreg_in21k``; of weights that the
            user brought ``custom:FILE-HASH``.
        model: timm `VisionTransformer` without a head, in eval mode. Of some dual encoders it is another
            image tower; `benchmark.backbones.prompted_vit.check_promptable` says so.
        mean: Per channel, the checkpoint's own, for values in [0, 1].
        std: Per channel, likewise.
        sha256: Hash of the weight file.
        description: One line: what it is and what it was trained on.
        licence: As its source states it.
        dual: The dual encoder that ``model`` is a part of; None where there is no text tower.
        classifier: The checkpoint's own classifier on the class token, frozen; None where its file has none.
            A method that takes it as a part does not store it again.
        own_weights: Whether the user brought the weights, so that no name of a checkpoint stands for them.
    """

    name: str
    model: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    description: str = ""
    licence: str = ""
    dual: DualEncoder | None = None
    classifier: nn.Linear | None = None
    own_weights: bool = False

    @property
    def pretrained(self) -> nn.Module:
        """Everything that was pretrained: the model, or the dual encoder around it."""
        return self.model if self.dual is None else self.dual

    @property
    def image_size(self) -> int:
        """Side S of the input in pixels."""
        embed = getattr(self.model, "patch_embed", None)
        side = self.model.image_size if embed is None else embed.img_size
        return int(side[0] if isinstance(side, tuple) else side)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """Token width D."""
        return int(self.model.embed_dim)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    @cached_property
    def parameters(self) -> int:
        """Number of weights of the image tower."""
        return sum(parameter.numel() for parameter in self.model.parameters())
