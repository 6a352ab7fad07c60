"""Names of scenarios: ``name``, ``name/VARIANT``, and ``name:TAG`` of a library such as ``texts:/data/mine.csv``.

A tag is the user's own file or folder. It goes on to the end of the name, so the variant of such a scenario is given as
an option. Records do not name a place on somebody's machine: their name holds the last part of the path and the first
digits of the content's hash, ``texts:mine.csv-1a2b3c4d``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmark.errors import UsageError
from benchmark.files import user_path

DIGITS = 8
LONGEST = 60


@dataclass(frozen=True, slots=True)
class ScenarioName:
    """What was asked for.

    Attributes:
        base: Name of the entry point.
        tag: What followed the first ``:``, or empty.
        variant: What followed the first ``/`` where there is no tag, or empty.
    """

    base: str
    tag: str = ""
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> ScenarioName:
        """Reads a name as the command line takes it."""
        base = re.split("[:/]", text, maxsplit=1)[0]
        rest = text[len(base) :]
        return cls(base, tag=rest[1:]) if rest.startswith(":") else cls(base, variant=rest[1:])


def base_of(name: str) -> str:
    """The name of the entry point in a name from the command line or from a record."""
    return ScenarioName.parse(name).base


def check_tag(name: str, pattern: str, tag: str) -> None:
    """Holds a tag to what the spec says.

    Args:
        name: Of the scenario.
        pattern: `benchmark.specs.ScenarioSpec.tag`.
        tag: What was given.

    Raises:
        UsageError: A library without a tag, or a tag of a scenario that is none.
    """
    if pattern and not tag:
        raise UsageError(f"scenario `{name}` reads data of your own: which?", hint=f"use {name}:{pattern}")
    if tag and not pattern:
        raise UsageError(f"scenario `{name}` is one data set, but `:{tag}` was given", hint=f"use `{name}`")


def tagged(name: str, tag: str, content: str = "") -> str:
    """The name of a scenario of a library, for records.

    Args:
        name: Of the library.
        tag: Path that was given.
        content: `benchmark.scenario.Scenario.content`, or empty while nothing is read.
    """
    last = re.sub(r"[^\w.+-]+", "_", user_path(tag).resolve().name)[-LONGEST:] or "root"
    return f"{name}:{last}-{content[:DIGITS]}" if content else f"{name}:{last}"
