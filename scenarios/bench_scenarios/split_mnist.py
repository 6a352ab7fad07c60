"""Handwritten digits, pieces of clothing, house numbers: ten classes of small images, class-incremental.

Sources: MNIST, Fashion-MNIST (`bench_scenarios._mnist`, 28x28 grey), SVHN (`bench_scenarios._svhn`, 32x32 photographs
of house numbers). Published is ``5x2`` in natural order (aimagelab/mammoth ``seq-mnist``; Avalanche ``SplitMNIST``,
``SplitFMNIST``). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench_scenarios import _mnist, _svhn
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitDigitsConfig(builders.ClassStreamConfig):
    """Options of ``split-mnist``, ``split-fmnist`` and ``split-svhn``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = 10

    split: str = "5x2"


def build_mnist(config: SplitDigitsConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``split-mnist``. See `bench_scenarios._mnist.load` for what it raises."""
    return builders.class_stream(SPECS["split-mnist"], config, request, _mnist.cut(_mnist.DIGITS, request))


def build_fmnist(config: SplitDigitsConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``split-fmnist``, likewise."""
    return builders.class_stream(SPECS["split-fmnist"], config, request, _mnist.cut(_mnist.CLOTHES, request))


def build_svhn(config: SplitDigitsConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``split-svhn``. See `bench_scenarios._svhn.cut` for what it raises."""
    return builders.class_stream(SPECS["split-svhn"], config, request, _svhn.cut(request))


SPECS = {
    spec.name: spec
    for spec in (
        ScenarioSpec(
            name="split-mnist",
            build=build_mnist,
            config=SplitDigitsConfig,
            summary="MNIST, class-incremental, 5 experiences of 2 digits",
            family="class-il",
            tracks={"mini": "plain", "paper": "plain"},
            variant="split",
            source=_mnist.SOURCE,
            licence=_mnist.LICENCE,
            size_mb=11.6,
            data=(_mnist.MNIST,),
            miniature=_mnist.miniature,
        ),
        ScenarioSpec(
            name="split-fmnist",
            build=build_fmnist,
            config=SplitDigitsConfig,
            summary="Fashion-MNIST, class-incremental, 5 experiences of 2 pieces of clothing",
            family="class-il",
            tracks={"mini": "plain", "paper": "plain"},
            variant="split",
            source="https://github.com/zalandoresearch/fashion-mnist",
            licence="MIT",
            size_mb=30.9,
            data=(_mnist.FASHION,),
            miniature=_mnist.miniature,
        ),
        ScenarioSpec(
            name="split-svhn",
            build=build_svhn,
            config=SplitDigitsConfig,
            summary="Street View House Numbers, class-incremental, 5 experiences of 2 digits",
            family="class-il",
            tracks={"mini": "plain", "paper": "plain"},
            variant="split",
            source=_svhn.SOURCE,
            licence=_svhn.LICENCE,
            size_mb=246.0,
            data=(_svhn.SVHN,),
            miniature=_svhn.miniature,
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-mnist``, ``split-fmnist`` and ``split-svhn``."""
    return list(SPECS.values())
