"""PROOF, of which no official code ran, against its formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods.proof import Fusion, Proof, ProofConfig, bench_register_methods
from benchmark.testing.by_hand import batch_of, context_of, place, view_of
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
STREAM = toy_scenario(experiences=2, classes=2, train=6, test=1)
OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 64, "exemplars": 2, "templates": "a {}.|two {}.", "dropout": 0.0}


def made(**options: Any) -> Proof:
    torch.manual_seed(0)
    config = ProofConfig(**{**OPTIONS, **options})
    return Proof(config, context_of(SPEC, config, STREAM))


def learn(method: Proof, index: int) -> list[Any]:
    """Every pass of an experience, one batch each, with features as the engine brings them."""
    method.begin_experience(view_of(method, STREAM, index))
    told = []
    for epoch in range(len(method.passes())):
        batch = batch_of(method, STREAM, index, epoch, size=12)
        object.__setattr__(batch, "features", method.encode(batch.images).detach())
        told.append(method.train_step(batch))
    method.end_experience(view_of(method, STREAM, index))
    return told


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    fusion = Fusion(6, 0.0).double()
    rows = torch.randn(2, 4, 6, dtype=torch.float64)
    wanted = torch.empty_like(rows)
    with torch.no_grad():
        fusion.norm.weight.copy_(torch.rand(6))
        for image in range(2):
            q, k, v = (rows[image] @ part.weight.T for part in (fusion.query, fusion.key, fusion.value))
            for row in range(4):
                weights = torch.tensor([math.exp(float(q[row] @ k[one]) / math.sqrt(6)) for one in range(4)]).double()
                mixed = (weights / weights.sum()) @ v @ fusion.output.weight.T + fusion.output.bias + rows[image, row]
                spread = (mixed - mixed.mean()) / (mixed.var(unbiased=False) + 1e-5).sqrt()
                wanted[image, row] = spread * fusion.norm.weight + fusion.norm.bias
        torch.testing.assert_close(fusion(rows), wanted)
    wide = Fusion(400, 0.1)
    assert float(wide.query.weight.detach().std()) == pytest.approx(math.sqrt(2 / 800), rel=0.02)
    assert wide.query.bias is None


def test_class_means_are_those_of_the_untrained_sum_and_stay() -> None:
    method = made()
    method.begin_experience(view_of(method, STREAM, 0))
    batch = batch_of(method, STREAM, 0, 0, size=12)
    features = method.encode(batch.images).detach()
    object.__setattr__(batch, "features", features)
    before = state(method)
    assert method.train_step(batch) == {"loss": 0.0}
    assert all(torch.equal(value, method.state_dict()[name]) for name, value in before.items() if "proto" not in name)
    unit = F.normalize(method.image_projections[0](features), dim=1).detach()
    for label in (0, 1):
        wanted = unit[batch.labels == label].mean(dim=0)
        torch.testing.assert_close(method.prototypes.means[label].float(), wanted)
    for epoch in (1, 2):
        batch = batch_of(method, STREAM, 0, epoch, size=12)
        object.__setattr__(batch, "features", features)
        method.train_step(batch)
    method.end_experience(view_of(method, STREAM, 0))
    kept = method.prototypes.means.clone()
    learn(method, 1)
    assert torch.equal(method.prototypes.means[:2], kept)
    assert method.prototypes.counts.tolist() == [6, 6, 6, 6]


@pytest.mark.parametrize("averaged", ["batch", "image"])
def test_losses_and_logits_are_their_formulas(averaged: str) -> None:
    method = made(averaged=averaged)
    learn(method, 0)
    learn(method, 1)
    method.eval()
    features = method.encode(batch_of(method, STREAM, 1, 0, size=5).images).detach()
    labels = torch.tensor([2, 3, 3, 0, 1])
    with torch.no_grad():
        found, logits = method.losses(features, labels), method.logits(features)
        raw = [
            method.dual.text_features([template.format(name) for name in method.names])
            for template in ("a {}.", "two {}.")
        ]

        def summed(parts: Any, rows: Tensor) -> Tensor:
            return sum((rows @ part.weight.T + part.bias for part in parts), start=torch.zeros_like(rows))

        means = F.normalize(summed(method.image_projections, method.prototypes.means.float()), dim=1)
        free = torch.cat([method.contexts[0][0], method.contexts[1][0]])
        assert free.shape == (6, features.shape[1])

        def by_hand(images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
            each = [method.fusion(torch.cat([row[None], texts, means, free])[None])[0] for row in images]
            own, centres = [one[1:5] for one in each], [one[5:9] for one in each]
            if averaged == "batch":
                own, centres = [sum(own) / 5] * 5, [sum(centres) / 5] * 5
            pairs = [(one[0] @ text.T, one[0] @ centre.T) for one, text, centre in zip(each, own, centres, strict=True)]
            return torch.stack([first for first, _ in pairs]), torch.stack([second for _, second in pairs])

        images = F.normalize(summed(method.image_projections, features), dim=1)
        texts = F.normalize(summed(method.text_projections, raw[0]), dim=1)
        first, second = by_hand(images, texts)
        table = (method.scale.exp() * images @ texts[labels].T).log_softmax(dim=1).diagonal()
        turned = (method.scale.exp() * texts[labels] @ images.T).log_softmax(dim=1).diagonal()
        wanted = {
            "loss_text": -first.log_softmax(dim=1)[range(5), labels].mean(),
            "loss_mean": -second.log_softmax(dim=1)[range(5), labels].mean(),
            "loss_pairs": -(table.mean() + turned.mean()) / 2,
        }
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["loss"], sum(wanted.values()), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]

        plain = summed(method.image_projections, features)
        ensemble = sum(F.normalize(summed(method.text_projections, one), dim=1) for one in raw) / 2
        ensemble = F.normalize(ensemble, dim=1)  # type: ignore[arg-type]
        first, second = by_hand(plain, ensemble)
        torch.testing.assert_close(logits, plain @ ensemble.T + first + second, rtol=1e-4, atol=1e-4)
        alone = torch.cat([method.logits(row[None]) for row in features])
    assert torch.allclose(alone, logits, atol=1e-4) == (averaged == "image")


@pytest.mark.parametrize("old", ["trained", "frozen"])
def test_what_trains(old: str) -> None:
    method = made(old_texts=old)
    learn(method, 0)
    method.begin_experience(view_of(method, STREAM, 1))
    before = state(method)
    for epoch in range(3):
        batch = batch_of(method, STREAM, 1, epoch, size=12)
        object.__setattr__(batch, "features", method.encode(batch.images).detach())
        method.train_step(batch)
    moved = {name for name, value in method.state_dict().items() if not torch.equal(before.get(name, value), value)}
    expected = {f"{part}.kept.1.weight" for part in ("image_projections", "text_projections")}
    expected |= {"contexts.kept.1.0", "scale", "fusion.query.weight", "fusion.norm.weight"}
    assert expected <= moved
    assert not {name for name in moved if name.startswith(("image_projections.kept.0", "contexts.kept.0", "dual"))}
    assert ("text_projections.kept.0.weight" in moved) == (old == "trained")


def test_exemplars_join_every_epoch_once() -> None:
    method = made()
    learn(method, 0)
    assert {label: tuple(kept.shape) for label, kept in method.exemplars.items()} == {
        0: (2, method.dual.feature_width),
        1: (2, method.dual.feature_width),
    }
    features, labels = torch.zeros(3, method.dual.feature_width), torch.tensor([2, 2, 3])
    met = []
    for step in range(2):
        where = place(2 + step, each=2, epochs=3)
        rows, told = method._with_exemplars(features, labels, where)
        assert told[:3].tolist() == [2, 2, 3]
        met += [(int(label), tuple(row.tolist())) for label, row in zip(told[3:], rows[3:], strict=True)]
    wanted = [(label, tuple(row.tolist())) for label, kept in method.exemplars.items() for row in kept]
    assert sorted(met) == sorted(wanted)


def test_rates_and_declarations() -> None:
    method = made(epochs=10)
    found = [method.rate(place(epoch)) for epoch in (1, 6, 10)]
    assert found == pytest.approx([0.001, 0.0005, 0.0005 * (1 + math.cos(0.9 * math.pi))])
    assert "test_batch" in SPEC.uses_of(ProofConfig())
    assert "test_batch" not in SPEC.uses_of(ProofConfig(averaged="image"))
    assert SPEC.engine["c3box"] == {"eval_batch_size": 64}
