"""Source-only, target-oracle, DANN, CDAN, Deep CORAL: every term and step written out once more, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench_methods import cdan, dann, deep_coral, source_only, target_oracle
from bench_methods._adversarial import Conditional, RandomMap, certainty, outer, reverse, warm_up
from bench_methods.dann import DANN
from bench_methods.deep_coral import coral
from benchmark import config as configs
from benchmark.api import Batch, Scenario
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.learners.adaptation import Adaptation, BatchNorm, entropy
from benchmark.run.preparation import refusal
from benchmark.testing import by_hand
from benchmark.testing.toys import toy_scenario

PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
EPS = 1e-5  # of BatchNorm


def make(module: ModuleType, scenario: Scenario, recipe: str = "", **changes: Any) -> Any:
    """A method in float64, ready for its first batch."""
    (spec,) = module.bench_register_methods()
    values = {**spec.recipes.get(recipe, {}), "batch_size": 6, "epochs": 3, "iterations": 0, **changes}
    config = spec.config(**values)
    torch.manual_seed(1)
    method = spec.build(config, by_hand.context_of(spec, config, scenario)).double()
    by_hand.begin(method, scenario, 0)
    return method.double()  # what was made for the experience, too


def batches(scenario: Scenario, sizes: tuple[int, ...] = (6, 6, 4), target: int = 6) -> list[Batch]:
    """Batches of source images, each with as many target images where there is a target; all in float64."""
    experience = scenario.experiences[0]
    generator = torch.Generator().manual_seed(3)
    made = []
    for size in sizes:
        rows = torch.randperm(len(experience.train), generator=generator)[:size]
        images = PIPELINE.eval(experience.train.images(rows)).double()
        domains = None if experience.train.domains is None else experience.train.domains[rows]
        other = index = None
        if experience.target is not None:
            index = torch.randperm(len(experience.target), generator=generator)[:target]
            other = PIPELINE.eval(experience.target.images(index)).double()
        made.append(Batch(images, experience.train.labels[rows], other, index, domains))
    return made


class Plain:
    """The model of a method as a dictionary of tensors, its passes and its optimiser by the book."""

    def __init__(self, method: Adaptation) -> None:
        self.vit = method.backbone
        self.values = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
        self.velocity: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}

    def features(self, images: Tensor) -> Tensor:
        own = {name[9:]: value for name, value in self.values.items() if name.startswith("backbone.")}
        rows: Tensor = torch.func.functional_call(self.vit, own, (images,))  # timm's own pass
        if "bottleneck.0.weight" in self.values:
            rows = self.norm("bottleneck.1", self.linear("bottleneck.0", rows)).relu()
        return rows

    def linear(self, name: str, rows: Tensor) -> Tensor:
        return rows @ self.values[f"{name}.weight"].T + self.values[f"{name}.bias"]

    def norm(self, name: str, rows: Tensor) -> Tensor:
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        self.means[name] = 0.9 * self.means.get(name, torch.zeros(())) + 0.1 * mean.detach()
        return (rows - mean) / (variance + EPS).sqrt() * self.values[f"{name}.weight"] + self.values[f"{name}.bias"]

    def discriminate(self, rows: Tensor) -> Tensor:
        for place in (0, 3):
            rows = self.norm(f"discriminator.{place + 1}", self.linear(f"discriminator.{place}", rows)).relu()
        return self.linear("discriminator.6", rows)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.values.values()), retain_graph=True, allow_unused=True)
        return {name: g for name, g in zip(self.values, found, strict=True) if g is not None}

    def descend(self, gradients: Mapping[str, Tensor], rates: tuple[float, float], decay: float) -> None:
        """Nesterov's step; ``rates`` of the backbone and of the rest."""
        with torch.no_grad():
            for name, gradient in gradients.items():
                value = self.values[name]
                slope = gradient + decay * value
                self.velocity[name] = 0.9 * self.velocity[name] + slope if name in self.velocity else slope
                value -= rates[not name.startswith("backbone.")] * (slope + 0.9 * self.velocity[name])


Restated = Callable[[Plain, Batch, Tensor, Tensor], Tensor]


def follow(
    method: Adaptation, steps: list[Batch], term: Restated | None, *, adversarial: bool, weight: float = 1.0
) -> None:
    """Three steps of the method and of the restatement; losses and parameters must stay together to 1e-9."""
    plain, config = Plain(method), method.config
    total = 3 * math.ceil(len_train(method) / config.batch_size)
    frozen = {
        name: value.clone() for name, value in method.named_buffers() if "running" not in name and "num_" not in name
    }
    for step, batch in enumerate(steps):
        images = batch.images if batch.target is None else torch.cat([batch.images, batch.target])
        features = plain.features(images)
        logits = features @ plain.values["head.weight"].T + plain.values["head.bias"]
        picked = logits[: len(batch)].log_softmax(1)[torch.arange(len(batch)), batch.labels]
        cross_entropy = -picked.mean()
        gradients = plain.gradients(cross_entropy)
        found = method.train_step(by_hand.at(batch, step, each=total // 3, epochs=3))
        assert number(found["loss_ce"]) == pytest.approx(number(cross_entropy), abs=1e-10)
        if term is not None:
            alignment = term(plain, batch, features, logits)
            assert number(found["alignment"]) == pytest.approx(number(alignment), abs=1e-10)
            assert number(found["loss"]) == pytest.approx(number(cross_entropy + weight * alignment), abs=1e-10)
            strength = 2 / (1 + math.exp(-10 * step / total)) - 1 if adversarial else -1.0
            for name, gradient in plain.gradients(alignment).items():
                sign = 1.0 if name.startswith("discriminator.") else -strength
                gradients[name] = gradients.get(name, torch.zeros(())) + weight * sign * gradient
        rate = 0.01 * (1 + 10 * step / total) ** -0.75
        plain.descend(gradients, (0.1 * rate, rate), config.weight_decay)
    for name, parameter in method.named_parameters():
        assert torch.allclose(parameter, plain.values[name], rtol=0, atol=1e-9), name
    for name, mean in plain.means.items():
        assert torch.allclose(method.get_buffer(f"{name}.running_mean"), mean, rtol=0, atol=1e-9), name
    assert all(torch.equal(method.get_buffer(name), value) for name, value in frozen.items())


def len_train(method: Adaptation) -> int:
    return method._per_pass * method.config.batch_size


def number(value: Tensor | float) -> float:
    """A term of a loss as a number."""
    return float(value.detach()) if isinstance(value, Tensor) else value


def bce(logits: Tensor, source: bool) -> Tensor:
    """Mean binary cross-entropy of probabilities, image by image."""
    losses = [-torch.log(p if source else 1 - p) for p in (1 / (1 + torch.exp(-logits[:, 0])))]
    return torch.stack(losses).mean()


# --- three steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"bottleneck": 8}])
def test_source_only_is_plain_fine_tuning(changes: dict[str, Any]) -> None:
    scenario = toy_scenario(family="uda", train=9)
    steps = [Batch(batch.images, batch.labels) for batch in batches(scenario)]
    follow(make(source_only, scenario, **changes), steps, None, adversarial=False)


@pytest.mark.parametrize("trade_off", [1.0, 0.3])
def test_dann_in_three_steps(trade_off: float) -> None:
    scenario = toy_scenario(family="uda", train=9)

    def term(plain: Plain, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        found = plain.discriminate(features)
        return (bce(found[: len(batch)], True) + bce(found[len(batch) :], False)) / 2

    method = make(dann, scenario, bottleneck=8, hidden=12, trade_off=trade_off)
    follow(method, batches(scenario), term, adversarial=True, weight=trade_off)


def test_dann_between_source_domains() -> None:
    scenario = toy_scenario(family="dg", train=9)

    def term(plain: Plain, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        assert batch.domains is not None
        found = plain.discriminate(features)
        assert found.shape == (len(batch), 2)
        picked = [
            found[row, domain] - found[row].exp().sum().log() for row, domain in enumerate(batch.domains.tolist())
        ]
        return -torch.stack(picked).mean()

    follow(make(dann, scenario, bottleneck=8, hidden=12), batches(scenario), term, adversarial=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("randomized", ["never", "always"])
def test_cdan_in_three_steps(randomized: str, weighted: bool) -> None:
    scenario = toy_scenario(family="uda", train=9, classes=3)
    options: dict[str, Any] = {"randomized": randomized, "randomized_dim": 10, "entropy": weighted}
    method = make(cdan, scenario, bottleneck=8, hidden=12, **options)

    def term(plain: Plain, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        rows, losses, weights = [], [], []
        for feature, logit in zip(features, logits, strict=True):
            predictions = (logit.exp() / logit.exp().sum()).detach()
            if method.projection is None:
                rows.append(torch.cat([prediction * feature for prediction in predictions]))
            else:
                one, two = method.projection.of_features, method.projection.of_predictions
                rows.append((one.T @ feature) * (two.T @ predictions) / math.sqrt(10))
            weights.append(1 + math.exp(sum(float(p) * math.log(float(p) + 1e-5) for p in predictions)))
        for row, logit in enumerate(plain.discriminate(torch.stack(rows))[:, 0]):
            p = 1 / (1 + torch.exp(-logit))
            losses.append(-torch.log(p if row < len(batch) else 1 - p))
        if not weighted:
            weights = [1.0] * len(losses)
        return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)  # type: ignore[return-value]

    follow(method, batches(scenario), term, adversarial=True)


@pytest.mark.parametrize("layer", ["logits", "features"])
@pytest.mark.parametrize("form", ["paper", "domainbed"])
def test_deep_coral_in_three_steps(form: str, layer: str) -> None:
    scenario = toy_scenario(family="uda", train=9, classes=3)

    def term(plain: Plain, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        rows = logits if layer == "logits" else features
        return restated_coral(rows[: len(batch)], rows[len(batch) :], form)

    method = make(deep_coral, scenario, form=form, layer=layer, trade_off=0.7)
    follow(method, batches(scenario), term, adversarial=False, weight=0.7)


def test_deep_coral_between_source_domains() -> None:
    scenario = toy_scenario(family="dg", train=9)

    def term(plain: Plain, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        assert batch.domains is not None
        one, two = (logits[batch.domains == number] for number in (0, 1))
        return restated_coral(one, two, "paper")

    follow(make(deep_coral, scenario), batches(scenario, (12, 12, 10)), term, adversarial=False)


def test_dann_alternates_as_domainbed_does() -> None:
    """Two optimisers there, one here: the side whose turn it is not stays as it is, moments included."""
    scenario = toy_scenario(family="dg", train=9)
    changes: dict[str, Any] = {"lr": 0.003, "weight_decay": 0.01, "hidden": 12}
    method = make(dann, scenario, "domainbed", **changes)
    plain = Plain(method)
    others = [value for name, value in plain.values.items() if not name.startswith("discriminator.")]
    own = [value for name, value in plain.values.items() if name.startswith("discriminator.")]
    classifier, discriminator = (
        torch.optim.Adam(side, lr=0.003, betas=(0.5, 0.9), weight_decay=0.01) for side in (others, own)
    )

    def domain_loss(batch: Batch, features: Tensor) -> Tensor:
        assert batch.domains is not None
        rows = features
        for name in ("discriminator.0", "discriminator.2"):
            rows = plain.linear(name, rows).relu()
        return F.cross_entropy(plain.linear("discriminator.4", rows), batch.domains)

    for count, batch in enumerate(batches(scenario, (6, 6, 4, 6)), start=1):
        before = {name: value.detach().clone() for name, value in method.named_parameters()}
        features = plain.features(batch.images)
        logits = plain.linear("head", features)
        loss = domain_loss(batch, features)
        turn = discriminator if count % 2 == 0 else classifier
        goal = loss if count % 2 == 0 else F.cross_entropy(logits, batch.labels) - loss
        classifier.zero_grad()
        discriminator.zero_grad()
        goal.backward()  # type: ignore[no-untyped-call]
        turn.step()
        found = method.train_step(by_hand.at(batch, count - 1))
        assert number(found["loss"]) == pytest.approx(number(goal), abs=1e-10)
        for name, value in method.named_parameters():
            moves = name.startswith("discriminator.") == (count % 2 == 0)
            assert torch.equal(value, before[name]) != moves, name
            gap = (value - plain.values[name]).abs()
            if name.endswith("qkv.bias"):  # keys' biases have no gradient but rounding, which Adam makes large
                gap = gap.view(3, -1)[[0, 2]]
            assert number(gap.max()) < 1e-9, name


def test_several_steps_of_the_discriminator_for_one_of_the_rest() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(dann, scenario, "domainbed", discriminator_steps=2, hidden=12, lr=0.003)
    turns = []
    for step, batch in enumerate(batches(scenario, (6,) * 6)):
        before = method.head.weight.detach().clone()
        method.train_step(by_hand.at(batch, step))
        turns.append("D" if torch.equal(before, method.head.weight) else "G")
    assert "".join(turns) == "DGDDGD"  # DomainBed: step n (from 1) is the discriminator's where n % 3 < 2


def test_without_its_adversary_dann_is_source_only() -> None:
    scenario = toy_scenario(family="uda", train=9)
    one = make(dann, scenario, trade_off=0.0, bottleneck=0, hidden=12)
    two = make(source_only, scenario)
    two.load_state_dict({name: value for name, value in one.state_dict().items() if "discriminator" not in name})
    for batch in batches(scenario):
        one.train_step(batch)
        two.train_step(Batch(batch.images, batch.labels))
    for name, value in two.named_parameters():
        assert torch.allclose(value, dict(one.named_parameters())[name], rtol=0, atol=1e-12), name


def test_a_frozen_backbone_is_not_touched() -> None:
    scenario = toy_scenario(family="uda", train=9)
    for module in (source_only, dann, cdan, deep_coral):
        method = make(module, scenario, backbone_lr_scale=0.0, bottleneck=8)
        before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
        head = method.head.weight.detach().clone()
        for batch in batches(scenario):
            assert not method.backbone.training
            method.train_step(batch if module is not source_only else Batch(batch.images, batch.labels))
        assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
        assert not torch.equal(head, method.head.weight)


# --- schedules -------------------------------------------------------------------------------------


def test_lambda_rises_as_in_the_paper() -> None:
    assert warm_up(0.0, 10.0) == 0.0
    assert warm_up(0.1, 10.0) == pytest.approx(math.tanh(0.5))
    assert warm_up(1.0, 10.0) == pytest.approx(0.9999092)
    scenario = toy_scenario(family="uda", train=9)  # 3 steps a pass
    method = make(dann, scenario, epochs=4)
    assert method.strength(by_hand.place(6, each=3, epochs=4)) == pytest.approx(2 / (1 + math.exp(-5)) - 1)


def test_the_clocks_of_the_library() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(dann, scenario, "tll", hidden=12)
    assert method.strength(by_hand.place(0)) == 0.0
    for step in (1, 500, 1000, 5000):
        assert method.strength(by_hand.place(step)) == pytest.approx(2 / (1 + math.exp(-step / 1000)) - 1)
        assert method.factor(by_hand.place(step)) == pytest.approx((1 + 0.001 * step) ** -0.75)
    plain = make(source_only, scenario, "tll")
    assert plain.factor(by_hand.place(1000)) == pytest.approx(1.3**-0.75)
    steady = make(source_only, scenario, "domainbed")
    assert steady.factor(by_hand.place(1000)) == 1.0


def test_rates_reach_the_optimiser() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(dann, scenario, lr=0.02, epochs=1, hidden=12)
    assert method.optimizer is not None
    for step, batch in enumerate(batches(scenario)):
        method.train_step(by_hand.at(batch, step, each=3))
        new, old = (group["lr"] for group in method.optimizer.param_groups)
        assert new == pytest.approx(0.02 * (1 + 10 * step / 3) ** -0.75)
        assert old == pytest.approx(new / 10)
    names = {id(value): name for name, value in method.named_parameters()}
    held = [{names[id(p)].split(".")[0] for p in group["params"]} for group in method.optimizer.param_groups]
    assert held == [{"bottleneck", "head", "discriminator"}, {"backbone"}]


@pytest.mark.parametrize(("iterations", "passes"), [(0, 3), (1, 1), (9, 3), (10, 4)])
def test_iterations_become_whole_passes(iterations: int, passes: int) -> None:
    scenario = toy_scenario(family="uda", train=9)  # 18 images: 3 steps a pass
    method = make(source_only, scenario, iterations=iterations)
    assert len(method.passes()) == passes


def test_everything_on_one_track_takes_the_same_steps() -> None:
    found: dict[str, set[tuple[int, ...]]] = {}
    for module in (source_only, target_oracle, dann, cdan, deep_coral):
        (spec,) = module.bench_register_methods()
        for track in ("nano", "mini"):
            config: Any = configs.resolve(spec.config, [configs.Layer(track, spec.tracks[track])], key=spec.name)[0]
            found.setdefault(track, set()).add((config.epochs, config.batch_size, config.iterations))
    assert all(len(budgets) == 1 for budgets in found.values())


# --- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_the_reversal_turns_the_gradient_and_nothing_else(strength: float) -> None:
    rows = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64)
    plain = torch.autograd.grad((rows @ weight).sin().sum(), rows)[0]
    passed = reverse(rows, strength)
    assert torch.equal(passed, rows)
    turned = torch.autograd.grad((passed @ weight).sin().sum(), rows)[0]
    assert torch.allclose(turned, -strength * plain, rtol=0, atol=1e-15)


def test_a_batch_of_one_uses_the_running_statistics() -> None:
    norm = BatchNorm(3).train()
    norm(torch.randn(8, 3))
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    row = torch.randn(1, 3)
    trained = norm(row)
    assert torch.equal(trained, norm.eval()(row))
    assert all(torch.equal(value, state[name]) for name, value in norm.state_dict().items())
    norm.train()(torch.randn(2, 3))
    assert not torch.equal(norm.running_mean, state["running_mean"])  # type: ignore[arg-type]


def test_at_test_time_an_image_is_alone() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(dann, scenario, bottleneck=8, hidden=12)
    for batch in batches(scenario):
        method.train_step(batch)
    images = batches(scenario)[0].images
    method.eval()
    alone = torch.cat([method.predict(image[None]) for image in images])
    assert torch.allclose(alone, method.predict(images), rtol=0, atol=1e-12)


def test_the_discriminator_is_gone_in_the_end() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(cdan, scenario, randomized="always", hidden=12)
    assert isinstance(method, Conditional)
    assert method.projection is not None
    method.end_experience(by_hand.view_of(method, scenario, 0))
    assert [method.discriminator, method.projection, method.optimizer] == [None, None, None]
    assert not any("discriminator" in name or "projection" in name for name in method.state_dict())


def restated_coral(one: Tensor, two: Tensor, form: str) -> Tensor:
    width = one.shape[1]
    distance = (torch.cov(one.T) - torch.cov(two.T)).pow(2).sum() / width**2
    return distance / 4 if form == "paper" else distance + (one.mean(0) - two.mean(0)).pow(2).sum() / width


def matrices(rows: int, columns: int) -> st.SearchStrategy[Tensor]:
    cells = st.lists(st.floats(-5, 5, width=32), min_size=rows * columns, max_size=rows * columns)
    return cells.map(lambda values: torch.tensor(values, dtype=torch.float64).view(rows, columns))


@settings(max_examples=30, deadline=None)
@given(matrices(5, 3), matrices(4, 3), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_properties_of_coral(one: Tensor, two: Tensor, shift: list[float]) -> None:
    moved = torch.tensor(shift, dtype=torch.float64)
    forms: tuple[deep_coral.Form, ...] = ("paper", "domainbed")
    for form in forms:
        distance = coral(one, two, form)
        assert float(distance) == pytest.approx(float(restated_coral(one, two, form)), abs=1e-9)
        assert float(distance) == pytest.approx(float(coral(two, one, form)), abs=1e-9)
        assert float(distance) >= 0
        assert float(coral(one, one.flip(0), form)) == pytest.approx(0.0, abs=1e-18)
    # Covariances do not see a shift; the means of the other form do, by its mean square.
    assert float(coral(one, one + moved)) == pytest.approx(0.0, abs=1e-18)
    assert float(coral(one, two + moved)) == pytest.approx(float(coral(one, two)), abs=1e-9)
    assert float(coral(one, one + moved, "domainbed")) == pytest.approx(float(moved.square().mean()), abs=1e-9)


def test_the_gradient_of_coral_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    two = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(coral(one, two), one)
    centred = (one - one.mean(0)).detach()
    wanted = centred @ (torch.cov(one.T) - torch.cov(two.T)).detach() / (4**2 * (7 - 1))  # equation 4
    assert torch.allclose(found, wanted, rtol=0, atol=1e-14)


def test_domains_of_a_single_image_are_left_out() -> None:
    scenario = toy_scenario(family="dg", train=9)
    method = make(deep_coral, scenario)
    rows = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(6, 3, 32, 32, dtype=torch.float64)

    def distance(*domains: int) -> Tensor:
        found = method.alignment(Batch(nothing, torch.zeros(6), domains=torch.tensor(domains)), rows, rows)
        assert isinstance(found, Tensor)
        return found

    pairs = [coral(rows[2 * i : 2 * i + 2], rows[2 * j : 2 * j + 2]) for i, j in itertools.combinations(range(3), 2)]
    assert torch.allclose(distance(0, 0, 1, 1, 2, 2), torch.stack(pairs).mean())
    assert torch.allclose(distance(0, 0, 0, 1, 1, 2), coral(rows[:3], rows[3:5]))
    assert float(distance(0, 0, 0, 0, 0, 1)) == 0.0
    batch = batches(scenario, (2,))[0]
    lonely = Batch(batch.images, batch.labels, domains=torch.tensor([0, 1]))
    assert math.isfinite(number(method.train_step(lonely)["loss"]))


def test_one_source_image_beside_a_target_batch() -> None:
    scenario = toy_scenario(family="uda", train=9)
    for module in (dann, cdan, deep_coral):
        method = make(module, scenario)
        (batch,) = batches(scenario, (1,))
        terms = method.train_step(batch)
        assert all(math.isfinite(float(value)) for value in terms.values())
        assert (float(terms["alignment"]) == 0.0) == (module is deep_coral)


def test_the_outer_product_by_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    predictions = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    found = outer(features, predictions)
    for row, c, j in itertools.product(range(3), range(2), range(4)):
        assert float(found[row, c * 4 + j]) == float(predictions[row, c] * features[row, j])


def test_the_random_projection_keeps_inner_products_on_average() -> None:
    torch.manual_seed(0)
    outputs = 200_000
    random_map = RandomMap(4, 3, outputs).double()
    features, predictions = torch.randn(2, 4).double(), torch.rand(2, 3).double()
    projected = random_map(features, predictions)
    exact = outer(features, predictions)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        products = projected[i] * projected[j] * outputs  # their mean is the inner product
        error = float(products.std()) / math.sqrt(outputs)
        assert abs(float(products.mean() - exact[i] @ exact[j])) < 5 * error
        assert error < 0.1 * float(exact[0].norm() * exact[1].norm())
    assert [name for name, _ in random_map.named_parameters()] == []
    assert set(random_map.state_dict()) == {"of_features", "of_predictions"}


def test_entropy_and_certainty_by_loops() -> None:
    predictions = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [1 / 3] * 3], dtype=torch.float64)
    wanted = [-sum(p * math.log(p + 1e-5) for p in row) for row in predictions.tolist()]
    assert entropy(predictions).tolist() == pytest.approx(wanted, abs=1e-14)
    weights = certainty(predictions)
    raw = [1 + math.exp(-value) for value in wanted]
    assert weights.tolist() == pytest.approx([3 * value / sum(raw) for value in raw], abs=1e-14)
    assert float(weights[0]) > float(weights[1]) > float(weights[2])


def test_predictions_condition_without_gradient() -> None:
    scenario = toy_scenario(family="uda", train=9)
    method = make(cdan, scenario, bottleneck=8, hidden=12, entropy=True, weight_decay=0.0)
    batch = by_hand.at(batches(scenario, (6,))[0], 5, each=3, epochs=30)
    assert batch.target is not None
    features = method.features(torch.cat([batch.images, batch.target]))
    loss = method.alignment(batch, features, method.head(features))
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    assert method.head.weight.grad is None
    assert method.bottleneck[0].weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "projected"),
    [
        ({"widest": 16}, False),
        ({"widest": 15}, True),
        ({"randomized": "always"}, True),
        ({"randomized": "never"}, False),
    ],
)
def test_wide_products_are_projected(changes: dict[str, Any], projected: bool) -> None:
    scenario = toy_scenario(family="uda", train=9)  # 2 classes x 8
    method = make(cdan, scenario, bottleneck=8, hidden=12, randomized_dim=5, **changes)
    assert (method.projection is not None) == projected
    assert method.discriminator is not None
    assert method.discriminator[0].in_features == (5 if projected else 16)


# --- where they run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "runs"),
    [
        (source_only, {"uda", "dg"}),
        (target_oracle, {"uda"}),
        (dann, {"uda", "dg"}),
        (deep_coral, {"uda", "dg"}),
        (cdan, {"uda"}),
    ],
)
def test_supports_gives_reasons(module: ModuleType, runs: set[str]) -> None:
    (spec,) = module.bench_register_methods()
    for family in ("class-il", "domain-il", "uda", "dg", "few-shot", "base-to-new", "cross-dataset"):
        reason = refusal(spec, spec.uses_of(spec.config()), toy_scenario(family=family))
        assert (reason is None) == (family in runs), family
        if reason is not None:
            assert any(word in reason for word in ("target", "source", "known by name only"))


def test_one_source_domain_is_nothing_to_generalise_from() -> None:
    scenario = toy_scenario(family="dg")
    lonely = scenario.__class__(
        **{
            **vars(scenario),
            "experiences": (type(scenario.experiences[0])(**{**vars(scenario.experiences[0]), "sources": ("ink",)}),),
        }
    )
    for module in (dann, deep_coral):
        (spec,) = module.bench_register_methods()
        assert spec.supports is not None
        assert "one source domain" in str(spec.supports(lonely))


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (source_only, {"lr": 0.0}, "lr: 0.0 is not positive"),
        (source_only, {"iterations": -1}, "iterations: -1 is negative"),
        (source_only, {"momentum": 1.0}, "momentum: 1.0 is out of range"),
        (dann, {"trade_off": -1.0}, "trade_off: -1.0 is negative"),
        (dann, {"hidden": 0}, "hidden: 0 is too small"),
        (dann, {"discriminator_steps": 0}, "discriminator_steps: 0 is too small"),
        (cdan, {"randomized_dim": 0}, "randomized_dim: 0 is too small"),
        (cdan, {"widest": -1}, "widest: -1 is negative"),
        (deep_coral, {"trade_off": -0.1}, "trade_off: -0.1 is negative"),
    ],
)
def test_options_out_of_range(module: ModuleType, changes: dict[str, Any], message: str) -> None:
    (spec,) = module.bench_register_methods()
    with pytest.raises(UsageError, match=message):
        configs.resolve(spec.config, [configs.Layer("--set", changes)], key=spec.name)


def test_dann_has_the_size_that_the_library_says() -> None:
    """Bottleneck and discriminator of 1024: (D + 1) d + 2 d and (d + 1) h + 2 h + (h + 1) h + 2 h + h + 1."""
    scenario = toy_scenario(family="uda")
    method = make(dann, scenario)
    assert isinstance(method, DANN)
    assert method.discriminator is not None
    width, d, h = 32, 256, 1024
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in method.named_children()}
    assert count["bottleneck"] == (width + 1) * d + 2 * d
    assert count["discriminator"] == (d + 1) * h + 2 * h + (h + 1) * h + 2 * h + h + 1
    assert count["head"] == 2 * (d + 1)
