"""Small convolutional networks that run beside a frozen backbone and end in its feature's width.

Shapes: B batch, S side of the images, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import files
from benchmark.backbones import _weight_files
from benchmark.errors import DataMissing

Side = Literal["alexnet", "small"]

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"  # of the file, as its name says
SMALLEST = 64  # pixels: below, nothing is left of an image behind AlexNet's third pooling


class SideNetwork(nn.Module):
    """Convolutional features, flattened channel by channel, and a projection without bias.

    Args:
        kind: ``alexnet``: torchvision's ``features`` and ``avgpool``, ``(B, 256, 6, 6)``; images below 64 px are
            enlarged to 64. ``small``: three convolutions of stride 2 with 32, 64 and 128 channels, averaged to
            ``(B, 128, 2, 2)``, for images of any size from 8 px.
        width: D.
    """

    def __init__(self, kind: Side, width: int) -> None:
        super().__init__()
        self.smallest = SMALLEST if kind == "alexnet" else 8
        if kind == "alexnet":
            from torchvision.models import alexnet

            with torch.device("meta"):  # the classifier, 58 of 61 million weights, is never made
                whole = alexnet(weights=None)
            self.features = whole.features.to_empty(device=torch.get_default_device())
            for layer in self.features:
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()
            self.pool, channels = whole.avgpool, 256 * 6 * 6
        else:
            layers: list[nn.Module] = []
            for inside, outside in ((3, 32), (32, 64), (64, 128)):
                layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.ReLU()]
            self.features, self.pool, channels = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2), 128 * 2 * 2
        self.projection = nn.Linear(channels, width, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features ``(B, D)`` of normalised images ``(B, 3, S, S)``."""
        if images.shape[-1] < self.smallest:
            images = F.interpolate(images, size=(self.smallest, self.smallest), mode="bilinear", align_corners=False)
        features: Tensor = self.projection(self.pool(self.features(images)).flatten(1))
        return features


def load_alexnet(side: SideNetwork, file: Path | None = None, *, sha256: str = ALEXNET_SHA256) -> None:
    """Fills ``side.features`` with torchvision's ImageNet-1k weights; nothing is downloaded.

    Args:
        side: Of kind ``alexnet``.
        file: The checkpoint; None looks where torch.hub keeps it.
        sha256: Beginning of the file's SHA-256.

    Raises:
        DataMissing: The file is absent, is another one, or does not fit.
    """
    path = file or Path(torch.hub.get_dir()) / "checkpoints" / Path(ALEXNET_URL).name
    hint = f"fetch {ALEXNET_URL}, and give the file or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}"
    try:
        digest = files.sha256(path)
    except OSError as error:
        raise DataMissing(f"AlexNet weights {path}: {error.strerror or error}", hint=hint) from error
    if not digest.startswith(sha256):
        raise DataMissing(f"AlexNet weights {path}: SHA-256 is {digest[:12]}..., not {sha256}...", hint=hint)
    state = {
        name.removeprefix("features."): value
        for name, value in _weight_files.read(path).items()
        if name.startswith("features.")
    }
    wanted = side.features.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in wanted.items()}:
        raise DataMissing(f"AlexNet weights {path}: its `features` are not those of torchvision's AlexNet", hint=hint)
    side.features.load_state_dict(state)
