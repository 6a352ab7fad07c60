"""KgCoOp, ProGrad and CLIP-Adapter against numbers recorded from their official code (``tests/golden/newer_clip``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import clip_adapter, clip_zero_shot, kgcoop, prograd
from benchmark.api import Batch
from benchmark.errors import UsageError
from benchmark.learners.named import NamedLearner
from benchmark.testing.by_hand import at
from benchmark.testing.clip_methods import clip_method, recorded_method
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "newer_clip"
(KGCOOP,), (PROGRAD,), (ADAPTER,) = (module.bench_register_methods() for module in (kgcoop, prograd, clip_adapter))
(ZERO_SHOT,) = clip_zero_shot.bench_register_methods()
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def options(case: Recorded, **more: Any) -> dict[str, Any]:
    """SGD as recorded; no warm-up, so that the rate of the first epoch is the recorded one."""
    told = case.meta["optimizer"]
    sgd = {name: told[name] for name in ("lr", "momentum", "weight_decay")}
    return {**sgd, "epochs": case.meta["config"]["epochs"], "warmup": 0, **more}


def batch_of(case: Recorded, method: Any, number: int) -> Batch:
    features = method.encode(case.images("input.image_index")[number])
    return Batch(torch.empty(0, 3, 32, 32), case.tensor("input.labels")[number], features=features)


def steps(method: Any, case: Recorded, terms: Sequence[str]) -> list[Any]:
    """Three steps on the first batch at one rate; its loss terms before each."""
    batch = batch_of(case, method, 0)
    found = [method.train_step(batch) for _ in range(3)]
    return [torch.stack([step[name] for name in terms]) for step in found]


def run(method: NamedLearner, case: Recorded, terms: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The official loop: epochs of two batches; learning rates, and loss terms before each step."""
    epochs, rates, found = case.meta["config"]["epochs"], [], []
    for step in range(2 * epochs):
        told = method.train_step(at(batch_of(case, method, step % 2), step, each=2, epochs=epochs))
        found.append(torch.stack([torch.as_tensor(told[name]) for name in terms]))
        rates.append(method.active_optimizer.param_groups[0]["lr"])
    return torch.tensor(rates, dtype=torch.float64), torch.stack(found)


def set_context(method: Any, case: Recorded) -> None:
    with torch.no_grad():
        method.ctx.vectors.copy_(case.tensor("method.ctx"))


def same_texts(method: Any, case: Recorded) -> None:
    ids, wanted = method.training_prompts().ids, case.tensor("input.token_ids").long()
    assert torch.equal(ids, wanted[:, : ids.shape[1]])
    assert not wanted[:, ids.shape[1] :].any()


# --- KgCoOp ----------------------------------------------------------------------------------------


def student(case: Recorded, **more: Any) -> Any:
    told = case.meta["config"]
    chosen = {"template": told["teacher_template"], "words": told["words_init"], "vectors": told["n_ctx"]}
    return recorded_method(KGCOOP, case, **options(case, **chosen, pull=told["W"], **more))


@both
@pytest.mark.parametrize("name", ["words_w8", "random_m3_w1"])
def test_kgcoop_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "kgcoop", name, dtype)
    method = student(case)
    if case.meta["config"]["words_init"]:
        torch.testing.assert_close(method.ctx.vectors, case.tensor("method.ctx"), atol=0, rtol=0)
    set_context(method, case)
    same_texts(method, case)
    batch = batch_of(case, method, 0)
    case.compare("image_features", batch.features)
    case.compare("teacher_features", method.teacher(method.names))
    case.compare("text_features", method.training_prompts().features(method.ctx.vectors))
    with torch.no_grad():
        case.compare("logits", method.predict(case.images("input.image_index")[0]))
    terms = method.losses(batch, method.places(batch.labels))
    for ours, theirs in (("loss_ce", "loss_ce"), ("loss_kg", "loss_kg"), ("loss", "loss_total")):
        case.compare(theirs, terms[ours])
    terms["loss"].backward()
    case.compare("grad.ctx", method.ctx.vectors.grad)
    case.compare("steps.loss_total", torch.cat(steps(method, case, ["loss"])))
    case.compare("after3.ctx", method.ctx.vectors)
    with torch.no_grad():
        case.compare("eval_after3.logits", method.predict(case.images("pool")))
    whole = student(case, warmup=1)
    set_context(whole, case)
    rates, losses = run(whole, case, ["loss"])
    case.compare("run.lr", rates)
    case.compare("run.loss_total", losses[:, 0])
    case.compare("run.ctx", whole.ctx.vectors)
    assert all(parameter.grad is None for parameter in method.dual.parameters())
    case.report()


# --- ProGrad ---------------------------------------------------------------------------------------


def projecting(case: Recorded, **more: Any) -> Any:
    told = case.meta["config"]
    chosen = {
        "template": told["teacher_template"],
        "words": "template" if told["words_init"] else "",
        "vectors": told["n_ctx"],
        "temperature": told["T"],
        "projection": told["lam"],
    }
    return recorded_method(PROGRAD, case, **options(case, **chosen, **more))


@both
@pytest.mark.parametrize("name", ["words_m16_lambda1", "random_m4_conflict"])
def test_prograd_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "prograd", name, dtype)
    method = projecting(case)
    if case.meta["config"]["words_init"]:  # nine zeros, then seven words of eight tokens
        torch.testing.assert_close(method.ctx.vectors, case.tensor("method.ctx"), atol=0, rtol=0)
    set_context(method, case)
    same_texts(method, case)
    batch = batch_of(case, method, 0)
    case.compare("teacher_features", method.teacher(method.names))
    case.compare("teacher_logits", method.dual.logits(batch.features, method.teacher(method.names)))
    with torch.no_grad():
        case.compare("logits", method.predict(case.images("input.image_index")[0]))
    terms = method.losses(batch, method.places(batch.labels))
    case.compare("loss_ce", terms["loss"])
    case.compare("loss_kd", terms["loss_kd"])
    vectors = method.ctx.vectors
    (gradient,) = torch.autograd.grad(terms["loss"], vectors, retain_graph=True)
    (taught,) = torch.autograd.grad(terms["loss_kd"], vectors)
    used, cosine = method.aligned(gradient, taught)
    case.compare("grad_ce.ctx", gradient)
    case.compare("grad_kd.ctx", taught)
    case.compare("cosine", cosine)
    case.compare("grad_used.ctx", used)
    assert torch.equal(used, gradient) == (case.meta["config"]["cosine"] > 0)
    case.compare("steps.loss_ce_kd", torch.stack(steps(method, case, ["loss", "loss_kd"])))
    case.compare("after3.ctx", method.ctx.vectors)
    with torch.no_grad():
        case.compare("eval_after3.logits", method.predict(case.images("pool")))
    whole = projecting(case, warmup=1)
    set_context(whole, case)
    rates, losses = run(whole, case, ["loss", "loss_kd"])
    case.compare("run.lr", rates)
    case.compare("run.loss_ce_kd", losses)
    case.compare("run.ctx", whole.ctx.vectors)
    case.report()


def test_without_a_direction_of_the_teacher_the_gradient_stays() -> None:
    method: Any = clip_method(PROGRAD, vectors=4, words="")
    gradient = torch.tensor([1.0, -2.0])
    used, cosine = method.aligned(gradient, torch.zeros(2))
    assert torch.equal(used, gradient)
    assert cosine.isnan()


# --- CLIP-Adapter ----------------------------------------------------------------------------------


def adapting(case: Recorded, **more: Any) -> Any:
    told = case.meta["config"]
    chosen = {name: told[name] for name in ("template", "ratio", "reduction")}
    method: Any = recorded_method(ADAPTER, case, **options(case, **chosen, **more))
    with torch.no_grad():
        for name, value in case.part("method.fc.").items():
            method.adapter.get_parameter(name).copy_(value)
    return method


@both
@pytest.mark.parametrize("name", ["ratio02_reduction4", "ratio06_reduction2"])
def test_clip_adapter_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "clip_adapter", name, dtype)
    method = adapting(case)
    names = list(case.part("method.fc."))
    assert {f"fc.{name}" for name, _ in method.adapter.named_parameters()} == {f"fc.{name}" for name in names}
    batch = batch_of(case, method, 0)
    case.compare("image_features", batch.features)
    case.compare("adapted", method.adapter(batch.features))
    with torch.no_grad():
        case.compare("logits", method.predict(case.images("input.image_index")[0]))
    terms = method.losses(batch, method.places(batch.labels))
    case.compare("loss", terms["loss"])
    terms["loss"].backward()
    for part in names:
        case.compare(f"grad.fc.{part}", method.adapter.get_parameter(part).grad)
    case.compare("steps.loss", torch.cat(steps(method, case, ["loss"])))
    for part in names:
        case.compare(f"after3.fc.{part}", method.adapter.get_parameter(part))
    with torch.no_grad():
        case.compare("eval_after3.logits", method.predict(case.images("pool")))
    whole = adapting(case, warmup=1)
    rates, losses = run(whole, case, ["loss"])
    case.compare("run.lr", rates)
    case.compare("run.loss", losses[:, 0])
    for part in names:
        case.compare(f"run.fc.{part}", whole.adapter.get_parameter(part))
    case.report()


# --- options, sizes --------------------------------------------------------------------------------


def test_templates_of_data_sets() -> None:
    for config in (kgcoop.KgCoOpConfig, clip_adapter.ClipAdapterConfig, prograd.ProGradConfig):
        with pytest.raises(ValueError, match=r"template: 'a pet' must have one \{\} for the class name, or be one of"):
            config(template="a pet")
    pets = prograd.ProGradConfig(template="oxford_pets")
    assert pets.lead == "a type of pet, a photo of a"
    assert prograd.ProGradConfig(words="a_sketch of").lead == "a sketch of"
    with pytest.raises(ValueError, match="vectors: 4 are fewer than the 8 words of `words`; use 8 or more"):
        prograd.ProGradConfig(template="oxford_pets", vectors=4)


@pytest.mark.parametrize(
    ("spec", "chosen", "count"),
    [(KGCOOP, {}, 4 * 48), (PROGRAD, {}, 16 * 48), (ADAPTER, {}, 2 * 32 * 8), (ADAPTER, {"reduction": 2}, 2 * 32 * 16)],
)
def test_trained_numbers(spec: Any, chosen: dict[str, Any], count: int) -> None:
    method = clip_method(spec, **chosen)
    assert isinstance(method, NamedLearner)
    assert sum(p.numel() for p in method.trainable()) == count


# --- sentences about classes -----------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["cupl_and_templates", "cupl_only"])
def test_sentences_equal_the_official_code(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Recorded(GOLDEN / "clip_zero_shot_recipes", name, dtype)
    told, file = case.meta["config"], tmp_path / "sentences.json"
    file.write_text(json.dumps(told["prompts"]))
    monkeypatch.setattr(clip_zero_shot, "spoken", str)  # the official lists have no underscores; the toy names do
    method: Any = recorded_method(
        ZERO_SHOT,
        case,
        names="names",
        sentences=str(file),
        templates="|".join(told["templates"]) if told["use_both"] else "",
    )
    with torch.no_grad():
        weights, images = method.text_features(method.names), case.images("pool")
        case.compare("image_features", F.normalize(method.dual.image_features(images), dim=1))
        case.compare("class_weights", weights.T)
        case.compare("logits", 100 * F.normalize(method.dual.image_features(images), dim=1) @ weights.T)
    case.report()


def test_sentences_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "sentences.json"
    file.write_text('{"dog": ["A dog."], "sea turtle": []}')
    with pytest.raises(UsageError, match="no sentences for class `sea_turtle`"):
        clip_method(ZERO_SHOT, sentences=str(file))
    file.write_text('{"dog": "A dog."}')
    with pytest.raises(UsageError, match="no mapping of class names to lists of sentences"):
        clip_method(ZERO_SHOT, sentences=str(file))
    with pytest.raises(UsageError, match=r"absent\.json"):
        clip_method(ZERO_SHOT, sentences=str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match="templates: '' must have one"):
        clip_zero_shot.ClipZeroShotConfig(templates="")
