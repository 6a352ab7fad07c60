"""From a published figure to the runs that would reproduce it, and what they would cost; nothing is loaded or built."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark import loading
from benchmark.errors import BenchError
from benchmark.jobs import Job
from benchmark.records.schema import Record
from benchmark.run.jobs import plan_of
from benchmark.run.plan import Plan

RATE = 30.0
"""TFLOP/s that a GPU is taken to sustain: float32 with TF32 units, small batches. Half of what an A100 does at best."""
PASSES = 3.0
"""Forward passes that a training step is taken to cost per sample: one forward and twice as much backward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one seed of a figure would take.

    Attributes:
        seconds: On a GPU, or None where nothing is known.
        flops: Floating-point operations, or None.
        basis: ``records`` of the same runs, ``FLOPs``, or empty.
    """

    seconds: float | None = None
    flops: float | None = None
    basis: str = ""

    @property
    def text(self) -> str:
        """For a table."""
        if self.seconds is None:
            return "unknown"
        sizes = ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "days"))
        unit, name = max((size for size in sizes if self.seconds >= size[0]), default=sizes[0])
        told = f"{max(self.seconds / unit, 1):.0f} {name}"
        return f"{told} (records)" if self.basis == "records" else f"~{told}"


def job_of(label: str, scenario: str, backbone: str, track: str, **more: Any) -> Job:
    """One run of a published figure; further fields of the job are given as they are."""
    return Job(scenario=scenario, method=label, track=track, backbone=backbone, **more)


def plan_or_reason(job: Job) -> Plan | str:
    """The plan of a job, or why there is none."""
    try:
        plan = plan_of(job)
    except BenchError as error:
        return error.message
    why = _tokenless(plan.backbone) if plan.method_spec.tokens_of(plan.method_config) else None
    return plan if why is None else f"it needs tokens: {plan.backbone} {why}"


@functools.cache
def _tokenless(backbone: str) -> str | None:
    """Why a backbone has no tokens; timm builds the model to tell, so it is asked once."""
    return loading.tokenless(backbone)


class Prices:
    """Costs, learnt from records: how many forward passes of its backbone a method's training and prediction take."""

    def __init__(self, records: Iterable[Record], rate: float = RATE) -> None:
        self._rate = rate * 1e12
        self._seconds: dict[tuple[str, ...], list[float]] = {}
        forward: dict[str, int] = {}
        runs = [run for run in records if run.status == "completed"]
        for run in runs:
            kind = run.method.name, run.method.recipe, run.scenario.name, run.track, run.backbone.name
            self._seconds.setdefault(kind, []).append(run.timing.total_seconds)
            if run.cost is not None and run.cost.flops_forward:
                known = forward.get(run.backbone.sha256, run.cost.flops_forward)
                forward[run.backbone.sha256] = min(known, run.cost.flops_forward)
        self._train: dict[str, list[float]] = {}
        self._predict: dict[str, list[float]] = {}
        for run in runs:
            batch = run.config.effective.method.get("batch_size")
            if run.cost is None or run.backbone.sha256 not in forward or not isinstance(batch, int):
                continue
            once = forward[run.backbone.sha256]
            if run.cost.flops_train_step:
                self._train.setdefault(run.method.name, []).append(run.cost.flops_train_step / batch / once)
            if run.cost.flops_forward:
                self._predict.setdefault(run.method.name, []).append(run.cost.flops_forward / once)

    def of(self, plans: Sequence[Plan], *, train: int, test: int, experiences: int, gflops: float) -> Cost:
        """The cost of one seed.

        Args:
            plans: One for each scenario of the figure.
            train: Training samples of one of them.
            test: Test samples.
            experiences: Of the stream: after each, what was seen so far is tested.
            gflops: Of one forward pass of the backbone on a sample, in 10^9 operations.
        """
        kinds = [(plan.method_spec.name, plan.recipe, plan.scenario_name, plan.track, plan.backbone) for plan in plans]
        if all(kind in self._seconds for kind in kinds):
            seconds = sum(statistics.median(self._seconds[kind]) for kind in kinds)
            return Cost(seconds=seconds, basis="records")
        if not gflops or not train:
            return Cost()
        name = plans[0].method_spec.name
        passes = statistics.median(self._train[name]) if name in self._train else PASSES
        looks = statistics.median(self._predict[name]) if name in self._predict else 1.0
        epochs = sum(plan.method_config.epochs for plan in plans)
        samples = passes * epochs * train + looks * len(plans) * test * (experiences + 1) / 2
        flops = samples * gflops * 1e9
        return Cost(seconds=flops / self._rate, flops=flops, basis="FLOPs")
