"""Trained methods in files beside their records: what differs from the pretrained model, and what predicting asks for.

A safetensors file, whose JSON header holds the tree of a `benchmark.run.checkpoint.snapshot` without the optimiser, and
a *description* of the run: classes and their names, experiences, words, how images were stored. So the method can be
built again, and asked, without any data; options, seeds, weights and input preset are those of the record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from benchmark import files
from benchmark.api import Context, Experience, Manifest, Method, Samples, Scenario, Wording
from benchmark.backbones.backbone import Pretrained
from benchmark.errors import DataMissing
from benchmark.guard import Guard
from benchmark.inputs.pipeline import Pipeline
from benchmark.readers import FileImages
from benchmark.run import checkpoint
from benchmark.run.plan import Plan
from benchmark.run.preparation import Prepared
from benchmark.samples import Content, sources_of

SUFFIX = ".safetensors"
FORMAT = "adaptbench-model 1"
AGAIN = "make it again: the command of the record, with --set engine.save_model=true"


def keep(record: Path, prepared: Prepared, method: Method, guard: Guard) -> dict[str, Any] | None:
    """Writes a trained method beside its record, if that was asked for; one of an earlier execution goes.

    Args:
        record: Where the record will be.
        prepared: The run.
        method: The method at the end of it.
        guard: Stands around its functions.

    Returns:
        The entry of the record, or None.

    Raises:
        RunFailed: It cannot be written.
        PluginError: The method fails.
    """
    file = record.with_suffix(SUFFIX)
    if not prepared.plan.engine.save_model:
        file.unlink(missing_ok=True)
        return None
    with guard("extra_state"):
        return write(file, prepared, method)


def write(path: Path, prepared: Prepared, method: Method) -> dict[str, Any]:
    """Writes a trained method.

    Args:
        path: The file.
        prepared: Its run.
        method: The method at the end of it.

    Returns:
        The entry of the record (`benchmark.records.schema.ModelFile`).

    Raises:
        RunFailed: It cannot be written.
    """
    kept = {key: value for key, value in checkpoint.snapshot(method).items() if key not in ("optimizer", "stepper")}
    tensors, tree = checkpoint.encoded({**kept, "optimizer": None})
    about = {"format": FORMAT, "run": json.dumps(description(prepared)), "tree": tree}
    content = safetensors.torch.save(tensors, metadata=about)
    files.replace_file(path, content)
    return {"file": path.name, "bytes": len(content), "sha256": files.sha256(path)}


def description(prepared: Prepared) -> dict[str, Any]:
    """What predicting needs to know of a run beside its record: plain values."""
    scenario = prepared.stream.scenario
    wording = scenario.wording
    found: dict[str, Any] = {
        "run_id": prepared.run_id,
        "kind": scenario.kind,
        "family": scenario.family,
        "class_names": list(scenario.class_names),
        "experiences": [{"classes": list(part.classes), "domain": part.domain} for part in scenario.experiences],
        "unknown": prepared.stream.unknown is not None,
        "wording": None if wording is None else _plain(wording),
    }
    train = scenario.experiences[0].train
    if scenario.kind == "image":
        return found | {"stored": _stored(train.source, train)}
    first: Any = train.read(slice(0, 1))
    return found | {"fields": list(first[0])}


def _plain(wording: Wording) -> dict[str, Any]:
    words = {name: list(told) for name, told in wording.words.items()}
    return {"patterns": list(wording.patterns), "words": words, "segments": list(wording.segments)}


def _wording(told: Mapping[str, Any]) -> Wording:
    words = {name: tuple(found) for name, found in told["words"].items()}
    return Wording(patterns=tuple(told["patterns"]), words=words, segments=tuple(told["segments"]))


def _stored(source: Content, train: Samples) -> dict[str, Any]:
    """How images were kept: files, as they are decoded; or arrays of one size."""
    first = next(iter(sources_of(source)))
    if isinstance(first, FileImages):
        return {"files": {"short": first.short, "upright": first.upright}}
    return {"size": list(train.image_shape[-2:])}


def read(path: Path, sha256: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `write` wrote.

    Args:
        path: The file.
        sha256: Its hash as the record tells it; None: any.

    Returns:
        Description and snapshot.

    Raises:
        DataMissing: It is gone, damaged, or another file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataMissing(f"the model {path} cannot be read: {error.strerror or error}", hint=AGAIN) from error
    if sha256 is not None and files.sha256(path) != sha256:
        raise DataMissing(f"the model {path} is damaged: its bytes are not those that the record names", hint=AGAIN)
    try:
        length = int.from_bytes(content[:8], "little")  # the format: length of the header, header, tensors
        about: Mapping[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
        if about["format"] != FORMAT:
            raise DataMissing(f"the model {path} is of the format `{about['format']}`, not `{FORMAT}`", hint=AGAIN)
        return json.loads(about["run"]), checkpoint.decoded(about["tree"], safetensors.torch.load(content))
    except (KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise DataMissing(f"{path} is no model of adaptbench, or a damaged one: {error}", hint=AGAIN) from error


def hollow(about: Mapping[str, Any], name: str, version: int = 1) -> Scenario:
    """The scenario of a description: all that a method is told of it when it is built, and no sample."""
    size = about.get("stored", {}).get("size", (1, 1))
    source: Content = torch.empty(0, 3, *size, dtype=torch.uint8) if about["kind"] == "image" else ()
    nothing = torch.empty(0, dtype=torch.int64)
    empty = Samples(source, nothing, nothing)
    return Scenario(
        name=name,
        version=version,
        family=about["family"],
        class_names=tuple(about["class_names"]),
        experiences=tuple(
            Experience(train=empty, test=empty, classes=tuple(part["classes"]), domain=part["domain"])
            for part in about["experiences"]
        ),
        content="nothing",
        fingerprint="nothing",
        wording=None if about["wording"] is None else _wording(about["wording"]),
    )


def rebuilt(
    plan: Plan, scenario: Scenario, snapshot: Mapping[str, Any], pretrained: Pretrained, pipeline: Pipeline, device: Any
) -> Method:
    """The trained method, in eval mode.

    Args:
        plan: Of its run.
        scenario: What it is told of (`hollow`).
        snapshot: What was kept of it.
        pretrained: Freshly loaded model, frozen, on the device.
        pipeline: Of its run.
        device: Where it computes.

    Raises:
        PluginError: The method cannot be built, or does not take its state.
    """
    spec = plan.method_spec
    guard = Guard(f"method `{spec.name}` of `{plan.method.entry.distribution}`")
    context = Context(
        pretrained=pretrained,
        device=device,
        scenario=scenario,
        pipeline=pipeline,
        manifest=Manifest(spec.name, spec.uses_of(plan.method_config)),
    )
    with checkpoint.isolated():
        with guard("build"):
            method = spec.build(plan.method_config, context).to(device)
        with guard("load_extra_state"):
            checkpoint.restore(method, snapshot)
        with guard("eval"):
            return method.eval()
