"""Models that give features and no tokens: ResNets (CLIP's too), ConvNeXt, Swin, ViTs with registers or other pooling.

A `FeatureModel` stands where a plain vision transformer would: methods that read one feature vector per image
(`benchmark.backbones.prompted_vit.cls_feature`, `benchmark.backbones.backbone.Backbone.features`) run on it unchanged.
Whoever asks it for what prompts, prefixes and adapters are put into (blocks, patch embedding, class token) is told
why there is none.

**BatchNorm.** In eval mode, in which a frozen backbone stays (`benchmark.api.Method.frozen`), running statistics are
used and stay as the weight file has them. In training mode, that of a method that trains the backbone, a batch is
normalised by its own statistics and moves the running ones; they are part of the checkpoint of a run. A training
batch of one image may have no variance: it uses the running statistics and leaves them.

Shapes: B batch, D width, S side of the input in pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.errors import UsageError

TOKENS = frozenset(
    {
        "attn_pool",
        "blocks",
        "cls_token",
        "norm_pre",
        "num_prefix_tokens",
        "no_embed_class",
        "patch_embed",
        "pos_drop",
        "pos_embed",
    }
)
"""What methods ask a vision transformer for, besides features."""
PLAIN = "use a plain ViT, e.g. timm:vit_base_patch16_224.augreg_in21k, or a method on features, e.g. linear-probe"


class NoTokens(UsageError, AttributeError):
    """A model without tokens was asked for them; as an `AttributeError` it tells ``hasattr`` and ``getattr``."""


def no_tokens(who: str, model: str, why: str) -> NoTokens:
    """The error that says why a method cannot run on a model.

    Args:
        who: Subject of the sentence: the method.
        model: Name of the model.
        why: ``has none``, or what it has instead.
    """
    return NoTokens(f"{who} needs a vision transformer's tokens; {model} {why}", hint=PLAIN)


def check_tokens(model: nn.Module) -> None:
    """Makes sure that a model has more than features, for what would only find out later.

    Raises:
        NoTokens: It has not.
    """
    if isinstance(model, FeatureModel):
        raise no_tokens("this method", model.name, model.why)


class FeatureModel(nn.Module):
    """A network that maps images to one feature vector each.

    Args:
        net: Maps normalised images ``(B, 3, S, S)`` to features ``(B, D)``, or to a tuple that begins with them.
        name: Of the architecture, for messages.
        why: Why it has no tokens, as the end of a sentence: ``has none``.
        width: D.
        image_size: S.

    Attributes:
        embed_dim: D, as a vision transformer of timm calls it.
    """

    def __init__(self, net: nn.Module, *, name: str, width: int, image_size: int, why: str = "has none") -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.why = why
        self.embed_dim = width
        self.image_size = image_size

    def __getattr__(self, name: str) -> Any:
        if name in TOKENS:
            check_tokens(self)
        return super().__getattr__(name)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, D)`` of normalised images ``(B, 3, S, S)``."""
        with still_norms(self.net) if self.training and len(images) == 1 else contextlib.nullcontext():
            found = self.net(images)
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features


@contextlib.contextmanager
def still_norms(net: nn.Module) -> Iterator[None]:
    """Inside, every BatchNorm normalises by its running statistics and leaves them as they are."""
    norms = [part for part in net.modules() if isinstance(part, _BatchNorm) and part.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
