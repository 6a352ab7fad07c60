"""DomainNet, 345 classes in six domains: one domain after the other, or new classes of all domains mixed.

Source: `bench_scenarios._domain_trees`, lists of the cleaned version.

* ``domainnet``, also ``domainnet-dil``: six experiences in the order clipart, infograph, painting, quickdraw, real,
  sketch (iamwangyabin/S-Prompts); RanPAC has real, quickdraw, painting, sketch, infograph, clipart;
  ``order=real,sketch,clipart`` is a cheaper one.
* ``split-domainnet-cil``: class-incremental, ``5x69``, all six domains mixed (GT-RIPL/CODA-Prompt: natural order,
  then ``class_order=python:1``, ``python:2``, ...).

Class 327, the t-shirt, has no training image among the paintings. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _trees
from benchmark import ScenarioSpec, builders, data, hookimpl
from benchmark.samples import Samples
from benchmark.scenario import Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainNetConfig(builders.DomainStreamConfig):
    """Options of ``domainnet``, see `benchmark.builders.DomainStreamConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = trees.DOMAINNET_DOMAINS

    order: tuple[str, ...] = trees.DOMAINNET_DOMAINS


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitDomainNetConfig(builders.ClassStreamConfig):
    """Options of ``split-domainnet-cil``, see `benchmark.builders.ClassStreamConfig`."""

    CLASSES: ClassVar[int] = trees.DOMAINNET_CLASSES

    split: str = "5x69"


def build(config: DomainNetConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``domainnet``. See `bench_scenarios._domain_trees.domainnet` for what it raises."""
    order = builders.ordered(config.order, config.DOMAINS, request.seed)
    chosen = [domain for domain in trees.DOMAINNET_DOMAINS if domain in order]
    listing = trees.domainnet(request, chosen)
    with trees.DOMAINNET.reading(data.data_root(request.data_root)):
        found = _trees.domains(listing, chosen, request)
    return builders.domain_stream(SPECS["domainnet"], config, request, found)


def build_classes(config: SplitDomainNetConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``split-domainnet-cil``, likewise."""
    listing = trees.domainnet(request)
    with trees.DOMAINNET.reading(data.data_root(request.data_root)):
        found = _trees.samples(listing, request)
    train, test = (
        Samples.concat([found[f"{domain} {part}"] for domain in trees.DOMAINNET_DOMAINS]) for part in ("train", "test")
    )
    cut = builders.Cut(train=train, test=test, class_names=listing.class_names, notes=listing.notes)
    return builders.class_stream(SPECS["split-domainnet-cil"], config, request, cut)


def miniature(root: Path) -> None:
    """One training and one test image per class and domain, and the lists; no painted t-shirt is trained."""
    folder = root / trees.DOMAINNET.folders[0]
    for domain in trees.DOMAINNET_DOMAINS:
        for part in ("train", "test"):
            labels = [
                label for label in range(trees.DOMAINNET_CLASSES) if (domain, part, label) != ("painting", "train", 327)
            ]
            names = [f"{domain}/class_{label:03d}/{domain}_{part}_{label:06d}.jpg" for label in labels]
            _trees.write(folder, names)
            lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
            (folder / f"{domain}_{part}.txt").write_text("".join(lines))


SPECS = {
    spec.name: spec
    for spec in (
        ScenarioSpec(
            name="domainnet",
            build=build,
            config=DomainNetConfig,
            summary="345 classes in six domains from clipart to sketch; domain-incremental",
            family="domain-il",
            tracks={"paper": "imagenet224", "mini": "imagenet224"},
            aliases=("domainnet-dil",),
            source=trees.DOMAINNET_SOURCE,
            licence=trees.DOMAINNET_LICENCE,
            size_mb=18000.0,
            data=(trees.DOMAINNET,),
            miniature=miniature,
        ),
        ScenarioSpec(
            name="split-domainnet-cil",
            build=build_classes,
            config=SplitDomainNetConfig,
            summary="DomainNet, six domains mixed, class-incremental, 5 experiences of 69 classes",
            family="class-il",
            tracks={"paper": "coda224", "mini": "coda224"},
            variant="split",
            source=trees.DOMAINNET_SOURCE,
            licence=trees.DOMAINNET_LICENCE,
            size_mb=18000.0,
            data=(trees.DOMAINNET,),
            miniature=miniature,
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``domainnet``, also ``domainnet-dil``, and ``split-domainnet-cil``."""
    return list(SPECS.values())
