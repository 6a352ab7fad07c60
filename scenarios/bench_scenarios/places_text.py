"""Sheets of places and the sentences that say the same: texts are written about tables, no download.

Source: `bench_scenarios.language_world`. A sheet has a name and up to seven slots, in one line (``name : mill | food
: thai``), and up to three texts about it are its references. The bundled language models saw places described and
sheets of museums, inns and shops, but no sheet of a place. The combinations of slots of the test occur neither in
training nor in pre-training. The texts are the same for every seed. Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _language, _tables
from bench_scenarios import language_world as world
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

WORDING = Wording(patterns=("{source} = {mask}",), segments=("source",))


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesTextConfig:
    """Options of ``places-text``.

    Attributes:
        train: Training sheets.
        test: Test sheets.
    """

    train: Annotated[int, Range(min=2, max=100_000)] = 1000
    test: Annotated[int, Range(min=2, max=100_000)] = 200

    def __post_init__(self) -> None:
        """Checks that there are sheets."""
        check_ranges(self)


def build(config: PlacesTextConfig, request: ScenarioRequest) -> Scenario:
    """Builds it; it does not depend on the seed."""
    experience = Experience(train=_samples("train", config.train), test=_samples("test", config.test), classes=(0,))
    return Scenario.of(
        SPEC,
        config,
        version=world.VERSION,
        experiences=(experience,),
        content=world.digest(),
        class_names=("text",),
        notes=_language.NOTES,
        wording=WORDING,
    )


@functools.lru_cache(maxsize=8)
def _sheets(split: str, count: int) -> tuple[world.Sheet, ...]:
    """Half a millisecond each: kept from one build to the next."""
    return tuple(world.sheet(index, split=split) for index in range(count))


def _samples(split: str, count: int) -> Samples:
    import torch

    sheets = _sheets(split, count)
    rows = torch.arange(count)
    return Samples(
        _tables.Texts([{"source": sheet.source} for sheet in sheets]),
        rows,
        torch.zeros(count),
        rows + world.SPLITS.index(split) * 1_000_000,
        references=[sheet.references for sheet in sheets],
    )


SPEC = ScenarioSpec(
    name="places-text",
    build=build,
    config=PlacesTextConfig,
    summary="sentences about sheets of places, combinations of slots unseen; bundled",
    family="generation",
    tracks={"nano": "", "mini": ""},
    source=_language.SOURCE,
    licence=_language.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``places-text``."""
    return [SPEC]
