"""PACS, trained on three domains, tested on the fourth: domain generalisation, leave one out.

Source: PACS (`bench_scenarios._pacs`). A variant names the domain that is held out. Training: the training parts
of the other three (official lists where they are there, else 80/20), domains known to methods that declare so.
Test: all images of the domain held out, as Dassl does, or 80 % of it (``target_part=in80``) as DomainBed does; what
is kept of the sources is measured on their test parts. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench_scenarios import _pacs
from benchmark import ScenarioSpec, hookimpl
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsDgConfig(_pacs.PacsConfig):
    """Options of ``pacs-dg``.

    Attributes:
        held_out: The domain that is never trained.
        target_part: Images of it that are tested: ``all``, or ``in80``, its training part (DomainBed's "in" part
            has the same share, but other images).
    """

    held_out: str = "sketch"
    target_part: Literal["all", "in80"] = "all"

    def __post_init__(self) -> None:
        """Checks the domain."""
        _pacs.PacsConfig.__post_init__(self)
        _pacs.check_domain("held_out", self.held_out)


def build(config: PacsDgConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._pacs.load` for what it raises."""
    found = _pacs.load(config, request)
    sources = tuple(domain for domain in _pacs.DOMAINS if domain != config.held_out)
    experience = Experience(
        train=found.several(found.train, sources).alone(),
        test=found.subset((found.rows if config.target_part == "all" else found.train)[config.held_out]),
        classes=tuple(range(len(_pacs.CLASSES))),
        domain=config.held_out,
        sources=sources,
    )
    rest = found.several(found.test, sources)
    tests = (TestSet(name="source", images=Samples(rest.source, rest.rows, rest.labels, rest.ids)),)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=_pacs.CLASSES,
        partition=found.partition,
        notes=found.notes,
        tests=tests,
    )


SPEC = ScenarioSpec(
    name="pacs-dg",
    build=build,
    config=PacsDgConfig,
    summary="PACS, trained on three domains, tested on the fourth; leave one out",
    family="dg",
    tracks={"mini": "domainbed224", "paper": "domainbed224"},
    variant="held_out",
    variants=_pacs.DOMAINS,
    source=_pacs.SOURCE,
    licence=_pacs.LICENCE,
    size_mb=174.0,
    data=(_pacs.PACS,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``pacs-dg``."""
    return [SPEC]
