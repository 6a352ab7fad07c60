"""What `bench check` and the contract examine: a method, a scenario or an exporter, by name or by spec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from benchmark import data, registry
from benchmark.api import Scenario
from benchmark.errors import did_you_mean
from benchmark.registry import Entry, Loaded
from benchmark.run import preparation
from benchmark.scenario_names import ScenarioName, check_tag
from benchmark.specs import ExporterSpec, MethodSpec, ScenarioSpec
from benchmark.testing.examples import miniature_for, written_for
from benchmark.testing.laboratory import MethodSubject


@dataclass
class ScenarioSubject:
    """A scenario under test, with its default options.

    Attributes:
        loaded: The spec and where it comes from.
        variant: What followed the ``/`` of its name.
        data_root: Folder with data sets, or None for the default places.
        tag: What followed the ``:`` of its name; of a library without one, its example is built.
    """

    loaded: Loaded
    variant: str = ""
    data_root: Path | None = None
    tag: str = ""

    @property
    def spec(self) -> ScenarioSpec:
        """The scenario's spec."""
        return cast("ScenarioSpec", self.loaded.spec)

    @cached_property
    def options(self) -> Any:
        """Its default options, with the variant."""
        from benchmark.run.plan import resolve_scenario

        return resolve_scenario(self.spec, self.variant, [])[0]

    def build(self, seed: int = 0) -> Scenario:
        """Builds it; nothing is downloaded."""
        tag = self.tag or self._example
        places: dict[str, Any] = {"data_root": self.data_root, "cache": data.cache_root(), "tag": tag}
        places |= {"download": "never", **self._miniature}
        return preparation.make_scenario(self.loaded, self.options, places, seed=seed)

    @cached_property
    def _example(self) -> str:
        return written_for(self, self.loaded)

    @cached_property
    def _miniature(self) -> dict[str, Any]:
        return miniature_for(self, self.loaded, self.data_root)

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario with seed 0, built once."""
        return self.build()

    @cached_property
    def other(self) -> Scenario:
        """The scenario with seed 1, built once."""
        return self.build(seed=1)


@dataclass
class ExporterSubject:
    """An exporter under test."""

    spec: ExporterSpec


Subject = MethodSubject | ScenarioSubject | ExporterSubject


def _given(spec: Any) -> Loaded:
    return Loaded(spec, Entry(spec.name, str(getattr(spec, "build", spec).__module__), "not installed"), "0" * 64)


def method_subject(method: str | MethodSpec) -> MethodSubject:
    """The subject for a registered method (``name`` or ``name@recipe``), or for a spec.

    Raises:
        UsageError: No such method or recipe.
        PluginError: Its plugin is broken.
    """
    if isinstance(method, MethodSpec):
        return MethodSubject(_given(method), method.default_recipe)
    name, _, recipe = method.partition("@")
    loaded = registry.load_method(name)
    spec = cast("MethodSpec", loaded.spec)
    if recipe and recipe != spec.default_recipe and recipe not in spec.recipes:
        raise did_you_mean(f"recipe of {name}", recipe, [spec.default_recipe, *spec.recipes])
    return MethodSubject(loaded, recipe or spec.default_recipe)


def scenario_subject(scenario: str | ScenarioSpec, data_root: Path | None = None) -> ScenarioSubject:
    """The subject for a registered scenario (``name``, ``name/variant`` or ``name:PATH``), or for a spec.

    Raises:
        UsageError: No such scenario.
        PluginError: Its plugin is broken.
    """
    if isinstance(scenario, ScenarioSpec):
        return ScenarioSubject(_given(scenario), data_root=data_root)
    asked = ScenarioName.parse(scenario)
    loaded = registry.load_scenario(asked.base)
    if asked.tag:
        check_tag(asked.base, cast("ScenarioSpec", loaded.spec).tag, asked.tag)
    return ScenarioSubject(loaded, asked.variant, data_root, asked.tag)


def exporter_subject(exporter: str | ExporterSpec) -> ExporterSubject:
    """The subject for a registered exporter, or for a spec.

    Raises:
        UsageError: No such exporter.
        PluginError: Its plugin is broken.
    """
    return ExporterSubject(exporter if isinstance(exporter, ExporterSpec) else registry.load_exporter(exporter))
