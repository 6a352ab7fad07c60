"""What no run could do with a scenario; `bench check` looks closer, and at every sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
import torch

from benchmark.api import Experience, Scenario
from benchmark.guard import described
from benchmark.samples import KINDS, Samples
from benchmark.scenario import TestSet

# What the record keeps of a scenario beside its sets.
_SCENARIO: dict[str, Any] = {
    "name": str,
    "version": Annotated[int, msgspec.Meta(ge=0, le=2**53)],
    "family": str,
    "class_order": tuple[int, ...],
    "content": str,
    "partition": str,
    "image_size": Annotated[int, msgspec.Meta(ge=0, le=2**53)],
    "notes": dict[str, str],
    "transductive": bool,
}
_EXPERIENCE: dict[str, Any] = {"classes": tuple[int, ...], "domain": str | None, "sources": tuple[str, ...]}
_TEST: dict[str, Any] = {"name": str, "classes": tuple[int, ...] | None}


def wrong(scenario: Scenario) -> str | None:
    """The first thing that is wrong with what a plugin built, or None.

    Reads the first and the last sample of every set. Whatever else a plugin's objects raise comes through.
    """
    parts = scenario.experiences
    if not isinstance(parts, tuple) or not parts or not all(isinstance(part, Experience) for part in parts):
        return f"`experiences` is {described(parts)}, not a tuple of benchmark.Experience"
    if not isinstance(scenario.tests, tuple) or not all(isinstance(test, TestSet) for test in scenario.tests):
        return f"`tests` is {described(scenario.tests)}, not a tuple of benchmark.scenario.TestSet"
    for where, record, facts in _told(scenario):
        for name, kind in facts.items():
            if (problem := _wrong_fact(getattr(record, name), kind)) is not None:
                return f"{where}`{name}` is {described(getattr(record, name))}: {problem}"
    if not isinstance(scenario.fingerprint, str) or not scenario.fingerprint:
        return f"`fingerprint` is {described(scenario.fingerprint)}"
    count = scenario.num_classes
    if not isinstance(count, int) or count < 1:
        return f"`num_classes` is {described(count)}"
    names = scenario.class_names
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        return f"`class_names` is {described(names)}, not a tuple of texts"
    if (problem := _wrong_fact(names, tuple[str, ...])) is not None:
        return f"`class_names`: {problem}"
    if len(names) != count:
        return f"there are {len(names)} names for {count} classes"
    kinds = set()
    for where, samples, labelled in _sets(scenario):
        if not isinstance(samples, Samples):
            return f"{where} is {described(samples)}, not a benchmark.ImageSet"
        if (problem := _wrong_set(samples, count if labelled else 0)) is not None:
            return f"{where} {problem}"
        kinds.add(samples.kind)
    if len(kinds) > 1:
        return f"its sets are of {' and '.join(f'{kind}s' for kind in sorted(kinds))}; one kind is needed"
    for place, part in enumerate(parts):
        if not all(isinstance(label, int) and 0 <= label < count for label in part.classes):
            return f"experience {place}: `classes` holds something else than labels in 0..{count - 1}"
        if not torch.isin(part.train.labels, torch.tensor(part.classes)).all():
            return f"experience {place} has training images of classes that it does not name"
        if part.target_labels is not None and part.target is None:
            return f"experience {place} has `target_labels`, but there are no target images"
        if part.target_labels is not None and len(part.target_labels) != len(part.target or ()):
            return f"experience {place}: `target_labels` are not as many as its target images"
    return None


def unanswered(scenario: Scenario) -> str | None:
    """What is wrong with the references of a scenario whose samples texts are generated for, or None."""
    for where, samples, labelled in _sets(scenario):
        if labelled and samples.references is None:
            return f"{where} has no `references`, but texts are to be generated: give every sample one or more"
        if labelled and (samples.labels != 0).any():
            return f"{where} has labels other than 0, but texts are to be generated: there is the one class `text`"
        if not labelled and samples.references is not None:
            return f"{where} has references; make it with `Samples.without_labels`"
    return None


def _told(scenario: Scenario) -> Iterator[tuple[str, object, dict[str, Any]]]:
    """What has facts for the record, where it stands, and which."""
    yield "", scenario, _SCENARIO
    for place, part in enumerate(scenario.experiences):
        yield f"experience {place}: ", part, _EXPERIENCE
    for place, test in enumerate(scenario.tests):
        yield f"test set {place}: ", test, _TEST


def _wrong_fact(value: object, kind: Any) -> str | None:
    """Why a value cannot stand in a record."""
    try:
        msgspec.json.encode(msgspec.convert(dict(value) if isinstance(value, Mapping) else value, kind))
    except (msgspec.ValidationError, UnicodeError) as error:
        return str(error)
    return None


def _sets(scenario: Scenario) -> Iterator[tuple[str, Samples, bool]]:
    """Every set with where it stands, and whether it has labels."""
    for place, part in enumerate(scenario.experiences):
        yield f"experience {place}: `train`", part.train, True
        yield f"experience {place}: `test`", part.test, True
        if part.target is not None:
            yield f"experience {place}: `target`", part.target, False
        if part.validation is not None:
            yield f"experience {place}: `validation`", part.validation, True
    for test in scenario.tests:
        yield f"test set `{test.name}`", test.images, True


def _wrong_set(samples: Samples, classes: int) -> str | None:
    if not len(samples):
        return "is empty"
    low, high = int(samples.labels.min()), int(samples.labels.max())
    if classes and not 0 <= low <= high < classes:
        return f"has a label that is not one of 0..{classes - 1}"
    if not classes and (low, high) != (-1, -1):
        return "has labels other than -1; make it with `Samples.without_labels`"
    if int(samples.rows.min()) < 0 or int(samples.rows.max()) >= len(samples.source):
        return f"has rows that its source does not have, which says it has {len(samples.source)}"
    if samples.kind not in KINDS:
        return f"is of kind {described(samples.kind)}; use {' or '.join(KINDS)}"
    found = samples.read(torch.tensor([0, len(samples) - 1]))
    if samples.kind != "image":
        right = isinstance(found, (list, tuple)) and len(found) == 2
        return None if right else f"reads as {described(found)}, where two {samples.kind}s were asked for"
    if not isinstance(found, torch.Tensor):
        return f"reads as {described(found)}, not as a tensor"
    if found.dtype != torch.uint8:
        return f"has images of {str(found.dtype).removeprefix('torch.')}; uint8 in 0..255 is needed"
    if found.ndim != 4 or len(found) != 2 or found.shape[1] != 3 or 0 in found.shape:
        return f"reads as {tuple(found.shape)}, where (2, 3, H, W) was asked for"
    return None
