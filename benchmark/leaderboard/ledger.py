"""The ledger of published figures: what each would take to be ours, and what our records say of it. Pure functions.

``published/figures.csv`` has the figures. ``published/protocols.csv`` says for each name in them which scenario,
backbone, metric or recipe of ours it is, or why there is none; patterns are of `fnmatch`, the first that fits holds.
For rows, ``published`` is ``key/row`` and ``where`` is looked for in ``source | scenario``. Sizes of data sets and the
operations of a forward pass are there for costs alone, about right.

A figure is reproduced when the mean of our runs is within the tolerance: twice the published standard deviation, and
never less than `LEAST` points; `USUAL` points where none is published. Our runs count when nothing but what the ledger
says is set: recipe, track ``paper``, backbone, and the real test data.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

from benchmark.leaderboard import rows
from benchmark.leaderboard.footnotes import Footnotes
from benchmark.leaderboard.published import FIGURES, figures
from benchmark.metrics.statistics import summarize
from benchmark.records.schema import Record
from benchmark.tables import MISSING, Cell, Column, Row, Table

PROTOCOLS = FIGURES.with_name("protocols.csv")
TRACK = "paper"
_IDENTITY = ("key", "row", "scenario", "backbone", "metric", "value", "std", "source", "note")
MOST_REASONS = 12  # in footnotes
LEAST = 0.5
USUAL = 1.0
RULE = (
    f"Tolerance: twice the published standard deviation, never less than {LEAST:g} points; {USUAL:g} point where none "
    "is published."
)
State = Literal["reproduced", "off", "in part", "not tried", "impossible"]
STATES: tuple[State, ...] = ("reproduced", "off", "in part", "not tried", "impossible")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One published figure.

    Attributes:
        id: Eight hexadecimal digits of what it says.
        key: Of the figures.
        row: Name in the source.
        published: Scenario, backbone and metric as the file of figures names them.
        method: Ours.
        recipe: Its recipe; empty for its default.
        scenarios: Ours; several where the figure is a mean over them.
        backbone: Ours.
        metric: Ours, or ``test NAME`` for one further test set.
        value: In percent.
        std: Published standard deviation, or None.
        source: Where it was read.
        note: Beside it.
        reason: Why it cannot be tried; empty where it can.
        train: Training samples of one of the scenarios, about.
        test: Test samples, likewise.
        experiences: Of the stream.
        gflops: Of one forward pass of the backbone on one sample, about; 0 where it is not known.
    """

    id: str
    key: str
    row: str
    published: tuple[str, str, str]
    method: str
    recipe: str
    scenarios: tuple[str, ...]
    backbone: str
    metric: str
    value: float
    std: float | None
    source: str
    note: str
    reason: str = ""
    train: int = 0
    test: int = 0
    experiences: int = 1
    gflops: float = 0.0

    @property
    def tolerance(self) -> float:
        """In points."""
        return USUAL if self.std is None else max(LEAST, 2 * self.std)

    @property
    def label(self) -> str:
        """``method`` or ``method@recipe``; the row of the source where there is none."""
        return f"{self.method}@{self.recipe}" if self.recipe else self.method or self.row

    @property
    def run(self) -> tuple[str, tuple[str, ...], str]:
        """What is run for it; other figures may ask for the same."""
        return self.label, self.scenarios, self.backbone


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What our records say of a figure.

    Attributes:
        state: One of `STATES`.
        mean: Of our runs, in percent, or None.
        std: Over seeds, or None.
        n: Seeds.
        done: Scenarios that have runs.
    """

    state: State
    mean: float | None = None
    std: float | None = None
    n: int = 0
    done: int = 0


def targets(methods: Collection[str]) -> list[Target]:
    """All published figures.

    Args:
        methods: Names of the methods that there are; the key of a figure is the name of one.
    """
    return [_target(figure, methods) for figure in figures()]


def _target(figure: Mapping[str, str], methods: Collection[str]) -> Target:
    scenario, backbone, metric = (_look_up(kind, figure[kind]) for kind in ("scenario", "backbone", "metric"))
    recipe = _look_up("row", f"{figure['key']}/{figure['row']}", f"{figure['source']} | {figure['scenario']}")
    method, _, recipe_name = recipe["ours"].partition("@")
    identity = "|".join(figure[name] for name in _IDENTITY)
    reasons = [entry["note"] for entry in (scenario, backbone, metric, recipe) if not entry["ours"]]
    if not reasons and method not in methods:
        reasons = [f"there is no method `{method}`"]
    name, tail = metric["ours"], ""
    if name.endswith("*"):
        name, tail = name[:-1], figure["metric"].removeprefix(metric["published"].rstrip("*"))
    return Target(
        id=hashlib.sha256(identity.encode()).hexdigest()[:8],
        key=figure["key"],
        row=figure["row"],
        published=(figure["scenario"], figure["backbone"], figure["metric"]),
        method=method or (figure["key"] if figure["key"] in methods else ""),
        recipe=recipe_name,
        scenarios=tuple(scenario["ours"].split()),
        backbone=backbone["ours"],
        metric=name + tail,
        value=float(figure["value"]),
        std=float(figure["std"]) if figure["std"] else None,
        source=figure["source"],
        note=figure["note"],
        reason="; ".join(dict.fromkeys(reasons)),
        train=int(scenario["train"] or 0),
        test=int(scenario["test"] or 0),
        experiences=int(scenario["experiences"] or 1),
        gflops=float(backbone["train"] or 0),
    )


def refused(target: Target, reason: str) -> Target:
    """The target, which cannot be tried for a reason that only its plan tells."""
    return replace(target, reason=reason)


@cache
def _look_up(kind: str, name: str, where: str = "") -> Mapping[str, str]:
    for entry in _protocols()[kind]:
        published, place = entry["published"], entry["where"]
        fits = fnmatchcase(name, _literal(published)) if "*" in published else name == published
        if fits and (not place or fnmatchcase(where, f"*{_literal(place)}*")):
            return entry
    raise ValueError(f"{PROTOCOLS}: no pattern for the {kind} {name!r}; the last one is to be `*`")


def _literal(pattern: str) -> str:
    """Only ``*`` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


@cache
def _protocols() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    with PROTOCOLS.open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            found.setdefault(entry["kind"], []).append(entry)
    return found


# --- what our records say ---------------------------------------------------------------------------


def index(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Finished runs that count, by method with recipe, scenario and backbone."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for run in records:
        if run.status == "completed" and run.evaluated_on == "test" and run.track == TRACK and not _changed(run):
            method = run.method
            name = method.name if method.recipe == method.default_recipe else f"{method.name}@{method.recipe}"
            for label in {name, f"{method.name}@{method.recipe}"}:
                found.setdefault((label, run.scenario.name, run.backbone.name), []).append(run)
    return found


def _changed(run: Record) -> bool:
    """Whether somebody set an option that changes results; the variant is part of the scenario's name."""
    own = {name for name in rows.changed(run, "scenario") if name != run.scenario.variant_option}
    return bool(own or rows.changed(run, "method") or rows.changed(run, "engine"))


def look(target: Target, known: Mapping[tuple[str, str, str], Sequence[Record]]) -> Found:
    """What the records of `index` say of a target."""
    if target.reason:
        return Found(state="impossible")
    by_scenario = [known.get((target.label, name, target.backbone), ()) for name in target.scenarios]
    values = [
        {rows.seeds_of(run): value for run in runs if (value := _value(run, target.metric)) is not None}
        for runs in by_scenario
    ]
    done = sum(bool(found) for found in values)
    if not done:
        return Found(state="not tried")
    common = set(values[0]).intersection(*values[1:])
    if not common:
        return Found(state="in part", done=done)
    means = [100 * sum(found[seeds] for found in values) / len(values) for seeds in sorted(common)]
    summary = summarize(means)
    assert summary.mean is not None
    state: State = "reproduced" if abs(summary.mean - target.value) <= target.tolerance else "off"
    return Found(state=state, mean=summary.mean, std=summary.std, n=len(means), done=done)


def _value(run: Record, metric: str) -> float | None:
    """A metric, or the final accuracy on one further test set, as a fraction."""
    if not metric.startswith("test "):
        return run.number(metric)
    names = [test.name for test in run.scenario.tests]
    name = metric.removeprefix("test ")
    return run.accuracy[-1][names.index(name)] if name in names and run.accuracy else None


# --- as a table -------------------------------------------------------------------------------------


def table(
    found: Sequence[tuple[Target, Found]], costs: Mapping[str, str], *, title: str, counted: Sequence[Target] = ()
) -> Table:
    """Reported, ours, difference.

    Args:
        found: Targets with what our records say, in the order of the rows.
        costs: What one seed would cost, by the id of the target.
        title: Of the table.
        counted: Further targets that cannot be tried and have no row: only their reasons are counted, in footnotes.
    """
    columns = (
        Column("method", "Method", "left"),
        Column("row", "Row in the source", "left"),
        Column("scenario", "Scenario", "left"),
        Column("backbone", "Backbone", "left"),
        Column("metric", "Metric", "left"),
        Column("reported", "Reported (%)"),
        Column("ours", "Ours (%)"),
        Column("difference", "Difference (points)"),
        Column("tolerance", "Tolerance (points)"),
        Column("status", "Status", "left"),
        Column("cost", "Cost of a seed"),
        Column("id", "Target", "left"),
    )
    notes = Footnotes()
    body = []
    for target, ours in found:
        marks = tuple(notes.mark(text) for text in (f"source: {target.source}", target.note) if text)
        first, *cells = _cells(target, ours, costs.get(target.id, MISSING))
        body.append(Row((replace(first, marks=marks), *cells), ours.state))
    reasons: dict[str, int] = {}
    for target in counted:
        reason = target.reason.partition("; ")[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    ranked = sorted(reasons.items(), key=_most)
    general = [("", f"{number} not shown, impossible: {reason}.") for reason, number in ranked[:MOST_REASONS]]
    if rest := sum(number for _, number in ranked[MOST_REASONS:]):
        general.append(("", f"{rest} not shown, impossible for other reasons."))
    caption = (
        f"Published figures and ours: track {TRACK}, the recipe as it is, mean over our seeds. {RULE} Cost of a seed: "
        "the time of our records of the same runs where there are any; else a guess (~) from operations, at a rate "
        "that a GPU is taken to sustain, without reading data: right within a factor of three."
    )
    raw = tuple(_raw(target, ours) for target, ours in found)
    return Table(title, caption, columns, tuple(body), (*notes.all(), *general), raw)


def _most(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def _cells(target: Target, ours: Found, cost: str) -> tuple[Cell, ...]:
    mean = Cell(MISSING)
    difference = Cell(MISSING)
    if ours.mean is not None:
        spread = f" ± {ours.std:.2f}" if ours.std is not None else ""
        mean = Cell(f"{ours.mean:.2f}{spread} (n={ours.n})", ours.mean)
        difference = Cell(f"{round(ours.mean - target.value, 2) + 0.0:+.2f}", ours.mean - target.value)
    std = f" ± {target.std:g}" if target.std is not None else ""
    places = target.scenarios or (target.published[0],)
    scenario = places[0] if len(places) == 1 else f"{_common(places)} (mean of {len(places)})"
    return (
        Cell(target.label, target.label),
        Cell(target.row, target.row),
        Cell(scenario, scenario),
        Cell(target.backbone or target.published[1], target.backbone),
        Cell(target.metric or target.published[2], target.metric),
        Cell(f"{target.value:g}{std}", target.value),
        mean,
        difference,
        Cell(f"{target.tolerance:g}", target.tolerance),
        Cell(_status(target, ours), ours.state),
        Cell(cost, cost),
        Cell(target.id, target.id),
    )


def _common(names: Sequence[str]) -> str:
    """The scenario whose variants these are."""
    return names[0].partition("/")[0]


def _status(target: Target, ours: Found) -> str:
    if ours.state == "impossible":
        return f"impossible: {target.reason}"
    if ours.state == "in part":
        return f"in part: {ours.done} of {len(target.scenarios)} scenarios"
    if ours.state == "off" and ours.mean is not None:
        return f"off by {ours.mean - target.value:+.2f}"
    return ours.state


def _raw(target: Target, ours: Found) -> dict[str, Any]:
    return {
        "target": target.id,
        "method": target.method,
        "recipe": target.recipe,
        "row": target.row,
        "scenario": " ".join(target.scenarios),
        "published_scenario": target.published[0],
        "backbone": target.backbone,
        "published_backbone": target.published[1],
        "metric": target.metric,
        "published_metric": target.published[2],
        "reported": target.value,
        "reported_std": target.std,
        "ours": ours.mean,
        "ours_std": ours.std,
        "seeds": ours.n,
        "tolerance": target.tolerance,
        "status": ours.state,
        "reason": target.reason,
        "source": target.source,
        "note": target.note,
    }
