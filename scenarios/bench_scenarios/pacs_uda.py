"""PACS, labelled in one domain, unlabelled in another: unsupervised domain adaptation, all 12 ordered pairs.

Source: PACS (`bench_scenarios._pacs`). No protocol is canonical. The default, ``transductive``, is that of
Office-31 and Office-Home: all source images are labelled training images, all target images are unlabelled
training images, and the same target images are tested; there are no source test images. ``inductive`` cuts both
domains (official lists where they are there, else 80/20): the method sees the training parts, source and target
are tested on the rest, and an upper bound that trains on target labels is possible. Several sources, ``rest-sketch``,
are the usual protocol of papers on multi-source adaptation; they have a table of their own. Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench_scenarios import _pacs, _shifts
from benchmark import ScenarioSpec, hookimpl, readers
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsUdaConfig(_pacs.PacsConfig):
    """Options of ``pacs-uda``.

    Attributes:
        pair: Source and target, two of ``photo``, ``art_painting``, ``cartoon``, ``sketch``, joined by ``-``; several
            sources are joined by ``+``, ``rest`` stands for all domains but the target.
        protocol: ``transductive``: all images of both domains, target images are the test images;
            ``inductive``: training and test parts of both.
    """

    pair: str = "photo-sketch"
    protocol: Literal["transductive", "inductive"] = "transductive"

    def __post_init__(self) -> None:
        """Checks the pair."""
        _pacs.PacsConfig.__post_init__(self)
        _shifts.sides(self.pair, _pacs.DOMAINS)


def build(config: PacsUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair. See `bench_scenarios._pacs.load` for what it raises."""
    found = _pacs.load(config, request)
    sources, target = _shifts.sides(config.pair, _pacs.DOMAINS)
    whole = config.protocol == "transductive"

    def labelled(parts: Mapping[str, readers.Array]) -> Samples:
        return found.several(parts, sources) if len(sources) > 1 else found.subset(parts[sources[0]])

    unlabelled = found.subset((found.rows if whole else found.train)[target])
    experience = Experience(
        train=labelled(found.rows if whole else found.train).alone(),
        test=found.subset((found.rows if whole else found.test)[target]),
        classes=tuple(range(len(_pacs.CLASSES))),
        domain=target,
        target=unlabelled.without_labels(),
        target_labels=None if whole else unlabelled.labels,
        sources=sources,
    )
    tests = () if whole else (TestSet(name="source", images=labelled(found.test).without_domains()),)
    notes = dict(found.notes)
    if whole:
        del notes["split"]
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=_pacs.CLASSES,
        partition=_shifts.partition_of(sources, "" if whole else found.partition),
        notes=notes,
        tests=tests,
        transductive=whole,
    )


SPEC = ScenarioSpec(
    name="pacs-uda",
    build=build,
    config=PacsUdaConfig,
    summary="PACS, labelled in one domain, unlabelled in another; all 12 ordered pairs",
    family="uda",
    tracks={"mini": "domainbed224", "paper": "imagenet224"},
    variant="pair",
    variants=_pacs.PAIRS,
    source=_pacs.SOURCE,
    licence=_pacs.LICENCE,
    size_mb=174.0,
    data=(_pacs.PACS,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``pacs-uda``."""
    return [SPEC]
