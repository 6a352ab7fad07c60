"""DAPL against figures of the official implementation on closed-form weights, and against its formulas written out."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods.dapl import DAPL, DAPLConfig, bench_register_methods, supports
from benchmark.api import Batch, Context, ExperienceView, ImageSet, Manifest, Scenario
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.text import TextTower
from benchmark.backbones.text_prompts import domain_placeholders
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.run import costs
from benchmark.testing import toys
from benchmark.testing.by_hand import at, place
from benchmark.testing.clip_methods import full_texts
from benchmark.testing.closed_form import fill, image_batch, tiny_clip

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("dog", "sea_turtle", "aircraft_carrier")
USES = frozenset({"boundaries", "class_names", "domains", "unlabelled"})
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
LABELS = torch.tensor([2, 0])
DOMAINS = torch.zeros(2, dtype=torch.int64)
BETWEEN = 0.4856157  # a threshold between the two confidences
NAIVE = {
    "x": [[2.3673501, 5.6906137, 5.6839190], [-2.5533500, -0.0079011, -0.0028186]],
    "u": [[-1.3309817, 1.0874163, 1.0842144], [1.3673909, 4.6037316, 4.6095419]],
}
UNIFIED = {
    "x": [
        [5.3199515, 2.5191331, 2.5272291, 2.6969101, 5.3248081, 5.2690458],
        [-0.1081656, -2.3437266, -2.3430896, -2.2458279, -0.0729370, -0.1271576],
    ],
    "u": [
        [0.9450127, -1.2555482, -1.2477679, -1.3931205, 0.9537684, 0.9388106],
        [4.5396957, 1.6948330, 1.6975131, 1.6572308, 4.5621576, 4.5349760],
    ],
}
CSC = {
    "x": [
        [5.3199515, 2.5118079, 2.5270691, 2.6969101, 5.3679771, 5.4181728],
        [-0.1081656, -2.3501568, -2.3432503, -2.2458279, -0.0614709, -0.0314366],
    ],
    "u": [
        [0.9450127, -1.2551959, -1.2472379, -1.3931205, 1.0058628, 1.0338563],
        [4.5396957, 1.6891688, 1.6964653, 1.6572308, 4.5877552, 4.6114507],
    ],
}
# Class-specific, threshold; mask; L_u, norms of the gradients of domain vectors and ctx, first 3 of the latter.
STEPS = [
    (False, 0.0, [1, 1], 0.7334814, 0.2772406, 0.8404968, [0.0314200, -0.1030966, -0.0140252]),
    (False, BETWEEN, [0, 1], 0.7342008, 0.2796425, 1.1249977, [0.0566887, -0.1152779, -0.0338373]),
    (True, 0.0, [1, 1], 0.7292173, 0.3058328, 0.8628291, [0.0793099, 0.0925576, -0.0321273]),
    (True, BETWEEN, [0, 1], 0.7073963, 0.4683493, 1.1080823, [0.0792731, 0.0925500, -0.0321563]),
]


def scenario_of(
    names: tuple[str, ...] = NAMES, sources: tuple[str, ...] = ("art",), target: str = "real_world", train: int = 2
) -> Scenario:
    """A toy pair (or more) of domains with these names."""
    toy = toys.toy_scenario(family="uda", classes=len(names), train=train, test=1)
    (part,) = toy.experiences
    return dataclasses.replace(
        toy, class_names=names, experiences=(dataclasses.replace(part, sources=sources, domain=target),)
    )


def make(
    dtype: torch.dtype = torch.float32,
    *,
    scenario: Scenario | None = None,
    backbone: Backbone | None = None,
    fixed: bool = True,
    **options: Any,
) -> DAPL:
    """The method at the start of training, on the tiny CLIP; with the vectors of the fixtures if ``fixed``."""
    scenario = scenario_of() if scenario is None else scenario
    backbone = tiny_clip() if backbone is None else backbone
    context = Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=ImagePipeline("plain", size=32, mean=(0.0,) * 3, std=(1.0,) * 3),
        manifest=Manifest("dapl", USES),
    )
    sizes = {"shared_vectors": 2, "domain_vectors": 2} if fixed else {}
    method = DAPL(DAPLConfig(**{**sizes, **options}), context).to(dtype)
    method.begin_experience(ExperienceView(scenario, 0, Manifest("dapl", USES)))
    if fixed:
        with torch.no_grad():
            method.ctx.vectors.copy_(fill("ctx", tuple(method.ctx.vectors.shape), scale=0.02))
            method.domain_vectors.vectors.copy_(
                fill("domain_vectors", tuple(method.domain_vectors.vectors.shape), scale=0.02)
            )
    return method.train()


def batch_for(method: DAPL, domains: Tensor = DOMAINS) -> Batch:
    """The fixtures' images, as the engine hands them over."""
    dtype = method.ctx.vectors.dtype
    with torch.no_grad():
        source, target = (method.encode(image_batch(name).to(dtype)) for name in ("image", "image_u"))
    none = torch.empty(0, 3, 32, 32)
    return Batch(none, LABELS, none, torch.arange(2), domains, source, target)


def close(found: Tensor, expected: list[Any], tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


# --- figures of the official implementation ------------------------------------------------------------------------


def test_token_ids() -> None:
    prompts = make()._prompts
    assert prompts is not None
    x4 = [49406, 343, 343, 343, 343]
    assert prompts.ids[0, :12].tolist() == [*x4, 1929, 267, 320, 794, 2867, 852, 49407]
    assert prompts.ids[3].tolist()[:14] == [*x4, 1929, 267, 320, 1532, 318, 1002, 2867, 852, 49407]
    assert prompts.ends[[0, 3]].tolist() == [11, 13]
    one = make(stop=".")._prompts
    assert one is not None
    assert one.ids[0, :12].tolist() == [*x4, 1929, 267, 320, 794, 2867, 269, 49407]


@DTYPES
@pytest.mark.parametrize(("class_specific", "expected"), [(False, UNIFIED), (True, CSC)], ids=["unified", "csc"])
def test_logits_of_all_prompts_and_pseudo_labels(
    class_specific: bool, expected: dict[str, list[list[float]]], dtype: torch.dtype
) -> None:
    method = make(dtype, class_specific=class_specific)
    batch = batch_for(method)
    with torch.no_grad():
        for name, features in (("x", batch.features), ("u", batch.target_features)):
            assert features is not None
            logits = method.logits(features, method.texts())
            assert logits.shape == (2, 3, 3)
            rows = [learned + naive for learned, naive in zip(expected[name], NAIVE[name], strict=True)]
            close(logits.flatten(1), rows, 2e-5)
        terms = method.terms(batch)
    close(terms.confidence, [0.4794168, 0.4918146], 1e-6)
    assert terms.pseudo.tolist() == [1, 2]
    assert float(terms.source) == pytest.approx(1.5504450 if class_specific else 1.5508566, abs=1e-5)


@DTYPES
@pytest.mark.parametrize(("class_specific", "threshold", "mask", "loss", "own_norm", "ctx_norm", "first"), STEPS)
def test_losses_and_gradients(
    class_specific: bool,
    threshold: float,
    mask: list[int],
    loss: float,
    own_norm: float,
    ctx_norm: float,
    first: list[float],
    dtype: torch.dtype,
) -> None:
    method = make(dtype, class_specific=class_specific, threshold=threshold)
    batch = batch_for(method)
    assert method.terms(batch).mask.tolist() == [bool(one) for one in mask]
    found = method.train_step(batch)
    source = 1.5504450 if class_specific else 1.5508566
    assert float(found["loss_source"]) == pytest.approx(source, abs=1e-5)
    assert float(found["loss_target"]) == pytest.approx(loss, abs=1e-5)
    assert float(found["loss"]) == pytest.approx(source + loss, abs=2e-5)
    assert float(found["confident"]) == sum(mask) / 2
    own, ctx = method.domain_vectors.vectors.grad, method.ctx.vectors.grad
    assert own is not None
    assert ctx is not None
    assert float(own.norm()) == pytest.approx(own_norm, rel=2e-5)
    assert float(ctx.norm()) == pytest.approx(ctx_norm, rel=2e-5)
    close(ctx.flatten()[:3], first, 2e-6)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 1e-5),
        (1, 0.003),
        (2, 0.0015 * (1 + math.cos(math.pi / 25))),
        (13, 0.0015 * (1 + math.cos(math.pi * 12 / 25))),
        (26, 0.0),
        (51, 0.003),
        (76, 0.0),
    ],
)
def test_learning_rates_per_iteration(iteration: int, rate: float) -> None:
    method = make()
    method.train_step(at(batch_for(method), iteration))
    assert method.optimizer is not None
    assert [group["lr"] for group in method.optimizer.param_groups] == pytest.approx([rate], abs=1e-12)


def test_learning_rates_per_epoch_and_periods() -> None:
    method = make(scenario=scenario_of(train=5), batch_size=4, epochs=4, schedule="per_epoch")  # 15 images: 4 steps
    assert method.config.effective_period == 4
    rates = [method.rate(place(step, each=4)) for step in range(16)]
    expected = [1e-5, 0.003, 0.0015 * (1 + math.cos(math.pi / 4)), 0.0015]
    assert rates == pytest.approx([rate for rate in expected for _ in range(4)], abs=1e-15)
    apart = make(period=10, warmup=0, epochs=3)
    assert apart.config.effective_period == 10
    assert apart.rate(place(0)) == 0.003
    assert apart.rate(place(5)) == pytest.approx(0.0015)


@pytest.mark.parametrize(
    ("classes", "class_specific", "count"), [(12, False, 24_576), (12, True, 114_688), (65, True, 548_864)]
)
def test_parameter_counts_of_the_published_sizes(classes: int, class_specific: bool, count: int) -> None:
    backbone = toys.tiny_backbone(text=True)
    assert backbone.dual is not None
    with torch.random.fork_rng(devices=[]):
        backbone.dual.text = TextTower(
            vocabulary=len(backbone.dual.tokenizer), context=77, width=512, depth=1, heads=8, features=20, mlp_ratio=0.1
        )
    backbone.dual.requires_grad_(False)
    names = tuple(f"thing {place}" for place in range(classes))
    method = make(scenario=scenario_of(names, train=1), backbone=backbone, fixed=False, class_specific=class_specific)
    assert costs.trainable(method) == count
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count
    for vectors in (method.ctx.vectors, method.domain_vectors.vectors):
        assert float(vectors.detach().std()) == pytest.approx(0.02, rel=0.03)


# --- the formulas written out --------------------------------------------------------------------------------------


class ByHand:
    """Three lines of the paper, one SGD of one's own, and all 77 positions through open_clip's text transformer."""

    def __init__(self, method: DAPL) -> None:
        self.method = method
        self.dual = method.dual
        self.vectors = [p.detach().clone() for p in (method.ctx.vectors, method.domain_vectors.vectors)]
        self.momentum: list[Tensor] = []

    def rows(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Embeddings ``(R, 77, d_t)`` and ends, by the largest id."""
        ids = F.pad(ids := self.dual.tokenize(texts).ids, (0, 77 - ids.shape[1]))
        return self.dual.embed(ids).detach(), ids.argmax(dim=1)

    def texts(self, ctx: Tensor, own: Tensor) -> Tensor:
        rows, ends = self.rows(domain_placeholders(NAMES, self.method.domains, "X X X X", stop=".."))
        placed = []
        for domain in range(len(own)):
            for name in range(3):
                row = rows[domain * 3 + name]
                shared = ctx[name] if ctx.ndim == 3 else ctx
                placed.append(torch.cat([row[:1], shared, own[domain], row[5:]]))
        naive, last = self.rows([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
        return full_texts(torch.cat([torch.stack(placed), naive]), torch.cat([ends, last]))

    def losses(self, ctx: Tensor, own: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        assert batch.features is not None
        assert batch.target_features is not None
        assert batch.domains is not None
        t = self.texts(ctx, own)
        t = t / t.norm(dim=1, keepdim=True)
        x, u = (
            self.dual.logit_scale.exp() * f / f.norm(dim=1, keepdim=True) @ t.T
            for f in (batch.features, batch.target_features)
        )
        target, config = len(own) - 1, self.method.config
        source = x.new_zeros(())
        for row, (label, domain) in enumerate(zip(batch.labels.tolist(), batch.domains.tolist(), strict=True)):
            z = x[row, 3 * domain : 3 * domain + 3]
            source = source + (z.logsumexp(0) - z[label]) / len(batch)
        p = (u[:, -3:].detach() / config.temperature).softmax(dim=1)
        sure = [row for row in range(len(u)) if float(p[row].max()) >= config.threshold]
        terms = [
            u[row, 3 * target : 3 * target + 3].logsumexp(0) - u[row, 3 * target + int(p[row].argmax())] for row in sure
        ]
        return source, (torch.stack(terms).mean() if terms else source.detach() * 0), p

    def step(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """Losses before a step of SGD with momentum and weight decay."""
        ctx, own = (vector.clone().requires_grad_() for vector in self.vectors)
        source, target, _ = self.losses(ctx, own, batch)
        (source + self.method.config.target_weight * target).backward()  # type: ignore[no-untyped-call]
        config = self.method.config
        slopes = [p.grad + config.weight_decay * p.detach() for p in (ctx, own) if p.grad is not None]
        kept = self.momentum or [torch.zeros_like(slope) for slope in slopes]
        self.momentum = [config.momentum * v + slope for v, slope in zip(kept, slopes, strict=True)]
        self.vectors = [p - rate * v for p, v in zip(self.vectors, self.momentum, strict=True)]
        return source.detach(), target.detach()


@DTYPES
@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("schedule", ["per_iteration", "per_epoch"])
def test_three_steps_equal_the_formulas(schedule: str, class_specific: bool, dtype: torch.dtype) -> None:
    """Large vectors, so that the weight decay of 5e-4 and the momentum show."""
    options = {"class_specific": class_specific, "schedule": schedule, "threshold": BETWEEN, "target_weight": 0.7}
    method = make(dtype, batch_size=6, epochs=3, lr=0.5, warmup_lr=0.1, temperature=0.99, **options)
    with torch.no_grad():
        method.ctx.vectors.mul_(25)
        method.domain_vectors.vectors.mul_(25)
    hand, batch = ByHand(method), batch_for(method)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for step in range(3):
        rate = 0.1 if step == 0 else 0.25 * (1 + math.cos(math.pi * (step - 1) / 3))
        source, target = hand.step(batch, rate)
        found = method.train_step(at(batch, step))
        torch.testing.assert_close(found["loss_source"], source, rtol=0, atol=tolerance)
        torch.testing.assert_close(found["loss_target"], target, rtol=0, atol=tolerance)
        for ours, theirs in zip((method.ctx, method.domain_vectors), hand.vectors, strict=True):
            torch.testing.assert_close(ours.vectors.detach(), theirs, rtol=0, atol=tolerance)


def test_sgd_has_the_published_values_and_holds_the_vectors_alone() -> None:
    method = make()
    assert isinstance(method.optimizer, torch.optim.SGD)
    (group,) = method.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]) == (0.9, 5e-4, False, 0)
    assert [id(p) for p in group["params"]] == [id(method.ctx.vectors), id(method.domain_vectors.vectors)]
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    batch = batch_for(method)
    for _ in range(3):
        method.train_step(batch)
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"ctx.vectors", "domain_vectors.vectors"}
    assert not method.dual.training


# --- what the official code does not define, or does otherwise -----------------------------------------------------


@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "csc"])
def test_without_a_confident_image_the_source_trains_alone(class_specific: bool) -> None:
    method = make(torch.float64, threshold=1.0, class_specific=class_specific)
    alone = make(torch.float64, threshold=0.0, target_weight=0.0, class_specific=class_specific)
    batch = batch_for(method)
    found, expected = method.train_step(batch), alone.train_step(batch)
    assert float(found["loss_target"]) == float(found["confident"]) == 0.0
    assert float(found["loss"]) == float(found["loss_source"]) == float(expected["loss_source"])
    for ours, theirs in ((method.ctx, alone.ctx), (method.domain_vectors, alone.domain_vectors)):
        assert ours.vectors.grad is not None
        assert torch.isfinite(ours.vectors.grad).all()
        torch.testing.assert_close(ours.vectors.grad, theirs.vectors.grad, rtol=0, atol=1e-14)
        assert torch.isfinite(ours.vectors).all()
    assert method.domain_vectors.vectors.grad is not None
    assert not method.domain_vectors.vectors.grad[1].any()
    assert method.domain_vectors.vectors.grad[0].any()


def test_without_target_images_the_source_trains_alone() -> None:
    method = make()
    batch = batch_for(method)
    assert batch.target_features is not None
    empty = dataclasses.replace(batch, target_features=batch.target_features[:0])
    losses = method.train_step(empty)
    assert losses["loss"] == losses["loss_source"]
    assert losses["confident"] == 0


def test_the_temperature_changes_confidence_alone() -> None:
    plain, cool = (make(torch.float64, threshold=0.0, temperature=t) for t in (1.0, 0.5))
    one, other = plain.terms(batch_for(plain)), cool.terms(batch_for(cool))
    assert torch.equal(one.target, other.target)
    assert torch.equal(one.pseudo, other.pseudo)
    naive = torch.tensor(NAIVE["u"], dtype=torch.float64)
    torch.testing.assert_close(other.confidence, (naive / 0.5).softmax(dim=1).max(dim=1).values, rtol=0, atol=1e-5)


def test_the_naive_template_is_an_option() -> None:
    other = make(template="itap of a {}.")
    with torch.no_grad():
        naive = other.logits(other.encode(image_batch()), other.texts())[:, -1]
        expected = other.dual.logits(
            other.encode(image_batch()), other.dual.text_features([f"itap of a {n.replace('_', ' ')}." for n in NAMES])
        )
    torch.testing.assert_close(naive, expected, rtol=0, atol=1e-5)
    assert float((naive - torch.tensor(NAIVE["x"])).abs().max()) > 0.1


def three_domains() -> Scenario:
    """Two labelled sources, and a target."""
    scenario = scenario_of(sources=("art", "product"))
    (part,) = scenario.experiences
    train = part.train
    domains = torch.arange(len(train)) % 2
    train = ImageSet(train.source, train.rows, train.labels, train.ids, domains)
    return dataclasses.replace(scenario, experiences=(dataclasses.replace(part, train=train),))


@DTYPES
def test_several_sources_are_scored_by_the_prompts_of_their_own_domain(dtype: torch.dtype) -> None:
    method = make(dtype, scenario=three_domains(), threshold=0.0)
    assert method.domains == ("art", "product", "real_world")
    assert method.domain_vectors.vectors.shape == (3, 2, 48)
    batch, hand = batch_for(method, torch.tensor([1, 0])), ByHand(method)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    source, target, _ = hand.losses(*(vector.clone() for vector in hand.vectors), batch)
    terms = method.terms(batch)
    torch.testing.assert_close(terms.source.detach(), source, rtol=0, atol=tolerance)
    torch.testing.assert_close(terms.target.detach(), target, rtol=0, atol=tolerance)
    swapped = method.terms(batch_for(method, torch.tensor([0, 1])))
    assert float((swapped.source - terms.source).detach().abs()) > 1e-4
    method.train_step(batch)
    grad = method.domain_vectors.vectors.grad
    assert grad is not None
    assert all(bool(row.any()) for row in grad)


# --- prediction ----------------------------------------------------------------------------------------------------


def test_images_are_classified_by_the_prompts_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make()
    method.train_step(batch_for(method))
    method.eval()
    asked: list[int] = []
    features = method.dual.encode_text
    monkeypatch.setattr(method.dual, "encode_text", lambda *a, **k: asked.append(1) or features(*a, **k))
    images = image_batch("image_u")
    with torch.no_grad():
        expected = method.logits(method.encode(images), method.texts())[:, -2]
        asked.clear()
        torch.testing.assert_close(method.predict(images), expected, rtol=0, atol=1e-5)
        assert asked == [1]
        for _ in range(3):
            method.predict(images)
        assert asked == [1]  # text features are kept
        twin = copy.deepcopy(method)
        torch.testing.assert_close(twin.predict(images), expected, rtol=0, atol=1e-5)
        method.domain_vectors.vectors.mul_(-20)
        assert float((method.predict(images) - expected).abs().max()) > 1e-3  # until the vectors change


def test_a_finished_run_predicts_from_its_state() -> None:
    method = make(class_specific=True)
    method.train_step(batch_for(method))
    fresh = DAPL(method.config, method.context)
    fresh.load_state_dict(method.state_dict())
    fresh.load_extra_state(method.extra_state())
    images = image_batch("image_u")
    with torch.no_grad():
        assert torch.equal(fresh.eval().predict(images), method.eval().predict(images))
    with pytest.raises(RuntimeError, match="before begin_experience"):
        fresh.texts()


# --- where it runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["class-il", "domain-il", "dg", "few-shot", "base-to-new", "cross-dataset"])
def test_scenarios_without_a_target_are_refused_with_the_reason(family: str) -> None:
    reason = supports(toys.toy_scenario(family=family))
    assert reason is not None
    assert "target" in reason


def test_scenarios_with_a_named_target_are_not() -> None:
    assert supports(toys.toy_scenario(family="uda")) is None
    assert supports(three_domains()) is None
    (part,) = toys.toy_scenario(family="uda").experiences
    nameless = dataclasses.replace(part, domain=None, sources=())
    reason = supports(dataclasses.replace(toys.toy_scenario(family="uda"), experiences=(nameless,)))
    assert reason is not None
    assert "no names" in reason


def test_prompts_that_do_not_fit_the_text_tower_are_refused() -> None:
    with pytest.raises(UsageError, match="is longer than the 77"):
        make(fixed=False, shared_vectors=50, domain_vectors=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared_vectors": 0}, "shared_vectors: 0 is too small"),
        ({"domain_vectors": 0}, "domain_vectors: 0 is too small"),
        ({"temperature": 0.0}, "temperature: 0.0 is not positive"),
        ({"lr": -1.0}, "lr: -1.0 is not positive"),
        ({"threshold": 1.1}, "threshold: 1.1 is out of range"),
        ({"momentum": 1.0}, "momentum: 1.0 is out of range"),
        ({"target_weight": -1.0}, "target_weight: -1.0 is negative"),
        ({"period": -1}, "period: -1 is negative"),
        ({"template": "a photo"}, "template: 'a photo' must have one"),
        ({"views": -1}, "views: -1 is negative"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DAPLConfig(**options)


def test_recipes() -> None:
    spec = bench_register_methods()[0]
    made = {name: DAPLConfig(**recipe) for name, recipe in spec.recipes.items()}  # type: ignore[arg-type]
    assert made["paper"] == DAPLConfig()
    assert made["csc"].class_specific
    assert (made["pda"].stop, made["pda"].schedule, made["pda"].epochs) == (".", "per_epoch", 10)
    assert made["mini-domainnet"].effective_period == 15
