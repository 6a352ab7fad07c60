"""Checks that every method must pass, on any machine, in seconds.

Each is a function of a `benchmark.testing.laboratory.MethodSubject` that returns nothing, raises
`CheckFailed` or `CheckSkipped`; its first line is what ``bench check`` prints. The contract is one file, to be read
from top to bottom, in the order in which it is checked.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark import config as configs
from benchmark import records
from benchmark.api import Experience, ExperienceView, LoopMethod, Manifest, Raw, Samples, Scenario
from benchmark.errors import PluginError
from benchmark.inputs.pipeline import Pipeline
from benchmark.records.predictions import Predictions
from benchmark.run import checkpoint
from benchmark.samples import Window
from benchmark.testing import observation, raw
from benchmark.testing.laboratory import TOLERANCE, MethodSubject, Outcome, Stop
from benchmark.testing.observation import CheckFailed, CheckSkipped, SpyManifest


def options(subject: MethodSubject) -> None:
    """Options survive a round trip through text; a run does not change them."""
    spec = subject.spec
    for recipe in [spec.default_recipe, *spec.recipes]:
        config = subject.config_of(recipe)
        values = configs.as_dict(config)
        again: Any = configs.resolve(spec.config, [configs.Layer("round trip", values)], key=f"method.{spec.name}")[0]
        if again != config:
            raise CheckFailed(f"recipe `{recipe}`: {config} became {again} on the way through `as_dict`")
    for track, given in spec.tracks.items():
        for recipe in [spec.default_recipe, *spec.recipes]:
            both = f"recipe {recipe} on track {track}"
            layers = [configs.Layer(both, values) for values in (given, spec.recipes.get(recipe, {}))]
            configs.resolve(spec.config, layers, key=f"method.{spec.name}")
    config = subject.baseline.prepared.plan.method_config
    if config != subject.small(subject.recipe):
        raise CheckFailed(f"the run changed its configuration to {config}", hint="make the dataclass frozen")


def recipes(subject: MethodSubject) -> None:
    """Every recipe trains one experience."""
    others = [name for name in [subject.spec.default_recipe, *subject.spec.recipes] if name != subject.recipe]
    for recipe in others:
        try:
            subject.run(subject.brief(), recipe=recipe)
        except PluginError as error:
            raise CheckFailed(f"recipe `{recipe}`: {error.message}", hint=error.hint) from error


def supports(subject: MethodSubject) -> None:
    """`supports` gives a reason or None; the method runs where it gives None."""
    for family in subject.families:
        reason = subject.refusal(family)
        if reason is not None and (not isinstance(reason, str) or not reason.strip()):
            raise CheckFailed(f"`supports` returned {reason!r} on {family}", hint="return None or the reason as text")
        if reason is None and family != subject.family:
            subject.run(subject.brief(family=family, experiences=2))


def same_seed(subject: MethodSubject) -> None:
    """The same seed gives the same record, bit for bit."""
    _same(subject.baseline, subject.repetition.outcome, "a second run with the same seed")


def other_seed(subject: MethodSubject) -> None:
    """Another seed gives other numbers, unless nothing is trained or the method says that it is deterministic."""
    if not subject.baseline.record["cost"]["params_trainable"]:
        raise CheckSkipped("no weights are trained: nothing is drawn")
    deterministic = subject.baseline.method.deterministic
    other = subject.run(seed=1, look=deterministic)
    if deterministic:
        if subject.baseline.record["losses"] != other.record["losses"]:
            raise CheckFailed("it says that it is deterministic, but seeds 0 and 1 give different losses")
        for one, two in zip(subject.baseline.watcher.sights, other.watcher.sights, strict=True):
            _close(two.logits, one.logits, "it says that it is deterministic, but the seed matters", "draw nothing")
        return
    if _difference(subject.baseline, other, scenario_part=False) is None:
        raise CheckFailed(
            "seeds 0 and 1 give the same losses and predictions",
            hint="draw from torch's global generator, which the engine seeds; do not seed it yourself",
        )


def weights(subject: MethodSubject) -> None:
    """Frozen weights stay frozen, those of the optimiser move."""
    watcher = subject.baseline.watcher
    model = dict(subject.baseline.method.context.pretrained.module.named_parameters())
    for name in sorted(watcher.frozen):
        if name not in model or not torch.equal(model[name], watcher.start[name]):
            raise CheckFailed(f"the frozen backbone weight `{name}` changed", hint="set requires_grad to what is meant")
    still = sorted(set(watcher.promised) - watcher.moved)
    if still:
        raise CheckFailed(
            f"the optimiser holds `{still[0]}`, which never moved ({len(still)} such)",
            hint="does it take part in the loss? Freeze it, or leave it out of the optimiser",
        )


def logits(subject: MethodSubject) -> None:
    """Logits are finite, one row per image and one column per class seen."""
    for index, sight in enumerate(subject.baseline.watcher.sights):
        rows, columns = sight.logits.shape
        more = "num_classes" in subject.uses
        if rows != len(sight.raw) or columns < sight.seen or (columns > sight.seen and not more):
            raise CheckFailed(
                f"after experience {index}: logits of shape {(rows, columns)} for {len(sight.raw)} images "
                f"and {sight.seen} classes seen"
            )
        if torch.isnan(sight.logits).any():
            raise CheckFailed(f"after experience {index}: NaN among the logits")


def batch(subject: MethodSubject) -> None:
    """A prediction does not depend on the test batch (1, 7, 64, shuffled, sorted, foreign images)."""
    if "test_batch" in subject.uses:
        raise CheckSkipped("it declares `test_batch`: tables mark it as leaking")
    run = subject.baseline
    sight, method, pipeline = run.watcher.sights[-1], run.method, run.prepared.pipeline
    count = len(sight.raw)
    generator = torch.Generator().manual_seed(0)
    for name, places, size in (
        ("alone", torch.arange(count), 1),
        ("7 at a time", torch.arange(count), 7),
        ("64 at a time", torch.arange(count), 64),
        ("shuffled", torch.randperm(count, generator=generator), 32),
        ("sorted by class", sight.labels.sort(stable=True).indices, 8),
    ):
        found = torch.empty_like(sight.logits)
        found[places] = observation.predict(method, pipeline, raw.pick(sight.raw, places), size)
        _close(found, sight.logits, f"samples predicted {name} and all together differ", "do without batch statistics")
    found = observation.predict(method, pipeline, raw.foreign(sight.raw, 56, generator))[-8:]
    _close(found, sight.logits[:8], "samples among foreign ones are predicted differently", "use no batch statistics")


def undeclared(subject: MethodSubject) -> None:
    """The method asks for nothing that it does not declare, not even to catch the refusal."""
    manifest = subject.repetition.outcome.prepared.context.manifest
    asked = manifest.refused if isinstance(manifest, SpyManifest) else []
    if asked:
        raise CheckFailed(f"the method reads {asked[0]}", hint="declare it in `uses`, or do without")


def task_id(subject: MethodSubject) -> None:
    """Results do not change when the experiences are numbered differently."""
    if "task_id" in subject.uses:
        raise CheckSkipped("it declares `task_id`")

    class Renumbered(ExperienceView):
        """Seven empty experiences come first; everything that may be read is the same."""

        def __init__(self, scenario: Scenario, index: int, manifest: Manifest) -> None:
            first = scenario.experiences[0]
            nothing = first.train.subset(torch.arange(0))
            empty = Experience(train=nothing, test=nothing, classes=())
            shifted = dataclasses.replace(scenario, experiences=(*[empty] * 7, *scenario.experiences))
            super().__init__(shifted, index + 7, manifest)

    _same(subject.baseline, subject.run(view=Renumbered), "a run whose experiences are numbered from 7")


def future(subject: MethodSubject) -> None:
    """What is predicted after two experiences does not depend on the third."""
    if subject.spec.stream == "joint":
        raise CheckSkipped("it trains on everything at once, and says so")
    scenario = subject.scenario()
    if len(scenario.experiences) == 1:
        raise CheckSkipped("it runs on one experience only, which has no future")
    *past, last = scenario.experiences
    flipped = dataclasses.replace(last, train=raw.altered(last.train), test=raw.altered(last.test))
    changes = [("other images", (*past, flipped))]
    if not subject.uses & {"num_experiences", "num_classes"}:
        changes.append(("no images", tuple(past)))
    for what, parts in changes:
        found = subject.predictions_after(1, dataclasses.replace(scenario, experiences=parts))
        _same_past(subject.baseline.predictions.after(1), found, what)


def hidden_labels(subject: MethodSubject) -> None:
    """Training does not depend on the labels of test and target images."""
    if subject.spec.stream == "oracle":
        raise CheckSkipped("it trains on target labels, and says so")
    scenario = subject.scenario()
    parts = tuple(
        dataclasses.replace(
            part,
            test=_other_labels(part.test),
            target_labels=None if part.target_labels is None else part.target_labels.flip(0),
        )
        for part in scenario.experiences
    )
    tests = tuple(dataclasses.replace(test, images=_other_labels(test.images)) for test in scenario.tests)
    other = subject.run(dataclasses.replace(scenario, experiences=parts, tests=tests), look=True)
    first = subject.baseline
    if first.record["losses"] != other.record["losses"]:
        raise CheckFailed(
            "with other labels of test and target images its losses differ", hint="train on what the view shows"
        )
    for one, two in zip(first.watcher.sights, other.watcher.sights, strict=True):
        _close(two.logits, one.logits, "with other labels of test and target images", "train on what the view shows")


def named(subject: MethodSubject) -> None:
    """Classes known by name only: the logit of a name depends on the image and the names alone."""
    if "open_vocabulary" not in subject.uses:
        raise CheckSkipped("it does not declare `open_vocabulary`")
    run = subject.baseline
    some = run.watcher.sights[-1].raw[:9]
    names = ["a heron", "thing 1", "an umbrella"]
    method, inputs = run.method, run.prepared.pipeline.eval(some)
    with observation.evaluating(method):
        found = method.predict_named(inputs, names)
        turned = method.predict_named(inputs, names[::-1])
        alone = torch.cat([method.predict_named(inputs[row : row + 1], names) for row in range(len(inputs))])
        again = method.predict_named(inputs, names)
    if found.shape != (len(some), len(names)):
        raise CheckFailed(f"`predict_named` returned shape {tuple(found.shape)} for {len(some)} samples and 3 names")
    if not torch.equal(found, again):
        raise CheckFailed("`predict_named` gives other logits the second time")
    _close(turned.flip(1), found, "names in another order give other logits", "one column per name, in their order")
    if "test_batch" not in subject.uses:
        _close(alone, found, "samples predicted alone and together differ", "do without batch statistics")


def evaluation(subject: MethodSubject) -> None:
    """Prediction leaves weights, optimiser and random state as they are, and repeats itself."""
    run = subject.baseline
    shown = run.watcher.sights[-1].raw
    before, random = observation.state_of(run.method), checkpoint.random_state()
    first = observation.predict(run.method, run.prepared.pipeline, shown)
    found, drawn = observation.state_of(run.method), checkpoint.random_state()
    checkpoint.set_random_state(random)
    if changed := _changed(before, found):
        raise CheckFailed(f"`predict` changed `{changed}`")
    if not _equal_trees(random, drawn):
        raise CheckFailed("`predict` draws random numbers", hint="predictions must not be random")
    if not torch.equal(first, observation.predict(run.method, run.prepared.pipeline, shown)):
        raise CheckFailed("`predict` gives other logits the second time", hint="does eval mode switch dropout off?")


def resume(subject: MethodSubject) -> None:
    """A run that was stopped and resumed gives the same record, bit for bit."""
    stops = _stops(subject)
    try:
        _same(subject.baseline, subject.run_in_pieces(stops), f"a run stopped {', '.join(map(str, stops))}")
    except CheckFailed:
        for stop in stops:  # does one alone do harm? Then its place tells the author more
            _same(subject.baseline, subject.run_in_pieces([stop]), f"a run stopped {stop}")
        raise


def _stops(subject: MethodSubject) -> list[Stop]:
    """One place of every kind, in the order of a run: each stop is of a process that the one before it made resume.

    They are the second step of all, a late step of the first experience, in the middle of the second experience after
    a boundary has been crossed, between experiences, and at the start of the last one.
    """
    run = subject.baseline
    last = len(run.prepared.stream.scenario.experiences) - 1
    steps: list[int] = []
    first = 0
    if not isinstance(run.method, LoopMethod):
        passes = [len(losses) for losses in run.record["losses"]]  # a method may make none at all
        images = len(run.prepared.stream.scenario.experiences[0].train)
        first = -(-images // subject.small(subject.recipe).batch_size) * passes[0]
        end = first + 2 if last and passes[1] else first
        steps = [step for step in sorted({1, first - 1, first + 1}) if 0 < step < end]
    found = [Stop(step=step - before) for before, step in zip([0, *steps], steps, strict=False)]
    crossed = any(step > first for step in steps)
    found += [Stop(after=index) for index in range(int(crossed), last)]
    at_start = Stop(before=last)
    return [*found, at_start] if last else [at_start, *found]


def no_images_kept(subject: MethodSubject) -> None:
    """No training image is kept after its experience, unless `memory` is declared."""
    if "memory" in subject.uses:
        raise CheckSkipped("it declares `memory`")
    run = subject.baseline
    parts = run.prepared.stream.scenario.experiences
    given = [images for part in parts for images in (part.train, part.target, part.validation)]
    shown = [images for images in given if images is not None]
    is_one, kind = _recognised(Samples.concat(shown).read(slice(None)), run.prepared.pipeline), subject.spec.reads
    for where, thing in _held(run.method):
        if isinstance(thing, (Samples, Window, Scenario, Experience)):
            raise CheckFailed(
                f"`{where}` keeps training {kind}s ({type(thing).__name__})", hint="declare `memory`, or let it go"
            )
        if is_one(thing):
            raise CheckFailed(f"`{where}` holds a training {kind}", hint="declare `memory`, or let it go")


def _recognised(samples: Raw, pipeline: Pipeline) -> Callable[[object], bool]:
    """Whether a thing is one of these samples, or a tensor of some of them: stored, scaled or ready for the model."""
    if not isinstance(samples, Tensor):
        fields = {value for sample in samples for value in sample.values()}
        return lambda thing: isinstance(thing, str) and thing in fields
    known = [look.flatten(1) for look in (samples.float(), samples.float() / 255, pipeline.eval(samples))]
    size = samples[0].numel()

    def holds(thing: object) -> bool:
        if not isinstance(thing, Tensor) or thing.numel() % size or not thing.numel():
            return False
        rows = thing.detach().float().reshape(-1, size)
        return any(bool(torch.cdist(rows, look).amin() < 1e-3) for look in known)

    return holds


def batch_of_one(subject: MethodSubject) -> None:
    """Training works when the last batch has one image."""
    scenario = subject.scenario(experiences=2)
    first = subject.prepare(scenario).stream.scenario.experiences[0]
    config = subject.small(subject.recipe, batch_size=len(first.train) - 1)
    subject.run(scenario, config=config)


def surroundings(subject: MethodSubject) -> None:
    """Random state, grad mode, dtype, threads, folder and environment are as found after a run."""
    seen = subject.repetition
    for name, value in seen.before.items():
        if not _equal_trees(value, seen.after[name]):
            raise CheckFailed(f"a run changes {name}", hint="put it back, or do without")


def costs(subject: MethodSubject) -> None:
    """Parameters and bytes kept are whole numbers that are 0 or more."""
    cost = subject.baseline.record["cost"]
    for name in (
        "params_total",
        "params_trainable",
        "params_trainable_per_experience",
        "storage_bytes",
        "flops_forward",
    ):
        values = cost[name] if isinstance(cost[name], list) else [cost[name]]
        if any(type(value) is not int or value < 0 for value in values):
            raise CheckFailed(f"{name} is {cost[name]}")
    # What only training needs, e.g. a discriminator, is trained but no part of the total: then it was held before.
    held = sum(parameter.numel() for parameter, _ in subject.baseline.watcher.promised.values())
    known = max(cost["params_total"], held)
    if cost["params_trainable"] > known:
        raise CheckFailed(f"{cost['params_trainable']} of {known} parameters are trained")


def _difference(first: Outcome, second: Outcome, *, scenario_part: bool = True) -> str | None:
    """Names the first part in which two records differ."""
    one, two = records.comparable(first.record), records.comparable(second.record)
    keys = sorted(one) if scenario_part else ["accuracy", "losses"]
    for key in keys:
        if key != "predictions" and one[key] != two[key]:
            return f"{key}: {_short(one[key])} and {_short(two[key])}"
    for field in dataclasses.fields(first.predictions):
        a, b = getattr(first.predictions, field.name), getattr(second.predictions, field.name)
        if not np.array_equal(a, b):
            return f"the {field.name} of the predictions"
    return None


def _short(value: object) -> str:
    return text if len(text := str(value)) <= 160 else text[:157] + "..."


def _same(first: Outcome, second: Outcome, what: str) -> None:
    if (found := _difference(first, second)) is not None:
        raise CheckFailed(f"{what} differs in {found}", hint="keep all state in parameters, buffers and extra_state")


def _same_past(first: Predictions, second: Predictions, what: str) -> None:
    """Compares logits after the second experience, on the first two test sets."""
    found = []
    for predictions in (first, second):
        if predictions.logits is None:
            raise CheckFailed("the run kept no logits")
        order = np.argsort(predictions.sample_id, kind="stable")
        kept = order[predictions.test_set[order] < 2]
        found.append(torch.from_numpy(predictions.logits[kept]))
    width = min(logits.shape[1] for logits in found)
    _close(
        found[1][:, :width],
        found[0][:, :width],
        f"with {what} in the third experience, predictions after the second differ",
        "train on what was given so far",
    )


def _close(found: Tensor, expected: Tensor, message: str, hint: str) -> None:
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(found)):
        raise CheckFailed(f"{message}: other classes are allowed", hint=hint)
    gap = float((found[finite] - expected[finite]).abs().max()) if finite.any() else 0.0
    if gap > TOLERANCE * max(1.0, float(expected[finite].abs().max())):
        raise CheckFailed(f"{message}: logits by {gap:.2g}", hint=hint)


def _other_labels(images: Samples) -> Samples:
    """The same set, each label replaced by the next one that occurs in it."""
    known = torch.tensor(sorted(set(images.labels.tolist())))
    moved = known.roll(1)[torch.searchsorted(known, images.labels)]
    return Samples(images.source, images.rows, moved, images.ids, images.domains)


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    for name in sorted(set(before) | set(after)):
        if name not in before or name not in after or not torch.equal(before[name], after[name]):
            return name
    return None


def _equal_trees(one: Any, two: Any) -> bool:
    if isinstance(one, (Tensor, np.ndarray)):
        return bool(np.array_equal(one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal_trees(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(_equal_trees, one, two))
    return bool(one == two)


def _held(method: nn.Module) -> Iterator[tuple[str, Any]]:
    """Everything a method holds on to outside its backbone: attributes, state, the optimiser's too."""
    skipped = {id(vars(method).get("context")), id(vars(method).get("config"))}
    stack: list[tuple[str, Any, int]] = [("self", vars(method), 0)]
    visited: set[int] = set()
    while stack:
        where, thing, depth = stack.pop()
        if id(thing) in visited or id(thing) in skipped or depth > 8:
            continue
        visited.add(id(thing))
        if isinstance(thing, (Tensor, str, Samples, Window, Scenario, Experience)):
            yield where, thing
        elif isinstance(thing, np.ndarray) and thing.dtype != object:
            yield where, torch.from_numpy(thing)
        elif isinstance(thing, dict):
            stack += [(f"{where}.{key}", value, depth + 1) for key, value in thing.items()]
        elif isinstance(thing, (list, tuple, set)):
            stack += [(f"{where}[{place}]", value, depth + 1) for place, value in enumerate(thing)]
        elif isinstance(thing, types.MethodType):
            stack.append((where, thing.__self__, depth + 1))
        elif isinstance(thing, types.FunctionType):
            stack += [(where, cell.cell_contents, depth + 1) for cell in thing.__closure__ or ()]
        elif isinstance(thing, nn.Module) or _is_plain_object(thing):
            stack.append((where, vars(thing), depth + 1))


def _is_plain_object(thing: object) -> bool:
    return hasattr(thing, "__dict__") and not isinstance(thing, (type, ExperienceView)) and not callable(thing)


CHECKS: dict[str, Callable[[MethodSubject], None]] = {
    "options": options,
    "recipes": recipes,
    "supports": supports,
    "same-seed": same_seed,
    "other-seed": other_seed,
    "weights": weights,
    "logits": logits,
    "batch": batch,
    "undeclared": undeclared,
    "task-id": task_id,
    "future": future,
    "hidden-labels": hidden_labels,
    "named": named,
    "evaluation": evaluation,
    "resume": resume,
    "no-images-kept": no_images_kept,
    "batch-of-one": batch_of_one,
    "surroundings": surroundings,
    "costs": costs,
}
