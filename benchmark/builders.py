"""Streams out of data sets: what a scenario does once its data are read (services for authors of scenarios).

A reader returns a `Cut` (training and test samples with their original labels) or `Domains` (the same per domain);
`class_stream` and `domain_stream` make scenarios of them by the rules of `benchmark.splits`. So a scenario is a record
of its facts, a class of options and a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from benchmark import splits
from benchmark.config import Range, check_ranges
from benchmark.errors import DataMissing
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest
from benchmark.specs import ScenarioSpec


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A data set with labels, cut into training and test samples.

    Attributes:
        train: Training samples with their original labels.
        test: Test samples likewise.
        class_names: In the order of the original labels.
        notes: For the record (`Scenario.notes`).
        partition: See `Scenario.partition`.
        content: See `Scenario.content`; empty where it follows from the samples.
    """

    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""
    content: str = ""


@dataclass(frozen=True, kw_only=True)
class Domains:
    """A data set in several domains, each cut into training and test samples.

    Attributes:
        train: Training samples of each domain.
        test: Test samples of each; one object for all of them is one joint test set (`Scenario.joint_test`).
        class_names: In label order, the same in all domains.
        notes: For the record (`Scenario.notes`).
        partition: See `Scenario.partition`.
        content: See `Scenario.content`; empty where it follows from the samples.
    """

    train: Mapping[str, Samples]
    test: Mapping[str, Samples]
    class_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""
    content: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """Options that cut a data set down.

    Attributes:
        train: Training samples per class (and domain), the first of the data set; 0 for all, as published.
        test: Test samples per class (and domain), likewise.
    """

    train: Annotated[int, Range(min=0)] = 0
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks that no count is negative."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassStreamConfig:
    """Options of a class-incremental stream. Subclass it, frozen, with the number of classes and the published split.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``10x10``, ``20x5``, ``b50-inc10``, ``20,20,10``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training samples per class, the first of the data set; 0 for all, as published.
        test: Test samples per class, likewise.
    """

    CLASSES: ClassVar[int] = 0

    split: str
    class_order: str = "natural"
    train: Annotated[int, Range(min=0)] = 0
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and no count is negative."""
        for name, check in (("split", splits.sizes), ("class_order", splits.class_order)):
            try:
                check(getattr(self, name), self.CLASSES)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainStreamConfig(BudgetConfig):
    """Options of a domain-incremental stream. Subclass it, frozen, with the domains and their default order.

    Attributes:
        order: The domains to go through, each at most once; or one rule for all of them: ``numpy:SEED``,
            ``python:SEED`` or ``seed`` (follows the run), a permutation of the default order.
        train: Training samples per class and domain, the first of the data set; 0 for all, as published.
        test: Test samples per class and domain, likewise.
    """

    DOMAINS: ClassVar[tuple[str, ...]] = ()

    order: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that the domains exist, once each, and that no count is negative."""
        check_ranges(self)
        check_order(self.order, self.DOMAINS)


def check_order(order: tuple[str, ...], domains: tuple[str, ...]) -> None:
    """Checks an order of domains: some of them, once each, or one rule of `benchmark.splits.class_order`.

    Raises:
        ValueError: It is neither.
    """
    if len(order) == 1 and order[0] not in domains:
        try:
            splits.class_order(order[0], len(domains))
        except ValueError as error:
            raise ValueError(f"order: {error}") from error
    elif not order or len(set(order)) != len(order) or not set(order) <= set(domains):
        raise ValueError(f"order: {','.join(order)!r} is not possible; use each of {', '.join(domains)} once")


def ordered(order: tuple[str, ...], domains: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """The domains of a run with this class-order seed, from an order that was checked."""
    if order[0] in domains:
        return order
    return tuple(domains[place] for place in splits.class_order(order[0], len(domains), seed=seed))


def class_stream(
    spec: ScenarioSpec, config: ClassStreamConfig, request: ScenarioRequest, cut: Cut, *, version: int = 1, **facts: Any
) -> Scenario:
    """A class-incremental stream out of a data set.

    Args:
        spec: Names it.
        config: Its options.
        request: Has the seed of the class order.
        cut: The data set, whole.
        version: Of the scenario.
        **facts: Further attributes of the `Scenario`.
    """
    order = splits.class_order(config.class_order, len(cut.class_names), seed=request.seed)
    train, test = first(cut.train, config.train), first(cut.test, config.test)
    return Scenario.of(
        spec,
        config,
        version=version,
        experiences=splits.class_incremental(train, test, order, splits.sizes(config.split, len(order))),
        class_names=tuple(cut.class_names[label] for label in order),
        class_order=order,
        content=cut.content,
        partition=cut.partition,
        notes=cut.notes,
        **facts,
    )


def domain_stream(
    spec: ScenarioSpec, config: DomainStreamConfig, request: ScenarioRequest, found: Domains, *, version: int = 1
) -> Scenario:
    """A domain-incremental stream out of a data set.

    Args:
        spec: Names it.
        config: Its options.
        request: Has the seed of the order.
        found: The data set; every class of it is a class of every experience.
        version: Of the scenario.
    """
    tests = {id(samples): first(samples, config.test) for samples in found.test.values()}
    experiences = tuple(
        Experience(
            train=first(found.train[domain], config.train),
            test=tests[id(found.test[domain])],
            classes=tuple(range(len(found.class_names))),
            domain=domain,
        )
        for domain in ordered(config.order, config.DOMAINS, request.seed)
    )
    return Scenario.of(
        spec,
        config,
        version=version,
        experiences=experiences,
        class_names=found.class_names,
        content=found.content,
        partition=found.partition,
        notes=found.notes,
    )


def first(samples: Samples, count: int) -> Samples:
    """The first samples of every class; 0 for all."""
    import torch

    if not count:
        return samples
    return samples.subset(torch.from_numpy(splits.first_per_class(samples.labels, count)))


def check_counts(found: Mapping[str, int], published: Mapping[str, int], request: ScenarioRequest) -> None:
    """Compares numbers of samples with those that are published; those of a miniature are not compared.

    Args:
        found: By what they count, e.g. ``train``.
        published: Likewise.
        request: Says whether it is one.

    Raises:
        DataMissing: One differs; the message has both.
    """
    if request.miniature:
        return
    for name, wanted in published.items():
        if found.get(name, 0) != wanted:
            raise DataMissing(f"{name}: {found.get(name, 0):,} images, published are {wanted:,}")


def as_samples(source: Any, labels: Any, *, first_id: int = 0) -> Samples:
    """All of a source with its labels.

    Args:
        source: `benchmark.samples.Source`, or uint8 images ``(N, 3, H, W)``.
        labels: int64 ``(N,)``.
        first_id: Sample ids count from here, so that training and test samples have different ones.
    """
    import torch

    rows = torch.arange(len(source))
    return Samples(source, rows, torch.from_numpy(np.ascontiguousarray(labels, np.int64)), rows + first_id)
