"""Rows of leaderboards in the making: runs of one configuration, and the cells that all tables have.

Nothing here knows a method by name: controls are the methods whose records say so; upper bounds are
those that train on what others may not have (``joint`` and ``oracle`` streams, model selection on target
labels).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmark import families, locks
from benchmark.leaderboard.selected import ORACLE
from benchmark.metrics.statistics import Summary, Verdict, beats_all, bounds, smallest_effect, summarize
from benchmark.records.schema import Method, Record
from benchmark.tables import MISSING, Cell

Seeds = tuple[int, int, int, int]
GROUPS = ("upper bound", "method", "control")
DETERMINISTIC = "deterministic"


@dataclass(slots=True)
class Entry:
    """All runs of one configuration: one row.

    Attributes:
        method: Name of the method.
        recipe: Its recipe.
        options: Everything besides the seeds that sets the row apart.
        runs: Its runs, finished or not.
        label: What the row is called.
    """

    method: str
    recipe: str
    options: Mapping[str, Any]
    runs: list[Record]
    label: str = ""
    _summaries: dict[str, Summary] = field(default_factory=dict)
    _deterministic: bool | None = None

    @property
    def completed(self) -> list[Record]:
        """Finished runs."""
        return [run for run in self.runs if run.status == "completed"]

    @property
    def group(self) -> str:
        """One of `GROUPS`."""
        first = self.runs[0]
        if first.method.stream != "sequential" or first.selection.rule == ORACLE:
            return "upper bound"
        return "control" if first.method.control else "method"

    def summary(self, metric: str) -> Summary:
        """Of all finished runs; computed once, as sorting asks again and again."""
        if metric not in self._summaries:
            self._summaries[metric] = summarize([run.number(metric) for run in self.completed])
        return self._summaries[metric]

    @property
    def deterministic(self) -> bool:
        """Whether the seeds change nothing: two or more, and all of them gave the same accuracies everywhere."""
        if self._deterministic is None:
            family = families.of_record(self.runs[0].scenario.family, self.runs[0].scenario.family_facts)
            seen: dict[str, list[Any]] = {}
            for run in self.completed:
                made = [run.number(metric) for metric in (family.headline, *family.columns)]
                seen.setdefault(run.scenario.name, []).append((run.accuracy, made))
            self._deterministic = bool(seen) and all(
                len(found) > 1 and all(one == found[0] for one in found[1:]) for found in seen.values()
            )
        return self._deterministic

    def percent(self, summary: Summary, *, spread: bool = True) -> Cell:
        """A mean in percent, with its spread where seeds can change it."""
        return percent(summary, spread=spread and not self.deterministic)

    def by_seed(self, metric: str) -> dict[Seeds, float]:
        """The metric by seeds, where it is defined."""
        pairs = ((seeds_of(run), run.number(metric)) for run in self.completed)
        return {seeds: value for seeds, value in pairs if value is not None}


Mean = Callable[[Entry], float | None]
BySeed = Callable[[Entry], dict[Seeds, float]]


def seeds_of(run: Record) -> Seeds:
    """The seeds of a run."""
    seeds = run.seeds
    return seeds.seed, seeds.class_order, seeds.init, seeds.data


def lock_of(run: Record) -> str:
    """The short name of a run's data and split; of old records too, whose facts are the same."""
    scenario = run.scenario
    return scenario.lock or locks.short_name(
        scenario=scenario.name,
        version=scenario.version,
        experiences=sum(not test.further for test in scenario.tests),
        preset=str(run.inputs.facts.get("preset", "")),
        partition=scenario.partition,
        content=scenario.content,
        fingerprint=scenario.fingerprint,
        class_order=scenario.class_order,
    )


def show(value: Any) -> str:
    """An option as text."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _options(run: Record) -> dict[str, Any]:
    effective = run.config.effective
    options: dict[str, Any] = {**effective.method}
    options.update({f"engine.{name}": value for name, value in effective.engine.items()})
    options["code"] = run.identity.code[:8]
    options["engine"] = run.identity.engine
    options["device"] = _device(run)
    options["backbone"] = run.backbone.name
    options["weights"] = run.backbone.sha256[:8]
    options["preset"] = run.inputs.facts.get("preset")
    return options


def changed(run: Record, group: str) -> dict[str, Any]:
    """The options of a group that are not as track and recipe have them, also those of which that is not known."""
    known: Mapping[str, Any] = run.config.track[group]
    effective: Mapping[str, Any] = run.scenario.options if group == "scenario" else run.config.effective[group]
    return {name: value for name, value in effective.items() if name not in known or known[name] != value}


def setting(name: str, value: Any) -> str:
    """``name=value``."""
    return f"{name}={show(value)}"


def _device(run: Record) -> str:
    return run.provenance.device.split(":")[0]


Unsettled = Mapping[tuple[str, str, str], frozenset[str]]
"""Options whose value on a track is not the same in all records, by track, method and recipe."""


def unsettled(runs: Sequence[Record]) -> Unsettled:
    """Options that track and recipe gave different values in different records, as a track that was changed does.

    The same name must not mean two settings, be it in two tables: labels tell these options. What a stream demands of
    a method stands in the title of its table.
    """
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    found: dict[tuple[str, str, str], set[str]] = {}
    # Records that were read together share what is equal.
    for run in {(run.track, run.method.name, run.method.recipe, id(run.config)): run for run in runs}.values():
        key = run.track, run.method.name, run.method.recipe
        known = first.setdefault(key, {})
        for group, before in (("method", ""), ("engine", "engine.")):
            for name, value in run.config.track[group].items():
                if run.config.origin.get(f"{group}.{name}", "").startswith("scenario."):
                    continue
                other = known.setdefault(before + name, value)
                if other is not value and repr(other) != repr(value):  # 1 is not True, nor 1.0
                    found.setdefault(key, set()).add(before + name)
    return {key: frozenset(names) for key, names in found.items()}


def _always(runs: Sequence[Record], differing: Unsettled) -> dict[str, Any]:
    """What the label of a row, whose runs these are, says whatever its neighbours are."""
    told: dict[str, Any] = {}
    for run in {(id(run.config), _device(run)): run for run in runs}.values():  # runs share configurations
        if (device := _device(run)) != "cpu":
            told["device"] = device
        names = differing.get((run.track, run.method.name, run.method.recipe), frozenset())
        told |= {name: value for name, value in _options(run).items() if name in names} if names else {}
        told |= changed(run, "method")
        told |= {f"engine.{name}": value for name, value in changed(run, "engine").items()}
    return told


def entries_of(runs: Sequence[Record], differing: Unsettled = MappingProxyType({})) -> list[Entry]:
    """Groups runs into configurations, labelled by what is not as track and recipe have it.

    Where that leaves two labels equal, whatever else differs is told as well.

    Args:
        runs: Of one table.
        differing: See `unsettled`, of the runs of all tables that are read together.
    """
    found: dict[tuple[str, str, str], Entry] = {}
    known: dict[tuple[object, ...], tuple[dict[str, Any], str]] = {}  # of parts that records share
    for run in runs:
        parts = id(run.config), id(run.identity), id(run.backbone), id(run.inputs), run.provenance.device
        if parts not in known:
            options = _options(run)
            known[parts] = options, repr(sorted(options.items()))
        method, (options, text) = run.method, known[parts]
        key = (method.name, method.recipe, text)
        if key not in found:
            found[key] = Entry(method.name, method.recipe, options, [])
        found[key].runs.append(run)
    siblings: dict[tuple[str, str], list[Entry]] = {}
    for key in sorted(found):
        siblings.setdefault(key[:2], []).append(found[key])
    for (name, recipe), entries in siblings.items():
        default = entries[0].runs[0].method.default_recipe
        plain = name if recipe == default else f"{name}@{recipe}"
        told = [_always(entry.runs, differing) for entry in entries]
        labels = [_label(plain, values) for values in told]
        for entry, values, label in zip(entries, told, labels, strict=True):
            entry.runs.sort(key=lambda run: (seeds_of(run), run.run_id))
            same = [other for other, its in zip(entries, labels, strict=True) if its == label]
            more = {name: entry.options.get(name) for name in _differing([other.options for other in same])}
            entry.label = _label(plain, values | more)
    return [entry for entries in siblings.values() for entry in entries]


def rename(entries: Sequence[Entry], names: Mapping[str, str]) -> dict[str, str]:
    """Gives rows other labels.

    Args:
        entries: Rows of one table; their labels change.
        names: New names of labels as a whole, ``l2p (prompts=off)``, of ``l2p@pilot`` or of ``l2p``; options stay
            behind the name, and a recipe does unless it is named too.

    Returns:
        The former label of every label. No two rows get the same one: then all keep what they were called.
    """
    former = {entry.label: entry for entry in entries}
    given = {label: _renamed(entry, names) for label, entry in former.items()}
    twice = {name for name, number in Counter(given.values()).items() if number > 1}
    for label, entry in former.items():
        entry.label = label if given[label] in twice else given[label]
    return {entry.label: label for label, entry in former.items()}


def _renamed(entry: Entry, names: Mapping[str, str]) -> str:
    if entry.label in names:
        return names[entry.label]
    plain, bracket, options = entry.label.partition(" (")
    method, at, recipe = plain.partition("@")
    return f"{names.get(plain, names.get(method, method) + at + recipe)}{bracket}{options}"


def _differing(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names whose values differ; hashes of weights only where their names do not tell them apart."""
    if len(options) < 2:
        return []
    names = {name for some in options for name in some}
    different = {name: len({show(some.get(name)) for some in options}) for name in names}
    if different.get("weights") == different.get("backbone"):
        different.pop("weights", None)
    return [name for name, number in different.items() if number > 1]


def _label(plain: str, values: Mapping[str, Any]) -> str:
    details = ", ".join(setting(name, value) for name, value in sorted(values.items()))
    return f"{plain} ({details})" if details else plain


def ordered(entries: Iterable[Entry], mean: Mean) -> list[Entry]:
    """Upper bounds, methods, controls; within each the best first, then by label; missing last."""

    def key(entry: Entry) -> tuple[int, bool, float, str]:
        value = mean(entry)
        return GROUPS.index(entry.group), value is None, -(value or 0.0), entry.label

    return sorted(entries, key=key)


def best_control(entries: Iterable[Entry], mean: Mean) -> Entry | None:
    """The control that the gain is measured from."""
    yardsticks = [entry for entry in entries if entry.group == "control" and entry.completed]
    return max(yardsticks, key=lambda entry: mean(entry) or 0.0, default=None)


def verdict(entries: Sequence[Entry], by_seed: BySeed) -> tuple[Verdict, list[Entry]] | None:
    """Whether the best row that is no upper bound beats every other such row, and the rows that were compared."""
    compared = [entry for entry in entries if entry.group != "upper bound" and by_seed(entry)]
    found = beats_all([by_seed(entry) for entry in compared])
    return None if found is None else (found, compared)


def verdict_text(found: tuple[Verdict, list[Entry]] | None, by_seed: BySeed) -> str:
    """What the seeds of a table can and cannot tell, for its footnotes; empty where nothing was compared."""
    if found is None:
        return ""
    outcome, compared = found
    best, other, test = compared[outcome.best].label, compared[outcome.closest].label, outcome.test
    if test is None:
        own = by_seed(compared[outcome.best]).keys()
        alone = sum(len(own & by_seed(compared[place]).keys()) < 2 for place in outcome.unbeaten)
        more = f" and {alone - 1} more" if alone > 1 else ""
        return f"Best row: {best}. No test tells it from {other}{more}: fewer than two seeds in common."
    if outcome.unbeaten:
        more = f" ({len(outcome.unbeaten)} rows cannot be told from it)" if len(outcome.unbeaten) > 1 else ""
        told = f"Best row: {best}. Hardest to tell from it{more}: {other}"
    else:
        told = f"Best row: {best}. Second: {other}"
    told += f", n = {test.n} common seeds, {_points(test.difference)} points apart"
    if not test.ci95:
        return f"{told} on every seed."
    return (
        f"{told}, p = {test.p:.2g}; the smallest difference that they could show: {_points(test.ci95)} points "
        f"({smallest_effect(test.n):.2f} standard deviations of the differences)."
    )


def _points(difference: float) -> str:
    return fixed(100 * difference)


def chosen(entries: Sequence[Entry], methods: Sequence[str], controls: Mapping[str, Method]) -> list[Entry]:
    """The entries of some methods (``name`` or ``name@recipe``) and of all controls; all when none are named."""
    return [
        entry
        for entry in entries
        if not methods or entry.method in controls or {entry.method, f"{entry.method}@{entry.recipe}"} & set(methods)
    ]


# --- Cells ------------------------------------------------------------------------------------


def percent(summary: Summary, *, spread: bool = True) -> Cell:
    """``81.00 ± 1.00``, or the mean alone."""
    if summary.mean is None:
        return Cell(MISSING)
    behind = f" ± {100 * summary.std:.2f}" if spread and summary.std is not None else ""
    return Cell(f"{fixed(100 * summary.mean)}{behind}", summary.mean)


def number(summary: Summary) -> Cell:
    """A number that is no fraction, four digits of it."""
    if summary.mean is None:
        return Cell(MISSING)
    behind = f" ± {summary.std:.2g}" if summary.std is not None else ""
    return Cell(f"{summary.mean:.4g}{behind}", summary.mean)


def fixed(number: float) -> str:
    """Two decimals, and no minus sign before a zero."""
    return f"{round(number, 2) + 0.0:.2f}"


def interval(summary: Summary, *, deterministic: bool = False) -> Cell:
    """The 95 % interval of the mean, within what a fraction can be; a word where there is nothing to vary."""
    if summary.mean is None or summary.ci95 is None:
        return Cell(MISSING)
    if deterministic:
        return Cell(DETERMINISTIC, 0.0)
    low, high = bounds(summary.mean, summary.ci95)
    return Cell(f"[{fixed(100 * low)}, {fixed(100 * high)}]", summary.ci95)


def gain(entry: Entry, reference: Entry | None, mean: Mean) -> Cell:
    """Difference to the best control, in points."""
    own = mean(entry)
    base = mean(reference) if reference else None
    if own is None or base is None:
        return Cell(MISSING)
    if entry is reference:
        return Cell("best control", 0.0)
    return Cell(f"{round(100 * (own - base), 2) + 0.0:+.2f}", own - base)


def mean_of(values: Sequence[float | None], form: str) -> Cell:
    """The mean of numbers in a format."""
    mean = summarize(values).mean
    return Cell(MISSING) if mean is None else Cell(format(mean, form), mean)


def count(entry: Entry, done: set[Seeds], expected: set[Seeds]) -> Cell:
    """Number of seeds, and what became of the others."""
    if not entry.runs:
        return Cell("missing", 0)
    finished = {seeds_of(run) for run in entry.completed}
    stopped = Counter(run.status for run in entry.runs if run.status != "completed" and seeds_of(run) not in finished)
    text = str(len(done)) if done >= expected else f"{len(done)} of {len(expected)}"
    for status, number in sorted(stopped.items()):
        text += f", {number} {status}"
    return Cell(text, len(done))


def cost(run: Record, name: str) -> float | None:
    """A cost of a run, where it was measured."""
    value: float | None = run.cost[name] if run.cost else None
    return value
