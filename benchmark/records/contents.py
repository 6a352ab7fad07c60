"""What the data of old records were, as far as it is known.

Records before schema 3 do not say what was decoded. ``contents.json`` lists the data sets that the records in this
repository were made from: the glyphs, which are a function of the code, and the files that were at hand. A record is
of such a data set if its scenario, version and notes (layout, size, loss, subset) are the same; another copy of the
same layout, size and loss could not be told from it. What is not listed stays unknown and is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

_FILE = Path(__file__).with_name("contents.json")
_ABOUT_DATA = frozenset({"layout", "lossy", "pixels", "subset"})
"""Notes that tell data apart; others tell of the split or what to mind."""


def look_up(scenario: Mapping[str, Any]) -> tuple[str, str]:
    """Content and partition of the scenario of an old record.

    Args:
        scenario: The record's ``scenario``.

    Returns:
        `benchmark.scenario.Scenario.content` and ``partition``, "" where they are not known.
    """
    notes = scenario["notes"]
    name = scenario["name"].partition("/")[0]
    told = {note: text for note, text in notes.items() if note.split()[-1:] and note.split()[-1] in _ABOUT_DATA}
    known = _known()
    content = next(
        (
            entry["content"]
            for entry in known["contents"]
            if name in entry["scenarios"] and scenario["version"] == entry["version"] and told == entry["notes"]
        ),
        "",
    )
    return content, known["partitions"].get(notes.get("split"), "")


@cache
def _known() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(_FILE.read_bytes())
    return found
