"""L2P against numbers recorded from the official code, through the same `train_step` that runs train with.

`tests/golden/l2p` was recorded from JH-LEE-KR/l2p-pytorch f7bc994 and google-research/l2p 8cfb210 and
dd8836e at toy size; see the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods.l2p import L2P, L2PConfig, bench_register_methods
from benchmark.api import Batch, Scenario
from benchmark.backbones.prompted_vit import position_table
from benchmark.learners.prompting import Pass
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.closed_form import fill, image_batch, tiny_vit, vit_weight
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "l2p"
TRAINABLE = {
    "prompt.prompt": "pool.prompts",
    "prompt.prompt_key": "pool.keys",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}


class Case(Recorded):
    """A recorded case, and L2P as it was there."""

    def compare(self, key: str, mine: Tensor | float | None, *, limit: float | None = None) -> None:
        if isinstance(mine, Tensor) and self.arrays[f"f64.{key}"].ndim > mine.ndim:
            mine = mine[None]  # dd8836e keeps an axis for layers
        super().compare(key, mine, limit=limit)

    def config(self, **changes: Any) -> L2PConfig:
        raw = self.meta["config"]
        rule = "batchwise" if raw["batchwise_prompt"] else "per-sample"
        jax = self.name.startswith("jax")
        values: dict[str, Any] = {
            "pool_size": raw["pool_size"],
            "prompt_length": raw["prompt_length"],
            "top_k": raw["top_k"],
            "pull": raw["pull_constraint_coeff"],
            "selection_train": rule,
            "selection_eval": rule,
            "eval_logits": "all",
            "lr": raw.get("lr", 0.01),
            "lr_scaling": "none",
            "clip": raw["clip_grad"],
            "clip_scope": "all" if jax else "trainable",
            "gelu": self.meta["gelu"],
            "variant": "v2" if self.name == "jax_v2" else "v1",
            "prompt_mask": raw["use_prompt_mask"],
            "shared_prompt_pool": raw.get("shared_prompt_pool", False),
        }
        return L2PConfig(**{**values, **changes})

    def method(self, **changes: Any) -> L2P:
        method = make(self.vit(), self.config(**changes), self.dtype)
        start = self.part("method.")
        with torch.no_grad():
            for theirs, ours in TRAINABLE.items():
                method.get_parameter(ours).copy_(start[theirs].view_as(method.get_parameter(ours)))
        return method


# Four tasks of three classes, as in the recorded cases.
SCENARIO = toy_scenario(experiences=4, classes=3, train=1, test=1)


def make(model: VisionTransformer, config: L2PConfig, dtype: torch.dtype, scenario: Scenario = SCENARIO) -> L2P:
    return L2P(config, context_of(SPEC, config, scenario, backbone=backbone_of(model))).to(dtype)


def compare_pass(case: Case, prefix: str, result: Pass) -> None:
    assert result.chosen is not None
    case.compare(f"{prefix}.query", result.query)
    case.compare(f"{prefix}.similarity", result.chosen.similarity)
    case.compare(f"{prefix}.prompt_idx", result.chosen.selection)
    case.compare(f"{prefix}.features", result.features)
    case.compare(f"{prefix}.logits", result.logits)
    if f"f64.{prefix}.reduce_sim" in case.arrays:
        case.compare(f"{prefix}.reduce_sim", result.chosen.terms["pull"])


def compare_training(case: Case, method: L2P, twin: L2P, batch: Batch, stem: str = "") -> None:
    """Three steps; ``twin`` does the first one without clipping, so its gradients are the raw ones."""
    with torch.no_grad():
        compare_pass(case, f"{stem}train", method.run(batch.images, training=True))
    raw = twin.train_step(batch)
    for theirs, ours in TRAINABLE.items():
        case.compare(f"{stem}grad.{theirs}", twin.get_parameter(ours).grad)
    if f"f64.{stem}train.loss_ce" in case.arrays:
        case.compare(f"{stem}train.loss_ce", raw["loss_ce"])
        case.compare(f"{stem}train.loss_total", raw["loss"])
    losses = []
    for step in range(3):
        terms = method.train_step(batch)
        losses.append(terms["loss"])
        if step == 0:
            case.compare(f"{stem}grad_norm", terms["grad_norm"])
            for theirs, ours in TRAINABLE.items():
                case.compare(f"{stem}grad_clipped.{theirs}", method.get_parameter(ours).grad)
    case.compare(f"{stem}steps.loss_total", torch.stack([torch.as_tensor(loss) for loss in losses]))
    if case.dtype == torch.float64:  # Adam turns a gradient of 1e-8 into a step of either sign in float32
        for theirs, ours in TRAINABLE.items():
            case.compare(f"{stem}after3.{theirs}", method.get_parameter(ours))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["batchwise", "per_sample", "prompt_mask_two_tasks"])
def test_three_training_steps_equal_l2p_pytorch(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    task = case.meta["config"]["task_id"]
    method, twin = case.method(), case.method(clip=0.0)
    begin(method, SCENARIO, task)
    begin(twin, SCENARIO, task)
    case.compare(
        "pos_embed_extended",
        position_table(method.backbone, case.meta["config"]["top_k"] * case.meta["config"]["prompt_length"]),
    )
    images = case.tensor("input.eval_images")
    with torch.no_grad():
        compare_pass(case, "eval", method.eval().run(images))
    compare_training(case, method, twin, Batch(case.tensor("input.images"), case.tensor("input.labels")))
    if dtype == torch.float64:
        with torch.no_grad():
            compare_pass(case, "eval_after3", method.eval().run(images))
    case.report()


def test_second_task_copies_slots_and_starts_a_new_optimizer() -> None:
    case = Case(GOLDEN, "prompt_mask_two_tasks", torch.float64)
    method = case.method()
    begin(method, SCENARIO, 0)
    for _ in range(3):
        method.train_step(Batch(case.tensor("input.images"), case.tensor("input.labels")))
    twin = case.method(clip=0.0)
    twin.load_state_dict(method.state_dict())
    begin(method, SCENARIO, 1)
    begin(twin, SCENARIO, 1)
    for theirs, ours in TRAINABLE.items():
        case.compare(f"next_task.start.{theirs}", method.get_parameter(ours))
    batch = Batch(case.tensor("input.images_next"), case.tensor("input.labels_next"))
    compare_training(case, method, twin, batch, stem="next_task.")
    with torch.no_grad():
        compare_pass(case, "next_task.eval_after3", method.eval().run(case.tensor("input.eval_images")))
    case.report()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["jax_v1", "jax_v2"])
def test_features_gradients_and_clip_equal_jax(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method, twin = case.method(), case.method(clip=0.0)
    task = case.meta["config"]["task_id"]
    begin(method, SCENARIO, task)
    begin(twin, SCENARIO, task)
    with torch.no_grad():
        compare_pass(case, "eval", method.eval().run(case.tensor("input.eval_images")))
        compare_pass(case, "train", method.run(case.tensor("input.images"), training=True))
    batch = Batch(case.tensor("input.images"), case.tensor("input.labels"))
    terms = twin.train_step(batch)
    case.compare("train.loss_ce", terms["loss_ce"])
    case.compare("train.loss_total", terms["loss"])
    for theirs, ours in TRAINABLE.items():
        case.compare(f"grad.{theirs}", twin.get_parameter(ours).grad)
    # The norm counts the frozen backbone and every row of the extended position table.
    case.compare("grad_norm_all", method.train_step(batch)["grad_norm"])
    factor = torch.from_numpy(case.arrays["f64.clip_factor"])
    for ours in TRAINABLE.values():
        clipped, raw = method.get_parameter(ours).grad, twin.get_parameter(ours).grad
        assert clipped is not None
        assert raw is not None
        torch.testing.assert_close(clipped.double(), raw.double() * factor, rtol=1e-4, atol=1e-9)
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())
    case.report()


@pytest.mark.parametrize(
    ("readout", "key"), [("token", "head_token"), ("prompt", "head_prompt"), ("token+prompt", "head_token_plus_prompt")]
)
def test_other_head_inputs_equal_l2p_pytorch(readout: Any, key: str) -> None:
    case = Case(GOLDEN, "batchwise", torch.float64)
    method = case.method(readout=readout)
    with torch.no_grad():
        result = method.eval().run(case.tensor("input.eval_images"))
    case.compare(f"eval.{key}.features", result.features)
    case.compare(f"eval.{key}.logits", result.logits)


FIXTURES: list[tuple[str, dict[str, Any], list[list[int]], list[float], tuple[float, float, float]]] = [
    (
        "per-sample",
        {"selection_train": "per-sample"},
        [[0, 1], [1, 0], [2, 1], [3, 2]],
        [-0.1078970, -0.3369609, -0.2427368, -0.0388125, 0.2823775, -0.5493075],
        (1.1153839, 0.8204972, 1.0333341),
    ),
    (
        "batchwise, tie to the smaller index",
        {},
        [[1, 0]] * 4,
        [-0.1078969, -0.3369609, -0.2427366, -0.0388126, 0.2823775, -0.5493074],
        (1.0917103, 0.0609934, 1.0856110),
    ),
    (
        "prompt mask",
        {"prompt_mask": True},
        [[2, 3]] * 4,
        [-0.1696031, -0.3061549, -0.5453815, 0.0922963, 0.2227300, -0.5827724],
        (1.0952131, 0.0956638, 1.0856466),
    ),
    (
        "v2",
        {"selection_train": "per-sample", "variant": "v2", "pull": 1.0},
        [[0, 1], [1, 0], [2, 1], [3, 2]],
        [-0.0572056, -0.1276098, -0.0382925, -0.1551693, 0.3252583, -0.3816783],
        (1.0707676, 0.8204972, 0.2502705),
    ),
]
# Gradient norms of prompts, keys and head weight; then of the pool's rows, where published.
NORMS: dict[str, tuple[float, float, float | None, list[float] | None]] = {
    "per-sample": (0.0837246, 0.0147590, 0.5148346, [0.0228866, 0.0548502, 0.0377260, 0.0453235]),
    "batchwise, tie to the smaller index": (0.1041391, 0.0113025, None, [0.0485961, 0.0921052, 0.0, 0.0]),
    "prompt mask": (0.0688598, 0.0111634, 0.4128647, [0.0, 0.0, 0.0258902, 0.0638073]),
    "v2": (0.0910389, 0.1475905, None, None),
}


@pytest.mark.parametrize(("name", "changes", "index", "logits", "losses"), FIXTURES, ids=[row[0] for row in FIXTURES])
def test_closed_form_fixtures(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, Any],
    index: list[list[int]],
    logits: list[float],
    losses: tuple[float, float, float],
) -> None:
    """Section 4 of the vision parity fixtures; the query is fixed there, to exercise the selection."""
    scenario = toy_scenario(experiences=2, classes=3, train=1, test=1)
    config = L2PConfig(**{"pool_size": 4, "prompt_length": 2, "top_k": 2, "eval_logits": "all", "clip": 0.0, **changes})
    method = make(tiny_vit(), config, torch.float32, scenario)
    with torch.no_grad():
        method.pool.prompts.copy_(fill("l2p.prompt", (4, 2, 32)))
        method.pool.keys.copy_(fill("l2p.key", (4, 32)))
        method.head.weight.copy_(vit_weight("head.weight", (6, 32)))
        method.head.bias.copy_(vit_weight("head.bias", (6,)))
    begin(method, scenario, 1)
    similarity = method.pool.similarity
    monkeypatch.setattr(method.pool, "similarity", lambda query: similarity(fill("query3", (4, 32)).float()))
    batch = Batch(image_batch(count=4), torch.tensor([3, 4, 5, 4]))
    with torch.no_grad():
        result = method.run(batch.images, training=True)
    assert result.chosen is not None
    assert result.chosen.similarity is not None
    assert result.chosen.selection is not None
    assert result.query[0, :3].tolist() == pytest.approx([0.6934559, -0.5134934, 1.5164376], abs=1e-5)
    assert result.chosen.similarity[0].tolist() == pytest.approx(
        [0.8233792, -0.1991324, -0.4826522, -0.2139120], abs=1e-5
    )
    assert result.chosen.selection.tolist() == index
    assert result.logits[0].tolist() == pytest.approx(logits, abs=1e-5)
    terms = method.train_step(batch)
    assert [float(terms[key]) for key in ("loss_ce", "pull", "loss")] == pytest.approx(losses, abs=1e-5)
    grads = [method.get_parameter(key).grad for key in ("pool.prompts", "pool.keys", "head.weight")]
    prompt_norm, key_norm, head_norm, rows = NORMS[name]
    assert grads[0] is not None
    assert grads[1] is not None
    assert grads[2] is not None
    assert float(grads[0].norm()) == pytest.approx(prompt_norm, rel=1e-4)
    assert float(grads[1].norm()) == pytest.approx(key_norm, rel=1e-4)
    if head_norm is not None:
        assert float(grads[2].norm()) == pytest.approx(head_norm, rel=1e-4)
    assert torch.count_nonzero(grads[2][:3]) == 0
    if rows is not None:
        assert grads[0].flatten(1).norm(dim=1).tolist() == pytest.approx(rows, rel=1e-4, abs=1e-9)
