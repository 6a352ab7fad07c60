"""DomainNet and miniDomainNet: adaptation to one of their domains, or one held out.

Source: `bench_scenarios._domain_trees`, lists of the cleaned version; miniDomainNet are lists of 126 classes in four
domains below ``splits_mini/`` of the same folder (Zhou et al., "Domain Adaptive Ensemble Learning", TIP 2021;
KaiyangZhou/Dassl.pytorch).

* ``domainnet-uda``: inductive. The source's training list with labels, the target's training list without, tested on
  the target's test list; what is kept on the source's. A variant is one of the twelve pairs of clipart, painting, real
  and sketch (thuml/Transfer-Learning-Library), any other pair of the six domains (CDTrans has all 30), or several
  sources: ``rest-clipart`` has the other five.
* ``mini-domainnet``: likewise with the lists of miniDomainNet.
* Both may be partial or open sets (``label_set``); the classes are the user's (``shared``, ``unknown``).
* ``domainnet-dg``: trained on the training lists of five domains, tested on all images of the sixth, or on its training
  list (``target_part=in80``; it has 70 % of the images, DomainBed's cut has 80 %).

Version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench_scenarios import _domain_trees as trees
from bench_scenarios import _shifts, _trees
from benchmark import ScenarioSpec, data, hookimpl
from benchmark.scenario import Scenario, ScenarioRequest

FOUR = ("clipart", "painting", "real", "sketch")


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainNetUdaConfig(_shifts.SharedPairConfig):
    """Options of ``domainnet-uda``, see `bench_scenarios._shifts.SharedPairConfig`."""

    CLASSES: ClassVar[int] = trees.DOMAINNET_CLASSES
    DOMAINS: ClassVar[tuple[str, ...]] = trees.DOMAINNET_DOMAINS

    pair: str = "clipart-sketch"


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniDomainNetConfig(_shifts.SharedPairConfig):
    """Options of ``mini-domainnet``, see `bench_scenarios._shifts.SharedPairConfig`."""

    CLASSES: ClassVar[int] = trees.MINI_CLASSES
    DOMAINS: ClassVar[tuple[str, ...]] = FOUR

    pair: str = "clipart-sketch"


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainNetDgConfig(_shifts.HeldOutConfig):
    """Options of ``domainnet-dg``, see `bench_scenarios._shifts.HeldOutConfig`."""

    DOMAINS: ClassVar[tuple[str, ...]] = trees.DOMAINNET_DOMAINS

    held_out: str = "clipart"


def _parts(listing: _trees.Listing, domains: Sequence[str], request: ScenarioRequest) -> _shifts.Parts:
    with trees.DOMAINNET.reading(data.data_root(request.data_root)):
        return _shifts.Parts.of(_trees.domains(listing, domains, request))


def _chosen(config: _shifts.PairConfig) -> list[str]:
    """The domains of a pair in the order of the data set; others are not read."""
    sources, target = config.sides()
    return [domain for domain in config.DOMAINS if domain in (*sources, target)]


def build_pair(config: DomainNetUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``domainnet-uda``. See `bench_scenarios._domain_trees.domainnet` for what it raises."""
    domains = _chosen(config)
    return _shifts.pair(SPECS["domainnet-uda"], config, _parts(trees.domainnet(request, domains), domains, request))


def build_mini(config: MiniDomainNetConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``mini-domainnet``, likewise; all its lists are read, as only their sum is published."""
    domains = _chosen(config)
    found = _parts(trees.mini_domainnet(request, FOUR, domains), domains, request)
    return _shifts.pair(SPECS["mini-domainnet"], config, found)


def build_held_out(config: DomainNetDgConfig, request: ScenarioRequest) -> Scenario:
    """Builds ``domainnet-dg``, likewise."""
    domains = trees.DOMAINNET_DOMAINS
    return _shifts.held_out(SPECS["domainnet-dg"], config, _parts(trees.domainnet(request), domains, request))


def miniature(root: Path) -> None:
    """All training images of one domain, one per class, and two of each part of the others."""
    _write(root, trees.DOMAINNET_DOMAINS, trees.DOMAINNET_CLASSES, full=("clipart", "infograph"))


def mini_miniature(root: Path) -> None:
    """Likewise of miniDomainNet."""
    _write(root, FOUR, trees.MINI_CLASSES, full=("clipart",), below="splits_mini")


def _write(root: Path, domains: Sequence[str], classes: int, *, full: Sequence[str], below: str = "splits") -> None:
    folder = root / trees.DOMAINNET.folders[0]
    (folder / below).mkdir(parents=True)
    for domain in domains:
        for part in ("train", "test"):
            labels = range(classes if domain in full and part == "train" else 2)
            names = [f"{domain}/class_{label:03d}/{domain}_{part}_{label:06d}.jpg" for label in labels]
            _trees.write(folder, names)
            lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
            (folder / below / f"{domain}_{part}.txt").write_text("".join(lines))


SPECS = {
    spec.name: spec
    for spec in (
        ScenarioSpec(
            name="domainnet-uda",
            build=build_pair,
            config=DomainNetUdaConfig,
            summary="345 classes, labelled in one domain, unlabelled in another; 12 ordered pairs of four domains",
            family="uda",
            tracks={"paper": "imagenet224", "mini": "imagenet224"},
            variant="pair",
            variants=_shifts.pairs(FOUR),
            data_by_variant=True,
            source=trees.DOMAINNET_SOURCE,
            licence=trees.DOMAINNET_LICENCE,
            size_mb=18000.0,
            data=(trees.DOMAINNET,),
            miniature=miniature,
        ),
        ScenarioSpec(
            name="mini-domainnet",
            build=build_mini,
            config=MiniDomainNetConfig,
            summary="126 classes of DomainNet, labelled in one domain, unlabelled in another; all 12 ordered pairs",
            family="uda",
            tracks={"paper": "clip224", "mini": "imagenet224"},
            variant="pair",
            variants=_shifts.pairs(FOUR),
            data_by_variant=True,
            source=f"{trees.DOMAINNET_SOURCE}; lists: KaiyangZhou/Dassl.pytorch (DATASETS.md, miniDomainNet)",
            licence=trees.DOMAINNET_LICENCE,
            size_mb=18000.0,
            data=(trees.DOMAINNET,),
            miniature=mini_miniature,
        ),
        ScenarioSpec(
            name="domainnet-dg",
            build=build_held_out,
            config=DomainNetDgConfig,
            summary="345 classes, trained on five domains, tested on the sixth; leave one out",
            family="dg",
            tracks={"paper": "domainbed224", "mini": "domainbed224"},
            variant="held_out",
            variants=trees.DOMAINNET_DOMAINS,
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
    """Registers ``domainnet-uda``, ``mini-domainnet`` and ``domainnet-dg``."""
    return list(SPECS.values())
