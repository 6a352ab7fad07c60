"""Audits: is the number of a method what it seems to be? One verdict per question, with what was measured.

The questions are those on which published numbers of continual learning and adaptation have failed: test batches that
tell the task, looks at the future or at hidden labels, choices made on test data, prompts that do nothing, yardsticks
that were left out. The contract answers some of them on a toy stream, a training on a real stream the others.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from benchmark import data, families, registry
from benchmark.errors import BenchError, UsageError
from benchmark.jobs import Job
from benchmark.run import plan, preparation
from benchmark.specs import MethodSpec, ScenarioSpec
from benchmark.testing import checks, leaks

if TYPE_CHECKING:
    from benchmark.run.plan import Plan
    from benchmark.scenario import Scenario

Verdict = Literal["clean", "declared", "found", "weak", "unknown"]
OFF = "off"
TRACK = "nano"
"""Whose scenarios come with the package."""
STREAM = "size and order of the test batches are the scenario's, and adapting to one sample at a time is another method"
"""Why what test batches bring to test-time adaptation is not measured."""
BY_CONTRACT: Mapping[str, str] = {
    "batch": "Does a prediction depend on the other samples of its test batch?",
    "task-id": "Does it know which experience a sample comes from?",
    "future": "Does it look at later experiences?",
    "hidden-labels": "Does it learn from labels of test or target samples?",
    "undeclared": "Does it ask for anything that it does not declare?",
    "logits": "Does it predict classes that it has not seen?",
    "no-images-kept": "Does it keep training samples of past experiences?",
    "evaluation": "Does evaluation change it, or draw random numbers?",
    "same-seed": "Does the same seed give the same numbers?",
    "resume": "Does a run that was stopped and resumed give the same numbers?",
}
"""Questions that a check of the contract answers."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question and its answer.

    Attributes:
        question: What was asked.
        verdict: ``clean``; ``declared``: it does, and says so, so that tables mark it; ``found``: it does, and does not
            say so; ``weak``: nothing leaks, but something simpler does as well; ``unknown``: not answered here.
        finding: What was seen, one line.
    """

    question: str
    verdict: Verdict
    finding: str


def spec_of(method: str) -> MethodSpec:
    """The spec of ``name`` or ``name@recipe``.

    Raises:
        UsageError: No such method or recipe.
    """
    return checks.method_subject(method).spec


def items(job: Job, controls: Sequence[str] | None = None) -> Iterator[Item]:
    """Answers every question, one after the other; minutes in all.

    Args:
        job: A run of the method on a real stream.
        controls: Names of yardsticks to compare with; None for all that run there.

    Raises:
        UsageError: No such method, scenario or option, or the method does not run there.
        DataMissing: The data of the scenario are not there.
    """
    resolved = plan.resolve(job)
    places = {"data_root": job.data_root, "cache": data.cache_root(), "download": job.download}
    scenario, _ = preparation.build_scenario(resolved, places)
    prepared = preparation.prepare(resolved, scenario)  # refuses before anything takes time
    yield from contract(job.method)
    yield from _choices(resolved)
    family = families.get(scenario.family)
    if family.generates:
        yield Item(question=_BATCHES, verdict="unknown", finding="texts are generated: no accuracy to compare")
        return
    if family.adapts:
        yield Item(question=_BATCHES, verdict="unknown", finding=STREAM)
        return
    ways = leaks.measure(prepared, leaks.train(prepared))
    yield batches(ways, declared="test_batch" in prepared.context.uses)
    own = next(way.accuracy for way in ways if way.batch == 1)
    yield from _parts(job, resolved, scenario, own)
    yield from _controls(job, yardsticks(resolved.method_spec) if controls is None else controls, scenario, own)


def _accuracy(job: Job, scenario: Scenario) -> float:
    """Of another run on the same stream, samples predicted alone: their order tells nothing then."""
    prepared = preparation.prepare(plan.resolve(job), scenario)
    (way,) = leaks.measure(prepared, leaks.train(prepared), batches=(1,), orders=leaks.ORDERS[:1])
    return way.accuracy


def _parts(job: Job, resolved: Plan, scenario: Scenario, own: float) -> Iterator[Item]:
    """What is left when a part that can be switched off is switched off."""
    parts = switches(resolved.method_config)
    if not parts:
        yield Item(question=_PARTS, verdict="unknown", finding="no part of it can be switched off")
    for name in parts:
        question = f"{_PARTS} ({name}={OFF})"
        try:
            without = _accuracy(replace(job, settings={**job.settings, name: OFF}), scenario)
        except UsageError as error:
            yield Item(question=question, verdict="unknown", finding=error.message)
            continue
        gain = 100 * (own - without)
        said = f"{100 * without:.2f} % without, {100 * own:.2f} % with: {gain:+.2f} points (one seed)"
        yield Item(question=question, verdict="clean" if gain > 0 else "weak", finding=said)


def _controls(job: Job, names: Sequence[str], scenario: Scenario, own: float) -> Iterator[Item]:
    """Yardsticks on the same stream and weights."""
    found = []
    settings = {key: value for key, value in job.settings.items() if key.startswith("scenario.")}
    for name in names:
        with contextlib.suppress(UsageError):  # it does not run there
            found.append((_accuracy(replace(job, method=name, settings=settings), scenario), name))
    if not found:
        yield Item(question=_CONTROLS, verdict="unknown", finding="no yardstick was run")
        return
    told = ", ".join(f"{name} {100 * accuracy:.2f} %" for accuracy, name in found)
    verdict: Verdict = "clean" if own > max(found)[0] else "weak"
    yield Item(question=_CONTROLS, verdict=verdict, finding=f"{100 * own:.2f} % against {told} (one seed)")


_BATCHES = "What does a test batch bring, alone against 128, shuffled and sorted by class?"
_PARTS = "Is it better than without its part?"
_CONTROLS = "Is it better than every yardstick?"


def contract(method: str) -> Iterator[Item]:
    """The questions that the contract answers, on a toy stream.

    Args:
        method: ``name`` or ``name@recipe``.

    Raises:
        UsageError: No such method or recipe.
    """
    subject = checks.method_subject(method)
    for result in checks.run_checks(subject, frozenset(BY_CONTRACT)):
        question = BY_CONTRACT[result.check]
        if result.result == "pass":
            yield Item(question=question, verdict="clean", finding=result.meaning)
        elif result.result == "fail":
            yield Item(question=question, verdict="found", finding=result.message)
        elif "declares" in result.message or "says so" in result.message:
            yield Item(question=question, verdict="declared", finding=result.message)
        else:
            yield Item(question=question, verdict="unknown", finding=result.message)


def _choices(resolved: Plan) -> Iterator[Item]:
    """Whether something was chosen on test data."""
    question = "Was the model chosen on test data?"
    rule = resolved.engine.select
    if rule == "target-oracle":
        yield Item(question=question, verdict="declared", finding="engine.select=target-oracle: by target labels")
    else:
        yield Item(question=question, verdict="clean", finding=f"engine.select={rule}")
    question = "Were its options chosen on test data?"
    given = sorted(name for name, where in resolved.origin.items() if name.startswith("method.") and where == "--set")
    if given:
        yield Item(question=question, verdict="unknown", finding=f"nobody but you knows why {', '.join(given)}")
    elif resolved.recipe != resolved.method_spec.default_recipe:
        yield Item(question=question, verdict="unknown", finding=f"recipe {resolved.recipe}: as its authors chose them")
    elif resolved.method_spec.tracks.get(resolved.track):
        known = bool(resolved.method_spec.rule)
        finding = resolved.method_spec.rule or "its author does not say how the values of the track were found"
        yield Item(question=question, verdict="clean" if known else "unknown", finding=finding)
    else:
        yield Item(question=question, verdict="clean", finding="class defaults, the same on every track")


def batches(ways: Sequence[leaks.Way], *, declared: bool) -> Item:
    """The verdict on what other samples of a test batch bring.

    Args:
        ways: From `benchmark.testing.leaks.measure`.
        declared: Whether the method declares ``test_batch``.
    """
    most = max(way.batch for way in ways)
    by = {(way.batch, way.order): way for way in ways}
    alone, mixed, ordered = by[1, "sorted"], by[most, "shuffled"], by[most, "sorted"]
    changed = max(way.changed for way in ways)
    points = [f"{100 * way.accuracy:.2f}" for way in (alone, mixed, ordered)]
    leak = 100 * (max(mixed.accuracy, ordered.accuracy) - alone.accuracy)
    said = (
        f"alone {points[0]} %, {most} shuffled {points[1]} %, {most} sorted {points[2]} %: leak {leak:+.2f} points; "
        f"up to {changed:.1%} of predictions differ"
    )
    verdict: Verdict = "clean" if not changed else "declared" if declared else "found"
    return Item(question=_BATCHES, verdict=verdict, finding=said)


def switches(config: Any) -> list[str]:
    """Options that can be switched off and are on: those that choose among words of which one is ``off``."""
    hints = typing.get_type_hints(type(config))
    return [
        field.name
        for field in fields(config)
        if typing.get_origin(hints[field.name]) is Literal
        and OFF in typing.get_args(hints[field.name])
        and getattr(config, field.name) != OFF
    ]


def yardsticks(spec: MethodSpec) -> list[str]:
    """Controls that a method is to be compared with: sequential ones that read the same, itself left out."""
    found = []
    for name in registry.names("methods"):
        try:
            other = cast("MethodSpec", registry.load_method(name).spec)
        except BenchError:
            continue  # a broken plugin is no yardstick
        if other.control and other.stream == "sequential" and other.reads == spec.reads and other.name != spec.name:
            found.append(name)
    return found


def stream_for(spec: MethodSpec) -> str:
    """The scenario that a method is audited on unless one is named: bundled, of the first family that it runs on.

    Raises:
        UsageError: There is none.
    """
    subject = checks.method_subject(spec.name)
    for family in subject.families:
        if subject.refusal(family) is not None:
            continue
        for name in registry.names("scenarios"):
            scenario = cast("ScenarioSpec", registry.load_scenario(name).spec)
            if scenario.family != family or scenario.data or scenario.tag or TRACK not in scenario.tracks:
                continue
            if bool(scenario.tracks[TRACK]) == (spec.reads == "image"):  # texts have no input preset
                return f"{name}/{scenario.variants[0]}" if scenario.variants else name
    raise UsageError(f"no bundled scenario runs `{spec.name}`", hint="name one with --scenario")
