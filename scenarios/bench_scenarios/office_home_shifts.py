"""Office-Home, 65 classes in four domains: adaptation to one of them, or one held out.

Source: `bench_scenarios._domain_trees`.

* ``office-home-uda``: transductive, as everywhere in the literature: all source images are labelled training images,
  all target images are unlabelled training images and test images. A variant is a pair such as ``Art-Clipart``, or
  several sources, ``rest-Clipart``. ``label_set=partial`` keeps the first 25 classes of the target, in alphabetical
  order, ``label_set=open-set`` the first 25 of the source: the other 40 of the target are unknown (both from
  tim-learn/SHOT ``object/image_source.py``).
* ``office-home-dg``: trained on three domains, of each 80 % of every class by the suite's rule, tested on all images of
  the fourth, or on 80 % of them (``target_part=in80``).

Version 1.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _shifts, _trees
from benchmark import ScenarioSpec, data, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest

DOMAINS = tuple(domain.replace(" ", "") for domain in trees.OFFICE_HOME_DOMAINS)


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficeHomeUdaConfig(_shifts.SharedPairConfig):
    """Options of ``office-home-uda``, see `bench_scenarios._shifts.SharedPairConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS
    CLASSES: ClassVar[int] = trees.OFFICE_HOME_CLASSES
    SHARED: ClassVar[tuple[int, ...]] = tuple(range(25))
    KNOWN: ClassVar[tuple[int, ...]] = tuple(range(25))
    UNKNOWN: ClassVar[tuple[int, ...]] = tuple(range(25, trees.OFFICE_HOME_CLASSES))

    pair: str = "Art-Clipart"


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficeHomeDgConfig(_shifts.HeldOutConfig):
    """Options of ``office-home-dg``, see `bench_scenarios._shifts.HeldOutConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS

    held_out: str = "Art"


def _listing(request: ScenarioRequest) -> _trees.Listing:
    found = trees.office_home(request)
    parts = {domain.replace(" ", ""): files for domain, files in found.parts.items()}
    return dataclasses.replace(found, parts=parts)


def build_pair(config: OfficeHomeUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``office-home-uda``. See `bench_scenarios._domain_trees.office_home` for what it raises."""
    return _shifts.whole_pair(SPECS["office-home-uda"], config, _listing(request), trees.OFFICE_HOME, request)


def build_held_out(config: OfficeHomeDgConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``office-home-dg``, likewise."""
    found = trees.halves(_listing(request))
    with trees.OFFICE_HOME.reading(data.data_root(request.data_root)):
        cut = _trees.domains(found, DOMAINS, request)
    return _shifts.held_out(SPECS["office-home-dg"], config, _shifts.Parts.of(cut))


def miniature(root: Path) -> None:
    """One image per class and domain, five of the first class (`benchmark.specs.ScenarioSpec.miniature`)."""
    names = [
        f"{domain}/Class_{label:02d}/{one:05d}.jpg"
        for domain in trees.OFFICE_HOME_DOMAINS
        for label in range(trees.OFFICE_HOME_CLASSES)
        for one in range(1 if label else 5)
    ]
    _trees.write(root / trees.OFFICE_HOME.folders[0], names)


_spec = functools.partial(
    ScenarioSpec,
    source=trees.OFFICE_HOME_SOURCE,
    licence=trees.OFFICE_HOME_LICENCE,
    size_mb=1140.0,
    data=(trees.OFFICE_HOME,),
    miniature=miniature,
)

SPECS = {
    spec.name: spec
    for spec in (
        _spec(
            name="office-home-uda",
            build=build_pair,
            config=OfficeHomeUdaConfig,
            summary="65 classes, labelled in one domain, unlabelled in another; all 12 ordered pairs",
            family="uda",
            tracks={"paper": "imagenet224", "mini": "imagenet224"},
            variant="pair",
            variants=_shifts.pairs(DOMAINS),
        ),
        _spec(
            name="office-home-dg",
            build=build_held_out,
            config=OfficeHomeDgConfig,
            summary="65 classes, trained on three domains, tested on the fourth; leave one out",
            family="dg",
            tracks={"paper": "domainbed224", "mini": "domainbed224"},
            variant="held_out",
            variants=DOMAINS,
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``office-home-uda`` and ``office-home-dg``."""
    return list(SPECS.values())
