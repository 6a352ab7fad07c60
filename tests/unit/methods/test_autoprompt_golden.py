"""AutoPrompt against what its official code did on recorded batches (ucinlp/autoprompt at d6376759), in float64.

The texts of the cases go through this method's own patterns and steps; its batches are the recorded ones.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bench_methods.autoprompt import AutoPrompt, bench_register_methods
from benchmark.api import Batch, Scenario
from benchmark.backbones.language import triggers
from benchmark.backbones.language.model import LanguageModel
from benchmark.testing import text_methods
from benchmark.testing.recorded import Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
(SPEC,) = bench_register_methods()
FOLDER = Path(__file__).parents[2] / "golden" / "autoprompt"


def language_of(case: Recorded, words: list[str]) -> LanguageModel:
    shape = case.meta["config"]
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("max_position_embeddings", "layer_norm_eps", "hidden_act", "pad_token_id")
    model = transformers.BertForMaskedLM(transformers.BertConfig(**{name: shape[name] for name in names})).double()
    missing = model.load_state_dict(case.part("lm."), strict=False)
    assert not missing.unexpected_keys
    assert all("decoder" in key for key in missing.missing_keys)  # tied
    model.tie_weights()
    tokenizer = text_methods.word_tokenizer(
        words,
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=shape["max_position_embeddings"],
    )
    return text_methods.language_of(model, tokenizer, "masked")


def begun(name: str) -> tuple[Recorded, AutoPrompt, Scenario]:
    """The case, and the method at the start of its search."""
    case = Recorded(FOLDER, name, torch.float64)
    shape = case.meta["config"]
    facts = shape["label_map"] is None
    field, answer = ("sub_label", "obj_label") if facts else ("sentence", "label")
    objects = sorted({item[answer] for item in shape["train"]})
    given = {label: [label] for label in objects} if facts else shape["label_map"]
    named = {part: [{"text": item[field]} for item in shape[part]] for part in ("train", "dev")}
    labels = {part: [objects.index(item[answer]) for item in shape[part]] for part in ("train", "dev")}
    scenario = text_methods.text_scenario(
        named["train"],
        labels["train"],
        names=objects,
        validation=text_methods.samples_of(named["dev"], labels["dev"], first_id=1000),
    )
    method = text_methods.method_of(
        SPEC,
        language_of(case, shape["vocabulary"]),
        scenario,
        pattern="{text} {trigger} {mask} .",
        words=";".join(",".join(given[label]) for label in objects),
        triggers=int(case.arrays["f64.iter.trigger"].shape[1]),
        accumulation=shape["accumulation_steps"],
        candidates=shape["candidates"],
        iterations=shape["iterations"],
        batch_size=shape["batch_size"],
        filter=shape["filter"],
        metric="loss" if facts else "accuracy",
        lama=shape["print_lama"],
        dev="validation",
        chunk=13,
    )
    assert isinstance(method, AutoPrompt)
    method.double()
    text_methods.begin(method, scenario)
    return case, method, scenario


def batches(case: Recorded, scenario: Scenario, key: str, iteration: int) -> list[Batch]:
    found = []
    for rows in case.arrays[f"input.{key}"][iteration].tolist():
        part = scenario.experiences[0].train.subset(torch.tensor([row for row in rows if row >= 0]))
        found.append(Batch(part.read(slice(None)), part.labels))
    return found


@pytest.mark.parametrize("name", ["bert_label_sets_accuracy", "bert_facts_filter_lama"])
def test_the_search_is_that_of_the_official_code(name: str) -> None:
    case, method, scenario = begun(name)
    ids = case.tensor("input.train.input_ids")
    rows = method.rows(scenario.experiences[0].train.read(slice(None)))
    for row, wanted, marks in zip(rows, ids.tolist(), case.arrays["input.train.trigger_mask"], strict=True):
        kept = [number for place, number in enumerate(wanted) if number and not marks[place]]
        assert [number for place, number in enumerate(row.ids) if place not in row.marks["trigger"]] == kept
        assert list(row.marks["trigger"]) == np.flatnonzero(marks).tolist()
    barred = triggers.barred_words(method.language, [number for some in method._words.ids for number in some])
    if method.config.filter:
        assert torch.equal(barred, case.tensor("input.filtered"))
        assert method._barred is not None
    else:
        assert method._barred is None

    with torch.no_grad():
        first = batches(case, scenario, "grad_batches", 0)[0]
        tokens = triggers.with_trigger(method.language.batch(method.rows(first.texts)), method.trigger)
        case.compare("first_batch_mask_logits", method.language.logits(tokens, tokens.marks["mask"])[:, 0])
    case.compare("dev_metric_start", np.float64(method.dev_metric(method.trigger)))

    random.seed(case.meta["config"]["seed"])
    seen: dict[str, list[Any]] = {key: [] for key in ("slot", "trigger", "mean_loss", "slot_gradient")}
    later: dict[str, list[Any]] = {key: [] for key in ("candidates", "candidate_scores", "current_score")}
    ends: dict[str, list[Any]] = {key: [] for key in ("trigger_after", "swapped", "dev_metric")}
    for iteration in range(case.meta["config"]["iterations"]):
        seen["trigger"].append(method.trigger.clone())
        losses = [
            float(method.train_step(batch)["loss"]) for batch in batches(case, scenario, "grad_batches", iteration)
        ]
        seen["mean_loss"].append(sum(losses) / len(losses))
        seen["slot"].append(method.slot)
        seen["slot_gradient"].append(method.gradient[method.slot].clone())
        later["candidates"].append(method.tried.clone())
        for batch in batches(case, scenario, "score_batches", iteration):
            method.train_step(batch)
        later["candidate_scores"].append(method.scores[1:].clone())
        later["current_score"].append(float(method.scores[0]))
        swapped = not torch.equal(method.trigger, seen["trigger"][-1])
        ends["trigger_after"].append(method.trigger.clone())
        ends["swapped"].append(swapped)
        ends["dev_metric"].append(method.dev_metric(method.trigger) if swapped else float("nan"))
    assert seen["slot"] == case.arrays["f64.iter.slot"].tolist()
    assert ends["swapped"] == case.arrays["f64.iter.swapped"].tolist()
    for key in ("trigger", "trigger_after", "candidates"):
        found = {**seen, **later, **ends}[key]
        case.compare(f"iter.{key}", torch.stack(found))
    for key in ("mean_loss", "current_score"):
        case.compare(f"iter.{key}", torch.tensor({**seen, **later}[key], dtype=torch.float64))
    np.testing.assert_allclose(ends["dev_metric"], case.arrays["f64.iter.dev_metric"], rtol=1e-9)  # nan: no swap
    case.compare("iter.slot_gradient", torch.stack(seen["slot_gradient"]))
    case.compare("iter.candidate_scores", torch.stack(later["candidate_scores"]))
    case.compare("best_trigger", method.best)
    case.compare("best_dev", method.best_dev)
    case.report()


def test_label_tokens_are_those_of_the_official_code() -> None:
    case = Recorded(FOLDER, "label_search_bert", torch.float64)
    shape = case.meta["config"]
    words = Recorded(FOLDER, "bert_label_sets_accuracy", torch.float64).meta["config"]["vocabulary"]
    words = [word if word.startswith("[") else word.lower() for word in words]
    scenario = text_methods.text_scenario(
        [{"text": item["sentence"]} for item in shape["train"]],
        [int(item["label"]) for item in shape["train"]],
        names=["0", "1"],
    )
    method = text_methods.method_of(
        SPEC, language_of(case, words), scenario, triggers=2, pattern="{text} {trigger} {mask} .", words="the;and"
    )
    assert isinstance(method, AutoPrompt)
    method.double()
    text_methods.begin(method, scenario)
    with torch.no_grad():
        tokens = method.language.batch(method.rows(scenario.experiences[0].train.read(slice(None))))
        tokens = triggers.with_trigger(tokens, method.trigger)
        features = triggers.features_of_words(method.language, tokens, tokens.marks["mask"])
    projection = triggers.LabelProjection(method.language, 2, lr=case.meta["optimizer"]["lr"])
    with torch.no_grad():
        projection.linear.weight.copy_(case.tensor("method.weight"))
        projection.linear.bias.copy_(case.tensor("method.bias"))
    losses = []
    for step in range(case.meta["optimizer"]["steps"]):
        losses.append(projection.step(features, case.tensor("input.labels")))
        if step == 0:
            case.compare("grad.weight", projection.linear.weight.grad)
            case.compare("grad.bias", projection.linear.bias.grad)
    case.compare("steps.loss_total", torch.stack(losses))
    case.compare("after.weight", projection.linear.weight, limit=1e-7)
    case.compare("after.bias", projection.linear.bias, limit=1e-7)
    case.compare("scores", projection.scores(), limit=1e-7)
    case.compare("top", projection.scores().topk(shape["k"]).indices)
    case.report()
