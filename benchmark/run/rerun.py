"""One record repeated from the record alone: its options, seeds, preset, weights and data, or a reason why not.

Nothing is taken from the defaults of today: whatever a record says and today's plan does not is set. What the record
cannot bring (the user's own data or weights) is asked for, and data and weights are compared with the record's before
anything is trained.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from benchmark.errors import DataMissing, UsageError
from benchmark.jobs import Job
from benchmark.records.schema import Record
from benchmark.run.jobs import Shelf, life_cycle, plan_of, run_one
from benchmark.run.plan import Plan
from benchmark.run.preparation import Prepared
from benchmark.scenario_names import ScenarioName

FILE = "the record"  # where its options come from, in messages and origins


@dataclass(frozen=True, kw_only=True)
class Where:
    """What a record does not say.

    Attributes:
        out: Results folder of the repetition.
        data_root: Folder with data sets, or None.
        download: ``auto``, ``always`` or ``never``.
        device: Another device than the record's, or None.
        scenario: ``name:PATH`` of data of the user's own, or None.
        weights: The user's own weight file, or None.
        backbone: The architecture that these weights are for, or None: the one that the record names.
        quiet: Whether there is no progress bar.
    """

    out: str
    data_root: str | None = None
    download: Literal["auto", "always", "never"] = "auto"
    device: str | None = None
    scenario: str | None = None
    weights: str | None = None
    backbone: str | None = None
    quiet: bool = True


def job_of(record: Record, where: Where) -> Job:
    """The job that a record was made by.

    Raises:
        UsageError: The run was not completed; it has an option that there is not any more; or it needs data or weights
            of the user's own.
        PluginError: A plugin is broken.
    """
    if record.status != "completed":
        raise UsageError(
            f"run {record.run_id} is {record.status}: there is no result to repeat",
            hint="go on with its own command, where it was given: " + record.provenance.command,
        )
    method = record.method
    seeds = record.seeds
    _check_weights(record, where)
    bare = Job(
        scenario=_scenario(record, where),
        method=f"{method.name}@{method.recipe}",
        seed=seeds.seed,
        class_order_seed=seeds.class_order,
        init_seed=seeds.init,
        data_seed=seeds.data,
        track=record.track,
        file=FILE,
        validate=len(record.scenario.experiences) if record.evaluated_on == "validation" else 0,
        device=where.device or record.provenance.device,
        out=where.out,
        data_root=where.data_root,
        download=where.download,
        force=True,
        quiet=where.quiet,
        weights=where.weights if record.backbone.own_weights else None,
        backbone=(where.backbone or record.backbone.architecture) if record.backbone.own_weights else None,
    )
    plan = plan_of(bare)
    preset = str(record.inputs.facts.get("preset") or "")
    changes: dict[str, Any] = {"preset": preset} if preset and preset != plan.preset else {}
    if record.backbone.sha256 and not bare.weights and record.backbone.name != plan.backbone:
        changes["backbone"] = record.backbone.name
    job = replace(bare, tables=_tables(record, plan), **changes)
    left = _tables(record, plan_of(job))
    for group, options in left.items():
        for values in [options] if group == "engine" else options.values():
            for name, value in values.items():
                raise UsageError(
                    f"{group}.{name}={json.dumps(value)} of run {record.run_id} cannot be given to this version",
                    hint=f"check out its commit {record.provenance.git_commit or '(unknown)'} to repeat it",
                )
    return job


def _scenario(record: Record, where: Where) -> str:
    name = ScenarioName.parse(record.scenario.name)
    if not name.tag:
        return record.scenario.name
    if where.scenario is None:
        raise UsageError(
            f"run {record.run_id} is on data of somebody's own, {record.scenario.name}: where are they?",
            hint=f"give --scenario {name.base}:PATH; their content is compared with the record's",
        )
    return where.scenario


def _check_weights(record: Record, where: Where) -> None:
    known = where.backbone or record.backbone.architecture
    if record.backbone.own_weights and (where.weights is None or not known):
        raise UsageError(
            f"run {record.run_id} has weights of somebody's own, {record.backbone.name}: where are they?",
            hint=f"give --weights FILE of SHA-256 {record.backbone.sha256}"
            + ("" if known else " and --backbone, their architecture"),
        )


def _tables(record: Record, plan: Plan) -> dict[str, Any]:
    """The options of a record that a plan has otherwise, as tables of a configuration file."""
    ours, theirs = plan.effective(), msgspec.to_builtins(record.config.effective)
    found: dict[str, dict[str, Any]] = {}
    for group in ("scenario", "method", "engine"):
        found[group] = {
            name: value
            for name, value in theirs[group].items()
            if name not in ours[group] or not _same(ours[group][name], value)
        }
    kinds = {"scenario": plan.scenario_spec.name, "method": plan.method_spec.name}
    return {group: {kinds[group]: values} if group in kinds else values for group, values in found.items() if values}


def _same(one: Any, other: Any) -> bool:
    """Equal, and of one kind: 1 and 1.0 give one number, True and 1 do not."""
    return json.dumps(one) == json.dumps(other) or (
        one == other and not isinstance(one, bool) and not isinstance(other, bool)
    )


def defaults_since(record: Record, plan: Plan) -> dict[str, Any]:
    """Options of today's plan that the record does not have, by full key: they have their defaults."""
    theirs: Mapping[str, Any] = msgspec.to_builtins(record.config.effective)
    return {
        f"{group}.{name}": value
        for group, values in plan.effective().items()
        for name, value in values.items()
        if name not in theirs[group]
    }


def rerun(record: Record, where: Where) -> tuple[Path, Plan]:
    """Repeats a run, with as many threads as it had.

    Returns:
        Path of the new record, and its plan.

    Raises:
        UsageError: See `job_of`.
        DataMissing: Data or weights are absent, or are not those of the record.
        RunFailed: Training had to stop.
        Interrupted: Ctrl-C.
    """
    job = job_of(record, where)
    plans: list[Plan] = []

    def check(prepared: Prepared) -> None:
        plans.append(prepared.plan)
        if wrong := different(record, prepared):
            raise DataMissing(
                f"run {record.run_id} cannot be repeated here: {'; '.join(wrong)}",
                hint="`bench lock` and `bench data verify` say what is here; --data-root names another place",
            )

    with threads(record.provenance.threads):
        path = run_one(job, Shelf(), life_cycle(), check).path
    assert path is not None
    return path, plans[0]


def different(record: Record, prepared: Prepared) -> list[str]:
    """Data and weights that are not those of the record; nothing of what is compared is guessed where it is unknown."""
    ours = prepared.stream.scenario
    theirs = record.scenario
    found = []
    if ours.version != theirs.version:
        found.append(f"the scenario is version {ours.version}, the record's {theirs.version}")
    if theirs.content and ours.content != theirs.content:
        found.append(f"what the data decode to is {ours.content[:8]}, the record's {theirs.content[:8]}")
    if ours.partition != theirs.partition:
        found.append(f"the lists are `{ours.partition}`, the record's `{theirs.partition}`")
    if list(ours.class_order) != theirs.class_order:
        found.append("the class order is another")
    if theirs.content and ours.fingerprint != theirs.fingerprint:
        found.append(f"the split is {ours.fingerprint[:8]}, the record's {theirs.fingerprint[:8]}")
    sizes = [(len(part.train), len(part.test)) for part in ours.experiences]
    if sizes != [(part.train, part.test) for part in theirs.experiences]:
        found.append("experiences have other numbers of samples")
    if prepared.pretrained.sha256 != record.backbone.sha256:
        what = prepared.pretrained.sha256[:8] or "none"
        found.append(f"the weights are {what}, the record's {record.backbone.sha256[:8] or 'none'}")
    return found


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch has so many threads; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
