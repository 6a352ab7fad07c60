"""Tables at equal cost, and which rows no other row beats at a lower cost.

========================= =====================================================================================
``params_trainable``      weights that were trained
``passes``                training samples that went through the method, each as often as it did
``training_flops``        floating-point operations of all training steps (one step as measured, times the steps)
``storage_bytes``         what is kept between experiences, after the last one
``peak_memory_bytes``     of the machine that ran it
``train_seconds``         likewise
========================= =====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmark.leaderboard import scores
from benchmark.records.schema import Record


def _passes(run: Record) -> float | None:
    """Passes over each experience are as many as it has losses."""
    parts = zip(run.losses or [], run.scenario.experiences, strict=False)
    return float(sum(len(losses) * part.train for losses, part in parts)) if run.losses else None


def _flops(run: Record) -> float | None:
    size = run.config.effective.method.get("batch_size")
    step = run.cost.flops_train_step if run.cost else None
    if step is None or not isinstance(size, int) or size < 1 or not run.losses:
        return None
    parts = zip(run.losses, run.scenario.experiences, strict=False)
    return float(step) * sum(len(losses) * math.ceil(part.train / size) for losses, part in parts)


def _storage(run: Record) -> float | None:
    kept = run.cost.storage_bytes if run.cost else []
    return None if not kept or kept[-1] is None else float(kept[-1])


def _trained(run: Record) -> float | None:
    return None if run.cost is None or run.cost.params_trainable is None else float(run.cost.params_trainable)


COSTS: Mapping[str, tuple[str, Callable[[Record], float | None]]] = {
    "params_trainable": ("trainable parameters", _trained),
    "passes": ("training samples passed", _passes),
    "training_flops": ("training FLOPs", _flops),
    "storage_bytes": ("bytes kept", _storage),
    "peak_memory_bytes": ("bytes of memory", lambda run: run.timing.peak_memory_bytes),
    "train_seconds": ("seconds of training", lambda run: sum(run.timing.train_seconds)),
}
"""What a budget may limit: what it is called, and what it is of a run (None where nobody measured it)."""


def cost_of(run: Record, name: str) -> float | None:
    """One of `COSTS` of a run."""
    return COSTS[name][1](run)


def within(runs: Iterable[Record], limits: Mapping[str, float]) -> list[Record]:
    """The runs that cost no more than every limit; those of unknown cost are left out."""
    kept = []
    for run in runs:
        costs = {name: cost_of(run, name) for name in limits}
        if all(cost is not None and cost <= limits[name] for name, cost in costs.items()):
            kept.append(run)
    return kept


def note(limits: Mapping[str, float], left_out: int) -> str:
    """What a reader of such tables must know."""
    told = ", ".join(f"{COSTS[name][0]} at most {limit:,.15g}" for name, limit in limits.items())
    return f"Budget: {told}; {left_out} runs that cost more, or whose cost is not known, are left out."


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other one dominates.

    Args:
        points: Pairs of a cost (lower is better) and a score (higher is better).

    Returns:
        Places by rising cost; of equal points the first.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1], place))
    found: list[int] = []
    for place in order:
        if not found or points[place][1] > points[found[-1]][1]:
            found.append(place)
    return found


def fronts(runs: Iterable[Record], name: str) -> dict[str, list[str]]:
    """For every table the labels of its rows on the front of mean score against mean cost, by rising cost.

    Upper bounds are no part of it, nor are rows of unknown cost.
    """
    found = {}
    for board in scores.boards_of(runs):
        known = []
        for row in board.rows:
            costs = [cost for run in row.runs if (cost := cost_of(run, name)) is not None]
            if costs and row.group != "upper bound":
                known.append((row.label, sum(costs) / len(costs), sum(row.values.values()) / len(row.values)))
        found[board.title] = [known[place][0] for place in front([(cost, score) for _, cost, score in known])]
    return found
