"""Footnotes of leaderboards: what a reader must know before trusting a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from benchmark import families
from benchmark.leaderboard import rows
from benchmark.leaderboard.selected import ORACLE, TARGET_FREE
from benchmark.records.schema import Record
from benchmark.specs import USES

OWN_DISTRIBUTION = "adaptbench"
MOST_SPLITS = 12


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
    if families.of_record(runs[0].scenario.family, runs[0].scenario.family_facts).adapts:
        facts += _of_stream(runs, uses)
    elif {"test_batch", "test_stream"} & set(uses):
        together = ", or ".join(sorted({_together(run) for run in runs}))
        facts.append(f"leaking: predictions depend on other test images ({together}), so the number is not comparable")
    owners = {run.method.distribution for run in runs}
    facts += [f"third-party method of {name}" for name in sorted(owners) if _foreign(name)]
    if any(run.method.stream == "oracle" for run in runs):
        facts.append("oracle: trained on labelled target images, an upper bound")
    if any(run.selection.rule == ORACLE for run in runs):
        facts.append("oracle: the epoch was chosen by the labels of the target's test images, an upper bound")
    for rule in sorted({run.selection.rule for run in runs} & TARGET_FREE.keys()):
        facts.append(f"epoch chosen by {TARGET_FREE[rule]} on unlabelled target images, which the method has so used")
    if any(run.provenance.git_dirty for run in runs):
        facts.append("unverified: made from code with uncommitted changes")
    if any(not run.provenance.deterministic for run in runs):
        facts.append("made without deterministic algorithms")
    return facts + sorted({f"warning: {warning}" for run in runs for warning in run.warnings})


def _of_stream(runs: Sequence[Record], uses: Sequence[str]) -> list[str]:
    """What answers of a stream of test batches depend on: there the batch is the setting, and no leak."""
    facts = []
    sizes = sorted({str(run.scenario.options.get("batch_size", "?")) for run in runs})
    if "test_batch" in uses:
        facts.append(f"answers depend on the batch (of {' or '.join(sizes)})")
    if "test_stream" in uses:
        facts.append("answers depend on earlier batches")
    orders = {str(told) for run in runs if (told := run.config.effective.derived.get("answers"))}
    return facts + [f"answers of the model {order} it has adapted to the batch" for order in sorted(orders)]


def _together(run: Record) -> str:
    """Which test images are predicted together, in words."""
    engine = run.config.effective.engine
    order = {"shuffled": "shuffled", "natural": "in file order", "by-experience": "of one experience, in file order"}
    asked = str(engine.get("eval_order", "shuffled"))
    return f"batches of {engine.get('eval_batch_size')}, {order.get(asked, asked)}"


def table_facts(runs: Sequence[Record], validation: int, names: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What must be known of a whole table: the data, who made the scenario, what is left out.

    Args:
        runs: Runs of the table.
        validation: Number of runs on validation data that are not shown.
        names: What methods are called instead.
    """
    facts = _splits(runs)
    presets = sorted({str(run.inputs.facts.get("preset") or "") for run in runs} - {""})
    facts += [f"Input preset: {' and '.join(presets)}."] if presets else []
    facts += sorted({f"Data: {name}: {text}." for run in runs for name, text in run.scenario.notes.items()})
    owners = {run.scenario.distribution for run in runs}
    facts += [f"Third-party scenario of {name}." for name in sorted(owners) if _foreign(name)]
    backbones: dict[str, set[str]] = {}
    for run in runs:
        backbones.setdefault(run.backbone.name, set()).add(names.get(run.method.name, run.method.name))
    if len(backbones) > 1:
        *others, most = sorted(backbones, key=lambda name: (len(backbones[name]), name))
        special = "; ".join(f"{', '.join(sorted(backbones[name]))} on {name}" for name in others)
        facts.append(f"Backbones, which see images through the same weights: {special}; the others on {most}.")
    timed = machines(runs)
    if timed:
        facts.append(
            f"Training times: {timed[0]}{' where not marked' if timed[1:] else ''}; what ran beside is not known."
        )
    if validation:
        facts.append(f"{validation} {'run' if validation == 1 else 'runs'} on validation data not shown.")
    return facts


def machines(runs: Iterable[Record]) -> list[str]:
    """On what runs were timed, as far as records tell, the most frequent first."""
    found = Counter(_machine(run) for run in runs if run.timing.train_seconds)
    return [name for name, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))]


def _machine(run: Record) -> str:
    made = run.provenance
    device = made.device.partition(":")[0]
    return f"{made.platform}, {device}, {made.threads} {'thread' if made.threads == 1 else 'threads'}"


def time_facts(runs: Sequence[Record], usual: str) -> list[str]:
    """Why the time of a row does not compare with that of the others; nothing where it does, as far as records tell.

    Args:
        runs: Of the row.
        usual: Where most runs of the table were timed.
    """
    others = [name for name in machines(runs) if name != usual]
    return [f"time of {' and of '.join(others)}: does not compare"] if others else []


def _splits(runs: Sequence[Record]) -> list[str]:
    """What the runs of a table were trained and tested on, by short names to cite (`benchmark.locks`)."""
    names = sorted({name for run in runs if (name := rows.lock_of(run))})
    if not names:
        return []
    more = f" and {len(names) - MOST_SPLITS} more" if len(names) > MOST_SPLITS else ""
    return [f"{'Split' if len(names) == 1 else 'Splits'}: {', '.join(names[:MOST_SPLITS])}{more}."]


def _foreign(distribution: str) -> bool:
    return distribution.split(" ")[0] != OWN_DISTRIBUTION
