"""50 classes of CIFAR-100 with 16 images each, the other 50 known by name only: base-to-new.

Source: see ``split-cifar100``; labels in alphabetical order. The first 50 are the base classes: 16 images each,
drawn as in ``cifar100-few-shot`` (from all classes, then cut). The other 50 are new: a method is given their
names at test time and nothing else. Base images are classified among base names, new ones among new names; the
figure is the harmonic mean of the two accuracies (Zhou et al., CoCoOp, CVPR 2022). CIFAR-100 is none of that paper's
data sets: no published figure is comparable. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _cifar, _cifar_shots, _shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar100BaseToNewConfig(_cifar_shots.ShotsConfig):
    """Options of ``cifar100-base-to-new``."""


def build(config: Cifar100BaseToNewConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images. See `bench_scenarios._cifar.load` for what it raises."""
    train, validation, test, notes = _cifar_shots.draw(config, request)
    count = len(_cifar.CIFAR100.class_names)
    base = _shots.base_classes(count)
    experience = Experience(
        train=_shots.only(train, 0, len(base)),
        test=_shots.only(test, 0, len(base)),
        classes=base,
        validation=_shots.only(validation, 0, len(base)),
    )
    new = _shots.only(test, len(base), count)
    tests = (TestSet(name="new", images=new, classes=tuple(range(len(base), count))),)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=_cifar.CIFAR100.class_names,
        notes=notes,
        tests=tests,
    )


SPEC = ScenarioSpec(
    name="cifar100-base-to-new",
    build=build,
    config=Cifar100BaseToNewConfig,
    summary="50 classes of CIFAR-100 from 16 images each, 50 more by their names alone",
    family="base-to-new",
    tracks={"mini": "cifar32", "paper": "clip224"},
    source=_cifar.SOURCE,
    licence=_cifar.LICENCE,
    size_mb=169.0,
    data=(_cifar.CIFAR100.dataset,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``cifar100-base-to-new``."""
    return [SPEC]
