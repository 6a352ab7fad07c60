"""Streams of test batches (`benchmark.scenario.TestStream`): what is scored, and which is for choosing options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from benchmark.api import ImageSet, Scenario, TestSet
from benchmark.errors import UsageError
from benchmark.samples import Content
from benchmark.scenario import TestStream, fingerprint


def tests_of(scenario: Scenario, stream: TestStream) -> tuple[tuple[ImageSet, ...], tuple[TestSet, ...]]:
    """The images of the segments (or of the domains that they mix), and the test images of the source."""
    return stream.images(), (TestSet(name="source", images=scenario.experiences[0].test),)


def for_tuning(scenario: Scenario) -> Scenario:
    """The stream of other domains that a scenario has for choosing options, in the place of its own.

    Raises:
        UsageError: It has none.
    """
    stream = scenario.tuning_stream
    if stream is None:
        raise UsageError(
            f"--validate: `{scenario.name}` has no stream of other domains to choose options on",
            hint="take the values of a scenario that has one, e.g. of the same corruptions on smaller images",
        )
    short = dataclasses.replace(scenario, test_stream=stream, tuning_stream=None)
    mark = "-lossy" if scenario.fingerprint.endswith("-lossy") else ""
    found = fingerprint(short.experiences, (), scenario.content, stream)
    return dataclasses.replace(short, fingerprint=found + mark)


def on(stream: TestStream | None, change: Callable[[Content], Content]) -> TestStream | None:
    """The same stream on other sources of the same rows."""
    if stream is None:
        return None
    segments = (dataclasses.replace(part, images=part.images.on(change)) for part in stream.segments)
    return dataclasses.replace(stream, segments=tuple(segments))
