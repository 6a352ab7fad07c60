"""From a resolved plan to everything a run needs: data, pretrained model, input pipeline, identity."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from benchmark import families, loading, registry
from benchmark.api import Context, ExperienceView, Manifest, Scenario, ScenarioRequest
from benchmark.backbones.backbone import Backbone, Nothing, Pretrained
from benchmark.backbones.dual import dual_of
from benchmark.errors import PluginError, UsageError
from benchmark.files import user_path
from benchmark.guard import Guard
from benchmark.inputs import pipeline as pipelines
from benchmark.inputs.pipeline import Pipeline
from benchmark.registry import Loaded
from benchmark.run import provenance, streams
from benchmark.run.plan import Plan
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive
from benchmark.run.soundness import wrong
from benchmark.run.streams import Stream
from benchmark.specs import MethodSpec, MetricSpec, ScenarioSpec

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
            task_known=families.get(self.stream.scenario.family).task_id,
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
        places: ``data_root``, ``cache`` and ``download`` of `ScenarioRequest`.
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
        families.get(scenario.family)
    except UsageError as error:
        raise PluginError(
            f"scenario `{spec.name}` of `{loaded.entry.distribution}`: {error.message}",
            hint="name a built-in family, or register one (`benchmark.families.Family`)",
        ) from error
    return scenario


def build_scenario(plan: Plan, places: Mapping[str, Any]) -> tuple[Scenario, float]:
    """Builds the scenario of a plan, cut for validation if that was asked for.

    Returns:
        The scenario and the seconds it took.
    """
    started = time.perf_counter()
    scenario = make_scenario(plan.scenario, plan.scenario_config, places, seed=plan.seeds["class_order"])
    if plan.job.validate:
        scenario = streams.validation(scenario, plan.job.validate)
    return scenario, time.perf_counter() - started


def prepare(
    plan: Plan,
    scenario: Scenario,
    *,
    data_seconds: float = 0.0,
    pretrained: Pretrained | None = None,
    manifest: type[Manifest] = Manifest,
    view: type[ExperienceView] = ExperienceView,
) -> Prepared:
    """Loads the pretrained model and puts the parts of a run together.

    Args:
        plan: The resolved plan.
        scenario: Built from it.
        data_seconds: Time that took, for the record.
        pretrained: A model at hand instead of the plan's (tests); it is frozen here.
        manifest: Refuses what is not declared (the contract watches it).
        view: How the method sees its experiences, likewise.

    Raises:
        DataMissing: The weights are absent or damaged.
        UsageError: The device does not exist, or the method cannot run on this scenario.
    """
    if plan.engine.task_known:
        scenario = streams.with_task_known(scenario)
    spec = plan.method_spec
    uses = spec.uses_of(plan.method_config)
    if (reason := refusal(spec, uses, scenario)) is not None:
        raise UsageError(f"method `{spec.name}` does not run on `{scenario.name}`: {reason}")
    device = pick_device(plan.job.device)
    if pretrained is None:
        weights = None if plan.job.weights is None else user_path(plan.job.weights)
        pretrained = loading.load(plan.backbone, weights=weights) if spec.pretrained else Nothing()
    _check_model(spec, pretrained)
    pretrained.module.to(device).requires_grad_(False)
    stream = make_stream(plan, scenario)
    pipeline, warnings = make_pipeline(plan, scenario, pretrained)
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
    if spec.supports is not None:
        guard = Guard(f"method `{spec.name}`")
        with guard("supports"):
            reason = spec.supports(scenario)
        if reason is not None and not isinstance(reason, str):
            raise guard.refuse("supports", reason, hint="return None, or the reason as text")
        if reason is not None:
            return reason
    if scenario.open_vocabulary and "open_vocabulary" not in uses:
        return "it is tested on classes known by name only, which the method cannot recognise"
    if spec.stream == "joint" and not families.get(scenario.family).stream:
        return "there is one experience, so joint training would be the same as ordinary training"
    if spec.stream == "oracle" and all(part.target is None for part in scenario.experiences):
        return "there is no target domain whose labels an upper bound could use"
    return None


def make_stream(plan: Plan, scenario: Scenario) -> Stream:
    """What one run trains and tests on, before images are held out for model selection (`benchmark.run.engine`).

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
    return streams.anonymous(stream, derive(plan.seeds["data"], "order of the target"))


def _check_model(spec: MethodSpec, pretrained: Pretrained) -> None:
    """Makes sure that a method is given a model that it can use.

    Raises:
        UsageError: It is given another.
    """
    if not spec.pretrained:
        return
    if pretrained.reads != spec.reads:
        raise UsageError(
            f"method `{spec.name}` reads {spec.reads}s, but `{pretrained.name}` is {pretrained.what}",
            hint="give another model with --backbone",
        )
    if spec.text and isinstance(pretrained, Backbone):
        dual_of(pretrained)


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
