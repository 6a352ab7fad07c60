"""Learning to write: a language model that reads an example by a pattern and is taught what stands at its mask.

`Writing` is mixed into a learner on language models, in front of it (`benchmark.learners.language`). In families that
generate (`benchmark.families.Family.generates`) it trains on the references and answers `generate`; elsewhere the
learner behind it does what it does. A causal model goes on where the pattern has its mask; an encoder-decoder reads the
pattern up to there and its decoder writes.

An example with several references is taught one of them in each epoch, in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones.language import Encoded, Tokens, by_length
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.language import ClozeConfig, LanguageLearner
from benchmark.samples import Text

IGNORED = -100
GROUP = 32  # texts written at once
Objective = Literal["sum", "mean"]


class WritingOptions(Protocol):
    """Options that a learner needs to write, besides those of `LanguageConfig`.

    Attributes:
        objective: Loss of a batch: ``sum`` over the tokens of a text, averaged over texts, or the ``mean`` over all
            tokens.
        longest: Most tokens of a text that is written; a reference is taught up to there.
        beams: 1 takes the likeliest token each time; more search with beams.
        length_penalty: Of the search with beams, as transformers understands it.
    """

    @property
    def objective(self) -> Objective: ...  # noqa: D102 - see the class
    @property
    def longest(self) -> int: ...  # noqa: D102
    @property
    def beams(self) -> int: ...  # noqa: D102
    @property
    def length_penalty(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingConfig(ClozeConfig):
    """Options of a learner that asks for words, and writes.

    Attributes:
        objective: See `WritingOptions`.
        longest: See `WritingOptions`.
        beams: See `WritingOptions`.
        length_penalty: See `WritingOptions`.
    """

    objective: Objective = "mean"
    longest: Annotated[int, Range(min=1)] = 80
    beams: Annotated[int, Range(min=1)] = 1
    length_penalty: float = 1.0


def token_loss(logits: Tensor, labels: Tensor, objective: Objective) -> Tensor:
    """Negative log-likelihood of tokens.

    Source: XiangLi1999/PrefixTuning at 6519d30e, ``gpt2/train_control.py``: objective_mode 1 is ``sum``, 0 ``mean``.

    Args:
        logits: ``(B, m, V)``.
        labels: ``(B, m)``; -100 does not count.
        objective: Of the batch, see `WritingConfig`.
    """
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1).mean() if objective == "sum" else losses.sum() / (labels != IGNORED).sum()


class Writing(LanguageLearner):
    """Teaches the references of the training samples, and writes."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self._writes = context.family.generates
        self._writing: WritingOptions = config
        if self._writes:
            self.added = self.added + config.longest
            room = self.language.context - self.added
            if room < 1:
                raise UsageError(
                    f"longest: {config.longest} new tokens leave no room for a text: {self.language.name} takes "
                    f"{self.language.context} in all",
                    hint="lower it",
                )

    def begin_experience(self, experience: ExperienceView) -> None:
        """As the learner behind; where texts are written no class has a word."""
        if self._writes:
            LanguageLearner.begin_experience(self, experience)
        else:
            super().begin_experience(experience)

    def _target(self, reference: str) -> tuple[int, ...]:
        """Ids of a text that is taught, its end included."""
        ids = self.language.layout.ids(reference)[: self._writing.longest - 1]
        return (*ids, int(self.language.tokenizer.eos_token_id))

    def writing_loss(self, texts: Sequence[Text], references: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and its mean per token.

        Args:
            texts: B examples.
            references: What is to be written about each.
        """
        rows, targets = self.rows(texts), [self._target(reference) for reference in references]
        length = max(map(len, targets))
        device = self.language.embedding.weight.device
        labels = torch.full((len(rows), length), IGNORED)
        for number, target in enumerate(targets):
            labels[number, : len(target)] = torch.tensor(target)
        labels = labels.to(device)
        logits = self.taught(rows, targets, labels)
        loss = token_loss(logits, labels, self._writing.objective)
        return loss, token_loss(logits.detach(), labels, "mean")

    def taught(self, rows: Sequence[Encoded], targets: Sequence[tuple[int, ...]], labels: Tensor) -> Tensor:
        """Logits ``(B, m, V)`` for each token of the targets, given those before."""
        if self.language.architecture == "encoder-decoder":
            tokens = self.language.batch(rows)
            start = int(self.language.model.config.decoder_start_token_id)
            given = labels.masked_fill(labels == IGNORED, self.language.pad)
            given = torch.cat([torch.full_like(given[:, :1], start), given[:, :-1]], dim=1)
            return self.language.target_logits(tokens, given, embeds=self.embeds(tokens), prefix=self.prefix())
        whole = [
            Encoded((*row.ids, *target[:-1]), (*row.segments, *(0,) * (len(target) - 1)), row.marks)
            for row, target in zip(rows, targets, strict=True)
        ]
        tokens = self.language.batch(whole)
        first = torch.tensor([[len(row) - 1] for row in rows], device=labels.device)
        at = first + torch.arange(labels.shape[1], device=labels.device)
        at = at.masked_fill(labels == IGNORED, 0)
        return self.language.logits(tokens, at, embeds=self.embeds(tokens), prefix=self.prefix())

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent, on references where there are any to learn."""
        if not self._writes or batch.references is None:
            return super().train_step(batch)
        chosen = [some[batch.place.epoch % len(some)] for some in batch.references]
        loss, per_token = self.writing_loss(batch.texts, chosen)
        return {**self.follow(loss, batch.place), "loss_per_token": per_token}

    def generate(self, texts: Sequence[Text]) -> list[str]:
        """What the model writes about each text, in groups of similar length."""
        rows = self.rows(texts)
        written = [""] * len(rows)
        for group in by_length(rows, GROUP):
            tokens = self.language.batch([rows[place] for place in group], writing=True)
            found = self.language.generate(
                tokens,
                longest=self._writing.longest,
                beams=self._writing.beams,
                embeds=self.writing_embeds(tokens),
                prefix=self.prefix(),
                **({"length_penalty": self._writing.length_penalty} if self._writing.beams > 1 else {}),
            )
            for place, text in zip(group, found, strict=True):
                written[place] = text
        return written

    def writing_embeds(self, tokens: Tokens) -> Tensor | None:
        """`embeds` where a text is gone on from."""
        return self.embeds(tokens)
