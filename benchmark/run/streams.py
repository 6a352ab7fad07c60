"""What the engine trains and tests on: the stream as published, merged, or cut for validation or selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmark import families, splits
from benchmark.api import Experience, ImageSet, Scenario, TestSet
from benchmark.data import cache_root
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.pipeline import Pipeline
from benchmark.readers import FileImages
from benchmark.readers.decoded import DecodedCache
from benchmark.run import test_streams
from benchmark.run.left_out import without_domain
from benchmark.run.unknown import Unknown
from benchmark.samples import Content, in_files
from benchmark.scenario import fingerprint

VALIDATION_SHARE = 0.2
SELECTION_SHARE = 0.1  # of the training images, for model selection (scenario specification, section 0.4)


@dataclass(frozen=True)
class Task:
    """The experience that a test set belongs to.

    Attributes:
        index: What a method is told in task-incremental runs.
        classes: Its labels.
    """

    index: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """Training experiences and test sets of one run.

    Attributes:
        scenario: What the method is shown of; its experiences are trained in order.
        tests: Test sets, the columns of the accuracy matrix. For a joint run there are more of
            them than training experiences.
        tests_seen: For each experience, the indices of the test sets evaluated after it.
        classes: For each test set of an experience, the classes of that experience.
        joint: Whether there is one test set for all experiences.
        further: The last columns once more, with names and classes: test sets of the scenario
            beside those of the experiences.
    """

    scenario: Scenario
    tests: tuple[ImageSet, ...]
    tests_seen: tuple[tuple[int, ...], ...]
    further: tuple[TestSet, ...] = ()
    classes: tuple[tuple[int, ...], ...] = ()
    joint: bool = False

    @property
    def main(self) -> int:
        """Number of test sets that belong to experiences: the first columns."""
        return len(self.tests) - len(self.further)

    @property
    def tasks(self) -> dict[int, Task]:
        """The experience that each test set belongs to, as it is trained here; by column.

        Only where classes grow and those of other experiences compete.
        """
        family = families.get(self.scenario.family)
        if not family.grows or family.names == "own":
            return {}
        alone = len(self.scenario.experiences) == 1
        return {place: Task(0 if alone else place, classes) for place, classes in enumerate(self.classes)}

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each test set."""
        domains = self.scenario.domains
        family = families.get(self.scenario.family)
        named = len(domains) == self.main and not family.test
        if self.scenario.test_stream is not None:
            return (*self.scenario.test_stream.sets, *(test.name for test in self.further))
        if self.joint:
            return ("joint", *(test.name for test in self.further))
        own = [(domains[place] if named else None) or family.test or str(place) for place in range(self.main)]
        return (*own, *(test.name for test in self.further))

    @property
    def unknown(self) -> Unknown | None:
        """The label of the classes that are never trained and have no name, where the test sets have some."""
        trained = len(self.scenario.seen_classes(len(self.scenario.experiences) - 1))
        if not families.get(self.scenario.family).unknown or self.scenario.num_classes == trained:
            return None
        return Unknown(trained, tuple(range(self.main)))

    @property
    def vocabularies(self) -> dict[int, tuple[int, ...]]:
        """Labels of the test sets that are classified among names, by column."""
        own = {place: named for place, classes in enumerate(self.classes) if (named := self.named(classes))}
        further = enumerate(self.further, self.main)
        return own | {place: test.classes for place, test in further if test.classes is not None}

    def named(self, classes: tuple[int, ...]) -> tuple[int, ...]:
        """Labels among whose names samples of an experience are classified; none where it is the classes seen.

        Args:
            classes: Of the experience.
        """
        names = families.get(self.scenario.family).names
        return tuple(range(self.scenario.num_classes)) if names == "all" else classes if names else ()


def sequential(scenario: Scenario) -> Stream:
    """The stream as it is.

    Where unseen classes cannot be predicted, only the test sets met so far are evaluated; elsewhere all of them, so
    that the accuracy matrix is full. One test set for all experiences is evaluated after each.
    """
    count = len(scenario.experiences)
    if scenario.test_stream is not None:
        tests, further = test_streams.tests_of(scenario, scenario.test_stream)
        return Stream(scenario, (*tests, *(test.images for test in further)), (tuple(range(len(tests) + 1)),), further)
    if scenario.joint_test:
        return _stream(scenario, scenario.experiences, (tuple(range(1 + len(scenario.tests))),) * count)
    growing = families.get(scenario.family).waits
    last = tuple(range(count, count + len(scenario.tests)))
    seen = tuple((*range(index + 1 if growing else count), *last) for index in range(count))
    return _stream(scenario, scenario.experiences, seen)


def joint(scenario: Scenario) -> Stream:
    """All training data in one experience, the test sets apart: an upper bound.

    Raises:
        UsageError: The family has no stream to merge.
    """
    if not families.get(scenario.family).stream:
        raise UsageError(
            f"`{scenario.name}` is no stream of experiences: joint training would be ordinary training",
            hint="joint runs are upper bounds of class- and domain-incremental scenarios",
        )
    parts = scenario.experiences
    domains = list(dict.fromkeys(name for part in parts for name in part.source_domains))
    # Where classes come and go, a sample is in several experiences; here it is trained once.
    sets = _without_repeats(parts) if families.get(scenario.family).mixed else [part.train for part in parts]
    if domains and all(part.source_domains for part in parts):
        sets = [_with_domains(part, domains) for part in parts]
    merged = Experience(
        train=ImageSet.concat(sets),
        test=parts[0].test if scenario.joint_test else ImageSet.concat([part.test for part in parts]),
        classes=scenario.seen_classes(len(parts) - 1),
        sources=tuple(domains),
    )
    one = dataclasses.replace(scenario, experiences=(merged,))
    seen = tuple(range((1 if scenario.joint_test else len(parts)) + len(scenario.tests)))
    return _stream(one, parts, (seen,))


def oracle(scenario: Scenario) -> Stream:
    """Labelled target images instead of the source: an upper bound of adaptation.

    Raises:
        UsageError: There is no target, or it has no labelled images besides its test images.
    """
    parts = []
    for part in scenario.experiences:
        if part.target is None:
            raise UsageError(f"`{scenario.name}` has no target domain to train on", hint="use a uda scenario")
        if part.target_labels is None or scenario.transductive:
            raise UsageError(
                f"`{scenario.name}` tests on its target images: a run trained on their labels would be tested on "
                "what it was trained on",
                hint="choose options under which target and test images differ",
            )
        target = part.target
        labelled = ImageSet(target.source, target.rows, part.target_labels, target.ids)
        if families.get(scenario.family).unknown:  # what is unknown is trained by nobody
            known = torch.isin(labelled.labels, torch.tensor(part.classes))
            labelled = labelled.subset(known.nonzero().flatten())
        domain = part.domain
        parts.append(
            Experience(
                train=labelled,
                test=part.test,
                classes=part.classes,
                domain=domain,
                sources=() if domain is None else (domain,),
            )
        )
    return sequential(dataclasses.replace(scenario, experiences=tuple(parts)))


def anonymous(stream: Stream, seed: int) -> Stream:
    """The stream as a method may be shown it: target images in random order, with ids that only count.

    Their order and ids often tell the class (sorted folders, ids that encode it), and their source
    could lead to other images.

    Args:
        stream: Any stream.
        seed: Of the order.
    """

    def hide(target: ImageSet, place: int) -> ImageSet:
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed + place))
        shown = target.subset(order).without_labels()
        return ImageSet(shown.source, shown.rows, shown.labels)

    parts = tuple(
        part if part.target is None else dataclasses.replace(part, target=hide(part.target, place), target_labels=None)
        for place, part in enumerate(stream.scenario.experiences)
    )
    return dataclasses.replace(stream, scenario=dataclasses.replace(stream.scenario, experiences=parts))


def held_out(stream: Stream, share: float = SELECTION_SHARE) -> Stream:
    """A share of the training images of each class (and domain) kept back for model selection.

    Experiences that come with validation images of their own are left as they are.

    Args:
        stream: Any stream.
        share: A tenth, or for methods that hold out (`benchmark.specs.MethodSpec.holds_out`) a fifth. Where domains
            have too few images of every class, it is the share of the images of each class.
    """

    def cut(part: Experience) -> Experience:
        if part.validation is not None:
            return part
        kept, held = _cut(part.train, share)
        if not len(held) and share > SELECTION_SHARE and part.train.domains is not None:
            rows, out = splits.holdout(part.train.labels.numpy(), share, seed=0)
            kept, held = (part.train.subset(torch.from_numpy(places)) for places in (rows, out))
        if not len(held):
            raise UsageError(
                f"`{stream.scenario.name}` has too few training images per class to hold {share:.0%} of them out",
                hint="use more of them, and --set engine.select=last",
            )
        return dataclasses.replace(part, train=kept, validation=held)

    parts = tuple(cut(part) for part in stream.scenario.experiences)
    return dataclasses.replace(stream, scenario=dataclasses.replace(stream.scenario, experiences=parts))


def validation(scenario: Scenario, experiences: int, on: str = "") -> Scenario:
    """A stream for choosing hyper-parameters that never touches test images, unless an oracle is asked for.

    The first experiences only, each tested on a fifth of its own training images (per class, the
    rule of `benchmark.splits.holdout`), which are taken out of its training set; or on the
    validation images that the scenario brings. Target images stay unlabelled, test sets beside those
    of the experiences are left out.

    Args:
        scenario: The real stream.
        experiences: How many to keep, from the front.
        on: What is tested instead, as `benchmark.jobs.Job.validate_on` (the other rules of DomainBed).

    Raises:
        UsageError: There are not so many experiences, too few images, or no such domain.
    """
    if not 1 <= experiences <= len(scenario.experiences):
        raise UsageError(
            f"`{scenario.name}` has {len(scenario.experiences)} experiences, not {experiences} to validate on",
            hint=f"use 1..{len(scenario.experiences)}",
        )
    if families.get(scenario.family).mixed:
        raise UsageError(
            f"--validate: the experiences of `{scenario.name}` share samples: held-out ones would be trained on",
            hint="choose options on the stream without scenario.stream=blurry",
        )
    if scenario.test_stream is not None:
        return test_streams.for_tuning(scenario)
    cut = []
    for part in scenario.experiences[:experiences]:
        if on.startswith("domain:"):
            part, held = without_domain(scenario.name, part, int(on.removeprefix("domain:")))
            kept = part.train
        elif part.validation is not None:
            kept, held = part.train, part.validation
        else:
            kept, held = _cut(part.train, VALIDATION_SHARE)
        if on == "target":
            if not families.get(scenario.family).shift:
                raise UsageError(f"`{scenario.name}` has no target to be chosen on", hint="take another rule")
            _, held = _cut(part.test, VALIDATION_SHARE)
        if not len(held):
            raise UsageError(f"--validate: `{scenario.name}` has too few training images per class to hold some out")
        cut.append(dataclasses.replace(part, train=kept, test=held, validation=None))
    classes = sorted({label for part in cut for label in part.classes})
    names = tuple(scenario.class_names[label] for label in classes)
    short = dataclasses.replace(
        scenario,
        experiences=tuple(cut),
        num_classes=len(classes),
        class_names=names,
        class_order=scenario.class_order[: len(classes)],
        tests=(),
        transductive=False,
    )
    mark = "-lossy" if scenario.fingerprint.endswith("-lossy") else ""
    return dataclasses.replace(short, fingerprint=fingerprint(short.experiences, (), scenario.content) + mark)


def fitted(scenario: Scenario, pipeline: Pipeline, gigabytes: float = 0.0) -> Scenario:
    """The same scenario, its image files read as the preset of a run says; sources in memory stay as they are.

    Args:
        scenario: Any.
        pipeline: Of the run.
        gigabytes: That decoded images may take in the cache folder (`EngineConfig.decoded_cache_gb`).
    """
    if not isinstance(pipeline, ImagePipeline):
        return scenario
    fit, known = pipeline.fit(), dict[int, Content]()

    def change(source: Content) -> Content:
        if not isinstance(source, FileImages):
            return source
        own = source.fitted(fit)
        return known.setdefault(id(source), own if cache is None else own.keeping(cache))

    if not any(in_files(part.train.source) for part in scenario.experiences):
        return scenario
    cache = DecodedCache(cache_root(), int(gigabytes * 1e9)) if gigabytes else None
    parts = tuple(
        dataclasses.replace(
            part,
            train=part.train.on(change),
            test=part.test.on(change),
            target=None if part.target is None else part.target.on(change),
            validation=None if part.validation is None else part.validation.on(change),
        )
        for part in scenario.experiences
    )
    tests = tuple(dataclasses.replace(test, images=test.images.on(change)) for test in scenario.tests)
    stream = test_streams.on(scenario.test_stream, change)
    return dataclasses.replace(scenario, experiences=parts, tests=tests, test_stream=stream)


def with_task_known(scenario: Scenario) -> Scenario:
    """The same stream, where a test sample comes with its experience.

    Raises:
        UsageError: Its classes do not grow.
    """
    family = families.get(scenario.family)
    if not family.grows:
        raise UsageError(
            f"engine.task_known: every experience of `{scenario.name}` has the same classes ({family.name}), so that "
            "to know it changes nothing",
            hint="use a stream whose classes grow",
        )
    if family.names:
        raise UsageError(
            f"engine.task_known: `{scenario.name}` says among which names a sample is classified ({family.name})",
            hint="leave it out",
        )
    (known,) = [other.name for other in families.FAMILIES.values() if other.task_id]
    return dataclasses.replace(scenario, family=known)


def _stream(scenario: Scenario, parts: Sequence[Experience], seen: tuple[tuple[int, ...], ...]) -> Stream:
    joint = len(parts) > 1 and all(part.test is parts[0].test for part in parts)
    own = [parts[0].test] if joint else [part.test for part in parts]
    classes = tuple(part.classes for part in parts)
    return Stream(scenario, (*own, *(test.images for test in scenario.tests)), seen, scenario.tests, classes, joint)


def _without_repeats(parts: Sequence[Experience]) -> list[ImageSet]:
    met: set[int] = set()
    sets = []
    for part in parts:
        new = [place for place, sample in enumerate(part.train.ids.tolist()) if sample not in met]
        met.update(part.train.ids.tolist())
        if new:
            sets.append(part.train.subset(torch.tensor(new)))
    return sets


def _with_domains(part: Experience, names: list[str]) -> ImageSet:
    """The training set of an experience with its domains numbered as in ``names``."""
    train = part.train
    own = torch.zeros(len(train), dtype=torch.int64) if train.domains is None else train.domains
    places = torch.tensor([names.index(name) for name in part.source_domains])
    return ImageSet(train.source, train.rows, train.labels, train.ids, places[own], train.references)


def _cut(train: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Splits a training set by `benchmark.splits.holdout`, per class; with several domains per class and domain."""
    groups = train.labels
    if train.domains is not None:
        groups = train.labels * (int(train.domains.max()) + 1) + train.domains
    kept, held = splits.holdout(groups.numpy(), share, seed=0)
    return train.subset(torch.from_numpy(kept)), train.subset(torch.from_numpy(held))
