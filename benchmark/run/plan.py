"""From what the user asked for to one fully resolved run with an identity.

The identity of a run is the hash of its resolved configuration, the scenario's fingerprint, the
weights' hash, what inputs go through, the hash of the method's code and the number of the engine's
arithmetic (ADR 12). Nothing that cannot change a number (output folder, checkpoint interval) is part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from benchmark import config as configs
from benchmark import registry
from benchmark.code_identity import ENGINE
from benchmark.errors import UsageError, did_you_mean
from benchmark.jobs import Job
from benchmark.registry import Loaded
from benchmark.run.options import EngineConfig
from benchmark.specs import MethodSpec, ScenarioSpec

IDENTITY = 2
"""Number of the layout of `Plan.run_id`; part of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A resolved run, before data and weights are loaded.

    Attributes:
        job: What was asked for.
        scenario: Loaded scenario spec with its provenance.
        scenario_name: Name for the record, ``name/variant`` when the scenario has variants.
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

    @property
    def method_spec(self) -> MethodSpec:
        """The method's spec."""
        return cast("MethodSpec", self.method.spec)

    @property
    def scenario_spec(self) -> ScenarioSpec:
        """The scenario's spec."""
        return cast("ScenarioSpec", self.scenario.spec)

    @property
    def method_label(self) -> str:
        """``name``, or ``name@recipe`` unless the recipe is the default."""
        name = self.method_spec.name
        return name if self.recipe == self.method_spec.default_recipe else f"{name}@{self.recipe}"

    def effective(self) -> dict[str, Any]:
        """All options that can change a number, by group."""
        engine = configs.as_dict(self.engine)
        del engine["checkpoint_seconds"]
        return {
            "scenario": configs.as_dict(self.scenario_config),
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
        method, _ = configs.resolve(self.method_spec.config, layers, key=f"method.{self.method_spec.name}")
        return replace(self, scenario_config=scenario, method_config=method, engine=EngineConfig()).effective()

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
            ("input preset", self.preset, f"scenario on track {self.track}"),
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
    scenario = registry.load_scenario(job.scenario.partition("/")[0])
    method = registry.load_method(job.method.partition("@")[0])
    return resolve_specs(job, scenario, method)


def resolve_specs(job: Job, scenario: Loaded, method: Loaded) -> Plan:
    """As `resolve`, for plugins that are at hand (tests, notebooks).

    Raises:
        UsageError: Unknown recipe, option or value.
    """
    scenario_name, _, variant = job.scenario.partition("/")
    method_name, _, recipe = job.method.partition("@")
    scenario_spec = cast("ScenarioSpec", scenario.spec)
    method_spec = cast("MethodSpec", method.spec)
    track = _track(job.track, scenario_spec)
    recipe = recipe or method_spec.default_recipe
    if recipe != method_spec.default_recipe and recipe not in method_spec.recipes:
        raise did_you_mean(
            f"recipe of {method_name}",
            recipe,
            [method_spec.default_recipe, *method_spec.recipes],
            more=f"bench info {method_name}",
        )
    settings = _split_settings(job.settings, method_spec.name, [method_name, scenario_name])
    _check_file(job)
    origin: dict[str, str] = {}

    scenario_config, found = resolve_scenario(
        scenario_spec,
        variant,
        [
            *_file_layers(job, "scenario", {scenario_spec.name, scenario_name}),
            configs.Layer("--set", settings["scenario"]),
        ],
    )
    origin |= {f"scenario.{name}": where for name, where in found.items()}

    layers = [
        configs.Layer(f"track {track}", method_spec.tracks.get(track, {})),
        configs.Layer(f"recipe {recipe}", method_spec.recipes.get(recipe, {})),
        *_file_layers(job, "method", {method_spec.name}),
        configs.Layer("--set", settings["method"]),
    ]
    method_config: Any
    method_config, found = configs.resolve(method_spec.config, layers, key=f"method.{method_spec.name}")
    origin |= {f"method.{name}": where for name, where in found.items()}

    engine_layers = [
        configs.Layer(job.tables_from, job.tables.get("engine", {})),
        configs.Layer("--set", settings["engine"]),
    ]
    engine, found = configs.resolve(EngineConfig, engine_layers, key="engine")
    origin |= {f"engine.{name}": where for name, where in found.items()}

    full_name = scenario_spec.name
    if scenario_spec.variant:
        full_name += f"/{getattr(scenario_config, scenario_spec.variant)}"
    seed = job.seed
    values = {"scenario": scenario_config, "method": method_config, "engine": engine}
    given = {
        key: configs.as_dict(values[key.split(".")[0]])[key.split(".", 1)[1]]
        for key, where in origin.items()
        if where in ("--set", "--scenario", job.tables_from)
    }
    return Plan(
        job=job,
        scenario=scenario,
        scenario_name=full_name,
        scenario_config=scenario_config,
        method=method,
        recipe=recipe,
        method_config=method_config,
        engine=engine,
        track=track,
        preset=scenario_spec.tracks[track],
        backbone=_backbone(job, track, method_spec),
        seeds={
            "seed": seed,
            "class_order": seed if job.class_order_seed is None else job.class_order_seed,
            "init": seed if job.init_seed is None else job.init_seed,
            "data": seed if job.data_seed is None else job.data_seed,
        },
        origin=origin,
        given=given,
    )


def _backbone(job: Job, track: str, method: MethodSpec) -> str:
    """The pretrained model that was asked for, or that of the track.

    Raises:
        UsageError: The method takes none, or the track has none for it.
    """
    asked = "--backbone" if job.backbone else "--weights" if job.weights else ""
    if asked and not method.pretrained:
        raise UsageError(f"{asked}: method `{method.name}` has no pretrained model", hint=f"leave {asked} out")
    return job.backbone or _track_backbone(track, method)


def _track_backbone(track: str, method: MethodSpec) -> str:
    """The backbone that a method gets on a track.

    Raises:
        UsageError: It needs a kind of model that the track does not name.
    """
    if not method.pretrained:
        return "none"
    if method.reads != "image":
        raise UsageError(
            f"method `{method.name}` needs a model that reads {method.reads}s, and track {track} names none",
            hint="give one with --backbone",
        )
    found = registry.load_track(track)
    if not method.text:
        return found.backbone
    if not found.dual:
        raise UsageError(
            f"method `{method.name}` needs a backbone with a text tower, and track {track} names none",
            hint="give one, e.g. --backbone open_clip:ViT-B-16/openai",
        )
    return found.dual


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


def _track(asked: str | None, scenario: ScenarioSpec) -> str:
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


def _split_settings(settings: Mapping[str, str], method: str, own: list[str]) -> dict[str, dict[str, str]]:
    """Sorts ``--set`` keys into groups: ``engine.x``, ``scenario.x``, ``l2p.x`` (that method only), ``x``."""
    groups: dict[str, dict[str, str]] = {"scenario": {}, "method": {}, "engine": {}}
    for key, value in settings.items():
        prefix, dot, name = key.partition(".")
        if not dot:
            groups["method"][key] = value
        elif prefix in groups:
            groups[prefix][name] = value
        elif prefix == method:
            groups["method"][name] = value
        elif prefix not in registry.names("methods"):
            raise did_you_mean("group in --set", prefix, ["engine", "scenario", "method", *registry.names("methods")])
    return groups


def _file_layers(job: Job, group: str, names: set[str]) -> list[configs.Layer]:
    tables = job.tables.get(group, {})
    return [configs.Layer(job.tables_from, tables[name]) for name in sorted(names) if name in tables]


def _check_file(job: Job) -> None:
    allowed = {"run", "engine", "scenario", "method"}
    for name, table in job.tables.items():
        if name not in allowed:
            error = did_you_mean("table", f"[{name}]", [f"[{item}]" for item in sorted(allowed)])
            raise UsageError(f"{job.tables_from}: {error.message}", hint=error.hint)
        if not isinstance(table, Mapping):
            raise UsageError(f"{job.tables_from}: `{name}` is not a table", hint=f"write [{name}] on its own line")
        if name in ("scenario", "method"):
            known = registry.names("scenarios" if name == "scenario" else "methods")
            for plugin, options in table.items():
                if plugin not in known:
                    error = did_you_mean(name, plugin, known)
                    raise UsageError(f"{job.tables_from}: [{name}.{plugin}]: {error.message}", hint=error.hint)
                if not isinstance(options, Mapping):
                    raise UsageError(
                        f"{job.tables_from}: {name}.{plugin} is not a table", hint=f"write [{name}.{plugin}]"
                    )
