"""MaPLe, PromptSRC and CLIP-LoRA against numbers recorded from their official code (``tests/golden/newer_clip``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import clip_lora, maple, promptsrc
from benchmark.api import Batch
from benchmark.backbones.lora import LoRA, merge
from benchmark.errors import UsageError
from benchmark.testing.by_hand import at, place
from benchmark.testing.clip_methods import clip_method, recorded_method
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "newer_clip"
(MAPLE,), (PROMPTSRC,), (LORA,) = (module.bench_register_methods() for module in (maple, promptsrc, clip_lora))
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def batch_of(case: Recorded, number: int) -> Batch:
    return Batch(case.images("input.image_index")[number], case.tensor("input.labels")[number])


def set_all(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Starts as recorded; every parameter is one of the recorded ones."""
    assert parameters.keys() == values.keys()
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def gradients(parts: Mapping[str, tuple[Tensor, Any]]) -> dict[str, Tensor]:
    """Of parameters that are rows of larger ones."""
    found = {}
    for name, (whole, rows) in parts.items():
        assert whole.grad is not None
        found[name] = whole.grad[rows]
    return found


def same_texts(method: Any, case: Recorded) -> None:
    ids, wanted = method.bank.prompts(method.competing_names).ids, case.tensor("input.token_ids").long()
    assert torch.equal(ids, wanted[:, : ids.shape[1]])
    assert not wanted[:, ids.shape[1] :].any()


def three_steps(method: Any, case: Recorded, parts: Mapping[str, tuple[Tensor, Any]]) -> None:
    """On the first batch at one rate: gradients of the first, losses of all, parameters and logits afterwards."""
    losses = []
    for step in range(3):
        losses.append(method.train_step(at(batch_of(case, 0), step, each=4, epochs=9))["loss"])
        if step == 0:
            for name, found in gradients(parts).items():
                case.compare(f"grad.{name}", found)
    case.compare("steps.loss_total", torch.stack(losses))
    for name, (whole, rows) in parts.items():
        case.compare(f"after3.{name}", whole[rows])
    with torch.no_grad():
        case.compare("eval_after3.logits", method.eval().predict(case.images("pool")))


def whole_run(method: Any, case: Recorded, parts: Mapping[str, tuple[Tensor, Any]]) -> None:
    """The official loop: epochs of two batches, the first at 1e-5."""
    epochs, losses, rates = case.meta["config"]["epochs"], [], []
    for step in range(2 * epochs):
        losses.append(method.train_step(at(batch_of(case, step % 2), step, each=2, epochs=epochs))["loss"])
        rates.append(method.active_optimizer.param_groups[0]["lr"])
    case.compare("run.lr", torch.tensor(rates, dtype=torch.float64))
    case.compare("run.loss_total", torch.stack(losses))
    for name, (whole, rows) in parts.items():
        if f"f64.run.{name}" in case.arrays:  # large matrices are left out of the files
            case.compare(f"run.{name}", whole[rows])
    with torch.no_grad():
        case.compare("run.logits", method.eval().predict(case.images("pool")))


# --- MaPLe ------------------------------------------------------------------------------------------


def coupled(case: Recorded, **more: Any) -> tuple[Any, dict[str, tuple[Tensor, Any]]]:
    told = case.meta["config"]
    sizes = {"vectors": told["n"], "depth": told["depth"], "words": told["init"]}
    sgd = {"lr": told["lr"], "weight_decay": told["wd"], "epochs": told["epochs"]}
    method: Any = recorded_method(MAPLE, case, names="names", **sizes, **sgd, **more)
    everything = slice(None)
    parts: dict[str, tuple[Tensor, Any]] = {"prompt_learner.ctx": (method.prompts.text, 0)}
    for block, linear in enumerate(method.coupling.maps):
        stem = f"prompt_learner.compound_prompt_projections.{block - 1}" if block else "prompt_learner.proj"
        parts |= {f"{stem}.weight": (linear.weight, everything), f"{stem}.bias": (linear.bias, everything)}
        if block:
            parts[f"prompt_learner.compound_prompts_text.{block - 1}"] = (method.prompts.text, block)
    set_all({name: whole[rows] for name, (whole, rows) in parts.items()}, case.part("method."))
    return method, parts


@both
@pytest.mark.parametrize("name", ["two_of_four_words_depth3", "random_n3_depth2"])
def test_maple_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "maple", name, dtype)
    method, parts = coupled(case, warmup=0)
    same_texts(method, case)
    batch = batch_of(case, 0)
    with torch.no_grad():
        case.compare("logits", method.predict(batch.images))
        loss = method.losses(batch, method.places(batch.labels))["loss"]
    case.compare("loss_ce", loss)
    case.compare("loss_total", loss)
    three_steps(method, case, parts)
    assert all(parameter.grad is None for parameter in method.dual.parameters())
    if dtype == torch.float64:
        method, parts = coupled(case)
        whole_run(method, case, parts)
    case.report()


def test_maple_starts_from_words_and_one_draw() -> None:
    method: Any = clip_method(MAPLE, depth=2)
    words = method.dual.embed(torch.tensor(method.dual.tokenizer.encode("a photo of a")))
    assert torch.equal(method.prompts.text[0], words[:2])
    deep: Any = clip_method(MAPLE, depth=2, vectors=5, words="").coupling
    assert len(deep.maps) == 2
    assert not torch.equal(deep.maps[0].weight, deep.maps[1].weight)
    with pytest.raises(UsageError, match="prompts for 3 blocks: the text tower of this backbone has 2"):
        clip_method(MAPLE, depth=3)
    with pytest.raises(
        ValueError, match="vectors: 5 are more than the 4 words of `words`; use 4 or fewer, or no words"
    ):
        maple.MaPLeConfig(vectors=5)


# --- PromptSRC --------------------------------------------------------------------------------------


def regulated(case: Recorded, **more: Any) -> tuple[Any, dict[str, tuple[Tensor, Any]]]:
    told = case.meta["config"]
    method: Any = recorded_method(
        PROMPTSRC,
        case,
        names="names",
        words=told["init"],
        vectors=told["nt"],
        vision_vectors=told["nv"],
        depth=told["dt"],
        vision_depth=told["dv"],
        text_weight=float(told["wt"]),
        image_weight=float(told["wi"]),
        peak=float(told["mu"]),
        width=float(told["sd"]),
        lr=told["lr"],
        weight_decay=told["wd"],
        epochs=told["epochs"],
        **more,
    )
    text, vision = method.prompts.text, method.prompts.vision
    parts: dict[str, tuple[Tensor, Any]] = {"prompt_learner.ctx": (text, 0), "image_encoder.VPT": (vision, 0)}
    for tower, rows in (("text", text), ("image", vision)):
        for block in range(1, len(rows)):
            parts[f"{tower}_encoder.transformer.resblocks.{block}.VPT_shallow"] = (rows, block)
    set_all({name: whole[rows] for name, (whole, rows) in parts.items()}, case.part("method."))
    return method, parts


@both
@pytest.mark.parametrize("name", ["words_4_4_depth3", "vision2_text3_depths_2_3"])
def test_promptsrc_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "promptsrc", name, dtype)
    method, parts = regulated(case, warmup=0)
    same_texts(method, case)
    batch = batch_of(case, 0)
    with torch.no_grad():
        frozen, taught = method.dual.image_features(batch.images), method.teacher(method.competing_names)
        case.compare("teacher_text_unit", taught)
        case.compare("teacher_image_unit", F.normalize(frozen, dim=1))
        case.compare("teacher_logits", method.dual.logits(frozen, taught))
        case.compare("text_features_unit", F.normalize(method.training_texts(), dim=1))
        case.compare("image_features_unit", F.normalize(method.image_features(batch.images), dim=1))
        case.compare("logits", method.predict(batch.images))
        terms = method.losses(batch, method.places(batch.labels))
    for key in ("ce", "text", "image", "logits"):
        case.compare(f"loss_{key}", terms[f"loss_{key}"])
    case.compare("loss_total", terms["loss"])
    three_steps(method, case, parts)
    if dtype == torch.float64:
        method, parts = regulated(case)
        case.compare("run.gpa_weights", torch.tensor(method.config.weights(), dtype=torch.float64))
        take, last = method._take, {}

        def taking() -> None:
            last.update({name: whole[rows].detach().clone() for name, (whole, rows) in parts.items()})
            take()

        method._take = taking
        whole_run(method, case, parts)
        for part, value in last.items():
            case.compare(f"run_last.{part}", value)
        assert last
        assert not method.extra_state()["average"]
    case.report()


def test_an_average_far_from_its_peak_is_one() -> None:
    weights = promptsrc.PromptSRCConfig(epochs=2, peak=100.0, width=0.1).weights()
    assert weights == pytest.approx([0.0, 1.0])


# --- CLIP-LoRA --------------------------------------------------------------------------------------

PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}


def changed(case: Recorded) -> tuple[Any, dict[str, tuple[Tensor, Any]]]:
    told = case.meta["config"]
    method: Any = recorded_method(
        LORA,
        case,
        names="names",
        template=told["template"],
        rank=told["r"],
        alpha=float(told["alpha"]),
        targets="".join(told["params"]),
        position="all" if told["position"] == "all" else "up",  # the last of three blocks
        dropout=0.0,  # recorded with masks that let everything through
        lr=told["lr"],
        weight_decay=case.meta["optimizer"]["weight_decay"],
    )
    parts: dict[str, tuple[Tensor, Any]] = {}
    for tower, stem in (("vision", "visual.transformer"), ("text", "transformer")):
        for block, change in enumerate(method.changes[tower]):
            if isinstance(change, LoRA):
                for number, letter in enumerate(change.targets):
                    name = f"{stem}.resblocks.{block}.attn.{PROJECTIONS[letter]}.w_lora"
                    parts[f"{name}_A"] = (change.down, slice(number * told["r"], (number + 1) * told["r"]))
                    parts[f"{name}_B"] = (change.up, number)
    return method, parts


@both
@pytest.mark.parametrize("name", ["qkv_r2_zero_B", "qkvo_r3_random_B", "quirk_no_dropout"])
def test_clip_lora_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "clip_lora", name, dtype)
    told, pool = case.meta["config"], case.images("pool")
    method, parts = changed(case)
    with torch.no_grad():
        if name == "qkv_r2_zero_B":  # as it starts: without a change
            case.compare("zero_shot_logits", method.predict(pool))
    set_all({name: whole[rows] for name, (whole, rows) in parts.items()}, case.part("method."))
    with torch.no_grad():
        case.compare("logits", method.predict(batch_of(case, 0).images))
    losses, rates, count = [], [], told["steps"]
    for step in range(count):
        losses.append(method.train_step(at(batch_of(case, step % 2), step, each=count))["loss"])
        rates.append(method.active_optimizer.param_groups[0]["lr"])
        if step == 0:
            found = gradients(parts)
            if name == "quirk_no_dropout":  # there the layers below miss the changes above them
                wrong = max(float((found[key] - case.tensor(f"f64.grad.{key}")).abs().max()) for key in found)
                assert wrong > 1e-4
                case.report()
                return
            for key, value in found.items():
                case.compare(f"grad.{key}", value)
        if step == 2 and dtype == torch.float64:  # Adam divides by gradients that are nearly 0
            for key, (whole, rows) in parts.items():
                case.compare(f"after3.{key}", whole[rows])
    case.compare("lr", torch.tensor(rates, dtype=torch.float64))
    case.compare("loss", torch.stack(losses), limit=None if dtype == torch.float64 else 1e-3)
    if dtype == torch.float64:
        with torch.no_grad():
            case.compare("eval_last.cosine", method.predict(pool) / clip_lora.SCALE)
    case.report()


def test_steps_follow_images_per_class() -> None:
    method: Any = clip_method(LORA, batch_size=2)  # three images of three classes: 500 steps, two a pass
    assert len(method.passes()) == 250
    assert len(clip_method(LORA, per_shot=0, epochs=3).passes()) == 3
    assert method.rate(place(0, each=4)) == 2e-4
    assert sum(p.numel() for p in method.trainable()) == 2 * 2 * 2 * 3 * (64 + 48)  # 2 r d, of q, k, v, in two blocks
    with pytest.raises(ValueError, match="targets: 'qx' is unknown; use letters of qkvo"):
        clip_lora.ClipLoraConfig(targets="qx")


def test_dropout_has_a_mask_for_each_projection() -> None:
    torch.manual_seed(0)
    change = LoRA(8, rank=2, targets="qkv", dropout=0.5)
    torch.nn.init.normal_(change.up)
    tokens = torch.ones(1, 3, 8)
    with torch.no_grad():
        change.down[2:4], change.up[1] = change.down[:2].clone(), change.up[0].clone()  # k changes as q does
        query, key, _ = change.project(tokens, tokens, *[torch.zeros(1, 3, 8)] * 3)
        assert not torch.equal(query, key)
        with pytest.raises(ValueError, match="changes of the output projection cannot be merged"):
            merge(torch.nn.Module(), [LoRA(8, rank=2, targets="qo")])
        query, key, _ = change.eval().project(tokens, tokens, *[torch.zeros(1, 3, 8)] * 3)
        torch.testing.assert_close(query, key)
