"""The eleven data sets of CoOp from 1, 2, 4, 8 or 16 labelled images per class: few-shot transfer.

Sources and layouts: `bench_scenarios._coop_sets`, ``bench data list`` and docs/data.md. A variant is a data set and a
number of training images per class, ``oxford_pets/16``; the names are those of CoOp's ``configs/datasets``. Without the
number, ``coop-few-shot/oxford_pets`` runs all five. The images are drawn by the published rule
(`bench_scenarios._shots`, KaiyangZhou/CoOp) with the run's class-order seed, at most four per class for validation from
the validation list; ImageNet has none. Published are means over the seeds 1, 2, 3 (``--seed 1-3``), of the model after
the last epoch. Templates of CLIP without training are in docs/data.md. What is different: class names have blanks for
underscores, and ImageNet's images are drawn in the order of their names, where CoOp takes them as the file system gives
them. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _coop, _coop_sets, _shots
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class CoopFewShotConfig:
    """Options of ``coop-few-shot``.

    Attributes:
        task: Data set and training images per class, e.g. ``dtd/4``; all images of a class where there are fewer.
        test: Test images per class, the first of the list; 0 for all, as published.
    """

    task: str = "oxford_pets/16"
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks the data set and the number."""
        check_ranges(self)
        _, _, shots = self.task.partition("/")
        _coop.check_set("task", self.task.partition("/")[0])
        if not (shots.isascii() and shots.isdecimal() and str(int(shots)) == shots):
            raise ValueError(f"task: {self.task!r} has no number of images; use e.g. {self.task.partition('/')[0]}/16")
        _shots.check_shots(int(shots))

    @property
    def parts(self) -> tuple[str, int]:
        """Data set and number."""
        name, _, shots = self.task.partition("/")
        return name, int(shots)


def build(config: CoopFewShotConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images. See `bench_scenarios._coop.draw` for what it raises."""
    found = _coop.draw(*config.parts, request)
    experience = Experience(
        train=found.train,
        test=builders.first(found.test, config.test),
        classes=tuple(range(len(found.class_names))),
        validation=found.validation,
    )
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=found.class_names,
        content=found.content,
        partition=found.partition,
        notes=found.notes,
    )


SPEC = ScenarioSpec(
    name="coop-few-shot",
    build=build,
    config=CoopFewShotConfig,
    summary="CoOp's eleven data sets from 1, 2, 4, 8 or 16 images per class",
    family="few-shot",
    tracks={"paper": "clip224", "mini": "clip224"},
    variant="task",
    variants=tuple(f"{name}/{shots}" for name in _coop_sets.SETS for shots in _shots.SHOTS),
    source=_coop_sets.SOURCE,
    licence="those of the data sets",
    size_mb=_coop_sets.SIZE_MB,
    data=tuple(one.dataset for one in _coop_sets.SETS.values()),
    miniature=_coop.writer(*_coop_sets.SETS),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``coop-few-shot``."""
    return [SPEC]
