"""What the engine trains and tests on: the stream as published, merged, or cut for validation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from benchmark import splits
from benchmark.api import Experience, ImageSet, Scenario
from benchmark.errors import UsageError

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Stream:
    """Training experiences and test sets of one run.

    Attributes:
        scenario: What the method is shown of; its experiences are trained in order.
        tests: Test sets, the columns of the accuracy matrix. For a joint run there are more of
            them than training experiences.
        tests_seen: For each experience, the indices of the test sets evaluated after it.
    """

    scenario: Scenario
    tests: tuple[ImageSet, ...]
    tests_seen: tuple[tuple[int, ...], ...]


def sequential(scenario: Scenario) -> Stream:
    """The stream as it is.

    In families where unseen classes cannot be predicted (class-il, task-il) only the test sets
    met so far are evaluated; elsewhere all of them, so that the accuracy matrix is full.
    """
    count = len(scenario.experiences)
    growing = scenario.family in ("class-il", "task-il")
    seen = tuple(tuple(range(index + 1 if growing else count)) for index in range(count))
    return Stream(scenario, tuple(experience.test for experience in scenario.experiences), seen)


def joint(scenario: Scenario) -> Stream:
    """All training data in one experience, the test sets apart: an upper bound."""
    parts = scenario.experiences
    merged = Experience(
        train=ImageSet.concat([part.train for part in parts]),
        test=ImageSet.concat([part.test for part in parts]),
        classes=scenario.seen_classes(len(parts) - 1),
    )
    one = dataclasses.replace(scenario, experiences=(merged,))
    return Stream(one, tuple(part.test for part in parts), (tuple(range(len(parts))),))


def validation(scenario: Scenario, experiences: int) -> Scenario:
    """A stream for choosing hyper-parameters that never touches test images.

    The first experiences only, each tested on a fifth of its own training images (per class, the
    rule of `benchmark.splits.holdout`), which are taken out of its training set.

    Args:
        scenario: The real stream.
        experiences: How many to keep, from the front.

    Raises:
        UsageError: There are not so many experiences.
    """
    if not 1 <= experiences <= len(scenario.experiences):
        raise UsageError(
            f"--validate {experiences}: `{scenario.name}` has {len(scenario.experiences)} experiences",
            hint=f"use 1..{len(scenario.experiences)}",
        )
    cut = []
    for part in scenario.experiences[:experiences]:
        kept, held = splits.holdout(part.train.labels, VALIDATION_SHARE, seed=0)
        cut.append(
            dataclasses.replace(
                part, train=part.train.subset(torch.from_numpy(kept)), test=part.train.subset(torch.from_numpy(held))
            )
        )
    classes = sorted({label for part in cut for label in part.classes})
    names = tuple(scenario.class_names[label] for label in classes)
    short = dataclasses.replace(
        scenario,
        experiences=tuple(cut),
        num_classes=len(classes),
        class_names=names,
        class_order=scenario.class_order[: len(classes)],
    )
    mark = "-lossy" if scenario.fingerprint.endswith("-lossy") else ""
    return dataclasses.replace(short, fingerprint=splits.fingerprint(short.experiences) + mark)


def first_images(data: ImageSet, count: int) -> ImageSet:
    """The first images of a set, for measuring one training step."""
    return data.subset(torch.arange(min(count, len(data))))
