"""The linear probe of CLIP: its three protocols, and what becomes of them in a stream."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods.clip_linear import (
    DECAYS,
    ClipLinear,
    ClipLinearConfig,
    bench_register_methods,
    best_decay,
    best_strength,
    hold_out,
    uses,
)
from benchmark import records
from benchmark.api import Context, ExperienceView, ImageSet, Manifest, Scenario
from benchmark.backbones.dual import dual_of
from benchmark.backbones.logistic import fit_logistic
from benchmark.inputs.images import ImagePipeline
from benchmark.run import checkpoint, costs, engine, preparation
from benchmark.testing import toys
from benchmark.testing.laboratory import manager

pytestmark = pytest.mark.usefixtures("one_thread")

PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
SPEC = bench_register_methods()[0]


def make(scenario: Scenario, **options: Any) -> ClipLinear:
    config = ClipLinearConfig(**options)
    context = Context(
        pretrained=toys.tiny_backbone(text=True),
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=PIPELINE,
        manifest=Manifest("clip-linear", uses(config)),
    )
    return ClipLinear(config, context)


def train(method: ClipLinear, scenario: Scenario, *indices: int) -> dict[str, float]:
    """Trains some experiences in turn; the losses of the last one."""
    terms: dict[str, float] = {}
    for index in indices:
        view = ExperienceView(scenario, index, method.context.manifest)
        method.train()
        method.begin_experience(view)
        terms = dict(method.train_experience(view))
        method.end_experience(view)
        view.close()
    return terms


def described(method: ClipLinear, images: ImageSet) -> Tensor:
    """Raw projected features of the test transform, in one go."""
    with torch.no_grad():
        return dual_of(method.context.backbone).image_features(PIPELINE.eval(images.images(slice(None))))


# --- A: all data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True])
def test_full_data_is_logistic_regression_on_raw_features(normalise: bool) -> None:
    scenario = toys.toy_scenario(experiences=1, classes=5, train=9)
    method = make(scenario, normalise=normalise)
    assert method.deterministic
    terms = train(method, scenario, 0)
    features = described(method, scenario.experiences[0].train)
    if normalise:
        features = F.normalize(features, dim=1)
    labels = scenario.experiences[0].train.labels
    expected = fit_logistic(features, labels, range(5), strength=0.316)
    torch.testing.assert_close(method.head.weight.detach(), expected.weight.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.head.bias.detach(), expected.bias.float(), rtol=1e-4, atol=1e-5)
    assert terms["loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert terms["strength"] == 0.316
    with torch.no_grad():
        logits = method.eval().predict(PIPELINE.eval(scenario.experiences[0].train.images(slice(None))))
    torch.testing.assert_close(
        logits, features @ expected.weight.float().T + expected.bias.float(), rtol=1e-3, atol=1e-4
    )
    probe: Any = importlib.import_module("sklearn.linear_model")
    theirs = probe.LogisticRegression(random_state=0, C=0.316, max_iter=1000).fit(features.double(), labels)
    assert logits.argmax(dim=1).tolist() == theirs.predict(features.double()).tolist()


def test_parameters_and_costs(tmp_path: Path) -> None:
    scenario = toys.toy_scenario(experiences=1, classes=5)
    method = make(scenario)
    train(method, scenario, 0)
    assert costs.trainable(method) == 20 * 5 + 5  # d C + C
    image = sum(p.numel() for p in method.image.parameters())
    assert costs.total(method) == image + 105  # no text tower
    assert costs.storage_bytes(method) == 4 * 105
    prepared = toys.prepare_toy(build=ClipLinear, uses=uses(ClipLinearConfig()), text=True)
    prepared = dataclasses.replace(prepared, plan=dataclasses.replace(prepared.plan, method_config=ClipLinearConfig()))
    record = records.read(engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True))
    assert record["cost"]["params_added"] == 20 * 4 + 4
    assert set(record["losses"][0][0]) == {"loss", "iterations", "strength"}
    assert all(seconds > 0 for seconds in record["timing"]["train_seconds"])


# --- B: the search for C -------------------------------------------------------------------------------------------


def restated_search(score: Callable[[float], float]) -> float:
    """The search as `clip_linear_probe` words it, on exponents."""
    best, peak = -1.0, 0.0
    for exponent in (6, 4, 2, 0, -2, -4, -6):
        if score(10.0**exponent) > best:
            best, peak = score(10.0**exponent), float(exponent)
    left, right, chosen = peak - 1, peak + 1, 0.0
    for _ in range(8):
        if score(10.0**left) < score(10.0**right):
            chosen, left = right, (left + right) / 2
        else:
            chosen, right = left, (left + right) / 2
    return 10.0**chosen


@pytest.mark.parametrize("peak", [-7.0, -3.3, -0.4, 0.0, 1.9, 5.2, 9.0])
@pytest.mark.parametrize("steps", [3, 1000])
def test_search_for_the_strength(peak: float, steps: int) -> None:
    """A hill on the log scale, in coarse and in fine steps of accuracy."""

    def score(strength: float) -> float:
        return round(steps / (1 + abs(math.log10(strength) - peak))) / steps

    assert best_strength(score) == pytest.approx(restated_search(score), rel=1e-9)


def test_equal_accuracies_go_to_the_largest_then_to_the_left() -> None:
    asked: list[float] = []

    def score(strength: float) -> float:
        asked.append(strength)
        return 0.5

    assert best_strength(score) == pytest.approx(1e5)
    assert asked[:7] == [1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6]
    assert len(asked) == 7 + 2 * 8
    assert asked[7:9] == pytest.approx([1e5, 1e7])
    # 10 wins against 0.1, then meets its equal on the left.
    assert best_strength(lambda strength: 1.0 if strength in (1.0, 10.0) else 0.0) == 1.0


def test_the_search_reads_validation_images_and_fits_training_images() -> None:
    scenario = toys.toy_scenario(family="few-shot", classes=4, train=4, test=6)
    part = scenario.experiences[0]

    def run(validation: ImageSet | None) -> tuple[ClipLinear, dict[str, float]]:
        brought = dataclasses.replace(scenario, experiences=(dataclasses.replace(part, validation=validation),))
        method = make(brought, search=True)
        return method, train(method, brought, 0)

    method, terms = run(part.test)
    features = described(method, part.train)
    expected = fit_logistic(features, part.train.labels, range(4), strength=terms["strength"])
    torch.testing.assert_close(method.head.weight.detach(), expected.weight.float(), rtol=1e-3, atol=1e-4)
    held = described(method, part.test)

    def score(strength: float) -> float:
        fitted = fit_logistic(features, part.train.labels, range(4), strength=strength)
        found = (held.double() @ fitted.weight.T + fitted.bias).argmax(dim=1)
        return float((found == part.test.labels).double().mean())

    assert terms["strength"] == pytest.approx(restated_search(score), rel=1e-9)
    turned = ImageSet(part.test.source, part.test.rows, part.test.labels.flip(0), part.test.ids)
    _, other = run(turned)
    assert other["strength"] != terms["strength"]
    _, own = run(None)  # a fifth of four is none: one of each class
    stay, out = hold_out(features, part.train.labels) or (None, None)
    assert stay is not None
    assert out is not None
    assert out[1].tolist() == [0, 1, 2, 3]
    assert own["strength"] > 0


def test_what_is_held_out() -> None:
    labels = torch.tensor([0] * 10 + [1] * 4 + [2] * 1 + [3] * 2)
    features = torch.arange(len(labels)).float().unsqueeze(1)
    split = hold_out(features, labels)
    assert split is not None
    (kept, kept_labels), (out, out_labels) = split
    assert sorted(out_labels.tolist()) == [0, 0, 1, 3]
    assert sorted([*kept.flatten().tolist(), *out.flatten().tolist()]) == features.flatten().tolist()
    assert torch.equal(labels[kept.flatten().long()], kept_labels)
    assert torch.equal(labels[out.flatten().long()], out_labels)
    assert hold_out(features[:3], torch.arange(3)) is None


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"strength": 2.5}, "strength", 2.5),
        ({"solver": "adamw", "weight_decay": 0.3}, "weight_decay", 0.3),
    ],
)
def test_where_no_image_can_be_spared_nothing_is_searched(options: dict[str, Any], name: str, value: float) -> None:
    scenario = toys.toy_scenario(family="few-shot", classes=4, train=1)
    assert train(make(scenario, search=True, **options), scenario, 0)[name] == value


# --- C: AdamW ------------------------------------------------------------------------------------------------------


def test_adamw_is_the_loop_of_clip_benchmark() -> None:
    scenario = toys.toy_scenario(experiences=1, classes=4, train=7)
    torch.manual_seed(3)
    method = make(scenario, solver="adamw", epochs=3, batch_size=10, lr=0.1, weight_decay=0.02, normalise=True)
    assert not method.deterministic
    terms = train(method, scenario, 0)

    torch.manual_seed(3)
    make(scenario)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    labels = scenario.experiences[0].train.labels
    features = F.normalize(described(method, scenario.experiences[0].train), dim=1)
    layer = nn.Linear(20, 4)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-1 / math.sqrt(20), 1 / math.sqrt(20), generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda j: 0.5 * (1 + math.cos(math.pi * j / 9)))
    losses: list[float] = []
    for _ in range(3):
        losses = []
        order = torch.randperm(28, generator=generator)
        for rows in (order[:10], order[10:20], order[20:]):
            loss = F.cross_entropy(layer(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item() * len(rows) / 28)
    torch.testing.assert_close(method.head.weight, layer.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(method.head.bias, layer.bias, rtol=1e-5, atol=1e-5)
    assert terms["loss"] == pytest.approx(sum(losses), rel=1e-4)


def test_decays_and_starts() -> None:
    assert np.allclose(DECAYS, np.logspace(-6, 2, 97), rtol=1e-12)
    starts = [place for place in range(97) if np.isclose(np.logspace(-6, 2, 7), DECAYS[place]).any()]
    assert starts == [0, 16, 32, 48, 64, 80, 96]


@pytest.mark.parametrize("peak", range(0, 97, 5))
def test_search_for_the_decay_climbs_a_hill(peak: int) -> None:
    asked: set[int] = set()

    def score(decay: float) -> float:
        asked.add(DECAYS.index(decay))
        return 1 - abs(DECAYS.index(decay) - peak) / 100

    assert DECAYS.index(best_decay(score)) == peak
    assert len(asked) <= 7 + 2 * 4


def test_equal_decays_go_to_the_first() -> None:
    asked: list[int] = []

    def score(decay: float) -> float:
        asked.append(DECAYS.index(decay))
        return 0.0

    assert best_decay(score) == DECAYS[0]
    assert asked[:7] == [0, 16, 32, 48, 64, 80, 96]
    assert asked[7:] == [0, 0, 8, 0, 0, 4, 0, 0, 2, 0, 0, 1]


def test_every_candidate_draws_the_same() -> None:
    scenario = toys.toy_scenario(experiences=1, classes=4, train=7)
    method = make(scenario, solver="adamw", epochs=2)
    features, labels = described(method, scenario.experiences[0].train), scenario.experiences[0].train.labels
    solve = method.fit(features, labels, range(4), seed=5)
    one, other, again = solve(0.1), solve(1.0), solve(0.1)
    assert torch.equal(one.weight, again.weight)
    assert not torch.equal(one.weight, other.weight)


# --- streams -------------------------------------------------------------------------------------------------------


def test_an_experience_fits_the_rows_of_its_classes_alone() -> None:
    scenario = toys.toy_scenario(experiences=2, classes=3, train=8)
    method = make(scenario)
    train(method, scenario, 0)
    first = method.head.weight.detach().clone()
    train(method, scenario, 1)
    assert torch.equal(method.head.weight[:3], first)
    part = scenario.experiences[1].train
    own = fit_logistic(described(method, part), part.labels, (3, 4, 5), strength=0.316)
    torch.testing.assert_close(method.head.weight[3:].detach(), own.weight.float(), rtol=1e-3, atol=1e-4)
    assert "memory" not in method.context.uses


def test_a_class_that_comes_again_is_fitted_anew() -> None:
    scenario = toys.toy_scenario(family="domain-il", experiences=2, classes=3, train=8)
    both, last = make(scenario), make(scenario)
    train(both, scenario, 0, 1)
    train(last, scenario, 1)
    assert torch.equal(both.head.weight, last.head.weight)


def test_with_kept_features_a_stream_is_joint_training() -> None:
    scenario = toys.toy_scenario(experiences=2, classes=3, train=8)
    method = make(scenario, keep="features")
    assert method.context.uses == {"boundaries", "memory"}
    train(method, scenario, 0, 1)
    parts = [part.train for part in scenario.experiences]
    features, labels = (
        torch.cat([described(method, part) for part in parts]),
        torch.cat([part.labels for part in parts]),
    )
    joint = fit_logistic(features, labels, range(6), strength=0.316)
    torch.testing.assert_close(method.head.weight.detach(), joint.weight.float(), rtol=1e-3, atol=1e-4)
    assert costs.storage_bytes(method) == 4 * (20 * 6 + 6) + 48 * (20 * 4 + 8)
    again = make(scenario, keep="features")
    train(again, scenario, 0)
    checkpoint.restore(again, checkpoint.snapshot(method))
    assert torch.equal(again.kept[0], method.kept[0])
    assert torch.equal(again.head.weight, method.head.weight)


def test_classes_known_by_name_only_are_refused_with_the_reason() -> None:
    config = ClipLinearConfig()
    for family in ("base-to-new", "cross-dataset"):
        reason = preparation.refusal(SPEC, uses(config), toys.toy_scenario(family=family))
        assert reason is not None
        assert "known by name only" in reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": True}, "augment: true has no effect"),
        ({"epochs": 2}, "epochs: 2 has no effect with solver `lbfgs`"),
        ({"epochs": 0, "solver": "adamw"}, "epochs: 0 is too small"),
        ({"strength": 0.0}, "strength: 0.0 is not positive"),
        ({"lr": -1.0}, "lr: -1.0 is not positive"),
        ({"max_iter": 0}, "max_iter: 0 is too small"),
        ({"weight_decay": -0.1}, "weight_decay: -0.1 is negative"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipLinearConfig(**options)


def test_recipes_say_what_they_use() -> None:
    found = {name: sorted(uses(ClipLinearConfig(**recipe))) for name, recipe in SPEC.recipes.items()}  # type: ignore[arg-type]
    assert found == {
        "few-shot": ["boundaries", "validation"],
        "clip-benchmark": ["boundaries", "validation"],
        "memory": ["boundaries", "memory"],
    }
