"""Random views of images at test time, for methods that answer by several of them.

A method is given normalised images; views are made of images in [0, 1] and normalised again. Two ways to draw:

- `Views.jittered` draws one view of a whole batch from torch's global generator, which the engine seeds before every
  batch of a test stream (CoTTA);
- `Views.mixed` and `Views.cropped` draw views of one image from that image itself and a seed, so they depend neither on
  its place in the stream nor on other images (MEMO, TPT).

Sources: qinenergy/cotta at c212a204 (``cifar/cotta.py``: ``get_tta_transforms``), zhangmarvin/memo at 02ad0262
(``cifar-10-exps/utils/third_party.py``: ``aug``), azshue/TPT at 63ecbace (``data/datautils.py``). Differ: what
torchvision has is used (`torchvision.transforms.v2.AugMix` of lowest severity, without colours); images are mirrored
only where the input preset mirrors training images.

Shapes: B images, K views, S side of the input in pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmark.inputs.devices import constant
from benchmark.inputs.images import ImagePipeline


def seed_of(image: Tensor, seed: int) -> int:
    """A seed that follows from an image and another seed.

    Args:
        image: ``(3, S, S)``; copied to the host.
        seed: Of the run.
    """
    content = image.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "little", signed=True) + content).digest()[:7], "little")


@contextlib.contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Inside, torch's global generator on the CPU draws from a seed; outside it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Views:
    """Views of what a pipeline has made.

    Args:
        pipeline: Tells the normalisation, the size, and whether images may be mirrored.
        seed: Of the run, for views that are drawn from the image.
    """

    def __init__(self, pipeline: ImagePipeline, seed: int = 0) -> None:
        self.pipeline = pipeline
        self.seed = seed
        self._made: dict[str, Any] = {}

    def unit(self, images: Tensor) -> Tensor:
        """Normalised images as they were, in [0, 1]."""
        known = (self.pipeline.mean, self.pipeline.std)
        mean, std = (constant(values, images.dtype, images.device).view(-1, 1, 1) for values in known)
        return (images * std + mean).clamp(0, 1)

    def jittered(self, images: Tensor) -> Tensor:
        """One view of a batch ``(B, 3, S, S)``: colours, gamma, rotation, shift, scale, blur, mirror, noise; CoTTA."""
        from torchvision.transforms import InterpolationMode, v2

        found, size = self.unit(images), images.shape[-1]
        if "jittered" not in self._made:
            self._made["jittered"] = v2.Compose(
                [
                    v2.ColorJitter((0.6, 1.4), (0.7, 1.3), (0.5, 1.5), (-0.06, 0.06)),
                    v2.Pad(size // 2, padding_mode="edge"),
                    v2.RandomAffine(15, (1 / 16, 1 / 16), (0.9, 1.1), interpolation=InterpolationMode.BILINEAR),
                    v2.GaussianBlur(5, (0.001, 0.5)),
                    v2.CenterCrop(size),
                    v2.RandomHorizontalFlip(0.5 if self.pipeline.preset.flip else 0.0),
                ]
            )
        gamma = float(torch.empty(1).uniform_(0.7, 1.3))
        found = self._made["jittered"](found.pow(gamma))
        noise = torch.randn(found.shape, dtype=found.dtype).to(found.device, non_blocking=True)
        return self.pipeline.normalize((found + 0.005 * noise).clamp(0, 1))

    def mixed(self, image: Tensor, count: int) -> Tensor:
        """AugMix of shifted images, ``(K, 3, S, S)``, from one ``(3, S, S)``; MEMO."""
        from torchvision.transforms import v2

        size = image.shape[-1]
        if "mixed" not in self._made:
            self._made["mixed"] = v2.Compose(
                [
                    v2.RandomCrop(size, padding=size // 8, padding_mode="edge"),
                    v2.RandomHorizontalFlip(0.5 if self.pipeline.preset.flip else 0.0),
                    v2.AugMix(severity=1, all_ops=False),
                ]
            )
        raw = (self.unit(image) * 255).round().to("cpu", torch.uint8)
        with drawing(seed_of(image, self.seed)):
            found = torch.stack([self._made["mixed"](raw) for _ in range(count)])
        return self.pipeline.normalize(found.to(image.device, image.dtype) / 255)

    def cropped(self, image: Tensor, count: int) -> Tensor:
        """The image itself and ``count - 1`` random resized crops of it, ``(K, 3, S, S)``; TPT."""
        from torchvision.transforms import v2

        size = image.shape[-1]
        if "cropped" not in self._made:
            self._made["cropped"] = v2.Compose(
                [
                    v2.RandomResizedCrop(size, antialias=True),
                    v2.RandomHorizontalFlip(0.5 if self.pipeline.preset.flip else 0.0),
                ]
            )
        unit = self.unit(image)
        with drawing(seed_of(image, self.seed)):
            found = [self._made["cropped"](unit) for _ in range(count - 1)]
        rest = self.pipeline.normalize(torch.stack(found)) if found else image[None][:0]
        return torch.cat([image[None], rest])
