"""Learners whose trained vectors stand in the input of a frozen language model: what prompt tuning and its kin share.

With a masked or causal model the classes are asked for by their words (`benchmark.learners.language.ClozeLearner`);
the decoder of an encoder-decoder is to write the name of the class (`benchmark.learners.targets`).
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from benchmark.api import Context
from benchmark.backbones.language import Prefix, Tokens
from benchmark.backbones.language.soft_prompts import SoftInit, placed
from benchmark.config import Range
from benchmark.learners.language import ClozeConfig, ClozeLearner
from benchmark.learners.targets import Reduction, Targets
from benchmark.optimizers import Adafactor
from benchmark.samples import Text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

_SOFT = re.compile(r"\{soft(:\d+)?\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftPromptConfig(ClozeConfig):
    """Options of learners with vectors in the input.

    Attributes:
        length: Vectors P (of an experience).
        init: What they start from (`benchmark.backbones.language.soft_prompts.initial`): ``uniform`` in [0, 0.5),
            ``vocabulary``, ``labels``, ``string`` or ``file``.
        init_text: Text of ``init=string``.
        init_file: Path of ``init=file``, an array ``(P, D)`` of numpy. The record keeps the path, not the content.
        first_step: Steps that Adafactor counts as made before the first one (`benchmark.optimizers.Adafactor`).
        z_loss: Weight of the squared log of the partition function; encoder-decoders only.
        target_loss: Loss of an encoder-decoder: ``sum`` over the tokens of the batch, or their ``mean``.
        model_dropout: Whether the frozen model's own dropout is on in training.
    """

    length: Annotated[int, Range(min=1)] = 20
    init: SoftInit = "vocabulary"
    init_text: str = ""
    init_file: str = ""
    first_step: Annotated[int, Range(min=0)] = 0
    z_loss: Annotated[float, Range(min=0)] = 0.0
    target_loss: Reduction = "sum"
    model_dropout: bool = False

    def __post_init__(self) -> None:
        ClozeConfig.__post_init__(self)
        for option, init in (("init_text", "string"), ("init_file", "file")):
            given = getattr(self, option)
            if given and self.init != init:
                raise ValueError(f"{option}: {given!r} has no effect with init `{self.init}`; use `init={init}`")


class SoftPromptLearner(ClozeLearner, abc.ABC):
    """Trains what `prompt` returns, the vectors at the soft positions of the pattern.

    They stand where the pattern says ``{soft}``, else in front of everything but what the tokenizer itself puts there:
    behind [CLS] of BERT and its kin, in front of the whole text of T5, GPT-2 and Llama. An encoder-decoder reads the
    fields of an example without a pattern unless one is given.
    """

    config: SoftPromptConfig

    def __init__(self, config: SoftPromptConfig, context: Context) -> None:
        super().__init__(config, context)
        self._names: list[str] = []
        self._targets = Targets((), self.language) if self.writes else None
        self._starts: dict[int, Prefix] = {}  # by the number of vectors

    @abc.abstractmethod
    def prompt(self) -> Tensor:
        """All vectors in front of the text, ``(P, D)``."""

    @property
    def writes(self) -> bool:
        """Whether the model writes the names of classes, rather than to be asked for a word."""
        return self.language.architecture == "encoder-decoder"

    @property
    def frozen(self) -> bool:
        """Whether the model stays in eval mode, without its own dropout."""
        return not self.config.model_dropout

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; keys and values that predictions share are computed anew."""
        self._starts = {}
        return super().train(mode)

    def choose_pattern(self) -> str:
        """The pattern of all examples; none for an encoder-decoder that reads their fields."""
        return "" if self.writes and self.config.pattern == "auto" else super().choose_pattern()

    def pattern(self, text: Text) -> str:
        """The chosen one, with as many soft positions as there are vectors now."""
        chosen = self._pattern or " ".join(f"{{{name}}}" for name in self.context.segments or tuple(text))
        soft = f"{{soft:{len(self.prompt())}}}"
        return _SOFT.sub(soft, chosen) if _SOFT.search(chosen) else f"{soft} {chosen}"

    def ask_for(self, words: Sequence[Sequence[str]]) -> None:
        """Looks up the words of the classes seen so far; an encoder-decoder writes the first of each class."""
        if self.writes:
            self._names = [some[0] for some in words]
            self._targets = Targets(self._names, self.language)
        else:
            super().ask_for(words)

    def extra_state(self) -> Mapping[str, Any]:
        """The words of the classes seen, and of an encoder-decoder what it writes for them."""
        return {**super().extra_state(), "names": self._names}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        self._names = list(state["names"])
        if self.writes:
            self._targets = Targets(self._names, self.language)

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """That of all learners; Adafactor counts from a step of its own."""
        made = super().make_optimizer()
        if isinstance(made, Adafactor):
            for group in made.param_groups:
                group["first_step"] = self.config.first_step
        return made

    def embeds(self, tokens: Tokens) -> Tensor:
        """Embeddings of the tokens, the prompt at the soft positions."""
        return placed(self.language, tokens, self.prompt())

    def loss(self, tokens: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy over the classes that compete; of an encoder-decoder that of the tokens it is to write."""
        if self._targets is None:
            return super().loss(tokens, labels)
        config = self.config
        found = self._targets.loss(
            tokens, labels, embeds=self.embeds(tokens), z_loss=config.z_loss, reduction=config.target_loss
        )
        return found.total

    def scores(self, tokens: Tokens) -> Tensor:
        """Mean logits of the words of each class; of an encoder-decoder the log-probability of its name."""
        if self._targets is not None:
            return self._targets.scores(tokens, embeds=self.embeds(tokens))
        if self.training or self.language.architecture != "causal":
            return super().scores(tokens)
        return self._behind_the_start(tokens)

    def _behind_the_start(self, tokens: Tokens) -> Tensor:
        """What `scores` returns, from keys and values of the start of the pattern that are computed once.

        In a causal model they depend on nothing behind them: neither on the text nor on its length.
        """
        number = min(self._template(self.pattern({})).start, int(tokens.last.min()))  # one token is left to ask at
        embeds = self.embeds(tokens)
        if not number:
            logits = self.language.logits(tokens, tokens.last, embeds=embeds)
            return self._words.scores(logits[:, 0])
        start = self._starts.get(prompts := len(self.prompt()))
        if start is None or start["self"].shape[-2] < number:
            one = Tokens(tokens.ids[:1, :number], tokens.mask[:1, :number], tokens.segments[:1, :number])
            start = self._starts[prompts] = self.language.keys_and_values(one, embeds=embeds[:1, :number])
        rest = Tokens(tokens.ids[:, number:], tokens.mask[:, number:], tokens.segments[:, number:])
        logits = self.language.logits(
            rest,
            tokens.last - number,
            embeds=embeds[:, number:],
            prefix={"self": start["self"][..., :number, :]},
        )
        return self._words.scores(logits[:, 0])
