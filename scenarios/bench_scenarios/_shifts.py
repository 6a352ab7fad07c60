"""Scenarios out of data sets of several domains: one labelled and one not (uda), or one held out (dg).

A reader gives the samples of every domain, `pair` and `held_out` make scenarios of them. What is common to all of them:
the unlabelled images lead to nothing else, training images of several domains say which they are from, and what is kept
of the sources is measured where there are source images that were not trained.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bench_scenarios import _trees
from benchmark import builders, data
from benchmark.data import DataSet
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet
from benchmark.specs import ScenarioSpec

REST = "rest"


def pairs(domains: Iterable[str]) -> tuple[str, ...]:
    """All ordered pairs of some domains, ``SOURCE-TARGET``."""
    names = tuple(domains)
    return tuple(f"{source}-{target}" for source in names for target in names if source != target)


def sides(pair: str, domains: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The sources and the target of ``SOURCE-TARGET``, ``A+B-TARGET`` or ``rest-TARGET``.

    Raises:
        ValueError: They are no domains, or not different ones.
    """
    first, _, target = pair.rpartition("-")
    rest = tuple(domain for domain in domains if domain != target)
    sources = rest if first == REST else tuple(first.split("+"))
    if target not in domains or len(set(sources)) < len(sources) or not set(sources) <= set(rest):
        raise ValueError(
            f"pair: {pair!r} is not possible; use SOURCE-TARGET, A+B-TARGET or {REST}-TARGET with domains out of "
            f"{', '.join(domains)}"
        )
    return sources, target


def partition_of(sources: Sequence[str], partition: str) -> str:
    """`Scenario.partition` of a pair: adaptation from several sources has a table of its own."""
    return _both(partition, "several sources") if len(sources) > 1 else partition


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The samples of a data set in several domains.

    Attributes:
        train: Training samples of each domain; all of them where a domain is not cut.
        test: Test samples of each, or empty where domains are not cut.
        class_names: In label order, the same in all domains.
        notes: For the record (`Scenario.notes`).
        partition: See `Scenario.partition`.
        class_order: See `Scenario.class_order`; that of an open set ends with the number of all classes.
    """

    train: Mapping[str, Samples]
    test: Mapping[str, Samples] = field(default_factory=dict)
    class_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""
    class_order: tuple[int, ...] = ()

    @classmethod
    def of(cls, cut: builders.Domains) -> Parts:
        """Those of domains that are cut."""
        return cls(
            train=cut.train, test=cut.test, class_names=cut.class_names, notes=cut.notes, partition=cut.partition
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Options of an adaptation from a source to a target. Subclass it, frozen, with the domains and a default.

    Attributes:
        pair: ``SOURCE-TARGET``; several sources are joined by ``+``, ``rest`` stands for all domains but the target.
    """

    DOMAINS: ClassVar[tuple[str, ...]] = ()

    pair: str

    def __post_init__(self) -> None:
        """Checks the pair."""
        self.sides()

    def sides(self) -> tuple[tuple[str, ...], str]:
        """The sources and the target.

        Raises:
            ValueError: They are no domains, or not different ones.
        """
        return sides(self.pair, self.DOMAINS)


LabelSet = Literal["closed", "partial", "open-set"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPairConfig(PairConfig):
    """Options of an adaptation between domains that may not have the same classes.

    Subclass it with the number of classes and those that publications share out: a data set without them needs the
    options ``shared`` and ``unknown``.

    Attributes:
        pair: ``SOURCE-TARGET``; several sources are joined by ``+``, ``rest`` stands for all domains but the target.
        label_set: ``closed``: both have all classes; ``partial``: the target has the shared ones only, which the
            learner is not told; ``open-set``: the source has the shared ones only, and what the target has beside
            them is to be recognised as unknown (family ``open-set``, ranked by the H-score).
        shared: Classes that source and target have where these differ: labels of the data set and ranges of them,
            e.g. ``0-9,12``; empty: the published ones.
        unknown: Classes of the target that are unknown in an open set, likewise, or ``rest`` for all others; empty:
            the published ones.
    """

    CLASSES: ClassVar[int] = 0
    SHARED: ClassVar[tuple[int, ...]] = ()
    KNOWN: ClassVar[tuple[int, ...]] = ()
    UNKNOWN: ClassVar[tuple[int, ...]] = ()

    label_set: LabelSet = "closed"
    shared: str = ""
    unknown: str = ""

    def __post_init__(self) -> None:
        """Checks the pair and the classes.

        Raises:
            ValueError: Options that do not go together, or classes that are missing or not there.
        """
        PairConfig.__post_init__(self)
        if self.label_set == "closed" and self.shared:
            raise ValueError(f"shared: {self.shared!r} has no effect with label_set=closed; use partial or open-set")
        if self.label_set != "open-set" and self.unknown:
            raise ValueError(f"unknown: {self.unknown!r} has no effect with label_set={self.label_set}; use open-set")
        if self.label_set != "closed":
            self.in_both()
        if self.label_set == "open-set":
            self.in_target()

    def in_both(self) -> tuple[int, ...]:
        """The shared classes.

        Raises:
            ValueError: They are not known, or not there.
        """
        return self._classes("shared", self.shared, self.KNOWN if self.label_set == "open-set" else self.SHARED)

    def in_target(self) -> tuple[int, ...]:
        """The unknown classes of an open set.

        Raises:
            ValueError: They are not known, not there, or shared.
        """
        shared = self.in_both()
        if self.unknown == REST:
            found = tuple(label for label in range(self.CLASSES) if label not in shared)
        else:
            found = self._classes("unknown", self.unknown, self.UNKNOWN)
        if not found or set(found) & set(shared):
            raise ValueError(
                f"unknown: {self.unknown!r} leaves no class that is not shared, or has one that is; use other classes "
                f"than {shared}"
            )
        return found

    def _classes(self, option: str, text: str, published: tuple[int, ...]) -> tuple[int, ...]:
        if not text and not published:
            raise ValueError(
                f"{option}: no published classes are known here for label_set={self.label_set}; say which, e.g. "
                f"{option}=0-{max(1, self.CLASSES // 2 - 1)}"
            )
        found = published if not text else _labels(text)
        if not found or not set(found) <= set(range(self.CLASSES)):
            raise ValueError(
                f"{option}: {text!r} is not possible; use labels and ranges out of 0..{self.CLASSES - 1}, e.g. 0-9,12"
            )
        return found

    def chosen(self, found: Parts) -> Parts:
        """The samples with the classes that this label set leaves to source and target."""
        _, target = self.sides()
        if self.label_set == "closed":
            return found
        shared = self.in_both()
        kept = {True: shared, False: tuple(range(len(found.class_names)))}
        if self.label_set == "open-set":
            kept = {True: (*shared, *self.in_target()), False: shared}
        parts = [
            {domain: only(samples, kept[domain == target]) for domain, samples in part.items()}
            for part in (found.train, found.test)
        ]
        if self.label_set == "partial":
            train, test = parts
            told = f"partial, {len(shared)} classes"
            return dataclasses.replace(found, train=train, test=test, partition=_both(found.partition, told))
        places = {label: place for place, label in enumerate(shared)}
        train, test = ({name: _numbered(one, places) for name, one in part.items()} for part in parts)
        return dataclasses.replace(
            found,
            train=train,
            test=test,
            class_names=(*(found.class_names[label] for label in shared), "unknown"),
            class_order=(*shared, len(found.class_names)),
            partition=_both(found.partition, f"open set, {len(shared)} known of {len(kept[True])} classes"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutConfig:
    """Options of leaving one domain out. Subclass it, frozen, with the domains and a default.

    Attributes:
        held_out: The domain that is never trained.
        target_part: Images of it that are tested: ``all``, or ``in80``, its training part (DomainBed's "in" part has
            the same share, but other images).
    """

    DOMAINS: ClassVar[tuple[str, ...]] = ()

    held_out: str
    target_part: Literal["all", "in80"] = "all"

    def __post_init__(self) -> None:
        """Checks the domain."""
        if self.held_out not in self.DOMAINS:
            raise ValueError(f"held_out: {self.held_out!r} is not a domain; use one of {', '.join(self.DOMAINS)}")


def pair(
    spec: ScenarioSpec, config: PairConfig, found: Parts, *, version: int = 1, transductive: bool = False
) -> Scenario:
    """A scenario of one source-target pair.

    Args:
        spec: Names it.
        config: The pair.
        found: The samples; test parts of the target, and those of the sources if they are there, are tested.
        version: Of the scenario.
        transductive: Whether the unlabelled target images are themselves the test images; else there must be test
            parts.
    """
    open_set = isinstance(config, SharedPairConfig) and config.label_set == "open-set"
    if isinstance(config, SharedPairConfig):
        found = config.chosen(found)
    sources, target = config.sides()
    unlabelled = found.train[target]
    experience = Experience(
        train=joined(found.train, sources).alone(),
        test=unlabelled if transductive else found.test[target],
        classes=tuple(range(len(found.class_names) - open_set)),
        domain=target,
        target=unlabelled.without_labels(),
        target_labels=None if transductive else unlabelled.labels,
        sources=sources,
    )
    return Scenario.of(
        spec,
        config,
        family="open-set" if open_set else "",
        version=version,
        experiences=(experience,),
        class_names=found.class_names,
        class_order=found.class_order,
        partition=partition_of(sources, found.partition),
        notes=found.notes,
        tests=_kept(found, sources),
        transductive=transductive,
    )


def whole_pair(
    spec: ScenarioSpec,
    config: SharedPairConfig,
    listing: _trees.Listing,
    dataset: DataSet,
    request: ScenarioRequest,
) -> Scenario:
    """A transductive pair of domains that are not cut: the target's images are the test images.

    Args:
        spec: Names it.
        config: The pair, and which classes the target has.
        listing: The files of every domain, by its name.
        dataset: That they are of, for messages.
        request: Cache folder.

    Raises:
        DataMissing: See `bench_scenarios._trees.samples`.
    """
    with dataset.reading(data.data_root(request.data_root)):
        train = _trees.samples(listing, request)
    parts = Parts(train=train, class_names=listing.class_names, notes=listing.notes)
    return pair(spec, config, parts, transductive=True)


def held_out(spec: ScenarioSpec, config: HeldOutConfig, found: Parts, *, version: int = 1) -> Scenario:
    """A scenario of one domain held out; both parts of it are tested, or that which would be trained.

    Args:
        spec: Names it.
        config: The domain.
        found: The samples of all domains.
        version: Of the scenario.
    """
    target = config.held_out
    sources = tuple(domain for domain in found.train if domain != target)
    inside = found.train[target]
    experience = Experience(
        train=joined(found.train, sources).alone(),
        test=inside if config.target_part == "in80" else Samples.concat([inside, found.test[target]]),
        classes=tuple(range(len(found.class_names))),
        domain=target,
        sources=sources,
    )
    return Scenario.of(
        spec,
        config,
        version=version,
        experiences=(experience,),
        class_names=found.class_names,
        partition=found.partition,
        notes=found.notes,
        tests=_kept(found, sources),
    )


def _kept(found: Parts, sources: Iterable[str]) -> tuple[TestSet, ...]:
    parts = [found.test[domain] for domain in sources if domain in found.test]
    return (TestSet(name="source", images=Samples.concat(parts)),) if parts else ()


def joined(parts: Mapping[str, Samples], domains: Iterable[str]) -> Samples:
    """Samples of some domains, one after the other, each with its domain; of a single one without."""
    import torch

    names = tuple(domains)
    if len(names) == 1:
        return parts[names[0]]
    return Samples.concat(
        [
            Samples(one.source, one.rows, one.labels, one.ids, torch.full_like(one.labels, place))
            for place, one in enumerate(parts[name] for name in names)
        ]
    )


def only(samples: Samples, labels: Iterable[int]) -> Samples:
    """The samples of some classes."""
    import torch

    inside = torch.isin(samples.labels, torch.tensor(tuple(labels), dtype=torch.int64))
    return samples.subset(inside.nonzero().flatten())


def _numbered(samples: Samples, places: Mapping[int, int]) -> Samples:
    """The samples with labels by place; all labels without one become the next."""
    import torch

    labels = torch.full_like(samples.labels, len(places))
    for label, place in places.items():
        labels[samples.labels == label] = place
    return Samples(samples.source, samples.rows, labels, samples.ids, samples.domains)


def _labels(text: str) -> tuple[int, ...]:
    """``0-2,5`` as numbers, in their order, once each; empty where it is something else."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        if match is None:
            return ()
        found |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)


def _both(one: str, other: str) -> str:
    return f"{one}; {other}" if one else other
