"""A plain convolutional network with BatchNorm, for what a vision transformer has none of: statistics of its batch.

Convolutions of 3x3, each with BatchNorm and ReLU behind it, and the mean over the last map. Its description is two
lists, so that bundled weights need no code of their own (`benchmark.backbones.sources.load_described`).

Shapes: B batch, S side of the input in pixels, D width of the last convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from benchmark.backbones.features import FeatureModel


class ConvNet(nn.Module):
    """Images to features.

    Args:
        widths: Channels of each convolution.
        strides: Stride of each.

    Raises:
        ValueError: There are not as many of one as of the other.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise ValueError(f"{len(widths)} widths, but {len(strides)} strides")
        layers: list[nn.Module] = []
        before = 3
        for width, stride in zip(widths, strides, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, D)`` of normalised images ``(B, 3, S, S)``."""
        features: Tensor = self.body(images).mean(dim=(2, 3))
        return features


def feature_model(name: str, widths: Sequence[int], strides: Sequence[int], image_size: int) -> FeatureModel:
    """A `ConvNet` with random weights, as a backbone is made of.

    Args:
        name: Of the architecture, for messages.
        widths: Of its convolutions.
        strides: Of its convolutions.
        image_size: S.
    """
    net = ConvNet(widths, strides)
    return FeatureModel(net, name=name, width=widths[-1], image_size=image_size, why="is a convolutional network")
