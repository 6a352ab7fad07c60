"""MNIST with the pixels of every experience in an order of its own: domain-incremental.

Source: MNIST (`bench_scenarios._mnist`). A variant is the number of experiences, 20 as in aimagelab/mammoth; 10 in
facebookresearch/Adversarial-Continual-Learning. Every experience has all images under one fixed permutation of their
784 pixels, the same for training and test; ten shared classes. The permutations are the successive
``permutation(784)`` of one ``RandomState(S)``, S the class-order seed of the run, as in Avalanche; Mammoth and GEM draw
theirs from global generators. Images are permuted as they are read. Version 1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from bench_scenarios import _mnist
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.config import Range
from benchmark.derived import Derived
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class PermutedMnistConfig(builders.BudgetConfig):
    """Options of ``permuted-mnist``.

    Attributes:
        experiences: Number of permutations.
        first_identity: Whether the first experience has the images as they are; its permutation is drawn all the same.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    experiences: Annotated[int, Range(min=1, max=1000)] = 20
    first_identity: bool = False


def permutations(config: PermutedMnistConfig, seed: int) -> list[Any]:
    """The order of the 784 pixels in each experience."""
    generator = np.random.RandomState(seed)
    found = [generator.permutation(_mnist.SIDE**2) for _ in range(config.experiences)]
    return [np.arange(_mnist.SIDE**2), *found[1:]] if config.first_identity else found


def build(config: PermutedMnistConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._mnist.load` for what it raises."""
    cut = _mnist.cut(_mnist.DIGITS, request)
    train, test = builders.first(cut.train, config.train), builders.first(cut.test, config.test)
    experiences = tuple(
        Experience(
            train=permuted(train, order, place),
            test=permuted(test, order, place),
            classes=tuple(range(10)),
            domain=f"permutation {place}",
        )
        for place, order in enumerate(permutations(config, request.seed))
    )
    return Scenario.of(SPEC, config, version=1, experiences=experiences, class_names=cut.class_names, notes=cut.notes)


def permuted(samples: Samples, order: Any, place: int) -> Samples:
    """The samples with their pixels in another order; ids of experience ``place``."""
    import torch

    columns = torch.from_numpy(order)
    name = f"pixels permuted {hashlib.sha256(order.astype('<i8').tobytes()).hexdigest()[:16]}"

    def change(images: Any, _: Any) -> Any:
        return images.flatten(2)[:, :, columns].view(images.shape)

    return Samples(
        Derived(samples.source, change, name), samples.rows, samples.labels, samples.ids + place * _mnist.IDS
    )


SPEC = ScenarioSpec(
    name="permuted-mnist",
    build=build,
    config=PermutedMnistConfig,
    summary="MNIST under 20 permutations of its pixels, domain-incremental",
    family="domain-il",
    tracks={"mini": "plain", "paper": "plain"},
    variant="experiences",
    source=_mnist.SOURCE,
    licence=_mnist.LICENCE,
    size_mb=11.6,
    data=(_mnist.MNIST,),
    miniature=_mnist.miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``permuted-mnist``."""
    return [SPEC]
