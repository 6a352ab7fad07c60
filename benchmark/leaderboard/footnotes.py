"""Footnotes of leaderboards: what a reader must know before trusting a number."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.records.schema import Record
from benchmark.specs import USES

OWN_DISTRIBUTION = "adaptbench"


class Footnotes:
    """Hands out marks ``a``, ``b``, ..., ``z``, ``aa`` in the order in which texts first occur."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """The mark of a text; a new one when it has none."""
        number, name = len(self._marks), ""
        while number >= 0:
            name = chr(ord("a") + number % 26) + name
            number = number // 26 - 1
        return self._marks.setdefault(text, name)

    def all(self) -> list[tuple[str, str]]:
        """Pairs of mark and text, in the order of the marks."""
        return [(mark, text) for text, mark in self._marks.items()]


def row_facts(runs: Sequence[Record]) -> list[str]:
    """What must be known of one row: the manifest of its method first, then its provenance and warnings."""
    uses = sorted({use for run in runs for use in run.method.uses})
    facts = [f"uses {use}: {USES.get(use, 'not known to this version')}" for use in uses]
    if "test_batch" in uses:
        facts.append("leaking: predictions depend on other test images, so the number is not comparable")
    owners = {run.method.distribution for run in runs}
    facts += [f"third-party method of {name}" for name in sorted(owners) if _foreign(name)]
    if any(run.method.stream == "oracle" for run in runs):
        facts.append("oracle: trained on labelled target images, an upper bound")
    if any(run.selection.rule == "target-oracle" for run in runs):
        facts.append("oracle: the epoch was chosen by the labels of the target's test images, an upper bound")
    if any(run.provenance.git_dirty for run in runs):
        facts.append("unverified: made from code with uncommitted changes")
    if any(not run.provenance.deterministic for run in runs):
        facts.append("made without deterministic algorithms")
    return facts + sorted({f"warning: {warning}" for run in runs for warning in run.warnings})


def table_facts(runs: Sequence[Record], validation: int) -> list[str]:
    """What must be known of a whole table: the data, who made the scenario, what is left out.

    Args:
        runs: Runs of the table.
        validation: Number of runs on validation data that are not shown.
    """
    facts = sorted({f"Data: {name}: {text}." for run in runs for name, text in run.scenario.notes.items()})
    owners = {run.scenario.distribution for run in runs}
    facts += [f"Third-party scenario of {name}." for name in sorted(owners) if _foreign(name)]
    backbones: dict[str, set[str]] = {}
    for run in runs:
        backbones.setdefault(run.backbone.name, set()).add(run.method.name)
    if len(backbones) > 1:
        *others, most = sorted(backbones, key=lambda name: (len(backbones[name]), name))
        special = "; ".join(f"{', '.join(sorted(backbones[name]))} on {name}" for name in others)
        facts.append(f"Backbones, which see images through the same weights: {special}; the others on {most}.")
    if validation:
        facts.append(f"{validation} {'run' if validation == 1 else 'runs'} on validation data not shown.")
    return facts


def _foreign(distribution: str) -> bool:
    return distribution.split(" ")[0] != OWN_DISTRIBUTION
