"""What a scenario returns: images, experiences, further test sets, the stream (promised in `benchmark.api`).

Nothing here knows methods or the engine. Images are uint8 ``(B, 3, H, W)``; a set is rows of a source that
may be shared, so subsets copy nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from benchmark.specs import Family


class ImageSource(Protocol):
    """Anything that returns uint8 images by row: a tensor, a memory map, a decoder of files."""

    @property
    def shape(self) -> Sequence[int]:
        """``(N, 3, H, W)``."""

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Returns uint8 images ``(B, 3, H, W)`` for int64 ``rows`` (B,)."""


class ImageSet:
    """Images with labels: rows of a shared source, so subsets copy nothing.

    Args:
        source: Images of the whole data set, uint8 ``(M, 3, H, W)``.
        rows: Rows of the source that belong to this set, int64 ``(N,)``.
        labels: Remapped labels, int64 ``(N,)``.
        ids: Sample ids, int64 ``(N,)``, stable across runs (e.g. the raw index); default `rows`.
        domains: Domain of each image, int64 ``(N,)``, positions in the experience's ``sources``;
            None when they are of one domain or it does not matter.
    """

    def __init__(
        self,
        source: ImageSource,
        rows: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> None:
        self.source = source
        self.rows = rows.to(torch.int64)
        self.labels = labels.to(torch.int64)
        self.ids = self.rows if ids is None else ids.to(torch.int64)
        self.domains = None if domains is None else domains.to(torch.int64)
        if not len(self.rows) == len(self.labels) == len(self.ids):
            raise ValueError(f"rows, labels and ids differ in length: {len(rows)}, {len(labels)}, {len(self.ids)}")
        if domains is not None and len(domains) != len(self.rows):
            raise ValueError(f"rows and domains differ in length: {len(rows)}, {len(domains)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(3, H, W)`` of the stored images, before any resizing."""
        _, channels, height, width = self.source.shape
        return channels, height, width

    def images(self, index: Tensor | slice) -> Tensor:
        """Returns uint8 images ``(B, 3, H, W)`` at positions ``index`` of this set."""
        return self.source[self.rows[index]]

    def subset(self, index: Tensor) -> ImageSet:
        """Returns the set of the given positions, in their order, on the same source."""
        domains = None if self.domains is None else self.domains[index]
        return ImageSet(self.source, self.rows[index], self.labels[index], self.ids[index], domains)

    def alone(self) -> ImageSet:
        """The same set on a copy of its own images, so that nothing else can be reached through it."""
        return ImageSet(self.images(slice(None)), torch.arange(len(self)), self.labels, self.ids, self.domains)

    def without_labels(self) -> ImageSet:
        """The same images on a copy of their own, labels -1: a target that leads to nothing else."""
        return ImageSet(self.images(slice(None)), torch.arange(len(self)), torch.full_like(self.labels, -1), self.ids)

    @staticmethod
    def concat(sets: Sequence[ImageSet]) -> ImageSet:
        """Joins sets; no image is copied when they share one source.

        Domains are kept when every set has them.
        """
        source = sets[0].source
        labels = torch.cat([part.labels for part in sets])
        ids = torch.cat([part.ids for part in sets])
        known = [part.domains for part in sets if part.domains is not None]
        domains = torch.cat(known) if len(known) == len(sets) else None
        if all(part.source is source for part in sets):
            return ImageSet(source, torch.cat([part.rows for part in sets]), labels, ids, domains)
        joined = torch.cat([part.images(slice(None)) for part in sets])
        return ImageSet(joined, torch.arange(len(joined)), labels, ids, domains)


@dataclass(frozen=True, kw_only=True)
class Experience:
    """One step of the stream, as the scenario and the evaluator know it.

    Attributes:
        train: Labelled training images.
        test: Test images of this experience.
        classes: Labels that may occur in it, after remapping.
        domain: Name of the domain of its test images, or None.
        target: Unlabelled target images (labels are all -1), or None. They have a source of their
            own (`ImageSet.without_labels`), and so has ``train`` (`ImageSet.alone`): neither leads to
            test images or to the other.
        target_labels: Their labels, int64 ``(M,)``, for the evaluator and for upper bounds; no view
            shows them. None where target and test images are the same.
        sources: Names of the domains of the training images; default: ``domain`` alone.
        validation: Labelled images like those of ``train`` for model selection, or None: then a
            share of ``train`` is held out when selection asks for it.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[int, ...]
    domain: str | None = None
    target: ImageSet | None = None
    target_labels: Tensor | None = None
    sources: tuple[str, ...] = ()
    validation: ImageSet | None = None

    @property
    def source_domains(self) -> tuple[str, ...]:
        """Names of the domains of the training images, as far as they have names."""
        if self.sources:
            return self.sources
        return () if self.domain is None else (self.domain,)


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A further test set of a scenario, evaluated after every experience beside those of the experiences.

    Attributes:
        name: What it is to the family: ``source`` (uda, dg: held-out source images), ``new``
            (base-to-new), the name of the other data set (cross-dataset).
        images: Test images with labels of the scenario's label space.
        classes: Labels among which these images are classified, when they are other classes than
            the trained ones: logits come from `Method.predict_named`. None: the classes seen.
    """

    __test__ = False  # not a test of pytest's

    name: str
    images: ImageSet
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A stream with everything needed to train, evaluate and recognise it again.

    Attributes:
        name: Registered name with its variant, e.g. ``split-cifar100/10x10``.
        version: Rises whenever a split, an order or a transform changes.
        family: ``class-il``, ``domain-il``, ``task-il``, ``uda``, ... (`benchmark.specs.FAMILIES`).
        experiences: The training stream, in order.
        num_classes: Size C of the label space; labels are 0..C-1 after remapping. Classes of
            `TestSet`s that are never trained come last.
        class_names: C names in label order.
        class_order: Position p holds the original label that became p.
        fingerprint: SHA-256 of ids, labels, experience and subset (`benchmark.splits.fingerprint`).
        image_size: Side of the stored images in pixels.
        notes: Facts for the record, e.g. the layout that was read, ``lossy`` data.
        tests: Further test sets.
        transductive: Whether the target images are the test images.
    """

    name: str
    version: int
    family: Family
    experiences: tuple[Experience, ...]
    num_classes: int
    class_names: tuple[str, ...]
    class_order: tuple[int, ...]
    fingerprint: str
    image_size: int
    notes: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[TestSet, ...] = ()
    transductive: bool = False

    @property
    def domains(self) -> tuple[str | None, ...]:
        """Domain of each experience."""
        return tuple(experience.domain for experience in self.experiences)

    def seen_classes(self, experience: int) -> tuple[int, ...]:
        """Sorted labels that occurred in experiences 0..``experience``."""
        seen: set[int] = set()
        for past in self.experiences[: experience + 1]:
            seen.update(past.classes)
        return tuple(sorted(seen))

    @property
    def open_vocabulary(self) -> bool:
        """Whether there are test sets of classes that are never trained."""
        return any(test.classes is not None for test in self.tests)

    def to_avalanche(self) -> Any:
        """The same stream as an Avalanche benchmark (``train_stream``, ``test_stream``).

        Importing avalanche takes 7-10 s; it happens here and nowhere earlier.
        See `benchmark.avalanche.to_benchmark`.
        """
        from benchmark.avalanche import to_benchmark

        return to_benchmark(self)


@dataclass(frozen=True, kw_only=True)
class ScenarioRequest:
    """What a scenario's ``build`` is given besides its own options.

    Attributes:
        data_root: Folder with data sets, or None to use the default places (`benchmark.data`).
        cache: Folder for derived files (decoded or rendered images).
        seed: Seed for class order and splits, where the options let them depend on it.
        download: ``auto`` (small sets are fetched), ``always`` (``--download``) or ``never``.
    """

    data_root: Path | None
    cache: Path
    seed: int = 0
    download: str = "auto"
