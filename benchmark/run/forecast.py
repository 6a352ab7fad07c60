"""What runs will take, from the records of runs like them; nothing is loaded or built."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmark.code_identity import ENGINE
from benchmark.records import Record, read_all
from benchmark.run.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What is to be expected of one run.

    Attributes:
        finished: Whether a record says that it is done. The run itself compares the data and the weights, too.
        seconds: Median of like runs, or None where there is none.
        memory: Most bytes that one of them has taken, or None.
    """

    finished: bool
    seconds: float | None
    memory: int | None


def forecast(plans: Sequence[Plan], out: Path, others: Iterable[Path] = ()) -> list[Forecast]:
    """A forecast for each run.

    Like runs are those of the same scenario, method, recipe and track; where some have the same options, these alone.

    Args:
        plans: The runs.
        out: Where their records go; what is finished there is finished.
        others: Further folders of records to learn from.

    Raises:
        UsageError: One of the further folders is not there.
    """
    own = read_all(out)[0] if out.is_dir() else []
    alike: dict[Any, list[Record]] = defaultdict(list)
    known = {_of_record(record) for record in own if record.status == "completed"}
    for record in [*own, *(record for folder in others for record in read_all(folder)[0])]:
        if record.status == "completed":
            alike[_kind_of_record(record)].append(record)
            alike[_kind_of_record(record), _options(msgspec.to_builtins(record.config.effective))].append(record)
    found = []
    for plan in plans:
        kind = plan.scenario_name, plan.method_spec.name, plan.recipe, plan.track
        like = alike.get((kind, _options(plan.effective()))) or alike.get(kind, [])
        peaks = [peak for record in like if (peak := record.timing.peak_memory_bytes)]
        found.append(
            Forecast(
                finished=not plan.job.force and _of_plan(plan) in known,
                seconds=statistics.median(record.timing.total_seconds for record in like) if like else None,
                memory=max(peaks, default=None),
            )
        )
    return found


def _kind_of_record(record: Record) -> tuple[str, ...]:
    return record.scenario.name, record.method.name, record.method.recipe, record.track


def _options(effective: Any) -> str:
    """The options as text, without what follows from them."""
    return json.dumps({key: value for key, value in effective.items() if key != "derived"}, sort_keys=True)


def _of_record(record: Record) -> tuple[Any, ...]:
    """What a record and a plan can both say of a run."""
    return (
        *_kind_of_record(record),
        _options(msgspec.to_builtins(record.config.effective)),
        json.dumps(msgspec.to_builtins(record.seeds), sort_keys=True),
        record.evaluated_on,
        record.backbone.name,
        (record.identity.engine, record.identity.code),
    )


def _of_plan(plan: Plan) -> tuple[Any, ...]:
    return (
        *(plan.scenario_name, plan.method_spec.name, plan.recipe, plan.track),
        _options(plan.effective()),
        json.dumps(dict(plan.seeds), sort_keys=True),
        "validation" if plan.job.validate else "test",
        plan.backbone,
        (ENGINE, plan.method.code_sha256),
    )
