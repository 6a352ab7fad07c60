"""P-tuning v2: trained keys and values in front of those of every layer, and a classifier, on a frozen language model.

Paper: Liu et al., P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and Tasks,
ACL 2022, arXiv 2110.07602.
Official code: THUDM/P-tuning-v2 at b1520c9a, ``model/prefix_encoder.py``, ``model/sequence_classification.py``,
``model/token_classification.py``. Equal to it on recorded numbers (tests/golden/language/ptuning_v2), a classifier of
texts without projection and of tokens with it: keys and values, logits, loss, gradients, parameters after three
updates.

Differences:
- The classifier grows with the classes seen; on streams the experiences are trained in turn with the same prefix, and
  the optimiser starts anew; the paper has one task and takes the best epoch on the test set, here the last one counts.
- The pooler of BERT is read where the loaded model has one; a masked model of transformers has none, and RoBERTa never
  had a pretrained one (official: a random frozen layer): then the state of the first token is read as it is.
- ``head_dropout`` is of prefix and pooled state (official: one value with the model's own dropout, which here is as the
  model's configuration says). ``dropout=off`` switches the model's own off.
- Encoder-decoders, which the official code has not: the prefix is in the encoder.
- Classification of tokens is `TokenTagger`; no scenario has labels of tokens yet, so it is no method by itself.

Trainable: P x 2 L g d without projection (BERT-large: 49,152 for each position), and the head.
Expected (RoBERTa-large): BoolQ 84.0, RTE 86.6, WiC 73.7; CoNLL03 91.8 (README of the code). Its learning rates, lengths
and epochs were searched for each task; they are recipes here. Issues 9, 13 and 67 of the code: only ``--prefix``
reproduces the tables, projection may stay at the majority class, CoNLL03 comes out about 1 point lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Context
from benchmark.backbones.heads import mask_logits
from benchmark.backbones.language import Prefixes, Tokens
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.language import HeadConfig, HeadLearner


@dataclass(frozen=True, kw_only=True, slots=True)
class PTuningV2Config(HeadConfig):
    """Options of P-tuning v2.

    Attributes:
        length: P, positions of the prefix in every layer; texts have so many fewer.
        projection: Whether the prefix is the output of a small network on a table of P vectors.
        projection_size: Units of its hidden layer.
        head_dropout: Of keys, values and the pooled state, in training.
        dropout: Whether the model's own dropout, as its configuration says, acts in training: ``model``, or ``off``.
    """

    epochs: int = 20
    batch_size: int = 16
    lr: float = 1e-2
    optimizer: Literal["adamw", "adam", "early-adamw", "adafactor"] = "early-adamw"
    length: Annotated[int, Range(min=1)] = 16
    projection: bool = False
    projection_size: Annotated[int, Range(min=1)] = 512
    head_dropout: Annotated[float, Range(min=0, below=1)] = 0.1
    dropout: Literal["model", "off"] = "model"


class PTuningV2(HeadLearner):
    """Prefix and classifier train.

    Raises:
        UsageError: The prefix leaves no place for a text.
    """

    config: PTuningV2Config

    def __init__(self, config: PTuningV2Config, context: Context) -> None:
        super().__init__(config, context)
        room = self.language.context
        if config.length >= room:
            raise UsageError(
                f"length: a prefix of {config.length} positions leaves no place in the {room} of {self.language.name}",
                hint=f"use a length well below {room}",
            )
        self.added = config.length
        encoder = self.language.architecture == "encoder-decoder"
        self.prefixes = Prefixes(
            self.language,
            config.length,
            form="mlp" if config.projection else "direct",
            hidden=config.projection_size,
            dropout=config.head_dropout,
            sites=("encoder",) if encoder else ("self",),
        ).to(context.device)

    @property
    def frozen(self) -> bool:
        """Whether the model stays in eval mode in training: where its dropout is switched off."""
        return self.config.dropout == "off"

    def states(self, tokens: Tokens) -> Tensor:
        """The pooled state ``(B, D)`` behind the prefix."""
        hidden = self.language.hidden(tokens, prefix=self.prefixes(len(tokens)))
        return F.dropout(self.read(hidden, tokens), self.config.head_dropout, self.training)

    def read(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """What the head reads of the last hidden states."""
        return self.language.pooled(hidden, tokens)


class TokenTagger(PTuningV2):
    """The same with a label for each token, -100 where there is none: logits are ``(B, n, C)``."""

    def read(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Every state, ``(B, n, D)``."""
        return hidden

    def loss(self, tokens: Tokens, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the tokens that have a label, ``labels`` being ``(B, n)``."""
        return F.cross_entropy(mask_logits(self.scores(tokens), self._allowed).flatten(0, 1), labels.flatten())


# BoolQ, RTE and WiC of RoBERTa-large, C3 of the scripts: batch, rate, P, epochs.
_ROBERTA: dict[str, dict[str, object]] = {
    "boolq": {"batch_size": 32, "lr": 7e-3, "length": 8, "epochs": 100},
    "rte": {"batch_size": 32, "lr": 5e-3, "length": 128, "epochs": 100},
    "wic": {"batch_size": 32, "lr": 1e-2, "length": 8, "epochs": 50},
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``p-tuning-v2``."""
    return [
        MethodSpec(
            name="p-tuning-v2",
            build=PTuningV2,
            config=PTuningV2Config,
            summary="trained keys and values in every layer of a frozen language model, and a classifier",
            uses=frozenset({"boundaries"}),
            recipes={
                "projection": {"projection": True},
                "masked": {"mask": "current"},
                **{name: {**values, "max_length": 128} for name, values in _ROBERTA.items()},
            },
            toy={"projection_size": 12, "length": 4},
            tracks={"nano": {"epochs": 6, "batch_size": 16, "length": 8, "lr": 0.03}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains",
            sources={
                "projection": "P-tuning v2 paper, section 3.2: the reparameterisation",
                "masked": "adaptbench: only the current classes compete",
                **dict.fromkeys(_ROBERTA, "THUDM/P-tuning-v2 at b1520c9a, run_script: RoBERTa-large"),
                "optimizer": "transformers 4.11.3, Trainer",
            },
            paper="arXiv:2110.07602",
            reference="THUDM/P-tuning-v2@b1520c9a",
            reads="text",
        )
    ]
