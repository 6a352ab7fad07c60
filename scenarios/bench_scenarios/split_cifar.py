"""CIFAR-10 and CIFAR-100, class-incremental: 10 or 100 classes of 32x32 photographs.

Source: `bench_scenarios._cifar`. CIFAR-10: split and order as ``seq-cifar10`` of aimagelab/mammoth (5x2, natural
order). CIFAR-100, fine labels: published are ``10x10`` in natural order (google-research/l2p), and ``10x10``, ``20x5``,
``5x20``, ``50x2``, ``b50-inc10``, ``b50-inc5`` and ``b50-inc2`` in order ``numpy:1993`` (LAMDA-CL/LAMDA-PILOT,
LAMDA-CL/PyCIL). Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

from bench_scenarios import _cifar
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar100Config(builders.ClassStreamConfig):
    """Options of ``split-cifar100``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = 100

    split: str = "10x10"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar10Config(builders.ClassStreamConfig):
    """Options of ``split-cifar10``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = 10

    split: str = "5x2"


def build(cifar: _cifar.Cifar, config: builders.ClassStreamConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    whole, notes = _cifar.image_sets(cifar, request, {"train": 0, "test": 0})
    cut = builders.Cut(train=whole["train"], test=whole["test"], class_names=cifar.class_names, notes=notes)
    return builders.class_stream(SPECS[cifar.name], config, request, cut, version=cifar.version)


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
            data=(_cifar.CIFAR10.dataset,),
            miniature=functools.partial(_cifar.miniature, _cifar.CIFAR10),
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
            data=(_cifar.CIFAR100.dataset,),
            miniature=functools.partial(_cifar.miniature, _cifar.CIFAR100),
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cifar10`` and ``split-cifar100``, short ``split-cifar``."""
    return list(SPECS.values())
