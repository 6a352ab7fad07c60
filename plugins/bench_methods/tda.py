"""TDA: caches of confident and of uncertain test features correct the logits of a frozen dual encoder; no gradient.

Paper: Karmanov, Guan, Lu, El Saddik, Xing. Efficient Test-Time Adaptation of Vision-Language Models, CVPR 2024, arXiv
2403.18293.
Official code: kdiAAA/TDA at e697fb0c (``tda_runner.py``, ``utils.py``).

Image after image: its feature f joins the positive cache of the class that it is predicted to be, if there is room or
if it is more certain than the least certain one there. With an entropy (natural logarithm, over log2 C) between `lower`
and `upper` it joins the negative cache likewise, with its probabilities p. Then

    z + alpha sum exp(-beta (1 - f k)) onehot(l)  -  alpha_negative sum exp(-beta_negative (1 - f k)) [mask_low < p < 1]

over the entries of both caches, its own among them.

Differences from the official code:
- One pair of `alpha` and `beta` for all data sets, 2 and 5 (ImageNet's). The code has another for each *test* set,
  chosen on it: that is what the published cross-domain figures are of.
- An answer depends on all images before it, in the same batch, too: both uses are declared.
- Several views (`views`) are random resized crops; the code mixes them with AugMix.
- One text per class. The published figures are of several texts where there are some, on ImageNet of seven:
  ``tda@imagenet``. Rows with other texts do not compare: without caches 59.81 with the seven, 58.16 with one (RN50).

Expected (ImageNet, CLIP RN50, ``tda@imagenet``): accuracy 61.35 (README). Not yet reproduced here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods._clip_stream import ClipStream
from bench_methods._templates import expand
from benchmark import hookimpl
from benchmark.api import Context, ExperienceView, MethodConfig
from benchmark.config import Range
from benchmark.learners.test_time import entropy
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class TdaConfig(MethodConfig):
    """Options of TDA.

    Attributes:
        templates: What a class is called, ``{}`` being its name, or a list as of ``clip-zero-shot``; several are joined
            by ``|``.
        scale: Of the cosines; 0: the model's own.
        views: Of an image; 1: itself alone.
        share: Of the views that are kept, those of least entropy.
        positive: Entries of a class in the positive cache.
        alpha: Weight of the positive cache.
        beta: Sharpness of the positive cache.
        negative: Entries of a class in the negative cache.
        alpha_negative: Weight of the negative cache; 0: there is none.
        beta_negative: Sharpness of the negative cache.
        lower: Entropy above which an image joins the negative cache.
        upper: And below which.
        mask_low: Probability above which an entry of the negative cache counts for a class.
    """

    epochs: int = 0
    augment: bool = False
    templates: str = "a photo of a {}."
    scale: Annotated[float, Range(min=0)] = 100.0
    views: Annotated[int, Range(min=1)] = 1
    share: Annotated[float, Range(above=0, max=1)] = 0.1
    positive: Annotated[int, Range(min=1)] = 3
    alpha: Annotated[float, Range(min=0, search=(0.1, 10.0))] = 2.0
    beta: Annotated[float, Range(min=0, search=(1.0, 10.0))] = 5.0
    negative: Annotated[int, Range(min=1)] = 2
    alpha_negative: Annotated[float, Range(min=0)] = 0.117
    beta_negative: Annotated[float, Range(min=0)] = 1.0
    lower: Annotated[float, Range(min=0, max=1)] = 0.2
    upper: Annotated[float, Range(min=0, max=1)] = 0.5
    mask_low: Annotated[float, Range(min=0, max=1)] = 0.03

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.views > 1 and int(self.views * self.share) < 1:
            raise ValueError(f"share: {self.share} of {self.views} views is none; use {1 / self.views:.3f} or more")
        if self.epochs:
            raise ValueError(f"epochs: {self.epochs} passes change nothing, because nothing is trained; use 0")
        expand(self.templates)

    @property
    def answers(self) -> Literal["before", "after"]:
        """The caches know the image when it is answered."""
        return "after"


class Entry(NamedTuple):
    """A test image in a cache: its feature ``(d,)``, its entropy, and its probabilities ``(C,)``."""

    feature: Tensor
    entropy: float
    shares: Tensor


Cache = dict[int, list[Entry]]


def remember(cache: Cache, label: int, entry: Entry, most: int) -> None:
    """Adds an entry where there is room, or in the place of the least certain one; the most certain come first."""
    held = cache.setdefault(label, [])
    if len(held) < most:
        held.append(entry)
    elif entry.entropy < held[-1].entropy:
        held[-1] = entry
    held.sort(key=lambda one: one.entropy)


class Tda(ClipStream):
    """See above."""

    config: TdaConfig

    def __init__(self, config: TdaConfig, context: Context) -> None:
        super().__init__(config, context)
        self.positive: Cache = {}
        self.negative: Cache = {}
        self._texts: Tensor | None = None

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes."""
        super().begin_experience(experience)
        self._texts = None

    @torch.no_grad()
    def texts(self) -> Tensor:
        """Text features of the classes, ``(C, d)``, of length one."""
        if self._texts is None:
            self._texts = self.dual.class_features(self.names, expand(self.config.templates))
        return self._texts

    def begin_stream(self) -> None:
        """Both caches are empty."""
        super().begin_stream()
        self.reset_stream()

    def reset_stream(self) -> None:
        """Empties both caches."""
        self.positive, self.negative = {}, {}

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits ``(B, C)`` of features ``(B, d)`` of length one."""
        scale = self.config.scale or self.dual.logit_scale.exp()
        return scale * features @ self.texts().T

    def seen(self, image: Tensor) -> tuple[Entry, Tensor]:
        """An image ``(3, S, S)`` as it enters a cache, and its zero-shot logits ``(C,)``."""
        config = self.config
        views = image[None] if config.views == 1 else self.view(image, config.views)
        features = F.normalize(self.dual.image_features(views), dim=1)
        logits = self.zero_shot(features)
        certain = entropy(logits)
        if config.views > 1:
            chosen = certain.argsort(stable=True)[: int(config.views * config.share)]
            features, logits = features[chosen], logits[chosen]
            mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(chosen))
            certain = -(mean.exp() * mean.clamp(min=torch.finfo(mean.dtype).min)).sum()[None]
        shares = logits.softmax(dim=1).mean(dim=0)
        return Entry(features.mean(dim=0), float(certain[0]), shares), logits.mean(dim=0)

    def corrected(self, features: Tensor, logits: Tensor) -> Tensor:
        """Logits ``(B, C)`` with what the caches add and take away, for features ``(B, d)``."""
        config, classes = self.config, logits.shape[1]
        if self.positive:
            keys, labels = _entries(self.positive)
            affinity = torch.exp(-config.beta * (1 - features @ torch.stack([one.feature for one in keys]).T))
            told = F.one_hot(torch.tensor(labels, device=features.device), classes).to(features.dtype)
            logits = logits + config.alpha * affinity @ told
        if self.negative and config.alpha_negative:
            keys, _ = _entries(self.negative)
            affinity = torch.exp(-config.beta_negative * (1 - features @ torch.stack([one.feature for one in keys]).T))
            shares = torch.stack([one.shares for one in keys])
            mask = ((shares > config.mask_low) & (shares < 1)).to(features.dtype)
            logits = logits - config.alpha_negative * affinity @ mask
        return logits

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """Remembers image after image, and answers each."""
        config, answers = self.config, []
        for image in images:
            entry, logits = self.seen(image)
            label = int(logits.argmax())
            remember(self.positive, label, entry, config.positive)
            if config.lower < entry.entropy / math.log2(len(self.names)) < config.upper:
                copied = Entry(entry.feature.clone(), entry.entropy, entry.shares.clone())  # each cache has its own
                remember(self.negative, label, copied, config.negative)
            answers.append(self.corrected(entry.feature[None], logits[None]))
        return torch.cat(answers)

    def predict(self, images: Tensor) -> Tensor:
        """Logits with the caches as they are; before the stream they are empty."""
        features = F.normalize(self.dual.image_features(images), dim=1)
        return self.corrected(features, self.zero_shot(features))

    def extra_state(self) -> Mapping[str, Any]:
        """Names and caches."""
        caches = {
            name: [[label, [list(one) for one in held]] for label, held in cache.items()]
            for name, cache in (("positive", self.positive), ("negative", self.negative))
        }
        return {**super().extra_state(), **caches}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        device = self.context.device
        self.positive, self.negative = (
            {
                int(label): [Entry(one[0].to(device), float(one[1]), one[2].to(device)) for one in held]
                for label, held in state[name]
            }
            for name in ("positive", "negative")
        )
        self._texts = None


def _entries(cache: Cache) -> tuple[list[Entry], list[int]]:
    """All entries, classes ascending, with their classes."""
    found = [(one, label) for label in sorted(cache) for one in cache[label]]
    return [one for one, _ in found], [label for _, label in found]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``tda``."""
    code = "kdiAAA/TDA at e697fb0c"
    return [
        MethodSpec(
            name="tda",
            build=Tda,
            config=TdaConfig,
            summary="caches of confident and uncertain test features beside a frozen CLIP; no gradient",
            uses=frozenset({"class_names", "test_batch", "test_stream"}),
            recipes={"views": {"views": 64}, "imagenet": {"templates": "imagenet-7"}},
            default_recipe="one-view",
            tracks={"nano": {"templates": "a drawing of {}.", "scale": 0.0}},
            rule="nano: what the pictures are, and the model's own scale; elsewhere the published values of ImageNet",
            waits=1000,  # the class and the entropy of every image decide where it is kept
            toy={"views": 10},
            sources={
                "alpha": f"{code}, configs/imagenet.yaml; the other files have other values, chosen on their test sets",
                "beta": f"{code}, configs/imagenet.yaml",
                "lower": f"{code}, configs: 0.2 and 0.5 everywhere",
                "views": f"{code}, README: 64 on ImageNet's variants",
                "imagenet": f"{code}: on ImageNet the seven texts of Tip-Adapter",
            },
            paper="arXiv:2403.18293",
            display="TDA",
            reference=code,
            text=True,
            adapts=True,
            published="tda",
        )
    ]
