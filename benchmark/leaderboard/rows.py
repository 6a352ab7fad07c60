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
from typing import Any

from msgspec.structs import asdict

from benchmark.metrics.statistics import Summary, holm, paired_t, summarize
from benchmark.records.schema import Method, Record
from benchmark.tables import MISSING, Cell, Scalar

Seeds = tuple[int, int, int, int]
GROUPS = ("upper bound", "method", "control")
SIGNIFICANCE = 0.05
ORACLE = "target-oracle"
_RULES = {
    "last": "last epoch",
    "source-validation": "best epoch on held-out source images",
    ORACLE: "best epoch on the labels of the target's test images (oracle)",
}


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


def show(value: Any) -> str:
    """An option as text."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def selection_text(runs: Iterable[Record]) -> str:
    """How the models of a table were selected, for its caption."""
    rules = sorted({run.selection.rule for run in runs}, key=list(_RULES).index)
    if len(rules) == 1:
        return f"Model selection: {_RULES[rules[0]]}."
    return "Model selection: " + "; ".join(f"{_RULES[rule]} (engine.select={rule})" for rule in rules) + "."


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


def _always(runs: Iterable[Record]) -> dict[str, Any]:
    """What the label of a row says whatever its neighbours are."""
    told: dict[str, Any] = {}
    for run in runs:
        told |= changed(run, "method")
        told |= {f"engine.{name}": value for name, value in changed(run, "engine").items()}
        if (device := _device(run)) != "cpu":
            told["device"] = device
    return told


def entries_of(runs: Sequence[Record]) -> list[Entry]:
    """Groups runs into configurations, labelled by what is not as track and recipe have it.

    Where that leaves two labels equal, whatever else differs is told as well.
    """
    found: dict[tuple[str, str, str], Entry] = {}
    for run in runs:
        method, options = run.method, _options(run)
        key = (method.name, method.recipe, repr(sorted(options.items())))
        if key not in found:
            found[key] = Entry(method.name, method.recipe, options, [])
        found[key].runs.append(run)
    siblings: dict[tuple[str, str], list[Entry]] = {}
    for key in sorted(found):
        siblings.setdefault(key[:2], []).append(found[key])
    for (name, recipe), entries in siblings.items():
        default = entries[0].runs[0].method.default_recipe
        plain = name if recipe == default else f"{name}@{recipe}"
        told = [_always(entry.runs) for entry in entries]
        labels = [_label(plain, values) for values in told]
        for entry, values, label in zip(entries, told, labels, strict=True):
            entry.runs.sort(key=lambda run: (seeds_of(run), run.run_id))
            same = [other for other, its in zip(entries, labels, strict=True) if its == label]
            more = {name: entry.options.get(name) for name in _differing([other.options for other in same])}
            entry.label = _label(plain, values | more)
    return [entry for entries in siblings.values() for entry in entries]


def _differing(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names whose values differ; hashes of weights only where their names do not tell them apart."""
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


def best(entries: Sequence[Entry], by_seed: BySeed) -> Entry | None:
    """The row that is no upper bound and beats every other such row by more than the noise, if any."""
    rows = [entry for entry in entries if entry.group != "upper bound" and by_seed(entry)]
    if len(rows) < 2:
        return None
    top = max(rows, key=lambda entry: summarize(list(by_seed(entry).values())).mean or 0.0)
    own = by_seed(top)
    p_values = []
    for other in rows:
        if other is top:
            continue
        theirs = by_seed(other)
        common = sorted(own.keys() & theirs.keys())
        test = paired_t([own[seeds] for seeds in common], [theirs[seeds] for seeds in common])
        if test is None or test.difference <= 0:
            return None
        p_values.append(test.p)
    return top if max(holm(p_values)) < SIGNIFICANCE else None


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


def interval(summary: Summary) -> Cell:
    """The 95 % interval of the mean."""
    if summary.mean is None or summary.ci95 is None:
        return Cell(MISSING)
    low, high = 100 * (summary.mean - summary.ci95), 100 * (summary.mean + summary.ci95)
    return Cell(f"[{fixed(low)}, {fixed(high)}]", summary.ci95)


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


def raw(run: Record, label: str) -> dict[str, Scalar]:
    """One run for machines: full precision, accuracies as fractions."""
    scalars = {
        name: run.number(name) for name, value in sorted((run.metrics or {}).items()) if not isinstance(value, list)
    }
    costs = asdict(run.cost) if run.cost else {}
    costs = {name: value for name, value in sorted(costs.items()) if not isinstance(value, list)}
    return {
        "scenario": run.scenario.name,
        "scenario_version": run.scenario.version,
        "scenario_fingerprint": run.scenario.fingerprint,
        "family": run.scenario.family,
        "track": run.track,
        "backbone": run.backbone.name,
        "backbone_sha256": run.backbone.sha256,
        "row": label,
        "method": run.method.name,
        "recipe": run.method.recipe,
        "control": run.method.control,
        "stream": run.method.stream,
        "selection": run.selection.rule,
        "uses": " ".join(run.method.uses),
        "distribution": run.method.distribution,
        "run_id": run.run_id,
        "status": run.status,
        "seed": run.seeds.seed,
        "seed_class_order": run.seeds.class_order,
        "seed_init": run.seeds.init,
        "seed_data": run.seeds.data,
        **scalars,
        **costs,
        "train_seconds": sum(run.timing.train_seconds),
        "eval_seconds": sum(run.timing.eval_seconds),
        "total_seconds": run.timing.total_seconds,
        "peak_memory_bytes": run.timing.peak_memory_bytes,
        "scenario_content": run.scenario.content,
        "scenario_partition": run.scenario.partition,
        "own_weights": run.backbone.own_weights,
        "device": run.provenance.device,
        "engine_number": run.identity.engine,
        "code": run.identity.code,
        **{
            f"{group}.{name}": value if isinstance(value, (str, int, float, bool, type(None))) else show(value)
            for group in ("scenario", "method", "engine")
            for name, value in sorted(run.config.effective[group].items())
        },
    }
