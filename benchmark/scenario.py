"""What a scenario returns: experiences, further test sets, the stream (promised in `benchmark.api`).

Nothing here knows methods or the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.samples import ImageSet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Experience:
    """One step of the stream, as the scenario and the evaluator know it.

    Attributes:
        train: Labelled training images.
        test: Test images of this experience.
        classes: Labels that may occur in it, after remapping.
        domain: Name of the domain of its test images, or None.
        target: Unlabelled target images (labels are all -1), or None. They hide their
            source (`Samples.without_labels`), and so does ``train`` (`Samples.alone`): neither leads to
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
        family: ``class-il``, ``domain-il``, ``task-il``, ``uda``, ... (`benchmark.families`).
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
    family: str
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
