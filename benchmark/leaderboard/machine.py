"""Rows for machines: one run each, raw values at full precision, all that its command needs."""

from __future__ import annotations

from msgspec.structs import asdict

from benchmark.leaderboard import commands, rows
from benchmark.records.schema import Record
from benchmark.tables import Scalar


def precision_of(run: Record) -> str:
    """In which numbers a model was trained: ``engine.precision``, or float32 of runs that had no such option."""
    return str(run.config.effective.engine.get("precision", "float32"))


def raw(run: Record, label: str) -> dict[str, Scalar]:
    """One run for machines: full precision, accuracies as fractions."""
    scalars = {
        name: run.number(name) for name, value in sorted((run.metrics or {}).items()) if not isinstance(value, list)
    }
    costs = asdict(run.cost) if run.cost else {}
    costs = {name: value for name, value in sorted(costs.items()) if not isinstance(value, list)}
    found: dict[str, Scalar] = {
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
        "scenario_lock": rows.lock_of(run),
        "own_weights": run.backbone.own_weights,
        "git_commit": run.provenance.git_commit,
        "git_dirty": run.provenance.git_dirty,
        "device": run.provenance.device,
        "precision": precision_of(run),
        "threads": run.provenance.threads,
        "inputs": rows.show({"kind": run.inputs.kind, "facts": run.inputs.facts}),
        "engine_number": run.identity.engine,
        "code": run.identity.code,
        **commands.columns_of(run),
        **{
            f"{group}.{name}": value if isinstance(value, (str, int, float, bool, type(None))) else rows.show(value)
            for group in ("scenario", "method", "engine")
            for name, value in sorted(run.config.effective[group].items())
        },
    }
    return {**found, "command": commands.command_of(found)}
