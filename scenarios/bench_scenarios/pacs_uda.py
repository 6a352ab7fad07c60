"""PACS, labelled in one domain, unlabelled in another: unsupervised domain adaptation, all 12 ordered pairs.

Source: PACS (`bench_scenarios._pacs`). No protocol is canonical. The default, ``transductive``, is that of
Office-31 and Office-Home: all source images are labelled training images, all target images are unlabelled
training images, and the same target images are tested; there are no source test images. ``inductive`` cuts both
domains (official lists where they are there, else 80/20): the method sees the training parts, source and target
are tested on the rest, and an upper bound that trains on target labels is possible. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench_scenarios import _pacs
from benchmark import ScenarioSpec, hookimpl
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class PacsUdaConfig(_pacs.PacsConfig):
    """Options of ``pacs-uda``.

    Attributes:
        pair: Source and target, two of ``photo``, ``art_painting``, ``cartoon``, ``sketch``, joined by ``-``.
        protocol: ``transductive``: all images of both domains, target images are the test images;
            ``inductive``: training and test parts of both.
    """

    pair: str = "photo-sketch"
    protocol: Literal["transductive", "inductive"] = "transductive"

    def __post_init__(self) -> None:
        """Checks the pair."""
        _pacs.PacsConfig.__post_init__(self)
        if self.pair not in _pacs.PAIRS:
            raise ValueError(f"pair: {self.pair!r} is not a pair of domains; use one of {', '.join(_pacs.PAIRS)}")


def build(config: PacsUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair. See `bench_scenarios._pacs.load` for what it raises."""
    found = _pacs.load(config, request)
    source, target = config.pair.split("-")
    whole = config.protocol == "transductive"
    unlabelled = found.subset((found.rows if whole else found.train)[target])
    experience = Experience(
        train=found.subset((found.rows if whole else found.train)[source]).alone(),
        test=found.subset((found.rows if whole else found.test)[target]),
        classes=tuple(range(len(_pacs.CLASSES))),
        domain=target,
        target=unlabelled.without_labels(),
        target_labels=None if whole else unlabelled.labels,
        sources=(source,),
    )
    tests = () if whole else (TestSet(name="source", images=found.subset(found.test[source])),)
    notes = dict(found.notes)
    if whole:
        del notes["split"]
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=_pacs.CLASSES,
        partition="" if whole else found.partition,
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
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``pacs-uda``."""
    return [SPEC]
