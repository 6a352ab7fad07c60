"""Audits of runs of other suites: what their logs can answer, and what nobody can know from them.

The questions are those of `benchmark.testing.audits`. A log holds numbers, not the method: most answers are
``unknown``, and that is the finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmark import families
from benchmark.records.imported import Imported
from benchmark.testing.audits import Item, Verdict

_BY_TEST = re.compile(r"test|oracle|target", re.IGNORECASE)
_WORDS = re.compile(r"validation|held.out|last|final", re.IGNORECASE)


def items(run: Imported) -> Iterator[Item]:
    """Answers every question about one imported run."""
    yield _end(run)
    yield _future(run)
    yield _selection(run)
    yield _numbers(run)
    yield Item(
        question="Which test samples were predicted together?",
        verdict="unknown",
        finding="no log of this kind says so; a vote over a batch of one experience tells the task",
    )
    yield Item(
        question="Are weights and data those that are named?",
        verdict="unknown",
        finding=f"{run.backbone or 'the backbone'} is a name, and the split has no hash: nobody vouches for them",
    )
    seed = "no seed is told" if run.seed is None else f"seed {run.seed}"
    scope = f", which varies {run.seed_scope}" if run.seed_scope else ""
    yield Item(
        question="Would another seed give the same?",
        verdict="unknown",
        finding=f"one run, {seed}{scope}: import others to see",
    )


def _end(run: Imported) -> Item:
    verdicts: dict[bool | None, tuple[Verdict, str]] = {
        True: ("clean", "it did"),
        False: ("found", "it was cut off: its last numbers are no final ones"),
        None: ("unknown", "the file does not say"),
    }
    verdict, finding = verdicts[run.complete]
    return Item(question="Did the run come to its end?", verdict=verdict, finding=finding)


def _future(run: Imported) -> Item:
    question = "Does it look at later experiences?"
    known = run.family in families.FAMILIES and families.FAMILIES[str(run.family)].grows
    if run.accuracy is None or not known:
        why = "it has no accuracy matrix" if run.accuracy is None else "no stream of growing classes, as far as it says"
        return Item(question=question, verdict="unknown", finding=why)
    ahead = [
        (time, place, value)
        for time, row in enumerate(run.accuracy)
        for place, value in enumerate(row)
        if place > time and value is not None
    ]
    right = [one for one in ahead if one[2] > 0]
    if right:
        time, place, value = right[0]
        told = f"after experience {time} {value:.1%} of test set {place} are right, whose classes come later"
        return Item(question=question, verdict="found", finding=told)
    if ahead:
        return Item(question=question, verdict="clean", finding=f"{len(ahead)} cells ahead of training are all 0")
    return Item(question=question, verdict="unknown", finding="no cell ahead of training was measured")


def _selection(run: Imported) -> Item:
    question = "Was the model chosen on test data?"
    if not run.selection:
        return Item(question=question, verdict="unknown", finding="the file does not say how it was chosen")
    verdict: Verdict = "unknown"
    if _BY_TEST.search(run.selection):
        verdict = "declared"
    elif _WORDS.search(run.selection):
        verdict = "clean"
    return Item(question=question, verdict=verdict, finding=run.selection)


def _numbers(run: Imported) -> Item:
    """What the suite reported against what follows from its own matrix."""
    question = "Do its numbers follow from its own matrix?"
    compared, odd = 0, []
    for score in run.reported:
        own = run.metrics.get(score.metric)
        if score.metric and isinstance(own, (int, float)):
            compared += 1
            # Both the cells and the score were rounded to so many decimals of a percentage.
            digits = min(one for one in (score.decimals, run.decimals, 6) if one is not None)
            if abs(score.value - own) > 10.0 ** -(digits + 2):
                odd.append(f"{score.name} is {score.value:.4f}, its matrix gives {own:.4f}")
    if not compared:
        return Item(question=question, verdict="unknown", finding="there is nothing to compare")
    if odd:
        return Item(question=question, verdict="found", finding="; ".join(odd))
    return Item(question=question, verdict="clean", finding=f"{compared} of them, within rounding")
