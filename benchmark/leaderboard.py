"""From records to tables: a pure function, so that the same records give the same bytes.

One table per scenario (name, version, options), track, and backbone with its weights. Rows are
configurations, averaged over seeds. Nothing here knows a method by name: controls are the methods
whose records say so, upper bounds those with a ``joint`` stream.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark.footnotes import Footnotes, row_facts, table_facts
from benchmark.records import without_garbage_collection
from benchmark.statistics import Summary, holm, paired_t, summarize
from benchmark.tables import MISSING, Cell, Column, Row, Scalar, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "leaderboard", "render_text"]

Record = Mapping[str, Any]
Seeds = tuple[int, int, int, int]
HEADLINE = "final_avg_acc"
SIGNIFICANCE = 0.05
_GROUPS = ("upper bound", "method", "control")
_ACCURACIES = {
    "final_avg_acc": "Final avg. acc. (%)",
    "final_acc": "Final acc. (%)",
    "worst_domain_acc": "Worst domain (%)",
    "avg_incremental_acc": "Avg. incr. acc. (%)",
    "forgetting": "Forgetting (points)",
    "learning_acc": "Learning acc. (%)",
}
_CAPTION = (
    "Mean ± sample standard deviation (ddof = 1) over seeds, in percent; n is in the column Seeds. "
    "95 % interval: Student's t, of the mean. Final avg. acc.: mean over test sets after the last experience; "
    "forgetting: Chaudhry et al. (2018), may be negative. Gain: difference of the means to the best sequential "
    "control. {bold} marks a final average accuracy that is higher than that of every other sequential row "
    "(paired t tests over common seeds, Holm, p < 0.05); never with one seed."
)


@dataclass(slots=True)
class _Entry:
    """One row in the making: all runs of one configuration."""

    method: str
    recipe: str
    options: Mapping[str, Any]
    runs: list[Record]
    label: str = ""
    _summaries: dict[str, Summary] = field(default_factory=dict)

    @property
    def completed(self) -> list[Record]:
        return [run for run in self.runs if run["status"] == "completed"]

    @property
    def group(self) -> str:
        about = self.runs[0]["method"] if self.runs else {"control": True, "stream": "sequential"}
        if about["stream"] == "joint":
            return "upper bound"
        return "control" if about["control"] else "method"

    def summary(self, metric: str) -> Summary:
        """Over seeds; computed once, as sorting asks again and again."""
        if metric not in self._summaries:
            self._summaries[metric] = summarize([run["metrics"].get(metric) for run in self.completed])
        return self._summaries[metric]

    def by_seed(self) -> dict[Seeds, float]:
        pairs = ((_seeds(run), run["metrics"].get(HEADLINE)) for run in self.completed)
        return {seeds: value for seeds, value in pairs if value is not None}


def leaderboard(records: Iterable[Record], *, methods: Sequence[str] = ()) -> list[Table]:
    """Tabulates records.

    Args:
        records: Records of any scenarios; each run is counted once. Runs on validation data are
            left out and counted in a footnote.
        methods: Show only these (``name`` or ``name@recipe``) beside the controls; default all.

    Returns:
        Tables sorted by scenario, version, options, track and backbone.
    """
    with without_garbage_collection():
        return _tables(_unique(records), methods)


def _tables(unique: Sequence[Record], methods: Sequence[str]) -> list[Table]:
    controls = {run["method"]["name"]: run["method"] for run in unique if run["method"]["control"]}
    by_table: dict[tuple[Any, ...], list[Record]] = {}
    for run in unique:
        by_table.setdefault(_table_key(run), []).append(run)
    titles = Counter(_title(runs[0]) for runs in by_table.values())
    tables = []
    for key in sorted(by_table):
        runs = by_table[key]
        tested = [run for run in runs if run["evaluated_on"] == "test"]
        if tested:
            title = _title(runs[0])
            if titles[title] > 1:
                title += _title_details(runs[0])
            tables.append(_table(title, tested, len(runs) - len(tested), controls, methods))
    return tables


def _unique(records: Iterable[Record]) -> list[Record]:
    """One record per run id, a completed one if there is any."""
    found: dict[str, Record] = {}
    for run in records:
        known = found.get(run["run_id"])
        if known is None or (known["status"] != "completed" and run["status"] == "completed"):
            found[run["run_id"]] = run
    return [found[run_id] for run_id in sorted(found)]


def _table_key(run: Record) -> tuple[Any, ...]:
    scenario, backbone = run["scenario"], run["backbone"]
    options = repr(sorted(scenario["options"].items()))  # several times as fast as JSON
    return scenario["name"], scenario["version"], options, run["track"], backbone["name"], backbone["sha256"]


def _title(run: Record) -> str:
    scenario = run["scenario"]
    return f"{scenario['name']} (version {scenario['version']}), track {run['track']}, {run['backbone']['name']}"


def _title_details(run: Record) -> str:
    """What sets tables of one name apart: options of the scenario and the weights."""
    options = ", ".join(f"{name}={_show(value)}" for name, value in sorted(run["scenario"]["options"].items()))
    return f", weights {run['backbone']['sha256'][:8]}" + (f", {options}" if options else "")


def _seeds(run: Record) -> Seeds:
    seeds = run["seeds"]
    return seeds["seed"], seeds["class_order"], seeds["init"], seeds["data"]


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


# --- Rows -------------------------------------------------------------------------------------


def _options(run: Record) -> dict[str, Any]:
    """Everything besides the seeds that sets a row apart within a method and recipe."""
    effective = run["config"]["effective"]
    options = {**effective.get("method", {})}
    options.update({f"engine.{name}": value for name, value in effective.get("engine", {}).items()})
    options["code"] = run["method"]["code_sha256"][:8]
    options["device"] = run["provenance"]["device"].split(":")[0]
    return options


def _entries(runs: Sequence[Record]) -> list[_Entry]:
    """Groups runs into configurations and labels these by what differs."""
    found: dict[tuple[str, str, str], _Entry] = {}
    for run in runs:
        method, options = run["method"], _options(run)
        key = (method["name"], method["recipe"], repr(sorted(options.items())))
        if key not in found:
            found[key] = _Entry(method["name"], method["recipe"], options, [])
        found[key].runs.append(run)
    siblings: dict[tuple[str, str], list[_Entry]] = {}
    for key in sorted(found):
        siblings.setdefault(key[:2], []).append(found[key])
    for (name, recipe), entries in siblings.items():
        default = entries[0].runs[0]["method"].get("default_recipe", "default")
        plain = name if recipe == default else f"{name}@{recipe}"
        names = sorted({option for entry in entries for option in entry.options})
        differing = [option for option in names if len({_show(entry.options.get(option)) for entry in entries}) > 1]
        for entry in entries:
            entry.runs.sort(key=lambda run: (_seeds(run), run["run_id"]))
            details = ", ".join(f"{option}={_show(entry.options.get(option))}" for option in differing)
            entry.label = f"{plain} ({details})" if details else plain
    return [entry for entries in siblings.values() for entry in entries]


def _sorted(entries: Iterable[_Entry]) -> list[_Entry]:
    """Upper bounds, methods, controls; within each the best first, then by label; missing last."""

    def key(entry: _Entry) -> tuple[int, bool, float, str]:
        mean = entry.summary(HEADLINE).mean
        return _GROUPS.index(entry.group), mean is None, -(mean or 0.0), entry.label

    return sorted(entries, key=key)


def _best(entries: Sequence[_Entry]) -> _Entry | None:
    """The sequential row whose headline beats every other one by more than the noise, if any."""
    rows = [entry for entry in entries if entry.group != "upper bound" and entry.by_seed()]
    if len(rows) < 2:
        return None
    top = max(rows, key=lambda entry: summarize(list(entry.by_seed().values())).mean or 0.0)
    own = top.by_seed()
    p_values = []
    for other in rows:
        if other is top:
            continue
        theirs = other.by_seed()
        common = sorted(own.keys() & theirs.keys())
        test = paired_t([own[seeds] for seeds in common], [theirs[seeds] for seeds in common])
        if test is None or test.difference <= 0:
            return None
        p_values.append(test.p)
    return top if max(holm(p_values)) < SIGNIFICANCE else None


# --- Cells ------------------------------------------------------------------------------------


def _percent(summary: Summary) -> Cell:
    if summary.mean is None:
        return Cell(MISSING)
    spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return Cell(f"{_fixed(100 * summary.mean)}{spread}", summary.mean)


def _fixed(number: float) -> str:
    """Two decimals, and no minus sign before a zero."""
    return f"{round(number, 2) + 0.0:.2f}"


def _interval(summary: Summary) -> Cell:
    if summary.mean is None or summary.ci95 is None:
        return Cell(MISSING)
    low, high = 100 * (summary.mean - summary.ci95), 100 * (summary.mean + summary.ci95)
    return Cell(f"[{_fixed(low)}, {_fixed(high)}]", summary.ci95)


def _gain(entry: _Entry, reference: _Entry | None) -> Cell:
    mean = entry.summary(HEADLINE).mean
    base = reference.summary(HEADLINE).mean if reference else None
    if mean is None or base is None:
        return Cell(MISSING)
    if entry is reference:
        return Cell("best control", 0.0)
    return Cell(f"{round(100 * (mean - base), 2) + 0.0:+.2f}", mean - base)


def _mean_of(values: Sequence[float | None], form: str) -> Cell:
    mean = summarize(values).mean
    return Cell(MISSING) if mean is None else Cell(format(mean, form), mean)


def _count(entry: _Entry, expected: set[Seeds]) -> Cell:
    """Number of seeds, and what became of the others."""
    done = {_seeds(run) for run in entry.completed}
    if not entry.runs:
        return Cell("missing", 0)
    stopped = Counter(run["status"] for run in entry.runs if run["status"] != "completed" and _seeds(run) not in done)
    text = str(len(done)) if done >= expected else f"{len(done)} of {len(expected)}"
    for status, count in sorted(stopped.items()):
        text += f", {count} {status}"
    return Cell(text, len(done))


# --- Tables -----------------------------------------------------------------------------------


def _table(
    title: str, runs: Sequence[Record], validation: int, controls: Mapping[str, Any], methods: Sequence[str]
) -> Table:
    entries = _entries(runs)
    missing = sorted(set(controls) - {entry.method for entry in entries})
    expected = {_seeds(run) for run in runs}
    yardsticks = [entry for entry in entries if entry.group == "control" and entry.completed]
    reference = max(yardsticks, key=lambda entry: entry.summary(HEADLINE).mean or 0.0, default=None)
    best = _best(entries)
    shown = [
        entry
        for entry in _sorted(entries)
        if not methods or entry.method in controls or {entry.method, f"{entry.method}@{entry.recipe}"} & set(methods)
    ]
    columns = _columns(shown)
    notes = Footnotes()
    rows = []
    for entry in shown:
        marks = tuple(notes.mark(fact) for fact in row_facts(entry.runs))
        cells = {
            "method": Cell(entry.label, entry.label, marks=marks),
            "ci95": _interval(entry.summary(HEADLINE)),
            "gain": _gain(entry, reference),
            "params_trainable": _mean_of([_cost(run, "params_trainable") for run in entry.completed], ",.0f"),
            "train_seconds": _mean_of([sum(run["timing"]["train_seconds"]) for run in entry.completed], ",.1f"),
            "seeds": _count(entry, expected),
            **{metric: _percent(entry.summary(metric)) for metric in _ACCURACIES},
        }
        if entry is best:
            cells[HEADLINE] = Cell(cells[HEADLINE].text, cells[HEADLINE].value, bold=True)
        rows.append(Row(tuple(cells[column.key] for column in columns), entry.group))
    rows += [_missing_row(name, controls[name], columns) for name in missing]
    rows.sort(key=lambda row: _GROUPS.index(row.group))  # stable: missing controls end their group
    footnotes = [*notes.all(), *(("", text) for text in table_facts(runs, validation))]
    raw = tuple(_raw(run, entry.label) for entry in shown for run in entry.runs)
    return Table(title, _CAPTION.format(bold="Bold (*)"), columns, tuple(rows), tuple(footnotes), raw)


def _columns(entries: Sequence[_Entry]) -> tuple[Column, ...]:
    """The columns that say something in this table."""

    def means(metric: str) -> list[float | None]:
        return [entry.summary(metric).mean for entry in entries]

    keys = [metric for metric in _ACCURACIES if metric == HEADLINE or any(mean is not None for mean in means(metric))]
    pairs = zip(means("final_acc"), means(HEADLINE), strict=True)
    if all(a is None or b is None or abs(a - b) < 1e-9 for a, b in pairs) and "final_acc" in keys:
        keys.remove("final_acc")  # the two are equal when all test sets have the same size
    return (
        Column("method", "Method", "left"),
        Column(HEADLINE, _ACCURACIES[HEADLINE]),
        Column("ci95", "95 % interval (%)"),
        Column("gain", "Gain (points)"),
        *(Column(key, _ACCURACIES[key]) for key in keys if key != HEADLINE),
        Column("params_trainable", "Trainable params"),
        Column("train_seconds", "Training (s)"),
        Column("seeds", "Seeds"),
    )


def _missing_row(name: str, about: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    cells = {"method": Cell(name, name), "seeds": Cell("missing", 0)}
    group = "upper bound" if about["stream"] == "joint" else "control"
    return Row(tuple(cells.get(column.key, Cell(MISSING)) for column in columns), group)


def _cost(run: Record, name: str) -> float | None:
    return run["cost"][name] if run["cost"] else None


def _raw(run: Record, label: str) -> dict[str, Scalar]:
    """One run for machines: full precision, accuracies as fractions."""
    metrics = run["metrics"] or {}
    scalars = {name: value for name, value in sorted(metrics.items()) if not isinstance(value, list)}
    costs = {name: value for name, value in sorted((run["cost"] or {}).items()) if not isinstance(value, list)}
    return {
        "scenario": run["scenario"]["name"],
        "scenario_version": run["scenario"]["version"],
        "scenario_fingerprint": run["scenario"]["fingerprint"],
        "track": run["track"],
        "backbone": run["backbone"]["name"],
        "backbone_sha256": run["backbone"]["sha256"],
        "row": label,
        "method": run["method"]["name"],
        "recipe": run["method"]["recipe"],
        "control": run["method"]["control"],
        "stream": run["method"]["stream"],
        "uses": " ".join(run["method"]["uses"]),
        "distribution": run["method"]["distribution"],
        "run_id": run["run_id"],
        "status": run["status"],
        "seed": run["seeds"]["seed"],
        "seed_class_order": run["seeds"]["class_order"],
        "seed_init": run["seeds"]["init"],
        "seed_data": run["seeds"]["data"],
        **scalars,
        **costs,
        "train_seconds": sum(run["timing"]["train_seconds"]),
        "eval_seconds": sum(run["timing"]["eval_seconds"]),
        "total_seconds": run["timing"]["total_seconds"],
        "peak_memory_bytes": run["timing"]["peak_memory_bytes"],
    }
