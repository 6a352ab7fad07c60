"""MNIST at six angles, one of which is held out: domain generalisation.

Source: MNIST (`bench_scenarios._mnist`), cut as ``rotated-mnist/fixed`` (facebookresearch/DomainBed): training and test
images are pooled, shuffled with the class-order seed of the run and dealt to 0, 15, 30, 45, 60 and 75 degrees; 80/20
per class of each by the suite's rule. Trained on five angles, tested on all images of the sixth, or on 80 % of them
(``target_part=in80``). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench_scenarios import _mnist, _shifts, rotated_mnist
from benchmark import ScenarioSpec, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest

DOMAINS = tuple(f"{angle:g}" for angle in rotated_mnist.FIXED)


@dataclass(frozen=True, kw_only=True, slots=True)
class RotatedMnistDgConfig(_shifts.HeldOutConfig):
    """Options of ``rotated-mnist-dg``, see `bench_scenarios._shifts.HeldOutConfig`; domains are degrees."""

    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS

    held_out: str = "0"


def build(config: RotatedMnistDgConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed deals the images. See `bench_scenarios._mnist.load` for what it raises."""
    cut = _mnist.cut(_mnist.DIGITS, request)
    fixed = rotated_mnist.RotatedMnistConfig(rule="fixed")
    shares = rotated_mnist.shares(fixed, cut, len(DOMAINS), request.seed)
    turned = {
        domain: [rotated_mnist.rotated(samples, angle, place) for samples in parts]
        for place, (domain, angle, parts) in enumerate(zip(DOMAINS, rotated_mnist.FIXED, shares, strict=True))
    }
    parts = _shifts.Parts(
        train={domain: train for domain, (train, _) in turned.items()},
        test={domain: test for domain, (_, test) in turned.items()},
        class_names=cut.class_names,
        notes=cut.notes,
    )
    return _shifts.held_out(SPEC, config, parts)


SPEC = ScenarioSpec(
    name="rotated-mnist-dg",
    build=build,
    config=RotatedMnistDgConfig,
    summary="MNIST at six angles, trained on five, tested on the sixth; leave one out",
    family="dg",
    tracks={"mini": "plain", "paper": "plain"},
    variant="held_out",
    variants=DOMAINS,
    source=_mnist.SOURCE,
    licence=_mnist.LICENCE,
    size_mb=11.6,
    data=(_mnist.MNIST,),
    miniature=_mnist.miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``rotated-mnist-dg``."""
    return [SPEC]
