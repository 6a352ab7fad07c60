"""Linear probe of CLIP: a linear classifier on frozen image features, by one of three published protocols.

Papers: Radford et al. Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020; the
few-shot baseline of Zhou, Yang, Loy, Liu. Learning to Prompt for Vision-Language Models, arXiv 2109.01134.
Official code: openai/CLIP at d05afc43 (``README.md``: ``clip-linear``); KaiyangZhou/CoOp at ff61507c (``lpclip/``:
``clip-linear@few-shot``); LAION-AI/CLIP_benchmark at 48de38c1 (``metrics/linear_probe.py``:
``clip-linear@clip-benchmark``). The three give different figures. Written anew, no code taken.

- default: logistic regression on raw projected features, C = 0.316.
- ``few-shot``: the same, C searched on validation images: the best of 7 powers, the larger one of equals, then 8 rounds
  in which the worse of two ends moves halfway (on a log scale) to the other.
- ``clip-benchmark``: AdamW on normalised features, cosine schedule per step; weight decay searched among 97 powers, 7
  of them first, then neighbours 8, 4, 2 and 1 away, each with the same draws.

Differences from the official code:
- scikit-learn is not needed: the same objective, start, solver (scipy's) and stopping rule take the same steps and give
  the same coefficients for the same features (`benchmark.backbones.logistic`, tests/unit/backbones/test_logistic.py).
  Features are float32, fits float64; official features are half precision. L-BFGS amplifies such rounding: where it
  stops, coefficients differ by up to 2.6e-3 of the largest, at an objective that is as low.
- Validation images: those that the scenario brings (few-shot ones do, as many as CoOp draws); where there are none, a
  fifth of the training images of each class. In the end the classifier is fitted to all training images, never to
  brought ones. Where no image can be spared, ``strength`` and ``weight_decay`` are taken as they are.
- Shots are drawn by the scenario; the official probe draws others than CoOp does.
- Streams are adaptbench's reading. Each experience fits the rows of its own classes, which compete among themselves,
  and leaves the others; a class that comes again is fitted anew, to what the new experience shows of it. With
  ``keep=features`` (``clip-linear@memory``) features of all training images are kept and all rows fitted anew: the
  upper bound of frozen features, which declares `memory`.

Trainable: d C + C (ViT-B/16, d = 512, 100 classes: 51,300). No figures are published in these sources; zero-shot CLIP
is the reference, below which a probe from one shot is expected to lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import hookimpl, splits
from benchmark.api import Context, ExperienceView, ImageSet, LoopMethod, MethodConfig
from benchmark.backbones.dual import dual_of
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.logistic import fit_logistic
from benchmark.config import Range
from benchmark.specs import MethodSpec

ENCODED_AT_ONCE = 256  # images
HELD_OUT = 0.2  # of the images of each class, where the scenario brings no validation images
STRENGTHS = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
ROUNDS = 8
DECAYS: tuple[float, ...] = tuple(10.0 ** (-6 + 8 * place / 96) for place in range(97))
SPANS = (8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipLinearConfig(MethodConfig):
    """Options of the linear probe.

    Attributes:
        epochs: Passes of ``adamw`` over the features; ``lbfgs`` has none.
        batch_size: Of ``adamw``.
        solver: ``lbfgs``: logistic regression with an L2 penalty; ``adamw``: a linear layer, drawn as torch does.
        normalise: Whether features have length one.
        search: Whether `strength` (``lbfgs``) or `weight_decay` (``adamw``) is searched on validation images.
        strength: C of scikit-learn: the larger, the weaker the penalty.
        max_iter: Most steps of ``lbfgs``; the protocol is to stop there, converged or not.
        lr: Learning rate of ``adamw`` in the beginning.
        weight_decay: Of ``adamw``.
        keep: ``features`` keeps the features of all training images and fits all classes seen on them; ``nothing``
            fits the classes of the experience on its own images.
    """

    augment: bool = False
    batch_size: int = 64
    solver: Literal["lbfgs", "adamw"] = "lbfgs"
    normalise: bool = False
    search: bool = False
    strength: Annotated[float, Range(above=0, log=True)] = 0.316
    max_iter: Annotated[int, Range(min=1)] = 1000
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 1.0))] = 0.1
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0
    keep: Literal["nothing", "features"] = "nothing"

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.augment:
            raise ValueError("augment: true has no effect, features are those of the test transform; use false")
        if self.solver == "lbfgs" and self.epochs != 1:
            raise ValueError(f"epochs: {self.epochs} has no effect with solver `lbfgs`; use 1, or solver `adamw`")
        if self.epochs < 1:
            raise ValueError(f"epochs: {self.epochs} is too small; use 1 or more")


@dataclass(frozen=True)
class Fit:
    """A classifier of some classes: weight ``(C, d)``, bias ``(C,)``, mean loss, and the terms for the log."""

    weight: Tensor
    bias: Tensor
    terms: Mapping[str, float]


Solve = Callable[[float], Fit]


class ClipLinear(LoopMethod):
    """A head on the image tower, fitted at one go to the features of an experience."""

    config: ClipLinearConfig

    def __init__(self, config: ClipLinearConfig, context: Context) -> None:
        super().__init__(config, context)
        dual = dual_of(context.backbone)
        self.image = dual.image  # the text tower is no part of a probe
        with torch.no_grad():
            size = context.backbone.image_size
            width = dual.image_features(torch.zeros(1, 3, size, size, device=dual.logit_scale.device)).shape[1]
        self.head = ClassHead(width, init="zeros")
        # Features and labels of all training images seen, with `keep`.
        self.kept: tuple[Tensor, Tensor] = (torch.zeros(0, width), torch.zeros(0, dtype=torch.int64))
        self.to(context.device)

    @property
    def deterministic(self) -> bool:
        """L-BFGS starts from zeros and reads images in their order; what is held out does not depend on the seed."""
        return self.config.solver == "lbfgs"

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes."""
        self.head.grow(experience.seen)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Projected features ``(B, d)`` of normalised images ``(B, 3, S, S)``."""
        found = dual_of(self.context.backbone).image_features(images)
        return F.normalize(found, dim=1) if self.config.normalise else found

    def described(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Features and labels of a set of images under the test transform, on the CPU."""
        pipeline, device = self.context.pipeline, self.context.device
        parts = [
            self.features(pipeline.eval(images.images(rows).to(device))).cpu()
            for rows in torch.split(torch.arange(len(images)), ENCODED_AT_ONCE)
        ]
        return torch.cat(parts), images.labels

    def train_experience(self, experience: ExperienceView) -> Mapping[str, float]:
        """Computes features, searches the penalty if that was asked for, and fits the rows of the classes."""
        config = self.config
        train, classes = self.described(experience.train), sorted(experience.classes)
        if config.keep == "features":
            train = self.kept = (torch.cat([self.kept[0], train[0]]), torch.cat([self.kept[1], train[1]]))
            classes = list(range(experience.seen))
        seed = int(torch.randint(2**31, ())) if config.solver == "adamw" else 0
        chosen = config.strength if config.solver == "lbfgs" else config.weight_decay
        if config.search:
            images = experience.validation
            split = hold_out(*train) if images is None else (train, self.described(images))
            if split is not None:
                chosen = self.search(*split, classes, seed)
        fitted = self.fit(*train, classes, seed)(chosen)
        with torch.no_grad():
            rows = torch.tensor(classes, device=self.context.device)
            self.head.weight[rows] = fitted.weight.to(self.head.weight)
            self.head.bias[rows] = fitted.bias.to(self.head.bias)
        return {**fitted.terms, "strength" if config.solver == "lbfgs" else "weight_decay": chosen}

    def fit(self, features: Tensor, labels: Tensor, classes: Sequence[int], seed: int) -> Solve:
        """What fits a classifier of these images for a penalty, the same one each time.

        Args:
            features: ``(N, d)``.
            labels: ``(N,)``.
            classes: Labels that compete.
            seed: Of what ``adamw`` draws.
        """
        if self.config.solver == "lbfgs":
            return lambda strength: self._fit_logistic(features, labels, classes, strength)
        return lambda decay: self._fit_adamw(features, labels, classes, decay, seed)

    def _fit_logistic(self, features: Tensor, labels: Tensor, classes: Sequence[int], strength: float) -> Fit:
        found = fit_logistic(features, labels, classes, strength=strength, max_iter=self.config.max_iter)
        return Fit(found.weight, found.bias, {"loss": found.loss, "iterations": float(found.iterations)})

    def _fit_adamw(self, features: Tensor, labels: Tensor, classes: Sequence[int], decay: float, seed: int) -> Fit:
        config = self.config
        device = self.context.device
        features, targets = features.to(device), torch.searchsorted(torch.tensor(classes), labels).to(device)
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(features.shape[1])  # as torch.nn.Linear
        weight, bias = (
            torch.empty(shape).uniform_(-bound, bound, generator=generator).to(device).requires_grad_()
            for shape in ((len(classes), features.shape[1]), (len(classes),))
        )
        optimizer = torch.optim.AdamW([weight, bias], lr=config.lr, weight_decay=decay)
        steps = config.epochs * math.ceil(len(features) / config.batch_size)
        step, total = 0, 0.0
        with torch.enable_grad():
            for _ in range(config.epochs):
                total = 0.0
                for rows in torch.split(torch.randperm(len(features), generator=generator), config.batch_size):
                    optimizer.param_groups[0]["lr"] = 0.5 * config.lr * (1 + math.cos(math.pi * step / steps))
                    loss = F.cross_entropy(F.linear(features[rows], weight, bias), targets[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    step += 1
                    total += float(loss.detach()) * len(rows)
        return Fit(weight.detach(), bias.detach(), {"loss": total / len(features)})

    def search(
        self, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], classes: Sequence[int], seed: int
    ) -> float:
        """The penalty that the protocol chooses on held-out features and labels."""
        solve, order = self.fit(*train, classes, seed), torch.tensor(classes)
        found: dict[float, float] = {}

        def score(value: float) -> float:
            if value not in found:
                fitted = solve(value)
                logits = F.linear(held[0].to(fitted.weight), fitted.weight, fitted.bias)
                found[value] = float((order[logits.argmax(dim=1).cpu()] == held[1]).double().mean())
            return found[value]

        return best_strength(score) if self.config.solver == "lbfgs" else best_decay(score)

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def extra_state(self) -> Mapping[str, Any]:
        """Features and labels that are kept."""
        return {"features": self.kept[0], "labels": self.kept[1]}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the kept features back."""
        self.kept = (state["features"], state["labels"])


def hold_out(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Splits features and labels; a class of two to four images gives up one. None if no class can spare any."""
    rows = torch.from_numpy(splits.holdout(labels.numpy(), HELD_OUT, seed=0)[1])
    out = torch.zeros(len(labels), dtype=torch.bool)
    out[rows] = True
    for label in set(labels.tolist()) - set(labels[rows].tolist()):
        own = (labels == label).nonzero().flatten()
        if len(own) > 1:
            out[own[-1]] = True
    if not bool(out.any()):
        return None
    return (features[~out], labels[~out]), (features[out], labels[out])


def best_strength(score: Callable[[float], float]) -> float:
    """Seven powers, then eight rounds between a tenth and ten times of the best; ties go to the left.

    Args:
        score: Validation accuracy of a strength.
    """
    peak = max(STRENGTHS, key=score)  # the first of equals
    left, right, chosen = 0.1 * peak, 10.0 * peak, peak
    for _ in range(ROUNDS):
        middle = math.sqrt(left * right)
        if score(left) < score(right):
            chosen, left = right, middle
        else:
            chosen, right = left, middle
    return chosen


def best_decay(score: Callable[[float], float]) -> float:
    """Every 16th of 97 powers, then neighbours; the first of equals.

    Args:
        score: Validation accuracy of a weight decay.
    """
    best = max(range(0, len(DECAYS), 16), key=lambda place: score(DECAYS[place]))
    for span in SPANS:
        near = [min(max(place, 0), len(DECAYS) - 1) for place in (best - span, best, best + span)]
        best = max(near, key=lambda place: score(DECAYS[place]))
    return DECAYS[best]


def uses(config: ClipLinearConfig) -> frozenset[str]:
    """Borders of experiences; validation images where it searches, memory where it keeps features."""
    used = {"boundaries"}
    if config.search:
        used.add("validation")
    if config.keep == "features":
        used.add("memory")
    return frozenset(used)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``clip-linear``."""
    return [
        MethodSpec(
            name="clip-linear",
            build=ClipLinear,
            config=ClipLinearConfig,
            summary="a linear classifier on CLIP's image features: logistic regression, or AdamW",
            uses=uses,
            recipes={
                "few-shot": {"solver": "lbfgs", "search": True},
                "clip-benchmark": {
                    "solver": "adamw",
                    "epochs": 10,
                    "batch_size": 64,
                    "lr": 0.1,
                    "normalise": True,
                    "search": True,
                },
                "memory": {"keep": "features"},
            },
            default_recipe="full-data",
            rule="nothing searched: the published values",
            toy={"max_iter": 30},
            sources={
                "strength": "openai/CLIP at d05afc43, README.md: for ViT-B/32 on CIFAR-100",
                "full-data": "openai/CLIP at d05afc43, README.md",
                "few-shot": "KaiyangZhou/CoOp at ff61507c, lpclip/linear_probe.py",
                "clip-benchmark": "LAION-AI/CLIP_benchmark at 48de38c1, clip_benchmark/metrics/linear_probe.py",
                "memory": "adaptbench: joint training of the head",
            },
            paper="arXiv:2103.00020",
            reference="openai/CLIP@d05afc43",
            control=True,
            text=True,
        )
    ]
