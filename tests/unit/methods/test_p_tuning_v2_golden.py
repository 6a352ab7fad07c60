"""P-tuning v2 against numbers recorded from the official code, through the same `train_step` that runs train with.

`tests/golden/language/ptuning_v2` was recorded from THUDM/P-tuning-v2 at b1520c9a on transformers 4.11.3; see the
``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench_methods.p_tuning_v2 import PTuningV2, PTuningV2Config, TokenTagger, bench_register_methods
from benchmark.api import Batch, Context, Manifest
from benchmark.backbones.language import Encoded, Tokens
from benchmark.inputs.texts import TextPipeline
from benchmark.testing import by_hand
from benchmark.testing.language import language_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "language" / "ptuning_v2"
NAMES = {
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
    "prefix_encoder.embedding.weight": "prefixes.encoders.self.table.weight",
    **{
        f"prefix_encoder.trans.{layer}.{kind}": f"prefixes.encoders.self.network.{layer}.{kind}"
        for layer in (0, 2)
        for kind in ("weight", "bias")
    },
}


class Case(Recorded):
    """A recorded case, and P-tuning v2 as it was there."""

    def method(self) -> PTuningV2:
        config = self.meta["config"]
        shape = {key: value for key, value in config.items() if key in transformers.BertConfig().to_dict()}
        shape |= {"hidden_dropout_prob": config["dropout"], "attention_probs_dropout_prob": config["dropout"]}
        weights = self.part("lm.")
        pools = "pooler.dense.weight" in weights
        bert = transformers.BertModel(transformers.BertConfig(**shape), add_pooling_layer=pools).to(self.dtype)
        bert.load_state_dict(weights)
        optimizer = self.meta["optimizer"]
        options = PTuningV2Config(
            batch_size=len(self.tensor("input.ids")),
            lr=optimizer["lr"],
            weight_decay=optimizer["weight_decay"],
            clip=optimizer["clip_grad_norm"],
            length=config["pre_seq_len"],
            projection=config["prefix_projection"],
            projection_size=config["prefix_hidden_size"] or 1,
            head_dropout=config["dropout"],
        )
        classes = config["num_labels"]
        scenario = toy_scenario(kind="text", experiences=1, classes=classes)
        context = Context(
            pretrained=language_of(bert, "masked"),
            device=torch.device("cpu"),
            scenario=scenario,
            pipeline=TextPipeline(),
            manifest=Manifest(SPEC.name, SPEC.uses_of(options)),
        )
        kind = TokenTagger if self.tensor("input.labels").ndim == 2 else PTuningV2
        method = kind(options, context).to(self.dtype)
        method.head.grow(classes)
        by_hand.begin(method, scenario, 0)
        own = dict(method.named_parameters())
        with torch.no_grad():
            for name, value in self.part("method.").items():
                own[NAMES[name]].copy_(value)
        return method

    def rows(self) -> list[Encoded]:
        """The recorded tokens, without padding."""
        lengths = self.tensor("input.attention_mask").sum(dim=1).tolist()
        pairs = zip(self.tensor("input.ids").tolist(), self.tensor("input.token_type_ids").tolist(), strict=True)
        return [
            Encoded(tuple(ids[:length]), tuple(kinds[:length]))
            for (ids, kinds), length in zip(pairs, lengths, strict=True)
        ]

    def tokens(self, method: PTuningV2) -> Tokens:
        return method.language.batch(self.rows())

    def trainable(self) -> list[str]:
        return list(self.meta["trainable"])


@pytest.mark.parametrize("name", ["bert_direct", "bert_tokens_projection"])
def test_it_is_the_official_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(GOLDEN, name, torch.float64)
    method = case.method()
    own: dict[str, Any] = dict(method.named_parameters())
    assert {key for key, parameter in own.items() if parameter.requires_grad} == {NAMES[n] for n in case.trainable()}
    case.compare("past_key_values", method.prefixes()["self"][:, :, 0])

    tokens, labels = case.tokens(method), case.tensor("input.labels")
    assert torch.equal(tokens.ids, case.tensor("input.ids")[:, : tokens.ids.shape[1]])
    case.compare("logits", method.scores(tokens))
    loss = method.loss(tokens, labels)
    case.compare("loss", loss)
    loss.backward()  # type: ignore[no-untyped-call]
    for part in case.trainable():
        case.compare(f"grad.{part}", own[NAMES[part]].grad)

    # The method's own step: what its tokenizer makes of texts is replaced by the recorded tokens.
    monkeypatch.setattr(method, "rows", lambda texts: case.rows())
    batch = Batch([{}] * len(labels), labels)
    for step in range(3):
        terms = method.train_step(by_hand.at(batch, step, each=4))
        assert float(terms["loss"]) == pytest.approx(float(case.arrays["f64.steps.loss_total"][step]), abs=1e-9)
    for part in case.trainable():
        case.compare(f"after3.{part}", own[NAMES[part]], limit=1e-7)
    method.eval()
    case.compare("eval_after3.logits", method.scores(tokens), limit=1e-7)
    case.report()
