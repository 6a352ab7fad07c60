"""Prefix-tuning of language models against tensors of XiangLi1999/PrefixTuning at 6519d30e, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bench_methods import prefix_tuning_lm
from bench_methods.prefix_tuning_lm import PrefixTuning, bench_register_methods
from benchmark.api import Batch, Place
from benchmark.backbones.language import Tokens
from benchmark.backbones.language.prefixes import PrefixEncoder
from benchmark.config import Layer, resolve
from benchmark.errors import UsageError
from benchmark.scenario import Wording
from benchmark.testing import text_methods, toys
from benchmark.testing.language import tiny_language
from benchmark.testing.recorded import Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden"
STEP = 1e-7  # parameters after Adam steps


def words_of(count: int) -> list[str]:
    return [f"w{number:02}" for number in range(count)]


def said(ids: list[int]) -> str:
    return " ".join(f"w{number:02}" for number in ids)


def gpt2(case: Recorded) -> Any:
    shape = case.meta["config"]
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=shape["vocab"], n_embd=shape["D"], n_layer=shape["L"], n_head=shape["H"],
            n_positions=shape["n_pos"], attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
            bos_token_id=29, eos_token_id=29,
        )
    ).double()  # fmt: skip
    model.load_state_dict(case.part("lm."), strict=False)
    model.tie_weights()
    tokenizer = text_methods.word_tokenizer(
        words_of(shape["vocab"]), single="$A", pad_token="w00", eos_token="w29", unk_token="w29"
    )
    return text_methods.language_of(model, tokenizer, "causal")


def method_on(language: Any, texts: list[str], **options: Any) -> PrefixTuning:
    scenario = text_methods.text_scenario(
        [{"text": text} for text in texts],
        [0] * len(texts),
        names=("text",),
        wording=Wording(patterns=("{text} {mask}",)),
        family="generation",
    )
    method = text_methods.method_of(SPEC, language, scenario, longest=8, schedule="constant", **options)
    assert isinstance(method, PrefixTuning)
    method.double()
    text_methods.begin(method, scenario)
    return method


def fill(encoder: PrefixEncoder, case: Recorded, table: str, network: str) -> None:
    state = case.part("method.")
    with torch.no_grad():
        if table not in state:
            encoder.table.weight.copy_(state[network].view(encoder.table.weight.shape))
            return
        encoder.table.weight.copy_(state[table])
        encoder.network.load_state_dict(
            {f"{name}": state[f"{network}.{name}"] for name in encoder.network.state_dict()}
        )


def parameters(encoder: PrefixEncoder, table: str, network: str) -> dict[str, Tensor]:
    """By the names of the official code."""
    if not len(encoder.network):
        return {network: encoder.table.weight.view(-1)}
    inner = {f"{network}.{name}": parameter for name, parameter in encoder.network.named_parameters()}
    return {table: encoder.table.weight, **inner}


@pytest.mark.parametrize(
    ("name", "form", "objective"),
    [
        ("gpt2_mlp", "mlp", "sum"),
        ("gpt2_direct", "direct", "sum"),
        ("gpt2_deep_mlp_objective0", "deep-mlp", "mean"),
    ],
)
def test_gpt2(name: str, form: str, objective: str) -> None:
    case = Recorded(GOLDEN / "prefix_tuning", name, torch.float64)
    ids, labels = case.tensor("input.ids"), case.tensor("input.labels")
    sources, targets = [], []
    for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
        first = next(place for place, one in enumerate(label) if one != -100)
        sources.append(said(row[:first]))  # the end of the source is the BOS token
        targets.append(said([one for one in label if one != -100][:-1]))
    shape = case.meta["config"]
    method = method_on(
        gpt2(case), sources, length=shape["P"], hidden=shape["m"], form=form, objective=objective, lr=shape["lr"]
    )
    encoder = method.prefixes.encoders["self"]
    assert isinstance(encoder, PrefixEncoder)
    fill(encoder, case, "wte.weight", "control_trans")
    case.compare("past_key_values", method.prefix()["self"].squeeze(2))
    tokens = Tokens(ids, torch.ones_like(ids), torch.zeros_like(ids))
    case.compare("logits", method.language.logits(tokens, prefix=method.prefix()))
    case.compare("logits_without_prefix", method.language.logits(tokens))
    texts = [{"text": source} for source in sources]
    loss, _ = method.writing_loss(texts, targets)
    case.compare("loss_total", loss)
    loss.backward()
    for key, parameter in parameters(encoder, "wte.weight", "control_trans").items():
        gradient = encoder.table.weight.grad if form == "direct" else parameter.grad
        assert gradient is not None
        case.compare(f"grad.{key}", gradient.view(parameter.shape))
    references = [(target,) for target in targets]
    losses = []
    for step in range(3):
        place = Place(step=step, steps=3)
        batch = Batch(texts, torch.zeros(len(texts)), references=references, place=place)
        losses.append(method.train_step(batch)["loss"])
    case.compare("steps.loss_total", torch.stack(losses), limit=STEP)
    for key, parameter in parameters(encoder, "wte.weight", "control_trans").items():
        case.compare(f"after3.{key}", parameter, limit=STEP)
    case.report()


SITES = {
    "self": ("wte.weight", "control_trans", "decoder"),
    "cross": ("wte2.weight", "control_trans2", "cross"),
    "encoder": ("wte_enc.weight", "control_trans_enc", "encoder"),
}


def test_bart() -> None:
    case = Recorded(GOLDEN / "prefix_tuning_seq2seq", "bart_mlp", torch.float64)
    shape = case.meta["config"]
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=shape["vocab"], d_model=shape["d_model"], encoder_layers=2, decoder_layers=2, dropout=0.0,
            encoder_attention_heads=shape["heads"], decoder_attention_heads=shape["heads"],
            encoder_ffn_dim=shape["ffn"], decoder_ffn_dim=shape["ffn"],
            max_position_embeddings=shape["positions"], pad_token_id=shape["pad"],
            bos_token_id=shape["bos"], eos_token_id=shape["eos"], decoder_start_token_id=shape["eos"],
        )
    ).double()  # fmt: skip
    model.load_state_dict(case.part("lm."), strict=False)
    model.tie_weights()
    tokenizer = text_methods.word_tokenizer(
        words_of(shape["vocab"]),
        single="w00 $A w02",
        pad_token="w01",
        eos_token="w02",
        unk_token="w32",
        bos_token="w00",
    )
    language = text_methods.language_of(model, tokenizer, "encoder-decoder")
    sources = [said([one for one in row if one > 2]) for row in case.tensor("input.source").tolist()]
    targets = [said([one for one in row if one not in (1, 2)]) for row in case.tensor("input.target").tolist()]
    method = method_on(
        language, sources, length=shape["P"], hidden=shape["mid_dim"], form="mlp", objective="mean",
        lr=case.meta["optimizer"]["lr"],
    )  # fmt: skip
    object.__setattr__(method.config, "schedule", "linear")
    for site, (table, network, _) in SITES.items():
        fill(method.prefixes.encoders[site], case, table, network)  # type: ignore[arg-type]
    for site, (_, _, name) in SITES.items():
        case.compare(f"prefix.{name}", method.prefix()[site].squeeze(2))  # type: ignore[index]
    texts = [{"text": source} for source in sources]
    rows = method.rows(texts)
    wanted = case.tensor("input.target")
    logits = method.taught(rows, [method._target(target) for target in targets], wanted.masked_fill(wanted == 1, -100))
    real = wanted != 1
    expected = torch.from_numpy(case.arrays["f64.logits"])
    assert torch.allclose(logits[real], expected[real], atol=1e-9, rtol=1e-9)
    method.writing_loss(texts, targets)[0].backward()
    for site, (table, network, _) in SITES.items():
        for key, parameter in parameters(method.prefixes.encoders[site], table, network).items():  # type: ignore[arg-type]
            case.compare(f"grad.{key}", parameter.grad)
    losses = []
    for step in range(3):
        batch = Batch(
            texts, torch.zeros(3), references=[(target,) for target in targets], place=Place(step=step, steps=4)
        )
        losses.append(method.train_step(batch)["loss"])
    case.compare("steps.loss_total", torch.stack(losses), limit=STEP)
    for site, (table, network, _) in SITES.items():
        for key, parameter in parameters(method.prefixes.encoders[site], table, network).items():  # type: ignore[arg-type]
            case.compare(f"after3.{key}", parameter, limit=STEP)
    case.report()


def test_start_from_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded network towards the keys and values of the recorded words."""
    case = Recorded(GOLDEN / "prefix_tuning_lowdata", "words", torch.float64)
    shape = case.meta["config"]
    language = gpt2(case)
    method = method_on(language, ["w01"], length=4, hidden=shape["m"], form="mlp")
    target = prefix_tuning_lm.words_prefix(method, said(case.tensor("input.words").tolist()))
    case.compare("target", target.squeeze(2))
    encoder = method.prefixes.encoders["self"]
    assert isinstance(encoder, PrefixEncoder)
    fill(encoder, case, "wte.weight", "control_trans")
    case.compare(
        "steps.mse", torch.tensor(prefix_tuning_lm.fit(encoder, target, steps=shape["steps"]), dtype=torch.float64)
    )
    for key, parameter in parameters(encoder, "wte.weight", "control_trans").items():
        case.compare(f"after.{key}", parameter, limit=STEP)
    case.report()


def test_words_are_the_start_of_a_method() -> None:
    language = tiny_language("causal")
    method = method_on_toy(language, init_words="a thing1 in light3", form="direct")
    expected = prefix_tuning_lm.words_prefix(method, "a thing1 in light3")
    assert expected.shape[-2] == 5  # [CLS] stands in front
    assert torch.allclose(method.prefix()["self"], expected)


def method_on_toy(language: Any, **options: Any) -> PrefixTuning:
    scenario = toys.toy_scenario(kind="text", family="generation")
    method = text_methods.begun(SPEC, language, scenario, hidden=8, longest=6, **options)
    assert isinstance(method, PrefixTuning)
    return method


def test_words_in_front_of_an_encoder_are_refused() -> None:
    with pytest.raises(UsageError, match="only a causal model has keys and values"):
        method_on_toy(tiny_language("encoder-decoder"), init_words="a")


def test_options_are_checked_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="optimizer: 'foo' is not allowed"):
        resolve(SPEC.config, [Layer("--set", {"optimizer": "foo"})], key="method.prefix-tuning-lm")


def test_a_prefix_that_leaves_no_room_for_a_text_is_refused_where_classes_are_asked_for() -> None:
    language, scenario = tiny_language("causal"), toys.toy_scenario(kind="text")
    method = text_methods.method_of(SPEC, language, scenario, hidden=8, length=language.context)
    with pytest.raises(UsageError, match="positions of the method leave no place for a text"):
        method.predict(scenario.experiences[0].train.texts(slice(0, 1)))


def test_an_encoder_decoder_is_not_asked_for_words() -> None:
    with pytest.raises(UsageError, match="words are not asked for at a mask"):
        text_methods.method_of(SPEC, tiny_language("encoder-decoder"), toys.toy_scenario(kind="text"))


def test_texts_that_leave_no_room_are_refused() -> None:
    scenario = toys.toy_scenario(kind="text", family="generation")
    with pytest.raises(UsageError, match="leave no room"):
        text_methods.begun(SPEC, tiny_language("causal"), scenario, longest=64)


@pytest.mark.parametrize("architecture", ["causal", "encoder-decoder"])
def test_what_is_taught_is_written(architecture: Any) -> None:
    """Both kinds of models learn three texts by heart through a prefix alone."""
    scenario = toys.toy_scenario(kind="text", family="generation", train=3)
    method = text_methods.begun(
        SPEC, tiny_language(architecture), scenario, longest=6, lr=0.1, form="direct", length=8,
        schedule="constant", optimizer="adamw",
    )  # fmt: skip
    texts = scenario.experiences[0].train.texts(slice(0, 3))
    references = [("a thing1",), ("in a thing2",), ("light3",)]
    for _ in range(300):
        method.train_step(Batch(texts, torch.zeros(3), references=references))
    method.eval()
    assert list(method.generate(texts)) == [one for (one,) in references]
    assert [method.generate([text])[0] for text in texts] == [one for (one,) in references]
