"""Comparisons that the contract of methods makes: two runs, two answers, and what a method holds on to."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark import records
from benchmark.api import Experience, ExperienceView, Samples, Scenario
from benchmark.inputs.pipeline import Pipeline
from benchmark.records.predictions import Predictions
from benchmark.samples import Window
from benchmark.testing.laboratory import TOLERANCE, Outcome
from benchmark.testing.observation import Answers, CheckFailed


def difference(first: Outcome, second: Outcome, *, scenario_part: bool = True, answers: bool = True) -> str | None:
    """Names the first part in which two runs differ.

    Args:
        first: A run.
        second: Another one.
        scenario_part: Whether what their records say of the scenario is a part.
        answers: Whether the answers of the samples, and what is judged by them, are a part.
    """
    one, two = records.comparable(first.record), records.comparable(second.record)
    keys = sorted(one) if scenario_part else ["accuracy", "losses"]
    if not answers:
        keys = ["cost", "losses", "warnings"]
    for key in keys:
        if key != "predictions" and one[key] != two[key]:
            return f"{key}: {_short(one[key])} and {_short(two[key])}"
    for field in dataclasses.fields(first.predictions):
        if field.name in ("label", "references") and not answers:
            continue
        a, b = getattr(first.predictions, field.name), getattr(second.predictions, field.name)
        if not np.array_equal(a, b):
            return f"the {field.name} of the predictions"
    return None


def _short(value: object) -> str:
    return text if len(text := str(value)) <= 160 else text[:157] + "..."


def same(first: Outcome, second: Outcome, what: str) -> None:
    """Fails when two runs differ in anything."""
    if (found := difference(first, second)) is not None:
        raise CheckFailed(f"{what} differs in {found}", hint="keep all state in parameters, buffers and extra_state")


def same_past(first: Predictions, second: Predictions, what: str) -> None:
    """Compares logits, or texts, after the second experience, on the first two test sets."""
    hint = "train on what was given so far"
    if first.text is not None and second.text is not None:
        told = []
        for predictions, texts in ((first, first.text), (second, second.text)):
            order = np.argsort(predictions.sample_id, kind="stable")
            told.append(tuple(texts[order[predictions.test_set[order] < 2]].tolist()))
        close(told[1], told[0], f"with {what} in the third experience, texts after the second differ", hint)
        return
    found = []
    for predictions in (first, second):
        if predictions.logits is None:
            raise CheckFailed("the run kept no logits")
        order = np.argsort(predictions.sample_id, kind="stable")
        kept = order[predictions.test_set[order] < 2]
        found.append(torch.from_numpy(predictions.logits[kept]))
    width = min(logits.shape[1] for logits in found)
    close(
        found[1][:, :width],
        found[0][:, :width],
        f"with {what} in the third experience, predictions after the second differ",
        hint,
    )


def at(answers: Answers, places: Tensor) -> Answers:
    """The answers at some places."""
    return answers[places] if isinstance(answers, Tensor) else tuple(answers[place] for place in places.tolist())


def close(found: Answers, expected: Answers, message: str, hint: str) -> None:
    """Fails when answers differ: logits by more than rounding, texts at all."""
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        other = sum(one != two for one, two in zip(found, expected, strict=True))
        if other:
            raise CheckFailed(f"{message}: {other} of {len(expected)} texts", hint=hint)
        return
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(found)):
        raise CheckFailed(f"{message}: other classes are allowed", hint=hint)
    gap = float((found[finite] - expected[finite]).abs().max()) if finite.any() else 0.0
    if gap > TOLERANCE * max(1.0, float(expected[finite].abs().max())):
        raise CheckFailed(f"{message}: logits by {gap:.2g}", hint=hint)


def first_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that is not as it was, or None."""
    for name in sorted(set(before) | set(after)):
        if name not in before or name not in after or not torch.equal(before[name], after[name]):
            return name
    return None


def equal_trees(one: Any, two: Any) -> bool:
    """Whether two trees of tensors, arrays and plain values are equal."""
    if isinstance(one, (Tensor, np.ndarray)):
        return bool(np.array_equal(one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal_trees(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal_trees, one, two))
    return bool(one == two)


def held(method: nn.Module) -> Iterator[tuple[str, Any]]:
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


def recognised(known: Samples, pipeline: Pipeline) -> Callable[[object], bool]:
    """Whether a thing is one of these samples, or a tensor of some of them: stored, scaled or ready for the model.

    Of texts a field is enough, or what was to be written.
    """
    samples = known.read(slice(None))
    if not isinstance(samples, Tensor):
        fields = {value for sample in samples for value in sample.values()}
        fields |= {text for texts in known.references or () for text in texts}
        return lambda thing: isinstance(thing, str) and thing in fields
    looks = [look.flatten(1) for look in (samples.float(), samples.float() / 255, pipeline.eval(samples))]
    size = samples[0].numel()

    def holds(thing: object) -> bool:
        if not isinstance(thing, Tensor) or thing.numel() % size or not thing.numel():
            return False
        rows = thing.detach().float().cpu().reshape(-1, size)
        # By products, as is usual for many rows, equal rows are apart by rounding, on some machines by much of it.
        exact = "donot_use_mm_for_euclid_dist"
        return any(bool(torch.cdist(rows, look, compute_mode=exact).amin() < 1e-3) for look in looks)

    return holds
