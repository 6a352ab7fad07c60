"""Photographs, paintings, cartoons, sketches of the same 7 classes: domain-incremental on real images.

Source: PACS (`bench_scenarios._pacs`). Four experiences of 7 classes, by default from natural to abstract:
photo, art_painting, cartoon, sketch; no order is canonical, so any other can be given, and seeded ones. Test
sets are per domain and no domain id is given at test time. The split of each domain is fixed (official lists where
they are there, else 80/20). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _pacs
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsDilConfig(_pacs.PacsConfig):
    """Options of ``pacs``.

    Attributes:
        order: The domains to go through, each at most once; or one rule for all four: ``numpy:SEED``,
            ``python:SEED`` or ``seed`` (follows the run), a permutation of the default order.
    """

    order: tuple[str, ...] = _pacs.DOMAINS

    def __post_init__(self) -> None:
        """Checks that the domains exist, once each."""
        _pacs.PacsConfig.__post_init__(self)
        builders.check_order(self.order, _pacs.DOMAINS)

    def domains(self, seed: int) -> tuple[str, ...]:
        """The order of a run with this class-order seed."""
        return builders.ordered(self.order, _pacs.DOMAINS, seed)


def build(config: PacsDilConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._pacs.load` for what it raises."""
    found = _pacs.load(config, request)
    experiences = tuple(
        Experience(
            train=found.subset(found.train[domain]),
            test=found.subset(found.test[domain]),
            classes=tuple(range(len(_pacs.CLASSES))),
            domain=domain,
        )
        for domain in config.domains(request.seed)
    )
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=experiences,
        class_names=_pacs.CLASSES,
        partition=found.partition,
        notes=found.notes,
    )


SPEC = ScenarioSpec(
    name="pacs",
    build=build,
    config=PacsDilConfig,
    summary="7 classes as photo, art painting, cartoon, sketch; domain-incremental, real images",
    family="domain-il",
    tracks={"mini": "domainbed224", "paper": "imagenet224"},
    source=_pacs.SOURCE,
    licence=_pacs.LICENCE,
    size_mb=174.0,
    data=(_pacs.PACS,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``pacs``."""
    return [SPEC]
