"""MNIST at one angle per experience, by three published rules: domain-incremental.

Source: MNIST (`bench_scenarios._mnist`). Variants:

* ``rotated-mnist/20`` (or any number T): T angles, each uniform in [0, 180) degrees (aimagelab/mammoth);
* ``rotated-mnist/gem``: the angle of experience t is uniform in [t, t+1) x ``max_angle`` / ``tasks``, so angles rise
  (facebookresearch/GradientEpisodicMemory ``data/mnist_rotations.py``: 10 up to 90 degrees; paper: 20 up to 180, 1,000
  training images each, i.e. ``train=100``); nearest-neighbour interpolation, as there;
* ``rotated-mnist/fixed``: 0, 15, 30, 45, 60, 75 degrees with other images at each, as in facebookresearch/DomainBed:
  training and test images are pooled and shuffled once, every sixth goes to one angle, 80/20 per class of each are
  training and test images.

Angles and the shuffling come from ``RandomState(S)``, S the class-order seed of the run. Pillow rotates
counter-clockwise, bilinear unless said otherwise, without enlarging, black outside; images are rotated as they are
read. Version 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from bench_scenarios import _mnist
from benchmark import ScenarioSpec, builders, hookimpl, splits
from benchmark.config import Range
from benchmark.derived import Derived
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

FIXED = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
_MOST = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class RotatedMnistConfig(builders.BudgetConfig):
    """Options of ``rotated-mnist``.

    Attributes:
        rule: A number of experiences, ``gem`` or ``fixed``.
        images: Whether ``all`` images are at every angle, or ``disjoint`` shares of them; ``fixed`` is always disjoint.
        tasks: Experiences of ``gem``.
        max_angle: Degrees that ``gem`` rises to.
        train: Training images per class and experience, the first of the file; 0 for all.
        test: Test images per class and experience, likewise.
    """

    rule: str = "20"
    images: Literal["all", "disjoint"] = "all"
    tasks: Annotated[int, Range(min=1, max=_MOST)] = 20
    max_angle: Annotated[float, Range(above=0, max=360)] = 180.0

    def __post_init__(self) -> None:
        """Checks the rule."""
        builders.BudgetConfig.__post_init__(self)
        if self.rule not in ("gem", "fixed") and not (
            re.fullmatch("[0-9]{1,4}", self.rule) and 1 <= int(self.rule) <= _MOST
        ):
            raise ValueError(f"rule: {self.rule!r} is unknown; use a number of experiences in 1..{_MOST}, gem or fixed")


def angles(config: RotatedMnistConfig, seed: int) -> list[float]:
    """Degrees of each experience."""
    generator = np.random.RandomState(seed)
    if config.rule == "fixed":
        return list(FIXED)
    if config.rule == "gem":
        step = config.max_angle / config.tasks
        return [float((place + generator.random_sample()) * step) for place in range(config.tasks)]
    return [float(angle) for angle in generator.uniform(0, 180, int(config.rule))]


def build(config: RotatedMnistConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._mnist.load` for what it raises.

    Raises:
        ValueError: There are fewer images of a class than disjoint shares need.
    """
    cut = _mnist.cut(_mnist.DIGITS, request)
    degrees = angles(config, request.seed)
    parts = shares(config, cut, len(degrees), request.seed)
    nearest = config.rule == "gem"
    experiences = []
    for place, (angle, (train, test)) in enumerate(zip(degrees, parts, strict=True)):
        chosen = builders.first(train, config.train), builders.first(test, config.test)
        train, test = (rotated(samples, angle, place, nearest=nearest) for samples in chosen)
        for name, samples in (("train", train), ("test", test)):
            if len(set(samples.labels.tolist())) < len(cut.class_names):
                raise ValueError(f"images: too few {name} images for {len(degrees)} disjoint shares; use all")
        domain = f"{angle:g} degrees" if config.rule == "fixed" else f"{place} ({angle:.1f} degrees)"
        experiences.append(Experience(train=train, test=test, classes=tuple(range(10)), domain=domain))
    return Scenario.of(
        SPEC, config, version=1, experiences=tuple(experiences), class_names=cut.class_names, notes=cut.notes
    )


def shares(config: RotatedMnistConfig, cut: builders.Cut, count: int, seed: int) -> list[tuple[Samples, Samples]]:
    """Training and test images of each experience, not yet rotated."""
    import torch

    if config.rule == "fixed":
        whole = Samples.concat([cut.train, cut.test])
        order = np.random.RandomState(seed).permutation(len(whole))
        found = []
        for place in range(count):
            part = whole.subset(torch.from_numpy(order[place::count]))
            found.append(tuple(part.subset(torch.from_numpy(rows)) for rows in splits.train_test(part.labels)))
        return [(train, test) for train, test in found]
    if config.images == "all":
        return [(cut.train, cut.test)] * count
    generator = np.random.RandomState(seed)
    halves = []
    for samples in (cut.train, cut.test):
        order = generator.permutation(len(samples))
        halves.append([samples.subset(torch.from_numpy(np.sort(order[place::count]))) for place in range(count)])
    return list(zip(*halves, strict=True))


def rotated(samples: Samples, angle: float, place: int, *, nearest: bool = False) -> Samples:
    """The samples turned by an angle in degrees; ids of experience ``place``."""
    import torch
    from PIL import Image

    way = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR

    def change(images: Any, _: Any) -> Any:
        turned = [np.asarray(Image.fromarray(grey).rotate(angle, resample=way)) for grey in images[:, 0].numpy()]
        return torch.from_numpy(np.stack(turned))[:, None].expand(-1, 3, -1, -1) if turned else images

    source = Derived(samples.source, change, f"rotated {angle!r} {'nearest' if nearest else 'bilinear'}")
    return Samples(source, samples.rows, samples.labels, samples.ids + place * _mnist.IDS)


SPEC = ScenarioSpec(
    name="rotated-mnist",
    build=build,
    config=RotatedMnistConfig,
    summary="MNIST at 20 angles, at rising ones (gem) or at six fixed ones; domain-incremental",
    family="domain-il",
    tracks={"mini": "plain", "paper": "plain"},
    variant="rule",
    source=_mnist.SOURCE,
    licence=_mnist.LICENCE,
    size_mb=11.6,
    data=(_mnist.MNIST,),
    miniature=_mnist.miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``rotated-mnist``."""
    return [SPEC]
