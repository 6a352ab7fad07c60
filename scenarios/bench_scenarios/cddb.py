"""Real pictures and those of one generator after the other: continual deepfake detection, domain-incremental.

Source: CDDB (`bench_scenarios._domain_trees`), Coral79/CDDB. Variants are the published streams: ``cddb/hard``
(default, also ``cddb-hard``): gaugan, biggan, wild, whichfaceisreal, san; ``cddb/easy`` of seven and ``cddb/long`` of
twelve generators (``DyTox/configs/data/ganfake_*_order.yaml``). Two classes, real and fake; the folder ``val`` of a
generator is its test set. The paper's sizes are rounded, so the numbers of images are told in the record and not
compared. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, splits
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class CddbConfig(builders.BudgetConfig):
    """Options of ``cddb``.

    Attributes:
        stream: ``hard``, ``easy`` or ``long``.
        order: ``natural``, or a rule of `benchmark.splits.class_order` for the order of the generators.
        train: Training images per class and generator, the first ones; 0 for all, as published.
        test: Test images per class and generator, likewise.
    """

    stream: Literal["hard", "easy", "long"] = "hard"
    order: str = "natural"

    def __post_init__(self) -> None:
        """Checks the order."""
        builders.BudgetConfig.__post_init__(self)
        try:
            splits.class_order(self.order, len(trees.CDDB_STREAMS[self.stream]))
        except ValueError as error:
            raise ValueError(f"order: {error}") from error


def build(config: CddbConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._domain_trees.cddb` for what it raises."""
    generators = trees.CDDB_STREAMS[config.stream]
    listing = trees.cddb(request, generators)
    with trees.CDDB.reading(data.data_root(request.data_root)):
        found = _trees.domains(listing, generators, request)
    order = splits.class_order(config.order, len(generators), seed=request.seed)
    experiences = tuple(
        Experience(
            train=builders.first(found.train[name], config.train),
            test=builders.first(found.test[name], config.test),
            classes=(0, 1),
            domain=name,
        )
        for name in (generators[place] for place in order)
    )
    return Scenario.of(
        SPEC, config, version=1, experiences=experiences, class_names=found.class_names, notes=found.notes
    )


def miniature(root: Path) -> None:
    """Two images of each kind per generator and split; some have folders of objects, as published."""
    names = []
    for generator in trees.CDDB_STREAMS["long"]:
        inner = "horse/" if generator in ("cyclegan", "glow", "stargan_gf", "stylegan") else ""
        for split in ("train", "val"):
            for kind in trees.CDDB_KINDS:
                names += [f"{generator}/{split}/{inner}{kind}/{one}.png" for one in range(2)]
    _trees.write(root / trees.CDDB.folders[0], names)


SPEC = ScenarioSpec(
    name="cddb",
    build=build,
    config=CddbConfig,
    summary="real or fake, one generator after the other; domain-incremental",
    family="domain-il",
    tracks={"paper": "imagenet224", "mini": "imagenet224"},
    variant="stream",
    aliases=("cddb-hard",),
    source=trees.CDDB_SOURCE,
    licence=trees.CDDB_LICENCE,
    size_mb=30000.0,
    data=(trees.CDDB,),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``cddb``, also ``cddb-hard``."""
    return [SPEC]
