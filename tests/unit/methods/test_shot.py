"""SHOT: both phases, information maximisation and pseudo-labels written out once more, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bench_methods import shot
from bench_methods.shot import Shot, WeightNormHead, information_maximisation, pseudo_labels
from benchmark import config as configs
from benchmark.api import Batch, Scenario
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.run import engine
from benchmark.run.preparation import refusal
from benchmark.testing import by_hand
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import prepare_toy, toy_scenario

PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
USES = frozenset({"boundaries", "unlabelled"})


def make(scenario: Scenario, **changes: Any) -> Shot:
    (spec,) = shot.bench_register_methods()
    values = {"batch_size": 6, "source_epochs": 1, "epochs": 2, "bottleneck": 8, "interval": 2, **changes}
    config = spec.config(**values)
    torch.manual_seed(1)
    method = Shot(config, by_hand.context_of(spec, config, scenario)).double()
    by_hand.begin(method, scenario, 0)
    method.context.pipeline = _Double()  # type: ignore[assignment]
    return method


class _Double:
    """The pipeline, in float64."""

    def eval(self, raw: Tensor, device: torch.device | None = None) -> Tensor:
        return PIPELINE.eval(raw, device).double()


def source_batch(scenario: Scenario, rows: slice) -> Batch:
    train = scenario.experiences[0].train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[rows]
    return Batch(PIPELINE.eval(train.images(order)).double(), train.labels[order])


def target_batch(scenario: Scenario, rows: slice) -> Batch:
    target = scenario.experiences[0].target
    assert target is not None
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(7))[rows]
    images = PIPELINE.eval(target.images(order)).double()
    return Batch(images[:0], torch.empty(0, dtype=torch.int64), images, order)


# --- the two losses --------------------------------------------------------------------------------


def restated_information(logits: Tensor) -> float:
    rows = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in logits.tolist()]
    certain = sum(-p * math.log(p + 1e-5) for row in rows for p in row) / len(rows)
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return float(certain - sum(-p * math.log(p + 1e-5) for p in mean))


def matrices(rows: int, columns: int) -> st.SearchStrategy[Tensor]:
    cells = st.lists(st.floats(-6, 6, width=32), min_size=rows * columns, max_size=rows * columns)
    return cells.map(lambda values: torch.tensor(values, dtype=torch.float64).view(rows, columns))


@settings(max_examples=40, deadline=None)
@given(matrices(5, 4))
def test_information_maximisation_by_loops(logits: Tensor) -> None:
    found = float(information_maximisation(logits))
    assert found == pytest.approx(restated_information(logits), abs=1e-12)
    assert -math.log(4) - 1e-4 <= found <= 1e-4  # entropy of a mean is at least the mean of entropies
    certain = float(information_maximisation(logits, diversity=False))
    assert -1e-4 <= certain <= math.log(4)


def test_information_is_best_when_certain_and_diverse() -> None:
    sharp = 50 * torch.eye(3, dtype=torch.float64)
    assert float(information_maximisation(sharp)) == pytest.approx(-math.log(3), abs=1e-3)
    assert float(information_maximisation(sharp[[0, 0, 0]])) == pytest.approx(0.0, abs=1e-3)
    assert float(information_maximisation(torch.zeros(3, 3))) == pytest.approx(0.0, abs=1e-3)


def restated_labels(features: Tensor, logits: Tensor, smallest: int = 0) -> list[int]:
    """Image by image and class by class."""
    rows = []
    for feature in features.tolist():
        longer = [*feature, 1.0]
        length = math.sqrt(sum(value**2 for value in longer))
        rows.append([value / length for value in longer])
    shares = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in logits.tolist()]
    classes = len(shares[0])
    labels = [row.index(max(row)) for row in shares]
    for _ in range(2):
        centroids = {}
        for c in range(classes):
            if labels.count(c) <= smallest:
                continue
            weight = 1e-8 + sum(share[c] for share in shares)
            centroids[c] = [
                sum(share[c] * row[j] for share, row in zip(shares, rows, strict=True)) / weight
                for j in range(len(rows[0]))
            ]
        for place, row in enumerate(rows):
            distances = {}
            for c, centroid in centroids.items():
                product = sum(a * b for a, b in zip(row, centroid, strict=True))
                distances[c] = 1 - product / math.sqrt(sum(a * a for a in row) * sum(b * b for b in centroid))
            labels[place] = min(distances, key=lambda c: distances[c])
        shares = [[float(label == c) for c in range(classes)] for label in labels]
    return labels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("smallest", [0, 3])
def test_pseudo_labels_by_loops(seed: int, smallest: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    features = torch.randn(30, 5, generator=generator, dtype=torch.float64) + logits @ torch.randn(
        4, 5, generator=generator, dtype=torch.float64
    )
    found = pseudo_labels(features, logits, smallest_class=smallest)
    assert found.dtype == torch.int64
    assert found.tolist() == restated_labels(features, logits, smallest)
    assert found.tolist() != logits.argmax(1).tolist()  # the classifier's own labels would be another method


def test_a_class_that_nobody_is_predicted_to_be_gets_no_label() -> None:
    logits = torch.tensor([[2.0, 1.0, -5.0], [2.0, 1.0, -5.0], [1.0, 2.0, -5.0]], dtype=torch.float64)
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], dtype=torch.float64)
    assert pseudo_labels(features, logits).tolist() == [0, 0, 1]


# --- the classifier --------------------------------------------------------------------------------


def test_the_head_is_a_weight_normalised_linear_layer() -> None:
    torch.manual_seed(0)
    head = WeightNormHead(5)
    head.grow(3)
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)  # draws its weight first, from the same distribution
    assert torch.allclose(head.direction, linear.weight)
    reference = weight_norm(linear)
    with torch.no_grad():
        linear.bias.zero_()
        head.length.mul_(1.7)
        reference.parametrizations.weight.original0.mul_(1.7)
    rows = torch.randn(4, 5)
    assert torch.allclose(head(rows), reference(rows), atol=1e-6)
    ours = torch.autograd.grad(head(rows).sin().sum(), [head.length, head.direction, head.bias])
    parts = reference.parametrizations.weight
    theirs = torch.autograd.grad(reference(rows).sin().sum(), [parts.original0, parts.original1, linear.bias])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(ours, theirs, strict=True))


def test_the_head_grows_and_takes_the_size_of_a_state_dict() -> None:
    head = WeightNormHead(4)
    head.grow(2)
    old = head.direction.detach().clone()
    head.grow(5)
    head.grow(3)  # fewer change nothing
    assert torch.equal(head.direction[:2], old)
    assert torch.allclose(head.length, head.direction.norm(dim=1, keepdim=True))
    again = WeightNormHead(4)
    again.load_state_dict(head.state_dict())
    rows = torch.randn(3, 4)
    assert torch.equal(again(rows), head(rows))


# --- three steps of each phase -----------------------------------------------------------------------


class Plain:
    """Class token by timm's own pass, bottleneck, head and Nesterov's step by the book."""

    def __init__(self, method: Shot) -> None:
        self.vit = method.backbone
        self.values = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
        self.velocity: dict[str, Tensor] = {}

    def features(self, images: Tensor, *, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        v = self.values
        own = {name[9:]: value for name, value in v.items() if name.startswith("backbone.")}
        rows = torch.func.functional_call(self.vit, own, (images,))
        rows = rows @ v["bottleneck.0.weight"].T + v["bottleneck.0.bias"]
        mean, variance = (rows.mean(0), rows.var(0, unbiased=False)) if statistics is None else statistics
        result: Tensor = (rows - mean) / (variance + 1e-5).sqrt() * v["bottleneck.1.weight"] + v["bottleneck.1.bias"]
        return result

    def logits(self, features: Tensor) -> Tensor:
        v = self.values
        weight = v["head.direction"] / v["head.direction"].norm(dim=1, keepdim=True) * v["head.length"]
        result: Tensor = features @ weight.T + v["head.bias"]
        return result

    def descend(self, loss: Tensor, rate: float, *, frozen: str = "nothing") -> None:
        names = [name for name in self.values if not name.startswith(frozen)]
        slopes = torch.autograd.grad(loss, [self.values[name] for name in names])
        with torch.no_grad():
            for name, gradient in zip(names, slopes, strict=True):
                slope = gradient + 0.001 * self.values[name]
                self.velocity[name] = 0.9 * self.velocity[name] + slope if name in self.velocity else slope
                scale = 0.1 if name.startswith("backbone.") else 1.0
                self.values[name] -= scale * rate * (slope + 0.9 * self.velocity[name])


def same(method: Shot, plain: Plain) -> None:
    for name, parameter in method.named_parameters():
        assert torch.allclose(parameter, plain.values[name], rtol=0, atol=1e-9), name


@pytest.mark.parametrize(
    "options", [{}, {"pseudo_weight": 0.0}, {"pseudo_weight": 0.5, "entropy_weight": 2.0, "smallest_class": 3}]
)
def test_both_phases_in_three_steps_each(options: dict[str, Any]) -> None:
    scenario = toy_scenario(family="uda", train=9)  # 18 images of each domain: 3 steps a pass
    method = make(scenario, epochs=1, interval=3, **options)
    plain = Plain(method)
    target = scenario.experiences[0].target
    assert target is not None
    everything = PIPELINE.eval(target.images(slice(None))).double()
    for step in range(3):
        batch = source_batch(scenario, slice(6 * step, 6 * step + 6))
        logs = plain.logits(plain.features(batch.images)).log_softmax(1)
        goal = 0.9 * F.one_hot(batch.labels, 2).double() + 0.1 / 2
        loss = -(goal * logs).sum(1).mean()
        plain.descend(loss, 0.01 * (1 + 10 * (step + 1) / 3) ** -0.75)
        found = method.train_step(by_hand.at(batch, step, each=3, epochs=2))
        assert float(found["loss"]) == pytest.approx(loss.item(), abs=1e-10)
    same(method, plain)
    hypothesis = {name: value.clone() for name, value in method.head.state_dict().items()}
    plain.velocity.clear()  # the official code makes a new optimiser
    weight, smallest = options.get("pseudo_weight", 0.3), options.get("smallest_class", 0)
    for step in range(3):
        mean, variance = (method.get_buffer(f"bottleneck.1.running_{name}").clone() for name in ("mean", "var"))
        batch = target_batch(scenario, slice(6 * step, 6 * step + 6))
        assert batch.target is not None
        assert batch.target_index is not None
        with torch.no_grad():
            known = plain.features(everything, statistics=(mean, variance))
            labels = torch.tensor(restated_labels(known, plain.logits(known), smallest))
        logits = plain.logits(plain.features(batch.target))
        p = logits.softmax(1)
        information = (-p * torch.log(p + 1e-5)).sum(1).mean() + (p.mean(0) * torch.log(p.mean(0) + 1e-5)).sum()
        assert information.item() == pytest.approx(restated_information(logits.detach()), abs=1e-12)
        loss = options.get("entropy_weight", 1.0) * information
        if weight:
            picked = logits.log_softmax(1)[torch.arange(6), labels[batch.target_index]]
            loss = loss - weight * picked.mean()
        plain.descend(loss, 0.01 * (1 + 10 * (step + 1) / 3) ** -0.75, frozen="head")
        found = method.train_step(by_hand.at(batch, 3 + step, each=3, epochs=2))
        assert float(found["loss"]) == pytest.approx(loss.item(), abs=1e-10)
        assert float(found["information"]) == pytest.approx(information.item(), abs=1e-10)
        assert ("loss_pseudo" in found) == (weight > 0)
    same(method, plain)
    assert all(torch.equal(value, hypothesis[name]) for name, value in method.head.state_dict().items())
    assert all(parameter.requires_grad for parameter in method.parameters())  # counted as trained: it was


def test_labelling_leaves_everything_as_it_is() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(scenario)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.get_rng_state()
    labels = method.label_target()
    assert labels.shape == (18,)
    assert method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    small = make(scenario, batch_size=1)  # chunks of 4 images
    small.load_state_dict(method.state_dict())
    assert torch.equal(small.label_target(), labels)


# --- in the engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "epochs", "places"),
    [(3, 3, [3, 6, 9]), (1, 3, [3]), (2, 1, [3, 4, 5]), (100, 1, [3, 4, 5]), (6, 3, [3, 4, 5, 6, 7, 8, 9, 10, 11])],
)
def test_pseudo_labels_are_computed_at_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int, epochs: int, places: list[int]
) -> None:
    asked: list[int] = []
    steps: list[int] = []
    label_target, train_step = Shot.label_target, Shot.train_step

    def counts(self: Shot) -> Tensor:
        asked.append(steps[-1])
        return label_target(self)

    def steps_on(self: Shot, batch: Batch) -> Any:
        steps.append(batch.place.step)
        return train_step(self, batch)

    monkeypatch.setattr(Shot, "label_target", counts)
    monkeypatch.setattr(Shot, "train_step", steps_on)
    (spec,) = shot.bench_register_methods()
    config = spec.config(batch_size=6, source_epochs=1, epochs=epochs, bottleneck=8, interval=interval)
    prepared = prepare_toy(
        build=lambda _, context: Shot(config, context),  # type: ignore[arg-type]
        uses=USES,
        family="uda",
        train=9,
        settings={"batch_size": "6"},
    )
    engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    # 3 source steps, then a target phase whose steps are cut into `interval` parts, rounded down.
    every = max(1, 3 * epochs // interval)
    assert asked == places == list(range(3, 3 + 3 * epochs, every))


def test_it_reads_the_source_first_and_then_the_target_alone() -> None:
    method = make(toy_scenario(family="uda"), source_epochs=2, epochs=3)
    assert method.passes() == ("train",) * 5
    assert [method.reads(epoch) for epoch in range(5)] == ["source", "source", "target", "target", "target"]


def test_nothing_of_the_target_is_left_in_the_end() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(scenario)
    for step in range(3):
        method.train_step(by_hand.at(source_batch(scenario, slice(6 * step, 6 * step + 6)), step, each=3, epochs=3))
    method.train_step(by_hand.at(target_batch(scenario, slice(0, 6)), 3, each=3, epochs=3))
    assert len(method.extra_state()["labels"]) == 18
    again = make(scenario)
    again.load_extra_state(method.extra_state())
    assert torch.equal(again.extra_state()["labels"], method.extra_state()["labels"])
    assert method.progress(by_hand.place(4, each=3, epochs=3)) == pytest.approx(2 / 6)
    method.end_experience(by_hand.view_of(method, scenario, 0))
    assert len(method.extra_state()["labels"]) == 0
    assert method.optimizer is None
    with pytest.raises(RuntimeError, match="no target to label"):
        method.label_target()


def test_where_it_runs_and_what_it_says_elsewhere() -> None:
    (spec,) = shot.bench_register_methods()
    for family in ("class-il", "domain-il", "dg", "few-shot"):
        assert refusal(spec, USES, toy_scenario(family=family)) == "it has no unlabelled target domain to adapt to"
    assert refusal(spec, USES, toy_scenario(family="uda")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 5}, "iterations: 5 has no effect here"),
        ({"bottleneck": 0}, "bottleneck: 0 would leave no layer"),
        ({"source_epochs": 0}, "source_epochs: 0 is too small"),
        ({"interval": 0}, "interval: 0 is too small"),
        ({"pseudo_weight": -1.0}, "pseudo_weight: -1.0 is negative"),
        ({"smallest_class": -1}, "smallest_class: -1 is negative"),
    ],
)
def test_options_out_of_range(changes: dict[str, Any], message: str) -> None:
    (spec,) = shot.bench_register_methods()
    with pytest.raises(UsageError, match=message):
        configs.resolve(spec.config, [configs.Layer("--set", changes)], key="shot")
