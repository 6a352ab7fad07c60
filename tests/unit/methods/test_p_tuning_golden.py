"""P-tuning against numbers recorded from the official code, in float64, through the `train_step` that runs train with.

`tests/golden/language/ptuning_lama` and `ptuning_fewshot` were recorded from THUDM/P-tuning at f4225d4d; see the
``reference`` field of each json. Casts to half are off in them, and dropout is 0. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bench_methods.p_tuning import PTuning, bench_register_methods
from benchmark.api import Batch, Text
from benchmark.backbones.language import Tokens
from benchmark.scenario import Wording
from benchmark.testing import text_methods
from benchmark.testing.by_hand import place
from benchmark.testing.recorded import Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "language"
STEPS = 1e-7  # README of the recording: parameters after Adam
NOISE = 1e-6  # and of ptuning_lama, whose decay meets gradients of almost 0
PARTS = {"embedding": "table", "prompt_embeddings": "table", "lstm_head": "lstm", "mlp_head": "mlp"}


def named(key: str) -> str:
    """The name here of a recorded parameter of the encoder."""
    first, rest = key.split(".", 1)
    return f"{PARTS[first]}.{rest}"


def ids_of(rows: Tensor) -> list[list[int]]:
    return [[int(number) for number in row] for row in rows]


def bert(case: Recorded, shape: dict[str, Any]) -> transformers.BertForMaskedLM:
    known = transformers.BertConfig().to_dict()
    config = transformers.BertConfig(
        **{key: value for key, value in shape.items() if key in known and key != "model_type"},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForMaskedLM(config).double()
    weights = {key: value for key, value in case.part("lm.").items() if ".pooler." not in key}
    _fill(model, weights)
    return model


def gpt2(case: Recorded, shape: dict[str, Any]) -> transformers.GPT2LMHeadModel:
    known = transformers.GPT2Config().to_dict()
    config = transformers.GPT2Config(
        **{key: value for key, value in shape.items() if key in known and key != "model_type"},
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config).double()
    _fill(model, case.part("lm."))
    return model


def _fill(model: Any, weights: dict[str, Tensor]) -> None:
    missing, unknown = model.load_state_dict(weights, strict=False)
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "lm_head.weight"}
    assert set(missing) <= tied, missing
    assert not unknown, unknown
    model.tie_weights()


def put(case: Recorded, method: PTuning) -> dict[str, torch.nn.Parameter]:
    """Fills the encoder as it was recorded; returns its parameters by their recorded names."""
    own = dict(method.encoder.named_parameters())
    given = case.part("method.")
    assert {named(key) for key in given} == set(own)
    with torch.no_grad():
        for key, value in given.items():
            own[named(key)].copy_(value)
    return {key: own[named(key)] for key in given}


class Facts:
    """A recorded case of LAMA, and the method as it was there; objects are the allowed words."""

    def __init__(self, name: str) -> None:
        self.case = Recorded(GOLDEN / "ptuning_lama", name, torch.float64)
        shape = self.case.meta["config"]
        size, masked = shape["model"]["vocab_size"], shape["model"]["model_type"] == "bert"
        ids = self.case.tensor("input.ids")
        special = {shape["pad_token_id"], shape["pseudo_token_id"], shape["mask_token_id"], *((2, 3) if masked else ())}
        words = [f"w{number:03}" for number in range(size)]
        names = {"pad_token": words[shape["pad_token_id"]], "unk_token": words[shape["unk_token_id"]]}
        if masked:
            names |= {"cls_token": words[2], "sep_token": words[3], "mask_token": words[4]}
        tokenizer = text_methods.word_tokenizer(words, single="w002 $A w003" if masked else "$A", **names)
        subjects = [[number for number in row if number not in special] for row in ids_of(ids)]
        self.texts: list[Text] = [{"subject": text_methods.spoken(words, row)} for row in subjects]
        allowed = self.case.tensor("input.allowed").tolist()
        if not masked:  # all words are allowed; padding and what is unknown are one id, and no class can be called so
            allowed.remove(shape["unk_token_id"])
        objects = [next(number for number in row if number >= 0) for row in ids_of(self.case.tensor("input.labels"))]
        self.labels = torch.tensor([allowed.index(number) for number in objects])
        optimizer = self.case.meta["optimizer"]
        scenario = text_methods.text_scenario(
            self.texts,
            [*range(len(self.texts))],
            names=[words[number] for number in allowed],
            wording=Wording(segments=("subject",)),
            family="domain-il",
        )
        options = {**SPEC.recipes["lama"], "batch_size": len(self.texts), "template": tuple(shape["template"])}
        options |= {"lr": optimizer["lr"], "weight_decay": optimizer["weight_decay"]}
        model = bert(self.case, shape["model"]) if masked else gpt2(self.case, shape["model"])
        language = text_methods.language_of(model, tokenizer, "masked" if masked else "causal")
        method = text_methods.method_of(SPEC, language, scenario, **options)
        assert isinstance(method, PTuning)
        self.method = method.double()
        text_methods.begin(self.method, scenario)

    def tokens(self) -> Tokens:
        return self.method.language.batch(self.method.rows(self.texts))


@pytest.mark.parametrize("name", ["bert_333", "gpt2_33"])
def test_facts_are_learnt_as_by_the_official_code(name: str) -> None:
    facts = Facts(name)
    case, method = facts.case, facts.method
    own = put(case, method)
    tokens = facts.tokens()
    pseudo = case.tensor("input.ids") == case.meta["config"]["pseudo_token_id"]
    assert torch.equal(tokens.mask.bool(), case.tensor("input.attention_mask"))
    assert torch.equal(tokens.ids[~pseudo], case.tensor("input.ids")[~pseudo])
    case.compare("prompt", method.encoder())
    case.compare("inputs_embeds", method.embeds(tokens))
    case.compare("logits", method.language.logits(tokens, embeds=method.embeds(tokens)))
    assert {name for name, p in method.named_parameters() if p.requires_grad} == {
        f"encoder.{named(key)}" for key in own
    }

    losses, hits = [], []
    for step in range(3):
        with torch.no_grad():
            hits.append(int((method.predict(facts.texts).argmax(dim=1) == facts.labels).sum()))
        losses.append(method.train_step(Batch(facts.texts, facts.labels))["loss"])
        if step == 0:
            for key, parameter in own.items():
                case.compare(f"grad.{key}", parameter.grad)
    case.compare("steps.loss_total", torch.stack([torch.as_tensor(loss) for loss in losses]), limit=NOISE)
    case.compare("steps.hits", torch.tensor(hits))
    for key, parameter in own.items():
        case.compare(f"after3.{key}", parameter, limit=NOISE)
    case.report()


@pytest.fixture
def rte() -> Recorded:
    return Recorded(GOLDEN / "ptuning_fewshot", "bert_rte_lstm", torch.float64)


def few_shot(case: Recorded) -> tuple[PTuning, list[Text], Tensor]:
    """The method as it was recorded on RTE, with the pattern of its recipe."""
    shape, optimizer = case.meta["config"], case.meta["optimizer"]
    words = [f"[{number}]" for number in range(shape["vocab_size"])]
    for spoken, ids in zip(shape["tokens"], ids_of(case.tensor("input.input_ids")), strict=True):
        for word, number in zip(spoken, ids, strict=False):
            words[number] = word
    classes = [words[ids[0]] for ids in ids_of(case.tensor("input.verbalizer_ids"))]
    tokenizer = text_methods.word_tokenizer(
        words,
        single="[CLS] $A [SEP]",
        pad_token=words[0],
        unk_token=words[1],
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    # The pattern is written without blanks around marks, and texts without punctuation at their ends.
    texts: list[Text] = [
        {"premise": premise, "hypothesis": hypothesis.removesuffix(" .")} for premise, hypothesis, _ in shape["texts"]
    ]
    scenario = text_methods.text_scenario(
        texts,
        case.tensor("input.labels").tolist(),
        names=shape["labels"],
        wording=Wording(words={name: (word,) for name, word in zip(shape["labels"], classes, strict=True)}),
    )
    recipe = dict(SPEC.recipes["rte"])
    recipe |= {"pattern": str(recipe["pattern"]).replace("Question:", "Question :").replace("Answer:", "Answer :")}
    recipe |= {"lr": optimizer["prompt_lr"], "model_lr": optimizer["lm_lr"], "warmup": 0.0}
    recipe |= {"max_length": shape["max_length"]}
    language = text_methods.language_of(bert(case, shape), tokenizer, "masked")
    method = text_methods.method_of(SPEC, language, scenario, **recipe)
    assert isinstance(method, PTuning)
    method.double()
    text_methods.begin(method, scenario)
    return method, texts, case.tensor("input.labels")


def test_few_shot_trains_encoder_and_model_as_the_official_code(rte: Recorded) -> None:
    method, texts, labels = few_shot(rte)
    own = put(rte, method)
    tokens = method.language.batch(method.rows(texts))
    length = tokens.ids.shape[1]
    learned = rte.tensor("input.block_flag")[:, :length] == 1
    assert torch.equal(tokens.ids[~learned], rte.tensor("input.input_ids")[:, :length][~learned])
    assert torch.equal(tokens.mask, rte.tensor("input.attention_mask")[:, :length])
    assert torch.equal(tokens.marks["soft"].squeeze(1), learned.int().argmax(dim=1))
    assert torch.equal(tokens.marks["mask"].squeeze(1), rte.tensor("input.mask_position"))
    wanted = rte.tensor("f64.inputs_embeds")[:, :length]
    torch.testing.assert_close(method.embeds(tokens)[tokens.mask == 1], wanted[tokens.mask == 1], rtol=0, atol=1e-9)
    rte.compare("mask_logits", method.word_logits(tokens))
    with torch.no_grad():
        rte.compare("cls_logits", method.predict(texts))

    # Gradients before clipping.
    method.optimizer.zero_grad()
    method.loss(tokens, labels).backward()
    every = {**own, **{f"model.{key}": value for key, value in method.model.named_parameters()}}
    recorded = {key.removeprefix("grad.") for key in rte.computed("grad.")}
    assert recorded <= set(every)
    for key in recorded:
        rte.compare(f"grad.{key}", every[key].grad)
    moved = [parameter.grad for parameter in every.values() if parameter.grad is not None]
    norm = torch.stack([gradient.square().sum() for gradient in moved]).sum().sqrt()
    assert abs(float(norm) - float(rte.tensor("f64.steps.grad_norm")[0])) < 1e-9

    losses = []
    for step in range(3):
        terms = method.train_step(Batch(texts, labels, place=place(step, epochs=4)))
        losses.append(torch.as_tensor(terms["loss"]))
    rte.compare("steps.loss_total", torch.stack(losses), limit=STEPS)
    after = {key.removeprefix("after3.") for key in rte.computed("after3.")}
    pooler = {key for key in after if ".pooler." in key}  # read by nothing, and not built by today's library
    for key in after - pooler:
        rte.compare(f"after3.{key}", every[key], limit=STEPS)
    for key in pooler:
        assert torch.equal(rte.tensor(f"f64.after3.{key}"), rte.tensor(f"lm.{key.removeprefix('model.')}"))
    with torch.no_grad():
        rte.compare("cls_logits_after", method.predict(texts), limit=STEPS)
    rte.report()
