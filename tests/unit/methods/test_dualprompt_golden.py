"""DualPrompt against numbers recorded from the official code, through the same `train_step` that runs train with.

`tests/golden/dualprompt` was recorded from JH-LEE-KR/dualprompt-pytorch 7eb457d (with its bug, and with
the correct layout of mammoth e75a491) and google-research/l2p dd8836e at toy size; see the ``reference``
field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods.dualprompt import DualPrompt, DualPromptConfig, bench_register_methods
from benchmark.api import Batch, Scenario
from benchmark.backbones.heads import mask_logits
from benchmark.learners.prompting import Pass
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.closed_form import fill, image_batch, tiny_vit, vit_weight
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "dualprompt"
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
# Four tasks of three classes, as in the recorded cases.
SCENARIO = toy_scenario(experiences=4, classes=3, train=1, test=1)


class Case(Recorded):
    """A recorded case, and DualPrompt as it was there."""

    @property
    def jax(self) -> bool:
        return self.name.startswith("jax")

    def batch(self, suffix: str = "") -> Batch:
        return Batch(self.tensor(f"input.images{suffix}"), self.tensor(f"input.labels{suffix}"))

    def theirs(self, method: DualPrompt, *, grad: bool = False) -> dict[str, Tensor | None]:
        """Our tensors under their names and in their shapes: they keep heads apart, (..., H, d) for (..., D)."""
        heads = self.meta["config"]["vit"]["heads"]
        pool = "prompt" if self.jax else "e_prompt"
        found: dict[str, Tensor | None] = {}
        for name, parameter, split in (
            (f"{pool}.prompt", method.pool.prefixes, True),
            (f"{pool}.prompt_key", method.pool.keys, False),
            ("g_prompt", method.g_prompt, True),
            ("head.weight", method.head.weight, False),
            ("head.bias", method.head.bias, False),
        ):
            value = parameter.grad if grad else parameter.detach()
            if value is not None and split:
                value = value.unflatten(-1, (heads, -1))
            if value is not None and self.jax and name == "g_prompt":  # they allocate all layers
                value = torch.cat([value, value.new_zeros(DEPTH - len(value), *value.shape[1:])])
            found[name] = value
        return found

    def config(self, **changes: Any) -> DualPromptConfig:
        raw = self.meta["config"]
        values: dict[str, Any] = {
            "pool_size": raw["pool_size"],
            "top_k": raw["top_k"],
            "g_length": raw["g_prompt_length"],
            "e_length": raw["prompt_length"],
            "g_layers": tuple(raw["g_prompt_layer_idx"]),
            "e_layers": tuple(raw["e_prompt_layer_idx"]),
            "pull": raw["pull_constraint_coeff"],
            "selection": "batchwise" if raw["batchwise_prompt"] else "per-sample",
            "layout": "port" if raw.get("layout") == "port_bug" else "correct",
            "eval_logits": "all",
            "lr": raw.get("lr", 0.01),
            "lr_scaling": "none",
            "clip": raw["clip_grad"],
            "clip_scope": "all" if self.jax else "trainable",
            "gelu": self.meta["gelu"],
        }
        return DualPromptConfig(**{**values, **changes})

    def method(self, **changes: Any) -> DualPrompt:
        method = make(self.vit(), self.config(**changes), self.dtype)
        pool = "prompt" if self.jax else "e_prompt"
        with torch.no_grad():
            method.pool.prefixes.copy_(self.tensor(f"method.{pool}.prompt").flatten(-2))
            method.pool.keys.copy_(self.tensor(f"method.{pool}.prompt_key"))
            method.g_prompt.copy_(self.tensor("method.g_prompt")[: len(method.g_layers)].flatten(-2))
            method.head.weight.copy_(self.tensor("method.head.weight"))
            method.head.bias.copy_(self.tensor("method.head.bias"))
        return method

    def compare_pass(self, prefix: str, method: DualPrompt, result: Pass, task: int | None = None) -> None:
        assert result.chosen is not None
        self.compare(f"{prefix}.query", result.query)
        self.compare(f"{prefix}.similarity", result.chosen.similarity)
        self.compare(f"{prefix}.prompt_idx", result.chosen.selection)
        if f"f64.{prefix}.batched_prompt" in self.arrays:
            images, heads = len(result.query), self.meta["config"]["vit"]["heads"]
            pairs = [torch.stack(result.chosen.prefixes[layer], dim=1) for layer in method.pool.layers]
            mine = torch.stack([pair.expand(images, -1, -1, -1) for pair in pairs]).unflatten(-1, (heads, -1))
            self.compare(f"{prefix}.batched_prompt", mine)
        self.compare(f"{prefix}.features", result.features)
        self.compare(f"{prefix}.logits", result.logits)
        if f"f64.{prefix}.reduce_sim" in self.arrays:
            self.compare(f"{prefix}.reduce_sim", result.chosen.terms["pull"])
        if task is not None:
            allowed = self.meta["config"]["class_mask"][task]
            self.compare(f"{prefix}.logits_masked", mask_logits(result.logits, allowed))


DEPTH = 4  # of the recorded backbones


def make(
    model: VisionTransformer, config: DualPromptConfig, dtype: torch.dtype, scenario: Scenario = SCENARIO
) -> DualPrompt:
    return DualPrompt(config, context_of(SPEC, config, scenario, backbone=backbone_of(model))).to(dtype)


def compare_training(case: Case, task: int, method: DualPrompt, twin: DualPrompt, batch: Batch, stem: str = "") -> None:
    """Three steps; ``twin`` does the first one without clipping, so its gradients are the raw ones."""
    with torch.no_grad():
        case.compare_pass(f"{stem}train", method, method.run(batch.images, training=True), task)
    raw = twin.train_step(batch)
    for name, gradient in case.theirs(twin, grad=True).items():
        case.compare(f"{stem}grad.{name}", gradient)
    case.compare(f"{stem}train.loss_ce", raw["loss_ce"])
    case.compare(f"{stem}train.loss_total", raw["loss"])
    losses = []
    for step in range(3):
        terms = method.train_step(batch)
        losses.append(torch.as_tensor(terms["loss"]))
        if step == 0:
            case.compare(f"{stem}grad_norm", terms["grad_norm"])
    case.compare(f"{stem}steps.loss_total", torch.stack(losses))
    if case.dtype == torch.float64:  # Adam turns a gradient of 1e-8 into a step of either sign in float32
        for name, value in case.theirs(method).items():
            case.compare(f"{stem}after3.{name}", value)
        with torch.no_grad():
            result = method.eval().run(case.tensor("input.eval_images"))
        case.compare_pass(f"{stem}eval_after3", method, result)


@DTYPES
@pytest.mark.parametrize("name", ["correct_layout", "correct_layout_batchwise", "port_layout_bug"])
def test_three_training_steps_equal_dualprompt_pytorch(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method, twin = case.method(), case.method(clip=0.0)
    frozen = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    with torch.no_grad():
        images = case.tensor("input.eval_images")
        case.compare_pass("eval", method, method.eval().run(images))
        if "f64.eval_one_by_one.logits" in case.arrays:
            alone = torch.cat([method.predict(image.unsqueeze(0)) for image in images])
            case.compare("eval_one_by_one.logits", alone)
    task = case.meta["config"]["task_id"]
    for learner in (method, twin):
        # The recorded run begins here: no slots are copied from the task before.
        learner.config = case.config(copy_slots=False, clip=learner.config.clip)
        begin(learner, SCENARIO, task)
    compare_training(case, task, method, twin, case.batch())
    assert all(torch.equal(value, frozen[key]) for key, value in method.backbone.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())
    case.report()


@DTYPES
def test_second_task_copies_slots_and_starts_a_new_optimizer(dtype: torch.dtype) -> None:
    case = Case(GOLDEN, "correct_layout", dtype)
    method = case.method()
    begin(method, SCENARIO, 0)
    for _ in range(3):
        method.train_step(case.batch())
    if dtype == torch.float32:  # three steps of Adam have drifted apart: start where they did
        restart(case, method)
    twin = case.method(clip=0.0)
    twin.load_state_dict(method.state_dict())
    begin(method, SCENARIO, 1)
    begin(twin, SCENARIO, 1)
    for name, value in case.theirs(method).items():
        case.compare(f"next_task.start.{name}", value)
    compare_training(case, 1, method, twin, case.batch("_next"), stem="next_task.")
    case.report()


def restart(case: Case, method: DualPrompt) -> None:
    """Sets the parameters to those recorded after the first task."""
    with torch.no_grad():
        for name, parameter in (
            ("e_prompt.prompt", method.pool.prefixes),
            ("e_prompt.prompt_key", method.pool.keys),
            ("g_prompt", method.g_prompt),
            ("head.weight", method.head.weight),
            ("head.bias", method.head.bias),
        ):
            parameter.copy_(case.tensor(f"f64.after3.{name}").reshape(parameter.shape))


@DTYPES
def test_features_gradients_and_clip_equal_jax(dtype: torch.dtype) -> None:
    case = Case(GOLDEN, "jax_official", dtype)
    method, twin = case.method(copy_slots=False), case.method(copy_slots=False, clip=0.0)
    task, batch = case.meta["config"]["task_id"], case.batch()
    begin(method, SCENARIO, task)
    begin(twin, SCENARIO, task)
    with torch.no_grad():
        case.compare_pass("eval", method, method.eval().run(case.tensor("input.eval_images")))
        case.compare_pass("train", method, method.run(batch.images, training=True), task)
    terms = twin.train_step(batch)
    case.compare("train.loss_ce", terms["loss_ce"])
    case.compare("train.loss_total", terms["loss"])
    raw = case.theirs(twin, grad=True)
    for name, gradient in raw.items():
        case.compare(f"grad.{name}", gradient)
    case.compare("grad_norm_all", method.train_step(batch)["grad_norm"])  # the frozen backbone counts
    factor = torch.from_numpy(case.arrays["f64.clip_factor"])
    assert factor < 1
    for name, clipped in case.theirs(method, grad=True).items():
        before = raw[name]
        assert clipped is not None
        assert before is not None
        torch.testing.assert_close(clipped.double(), before.double() * factor, rtol=1e-4, atol=1e-9)
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())
    case.report()


def fixture_method(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> DualPrompt:
    """Section 5 of the fixtures, on the second of two tasks; the query is fixed, to exercise the selection."""
    scenario = toy_scenario(experiences=2, classes=3, train=1, test=1)
    values = {"pool_size": 4, "g_length": 2, "e_length": 2, "eval_logits": "all", "clip": 0.0, "copy_slots": False}
    method = make(tiny_vit(), DualPromptConfig(**{**values, **changes}), torch.float32, scenario)
    assert (method.g_layers, method.pool.layers) == ((0,), (1, 2))  # the default for three blocks
    with torch.no_grad():
        method.g_prompt.copy_(fill("dual.g", (1, 2, 2, 4, 8)).flatten(-2))
        method.pool.prefixes.copy_(fill("dual.e", (2, 2, 4, 2, 4, 8)).flatten(-2))
        method.pool.keys.copy_(fill("dual.key", (4, 32)))
        method.head.weight.copy_(vit_weight("head.weight", (6, 32)))
        method.head.bias.copy_(vit_weight("head.bias", (6,)))
    begin(method, scenario, 1)
    similarity = method.pool.similarity
    monkeypatch.setattr(method.pool, "similarity", lambda query: similarity(fill("query3", (4, 32)).float()))
    return method


# Options, training?, slots, first three logits of samples 0 and 2, masked cross-entropy, R.
FIXTURES: dict[str, tuple[dict[str, Any], bool, list[int], list[float], list[float], float, float]] = {
    "correct, training": (
        {}, True, [1, 1, 1, 1],
        [-0.7638627, -0.9348047, -0.6867022], [-0.5699778, -0.7700223, -0.2705500], 1.2044621, 0.0698928,
    ),
    "correct, per sample": (
        {}, False, [3, 0, 1, 2],
        [-0.7166441, -0.9835359, -0.6270794], [-0.5699778, -0.7700223, -0.2705500], 1.1588463, 0.7011227,
    ),
    "correct, batchwise": (
        {"selection": "batchwise"}, False, [2, 2, 2, 2],
        [-0.6916696, -1.0129391, -0.5352535], [-0.5157584, -0.8265549, -0.1562594], 1.1780080, 0.0210477,
    ),
    "port, training": (
        {"layout": "port"}, True, [1, 1, 1, 1],
        [-0.7498816, -0.9727222, -0.5871532], [-0.5557758, -0.7864202, -0.2430541], 1.1899567, 0.0698928,
    ),
    "port, per sample": (
        {"layout": "port"}, False, [3, 0, 1, 2],
        [-0.7373468, -0.9797189, -0.6175097], [-0.5093067, -0.8492130, -0.1471630], 1.1758498, 0.7011227,
    ),
}  # fmt: skip
IMAGES, LABELS = image_batch(count=4), torch.tensor([3, 4, 5, 4])


@pytest.mark.parametrize("name", FIXTURES)
def test_closed_form_forward(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    changes, training, slots, first, third, wanted, pull = FIXTURES[name]
    if name == "correct, batchwise":  # a four-way tie, which the recorded run broke towards slot 2
        changes = {**changes, "selection": "per-sample"}
        monkeypatch.setattr("bench_methods.dualprompt.prompts.top_k", lambda scores, k: torch.full((4, 1), 2))
    method = fixture_method(monkeypatch, **changes)
    with torch.no_grad():
        result = method.run(IMAGES, training=training)
    assert result.chosen is not None
    assert result.chosen.selection is not None
    assert result.chosen.selection.flatten().tolist() == slots
    assert result.logits[0, :3].tolist() == pytest.approx(first, abs=1e-5)
    assert result.logits[2, :3].tolist() == pytest.approx(third, abs=1e-5)
    loss = F.cross_entropy(mask_logits(result.logits, (3, 4, 5)), LABELS)
    assert float(loss) == pytest.approx(wanted, abs=1e-5)
    assert float(result.chosen.terms["pull"]) == pytest.approx(pull, abs=1e-5)


@pytest.mark.parametrize(
    ("layout", "loss", "norms"),
    [
        ("correct", 1.1345693, {"g": 0.0000481, "e": 0.0175197, "key": 0.0795514, "head": 2.0579135}),
        ("port", 1.1200639, {"e": 0.0118967, "head": 1.9364927}),
    ],
)
def test_closed_form_gradients(
    monkeypatch: pytest.MonkeyPatch, layout: str, loss: float, norms: dict[str, float]
) -> None:
    method = fixture_method(monkeypatch, layout=layout)
    terms = method.train_step(Batch(IMAGES, LABELS))
    assert float(terms["loss"]) == pytest.approx(loss, abs=1e-5)
    parameters = {"g": method.g_prompt, "e": method.pool.prefixes, "key": method.pool.keys, "head": method.head.weight}
    for name, norm in norms.items():
        gradient = parameters[name].grad
        assert gradient is not None
        # The G-prompt's is small and given with three digits.
        assert float(gradient.norm()) == pytest.approx(norm, rel=1e-4 if name != "g" else 2e-3)
    keys = method.pool.keys.grad
    assert keys is not None
    assert keys[[0, 2, 3]].count_nonzero() == 0  # only the key of the current task
