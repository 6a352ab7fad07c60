"""Prefixes of language models: the layout of both official codes, grouped queries, several kinds of attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmark.backbones.language import LanguageModel, PrefixEncoder, Prefixes, PrefixInit, Tokens
from benchmark.testing.language import language_of, tiny_language
from benchmark.testing.recorded import Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[2] / "golden" / "language" / "ptuning_v2"


@pytest.mark.parametrize("name", ["bert_direct", "bert_tokens_projection"])
def test_keys_and_values_are_those_of_the_official_code(name: str) -> None:
    case = Recorded(GOLDEN, name, torch.float64)
    config = case.meta["config"]
    heads = config["num_attention_heads"]
    encoder = PrefixEncoder(
        config["num_hidden_layers"],
        heads,
        config["hidden_size"] // heads,
        config["pre_seq_len"],
        form="mlp" if config["prefix_projection"] else "direct",
        embedding=config["hidden_size"],
        hidden=config["prefix_hidden_size"] or 0,
    ).double()
    names = {"embedding.weight": "table.weight"}
    start = case.part("method.prefix_encoder.")
    encoder.load_state_dict({names.get(key, key.replace("trans.", "network.")): value for key, value in start.items()})
    case.compare("past_key_values", encoder()[:, :, 0])


def grouped() -> LanguageModel:
    """Four heads that share two keys."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 20}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    return language_of(transformers.LlamaForCausalLM(config).double(), "causal")


def test_a_prefix_set_to_keys_and_values_of_words_is_these_words() -> None:
    model = grouped()
    assert (model.sites.heads, model.sites.width) == (2, 4)
    ids = torch.tensor([[5, 7, 9, 3, 4, 6, 8]])
    whole, first, rest = (Tokens(part, torch.ones_like(part), part * 0) for part in (ids, ids[:, :3], ids[:, 3:]))
    prefixes = Prefixes(model, 3).double()
    encoder: Any = prefixes.encoders["self"]
    assert encoder.table.weight.shape == (3, 2 * 2 * 2 * 4)
    encoder.set(model.keys_and_values(first)["self"])
    assert torch.allclose(model.hidden(rest, prefix=prefixes()), model.hidden(whole)[:, 3:], atol=1e-12)


def test_a_column_is_the_channel_that_the_layout_says() -> None:
    encoder = PrefixEncoder(3, 2, 4, 5)
    with torch.no_grad():
        encoder.table.weight.copy_(torch.arange(5 * 48).view(5, 48).float())
    found = encoder()
    assert found.shape == (3, 2, 1, 2, 5, 4)
    layer, which, head, row, channel = 2, 1, 1, 3, 2
    assert found[layer, which, 0, head, row, channel] == 48 * row + (2 * layer + which) * 8 + head * 4 + channel


def test_every_kind_of_attention_gets_a_prefix_of_its_own() -> None:
    model = tiny_language("encoder-decoder")
    prefixes = Prefixes(model, 3, form="mlp", hidden=6)
    assert set(prefixes.encoders) == {"self", "encoder", "cross"}
    ids = torch.tensor([[5, 7, 9, 3], [4, 6, 8, 2]])
    tokens = Tokens(ids, torch.ones_like(ids), ids * 0)
    loss = model.target_logits(tokens, ids[:, :2], prefix=prefixes()).logsumexp(-1).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in prefixes.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert set(Prefixes(model, 3, sites=("encoder",)).encoders) == {"encoder"}


def test_a_deep_network_has_two_hidden_layers() -> None:
    encoder = PrefixEncoder(2, 2, 4, 5, form="deep-mlp", embedding=8, hidden=6, init="torch")
    first, second, last = (encoder.network[place] for place in (0, 2, 4))
    wanted: Any = last(torch.tanh(second(torch.tanh(first(encoder.table.weight)))))  # type: ignore[operator]
    assert torch.equal(encoder(), wanted.view(5, 2, 2, 2, 4).permute(1, 2, 3, 0, 4).unsqueeze(2))
    with pytest.raises(TypeError, match="outputs of a network"):
        encoder.set(encoder())


def test_starts_are_those_of_the_libraries() -> None:
    def spread(init: PrefixInit) -> dict[str, float]:
        torch.manual_seed(0)
        made = PrefixEncoder(2, 2, 16, 40, form="mlp", embedding=64, hidden=64, init=init)
        return {name: float(parameter.detach().std()) for name, parameter in made.named_parameters()}

    library, plain = spread("library"), spread("torch")
    assert library["table.weight"] == pytest.approx(0.02, rel=0.05)
    assert library["network.0.weight"] == pytest.approx(0.02, rel=0.05)
    assert library["network.2.bias"] == 0
    assert plain["table.weight"] == pytest.approx(1, rel=0.05)
    assert plain["network.2.bias"] > 0


def test_dropout_is_of_each_example_and_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = PrefixEncoder(2, 2, 4, 5, dropout=0.5)
    dropped = encoder(3)
    assert dropped.shape == (2, 2, 3, 2, 5, 4)
    assert not torch.equal(dropped[:, :, 0], dropped[:, :, 1])
    whole = encoder.eval()(3)
    assert whole.shape == (2, 2, 1, 2, 5, 4)
    assert torch.allclose(dropped[dropped != 0], 2 * whole.expand_as(dropped)[dropped != 0])
