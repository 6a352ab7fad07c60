"""CIFAR-100 as a stream without boundaries: 200 short tasks in which classes come and go, one test set.

Source: Gaussian scheduled CIFAR-100 of L2P (Wang et al., CVPR 2022, table 4); see `benchmark.arrival` for the rule and
`bench_scenarios._cifar` for the data. The paper's code says 5 batches per task by default, its configuration amounts
to 1 (``--set scenario.batches=1``); which of them made table 4 is not told. The stream follows the run's class-order
seed. Any other stream whose classes grow becomes one like this by ``--set stream=blurry``. Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _cifar
from benchmark import ScenarioSpec, arrival, builders, hookimpl, splits
from benchmark.config import Range
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianCifar100Config(builders.BudgetConfig):
    """Options of ``gaussian-cifar100``.

    Attributes:
        tasks: Number of experiences.
        batches: Batches per task in the schedule, 5 or 1.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    tasks: Annotated[int, Range(min=20, max=10_000)] = 200
    batches: Annotated[int, Range(min=1, max=1000)] = 5


def build(config: GaussianCifar100Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._cifar.load` for what it raises."""
    cifar = _cifar.CIFAR100
    whole, notes = _cifar.image_sets(cifar, request, {"train": config.train, "test": config.test})
    order = splits.class_order("natural", len(cifar.class_names))
    parts = splits.class_incremental(whole["train"], whole["test"], order, (len(order),))
    one = Scenario.of(
        SPEC, config, version=1, experiences=parts, class_names=cifar.class_names, class_order=order, notes=notes
    )
    return arrival.mixed(one, config.tasks, config.batches, request.seed)


SPEC = ScenarioSpec(
    name="gaussian-cifar100",
    build=build,
    config=GaussianCifar100Config,
    summary="CIFAR-100 in 200 short tasks without boundaries, classes come and go",
    family="blurry-il",
    tracks={"mini": "cifar32", "paper": "l2p-jax"},
    source=_cifar.SOURCE,
    licence=_cifar.LICENCE,
    size_mb=169.0,
    data=(_cifar.CIFAR100.dataset,),
    miniature=functools.partial(_cifar.miniature, _cifar.CIFAR100),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``gaussian-cifar100``."""
    return [SPEC]
