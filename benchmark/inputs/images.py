"""From stored uint8 images to normalised model input by an input preset, whole batches at a time.

Augmentation draws its parameters per sample and applies them to the batch in one tensor operation;
there is no per-sample Python. The presets are data (`benchmark.inputs.presets`).

Random resized crops sample the source by (bi)linear or bicubic interpolation at the crop's pixel
centres. For crops that are enlarged (CIFAR's 32 px to 224 px, the published protocol) this equals
``torchvision.transforms.functional.resized_crop``; for crops that are shrunk by more than two
it has no anti-aliasing, as torchvision's tensor path with ``antialias=False``.

At test time images that are not square equal torchvision on PIL images bit for bit (`benchmark.inputs.geometry`).
Square tensors are resized as torchvision resizes tensors of floats: neither rounded nor cut off between the two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.inputs import cuts, geometry
from benchmark.inputs.devices import constant, moved
from benchmark.inputs.presets import PRESETS, InputPreset

WeightRule = Callable[[Tensor, Tensor, int, int], Tensor]

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "zero_one": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half_half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class ImagePipeline:
    """An input preset, bound to a model's input size and a normalisation.

    Args:
        preset: A preset, or the name of a built-in one.
        size: Side S of the model's input in pixels.
        mean: Per channel, for values in [0, 1].
        std: Per channel.
        augment: False makes `train` the same as `eval`.
        normalization: What ``mean`` and ``std`` are called, for the record.
    """

    kind: Literal["image"] = "image"

    def __init__(
        self,
        preset: str | InputPreset,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: bool = True,
        normalization: str = "backbone",
    ) -> None:
        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        self.size = size
        self.mean = mean
        self.std = std
        self.augment = augment
        self.normalization = normalization

    @property
    def random(self) -> bool:
        """Whether `train` draws anything, so that two passes over an image differ."""
        return self.augment and (self.preset.train != "none" or self.preset.flip)

    def normalize(self, images: Tensor) -> Tensor:
        """Returns ``(images - mean) / std`` for float images in [0, 1], shape kept."""
        mean, std = (constant(values, images.dtype, images.device) for values in (self.mean, self.std))
        return (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    def resize(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Resizes float images to ``size`` (height, width); shrinking is anti-aliased."""
        if tuple(images.shape[-2:]) == size:
            return images
        return F.interpolate(images, size=size, mode=self.preset.interpolation, antialias=True).clamp_(0.0, 1.0)

    def eval(self, raw: Tensor, device: torch.device | None = None) -> Tensor:
        """Test transform: uint8 ``(B, 3, H, W)`` to normalised float ``(B, 3, S, S)``, on a device."""
        raw = moved(raw, device)
        if raw.shape[-2] != raw.shape[-1]:
            raw = self._fit(raw)
            return self.normalize(raw.to(torch.float32) / 255.0)
        images = raw.to(torch.float32) / 255.0
        short = self.short
        if images.shape[-1] != self.size or short != self.size:
            images = geometry.centre(self.resize(images, (short, short)), self.size)
        return self.normalize(images)

    @property
    def short(self) -> int:
        """Shorter side at test time before the centre crop, in pixels."""
        return round(self.size * self.preset.test_resize)

    def _fit(self, raw: Tensor) -> Tensor:
        """Images that are not square as they are tested, uint8 ``(B, 3, S, S)``."""
        squash = self.preset.square or self.preset.test_square
        return geometry.fit(raw, self.size, self.short, self.preset.interpolation, squash=squash)

    def fit(self) -> cuts.Fit:
        """How sources of files cut whole images for all that is done as at test time."""
        squash = self.preset.square or self.preset.test_square
        return cuts.Fit(self.short, self.size, self.preset.interpolation, squash)

    def cut(self, count: int, generator: torch.Generator) -> cuts.Drawn | None:
        """How sources of files cut whole images for `train`, drawn from ``generator``; None: as `fit` does."""
        preset = self.preset
        if preset.train == "random_crop" and self.augment:
            shape = {"side": self.size, "short": self.short}
            return cuts.draw_places(count, generator, **shape, interpolation=preset.interpolation, flip=preset.flip)
        if preset.train != "resized_crop" or not self.augment:
            return None
        return cuts.draw(
            count,
            generator,
            side=self.size,
            area=preset.area,
            interpolation=preset.interpolation,
            squash=self.short if preset.square else 0,
            flip=preset.flip,
        )

    def train(
        self,
        raw: Tensor,
        generator: torch.Generator,
        device: torch.device | None = None,
        cut: cuts.Drawn | None = None,
    ) -> Tensor:
        """Training transform, parameters drawn per sample from ``generator``.

        Args:
            raw: uint8 ``(B, 3, H, W)``.
            generator: On the CPU; the same state gives the same batch on every device.
            device: Where to compute; None: where the images are.
            cut: What their source has cut them by, which the same generator has drawn.

        Returns:
            Normalised float ``(B, 3, S, S)``.
        """
        raw = moved(raw, device)
        if cut is not None:
            mirrored = moved(torch.from_numpy(cut.mirrored), raw.device)
            raw = torch.where(mirrored.view(-1, 1, 1, 1), raw.flip(-1), raw)
            return self._coloured(raw.to(torch.float32) / 255.0, generator)
        if not self.augment:
            return self.eval(raw)
        preset = self.preset
        count = len(raw)
        if preset.flip:
            mirrored = moved(torch.rand(count, generator=generator) < 0.5, raw.device)
            raw = torch.where(mirrored.view(-1, 1, 1, 1), raw.flip(-1), raw)
        if preset.train == "random_crop":
            return self._coloured(self._placed(raw, generator), generator)
        if preset.train != "resized_crop" and raw.shape[-2] != raw.shape[-1]:
            raw = self._fit(raw)
        if preset.train == "pad_crop":
            raw = _pad_crop(raw, preset.padding, generator, preset.fill)
        if preset.train != "resized_crop":
            images = self.resize(raw.to(torch.float32) / 255.0, (self.size, self.size))
            return self.normalize(images)
        if preset.square and raw.shape[-2] != raw.shape[-1]:
            raw = geometry.resize(raw, (self.short, self.short), preset.interpolation)
        images = raw.to(torch.float32) / 255.0
        if preset.square:
            images = self.resize(images, (self.short, self.short))
        boxes = draw_boxes(count, images.shape[-2], images.shape[-1], preset.area, generator)
        return self._coloured(crop_boxes(images, boxes, self.size, preset.interpolation), generator)

    def _placed(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Resized as at test time, then a crop at a random place per sample; float ``(B, 3, S, S)`` in [0, 1]."""
        high, wide = raw.shape[-2:]
        kept = geometry.resized(high, wide, self.short)
        if high != wide:
            images = geometry.resize(raw, kept, self.preset.interpolation).to(torch.float32) / 255.0
        else:
            images = self.resize(raw.to(torch.float32) / 255.0, kept)
        place = torch.rand(2, len(raw), generator=generator)
        # In float64, as files are cut (`benchmark.inputs.cuts.PlacedCrops`).
        top, left = ((place[axis].double() * (kept[axis] - self.size + 1)).long() for axis in (0, 1))
        return _windows(images, top, left, (self.size, self.size))

    def _coloured(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The changes of colour of training, then normalisation."""
        preset = self.preset
        if preset.jitter:
            images = jitter(images, preset.jitter, generator)
        if preset.grey:
            chosen = moved(torch.rand(len(images), generator=generator) < preset.grey, images.device)
            images = torch.where(chosen.view(-1, 1, 1, 1), _grey(images).expand_as(images), images)
        return self.normalize(images)

    def nothing(self, device: torch.device | None = None) -> Tensor:
        """No image, ``(0, 3, S, S)``."""
        return torch.empty(0, 3, self.size, self.size, device=device)

    def facts(self) -> Mapping[str, Any]:
        """Preset, size in pixels, normalisation, augmentation; the values of a preset that is not built in."""
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.preset).items()
        }
        if values["fill"] == "zero":  # younger than the other values: presets without it keep their identity
            del values["fill"]
        return {
            "preset": self.preset.name,
            **({} if PRESETS.get(self.preset.name) == self.preset else {"preset_values": values}),
            "size": self.size,
            "normalize": self.normalization,
            "mean": list(self.mean),
            "std": list(self.std),
            "augment": self.augment,
        }


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue, as torchvision's ``ColorJitter`` with four equal arguments.

    The amounts are drawn per image; the order of the four is drawn per batch (torchvision: per image).

    Args:
        images: Float ``(B, 3, H, W)`` in [0, 1].
        strength: Factors are in [1 - s, 1 + s], the turn of the hue in [-s, s].
        generator: On the CPU.
    """
    amounts = (torch.rand(4, len(images), generator=generator) * 2 - 1) * strength
    amounts = moved(amounts, images.device).view(4, -1, 1, 1, 1)
    for step in torch.randperm(4, generator=generator).tolist():
        factor = 1 + amounts[step]
        if step == 0:  # brightness
            images = (images * factor).clamp(0, 1)
        elif step == 1:  # contrast
            mean = _grey(images).mean(dim=(-3, -2, -1), keepdim=True)
            images = (images * factor + mean * (1 - factor)).clamp(0, 1)
        elif step == 2:  # saturation
            images = (images * factor + _grey(images) * (1 - factor)).clamp(0, 1)
        else:
            images = turn_hue(images, amounts[step])
    return images


def _grey(images: Tensor) -> Tensor:
    """Luminance ``(B, 1, H, W)`` (ITU-R 601, as PIL and torchvision)."""
    weights = constant((0.2989, 0.587, 0.114), images.dtype, images.device)
    return (images * weights.view(3, 1, 1)).sum(dim=-3, keepdim=True)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns the hue; 1 is the whole circle.

    Args:
        images: Float ``(B, 3, H, W)`` in [0, 1].
        turn: ``(B, 1, 1, 1)``.
    """
    red, green, blue = images.unbind(dim=-3)
    value, low = images.amax(dim=-3), images.amin(dim=-3)
    spread = value - low
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = sector / 6 + turn.squeeze(1)  # (B, H, W); a grey pixel has none and stays as it is
    channels = []
    for offset in (5, 3, 1):
        place = (offset + hue * 6) % 6
        channels.append(value - spread * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=-3)


def _pad_crop(raw: Tensor, padding: int, generator: torch.Generator, fill: str = "zero") -> Tensor:
    """Padding, with zeros or the edge, then a crop of the original size at a random place per sample."""
    count, _, height, width = raw.shape
    padded = F.pad(raw, [padding] * 4)
    if fill == "edge":  # `F.pad` repeats the edge of floats only
        down, across = (torch.arange(-padding, side + padding).clamp(0, side - 1) for side in (height, width))
        padded = raw[:, :, moved(down, raw.device)][..., moved(across, raw.device)]
    offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    return _windows(padded, offsets[0], offsets[1], (height, width))


def _windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """One window of ``size`` (height, width) per image, which begins at ``top`` and ``left``, int64 ``(B,)`` each."""
    count, channels = images.shape[:2]
    height, width = size
    place, device = torch.arange, images.device
    corner = moved(torch.stack([top, left]), device)
    rows = (corner[0].view(-1, 1) + place(height, device=device)).view(count, 1, height, 1)
    columns = (corner[1].view(-1, 1) + place(width, device=device)).view(count, 1, 1, width)
    samples = place(count, device=device).view(count, 1, 1, 1)
    planes = place(channels, device=device).view(1, channels, 1, 1)
    return images[samples, planes, rows, columns]


def draw_boxes(count: int, height: int, width: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draws crops as torchvision's ``RandomResizedCrop.get_params`` does, for a whole batch.

    Ten attempts per sample, the first that fits wins; else the largest centre crop whose aspect
    ratio is in range (3/4 to 4/3).

    Returns:
        Integer boxes ``(B, 4)``: top, left, height, width in pixels.
    """
    attempts = 10
    share = torch.empty(count, attempts).uniform_(area[0], area[1], generator=generator) * height * width
    ratio = torch.empty(count, attempts).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    wide = torch.sqrt(share * ratio).round().long()
    tall = torch.sqrt(share / ratio).round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.to(torch.int8).argmax(dim=1)
    picked = torch.arange(count)
    wide, tall, found = wide[picked, first], tall[picked, first], fits[picked, first]
    ratio_all = width / height
    back_wide = width if ratio_all <= 4 / 3 else round(height * 4 / 3)
    back_tall = height if ratio_all >= 3 / 4 else round(width / (3 / 4))
    wide = torch.where(found, wide, torch.tensor(back_wide))
    tall = torch.where(found, tall, torch.tensor(back_tall))
    place = torch.rand(2, count, generator=generator)
    top = torch.where(found, (place[0] * (height - tall + 1)).long(), (height - tall) // 2)
    left = torch.where(found, (place[1] * (width - wide + 1)).long(), (width - wide) // 2)
    return torch.stack([top, left, tall, wide], dim=1)


def crop_boxes(images: Tensor, boxes: Tensor, size: int, interpolation: str) -> Tensor:
    """Cuts one box per image and resizes it to ``size``.

    Args:
        images: Float ``(B, 3, H, W)`` in [0, 1].
        boxes: ``(B, 4)`` top, left, height, width.
        size: Side of the result.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        Float ``(B, 3, size, size)`` in [0, 1].
    """
    boxes = moved(boxes, images.device).to(images.dtype)
    if interpolation == "bilinear":
        return _separable(images, boxes, size, _linear_weights)
    return _separable(images, boxes, size, _cubic_weights).clamp_(0.0, 1.0)


def _separable(images: Tensor, boxes: Tensor, size: int, weights: WeightRule) -> Tensor:
    """Interpolates along columns, then rows, by one weight matrix per image and axis."""
    rows = weights(boxes[:, 0], boxes[:, 2], images.shape[-2], size)  # (B, size, H)
    columns = weights(boxes[:, 1], boxes[:, 3], images.shape[-1], size)  # (B, size, W)
    return torch.einsum("bih,bchw,bjw->bcij", rows, images, columns)


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Centres of the target pixels in source coordinates relative to the box, ``(B, size)``."""
    steps = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    return steps.view(1, -1) * (length.view(-1, 1) / size) - 0.5


def _spread(index: Tensor, weight: Tensor, start: Tensor, length: Tensor, full: int) -> Tensor:
    """Adds tap weights into a matrix ``(B, size, full)``; taps outside the box use its edge pixel."""
    inside = torch.minimum(index.clamp(min=0), (length.view(-1, 1, 1) - 1).long())
    target = inside + start.view(-1, 1, 1).long()
    matrix = torch.zeros(*index.shape[:2], full, device=weight.device, dtype=weight.dtype)
    return matrix.scatter_add_(2, target, weight)


def _linear_weights(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    position = _positions(start, length, size).clamp(min=0)
    base = position.floor()
    fraction = (position - base).unsqueeze(-1)
    index = torch.stack([base, base + 1], dim=-1).long()
    return _spread(index, torch.cat([1 - fraction, fraction], dim=-1), start, length, full)


def _cubic_weights(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    position = _positions(start, length, size)
    base = position.floor()
    offsets = torch.arange(-1, 3, device=start.device)
    index = (base.unsqueeze(-1) + offsets).long()
    distance = (position.unsqueeze(-1) - index).abs()
    a = -0.75  # torch's constant without anti-aliasing; PIL uses -0.5
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return _spread(index, torch.where(distance <= 1, near, far), start, length, full)
