"""RAPF: a linear adapter on CLIP's image features; old classes are replayed as Gaussians, old and new weights fused.

Paper: Huang, Cao, Lu, Liu. Class-Incremental Learning with CLIP: Adaptive Representation Adjustment and Parameter
Fusion, ECCV 2024, arXiv 2407.14143.
Restated: no official code ran. The description is that of LAMDA-CL/C3Box at 1378ab21 (``models/rapf.py``,
``exps/rapf.json``), a re-implementation; the authors' repository was not read. Written anew, no code taken; fusion,
pairs and losses are compared with their formulas (tests/unit/methods/test_rapf.py).

``logits = exp(s) cos(A f(x), g("a good photo of a NAME."))``. From the second experience on every batch is joined by
samples of two old classes, drawn from the Gaussians of their frozen features, and for every pair of an old class j and
a new class m whose texts are nearer than 0.55 samples of j are kept from m:
``mean max(0, a t_m - a t_j + 0.1)``. Afterwards the adapter is fused with what it was before: with
``W_old = U S V'``, ``R_old = S V'``, ``R_new = U' W_new`` and ``M = min(|R_new - R_old| / max + 0.6, 1)``, entry by
entry, ``A = U (M R_new + (1 - M) R_old)``.

Differences from C3Box:
- The Gaussians are those of training images as they are at test time, which a last pass reads.
- Classes that come again (domain-incremental streams) are no old classes: their statistics are merged.
- float32 features, float64 statistics.

Trainable: d^2 (ViT-B/16: 262,144). Kept: mean and covariance of each class. No figures are in the sources read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._templates import template_of
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, FeatureConfig, FeatureMethod, Place, Transform
from benchmark.backbones.gaussian import ClassGaussians, Sampler
from benchmark.config import Range
from benchmark.learners.named import NamedMethod, TextFeatures, features_of
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RapfConfig(FeatureConfig):
    """Options of RAPF; the defaults are C3Box's.

    Attributes:
        epochs: Passes that train; one more reads the images for the statistics.
        template: Text of a class, ``{}`` being its name.
        lr: Learning rate of Adam in the beginning.
        milestones: Epochs after which it falls to `decay` of what it was.
        decay: Factor at a milestone.
        replayed: Samples of each of two old classes that join a batch.
        kept_apart: Samples of the old class of every near pair.
        threshold: Distance of unit text features below which a pair is near.
        margin: Of the hinge loss.
        fusion: Least share of the new weights.
        ridge: Added to the diagonal of covariances.
    """

    epochs: int = 10
    batch_size: int = 128
    template: str = "a good photo of a {}."
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 1e-1))] = 0.001
    milestones: tuple[int, ...] = (4, 10)
    decay: Annotated[float, Range(above=0, max=1)] = 0.1
    replayed: Annotated[int, Range(min=1)] = 20
    kept_apart: Annotated[int, Range(min=1)] = 40
    threshold: Annotated[float, Range(min=0, max=2)] = 0.55
    margin: Annotated[float, Range(min=0)] = 0.1
    fusion: Annotated[float, Range(min=0, max=1)] = 0.6
    ridge: Annotated[float, Range(above=0, log=True)] = 1e-4

    def __post_init__(self) -> None:
        FeatureConfig.__post_init__(self)
        template_of(self.template, {})


class Rapf(NamedMethod, FeatureMethod):
    """An adapter, and the Gaussians of the classes seen."""

    config: RapfConfig

    def __init__(self, config: RapfConfig, context: Context) -> None:
        super().__init__(config, context)
        width = self.dual.feature_width
        self.adapter = nn.Linear(width, width, bias=False)
        self.gaussians = ClassGaussians(width)
        self.texts = TextFeatures(lambda names: self.dual.class_features(names, [config.template]))
        self.before: Tensor | None = None  # the adapter's weight before the experience
        self.old: Sequence[int] = ()  # labels of classes that only earlier experiences have
        self.order = torch.zeros(0, dtype=torch.int64)  # in which they join batches, this epoch
        self.pairs: tuple[Tensor, Tensor] | None = None  # places of old classes among them, labels of new ones
        self._sampler: Sampler | None = None
        self.to(context.device)

    def encode(self, images: Tensor) -> Tensor:
        """Features ``(B, d)`` of the frozen image tower, not normalised."""
        return self.dual.image_features(images)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Finds old classes and near pairs, and makes Adam."""
        super().begin_experience(experience)
        counts = self.gaussians.counts.tolist()
        self.old = [label for label, count in enumerate(counts) if count and label not in set(experience.classes)]
        self.before, self.pairs, self._sampler = None, None, None
        if any(counts):
            self.before = self.adapter.weight.detach().clone()
        if self.old:
            # A quarter of a million numbers for each class: factors are computed once.
            covariances = self.gaussians.covariances(ridge=self.config.ridge)[self.old]
            self._sampler = Sampler(self.gaussians.means[self.old], covariances)
            new = sorted(experience.classes)
            texts = self.texts(self.names)
            near = (torch.cdist(texts[self.old], texts[new]) < self.config.threshold).nonzero()
            if len(near):
                self.pairs = near[:, 0], torch.tensor(new, device=near.device)[near[:, 1]]
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=self.config.lr)

    def passes(self) -> Sequence[Transform]:
        """Those that train, and one for the statistics."""
        once: tuple[Transform, ...] = ("train",)
        return (*once * self.config.epochs, "test")

    def rate(self, place: Place) -> float:
        """Learning rate of an epoch."""
        return self.config.lr * self.config.decay ** sum(
            place.epoch >= milestone for milestone in self.config.milestones
        )

    @property
    def coupled(self) -> str | None:
        """Samples are drawn for whole batches."""
        return "samples of old classes join every batch"

    def sample(self, places: Tensor, count: int) -> Tensor:
        """Samples ``(len(places) * count, d)`` of old classes, one class after the other.

        Args:
            places: Of the classes among the old ones.
            count: Of each.
        """
        if self._sampler is None:
            raise RuntimeError("there are no old classes")
        means, factors = self._sampler.means[places], self._sampler.factors[places]
        noise = torch.randn(len(places), count, means.shape[1], dtype=means.dtype, device=means.device)
        return (means.unsqueeze(1) + noise @ factors.mT).flatten(0, 1).to(self.adapter.weight.dtype)

    def logits(self, features: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` of frozen features."""
        return self.dual.logits(self.adapter(features), self.texts(names))

    def hinge(self, samples: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """How far samples of old classes are from being nearer to their own texts than to new ones.

        Args:
            samples: Frozen features ``(P * n, d)``, n for each pair.
            old: Labels of their classes ``(P,)``.
            new: Labels of the classes that are near ``(P,)``.
        """
        texts, each = self.texts(self.names), len(samples) // len(old)
        unit = F.normalize(self.adapter(samples), dim=1).view(len(old), each, -1)
        own, other = ((unit * texts[labels].unsqueeze(1)).sum(dim=-1) for labels in (old, new))
        return (other - own + self.config.margin).clamp(min=0).mean()

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of Adam, or statistics of a batch; then there is no loss: the entry is 0."""
        place, features, labels = batch.place, features_of(batch), batch.labels
        if place.epoch == self.config.epochs:
            self.gaussians.add(features, labels)
            return {"loss": 0.0}
        for group in self.active_optimizer.param_groups:
            group["lr"] = self.rate(place)
        terms: dict[str, Tensor] = {}
        if self.old:
            if place.epoch_step == 0:
                self.order = torch.randperm(len(self.old))
            asked = torch.tensor([2 * place.epoch_step, 2 * place.epoch_step + 1]) % len(self.old)
            chosen = self.order[asked]
            more = torch.tensor(self.old)[chosen].repeat_interleave(self.config.replayed)
            chosen, more = (part.to(labels.device, non_blocking=True) for part in (chosen, more))
            features = torch.cat([features, self.sample(chosen, self.config.replayed)])
            labels = torch.cat([labels, more])
            if self.pairs is not None:
                places, new = self.pairs
                old = torch.tensor(self.old).to(labels.device, non_blocking=True)[places]
                terms["loss_hinge"] = self.hinge(self.sample(places, self.config.kept_apart), old, new)
        ce = F.cross_entropy(self.logits(features, self.names), labels)
        terms = {"loss": sum(terms.values(), start=ce), **terms}
        self.descend(terms["loss"])
        return {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def end_experience(self, experience: ExperienceView) -> None:
        """Fuses the weights before and after."""
        if self.before is not None:
            self.adapter.weight.copy_(fused(self.before, self.adapter.weight, self.config.fusion))
        self.before = None

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name."""
        return self.logits(self.encode(images), names)

    def extra_state(self) -> Mapping[str, Any]:
        """Names, and the order of this epoch."""
        return {**super().extra_state(), "order": self.order}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        self.order = state["order"]


def fused(old: Tensor, new: Tensor, share: float) -> Tensor:
    """Weights ``(d, d)`` before and after, entry by entry in the basis of the old ones.

    Args:
        old: Before.
        new: After; equal ones stay.
        share: Least share of the new entry; the further it moved, the larger its share.
    """
    left, values, right = torch.linalg.svd(old)
    before, after = values.unsqueeze(1) * right, left.T @ new
    moved = (after - before).abs()
    if float(moved.max()) == 0:
        return new
    mixed = (moved / moved.max() + share).clamp(max=1)
    found: Tensor = left @ (after * mixed + before * (1 - mixed))
    return found


_SOURCE = "LAMDA-CL/C3Box at 1378ab21, models/rapf.py and exps/rapf.json"


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``rapf``."""
    return [
        MethodSpec(
            name="rapf",
            build=Rapf,
            config=RapfConfig,
            display="RAPF",
            summary="RAPF: an adapter on CLIP's image features with replayed Gaussians and fused weights (restated)",
            uses=frozenset({"boundaries", "class_names", "open_vocabulary"}),
            default_recipe="c3box",
            tracks={
                "nano": {"augment": False, "epochs": 30, "batch_size": 32, "template": "a drawing of {}.", "lr": 0.01},
                "mini": {"views": 2, "epochs": 5},
            },
            rule="nano, lr: results/search.py, best on held-out training images; mini: a guess",
            toy={"epochs": 1, "replayed": 3, "kept_apart": 4},
            waits=8,  # statistics: which classes a batch holds, and how many of each were met
            sources={name: _SOURCE for name in ("c3box", "lr", "milestones", "threshold", "fusion", "replayed")}
            | {"views": "adaptbench; 0 is C3Box's way"},
            paper="arXiv:2407.14143",
            reference="LAMDA-CL/C3Box@1378ab21",
            text=True,
        )
    ]
