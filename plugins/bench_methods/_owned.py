"""What `ease` and `mos` share: streams in which every class belongs to the one experience that brought it."""

from __future__ import annotations

from benchmark import families
from benchmark.api import Scenario


def supports(scenario: Scenario) -> str | None:
    """Only classes that come once belong to an experience."""
    family = families.get(scenario.family)
    if family.mixed or (family.stream and not family.grows):
        return "classes come again, but each belongs to the modules of the one experience that brought it"
    return None
