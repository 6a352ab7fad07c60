"""Checks that every method must pass, on any machine, in seconds.

Each is a function of a `benchmark.testing.laboratory.MethodSubject` that returns nothing, raises
`CheckFailed` or `CheckSkipped`; its first line is what ``bench check`` prints. The contract is one file, to be read
from top to bottom, in the order in which it is checked.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark import config as configs
from benchmark.api import Experience, ExperienceView, Samples, Scenario
from benchmark.errors import PluginError
from benchmark.guard import Guard
from benchmark.run import checkpoint, saving
from benchmark.run.examination import Examiner
from benchmark.run.options import EngineConfig
from benchmark.samples import Window
from benchmark.testing import observation, raw, stream_checks
from benchmark.testing.comparisons import (
    at,
    close,
    difference,
    equal_trees,
    first_change,
    held,
    recognised,
    same,
    same_past,
)
from benchmark.testing.device_checks import device
from benchmark.testing.disturbances import other_labels, renumbered
from benchmark.testing.laboratory import MethodSubject, Outcome, Repetition
from benchmark.testing.observation import CheckFailed, CheckSkipped


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
    for recipe, given in spec.engine.items():
        configs.resolve(EngineConfig, [configs.Layer(f"recipe {recipe}", given)], key="engine")
    config = subject.baseline.prepared.plan.method_config
    if config != subject.small(subject.recipe):
        raise CheckFailed(f"the run changed its configuration to {config}", hint="make the dataclass frozen")


def recipes(subject: MethodSubject) -> None:
    """Every recipe trains one experience."""
    others = [name for name in [subject.spec.default_recipe, *subject.spec.recipes] if name != subject.recipe]
    for recipe in others:
        try:
            subject.run(subject.brief(), recipe=recipe, counting=True)
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
    if not _unmoved(subject):
        same(subject.baseline, subject.repetition.outcome, "a second run with the same seed")


def _unmoved(subject: MethodSubject) -> bool:
    """Whether all that must not matter, changed at once, changed nothing: then no part of it can.

    Where it did, the checks change one part alone, to tell which.
    """
    found = subject.disturbance
    return found is not None and difference(subject.baseline, found.outcome, answers=False) is None


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
            close(two.answers, one.answers, "it says that it is deterministic, but the seed matters", "draw nothing")
        return
    if difference(subject.baseline, other, scenario_part=False) is None:
        raise CheckFailed(
            "seeds 0 and 1 give the same losses and predictions",
            hint="draw from torch's global generator, which the engine seeds; do not seed it yourself",
        )


def weights(subject: MethodSubject) -> None:
    """Frozen weights stay frozen, those of the optimiser move."""
    watcher = subject.baseline.watcher
    model = dict(subject.baseline.method.context.pretrained.module.named_parameters())
    for name in sorted(watcher.frozen):
        if subject.spec.adapts and name in model and model[name].requires_grad:
            continue  # it adapts in the stream of test batches
        if name not in model or not torch.equal(model[name], watcher.start[name]):
            raise CheckFailed(f"the frozen backbone weight `{name}` changed", hint="set requires_grad to what is meant")
    still = sorted(set(watcher.promised) - watcher.moved)
    if still:
        raise CheckFailed(
            f"the optimiser holds `{still[0]}`, which never moved ({len(still)} such)",
            hint="does it take part in the loss? Freeze it, or leave it out of the optimiser",
        )


def logits(subject: MethodSubject) -> None:
    """Logits are finite, one row per image and one column per class seen; or there is one text per sample."""
    for index, sight in enumerate(subject.baseline.watcher.sights):
        if isinstance(sight.answers, tuple):
            if len(sight.answers) != len(sight.raw) or not all(isinstance(text, str) for text in sight.answers):
                raise CheckFailed(
                    f"after experience {index}: {len(sight.answers)} answers for {len(sight.raw)} samples, or one that "
                    "is no text"
                )
            continue
        rows, columns = sight.answers.shape
        more = "num_classes" in subject.uses
        if rows != len(sight.raw) or columns < sight.seen or (columns > sight.seen and not more):
            raise CheckFailed(
                f"after experience {index}: logits of shape {(rows, columns)} for {len(sight.raw)} images "
                f"and {sight.seen} classes seen"
            )
        if torch.isnan(sight.answers).any():
            raise CheckFailed(f"after experience {index}: NaN among the logits")


def batch(subject: MethodSubject) -> None:
    """A prediction does not depend on the test batch (1, 7, 64, shuffled, sorted, foreign images)."""
    if "test_batch" in subject.uses:
        raise CheckSkipped("it declares `test_batch`: tables mark it as leaking")
    _batch_alike(subject.baseline)


def _batch_alike(run: Outcome) -> None:
    sight, method, prepared = run.watcher.sights[-1], run.method, run.prepared
    count = len(sight.raw)
    generator = torch.Generator().manual_seed(0)
    for name, places, size in (
        ("alone", torch.arange(count), 1),
        ("7 at a time", torch.arange(count), 7),
        ("64 at a time", torch.arange(count), 64),
        ("shuffled", torch.randperm(count, generator=generator), 32),
        ("sorted by class", sight.labels.sort(stable=True).indices, 8),
    ):
        found = observation.answers(method, prepared, raw.pick(sight.raw, places), size)
        close(
            at(found, places.argsort()),
            sight.answers,
            f"samples predicted {name} and all together differ",
            "do without batch statistics",
        )
    found = observation.answers(method, prepared, raw.foreign(sight.raw, 56, generator))[-8:]
    close(found, sight.answers[:8], "samples among foreign ones are predicted differently", "use no batch statistics")


def written(subject: MethodSubject) -> None:
    """Texts depend on neither their batch nor the references of test samples, and come out again."""
    if not subject.spec.generates:
        raise CheckSkipped("it generates no texts")
    run = subject.writing
    sight = run.watcher.sights[-1]
    if "test_batch" not in subject.uses:
        _batch_alike(run)
    again = observation.answers(run.method, run.prepared, sight.raw)
    close(again, sight.answers, "it writes other texts the second time", "draw nothing at random in `generate`")
    scenario = run.prepared.stream.scenario
    parts = tuple(dataclasses.replace(part, test=raw.other_answers(part.test)) for part in scenario.experiences)
    other = subject.run(dataclasses.replace(scenario, experiences=parts), look=True)
    hint = "train on what the view shows"
    for one, two in zip(run.watcher.sights, other.watcher.sights, strict=True):
        close(two.answers, one.answers, "with other references of test samples", hint)
    told = [tuple(() if found.text is None else found.text.tolist()) for found in (run.predictions, other.predictions)]
    close(told[1], told[0], "with other references of test samples the engine is given other texts", hint)


def undeclared(subject: MethodSubject) -> None:
    """The method asks for nothing that it does not declare, not even to catch the refusal."""
    if asked := _again(subject).refused:
        raise CheckFailed(f"the method reads {asked[0]}", hint="declare it in `uses`, or do without")


def _again(subject: MethodSubject) -> Repetition:
    """A second run: the disturbed one, if nothing came of that."""
    found = subject.disturbance
    return found if found is not None and _unmoved(subject) else subject.repetition


def task_id(subject: MethodSubject) -> None:
    """Results do not change when the experiences are numbered differently."""
    if "task_id" in subject.uses:
        raise CheckSkipped("it declares `task_id`")

    if not _unmoved(subject):
        other = subject.run(view=renumbered(ExperienceView), counting=True)
        same(subject.baseline, other, "a run whose experiences are numbered from 7")


def future(subject: MethodSubject) -> None:
    """What is predicted after two experiences does not depend on the third."""
    if subject.spec.stream == "joint":
        raise CheckSkipped("it trains on everything at once, and says so")
    scenario = subject.scenario()
    if len(scenario.experiences) == 1:
        raise CheckSkipped("it runs on one experience only, which has no future")
    *past, last = scenario.experiences
    what, parts = "no images", tuple(past)
    if subject.uses & {"num_experiences", "num_classes"}:  # it may know how much is to come
        flipped = dataclasses.replace(last, train=raw.altered(last.train), test=raw.altered(last.test))
        what, parts = "other images", (*past, flipped)
    found = subject.predictions_after(1, dataclasses.replace(scenario, experiences=parts))
    same_past(subject.baseline.predictions.after(1), found, what)


def hidden_labels(subject: MethodSubject) -> None:
    """Training does not depend on the labels of test and target images."""
    if subject.spec.stream == "oracle":
        raise CheckSkipped("it trains on target labels, and says so")
    if _unmoved(subject):
        return
    other = subject.run(other_labels(subject.scenario()), look=True)
    first = subject.baseline
    if first.record["losses"] != other.record["losses"]:
        raise CheckFailed(
            "with other labels of test and target images its losses differ", hint="train on what the view shows"
        )
    for one, two in zip(first.watcher.sights, other.watcher.sights, strict=True):
        close(two.answers, one.answers, "with other labels of test and target images", "train on what the view shows")


def named(subject: MethodSubject) -> None:
    """Classes known by name only: the logit of a name depends on the image and the names alone."""
    if "open_vocabulary" not in subject.uses:
        raise CheckSkipped("it does not declare `open_vocabulary`")
    run = subject.baseline
    some = run.watcher.sights[-1].raw[:9]
    names = ["a heron", "thing 1", "an umbrella"]
    method, inputs = run.method, run.prepared.pipeline.eval(some, run.prepared.device)
    with observation.evaluating(method):
        found = method.predict_named(inputs, names)
        turned = method.predict_named(inputs, names[::-1])
        alone = torch.cat([method.predict_named(inputs[row : row + 1], names) for row in range(len(inputs))])
        again = method.predict_named(inputs, names)
    if found.shape != (len(some), len(names)):
        raise CheckFailed(f"`predict_named` returned shape {tuple(found.shape)} for {len(some)} samples and 3 names")
    if not torch.equal(found, again):
        raise CheckFailed("`predict_named` gives other logits the second time")
    close(turned.flip(1), found, "names in another order give other logits", "one column per name, in their order")
    if "test_batch" not in subject.uses:
        close(alone, found, "samples predicted alone and together differ", "do without batch statistics")


def evaluation(subject: MethodSubject) -> None:
    """Prediction leaves weights, optimiser and random state as they are, and repeats itself."""
    run = subject.baseline
    shown = run.watcher.sights[-1].raw
    before, random = observation.state_of(run.method), checkpoint.random_state()
    asked = run.prepared.rules.asked
    first = observation.answers(run.method, run.prepared, shown)
    found, drawn = observation.state_of(run.method), checkpoint.random_state()
    checkpoint.set_random_state(random)
    if changed := first_change(before, found):
        raise CheckFailed(f"`{asked}` changed `{changed}`")
    if not equal_trees(random, drawn):
        raise CheckFailed(f"`{asked}` draws random numbers", hint="predictions must not be random")
    if not equal_trees(first, observation.answers(run.method, run.prepared, shown)):
        raise CheckFailed(f"`{asked}` answers otherwise the second time", hint="does eval mode switch dropout off?")


def resume(subject: MethodSubject) -> None:
    """A run that was stopped and resumed gives the same record, bit for bit."""
    if _unmoved(subject):
        return
    stops = subject.stops
    try:
        same(subject.baseline, subject.run_in_pieces(stops), f"a run stopped {', '.join(map(str, stops))}")
    except CheckFailed:
        for stop in stops:  # does one alone do harm? Then its place tells the author more
            same(subject.baseline, subject.run_in_pieces([stop]), f"a run stopped {stop}")
        raise


def saved(subject: MethodSubject) -> None:
    """Written to a file and loaded again, without its data, it answers the same (`bench predict`)."""
    if subject.spec.adapts:
        raise CheckSkipped("its answers are those of a stream of test batches: nothing of it is kept")
    run = subject.baseline
    last = len(run.prepared.stream.scenario.experiences) - 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{saving.SUFFIX}"
        saving.write(file, run.prepared, run.method)
        about, snapshot = saving.read(file)
    twin = subject.prepare(subject.scenario())
    hollow = saving.hollow(about, twin.plan.scenario_name)
    method = saving.rebuilt(twin.plan, hollow, snapshot, twin.pretrained, twin.pipeline, twin.device)
    found = Examiner(twin, Guard(f"method `{subject.spec.name}`")).after(method, last)
    rows = run.predictions.experience == last
    for name in ("prediction", "text", "logits"):
        known, now = getattr(run.predictions, name), getattr(found, name)
        if known is not None and not np.array_equal(known[rows], now, equal_nan=name == "logits"):
            raise CheckFailed(
                f"`{name}` of its predictions differs once it was written to a file and loaded again",
                hint="what it needs to answer belongs into parameters, buffers or `extra_state`",
            )


def no_images_kept(subject: MethodSubject) -> None:
    """No training image is kept after its experience, unless `memory` is declared."""
    if "memory" in subject.uses:
        raise CheckSkipped("it declares `memory`")
    run = subject.baseline
    parts = run.prepared.stream.scenario.experiences
    given = [images for part in parts for images in (part.train, part.target, part.validation)]
    shown = [images for images in given if images is not None]
    is_one, kind = recognised(Samples.concat(shown), run.prepared.pipeline), subject.spec.reads
    for where, thing in held(run.method):
        if isinstance(thing, (Samples, Window, Scenario, Experience)):
            raise CheckFailed(
                f"`{where}` keeps training {kind}s ({type(thing).__name__})", hint="declare `memory`, or let it go"
            )
        if is_one(thing):
            raise CheckFailed(f"`{where}` holds a training {kind}", hint="declare `memory`, or let it go")


def batch_of_one(subject: MethodSubject) -> None:
    """Training works when the last batch has one image."""
    scenario = subject.scenario(experiences=2)
    first = subject.prepare(scenario).stream.scenario.experiences[0]
    config = subject.small(subject.recipe, batch_size=len(first.train) - 1)
    subject.run(scenario, config=config)


def surroundings(subject: MethodSubject) -> None:
    """Random state, grad mode, dtype, threads, folder and environment are as found after a run."""
    seen = _again(subject)
    for name, value in seen.before.items():
        if not equal_trees(value, seen.after[name]):
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


CHECKS: dict[str, Callable[[MethodSubject], None]] = {
    "options": options,
    "recipes": recipes,
    "supports": supports,
    "same-seed": same_seed,
    "other-seed": other_seed,
    "weights": weights,
    "logits": logits,
    "batch": batch,
    "written": written,
    "undeclared": undeclared,
    "task-id": task_id,
    "future": future,
    "hidden-labels": hidden_labels,
    "named": named,
    "evaluation": evaluation,
    "resume": resume,
    "saved": saved,
    "no-images-kept": no_images_kept,
    "batch-of-one": batch_of_one,
    "surroundings": surroundings,
    "costs": costs,
    "device": device,
    **stream_checks.CHECKS,
}
