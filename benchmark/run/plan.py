"""From what the user asked for to one fully resolved run with an identity.

The identity of a run is the hash of its resolved configuration, the scenario's fingerprint, the
weights' hash, what inputs go through, the hash of the method's code and the number of the engine's
arithmetic (ADR 12). Nothing that cannot change a number (output folder, checkpoint interval) is part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from benchmark import config as configs
from benchmark import families, loading, registry
from benchmark.arrival import ArrivalConfig
from benchmark.code_identity import ENGINE
from benchmark.errors import UsageError, did_you_mean
from benchmark.jobs import Job
from benchmark.registry import Loaded
from benchmark.run import machine, settings
from benchmark.run.options import LATER, UNSEEN, EngineConfig
from benchmark.scenario import Scenario
from benchmark.scenario_names import ScenarioName, base_of, check_tag, tagged
from benchmark.specs import MethodSpec, ScenarioSpec

IDENTITY = 2
"""Number of the layout of `Plan.run_id`; part of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A resolved run, before data and weights are loaded.

    Attributes:
        job: What was asked for.
        scenario: Loaded scenario spec with its provenance.
        scenario_name: Name for the record, ``name/variant`` when the scenario has variants; of a library only once
            its data are read (`named`).
        scenario_config: Its options.
        method: Loaded method spec with its provenance.
        recipe: Name of the recipe.
        method_config: Effective options of the method.
        engine: Effective options of the engine.
        track: Name of the track.
        preset: Input preset.
        backbone: Name of the backbone.
        seeds: ``seed``, ``class_order``, ``init``, ``data``.
        origin: Origin of every option, by full key.
        given: What the user set explicitly, by full key.
        arrival: How the samples of a stream whose classes grow arrive.
    """

    job: Job
    scenario: Loaded
    scenario_name: str
    scenario_config: Any
    method: Loaded
    recipe: str
    method_config: Any
    engine: EngineConfig
    track: str
    preset: str
    backbone: str
    seeds: Mapping[str, int]
    origin: Mapping[str, str]
    given: Mapping[str, Any]
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)

    @property
    def method_spec(self) -> MethodSpec:
        """The method's spec."""
        return cast("MethodSpec", self.method.spec)

    @property
    def scenario_spec(self) -> ScenarioSpec:
        """The scenario's spec."""
        return cast("ScenarioSpec", self.scenario.spec)

    @property
    def tag(self) -> str:
        """What followed the ``:`` of the scenario's name, or empty."""
        return ScenarioName.parse(self.job.scenario).tag

    def named(self, scenario: Scenario) -> Plan:
        """The same with the name that a scenario of a library has once its data are read."""
        return replace(self, scenario_name=scenario.name) if self.scenario_spec.tag else self

    @property
    def method_label(self) -> str:
        """``name``, or ``name@recipe`` unless the recipe is the default."""
        name = self.method_spec.name
        return name if self.recipe == self.method_spec.default_recipe else f"{name}@{self.recipe}"

    @property
    def beside(self) -> dict[str, bool]:
        """What is to be kept beside the record, see `benchmark.run.places.missing`."""
        return {"model": self.engine.save_model, "choices": self.engine.save_choices}

    def effective(self) -> dict[str, Any]:
        """All options that can change a number, by group."""
        engine = configs.as_dict(self.engine)
        plain = configs.as_dict(EngineConfig())
        for name in (*UNSEEN, *(name for name in LATER if engine[name] == plain[name])):
            del engine[name]
        return {
            "scenario": {**configs.as_dict(self.scenario_config), **self.arrival.chosen},
            "method": configs.as_dict(self.method_config),
            "engine": engine,
        }

    def of_track(self) -> dict[str, Any]:
        """The values of `effective` that track and recipe give without any setting of the user."""
        layers = [
            configs.Layer(f"track {self.track}", self.method_spec.tracks.get(self.track, {})),
            configs.Layer(f"recipe {self.recipe}", self.method_spec.recipes.get(self.recipe, {})),
        ]
        scenario, _ = resolve_scenario(self.scenario_spec, "", [])
        method: Any
        key = f"method.{self.method_spec.name}"
        method, _ = configs.resolve(self.method_spec.config, layers, key=key)
        demand = settings.demanded(self.method_spec, method, self.arrival)
        method, _ = configs.resolve(self.method_spec.config, [*layers, demand], key=key)
        own = {"scenario_config": scenario, "arrival": ArrivalConfig(), "method_config": method}
        fixed = configs.Layer(f"recipe {self.recipe}", self.method_spec.engine.get(self.recipe, {}))
        engine, _ = configs.resolve(EngineConfig, [fixed], key="engine")
        return replace(self, **own, engine=engine).effective()

    def run_id(
        self, *, fingerprint: str, partition: str, weights_sha256: str, inputs: Mapping[str, Any], device: str
    ) -> str:
        """Identity of the run.

        Args:
            fingerprint: Of the scenario: its split, and the content of its data.
            partition: What made train and test.
            weights_sha256: Hash of the weights, whoever brought them.
            inputs: What samples go through on their way into the model.
            device: Where it runs; only its kind counts.

        Returns:
            16 hexadecimal digits.
        """
        identity = {
            "identity": IDENTITY,
            "engine": ENGINE,
            "scenario": self.scenario_name,
            "method": self.method_spec.name,
            "recipe": self.recipe,
            "config": self.effective(),
            "track": self.track,
            "inputs": dict(inputs),
            "backbone": self.backbone,
            "seeds": dict(self.seeds),
            "validate": self.job.validate,
            "fingerprint": fingerprint,
            "partition": partition,
            "weights": weights_sha256,
            "code": self.method.code_sha256,
            "device": device.split(":")[0],
            **({"validate_on": self.job.validate_on} if self.job.validate_on else {}),
            **self._brought(),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def _brought(self) -> dict[str, Any]:
        """The code of a stranger's backbone: neither its weights nor our own number stand for what it computes."""
        library = self.backbone.partition(":")[0]
        if library not in registry.names("backbones"):  # a model that is at hand, in tests
            return {}
        loaded = registry.load_backbone(library)
        ours = loaded.entry.distribution.startswith("adaptbench ")
        return {} if ours else {"backbone_code": loaded.code_sha256}

    def rows(self) -> list[tuple[str, Any, str]]:
        """Every value with its full key and origin, for ``--dry-run``."""
        job = self.job
        seeds = {
            "class_order": (job.class_order_seed, "--class-order-seed"),
            "init": (job.init_seed, "--init-seed"),
            "data": (job.data_seed, "--data-seed"),
        }

        def origin(key: str, otherwise: str = "default") -> str:
            found = job.origin.get(key, "default")
            return otherwise if found == "default" else found

        picked = [
            ("scenario", self.scenario_name, origin("scenario")),
            ("method", self.method_label, origin("method")),
            ("track", self.track, origin("track", "default of the scenario")),
            ("input preset", self.preset, origin("preset", f"scenario on track {self.track}")),
            ("backbone", self.backbone, origin("backbone", f"default of track {self.track}")),
            ("weights", str(job.weights or "with the backbone"), origin("weights")),
            ("device", job.device, origin("device")),
            ("validate", job.validate, origin("validate")),
            *(
                (f"seed.{name}", self.seeds[name], origin("seed") if seed is None else option)
                for name, (seed, option) in seeds.items()
            ),
            ("uses", ", ".join(sorted(self.method_spec.uses_of(self.method_config))) or "nothing", "the method"),
        ]
        groups = {**self.effective(), "engine": configs.as_dict(self.engine)}
        for group, values in groups.items():
            picked += [(f"{group}.{name}", value, self.origin[f"{group}.{name}"]) for name, value in values.items()]
        return picked


def resolve(job: Job) -> Plan:
    """Resolves names, recipes, options and seeds; imports two plugins, loads no data.

    Raises:
        UsageError: Unknown name, option or value.
        PluginError: One of the two plugins is broken.
    """
    scenario = registry.load_scenario(base_of(job.scenario))
    method = registry.load_method(job.method.partition("@")[0])
    return resolve_specs(job, scenario, method)


def resolve_specs(job: Job, scenario: Loaded, method: Loaded) -> Plan:
    """As `resolve`, for plugins that are at hand (tests, notebooks).

    Raises:
        UsageError: Unknown recipe, option or value.
    """
    asked = ScenarioName.parse(job.scenario)
    method_name, _, recipe = job.method.partition("@")
    scenario_spec = cast("ScenarioSpec", scenario.spec)
    check_tag(scenario_spec.name, scenario_spec.tag, asked.tag)
    method_spec = cast("MethodSpec", method.spec)
    track = track_of(job.track, scenario_spec)
    recipe = recipe or method_spec.default_recipe
    if recipe != method_spec.default_recipe and recipe not in method_spec.recipes:
        raise did_you_mean(
            f"recipe of {method_name}",
            recipe,
            [method_spec.default_recipe, *method_spec.recipes],
            more=f"bench info {method_name}",
        )
    given_by = settings.grouped(job.settings, method_spec, scenario_spec)
    settings.check_file(job)
    origin: dict[str, str] = {}

    scenario_layers = [
        *settings.file_layers(job, "scenario", {scenario_spec.name, asked.base}),
        configs.Layer("--set", given_by["scenario"]),
    ]
    arrival, found, scenario_layers = settings.arrival(scenario_layers, scenario_spec)
    origin |= {f"scenario.{name}": where for name, where in found.items()}
    scenario_config, found = resolve_scenario(scenario_spec, asked.variant, scenario_layers)
    origin |= {f"scenario.{name}": where for name, where in found.items()}

    layers = [
        configs.Layer(f"track {track}", method_spec.tracks.get(track, {})),
        configs.Layer(f"recipe {recipe}", method_spec.recipes.get(recipe, {})),
        *settings.file_layers(job, "method", {method_spec.name}),
        configs.Layer("--set", given_by["method"]),
    ]
    method_config: Any
    key = f"method.{method_spec.name}"
    method_config, found = configs.resolve(method_spec.config, layers, key=key)
    demand = settings.demanded(method_spec, method_config, arrival)
    for name, value in demand.values.items():
        if found[name] in ("--set", job.tables_from) and getattr(method_config, name) != value:
            raise UsageError(
                f"{found[name]}: {key}.{name}={getattr(method_config, name)}: {demand.origin} means {name}={value}",
                hint=f"leave {name} out; scenario.online_batch sets the size of a batch",
            )
    method_config, found = configs.resolve(method_spec.config, [*layers, demand], key=key)
    origin |= {f"method.{name}": where for name, where in found.items()}

    engine_layers = [
        *([configs.Layer("torchrun", {"ranks": processes})] if (processes := machine.processes()) > 1 else []),
        configs.Layer(f"recipe {recipe}", method_spec.engine.get(recipe, {})),
        configs.Layer(job.tables_from, job.tables.get("engine", {})),
        configs.Layer("--set", given_by["engine"]),
    ]
    engine, found = configs.resolve(EngineConfig, engine_layers, key="engine")
    if engine.ranks != processes:
        raise UsageError(
            f"engine.ranks={engine.ranks}: this run has {processes} process{'es' * (processes > 1)}",
            hint=f"torchrun --nproc-per-node {engine.ranks} -m benchmark run ... starts as many as that",
        )
    origin |= {f"engine.{name}": where for name, where in found.items()}
    if engine.save_model and method_spec.adapts:
        raise UsageError(
            f"engine.save_model=true: `{method_spec.name}` learns from test batches: its answers are those of a stream",
            hint="keep the trained method of a run without adaptation",
        )

    full_name = tagged(scenario_spec.name, asked.tag) if asked.tag else scenario_spec.name
    if scenario_spec.variant:
        full_name += f"/{getattr(scenario_config, scenario_spec.variant)}"
    seed = job.seed
    values = {name: configs.as_dict(one) for name, one in (("method", method_config), ("engine", engine))}
    values["scenario"] = {**configs.as_dict(scenario_config), **configs.as_dict(arrival)}
    given = {
        key: values[key.split(".")[0]][key.split(".", 1)[1]]
        for key, where in origin.items()
        if where in ("--set", "--scenario", job.tables_from)
    }
    return Plan(
        job=job,
        scenario=scenario,
        scenario_name=full_name,
        scenario_config=scenario_config,
        arrival=arrival,
        method=method,
        recipe=recipe,
        method_config=method_config,
        engine=engine,
        track=track,
        preset=_preset(job, scenario_spec, track),
        backbone=_backbone(job, track, method_spec, scenario_spec, engine.image_size),
        seeds={
            "seed": seed,
            "class_order": seed if job.class_order_seed is None else job.class_order_seed,
            "init": seed if job.init_seed is None else job.init_seed,
            "data": seed if job.data_seed is None else job.data_seed,
        },
        origin=origin,
        given=given,
    )


def _backbone(job: Job, track: str, method: MethodSpec, scenario: ScenarioSpec, image_size: int | None) -> str:
    """The pretrained model that was asked for, or that of the scenario or the track.

    Raises:
        UsageError: The method takes none, or the track has none for it.
    """
    asked = "--backbone" if job.backbone else "--weights" if job.weights else ""
    asked = asked or ("engine.image_size" if image_size else "")
    if asked and not method.pretrained:
        raise UsageError(f"{asked}: method `{method.name}` has no pretrained model", hint=f"leave {asked} out")
    if not job.backbone and track in scenario.backbones and method.reads == "image" and not method.text:
        return scenario.backbones[track]
    generates = (
        method.generates and families.get(scenario.family).generates
    )  # one that writes nothing is refused as such
    return job.backbone or loading.of_track(track, method, generates=generates)


def _preset(job: Job, scenario: ScenarioSpec, track: str) -> str:
    """The input preset that was asked for, or that of the scenario on a track; empty where samples are no images.

    Raises:
        UsageError: There is no such preset, or the scenario holds no images.
    """
    own = scenario.tracks[track]
    if job.preset is None:
        return own
    if not own:
        raise UsageError(f"preset {job.preset}: scenario `{scenario.name}` holds no images", hint="leave it out")
    if job.preset not in (known := registry.names("presets")):
        raise did_you_mean("input preset", job.preset, known, more="bench list presets")
    return job.preset


def resolve_scenario(spec: ScenarioSpec, variant: str, layers: list[configs.Layer]) -> tuple[Any, dict[str, str]]:
    """Options of a scenario and their origins.

    Args:
        spec: The scenario.
        variant: What followed the ``/`` of its name, or ``""``.
        layers: Further values, lowest first; they win over the variant.

    Raises:
        UsageError: Unknown option or value, or a variant where there are none.
    """
    if variant and not spec.variant:
        raise UsageError(f"scenario `{spec.name}` has no variants, but `/{variant}` was given")
    first = [configs.Layer("--scenario", {spec.variant: variant})] if variant else []
    return configs.resolve(spec.config, [*first, *layers], key=f"scenario.{spec.name}")


def track_of(asked: str | None, scenario: ScenarioSpec) -> str:
    """A track of a scenario: the one that was asked for, or its first."""
    offered = list(scenario.tracks)
    if asked is None:
        return offered[0]
    if asked not in (known := registry.names("tracks")):
        raise did_you_mean("track", asked, known)
    if asked not in offered:
        raise UsageError(
            f"scenario `{scenario.name}` is not offered on track `{asked}`", hint=f"use --track {' or '.join(offered)}"
        )
    return asked
