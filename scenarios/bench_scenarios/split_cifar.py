"""CIFAR-10 and CIFAR-100, class-incremental: 10 or 100 classes of 32x32 photographs.

Source: `bench_scenarios._cifar`. CIFAR-10: split and order as ``seq-cifar10`` of aimagelab/mammoth (5x2, natural
order). CIFAR-100, fine labels: published are ``10x10`` in natural order (google-research/l2p), and ``10x10``, ``20x5``,
``5x20`` and ``b50-inc10`` in order ``numpy:1993`` (LAMDA-CL/LAMDA-PILOT, LAMDA-CL/PyCIL). Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _cifar
from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar100Config:
    """Options of ``split-cifar100``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``10x10``, ``20x5``, ``b50-inc10``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    split: str = "10x10"
    class_order: str = "natural"
    train: Annotated[int, Range(min=0)] = 0
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and no count is negative."""
        self._check(100)

    def _check(self, num_classes: int) -> None:
        for field, check in (("split", splits.sizes), ("class_order", splits.class_order)):
            try:
                check(getattr(self, field), num_classes)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from error
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar10Config(SplitCifar100Config):
    """Options of ``split-cifar10``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``5x2``, ``b5-inc1``, ``4,3,3``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    split: str = "5x2"

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and no count is negative."""
        self._check(10)


def build(cifar: _cifar.Cifar, config: SplitCifar100Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    whole, notes = _cifar.image_sets(cifar, request, {"train": config.train, "test": config.test})
    order = splits.class_order(config.class_order, len(cifar.class_names), seed=request.seed)
    sizes = splits.sizes(config.split, len(order))
    return Scenario.of(
        SPECS[cifar.name],
        config,
        version=cifar.version,
        experiences=splits.class_incremental(whole["train"], whole["test"], order, sizes),
        class_names=tuple(cifar.class_names[label] for label in order),
        class_order=order,
        notes=notes,
    )


SPECS = {
    spec.name: spec
    for spec in (
        ScenarioSpec(
            name="split-cifar10",
            build=functools.partial(build, _cifar.CIFAR10),
            config=SplitCifar10Config,
            summary="CIFAR-10, class-incremental, 5 experiences of 2 classes",
            family="class-il",
            tracks={"mini": "cifar32", "paper": "unit224"},
            variant="split",
            source=_cifar.SOURCE,
            licence=_cifar.LICENCE,
            size_mb=170.5,
        ),
        ScenarioSpec(
            name="split-cifar100",
            build=functools.partial(build, _cifar.CIFAR100),
            config=SplitCifar100Config,
            summary="CIFAR-100, class-incremental, 10 experiences of 10 classes",
            family="class-il",
            tracks={"mini": "cifar32", "paper": "unit224"},
            variant="split",
            aliases=("split-cifar",),
            source=_cifar.SOURCE,
            licence=_cifar.LICENCE,
            size_mb=169.0,
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cifar10`` and ``split-cifar100``, short ``split-cifar``."""
    return list(SPECS.values())
