"""CIFAR-100 from 1 to 16 labelled images per class: few-shot transfer.

Source: see ``split-cifar100``. A variant is the number of training images per class: 1, 2, 4, 8 or 16, drawn by the
published rule (`bench_scenarios._shots`, KaiyangZhou/CoOp) with the run's class-order seed, all 100 classes, labels in
alphabetical order; the test set is the same for all. CIFAR-100 is none of CoOp's data sets: no published figure is
comparable. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _cifar, _cifar_shots, _shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar100FewShotConfig(_cifar_shots.ShotsConfig):
    """Options of ``cifar100-few-shot``."""


def build(config: Cifar100FewShotConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images. See `bench_scenarios._cifar.load` for what it raises."""
    train, validation, test, notes = _cifar_shots.draw(config, request)
    classes = tuple(range(len(_cifar.CIFAR100.class_names)))
    experience = Experience(train=train, test=test, classes=classes, validation=validation)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=_cifar.CIFAR100.class_names,
        notes=notes,
    )


SPEC = ScenarioSpec(
    name="cifar100-few-shot",
    build=build,
    config=Cifar100FewShotConfig,
    summary="CIFAR-100 from 1, 2, 4, 8 or 16 images per class",
    family="few-shot",
    tracks={"mini": "cifar32", "paper": "clip224"},
    variant="shots",
    variants=tuple(map(str, _shots.SHOTS)),
    source=_cifar.SOURCE,
    licence=_cifar.LICENCE,
    size_mb=169.0,
    data=(_cifar.CIFAR100.dataset,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``cifar100-few-shot``."""
    return [SPEC]
