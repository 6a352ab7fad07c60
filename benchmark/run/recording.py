"""Puts the record of a run together (schema: `benchmark.records`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmark import config as configs
from benchmark import families, files, loading, locks, metrics
from benchmark.code_identity import ENGINE
from benchmark.records import SCHEMA
from benchmark.records.predictions import Predictions
from benchmark.run import measures, provenance
from benchmark.run.preparation import Prepared, input_facts
from benchmark.run.progress import Progress


def build(
    prepared: Prepared,
    *,
    status: str,
    done: Progress,
    found: Predictions | None,
    predictions_file: Path | None,
    model: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The record of a run, finished or not.

    Args:
        prepared: The run.
        status: ``completed``, ``interrupted`` or ``failed``.
        done: What the run has behind it: losses, times, counts.
        found: Predictions after every finished experience, or None when there are none yet.
        predictions_file: Where they were written.
        model: The file of the trained method, where it was kept.
        cost: Parameters and FLOPs; what is not known yet is None.
        seconds: Wall time of all processes that worked on the run.
    """
    plan, stream = prepared.plan, prepared.stream
    times, sets = len(stream.scenario.experiences), len(stream.tests)
    counts = [len(test) for test in stream.tests]
    matrix: list[list[float | None]] = [[None] * sets for _ in range(times)]
    values: dict[str, Any] = {}
    brought: dict[str, dict[str, Any]] = {}
    if found is not None:
        family = families.get(stream.scenario.family)
        rows, _ = metrics.score_matrix(found, family, times=times, sets=sets)
        matrix = metrics.null(rows)
        if status == "completed":
            about: dict[str, Any] = {
                "family": family,
                "further": [test.name for test in stream.further],
                "baseline": done.baseline,
                "predictions": found,
            }
            values = metrics.continual_metrics(
                rows,
                counts,
                **about,
                transfers=not plan.job.validate,
            )
            more, brought = measures.measure(prepared.metrics, measures.evidence(rows, counts, **about), values)
            values |= more
    return {
        "schema": SCHEMA,
        "run_id": prepared.run_id,
        "status": status,
        "track": plan.track,
        "scenario": _scenario(prepared),
        "method": {
            "name": plan.method_spec.name,
            "recipe": plan.recipe,
            "default_recipe": plan.method_spec.default_recipe,
            "uses": sorted(prepared.context.uses),
            "control": plan.method_spec.control,
            "stream": plan.method_spec.stream,
            "distribution": plan.method.entry.distribution,
            "paper": plan.method_spec.paper,
        },
        "identity": {"engine": ENGINE, "code": plan.method.code_sha256},
        "backbone": _backbone(prepared),
        "inputs": {**input_facts(prepared.pipeline), **_shortened(prepared, done)},
        "config": {
            "given": dict(plan.given),
            "effective": {**plan.effective(), "derived": configs.derived(plan.method_config)},
            "track": plan.of_track(),
            "origin": dict(plan.origin),
        },
        "selection": {
            "rule": plan.engine.select,
            "chosen": [chosen for chosen, _ in done.selected],
            "scores": [scores for _, scores in done.selected],
            "facts": dict(done.selection_facts),
        },
        "seeds": dict(plan.seeds),
        "evaluated_on": "validation" if plan.job.validate else "test",
        "accuracy": matrix,
        "counts": counts,
        "baseline": done.baseline,
        "metrics": values,
        "metric_facts": brought,
        "cost": dict(cost),
        "timing": {
            "data_seconds": prepared.data_seconds,
            "train_seconds": list(done.train_seconds),
            "eval_seconds": list(done.eval_seconds),
            "total_seconds": prepared.data_seconds + seconds,
            "peak_memory_bytes": done.peak_memory_bytes,
            "throughput_images_per_second": _throughput(done),
            "resumed": done.resumed,
        },
        "predictions": _file(predictions_file, found),
        "model": None if model is None else dict(model),
        "losses": list(done.losses),
        "warnings": [*prepared.warnings, *_smaller(done)],
        "provenance": provenance.collect(
            device=str(prepared.device),
            threads=torch.get_num_threads(),
            deterministic=plan.engine.deterministic,
        ),
    }


def _scenario(prepared: Prepared) -> dict[str, Any]:
    plan, stream = prepared.plan, prepared.stream
    scenario = stream.scenario
    return {
        "name": plan.scenario_name,
        "version": scenario.version,
        "family": scenario.family,
        **({"family_facts": kept} if (kept := families.facts(scenario.family)) else {}),
        "fingerprint": scenario.fingerprint,
        "content": scenario.content,
        "partition": scenario.partition,
        "lock": locks.short_name(
            scenario=plan.scenario_name,
            version=scenario.version,
            experiences=stream.main if scenario.test_stream is None else len(scenario.experiences),
            preset=plan.preset if scenario.kind == "image" else "",
            partition=scenario.partition,
            content=scenario.content,
            fingerprint=scenario.fingerprint,
            class_order=scenario.class_order,
        ),
        "num_classes": scenario.num_classes,
        "class_order": list(scenario.class_order),
        "experiences": [
            {
                "classes": list(part.classes),
                "domain": part.domain,
                "train": len(part.train),
                "test": len(part.test),
                "target": None if part.target is None else len(part.target),
            }
            for part in scenario.experiences
        ],
        "tests": [{"name": name, "further": column >= stream.main} for column, name in enumerate(stream.names)],
        "transductive": scenario.transductive,
        "variant_option": plan.scenario_spec.variant,
        **({"data_by_variant": True} if plan.scenario_spec.data_by_variant else {}),
        "options": plan.effective()["scenario"],
        "notes": dict(scenario.notes),
        "distribution": plan.scenario.entry.distribution,
    }


def _backbone(prepared: Prepared) -> dict[str, Any]:
    backbone = prepared.pretrained
    own = backbone.name, backbone.sha256
    image_name, image_sha256 = loading.image_towers().get(backbone.sha256, own)
    return {
        "name": backbone.name,
        "sha256": backbone.sha256,
        "image_name": image_name,
        "image_sha256": image_sha256,
        "own_weights": backbone.own_weights,
        "parameters": backbone.parameters,
        **({"architecture": prepared.plan.backbone} if backbone.own_weights and prepared.plan.job.weights else {}),
    }


def _shortened(prepared: Prepared, done: Progress) -> dict[str, Any]:
    """Samples that the method reads in part only, where it can tell; 0 is told too."""
    if not done.shortened_train:
        return {}
    tests = [done.shortened_test.get(str(place)) for place in range(len(prepared.stream.tests))]
    return {"shortened": {"train": list(done.shortened_train), "test": tests}}


def _smaller(done: Progress) -> list[str]:
    """What ``engine.batch_fallback`` has done."""
    if not done.micro_batch:
        return []
    return [f"memory was full: batches were trained on in parts of {done.micro_batch} samples (engine.batch_fallback)"]


def _throughput(done: Progress) -> float | None:
    seconds = sum(done.eval_seconds)
    return done.eval_images / seconds if seconds > 0 else None


def _file(path: Path | None, found: Predictions | None) -> dict[str, Any] | None:
    if path is None or found is None:
        return None
    return {
        "file": path.name,
        "rows": len(found.label),
        "sha256": files.sha256(path),
    }
