"""From a resolved plan to everything a run needs: data, pretrained model, input pipeline, identity."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from benchmark import arrival, families, loading, locks, registry
from benchmark.api import Context, ExperienceView, Manifest, Scenario, ScenarioRequest
from benchmark.backbones.backbone import Backbone, Nothing, Pretrained
from benchmark.backbones.dual import unclear_names
from benchmark.errors import PluginError, UsageError, plain
from benchmark.files import user_path
from benchmark.guard import Guard
from benchmark.inputs import pipeline as pipelines
from benchmark.inputs.pipeline import Pipeline
from benchmark.registry import Loaded
from benchmark.run import models, provenance, streams
from benchmark.run.computing import Computing
from benchmark.run.options import TARGET_FREE
from benchmark.run.plan import Plan
from benchmark.run.ranks import Ranks, device_of
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive
from benchmark.run.soundness import unanswered, wrong
from benchmark.run.streams import Stream
from benchmark.scenario_names import tagged
from benchmark.specs import MethodSpec, MetricSpec, ScenarioSpec

MOST_NAMES = 20  # of one kind in a warning about class names
MOST_GROUPS = 5
_SCENARIO_HINT = "-v shows where; `bench check SCENARIO` runs the contract that every scenario must pass"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One run, ready to execute.

    Attributes:
        plan: The resolved plan.
        stream: Training experiences and test sets.
        pretrained: Freshly loaded model.
        context: What the method is built with.
        pipeline: Input transform.
        device: Where to compute.
        run_id: Identity of the run, 16 hexadecimal digits.
        command: The command that resumes it.
        warnings: For the record.
        data_seconds: Time to build the scenario.
        view: How the method sees its experiences; the contract looks at what is asked of it.
        metrics: Those of plugins, computed at the end.
        computing: Precision, algorithms and what blocks keep.
        ranks: The processes that share its batches.
        counting: Whether its FLOPs are counted; the contract counts those of some of its runs only.
    """

    plan: Plan
    stream: Stream
    pretrained: Pretrained
    context: Context
    pipeline: Pipeline
    device: torch.device
    run_id: str
    command: str
    warnings: tuple[str, ...]
    data_seconds: float
    view: type[ExperienceView] = ExperienceView
    metrics: tuple[MetricSpec, ...] = ()
    computing: Computing = field(default_factory=Computing)
    ranks: Ranks = field(default_factory=Ranks)
    counting: bool = True

    @property
    def rules(self) -> Rules:
        """How samples reach the method."""
        plan = self.plan
        return Rules(
            name=plan.method_spec.name,
            uses=self.context.uses,
            pipeline=self.pipeline,
            device=self.device,
            seed=plan.seeds["data"],
            eval_seed=derive(plan.seeds["data"], "evaluation"),
            batch_size=plan.method_config.batch_size,
            eval_batch_size=plan.engine.eval_batch_size,
            eval_order=plan.engine.eval_order,
            keep_logits=plan.engine.save_logits,
            keep_choices=plan.engine.save_choices,
            task_known=families.get(self.stream.scenario.family).task_id,
            workers=plan.engine.workers,
            generates=families.get(self.stream.scenario.family).generates,
            computing=self.computing,
            scenario=Guard(f"scenario `{plan.scenario.spec.name}` of `{plan.scenario.entry.distribution}`"),
        )

    @property
    def label(self) -> str:
        """``method on scenario, seed n``."""
        return f"{self.plan.method_label} on {self.plan.scenario_name}, seed {self.plan.seeds['seed']}"


def make_scenario(loaded: Loaded, config: Any, places: Mapping[str, Any], *, seed: int) -> Scenario:
    """Builds a scenario.

    Args:
        loaded: Its plugin.
        config: Its options.
        places: ``data_root``, ``cache``, ``download`` and ``tag`` of `ScenarioRequest`.
        seed: Of class order and splits.

    Raises:
        DataMissing: Its data are absent or damaged.
        UsageError: An option does not fit the data: ``build`` raised ``ValueError("<option>: ...")``.
        PluginError: It fails, or returned something that no run can use.
    """
    spec = cast("ScenarioSpec", loaded.spec)
    guard = Guard(f"scenario `{spec.name}` of `{loaded.entry.distribution}`", hint=_SCENARIO_HINT)
    with guard("build"):
        try:
            scenario = spec.build(config, ScenarioRequest(seed=seed, **places))
        except ValueError as error:
            if str(error).partition(":")[0] not in {field.name for field in dataclasses.fields(config)}:
                raise
            raise UsageError(f"scenario.{spec.name}.{error}") from error
    if not isinstance(scenario, Scenario):
        raise guard.refuse("build", scenario, hint="`build` must return benchmark.Scenario")
    with guard("build"):
        problem = wrong(scenario)
    if problem is not None:
        raise PluginError(f"scenario `{spec.name}` of `{loaded.entry.distribution}`: {problem}", hint=_SCENARIO_HINT)
    try:
        family = families.get(scenario.family)
    except UsageError as error:
        raise PluginError(
            f"scenario `{spec.name}` of `{loaded.entry.distribution}`: {error.message}",
            hint="name a built-in family, or register one (`benchmark.families.Family`)",
        ) from error
    if family.generates and (problem := unanswered(scenario)) is not None:
        raise PluginError(f"scenario `{spec.name}` of `{loaded.entry.distribution}`: {problem}", hint=_SCENARIO_HINT)
    if not spec.tag:
        return scenario
    variant = f"/{getattr(config, spec.variant)}" if spec.variant else ""
    return dataclasses.replace(scenario, name=tagged(spec.name, places["tag"], scenario.content) + variant)


def build_scenario(plan: Plan, places: Mapping[str, Any]) -> tuple[Scenario, float]:
    """Builds the scenario of a plan, cut for validation if that was asked for.

    Returns:
        The scenario and the seconds it took.

    Raises:
        DataMissing: Its data are absent or damaged, or are not those of the job's lock.
        UsageError: An option does not fit the data, or the lock is none.
        PluginError: The scenario fails.
    """
    started = time.perf_counter()
    places = {**places, "tag": plan.tag}
    scenario = make_scenario(plan.scenario, plan.scenario_config, places, seed=plan.seeds["class_order"])
    scenario = arrival.arranged(scenario, plan.arrival, plan.seeds["class_order"])
    if plan.job.lock:
        locks.check(locks.loads(plan.job.lock, "the lock"), lock_of(plan, scenario))
    if plan.job.validate:
        scenario = streams.validation(scenario, plan.job.validate, plan.job.validate_on)
    return scenario, time.perf_counter() - started


def lock_of(plan: Plan, scenario: Scenario) -> locks.Lock:
    """The lock of the scenario of a plan."""
    return locks.lock_of(
        scenario,
        name=plan.scenario_name,
        track=plan.track,
        preset=plan.preset,
        options=plan.effective()["scenario"],
        seed=plan.seeds["class_order"],
    )


def prepare(
    plan: Plan,
    scenario: Scenario,
    *,
    data_seconds: float = 0.0,
    pretrained: Pretrained | None = None,
    manifest: type[Manifest] = Manifest,
    view: type[ExperienceView] = ExperienceView,
    ranks: Ranks | None = None,
) -> Prepared:
    """Loads the pretrained model and puts the parts of a run together.

    Args:
        plan: The resolved plan.
        scenario: Built from it.
        data_seconds: Time that took, for the record.
        pretrained: A model at hand instead of the plan's (tests); it is frozen here.
        manifest: Refuses what is not declared (the contract watches it).
        view: How the method sees its experiences, likewise.
        ranks: The processes that share its batches; None: this one alone.

    Raises:
        DataMissing: The weights are absent or damaged.
        UsageError: The device does not exist, or the method cannot run on this scenario.
    """
    plan = plan.named(scenario)
    if plan.engine.task_known:
        scenario = streams.with_task_known(scenario)
    spec = plan.method_spec
    uses = spec.uses_of(plan.method_config)
    if (reason := refusal(spec, uses, scenario)) is not None:
        raise UsageError(f"method `{spec.name}` does not run on `{scenario.name}`: {reason}")
    device = pick_device(device_of(plan.job.device))
    if pretrained is None:
        weights = None if plan.job.weights is None else user_path(plan.job.weights)
        size = plan.engine.image_size
        pretrained = loading.load(plan.backbone, weights=weights, image_size=size) if spec.pretrained else Nothing()
    models.check_model(plan, pretrained, generates=families.get(scenario.family).generates)
    computing = Computing.of(plan.engine, device, pretrained)
    pretrained.module.to(device).requires_grad_(False)
    pipeline, warnings = make_pipeline(plan, scenario, pretrained)
    stream = make_stream(plan, streams.fitted(scenario, pipeline, plan.engine.decoded_cache_gb))
    warnings += unclear(spec, scenario, pretrained)
    context = Context(
        pretrained=pretrained,
        device=device,
        scenario=stream.scenario,
        pipeline=pipeline,
        manifest=manifest(spec.name, uses),
    )
    return Prepared(
        plan=plan,
        stream=stream,
        pretrained=pretrained,
        context=context,
        pipeline=pipeline,
        device=device,
        run_id=plan.run_id(
            fingerprint=scenario.fingerprint,
            partition=scenario.partition,
            weights_sha256=pretrained.sha256,
            inputs=input_facts(pipeline),
            device=str(device),
        ),
        command=provenance.resume_command(),
        warnings=warnings,
        data_seconds=data_seconds,
        view=view,
        metrics=registry.load_metrics(),
        computing=computing,
        ranks=ranks or Ranks(),
    )


def refusal(spec: MethodSpec, uses: frozenset[str], scenario: Scenario) -> str | None:
    """Why a method cannot run on a scenario, or None: the method's own reason, or that of the interface.

    Args:
        spec: The method.
        uses: What it declares under its configuration.
        scenario: Any scenario.

    Raises:
        PluginError: Its `supports` fails or returns something else.
    """
    if spec.reads != scenario.kind:
        return f"it reads {spec.reads}s, and the scenario holds {scenario.kind}s"
    family = families.get(scenario.family)
    if family.generates and not spec.generates:
        return "it generates no texts, which is what the scenario asks for"
    if not family.generates and not spec.classifies:
        return "it generates texts and classifies nothing, which is what the scenario asks for"
    if family.adapts and not spec.adapts:
        return "it does not adapt to a stream of test batches, which is what the scenario asks for"
    if spec.adapts and not family.adapts:
        return "it adapts to a stream of test batches, and the scenario has none"
    if spec.supports is not None:
        guard = Guard(f"method `{spec.name}`")
        with guard("supports"):
            reason = spec.supports(scenario)
        if reason is not None and not isinstance(reason, str):
            raise guard.refuse("supports", reason, hint="return None, or the reason as text")
        if reason is not None:
            return reason
    if (scenario.open_vocabulary or family.names) and "open_vocabulary" not in uses:
        return "it is tested on classes known by name only, which the method cannot recognise"
    if spec.stream == "joint" and not family.stream:
        return "there is one experience, so joint training would be the same as ordinary training"
    if spec.stream == "oracle" and all(part.target is None for part in scenario.experiences):
        return "there is no target domain whose labels an upper bound could use"
    return None


def make_stream(plan: Plan, scenario: Scenario) -> Stream:
    """What one run trains and tests on, before images are held out for ``engine.select`` (`benchmark.run.engine`).

    Raises:
        UsageError: The scenario does not have what the method or the selection rule needs.
    """
    kind = plan.method_spec.stream
    stream = {"joint": streams.joint, "oracle": streams.oracle, "sequential": streams.sequential}[kind](scenario)
    select = plan.engine.select
    if select == "target-oracle" and not families.get(scenario.family).shift:
        raise UsageError(
            f"engine.select=target-oracle: `{scenario.name}` has no target domain apart from its training domain",
            hint="use last or source-validation",
        )
    if select in TARGET_FREE and any(part.target is None for part in scenario.experiences):
        raise UsageError(
            f"engine.select={select}: `{scenario.name}` has no unlabelled target domain",
            hint="use last or source-validation, or a uda scenario",
        )
    if plan.method_spec.holds_out:
        stream = streams.held_out(stream, streams.VALIDATION_SHARE)
    return streams.anonymous(stream, derive(plan.seeds["data"], "order of the target"))


def unclear(spec: MethodSpec, scenario: Scenario, pretrained: Pretrained) -> tuple[str, ...]:
    """A warning about class names that the text tower reads alike, or does not know; else nothing.

    Such classes have one text feature, or one that means nothing: accuracy falls, down to chance, without any error.
    Names are compared within each set of classes that are told from one another.
    """
    if not spec.text or not isinstance(pretrained, Backbone) or pretrained.dual is None:
        return ()
    apart = families.get(scenario.family).names == "own"
    vocabularies = [part.classes for part in scenario.experiences if apart]
    vocabularies = vocabularies or [scenario.seen_classes(len(scenario.experiences) - 1)]
    vocabularies += [test.classes for test in scenario.tests if test.classes is not None]
    groups: dict[tuple[str, ...], None] = {}
    blank: dict[str, None] = {}
    for classes in vocabularies:
        alike, empty = unclear_names(pretrained.dual, [scenario.class_names[label] for label in classes])
        groups |= dict.fromkeys(alike)
        blank |= dict.fromkeys(empty if len(empty) > 1 else ())  # a single one is still told from the others
    told = [f"no word of these is known: {_listed(blank)}"] if blank else []
    told += [f"these are the same text: {_listed(group)}" for group in list(groups)[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        told.append(f"{len(groups) - MOST_GROUPS} more groups are the same text")
    return (f"class names on `{pretrained.name}`: {'; '.join(told)}",) if told else ()


def _listed(names: Iterable[str]) -> str:
    """The first names, quoted where they are empty, and how many there are beside."""
    known = [plain(name) if name.strip() else repr(name) for name in names]
    more = len(known) - MOST_NAMES
    return ", ".join(known[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def make_pipeline(plan: Plan, scenario: Scenario, pretrained: Pretrained) -> tuple[Pipeline, tuple[str, ...]]:
    """The input pipeline of a plan, and a warning when it does not normalise as the checkpoint does."""
    try:
        preset = registry.load_preset(plan.preset) if scenario.kind == "image" else None
    except UsageError as error:
        raise PluginError(f"scenario `{plan.scenario_name}`: {error.message}", hint=error.hint) from error
    pipeline, warning = pipelines.make(preset, options=plan.method_config, pretrained=pretrained)
    return pipeline, (f"{plan.method_label} {warning}",) if warning else ()


def input_facts(pipeline: Pipeline) -> dict[str, Any]:
    """What samples go through on their way into the model, as the record tells it."""
    return {"kind": pipeline.kind, "facts": dict(pipeline.facts())}


def pick_device(name: str) -> torch.device:
    """``auto`` takes the first CUDA device, else the CPU.

    Raises:
        UsageError: The device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--device {name}: {reason}", hint="use auto, cpu or a device that `bench doctor` shows"
        ) from error
    return device
