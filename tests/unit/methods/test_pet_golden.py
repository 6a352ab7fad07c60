"""PET, iPET and zero-shot cloze equal timoschick/pet on tensors recorded from it (``tests/golden/pet``), in float64."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench_methods.cloze_zero_shot import ClozeZeroShot, ClozeZeroShotConfig
from bench_methods.pet import Pet, PetConfig
from benchmark.api import Batch, Context, Experience, ExperienceView, Manifest, Place, Samples, Scenario, Wording
from benchmark.backbones.language import LanguageModel, Tokens
from benchmark.backbones.language.attention import install
from benchmark.inputs.texts import TextPipeline
from benchmark.learners import pattern_exploiting as parts

pytestmark = pytest.mark.usefixtures("one_thread")

FOLDER = Path(__file__).parents[2] / "golden" / "pet"
USES = frozenset({"boundaries", "class_names", "unlabelled"})
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
PATTERNS = {
    "bert_yelp_full_p0": "it was {mask} . {text}",
    "bert_two_segments_many_words_lm": "{text} | in summary , the restaurant is {mask} .",
    "distil_wmean_T2": "it was {mask} . {text}",
}
STEPS = 3
Recorded = tuple[dict[str, Any], dict[str, Tensor]]


def recorded(case: str) -> Recorded:
    with np.load(FOLDER / f"{case}.npz") as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    return json.loads((FOLDER / f"{case}.json").read_text()), tensors


def vocabulary(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Ids of all words of a case: those of its texts, and those of the verbalizer."""
    ids = dict(SPECIAL)
    plain = [["[CLS]", *text.split(), "[SEP]"] for text, _, _ in about["config"]["texts"]]
    for words, row in zip(about["config"].get("tokens", plain), tensors["input.input_ids"].tolist(), strict=True):
        ids |= dict(zip(words, row, strict=False))
    verbalizer = about["config"].get("verbalizer", {})
    for words, row in zip(
        verbalizer.values(), tensors.get("input.verbalizer_ids", torch.empty(0)).tolist(), strict=True
    ):
        ids |= dict(zip(words, row, strict=False))
    return ids


def model_of(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LanguageModel:
    """The tiny BERT of a case, with the pooler that the official library's masked model has."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = vocabulary(about, tensors)
    names = ("model_type", "task", "pattern", "labels", "verbalizer", "max_length", "texts", "tokens", "alpha")
    shape = {name: value for name, value in about["config"].items() if name not in (*names, "reduction", "temperature")}
    config = transformers.BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = transformers.BertForMaskedLM(config)
    model.bert = transformers.BertModel(config)
    install(model)
    model = model.double()
    state = {name.removeprefix("lm."): tensor for name, tensor in tensors.items() if name.startswith("lm.")}
    found = model.load_state_dict(state, strict=False)
    assert set(found.unexpected_keys) <= {"classifier.weight", "classifier.bias"}
    model.tie_weights()
    known = {f"unused{number}": number for number in range(config.vocab_size)}
    for word, number in ids.items():
        known.pop(f"unused{number}")
        known[word] = number
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32,
        clean_up_tokenization_spaces=False,
        **{f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")},
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    return LanguageModel(
        name="recorded",
        model=model.requires_grad_(False).eval(),
        tokenizer=wrapped,
        architecture="masked",
        sha256="0" * 64,
    )


def texts_of(about: Mapping[str, Any]) -> tuple[list[dict[str, str]], Tensor]:
    config = about["config"]
    texts = [{"text": text} for text, _, _ in config["texts"]]
    return texts, torch.tensor([config["labels"].index(label) for _, _, label in config["texts"]])


def scenario_of(about: Mapping[str, Any], case: str) -> Scenario:
    texts, labels = texts_of(about)
    config = about["config"]
    samples = Samples(texts, torch.arange(len(texts)), labels)
    pattern = PATTERNS[case]
    return Scenario(
        name="recorded",
        version=1,
        family="domain-il",
        experiences=(Experience(train=samples, test=samples, classes=tuple(range(len(config["labels"])))),),
        class_names=tuple(config["labels"]),
        wording=Wording(
            patterns=(pattern, f"{pattern} .", f"so {pattern}"),
            words={label: tuple(words) for label, words in config.get("verbalizer", {}).items()},
            segments=("text",),
        ),
    )


def context_of(case: str) -> tuple[Context, ExperienceView, Recorded]:
    about, tensors = recorded(case)
    scenario, manifest = scenario_of(about, case), Manifest("pet", USES)
    context = Context(
        pretrained=model_of(about, tensors),
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=TextPipeline(),
        manifest=manifest,
    )
    return context, ExperienceView(scenario, 0, manifest), (about, tensors)


def method_of(case: str, **options: Any) -> tuple[Pet, Recorded]:
    context, view, (about, tensors) = context_of(case)
    given = {
        "epochs": STEPS,
        "batch_size": 64,
        "repetitions": 1,
        "pattern": "0",
        "lr": about["optimizer"]["lr"],
        "weight_decay": about["optimizer"]["weight_decay"],
        "max_length": about["config"].get("max_length", 0),
        **options,
    }
    method = Pet(PetConfig(**given), context)
    method.head.double()
    method.train()
    method.begin_experience(view)
    return method, (about, tensors)


def steps(method: Pet, about: Mapping[str, Any], first: int = 0) -> list[float]:
    """Losses of one update per pass on the whole batch."""
    texts, labels = texts_of(about)
    total = len(method.passes())
    return [
        float(
            method.train_step(Batch(texts, labels, place=Place(epoch=step, epochs=total, step=step, steps=total)))[
                "loss"
            ]
        )
        for step in range(first, first + STEPS)
    ]


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


def compare_all(method: Pet, tensors: Mapping[str, Tensor], kind: str, tolerance: float) -> None:
    """Compares gradients or weights of every parameter that was recorded."""
    own = dict(method.model.named_parameters(remove_duplicate=False))
    own |= {f"classifier.{name}": parameter for name, parameter in method.head.named_parameters()}
    names = [name for name in tensors if name.startswith(f"f64.{kind}.")]
    assert len(names) > 35
    for name in names:
        parameter = own[name.removeprefix(f"f64.{kind}.")]
        found = parameter.grad if kind == "grad" else parameter.detach()
        assert found is not None, name
        close(found, tensors[name], tolerance)


def prepared(case: str, **options: Any) -> tuple[Pet, Recorded]:
    """The method before its first step; gaps are those that were recorded."""
    method, (about, tensors) = method_of(case, alpha=recorded(case)[0]["config"]["alpha"] or 1.0, **options)
    if "input.lm_ids" in tensors:
        gaps = iter(zip(tensors["input.lm_ids"], tensors["input.lm_labels"], strict=True))

        def with_gaps(tokens: Tokens) -> parts.Gaps:
            ids, labels = next(gaps)
            ends = (ids == SPECIAL["[SEP]"]).long()
            segments = (ends.cumsum(1) - ends == 1).long()  # behind the first end, up to the second
            return parts.Gaps(Tokens(ids, (ids != 0).long(), segments), labels)

        method.with_gaps = with_gaps  # type: ignore[method-assign]
    return method, (about, tensors)


CLS = ["bert_yelp_full_p0", "bert_two_segments_many_words_lm"]


@pytest.mark.parametrize("case", CLS)
def test_tokens_and_scores(case: str) -> None:
    context, view, (about, tensors) = context_of(case)
    length = about["config"]["max_length"]
    method = ClozeZeroShot(ClozeZeroShotConfig(pattern="0", max_length=length), context)
    method.begin_experience(view)
    texts, _ = texts_of(about)
    tokens = context.language.batch(
        [context.language.template(PATTERNS[case], max_length=length).encode(t) for t in texts]
    )
    count = tokens.ids.shape[1]
    assert torch.equal(tokens.ids, tensors["input.input_ids"][:, :count])
    assert torch.equal(tokens.segments, tensors["input.token_type_ids"][:, :count])
    assert torch.equal(tokens.marks["mask"][:, 0], tensors["input.mask_position"])
    assert not tensors["input.input_ids"][:, count:].any()
    close(context.language.logits(tokens, tokens.marks["mask"])[:, 0], tensors["f64.mask_logits"])
    close(method.predict(texts), tensors["f64.cls_logits"])


@pytest.mark.parametrize("case", CLS)
def test_gradients_of_the_first_step(case: str) -> None:
    method, (about, tensors) = prepared(case)
    loss = method._model_loss(*texts_of(about))
    close(loss.detach(), tensors["f64.steps.loss_total"][0])
    loss.backward()
    compare_all(method, tensors, "grad", 1e-9)


@pytest.mark.parametrize("case", CLS)
def test_losses_and_weights_of_three_steps(case: str) -> None:
    method, (about, tensors) = prepared(case)
    close(torch.tensor(steps(method, about), dtype=torch.float64), tensors["f64.steps.loss_total"])
    compare_all(method, tensors, "after", 1e-7)
    close(method.eval().predict(texts_of(about)[0]), tensors["f64.cls_logits_after"], 1e-7)


def test_parts_of_a_batch_are_the_batch() -> None:
    method, (about, tensors) = prepared("bert_yelp_full_p0", micro_batch=2)
    close(torch.tensor(steps(method, about), dtype=torch.float64), tensors["f64.steps.loss_total"])
    compare_all(method, tensors, "after", 1e-7)


def test_one_update_more_at_rate_0_changes_nothing() -> None:
    """The official loop ends when its counter exceeds the steps asked for: one more update, at learning rate 0."""
    method, (about, tensors) = prepared("bert_yelp_full_p0", steps=STEPS, epochs=99)
    assert len(method.passes()) == STEPS + 3  # 3 updates of the model, then 3 passes of the classifier
    steps(method, about)
    for group in method.active_optimizer.param_groups:
        group["lr"] = 0.0
    method._model_loss(*texts_of(about)).backward()
    method.active_optimizer.step()
    compare_all(method, tensors, "after", 1e-7)


def test_distillation() -> None:
    context, view, (about, tensors) = context_of("distil_wmean_T2")
    config = PetConfig(
        epochs=0,
        batch_size=64,
        repetitions=1,
        lr=about["optimizer"]["lr"],
        weight_decay=about["optimizer"]["weight_decay"],
        temperature=about["config"]["temperature"],
        distil_epochs=STEPS,
        words="unused50;unused51;unused52;unused53;unused54",
    )
    method = Pet(config, context)
    method.head.double()
    method.train()
    method.begin_experience(view)
    patterns = dict.fromkeys(method._models)
    method._accuracies = dict(zip(patterns, tensors["input.train_accuracy"].tolist(), strict=True))
    scores = dict(zip(patterns, tensors["input.scores"].double(), strict=True))
    method._scored = lambda texts, pattern: scores[pattern]  # type: ignore[method-assign, assignment]
    for name, parameter in method.head.named_parameters():
        parameter.data.copy_(tensors[f"lm.classifier.{name}"])
    method._advance(len(patterns))
    close(method._scores[0], tensors["f64.merged"])
    close((method._scores[0] / 2).softmax(dim=1), tensors["f64.soft_labels"])
    texts, _ = texts_of(about)
    close(method.predict(texts).detach(), tensors["f64.logits"])
    loss = method._distillation(texts)
    loss.backward()
    compare_all(method, tensors, "grad", 1e-9)
    losses = torch.tensor(steps(method, about), dtype=torch.float64)
    close(losses, tensors["f64.steps.loss_total"], 1e-9)
    compare_all(method, tensors, "after", 1e-7)
    close(method.eval().predict(texts).detach(), tensors["f64.logits_after"], 1e-7)


def test_new_sets_of_ipet_are_the_official_ones() -> None:
    about, tensors = recorded("ipet_wmean")
    config = about["config"]
    found = parts.new_sets(
        list(tensors["input.scores"]),
        tensors["input.train_accuracy"].tolist(),
        config["per_label"],
        share=config["logits_percentage"],
        seed=config["seed"],
    )
    assert torch.equal(torch.stack(found), tensors["f64.sets"].long())
