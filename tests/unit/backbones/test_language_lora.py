"""Low-rank changes of language models: projections that are found by asking, and the merge, in every kind of model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from benchmark.backbones.language import LanguageModel, Tokens
from benchmark.backbones.language.lora import LowRank, Projection, projections
from benchmark.errors import UsageError
from benchmark.testing.language import language_of

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
KINDS: dict[str, tuple[str, Any]] = {
    "bert": ("masked", lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, **SIZES))),
    "modernbert": (
        "masked",
        lambda: transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(**SMALL, **SIZES, cls_token_id=2, sep_token_id=3)
        ),
    ),
    "gpt2": (
        "causal",
        lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=2)),
    ),
    "llama": (
        "causal",
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, **SIZES, num_key_value_heads=2)),
    ),
    "t5": (
        "encoder-decoder",
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                **SMALL, d_model=16, d_kv=6, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
            )
        ),
    ),
    "bart": (
        "encoder-decoder",
        lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**SMALL, **BART)),
    ),
}
# Layer of the first attention that changes, part, first output and number of outputs.
FOUND: dict[str, list[tuple[str, str, int, int]]] = {
    "bert": [
        ("bert.encoder.layer.0.attention.self.query", "q", 0, 16),
        ("bert.encoder.layer.0.attention.self.key", "k", 0, 16),
        ("bert.encoder.layer.0.attention.self.value", "v", 0, 16),
    ],
    "modernbert": [
        ("model.layers.0.attn.Wqkv", "q", 0, 16),
        ("model.layers.0.attn.Wqkv", "k", 16, 16),
        ("model.layers.0.attn.Wqkv", "v", 32, 16),
    ],
    "gpt2": [
        ("transformer.h.0.attn.c_attn", "q", 0, 16),
        ("transformer.h.0.attn.c_attn", "k", 16, 16),
        ("transformer.h.0.attn.c_attn", "v", 32, 16),
    ],
    "llama": [
        ("model.layers.0.self_attn.q_proj", "q", 0, 16),
        ("model.layers.0.self_attn.k_proj", "k", 0, 8),
        ("model.layers.0.self_attn.v_proj", "v", 0, 8),
    ],
    "t5": [
        ("encoder.block.0.layer.0.SelfAttention.q", "q", 0, 12),
        ("encoder.block.0.layer.0.SelfAttention.k", "k", 0, 12),
        ("encoder.block.0.layer.0.SelfAttention.v", "v", 0, 12),
    ],
    "bart": [
        ("model.encoder.layers.0.self_attn.q_proj", "q", 0, 16),
        ("model.encoder.layers.0.self_attn.k_proj", "k", 0, 16),
        ("model.encoder.layers.0.self_attn.v_proj", "v", 0, 16),
    ],
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str) -> LanguageModel:
    torch.manual_seed(0)
    architecture, build = KINDS[kind]
    made = build()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return language_of(made.double(), architecture)  # type: ignore[arg-type]


def read(model: LanguageModel) -> Tensor:
    ids = torch.tensor([[5, 7, 9, 3], [4, 6, 8, 2]])
    tokens = Tokens(ids, torch.ones_like(ids), ids * 0)
    both = model.architecture == "encoder-decoder"
    return model.target_logits(tokens, ids[:, :3]) if both else model.logits(tokens)


def changed(model: LanguageModel, **options: Any) -> LowRank:
    torch.manual_seed(1)
    made = LowRank(model, rank=3, alpha=6.0, **options).double()
    for part in made.up:
        torch.nn.init.normal_(part)
    return made


def test_the_projections_are_found(kind: str, model: LanguageModel) -> None:
    found = projections(model)
    wide = {"t5": 16, "bart": 16}.get(kind, 16)
    wanted = [Projection(*place, wide, kind == "gpt2") for place in FOUND[kind]]
    assert found[:3] == wanted
    attentions = sum(len(modules) for modules in model.sites.modules.values())
    assert [place.part for place in found] == ["q", "k", "v"] * attentions


def test_merged_is_unmerged(model: LanguageModel) -> None:
    before = read(model)
    changes = changed(model, targets="qkv")
    with changes.applied(model.module):
        inside = read(model)
    assert (inside - before).abs().max() > 1e-3
    assert torch.equal(read(model), before)
    merged = copy.deepcopy(model)
    changes.merge(merged.module)
    assert torch.allclose(read(merged), inside, atol=1e-10)
    changes.merge(merged.module, sign=-1)
    assert torch.allclose(read(merged), before, atol=1e-10)


def test_a_change_is_of_its_part_alone(model: LanguageModel) -> None:
    """Merged queries and values, and in a layer that makes all at once the keys stay."""
    changes = changed(model, targets="qv")
    weights = dict(model.module.named_parameters())
    start = {name: weight.clone() for name, weight in weights.items()}
    changes.merge(model.module)
    moved = {name for name, weight in weights.items() if not torch.equal(weight, start[name])}
    assert moved == {f"{place.layer}.weight" for place in changes.places}
    for place in projections(model):
        weight, was = (table[f"{place.layer}.weight"] for table in (weights, start))
        rows = slice(place.first, place.first + place.count)
        part = (weight - was).T[rows] if place.transposed else (weight - was)[rows]
        assert bool(part.ne(0).all()) == (place.part != "k")


def test_it_starts_unchanged_and_learns(model: LanguageModel) -> None:
    before = read(model)
    changes = LowRank(model, rank=2, alpha=2.0).double()
    with changes.applied(model.module):
        after = read(model)
        assert torch.equal(after, before)
        after.logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is not None and part.grad.any() for part in changes.up)
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_some_attentions_only() -> None:
    architecture, build = KINDS["t5"]
    model = language_of(build(), architecture)  # type: ignore[arg-type]
    assert {place.layer.split(".")[0] for place in projections(model, ["encoder"])} == {"encoder"}
    assert LowRank(model, rank=1, alpha=1.0, sites=["cross"]).places[0].layer.startswith("decoder.block.0.layer.1")


def test_heads_in_turn_are_refused() -> None:
    """GPT-NeoX makes query, key and value of a head, then those of the next."""
    config = transformers.GPTNeoXConfig(**SMALL, **SIZES)
    model = language_of(transformers.GPTNeoXForCausalLM(config), "causal")
    with pytest.raises(UsageError, match="in turn, not in one block"):
        projections(model)
