"""CoOp against figures of the official code on a CLIP whose weights are a formula, and against its own formulas.

Figures: KaiyangZhou/CoOp at ff61507c and KaiyangZhou/Dassl.pytorch at c61a1b57, float32; seven digits after the point.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods.coop import CoOp, CoOpConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.optimizers import delayed_cosine
from benchmark.testing.by_hand import at
from benchmark.testing.clip_methods import CLASSES, clip_method, full_texts
from benchmark.testing.closed_form import fill, image_batch

SPEC = bench_register_methods()[0]
LABELS = torch.tensor([2, 0])
LOSS, GRADIENT = 1e-5, 2e-5  # absolute; relative to the norm
LOGITS = {torch.float32: 1e-5, torch.float64: 2e-5}  # absolute; the figures are float32


class Figures(NamedTuple):
    logits: list[list[float]]
    loss: float
    norm: float
    gradient: list[float]
    later: tuple[float, float]  # losses after one and two steps


VARIANTS = {
    ("end", False): Figures(
        [[1.9045038, 5.4459925, 5.5407605], [-2.7436671, -0.0049639, 0.0518738]],
        2.0760944,
        4.6378374,
        [0.0777172, 0.0669334, -0.0659552],
        (2.0383134, 1.9933279),
    ),
    ("middle", False): Figures(
        [[-0.1748080, 5.7683988, 5.5682316], [-3.5837407, 0.2237480, 0.0566788]],
        2.6161070,
        1.2431413,
        [-0.0257848, 0.0170808, 0.0371860],
        (2.6122580, 2.5967278),
    ),
    ("front", False): Figures(
        [[1.0525234, 5.7937775, 5.5689473], [-3.0559559, 0.2595984, 0.0933738]],
        2.3826094,
        2.4769671,
        [0.0498327, -0.0217640, -0.0363694],
        (2.3705785, 2.3499861),
    ),
    ("end", True): Figures(
        [[1.9045038, 5.6305127, 5.4866925], [-2.7436671, 0.1472595, 0.0141746]],
        2.1646938,
        4.6930380,
        [-0.0183995, -0.0375395, 0.0110537],
        (2.1256921, 2.0774758),
    ),
    ("middle", True): Figures(
        [[-0.1748080, 5.8616457, 5.4643459], [-3.5837407, 0.2945411, -0.0127107]],
        2.6771173,
        1.6403661,
        [-0.0466572, -0.0191245, 0.0601031],
        (2.6707642, 2.6484571),
    ),
    ("front", True): Figures(
        [[1.0525234, 5.8442993, 5.4975014], [-3.0559559, 0.3022850, 0.0230923]],
        2.4137377,
        2.5436497,
        [0.0166616, -0.0271235, -0.0498012],
        (2.4010532, 2.3793321),
    ),
}
SECOND = {  # the context after the second step
    ("end", False): [-0.0106708, 0.0141149, -0.0003963],
    ("front", True): [-0.0103183, 0.0146589, -0.0004892],
}


def build(dtype: torch.dtype = torch.float32, *, scale: float = 0.02, **options: Any) -> CoOp:
    """Four vectors from the formula; the learning rate is that of the second epoch from the start."""
    chosen = {"vectors": 4, "warmup": 0, "batch_size": 1, **options}  # three steps per epoch
    method = clip_method(SPEC, dtype=dtype, **chosen)
    assert isinstance(method, CoOp)
    if not method.config.words:
        with torch.no_grad():
            method.ctx.vectors.copy_(fill("ctx", tuple(method.ctx.vectors.shape), scale=scale))
    return method


def batch_for(method: CoOp) -> Batch:
    """The two images as a batch from a bank: features and no images."""
    dtype = method.ctx.vectors.dtype
    features = method.encode(image_batch().to(dtype))
    return Batch(torch.empty(0, 3, 32, 32), LABELS, features=features)


def deviation(found: Tensor, expected: Any) -> float:
    return float((found.detach().double() - torch.as_tensor(expected, dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("position", "class_specific"), VARIANTS, ids=lambda value: str(value))
def test_figures_of_the_official_code(position: Any, class_specific: bool, dtype: torch.dtype) -> None:
    figures = VARIANTS[position, class_specific]
    method = build(dtype, position=position, class_specific=class_specific)
    frozen = {name: p.clone() for name, p in method.dual.named_parameters()}
    batch = batch_for(method)
    logits = method.eval().predict(image_batch().to(dtype))
    terms = [method.train().train_step(batch)["loss"]]
    gradient = method.ctx.vectors.grad
    assert gradient is not None
    found = {
        "logits": deviation(logits, figures.logits) / LOGITS[dtype],
        "loss": deviation(torch.as_tensor(terms[0]), figures.loss) / LOSS,
        "norm": deviation(gradient.norm(), figures.norm) / (GRADIENT * figures.norm),
        "gradient": deviation(gradient.flatten()[:3], figures.gradient) / (GRADIENT * figures.norm),
    }
    terms.append(method.train_step(batch)["loss"])
    context = method.ctx.vectors.detach().clone()
    with torch.no_grad():
        assert batch.features is not None
        last = F.cross_entropy(method.logits(batch.features), LABELS)
    found["loss after a step"] = deviation(torch.as_tensor(terms[1]), figures.later[0]) / LOSS
    found["loss after two"] = deviation(last, figures.later[1]) / LOSS
    if (position, class_specific) in SECOND:
        found["context"] = deviation(context.flatten()[:3], SECOND[position, class_specific]) / 1e-6
    print(position, class_specific, dtype, {name: f"{value:.2f}" for name, value in found.items()})
    assert max(found.values()) < 1.0, found
    assert all(torch.equal(p, frozen[name]) for name, p in method.dual.named_parameters())
    assert all(p.grad is None for p in method.dual.parameters())


def test_words_start_as_zero_shot() -> None:
    method = build(words="a photo of a")
    logits = method.eval().predict(image_batch())
    expected = [[2.3673506, 5.6906137, 5.6839194], [-2.5533495, -0.0079012, -0.0028179]]
    assert deviation(logits, expected) < LOGITS[torch.float32]
    assert deviation(method.ctx.vectors[0, :3], [0.0306541, -0.0457391, 0.0778677]) < 1e-7


# --- the formulas written out: all 77 positions, SGD by hand --------------------------------------------------------


def plain_logits(method: CoOp, ctx: Tensor, features: Tensor) -> Tensor:
    """The prompts class by class, as the official layouts have them."""
    dual, rows, ends = method.dual, [], []
    count, half = ctx.shape[-2], ctx.shape[-2] // 2
    for label, name in enumerate(CLASSES):
        name = name.replace("_", " ")
        ids = [49406, *dual.tokenizer.encode(f"{'X ' * count}{name}."), 49407]
        e = dual.embed(torch.tensor(ids + [0] * (77 - len(ids))))
        own, suffix, length = ctx[label] if ctx.ndim == 3 else ctx, e[1 + count :], len(dual.tokenizer.encode(name))
        rows.append(
            {
                "end": torch.cat([e[:1], own, suffix]),
                "middle": torch.cat([e[:1], own[:half], suffix[:length], own[half:], suffix[length:]]),
                "front": torch.cat([e[:1], suffix[:length], own, suffix[length:]]),
            }[method.config.position]
        )
        ends.append(len(ids) - 1)
    t = full_texts(torch.stack(rows), torch.tensor(ends))
    v = features / features.norm(dim=1, keepdim=True)
    return dual.logit_scale.exp() * v @ (t / t.norm(dim=1, keepdim=True)).T


@pytest.mark.parametrize("vectors", [4, 5])
@pytest.mark.parametrize(("position", "class_specific"), VARIANTS, ids=lambda value: str(value))
def test_three_steps_equal_the_formulas(position: Any, class_specific: bool, vectors: int) -> None:
    """Large contexts, so that weight decay counts."""
    method = build(
        torch.float64,
        scale=2.0,
        position=position,
        class_specific=class_specific,
        vectors=vectors,
        weight_decay=0.05,
        lr=0.1,
    )
    batch = batch_for(method)
    assert batch.features is not None
    ctx, moment = method.ctx.vectors.detach().clone(), torch.zeros_like(method.ctx.vectors)
    start = ctx.clone()
    for _ in range(3):
        ctx.requires_grad_(True)
        loss = F.cross_entropy(plain_logits(method, ctx, batch.features), LABELS)
        (gradient,) = torch.autograd.grad(loss, ctx)
        found = method.train_step(batch)["loss"]
        assert deviation(torch.as_tensor(found), loss.detach()) < 1e-9
        assert method.ctx.vectors.grad is not None
        assert deviation(method.ctx.vectors.grad, gradient) < 1e-9
        ctx = ctx.detach()
        moment = 0.9 * moment + gradient + 0.05 * ctx
        ctx = ctx - 0.1 * moment
    assert deviation(method.ctx.vectors, ctx) < 1e-9
    free = build(torch.float64, scale=2.0, position=position, class_specific=class_specific, vectors=vectors, lr=0.1)
    for _ in range(3):
        free.train_step(batch)
    assert deviation(free.ctx.vectors, ctx) > 0.01  # decay of 5e-4 instead of 0.05 can be told apart
    assert float((ctx - start).abs().max()) > 0.01


# --- optimiser, schedule, sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_specific", [False, True])
def test_sgd_trains_the_context_alone(class_specific: bool) -> None:
    method = clip_method(SPEC, class_specific=class_specific)
    optimizer = method.optimizer
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert isinstance(method, CoOp)
    assert [id(p) for p in group["params"]] == [id(method.ctx.vectors)]
    assert {name: group[name] for name in ("momentum", "weight_decay", "dampening", "nesterov")} == {
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "dampening": 0,
        "nesterov": False,
    }
    assert group["lr"] == 1e-5


def test_learning_rates_of_the_official_code() -> None:
    rates = [delayed_cosine(epoch, lr=0.002, period=50) for epoch in range(50)]
    assert rates[:6] == pytest.approx([1e-5, 0.002, 0.001998027, 0.001992115, 0.001982287, 0.001968583], abs=5e-10)
    assert rates[49] == pytest.approx(7.8853e-6, abs=5e-11)
    steps = [delayed_cosine(iteration, lr=0.003, period=25) for iteration in range(52)]  # DAPL
    assert (steps[0], steps[1]) == (1e-5, 0.003)
    assert steps[26] == pytest.approx(0.0, abs=1e-18)
    assert steps[51] == pytest.approx(0.003)
    assert delayed_cosine(0, lr=0.002, period=50, warmup=0) == 0.002
    assert delayed_cosine(2, lr=0.002, period=50, warmup=3, warmup_lr=0.5) == 0.5


def test_the_rate_changes_per_epoch() -> None:
    method = clip_method(SPEC, epochs=50, batch_size=2)  # three images: two steps per epoch
    assert isinstance(method, CoOp)
    batch, seen = batch_for(method), []
    for step in range(7):
        method.train_step(at(batch, step, each=2))
        assert method.optimizer is not None
        seen.append(method.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([1e-5, 1e-5, 0.002, 0.002, 0.001998027, 0.001998027, 0.001992115], abs=5e-10)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 16 * 48), ({"vectors": 4, "words": "a photo of a"}, 4 * 48), ({"class_specific": True}, 3 * 16 * 48)],
)
def test_trained_numbers(options: dict[str, Any], count: int) -> None:
    method = clip_method(SPEC, **options)
    assert isinstance(method, CoOp)
    assert sum(p.numel() for p in method.trainable()) == count
    # d_t = 512 of CLIP's ViT-B/16: 8,192; 2,048; 8,192 per class.
    assert count // 48 * 512 in (8_192, 2_048, 3 * 8_192)


def test_options_are_checked() -> None:
    for options, message in (
        ({"words": "a photo of a"}, r"vectors: 16 differs from the 4 words of `words`; use 4"),
        ({"vectors": 4, "words": "a_photo of a", "class_specific": True}, "class_specific: contexts per class"),
        ({"vectors": 0}, "vectors: 0 is too small"),
        ({"lr": 0.0}, "lr: 0.0 is not positive"),
        ({"momentum": 1.0}, "momentum: 1.0 is out of range"),
        ({"warmup": -1}, "warmup: -1 is negative"),
        ({"views": -1}, "views: -1 is negative"),
    ):
        with pytest.raises(ValueError, match=message):
            CoOpConfig(**options)
    assert "open_vocabulary" in SPEC.uses_of(CoOpConfig())
    assert "open_vocabulary" not in SPEC.uses_of(CoOpConfig(class_specific=True))
    assert {field.name for field in dataclasses.fields(CoOpConfig)} >= set().union(*SPEC.recipes.values())
