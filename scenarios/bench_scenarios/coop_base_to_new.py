"""Half of the classes of one of CoOp's eleven data sets from 16 images each, the others by name alone: base-to-new.

Sources and layouts: `bench_scenarios._coop_sets`, ``bench data list`` and docs/data.md. A variant is a data set, named
as in ``coop-few-shot``. The first half of the labels, rounded up, are the base classes: their training images are those
of ``coop-few-shot`` (drawn from all classes, then cut). The others are new: a method is given their names at test time
and nothing else. Base images are classified among base names, new ones among new names; the figure is the harmonic mean
of the two accuracies (Zhou et al., CoCoOp, CVPR 2022). Published are means over the seeds 1, 2, 3, and over the data
sets the harmonic mean of the two mean accuracies. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _coop, _coop_sets, _shots
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class CoopBaseToNewConfig:
    """Options of ``coop-base-to-new``.

    Attributes:
        dataset: The data set.
        shots: Training images per class; all where there are fewer.
        test: Test images per class, the first of the list; 0 for all, as published.
    """

    dataset: str = "oxford_pets"
    shots: int = 16
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks the data set and the numbers."""
        check_ranges(self)
        _coop.check_set("dataset", self.dataset)
        _shots.check_shots(self.shots)


def build(config: CoopBaseToNewConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images. See `bench_scenarios._coop.draw` for what it raises."""
    found = _coop.draw(config.dataset, config.shots, request)
    count, test = len(found.class_names), builders.first(found.test, config.test)
    base = _shots.base_classes(count)
    held = found.validation
    experience = Experience(
        train=_shots.only(found.train, 0, len(base)),
        test=_shots.only(test, 0, len(base)),
        classes=base,
        validation=None if held is None else _shots.only(held, 0, len(base)),
    )
    new = TestSet(name="new", images=_shots.only(test, len(base), count), classes=tuple(range(len(base), count)))
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=found.class_names,
        content=found.content,
        partition=found.partition,
        notes=found.notes,
        tests=(new,),
    )


SPEC = ScenarioSpec(
    name="coop-base-to-new",
    build=build,
    config=CoopBaseToNewConfig,
    summary="half of the classes of CoOp's eleven data sets from 16 images each, the others by their names alone",
    family="base-to-new",
    tracks={"paper": "clip224", "mini": "clip224"},
    variant="dataset",
    variants=tuple(_coop_sets.SETS),
    source=_coop_sets.SOURCE,
    licence="those of the data sets",
    size_mb=_coop_sets.SIZE_MB,
    data=tuple(one.dataset for one in _coop_sets.SETS.values()),
    miniature=_coop.writer(*_coop_sets.SETS),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``coop-base-to-new``."""
    return [SPEC]
