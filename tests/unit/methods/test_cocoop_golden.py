"""CoCoOp against figures of the official code on a CLIP whose weights are a formula, and against its own formulas.

Figures: KaiyangZhou/CoOp at ff61507c and KaiyangZhou/Dassl.pytorch at c61a1b57, float32; seven digits after the point.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods.cocoop import CoCoOp, CoCoOpConfig, bench_register_methods
from benchmark.api import Batch, Context, Manifest
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.dual import DualEncoder, ViTTower
from benchmark.backbones.text import TextTower, WordTokenizer
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.optimizers import delayed_cosine
from benchmark.testing.by_hand import at
from benchmark.testing.clip_methods import CLASSES, clip_method, full_texts
from benchmark.testing.closed_form import fill, image_batch
from benchmark.testing.toys import toy_scenario

SPEC = bench_register_methods()[0]
LABELS = torch.tensor([2, 0])
# Absolute; relative to the norm. The figures are float32, and so is their rounding.
LOGITS, NORM = {torch.float32: 1e-5, torch.float64: 2e-5}, {torch.float32: 2e-5, torch.float64: 5e-5}
GRADIENTS = {  # norm, first three values
    "ctx.vectors": (1.6715769, [0.0169588, 0.0308786, 0.0288277]),
    "meta_net.0.weight": (0.8791327, [0.0912583, 0.1372023, 0.3394293]),
    "meta_net.0.bias": (0.9719445, [-0.9719445, 0.0]),  # the second unit is inactive
    "meta_net.2.weight": (0.0841217, [-0.0098705, 0.0, 0.0175864]),
    "meta_net.2.bias": (1.5660274, [-0.1808244, 0.3264765, 0.1148221]),
}


def build(dtype: torch.dtype = torch.float32, *, scale: float = 0.02, **options: Any) -> CoCoOp:
    chosen = {"words": "", "warmup": 0, **options}
    method = clip_method(SPEC, dtype=dtype, **chosen)
    assert isinstance(method, CoCoOp)
    with torch.no_grad():
        method.ctx.vectors.copy_(fill("ctx", (4, 48), scale=scale))
        for ours, theirs in (("0", "linear1"), ("2", "linear2")):
            weight, bias = (method.meta_net.get_parameter(f"{ours}.{part}") for part in ("weight", "bias"))
            weight.copy_(fill(f"meta_net.{theirs}.weight", tuple(weight.shape), scale=1 / math.sqrt(weight.shape[1])))
            bias.copy_(fill(f"meta_net.{theirs}.bias", tuple(bias.shape), scale=0.05))
    return method


def batch_for(method: CoCoOp, count: int = 2) -> Batch:
    """Images as a batch from a bank: features and no images."""
    images = torch.cat([image_batch(), image_batch("image_u"), image_batch("image_v")])[:count]
    features = method.encode(images.to(method.ctx.vectors.dtype))
    return Batch(torch.empty(0, 3, 32, 32), torch.tensor([2, 0, 1, 1, 2])[:count], features=features)


def deviation(found: Any, expected: Any) -> float:
    found = torch.as_tensor(found).detach().double()
    return float((found - torch.as_tensor(expected, dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("rows", [1, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_figures_of_the_official_code(dtype: torch.dtype, rows: int) -> None:
    method = build(dtype, rows=rows)
    frozen = {name: p.clone() for name, p in method.dual.named_parameters()}
    batch = batch_for(method)
    with torch.no_grad():
        logits = method.eval().predict(image_batch().to(dtype))
    expected = [[1.5977044, 5.3575263, 5.3868728], [-2.8669128, -0.1164695, -0.0827509]]
    assert deviation(logits, expected) < LOGITS[dtype]
    losses = [method.train().train_step(batch)["loss"]]
    for name, (norm, first) in GRADIENTS.items():
        gradient = method.get_parameter(name).grad
        assert gradient is not None
        assert deviation(gradient.norm(), norm) < NORM[dtype] * norm, name
        assert deviation(gradient.flatten()[: len(first)], first) < NORM[dtype] * norm, name
    losses += [method.train_step(batch)["loss"] for _ in range(2)]
    assert [deviation(*pair) < 1e-5 for pair in zip(losses, (2.0907545, 2.0767398, 2.0497952), strict=True)] == [
        True
    ] * 3
    assert all(torch.equal(p, frozen[name]) for name, p in method.dual.named_parameters())
    assert all(p.grad is None for p in method.dual.parameters())


# --- the formulas written out: one image at a time, all 77 positions, SGD by hand -----------------------------------


def plain_loss(method: CoCoOp, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    dual, losses = method.dual, []
    ids = [[49406, *dual.tokenizer.encode(f"X X X X {name.replace('_', ' ')}."), 49407] for name in CLASSES]
    e = dual.embed(torch.tensor([row + [0] * (77 - len(row)) for row in ids]))
    ends = torch.tensor([len(row) - 1 for row in ids])
    assert batch.features is not None
    for feature, label in zip(batch.features, batch.labels, strict=True):
        v = feature / feature.norm()
        hidden = torch.relu(weights["meta_net.0.weight"] @ v + weights["meta_net.0.bias"])
        ctx = weights["ctx.vectors"] + weights["meta_net.2.weight"] @ hidden + weights["meta_net.2.bias"]
        t = full_texts(torch.cat([e[:, :1], ctx.expand(3, -1, -1), e[:, 5:]], dim=1), ends)
        t = t / t.norm(dim=1, keepdim=True)
        losses.append(F.cross_entropy((dual.logit_scale.exp() * t @ v)[None], label[None]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("rows", "count"), [(1, 2), (7, 5), (1024, 5)])
def test_three_steps_equal_the_formulas(rows: int, count: int) -> None:
    """Large contexts, so that weight decay counts; 7 rows are two images at a time."""
    method = build(torch.float64, scale=2.0, weight_decay=0.05, lr=0.1, rows=rows, batch_size=1)
    batch = batch_for(method, count)
    weights = {name: method.get_parameter(name).detach().clone() for name in GRADIENTS}
    moments = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for _ in range(3):
        for weight in weights.values():
            weight.requires_grad_(True)
        loss = plain_loss(method, weights, batch)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        assert deviation(method.train_step(batch)["loss"], loss.detach()) < 1e-9
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            assert deviation(method.get_parameter(name).grad, gradient) < 1e-9
            moments[name] = 0.9 * moments[name] + gradient + 0.05 * weight.detach()
            weights[name] = weight.detach() - 0.1 * moments[name]
    for name, weight in weights.items():
        assert deviation(method.get_parameter(name), weight) < 1e-9
    free = build(torch.float64, scale=2.0, lr=0.1, rows=rows, batch_size=1)
    for _ in range(3):
        free.train_step(batch)
    assert deviation(free.ctx.vectors, weights["ctx.vectors"]) > 0.01


def test_memory_is_bounded_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = DualEncoder.encode_text

    def spy(self: DualEncoder, embeddings: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.append(len(embeddings))
        return encode(self, embeddings, *args, **options)

    monkeypatch.setattr(DualEncoder, "encode_text", spy)
    method = build(rows=7)
    method.train_step(batch_for(method, 5))
    assert seen == [6, 6, 3]
    seen.clear()
    with torch.no_grad():
        method.eval().predict(image_batch())
    assert seen == [6]


# --- optimiser, schedule, sizes ------------------------------------------------------------------------------------


def test_sgd_trains_context_and_meta_net_in_one_group() -> None:
    method = clip_method(SPEC)
    optimizer = method.optimizer
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(method.get_parameter(name)) for name in GRADIENTS]
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["lr"]) == (0.9, 5e-4, False, 1e-5)


def test_learning_rates_of_the_official_code() -> None:
    published = [1e-5, 0.002, 0.00195105652, 0.00180901699, 0.00158778525, 0.00130901699, 0.001]
    published += [0.000690983006, 0.000412214748, 0.000190983006]
    rates = [delayed_cosine(epoch, lr=0.002, period=10) for epoch in range(10)]
    assert rates == pytest.approx(published, abs=1e-11)
    method = clip_method(SPEC)  # three images, one at a time
    assert isinstance(method, CoCoOp)
    seen, batch = [], batch_for(method, 1)
    for step in range(9):
        method.train_step(at(batch, step, each=3))
        assert method.optimizer is not None
        seen.append(method.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([rate for rate in published[:3] for _ in range(3)], abs=1e-11)


def blank(features: int, text: int) -> Backbone:
    """A dual encoder of given widths, as small as possible otherwise."""
    vit = VisionTransformer(img_size=32, patch_size=32, embed_dim=32, depth=1, num_heads=1, num_classes=0)
    words = WordTokenizer(["a", "photo", "of"])
    tower = TextTower(vocabulary=len(words), context=16, width=text, depth=1, heads=1, features=features)
    dual = DualEncoder(image=ViTTower(vit, features), text=tower, tokenizer=words)
    return Backbone(
        name="blank", model=vit, mean=(0.0,) * 3, std=(1.0,) * 3, sha256="", dual=dual.requires_grad_(False)
    )


def on_blank(features: int, text: int, **options: Any) -> CoCoOp:
    config = CoCoOpConfig(**options)
    context = Context(
        pretrained=blank(features, text),
        device=torch.device("cpu"),
        scenario=toy_scenario(),
        pipeline=ImagePipeline("plain", size=32, mean=(0.0,) * 3, std=(1.0,) * 3),
        manifest=Manifest("cocoop", SPEC.uses_of(config)),
    )
    return CoCoOp(config, context)


@pytest.mark.parametrize(("features", "text", "count"), [(512, 512, 35_360), (1024, 512, 100_928)])
def test_trained_numbers(features: int, text: int, count: int) -> None:
    """ViT-B/16 and RN50."""
    method = on_blank(features, text)
    assert sum(p.numel() for p in method.trainable()) == count
    assert method.meta_net[0].weight.abs().max() <= 1 / math.sqrt(features)  # torch's own start
    assert float(method.meta_net[0].weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * features), rel=0.05)


def test_too_narrow_features_are_refused() -> None:
    with pytest.raises(UsageError, match="the features of `blank` are 12 wide, CoCoOp needs 16 or more"):
        on_blank(12, 16)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="rows: 0 is too small"):
        CoCoOpConfig(rows=0)
    with pytest.raises(ValueError, match="vectors: 8 differs from the 4 words"):
        CoCoOpConfig(vectors=8)
    assert CoCoOpConfig(vectors=8, words="").vectors == 8
