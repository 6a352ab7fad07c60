"""CODA-Prompt against numbers recorded from the official code, through the same `train_step` that runs train with.

`tests/golden/coda_prompt` was recorded from GT-RIPL/CODA-Prompt 6417d4f at toy size; the random draws of
the orthogonalisation are part of the vectors. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods.coda_prompt import (
    CodaPrompt,
    CodaPromptConfig,
    attention_weights,
    bench_register_methods,
    gram_schmidt,
    ortho_term,
)
from benchmark.api import Batch, Scenario
from benchmark.backbones.heads import mask_logits
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.closed_form import fill, image_batch, tiny_vit, vit_weight
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "coda_prompt"
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
# Three tasks of four classes, as in the recorded cases.
SCENARIO = toy_scenario(experiences=3, classes=4, train=1, test=1)
TENSORS = {"k": "keys", "a": "attention", "p": "prefixes"}


class Case(Recorded):
    """A recorded case, and CODA-Prompt as it was there."""

    def method(self) -> CodaPrompt:
        raw = self.meta["config"]
        pool, length, mu = raw["prompt_param"]
        config = CodaPromptConfig(
            epochs=raw["epochs"],
            batch_size=1,  # four steps an epoch: the recorded ones are all in the first
            lr=raw["lr"],
            pool_size=pool,
            prompt_length=length,
            ortho=mu,
            eval_logits="all",
        )
        return make(self.vit(), config, self.dtype)

    def load(self, method: CodaPrompt, prefix: str) -> None:
        """Puts recorded parameters into a method."""
        with torch.no_grad():
            for theirs, ours in TENSORS.items():
                for layer, tensor in enumerate(method.pool.get_parameter(ours)):
                    tensor.copy_(self.tensor(f"{prefix}prompt.e_{theirs}_{layer}"))
            method.head.weight.copy_(self.tensor(f"{prefix}last.weight"))
            method.head.bias.copy_(self.tensor(f"{prefix}last.bias"))

    def compare_parameters(self, prefix: str, method: CodaPrompt, *, grad: bool = False) -> None:
        for theirs, ours in TENSORS.items():
            parameter = method.pool.get_parameter(ours)
            value = parameter.grad if grad else parameter
            assert value is not None
            for layer, tensor in enumerate(value):
                self.compare(f"{prefix}.prompt.e_{theirs}_{layer}", tensor)
        for name in ("weight", "bias"):
            parameter = method.head.get_parameter(name)
            self.compare(f"{prefix}.last.{name}", parameter.grad if grad else parameter)

    def compare_pass(self, prefix: str, method: CodaPrompt, images: Tensor, *, training: bool) -> Tensor:
        with torch.no_grad():
            result = method.run(images, training=training)
        assert result.chosen is not None
        self.compare(f"{prefix}.query", result.query)
        for layer in (0, 4):
            keys, values = result.chosen.prefixes[layer]
            self.compare(f"{prefix}.layer{layer}.key_prefix", keys)
            self.compare(f"{prefix}.layer{layer}.value_prefix", values)
        self.compare(f"{prefix}.features", result.features)
        self.compare(f"{prefix}.logits", result.logits)
        if training:
            self.compare(f"{prefix}.ortho_total", result.chosen.penalty)
        return result.logits


def make(
    model: VisionTransformer, config: CodaPromptConfig, dtype: torch.dtype, scenario: Scenario = SCENARIO
) -> CodaPrompt:
    return CodaPrompt(config, context_of(SPEC, config, scenario, backbone=backbone_of(model))).to(dtype)


def draws(case: Case, task: int) -> Iterator[Tensor]:
    """Recorded random rows in the order in which they are used."""
    for layer in range(5):
        for name in ("k", "a", "p"):
            yield from case.tensor(f"input.draws.task{task}.e_{name}_{layer}")


def compare_task(case: Case, method: CodaPrompt, task: int) -> None:
    stem, classes = f"task{task}", case.meta["config"]["classes_per_task"]
    seen = classes * (task + 1)
    batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
    logits = case.compare_pass(f"{stem}.train", method, batch.images, training=True)
    case.compare(f"{stem}.train.logits_masked", mask_logits(logits, range(seen - classes, seen))[:, :seen])
    parts = method.pool.used(*method.rows())
    terms = case.meta["config"]["prompt_param"][2] * sum(ortho_term(part.flatten(2)) for part in parts)
    losses = []
    for step in range(3):
        found = method.train_step(batch)
        losses.append(torch.as_tensor(found["loss"]))
        if step == 0:
            case.compare(f"{stem}.train.loss_ce", found["loss_ce"])
            case.compare(f"{stem}.train.loss_total", found["loss"])
            for layer in (0, 4):
                case.compare(f"{stem}.train.layer{layer}.ortho_term", terms[layer])  # type: ignore[index]
            case.compare_parameters(f"{stem}.grad", method, grad=True)
    case.compare(f"{stem}.steps.loss_total", torch.stack(losses))
    if case.dtype == torch.float64:  # Adam turns a gradient of 1e-8 into a step of either sign in float32
        case.compare_parameters(f"{stem}.after3", method)
        logits = case.compare_pass(f"{stem}.eval", method.eval(), case.tensor("input.eval_images"), training=False)
        case.compare(f"{stem}.eval.logits_seen", logits[:, :seen])


@DTYPES
@pytest.mark.parametrize("name", ["two_tasks_mu0", "two_tasks_ortho"])
def test_three_steps_on_each_of_two_tasks_equal_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method = case.method()
    frozen = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    begin(method, SCENARIO, 0)
    case.load(method, "method.")
    compare_task(case, method, 0)
    if dtype == torch.float32:  # three steps of Adam have drifted apart: go on where they did
        case.load(method, "f64.task0.after3.")
    recorded = draws(case, 1)
    method.pool.draw = lambda row: next(recorded).view_as(row)
    first = method.optimizer
    begin(method, SCENARIO, 1)
    assert next(recorded, None) is None
    assert method.optimizer is not first
    case.compare_parameters("task1.start", method)
    compare_task(case, method, 1)
    assert all(torch.equal(value, frozen[key]) for key, value in method.backbone.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())
    case.report()


@DTYPES
@pytest.mark.parametrize("task", [0, 1, 3])
@pytest.mark.parametrize("shape", ["matrix", "tensor"])
def test_orthogonalisation_equals_the_official_code(shape: str, task: int, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, "gram_schmidt", dtype)
    count = case.meta["config"]["components_per_task"]
    recorded = iter(case.tensor(f"input.draws.task{task}.{shape}"))
    rows = case.tensor(f"input.{shape}")
    before = rows.clone()
    mine = gram_schmidt(rows, task * count, (task + 1) * count, lambda row: next(recorded))
    assert torch.equal(rows, before)
    case.compare(f"task{task}.{shape}", mine)
    case.report()


def fixture_method(*, scale: float = 1.0, **changes: Any) -> CodaPrompt:
    """Section 6 of the fixtures: the second of two tasks, three blocks, four components."""
    scenario = toy_scenario(experiences=2, classes=3, train=1, test=1)
    config = CodaPromptConfig(pool_size=4, prompt_length=4, eval_logits="all", **changes)
    method = make(tiny_vit(), config, torch.float32, scenario)
    for task in range(2):
        begin(method, scenario, task)
    with torch.no_grad():
        for layer in range(3):
            method.pool.prefixes[layer] = scale * fill(f"coda.p.{layer}", (4, 4, 32)).float()
            method.pool.keys[layer] = scale * fill(f"coda.k.{layer}", (4, 32)).float()
            method.pool.attention[layer] = scale * fill(f"coda.a.{layer}", (4, 32)).float()
        method.head.weight.copy_(vit_weight("head.weight", (6, 32)))
        method.head.bias.copy_(vit_weight("head.bias", (6,)))
    return method


BATCH = Batch(image_batch(count=4), torch.tensor([3, 4, 5, 4]))


def test_closed_form_penalty_and_gradients() -> None:
    method = fixture_method(ortho=0.1)
    with torch.no_grad():
        result = method.run(BATCH.images, training=True)
        alone = method.run(BATCH.images, training=False)
        weights = attention_weights(result.query, method.pool.attention, method.pool.keys)
    wanted = [-0.7108107, -1.0087603, -0.5856359, 0.2736160, -0.1761499, -1.4830198]
    assert result.logits[0].tolist() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(result.logits, alone.logits)  # the same rows are in use
    assert weights[0, 0].tolist() == pytest.approx([-0.0169179, 0.1588382, 0.1116209, -0.1825627], abs=1e-5)
    terms = method.train_step(BATCH)
    assert float(terms["loss_ce"]) == pytest.approx(1.1921899, abs=1e-5)
    assert float(terms["ortho"]) == pytest.approx(192.2583008, rel=1e-6)
    for name, norm in (("keys", 1.5427616), ("attention", 1.5418301), ("prefixes", 13.4665003)):
        gradient = method.pool.get_parameter(name).grad
        assert gradient is not None
        assert gradient[:, :2].count_nonzero() == 0
        assert float(gradient[0].norm()) == pytest.approx(norm, rel=1e-4)


def test_closed_form_weights_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    method = fixture_method(scale=3.0)
    query = fill("query3", (4, 32)).float()
    monkeypatch.setattr("benchmark.backbones.prompted_vit.query_feature", lambda vit, patches: query)
    weights = attention_weights(query, method.pool.attention, method.pool.keys)[0]
    wanted = [
        [-0.1403783, -0.6849532, -0.2503681, 0.4897577],
        [0.6522159, 0.0097738, -0.6322957, -0.2044856],
        [0.4034389, 0.6474017, 0.0066976, -0.4515576],
        [-0.6566667, 0.3418183, 0.6416273, 0.2363908],
    ]
    torch.testing.assert_close(weights.detach(), torch.tensor(wanted), rtol=0, atol=1e-5)
    with torch.no_grad():
        logits = method.run(BATCH.images, training=True).logits
    wanted_logits = [-1.1388072, -0.5541510, -0.7956080, 0.3087630, -0.0286266, -1.8851393]
    assert logits[0].tolist() == pytest.approx(wanted_logits, abs=1e-5)
    assert float(F.cross_entropy(mask_logits(logits, (3, 4, 5)), BATCH.labels)) == pytest.approx(1.2349993, abs=1e-5)
    method.train_step(BATCH)
    norms = {
        ("keys", 0): 0.0014548,
        ("attention", 0): 0.0015044,
        ("prefixes", 0): 0.0022545,
        ("keys", 2): 0.0223175,
        ("attention", 2): 0.0175261,
        ("prefixes", 2): 0.0224690,
    }
    for (name, layer), norm in norms.items():
        gradient = method.pool.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient[layer].norm()) == pytest.approx(norm, rel=2e-4)
    head = method.head.weight.grad
    assert head is not None
    assert float(head.norm()) == pytest.approx(2.3153365, rel=1e-4)


def test_closed_form_ortho_term_and_gram_schmidt() -> None:
    keys = fill("coda.k.0", (4, 32)).float()
    assert float(ortho_term(keys[None])) == pytest.approx(31.6337070, rel=1e-6)
    recorded = iter([fill("gs.1", (32,)).float(), fill("gs.2", (32,)).float()])
    rows = gram_schmidt(keys, 2, 4, lambda row: next(recorded))
    assert rows[2:].norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert rows[2, :3].tolist() == pytest.approx([-0.1506200, 0.1513284, 0.0847984], abs=1e-6)
    assert rows[3, :3].tolist() == pytest.approx([0.0603546, -0.0222467, 0.0835313], abs=1e-6)
    # Not zero: old rows are not orthogonal to one another, and classical Gram-Schmidt ignores that.
    assert (rows[:3] @ rows[3]).tolist() == pytest.approx([0.0136292, -0.0051830, -0.0007532], abs=1e-6)
    assert torch.equal(rows[:2], keys[:2])
