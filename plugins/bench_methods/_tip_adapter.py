"""What `tip-adapter` and `tip-adapter-f` share: a cache of image features that votes beside zero-shot CLIP.

Private: a method outside this package builds on `benchmark.backbones.feature_cache`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods._templates import COOP, PHOTO, expand
from benchmark.api import Batch, Context, ExperienceView, FeatureConfig, FeatureMethod, ImageSet
from benchmark.backbones.feature_cache import FeatureCache
from benchmark.config import Range
from benchmark.learners.named import NamedMethod, TextFeatures, features_of

SCALE = 100.0  # of zero-shot logits: a constant in the official code, not exp(s)
ENCODED_AT_ONCE = 256  # images


@dataclass(frozen=True, kw_only=True, slots=True)
class TipConfig(FeatureConfig):
    """Options of the cache.

    Attributes:
        epochs: A, passes over the training images whose features are averaged into the keys.
        templates: Texts of a class, joined by ``|``, or the name of a data set or an ensemble.
        alpha: Weight of the votes beside zero-shot logits.
        beta: How sharply a vote falls with distance.
        search: Whether `alpha` and `beta` are chosen on the validation images that the scenario brings; both stay as
            given where it brings none.
        alpha_end: The search tries `alpha_steps` values from 0.1 up to here, this one excluded.
        beta_end: The same of `beta`.
        alpha_steps: Values of `alpha` tried.
        beta_steps: Values of `beta` tried.
    """

    epochs: int = 10
    batch_size: int = 256
    templates: str = PHOTO
    alpha: Annotated[float, Range(min=0, log=True, search=(0.1, 10.0))] = 1.17
    beta: Annotated[float, Range(above=0, log=True, search=(0.5, 20.0))] = 1.0
    search: bool = False
    alpha_end: Annotated[float, Range(above=0.1)] = 3.0
    beta_end: Annotated[float, Range(above=0.1)] = 7.0
    alpha_steps: Annotated[int, Range(min=1)] = 20
    beta_steps: Annotated[int, Range(min=1)] = 200

    def __post_init__(self) -> None:
        FeatureConfig.__post_init__(self)
        if self.epochs < 1:
            raise ValueError(f"epochs: {self.epochs} passes fill no cache; use 1 or more")
        templates_of(self.templates)


def templates_of(told: str) -> tuple[str, ...]:
    """The templates of an option: those of a data set of CoOp's, or what `expand` makes of it."""
    return expand(COOP.get(told, told))


class TipLearner(NamedMethod, FeatureMethod):
    """Keys are means of features over passes; logits are zero-shot ones plus votes."""

    config: Any

    def __init__(self, config: Any, context: Context, *, trained: bool) -> None:
        super().__init__(config, context)
        self.cache = FeatureCache(self.dual.feature_width, trained=trained)
        self.texts = TextFeatures(lambda names: self.dual.class_features(names, templates_of(config.templates)))
        self.sums = torch.zeros(0, self.dual.feature_width)  # of features over the passes of the experience
        self.fresh = slice(0, 0)  # rows of the cache that it fills
        self.chosen: tuple[float, float] = (config.beta, config.alpha)
        self.to(context.device)

    def encode(self, images: Tensor) -> Tensor:
        """Features ``(B, d)`` of the frozen image tower, not normalised."""
        return self.dual.image_features(images)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names and makes room for the images."""
        super().begin_experience(experience)
        self.fresh = self.cache.grow(experience.train.labels)
        self.sums = self.cache.keys.new_zeros(len(experience.train), self.cache.keys.shape[1])

    def collect(self, batch: Batch) -> None:
        """Adds the features of a batch to the sums of their images."""
        if batch.index is None:
            raise RuntimeError("a batch without positions")
        features = features_of(batch).to(self.sums.dtype)
        self.sums.index_add_(0, batch.index.to(features.device, non_blocking=True), features)

    def fill(self) -> None:
        """Turns the sums into keys; the mean is taken before normalising, so its divisor does not matter."""
        self.cache.put(self.fresh, F.normalize(self.sums, dim=1))

    def columns(self, names: Sequence[str]) -> Tensor:
        """Which columns the classes seen vote for: ``(classes seen, len(names))``, equal names of each other too."""
        rows = [[float(own == name) for name in names] for own in self.names]
        made = torch.tensor(rows).view(len(self.names), len(names))
        return made.to(self.cache.keys.device, non_blocking=True)

    def parts(self, features: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Zero-shot logits ``(B, len(names))`` and affinities ``(B, N)`` of features that are not normalised."""
        unit = F.normalize(features, dim=1)
        return SCALE * unit @ self.texts(names).T, self.cache.affinity(unit)

    def logits(self, features: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` with the values chosen."""
        zero_shot, affinity = self.parts(features, names)
        beta, alpha = self.chosen
        votes: Tensor = self.cache.votes(affinity, self.columns(names), sharpness=beta)
        return zero_shot + alpha * votes

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))``; names without images in the cache have their text alone."""
        return self.logits(self.encode(images), names)

    @torch.no_grad()
    def choose(self, experience: ExperienceView) -> None:
        """Searches both values on the validation images, if that was asked for and there are some."""
        if not self.config.search or experience.validation is None:
            return
        features = torch.cat([self.encode(images) for images in self.prepared(experience.validation)])
        self.search(features, experience.validation.labels.to(features.device))

    def search(self, features: Tensor, labels: Tensor) -> None:
        """Takes the first of the best pairs on a grid, beta outside; whatever it was if none has a hit.

        Args:
            features: Of held-out images, ``(B, d)``.
            labels: Theirs, ``(B,)``.
        """
        config, best = self.config, 0.0
        zero_shot, affinity = self.parts(features, self.names)
        columns = self.columns(self.names)
        for beta in steps(config.beta_end, config.beta_steps):
            votes = self.cache.votes(affinity, columns, sharpness=beta)
            for alpha in steps(config.alpha_end, config.alpha_steps):
                right = float(((zero_shot + alpha * votes).argmax(dim=1) == labels).double().mean())
                if right > best:
                    best, self.chosen = right, (beta, alpha)

    def prepared(self, samples: ImageSet) -> Sequence[Tensor]:
        """Images of a set as at test time, in batches."""
        pipeline = self.context.pipeline
        parts = torch.split(torch.arange(len(samples)), ENCODED_AT_ONCE)
        return [pipeline.eval(samples.images(rows), self.context.device) for rows in parts]

    def extra_state(self) -> Mapping[str, Any]:
        """Names, the values chosen, and what is collected for keys to come."""
        return {**super().extra_state(), "chosen": list(self.chosen), "sums": self.sums, "first": self.fresh.start}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        beta, alpha = state["chosen"]
        self.chosen, self.sums = (beta, alpha), state["sums"].to(self.cache.keys)
        self.fresh = slice(state["first"], len(self.cache))


def steps(end: float, count: int) -> list[float]:
    """Values of the official search: ``0.1 + i (end - 0.1) / count``, the end excluded."""
    return [0.1 + place * (end - 0.1) / count for place in range(count)]


def uses(config: TipConfig) -> frozenset[str]:
    """It keeps a feature of every training image; validation images where it searches."""
    used = {"boundaries", "class_names", "open_vocabulary", "memory"}
    return frozenset(used | {"validation"} if config.search else used)


# main.py, configs/*.yaml at d0e2d6f8: ends of the search, first values.
_SETS: Mapping[str, tuple[float, float, float, float]] = {
    "imagenet": (7, 3, 1, 1.17),
    "oxford_pets": (7, 3, 1, 1.17),
    "ucf101": (7, 3, 1, 3),
    "caltech101": (12, 5, 1, 3),
    "dtd": (13, 13, 1, 2),
    "eurosat": (12, 10, 1, 2),
    "fgvc_aircraft": (30, 30, 1, 5),
    "food101": (10, 10, 1, 1.17),
    "sun397": (12, 10, 1, 1.17),
    "oxford_flowers": (50, 50, 1, 10),
    "stanford_cars": (20, 10, 1, 3),
}


def recipes(**more: object) -> dict[str, dict[str, object]]:
    """The official values of each data set, with search; ``more`` is of the method."""
    found: dict[str, dict[str, object]] = {}
    for name, (beta_end, alpha_end, beta, alpha) in _SETS.items():
        found[name] = {
            "epochs": 10,
            "augment": True,
            "views": 0,
            "templates": "imagenet-7" if name == "imagenet" else name,
            "alpha": float(alpha),
            "beta": float(beta),
            "search": True,
            "alpha_end": float(alpha_end),
            "beta_end": float(beta_end),
            "alpha_steps": 20,
            "beta_steps": 200,
            **more,
        }
    return found


SOURCES = {
    "epochs": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs: augment_epoch",
    "templates": "gaopengcuhk/Tip-Adapter at d0e2d6f8, datasets/*.py: those of CoOp, on ImageNet the best 7",
    "alpha": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs/imagenet.yaml; one per data set",
    "beta": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs; one per data set",
    "alpha_end": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs/imagenet.yaml: search_scale; one per data set",
    "beta_end": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs/imagenet.yaml: search_scale; one per data set",
    "alpha_steps": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs: search_step",
    "beta_steps": "gaopengcuhk/Tip-Adapter at d0e2d6f8, configs: search_step",
    "search": "adaptbench: off in the default, as most scenarios bring no validation images",
    "views": "adaptbench; 0 is the official way",
    **{name: f"gaopengcuhk/Tip-Adapter at d0e2d6f8, configs: {name}; searched on validation images" for name in _SETS},
}
