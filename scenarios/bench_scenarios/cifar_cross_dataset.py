"""Trained on CIFAR-100, tested on CIFAR-10 by its class names alone: cross-dataset transfer.

Sources: see ``split-cifar100`` and ``split-cifar10``. Training: 16 images of each class of CIFAR-100, drawn as in
``cifar100-few-shot``. Tests: CIFAR-100 among its 100 names, CIFAR-10 among its 10 names with nothing retrained, as in
CoCoOp's transfer from ImageNet to ten other data sets. No published figure is comparable. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _cifar, _cifar_shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarCrossDatasetConfig(_cifar_shots.ShotsConfig):
    """Options of ``cifar-cross-dataset``.

    Attributes:
        test: Test images per class of CIFAR-100, and ten times as many of CIFAR-10, the first of the file;
            0 for all 100 and 1,000.
    """


def build(config: CifarCrossDatasetConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images. See `bench_scenarios._cifar.load` for what it raises."""
    train, validation, test, notes = _cifar_shots.draw(config, request)
    own, all_names = len(_cifar.CIFAR100.class_names), (*_cifar.CIFAR100.class_names, *_cifar.CIFAR10.class_names)
    experience = Experience(train=train, test=test, classes=tuple(range(own)), validation=validation)
    sets, others = _cifar.image_sets(_cifar.CIFAR10, request, {"train": 0, "test": 10 * config.test})
    other = sets["test"]
    images = Samples(other.source, other.rows, other.labels + own, other.ids)
    tests = (TestSet(name="cifar10", images=images, classes=tuple(range(own, len(all_names)))),)
    notes |= {f"CIFAR-10 {key}": text for key, text in others.items()}
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=all_names,
        notes=notes,
        tests=tests,
    )


SPEC = ScenarioSpec(
    name="cifar-cross-dataset",
    build=build,
    config=CifarCrossDatasetConfig,
    summary="CIFAR-100 from 16 images per class, then CIFAR-10 by its names alone",
    family="cross-dataset",
    tracks={"mini": "cifar32", "paper": "clip224"},
    source=_cifar.SOURCE,
    licence=_cifar.LICENCE,
    size_mb=339.0,
    data=(_cifar.CIFAR100.dataset, _cifar.CIFAR10.dataset),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``cifar-cross-dataset``."""
    return [SPEC]
