"""50 objects filmed in eleven sessions: domain-incremental, one test set of three sessions that are never trained.

Source: CORe50 (`bench_scenarios._domain_trees`), new instances (NI): eight experiences, the sessions 1, 2, 4, 5, 6,
8, 9, 11 in the order of google-research/l2p, each with all 50 objects; tested on sessions 3, 7, 10. The original
protocol averages ten orders of sessions: ``order=seed`` draws one per class-order seed. No domain that is tested is
trained, so there is one column and no forgetting per domain. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest

SESSIONS = tuple(f"session {number}" for number in trees.CORE50_TRAIN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Core50Config(builders.DomainStreamConfig):
    """Options of ``core50``.

    Attributes:
        order: The sessions to go through, each at most once; or one rule for all eight: ``numpy:SEED``,
            ``python:SEED`` or ``seed`` (follows the run).
        classes: The 50 objects, or their 10 categories.
        train: Training frames per class and session, the first ones; 0 for all, as published.
        test: Test frames per class, likewise.
    """

    DOMAINS: ClassVar[tuple[str, ...]] = SESSIONS

    order: tuple[str, ...] = SESSIONS
    classes: Literal["objects", "categories"] = "objects"


def build(config: Core50Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._domain_trees.core50` for what it raises."""
    listing = trees.core50(request, objects=config.classes == "objects")
    with trees.CORE50.reading(data.data_root(request.data_root)):
        found = _trees.domains(listing, SESSIONS, request, joint="test")
    return builders.domain_stream(SPEC, config, request, found)


def miniature(root: Path) -> None:
    """Two frames per object and session (`benchmark.specs.ScenarioSpec.miniature`)."""
    names = [
        f"s{session}/o{one}/C_{session:02d}_{one:02d}_{frame:03d}.png"
        for session in range(1, 12)
        for one in range(1, 51)
        for frame in range(2)
    ]
    _trees.write(root / trees.CORE50.folders[0] / "core50_128x128", names)


SPEC = ScenarioSpec(
    name="core50",
    build=build,
    config=Core50Config,
    summary="50 objects in eight sessions, tested in three others; domain-incremental",
    family="domain-il",
    tracks={"paper": "l2p-jax", "mini": "l2p-jax"},
    aliases=("core50-ni",),
    source=trees.CORE50_SOURCE,
    licence=trees.CORE50_LICENCE,
    size_mb=6000.0,
    data=(trees.CORE50,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``core50``, also ``core50-ni``."""
    return [SPEC]
