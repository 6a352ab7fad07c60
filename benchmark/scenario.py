"""What a scenario returns: experiences, further test sets, the stream (promised in `benchmark.api`).

Nothing here knows methods or the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmark.derived import origin_of
from benchmark.digests import joined
from benchmark.samples import Content, ImageSet, Kind, digest_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Experience:
    """One step of the stream, as the scenario and the evaluator know it.

    Attributes:
        train: Labelled training images; texts to generate from have `benchmark.samples.Samples.references`.
        test: Test images of this experience; the same object in all of them is one test set for the whole stream
            (`Scenario.joint_test`).
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
class Segment:
    """Test images that follow one another in a `TestStream`.

    Attributes:
        name: What is told of it, e.g. ``contrast``, or ``contrast 3`` where severities change.
        images: In their order. A method is shown neither labels nor ids.
        reset: Whether the method is put back to where the stream began before it (`TestStream`).
        domains: Where it mixes domains: their names; ``images.domains`` are positions in it. Scores are then told of
            each domain instead of the segment.
    """

    name: str
    images: ImageSet
    reset: bool = False
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TestStream:
    """Test images that come in batches, each of which is answered once, in this order.

    Attributes:
        segments: One after the other; no batch holds images of two of them.
        batch_size: Images of a batch; the last one of a segment may be smaller. It belongs to the scenario: methods
            that see batches of different sizes do not compare.
    """

    __test__ = False  # not a test of pytest's

    segments: tuple[Segment, ...]
    batch_size: int

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of what scores are told of: segments, or the domains that they mix."""
        told = [name for part in self.segments for name in (part.domains or (part.name,))]
        return tuple(dict.fromkeys(told))

    def places(self, segment: Segment) -> Tensor:
        """For each image of a segment its position in `sets`, int64 ``(N,)``."""
        import torch

        known = {name: place for place, name in enumerate(self.sets)}
        if not segment.domains:
            return torch.full((len(segment.images),), known[segment.name])
        if segment.images.domains is None:
            raise ValueError(f"segment {segment.name}: it mixes domains, but its images do not tell theirs")
        return torch.tensor([known[name] for name in segment.domains])[segment.images.domains]

    def images(self) -> tuple[ImageSet, ...]:
        """The images of each of `sets`, as they come in the stream."""
        found: list[list[ImageSet]] = [[] for _ in self.sets]
        for part in self.segments:
            places = self.places(part)
            for place in sorted(set(places.tolist())):
                found[place].append(part.images.subset((places == place).nonzero().flatten()).without_domains())
        return tuple(type(one[0]).concat(one) if len(one) > 1 else one[0] for one in found)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How the task of a scenario of texts may be put to a language model: data, written by its author.

    A pattern is a text with ``{field}`` for the fields of an example, one ``{mask}`` for the word asked for, and
    ``|`` between two segments: ``"{premise} ? | {mask} , {hypothesis}"``. A causal model reads it up to the mask, so
    a pattern whose fields stand behind the mask is none for it.

    Attributes:
        patterns: In the order of their numbers; e.g. those of PET (Schick and Schuetze, arXiv 2001.07676).
        words: For each class, by its name, the words that stand for it, the first one foremost.
        segments: The fields that a classifier without a pattern reads, one or two; default: all, in their order.
    """

    patterns: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    segments: tuple[str, ...] = ()


class Named(Protocol):
    """What a `benchmark.specs.ScenarioSpec` says of a scenario."""

    @property
    def name(self) -> str: ...  # noqa: D102 - see the spec
    @property
    def family(self) -> str: ...  # noqa: D102
    @property
    def variant(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A stream with everything needed to train, evaluate and recognise it again.

    What follows from the rest may be left out: ``num_classes``, ``class_order``, ``content``, ``fingerprint``,
    ``image_size``. `Scenario.of` takes the name and the family from the spec.

    Attributes:
        name: Registered name with its variant, e.g. ``split-cifar100/10x10``.
        version: Rises whenever a split, an order or a transform changes.
        family: ``class-il``, ``domain-il``, ``task-il``, ``uda``, ... (`benchmark.families`).
        experiences: The training stream, in order.
        num_classes: Size C of the label space; labels are 0..C-1 after remapping. Classes of
            `TestSet`s that are never trained come last, and so does the one label of all unknown classes
            (`benchmark.families.Family.unknown`).
        class_names: C names in label order.
        class_order: Position p holds the original label that became p; default: the natural order.
        content: SHA-256 over the digests of the whole data sets that the samples are from (`content_of`). It depends
            neither on the seed nor on options such as the number of images; a scenario whose sources do gives it
            (`benchmark.digests.joined`).
        partition: What cut the data into training and test samples where more than one rule is in use, e.g.
            ``80/20 cut`` or ``official lists`` with their hash; else empty. Records of different partitions share
            no table.
        fingerprint: Hash of the split and the content (`fingerprint`); ``-lossy`` behind it marks re-encoded data.
        image_size: Side of the stored images in pixels; 0 where there are none.
        notes: Facts for the record, e.g. the layout that was read. A note ``lossy`` (or ``... lossy``) says that the
            data are a re-encoded copy, and marks the fingerprint.
        tests: Further test sets.
        transductive: Whether the target images are the test images.
        wording: Patterns and words of a scenario of texts; a method reads those of the classes seen so far.
        test_stream: What is answered and adapted to after training, where the family does so. The test images of the
            one experience are then of the source.
        tuning_stream: Another one to choose options on, of other domains and other images (``bench tune``).
    """

    name: str
    version: int
    family: str
    experiences: tuple[Experience, ...]
    class_names: tuple[str, ...]
    num_classes: int = 0
    class_order: tuple[int, ...] = ()
    content: str = ""
    partition: str = ""
    fingerprint: str = ""
    image_size: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[TestSet, ...] = ()
    transductive: bool = False
    wording: Wording | None = None
    test_stream: TestStream | None = None
    tuning_stream: TestStream | None = None

    def __post_init__(self) -> None:
        """Fills in what was left out."""
        content = self.content or content_of(self.experiences, self.tests, self.test_stream)
        mark = "-lossy" if any(note.split()[-1:] == ["lossy"] for note in self.notes) else ""
        train = self.experiences[0].train
        follows = {
            "num_classes": self.num_classes or len(self.class_names),
            "class_order": self.class_order or tuple(range(len(self.class_names))),
            "content": content,
            "fingerprint": self.fingerprint
            or fingerprint(self.experiences, self.tests, content, self.test_stream) + mark,
            "image_size": self.image_size or (train.image_shape[-1] if train.kind == "image" else 0),
        }
        for name, value in follows.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, spec: Named, config: object, *, family: str = "", **facts: Any) -> Scenario:
        """A scenario named by its spec, and by the variant that its options choose.

        Args:
            spec: `benchmark.specs.ScenarioSpec`.
            config: Its options.
            family: Where options make another family of it than the spec says.
            **facts: The attributes that do not follow from these two or from one another.
        """
        variant = f"/{getattr(config, spec.variant)}" if spec.variant else ""
        return cls(name=spec.name + variant, family=family or spec.family, **facts)

    @property
    def kind(self) -> Kind:
        """What its samples are."""
        return self.experiences[0].train.kind

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
    def joint_test(self) -> bool:
        """Whether one test set stands for the whole stream: every experience has the same object."""
        first = self.experiences[0].test
        return len(self.experiences) > 1 and all(part.test is first for part in self.experiences)

    @property
    def open_vocabulary(self) -> bool:
        """Whether there are test sets of classes that are never trained."""
        return any(test.classes is not None for test in self.tests)


def _subsets(
    experiences: Sequence[Experience], tests: Sequence[TestSet], stream: TestStream | None = None
) -> Iterator[tuple[str, ImageSet]]:
    for index, experience in enumerate(experiences):
        for name in ("train", "target", "test", "validation"):
            images = getattr(experience, name)
            if images is not None:
                yield f"{index} {name}", images
    for test in tests:
        yield f"test {test.name}", test.images
    for part in () if stream is None else stream.segments:
        yield f"stream {part.name}", part.images


def _origins(
    experiences: Sequence[Experience], tests: Sequence[TestSet], stream: TestStream | None
) -> Iterator[Content]:
    for _, images in _subsets(experiences, tests, stream):
        source, changes = origin_of(images.source)
        yield source if changes else images.source


def content_of(
    experiences: Sequence[Experience], tests: Sequence[TestSet] = (), stream: TestStream | None = None
) -> str:
    """SHA-256 over the digests of all sources that the samples are from, whole as they are.

    A source without a digest is read once (`benchmark.samples.digest_of`). What was done to samples since they were
    read (`benchmark.derived.Derived`) is no part of it.
    """
    sources = {id(source): source for source in _origins(experiences, tests, stream)}
    return joined(digest_of(source) for source in sources.values())


def fingerprint(
    experiences: Sequence[Experience],
    tests: Sequence[TestSet] = (),
    content: str = "",
    stream: TestStream | None = None,
) -> str:
    """SHA-256 of the split and of what it splits; equal fingerprints mean the same samples in the same places.

    The split is the sorted sample ids, their remapped labels and references, experience index and subset name, and what
    is done to the samples as they are read (`benchmark.derived.Derived`). Of a stream of test batches it is also their
    order, their size, and where a method is reset.

    Args:
        experiences: Of the stream.
        tests: Test sets beside those of the experiences.
        content: `Scenario.content`; default: `content_of` the same.
        stream: Of test batches.
    """
    split = hashlib.sha256(b"adaptbench split 1\n")
    for where, images in _subsets(experiences, tests, stream):
        ids, labels = images.ids.numpy(), images.labels.numpy()
        by_id = np.lexsort((labels, ids))
        split.update(f"{where} {len(ids)}\n".encode())
        if changes := origin_of(images.source)[1]:
            split.update(f"{changes}\n".encode())
        split.update(ids[by_id].astype("<i8").tobytes())
        split.update(labels[by_id].astype("<i8").tobytes())
        if images.references is not None:
            told = [images.references[place] for place in by_id.tolist()]
            split.update(json.dumps(told).encode())
    if stream is not None:
        for part in stream.segments:
            split.update(json.dumps([part.name, part.reset, part.domains]).encode())
            split.update(part.images.ids.numpy().astype("<i8").tobytes())
            if part.domains:
                split.update(stream.places(part).numpy().astype("<i8").tobytes())
        split.update(f"batches of {stream.batch_size}\n".encode())
    content = content or content_of(experiences, tests, stream)
    return hashlib.sha256(f"adaptbench split 2\n{split.hexdigest()}\n{content}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ScenarioRequest:
    """What a scenario's ``build`` is given besides its own options.

    Attributes:
        data_root: Folder with data sets, or None to use the default places (`benchmark.data`).
        cache: Folder for derived files (decoded or rendered images).
        seed: Seed for class order and splits, where the options let them depend on it.
        download: ``auto`` (small sets are fetched), ``always`` (``--download``) or ``never``.
        tag: What followed the ``:`` of the name, a path of the user's; empty where the spec has no ``tag``.
        miniature: Whether the data root holds tiny copies of data sets (`ScenarioSpec.miniature`): numbers of images
            and checksums are then not those that were published, and are not compared.
    """

    data_root: Path | None
    cache: Path
    seed: int = 0
    download: str = "auto"
    tag: str = ""
    miniature: bool = False
