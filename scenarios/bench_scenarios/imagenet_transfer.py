"""ImageNet from 16 images per class, then other data sets by the names of their classes alone.

Sources and layouts: `bench_scenarios._coop_sets`, ``bench data list`` and docs/data.md. Trained are all 1,000 classes
of ImageNet, 16 images each (or ``shots``), those of ``coop-few-shot/imagenet/16``; then, with nothing retrained, the
images of every other data set are classified among its own names (Zhou et al., CoCoOp, CVPR 2022, tables 2 and 3;
means over the seeds 1, 2, 3):

* ``imagenet-cross-dataset``: the other ten data sets of CoOp; the figure is their mean.
* ``imagenet-dg``: ImageNet-V2 (matched frequency), -Sketch, -A and -R; the figure is their mean. A and R are classified
  among the 200 names of their folders, V2 and Sketch among all 1,000.

``targets=dtd,eurosat`` tests on some of them only. Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, ClassVar

from bench_scenarios import _coop, _coop_sets, _shots
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.digests import joined
from benchmark.samples import Samples, digest_of
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet

OTHERS = tuple(one.key for one in _coop_sets.LISTED)
SHIFTED = tuple(_coop_sets.SHIFTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetTransferConfig:
    """Options of ``imagenet-cross-dataset``; its subclass has those of ``imagenet-dg``.

    Attributes:
        targets: Data sets that are tested beside ImageNet, once each.
        shots: Training images per class; all where there are fewer.
        test: Test images per class of every data set, the first of the list; 0 for all, as published.
    """

    TARGETS: ClassVar[tuple[str, ...]] = OTHERS

    targets: tuple[str, ...] = OTHERS
    shots: int = 16
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks the data sets and the numbers."""
        check_ranges(self)
        _shots.check_shots(self.shots)
        given = set(self.targets)
        if not given or len(given) < len(self.targets) or not given <= set(self.TARGETS):
            raise ValueError(
                f"targets: {','.join(self.targets)!r} is not possible; use some of {', '.join(self.TARGETS)}, once each"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetDgConfig(ImageNetTransferConfig):
    """Options of ``imagenet-dg``, see `ImageNetTransferConfig`."""

    TARGETS: ClassVar[tuple[str, ...]] = SHIFTED

    targets: tuple[str, ...] = SHIFTED


def build(name: str, config: ImageNetTransferConfig, request: ScenarioRequest) -> Scenario:
    """Builds one of the two; the seed draws the training images.

    See `bench_scenarios._coop.draw` and `bench_scenarios._coop.tested` for what it raises.
    """
    own = _coop.draw("imagenet", config.shots, request)
    names, notes, contents, tests = list(own.class_names), dict(own.notes), [own.content], []
    groups = [own.class_names]
    for key in config.targets:
        found = _coop.tested(key, request)
        images = builders.first(found.images, config.test)
        classes = tuple(range(len(names), len(names) + len(found.class_names)))
        moved = Samples(images.source, images.rows, images.labels + len(names), images.ids)
        tests.append(TestSet(name=key, images=moved, classes=classes))
        names += found.class_names
        groups.append(found.class_names)
        notes |= {f"{key} {what}": text for what, text in found.notes.items() if what != "shared names"}
        contents.append(digest_of(images.source))
    experience = Experience(
        train=own.train,
        test=builders.first(own.test, config.test),
        classes=tuple(range(len(own.class_names))),
    )
    return Scenario.of(
        SPECS[name],
        config,
        version=1,
        experiences=(experience,),
        class_names=tuple(names),
        content=joined(contents),
        notes=notes | _coop.shared_names(*groups),
        tests=tuple(tests),
    )


_spec = functools.partial(
    ScenarioSpec,
    family="cross-dataset",
    tracks={"paper": "clip224", "mini": "clip224"},
    source=_coop_sets.SOURCE,
    licence="those of the data sets",
)

SPECS = {
    spec.name: spec
    for spec in (
        _spec(
            name="imagenet-cross-dataset",
            build=functools.partial(build, "imagenet-cross-dataset"),
            config=ImageNetTransferConfig,
            summary="ImageNet from 16 images per class, then ten other data sets by their names alone",
            size_mb=_coop_sets.SIZE_MB,
            data=tuple(one.dataset for one in _coop_sets.SETS.values()),
            miniature=_coop.writer(*_coop_sets.SETS),
        ),
        _spec(
            name="imagenet-dg",
            build=functools.partial(build, "imagenet-dg"),
            config=ImageNetDgConfig,
            summary="ImageNet from 16 images per class, tested on ImageNet-V2, -Sketch, -A and -R",
            size_mb=_coop_sets.SHIFTS_MB,
            data=(_coop_sets.IMAGENET.dataset, *(one.dataset for one in _coop_sets.SHIFTED)),
            miniature=_coop.writer("imagenet", *SHIFTED),
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``imagenet-cross-dataset`` and ``imagenet-dg``."""
    return list(SPECS.values())
