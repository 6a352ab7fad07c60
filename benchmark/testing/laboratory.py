"""Runs a method under observation; the checks judge what is seen.

A method is run by the real engine, on a toy stream of three experiences with two classes each and a
tiny ViT with random weights, so that a run takes a fraction of a second on a CPU. Watchers are
ordinary life-cycle plugins.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pluggy

from benchmark import config as configs
from benchmark import families, hookspecs, records
from benchmark.api import ExperienceView, Method, Scenario
from benchmark.backbones.backbone import Pretrained
from benchmark.families import FAMILIES
from benchmark.jobs import Job
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, places, preparation
from benchmark.run.interruption import Interrupted
from benchmark.run.options import EngineConfig
from benchmark.run.plan import Plan
from benchmark.run.preparation import Prepared
from benchmark.specs import MethodSpec
from benchmark.testing import toys
from benchmark.testing.disturbances import Stop, StopAtStep, other_labels, renumbered, stops_of
from benchmark.testing.observation import CheckFailed, CheckSkipped, SpyManifest, SpyView, Watcher, surroundings

PRESET = "glyph32"  # has an augmentation, so that its random numbers are part of what is checked
TOLERANCE = 1e-4  # of logits, relative to the largest: batched and single products differ by about 1e-6


@dataclass(frozen=True)
class Outcome:
    """One finished run: its record, its predictions with logits, and what was seen on the way."""

    record: records.Record
    predictions: Predictions
    watcher: Watcher
    prepared: Prepared

    @property
    def method(self) -> Method:
        """The trained method."""
        if self.watcher.method is None:
            raise CheckFailed("the run ended without training")
        return self.watcher.method


@dataclass
class MethodSubject:
    """A method under test, with a configuration that is small enough for a toy run.

    Attributes:
        loaded: The spec and where it comes from.
        recipe: Its recipe.
        model: Makes the model it is given; None: a tiny one of the kind that it takes first.
        device: Where its runs compute, unless one is told otherwise.
    """

    loaded: Loaded
    recipe: str
    model: Callable[[], Pretrained] | None = None
    device: str = "cpu"

    @property
    def spec(self) -> MethodSpec:
        """The method's spec."""
        return cast("MethodSpec", self.loaded.spec)

    def config_of(self, recipe: str) -> Any:
        """The configuration of a recipe, as its author gave it."""
        layers = [configs.Layer(f"recipe {recipe}", self.spec.recipes.get(recipe, {}))]
        return configs.resolve(self.spec.config, layers, key=f"method.{self.spec.name}")[0]

    def small(self, recipe: str, **changes: Any) -> Any:
        """The same, with few epochs, small batches and toy sizes where the method's own checks allow it."""
        config = self.config_of(recipe)
        limits = {name: min(limit, getattr(config, name)) for name, limit in {"epochs": 2, **self.spec.toy}.items()}
        for name, value in {**limits, "batch_size": 8, **changes}.items():
            try:
                config = dataclasses.replace(config, **{name: value})
            except ValueError:  # e.g. a method that makes exactly one pass
                if name in changes:
                    raise CheckSkipped(f"its options do not allow {name}={value}") from None
        return config

    @property
    def uses(self) -> frozenset[str]:
        """What it declares under the recipe."""
        return self.spec.uses_of(self.config_of(self.recipe))

    @property
    def families(self) -> list[str]:
        """The families that have a toy stream: where test images come with their experience only if it asks for it."""
        wanted = {False: self.spec.classifies, True: self.spec.generates}
        told = [name for name, family in FAMILIES.items() if not family.task_id or "task_id" in self.uses]
        told = [name for name in told if FAMILIES[name].adapts == self.spec.adapts]
        return [name for name in told if wanted[FAMILIES[name].generates]]

    @cached_property
    def family(self) -> str:
        """The first family of toy streams that it supports."""
        reasons = []
        for family in self.families:
            reason = self.refusal(family)
            if reason is None:
                return family
            reasons.append(f"{family}: {reason}")
        raise CheckSkipped("it supports no toy stream: " + "; ".join(reasons))

    def refusal(self, family: str) -> str | None:
        """Why it does not run on a family, or None: its own reason, or that of the interface."""
        return preparation.refusal(self.spec, self.uses, toys.toy_scenario(family=family, kind=self.spec.reads))

    def scenario(self, **options: Any) -> Scenario:
        """The toy stream: 3 experiences of 2 classes, 7 training and 8 test images per class: a full batch and a part.

        Families that transfer have one experience.
        """
        sizes = {"experiences": 3, "classes": 2, "train": 7, "test": 8}
        return toys.toy_scenario(**{**sizes, "family": self.family, "kind": self.spec.reads, **options})

    def brief(self, **options: Any) -> Scenario:
        """A stream just long enough to see that something trains: one step a pass, one test image a class."""
        return self.scenario(**{"experiences": 1, "train": 4, "test": 1, **options})

    @cached_property
    def baseline(self) -> Outcome:
        """The undisturbed run with seed 0, made once."""
        return self.run(look=True, counting=True)

    @cached_property
    def writing(self) -> Outcome:
        """The undisturbed run on a stream of texts to generate, made once; `baseline` if that is one."""
        if FAMILIES[self.family].generates:
            return self.baseline
        family = next(name for name in self.families if FAMILIES[name].generates)
        if (reason := self.refusal(family)) is not None:
            raise CheckSkipped(f"the toy stream of texts to generate: {reason}")
        return self.run(self.scenario(family=family), look=True)

    @cached_property
    def repetition(self) -> Repetition:
        """The same run once more, made once, with an eye on what it asks for and on what is around it."""
        self.baseline  # noqa: B018 - imports, which may set variables once, are over now
        before = surroundings()
        again = self.run(view=SpyView, counting=True)
        return Repetition(again, before, surroundings(), refused_in([again.prepared]))

    @cached_property
    def disturbance(self) -> Repetition | None:
        """The repetition, with all that must not matter changed at once, made once; None if that ends in an exception.

        Experiences have other numbers, test and target samples other answers, and the run is stopped at `stops` and
        resumed. What a method declares (`task_id`, an oracle's stream) is left as it is.
        """
        view: type[ExperienceView] = SpyView if "task_id" in self.uses else renumbered(SpyView)
        scenario = self.scenario() if self.spec.stream == "oracle" else other_labels(self.scenario())
        made: list[Prepared] = []

        def prepare() -> Prepared:
            made.append(self.prepare(scenario, view=view, every_step=True, counting=True))
            return made[-1]

        stops, before = self.stops, surroundings()
        try:
            found = self.run_in_pieces(stops, prepare)
        except Exception:  # whatever it is: a check that changes one thing alone tells of it
            return None
        return Repetition(found, before, surroundings(), refused_in(made))

    @property
    def stops(self) -> list[Stop]:
        """The places at which a run is stopped to see whether it resumes."""
        return stops_of(self.baseline.prepared, self.baseline.method, self.baseline.record)

    def prepare(
        self,
        scenario: Scenario,
        *,
        seed: int = 0,
        recipe: str | None = None,
        config: Any = None,
        every_step: bool = False,
        view: type[ExperienceView] = ExperienceView,
        device: str | None = None,
        counting: bool = False,
        **engine: Any,
    ) -> Prepared:
        """What `benchmark.run.preparation.prepare` makes, with a tiny backbone instead of loaded weights.

        ``engine`` are options of the engine, e.g. ``precision="bf16"``. FLOPs are counted if ``counting``: that takes
        longer than the rest of a short run.
        """
        recipe = self.recipe if recipe is None else recipe
        config = self.small(recipe) if config is None else config
        generates = families.get(scenario.family).generates
        pretrained = toys.tiny_model(self.spec, generates=generates) if self.model is None else self.model()
        plan = Plan(
            job=Job(scenario="toy", method=self.spec.name, seed=seed, device=device or self.device),
            scenario=Loaded(toys.TOY_SCENARIO, Entry("toy", toys.__name__, "adaptbench"), "0" * 64),
            scenario_name="toy",
            scenario_config=toys.ToyConfig(),
            method=self.loaded,
            recipe=recipe,
            method_config=config,
            engine=EngineConfig(**{"save_logits": True, "checkpoint_seconds": 0.0 if every_step else 3600.0, **engine}),
            track="nano",
            preset=PRESET,
            backbone=pretrained.name,
            seeds={"seed": seed, "class_order": seed, "init": seed, "data": seed},
            origin={},
            given={},
        )
        made = preparation.prepare(plan, scenario, pretrained=pretrained, manifest=SpyManifest, view=view)
        return dataclasses.replace(made, counting=counting)

    def run(self, scenario: Scenario | None = None, *, look: bool = False, **options: Any) -> Outcome:
        """One undisturbed run.

        Args:
            scenario: Default: `scenario`.
            look: Whether weights and logits are looked at around every experience.
            **options: As for `prepare`.
        """
        prepared = self.prepare(self.scenario() if scenario is None else scenario, **options)
        with tempfile.TemporaryDirectory() as folder:
            watcher = Watcher(prepared, look=look)
            path = engine.execute(prepared, Path(folder), hooks=manager([watcher]), quiet=True)
            return outcome(path, watcher)

    def predictions_after(self, experience: int, scenario: Scenario) -> Predictions:
        """What is predicted after an experience of a run that is stopped there for good."""
        with tempfile.TemporaryDirectory() as folder:
            prepared = self.prepare(scenario)
            self._stopped(Path(folder), prepared, Stop(after=experience))
            work = places.record_path(Path(folder), prepared).with_suffix(".work")
            return predictions.read(places.part(work, experience))

    def run_in_pieces(self, stops: Sequence[Stop], prepare: Callable[[], Prepared] | None = None) -> Outcome:
        """A run that is stopped at each of the places in turn and resumed.

        Args:
            stops: The places, in the order of a run.
            prepare: Prepares each piece; default: the undisturbed run.
        """
        if prepare is None:

            def prepare() -> Prepared:
                return self.prepare(self.scenario(), every_step=True, counting=True)

        with tempfile.TemporaryDirectory() as folder:
            for stop in stops:
                self._stopped(Path(folder), prepare(), stop)
            watcher = Watcher(prepare(), look=False)
            path = engine.execute(watcher.prepared, Path(folder), hooks=manager([watcher]), quiet=True)
            return outcome(path, watcher)

    @staticmethod
    def _stopped(folder: Path, prepared: Prepared, stop: Stop) -> None:
        watcher = Watcher(prepared, stop_before=stop.before, stop_after=stop.after, look=False)
        try:
            engine.execute(prepared, folder, hooks=manager([watcher]), quiet=True, stop=StopAtStep(stop.step))
        except Interrupted:
            return
        raise CheckFailed(f"the run was not stopped {stop}: it did not get there")


@dataclass(frozen=True)
class Repetition:
    """A second run with the same seed.

    Attributes:
        outcome: What it gave.
        before: What was around it (`surroundings`) when it began.
        after: The same when it was over.
        refused: What the method asked for without a declaration, in all its pieces.
    """

    outcome: Outcome
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    refused: Sequence[str]


def refused_in(pieces: Sequence[Prepared]) -> list[str]:
    """What the method of these pieces of a run asked for without a declaration."""
    spies = [piece.context.manifest for piece in pieces]
    return [text for spy in spies if isinstance(spy, SpyManifest) for text in spy.refused]


def outcome(path: Path, watcher: Watcher) -> Outcome:
    """Reads what a run wrote."""
    return Outcome(records.read(path), predictions.read(path.with_suffix(".parquet")), watcher, watcher.prepared)


def manager(plugins: Sequence[object]) -> pluggy.PluginManager:
    """A manager with the given life-cycle plugins only."""
    made = pluggy.PluginManager("bench")
    made.add_hookspecs(hookspecs)
    for plugin in plugins:
        made.register(plugin)
    return made
