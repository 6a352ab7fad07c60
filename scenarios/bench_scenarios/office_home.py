"""65 classes of everyday objects as art, clipart, product pictures and photographs: domain-incremental.

Source: Office-Home (`bench_scenarios._domain_trees`). Four experiences, by default Art, Clipart, Product, Real World,
the order of the folders in the literature. There is no published split: 80/20 per class and domain by the suite's
rule, so no published figure is comparable without its list. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficeHomeConfig(builders.DomainStreamConfig):
    """Options of ``office-home``, see `benchmark.builders.DomainStreamConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = trees.OFFICE_HOME_DOMAINS

    order: tuple[str, ...] = trees.OFFICE_HOME_DOMAINS


def build(config: OfficeHomeConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._domain_trees.office_home` for what it raises."""
    listing = trees.halves(trees.office_home(request))
    with trees.OFFICE_HOME.reading(data.data_root(request.data_root)):
        found = _trees.domains(listing, trees.OFFICE_HOME_DOMAINS, request)
    return builders.domain_stream(SPEC, config, request, found)


def miniature(root: Path) -> None:
    """Five images per class and domain (`benchmark.specs.ScenarioSpec.miniature`)."""
    classes = [f"Class_{number:02d}" for number in range(trees.OFFICE_HOME_CLASSES)]
    names = [
        f"{domain}/{name}/{one:05d}.jpg" for domain in trees.OFFICE_HOME_DOMAINS for name in classes for one in range(5)
    ]
    _trees.write(root / trees.OFFICE_HOME.folders[0], names)


SPEC = ScenarioSpec(
    name="office-home",
    build=build,
    config=OfficeHomeConfig,
    summary="65 classes as art, clipart, products, photographs; domain-incremental",
    family="domain-il",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    source=trees.OFFICE_HOME_SOURCE,
    licence=trees.OFFICE_HOME_LICENCE,
    size_mb=1140.0,
    data=(trees.OFFICE_HOME,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``office-home``."""
    return [SPEC]
