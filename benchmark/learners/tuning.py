"""What trains of a language model is the method; all else is here: a classifier, or the words at a mask, read it.

`Tuner` is a whole method in which nothing of the model trains yet. One of your own switches on weights of the model
(`own`, `requires_grad_`), or adds parameters and overrides `Tuner.changed`::

    class Mine(Tuner):
        def __init__(self, config, context):
            super().__init__(config, context)
            for name, parameter in self.own():
                parameter.requires_grad_("layers.3." in name)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from benchmark.api import Context, ExperienceView
from benchmark.backbones.language import Encoded, LanguageModel, Tokens
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.generation import Objective, Writing
from benchmark.learners.language import (
    HeadConfig,
    HeadLearner,
    LanguageLearner,
    Words,
    asked,
    chosen_pattern,
    chosen_words,
)
from benchmark.samples import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig(HeadConfig):
    """Options of a method that tunes a language model.

    Attributes:
        readout: ``head``: a linear classifier on the pooled state. ``cloze``: the words of the classes at the mask of
            a pattern (`benchmark.learners.language.ClozeLearner`).
        pattern: With ``cloze``: number of one of the scenario's patterns, or a pattern; ``auto``: the first that the
            model can read.
        words: With ``cloze``: words of each class, ``"bad,terrible;good,great"``; default: those of the scenario.
        dropout: Whether the model's own dropout, as its configuration says, acts in training: ``model``, or ``off``.
        objective: Where texts are written: loss of a batch (`benchmark.learners.generation.WritingOptions`).
        longest: Where texts are written: most tokens of one.
        beams: Where texts are written: 1 takes the likeliest token each time, more search.
        length_penalty: Where texts are written: of the search with beams.
    """

    readout: Literal["head", "cloze"] = "head"
    pattern: str = "auto"
    words: str = ""
    dropout: Literal["model", "off"] = "model"
    objective: Objective = "mean"
    longest: Annotated[int, Range(min=1)] = 80
    beams: Annotated[int, Range(min=1)] = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        HeadConfig.__post_init__(self)
        if self.readout == "cloze" and self.head_lr:
            raise ValueError(f"head_lr: {self.head_lr} has no effect with readout `cloze`; use `lr`, or `readout=head`")
        if self.readout == "head" and self.words:
            raise ValueError(f"words: {self.words!r} has no effect with readout `head`; use `readout=cloze`")


def uses(config: TuningConfig) -> frozenset[str]:
    """What such a method declares: words of classes only where it asks for them."""
    return frozenset({"boundaries", "class_names"} if config.readout == "cloze" else {"boundaries"})


class Tuner(Writing, HeadLearner):
    """A classifier on a language model, its words, or what it writes; subclasses say what else trains.

    Raises:
        UsageError: ``readout=cloze`` with a model that gives no words.
    """

    config: TuningConfig

    def __init__(self, config: TuningConfig, context: Context) -> None:
        super().__init__(config, context)
        self._words = Words((), self.language)
        self._pattern = ""
        if self.cloze:
            _check_fills(self.language)
        if self.patterned:
            self._pattern = chosen_pattern(config.pattern, context)
            self.head.requires_grad_(False)  # it stays without rows

    @property
    def cloze(self) -> bool:
        """Whether words are asked for."""
        return self.config.readout == "cloze"

    @property
    def patterned(self) -> bool:
        """Whether examples are read by a pattern, to be asked for words or gone on from."""
        return self.cloze or self.context.family.generates

    @property
    def frozen(self) -> bool:
        """Whether the model stays in eval mode in training: where its dropout is switched off."""
        return self.config.dropout == "off"

    def own(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the model that take part in what is read: for a classifier, no head over words."""
        model = self.language.model
        if self.patterned:
            part = model
        elif self.language.architecture == "encoder-decoder":
            part = model.get_encoder()
        else:
            part = model.base_model
        found: Iterator[tuple[str, nn.Parameter]] = part.named_parameters()
        return found

    def begin_experience(self, experience: ExperienceView) -> None:
        """Rows of the head, or words, for new classes; a fresh optimiser."""
        if self.cloze and not self.context.family.generates:
            self._words = Words(chosen_words(self.config.words, experience), self.language)
            LanguageLearner.begin_experience(self, experience)
        else:
            super().begin_experience(experience)

    def extra_state(self) -> Mapping[str, Any]:
        """Ids of the words of the classes seen, where words are asked for."""
        return {"words": self._words.ids} if self.cloze else {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._words.ids = state.get("words", [])

    def pattern(self, text: Text) -> str:
        """The one that was chosen, or the segments of a classifier."""
        return self._pattern if self.patterned else super().pattern(text)

    def changed(self) -> AbstractContextManager[None]:
        """Within it the model is as the method changes it; default: as it is."""
        return nullcontext()

    def scores(self, tokens: Tokens) -> Tensor:
        """Logits of the head, or mean logits of the words of each class."""
        with self.changed():
            if not self.cloze:
                return super().scores(tokens)
            logits = self.language.logits(tokens, asked(tokens), embeds=self.embeds(tokens), prefix=self.prefix())
        return self._words.scores(logits[:, 0])

    def taught(self, rows: Sequence[Encoded], targets: Sequence[tuple[int, ...]], labels: Tensor) -> Tensor:
        """Logits of the changed model for each token of the targets."""
        with self.changed():
            return super().taught(rows, targets, labels)

    def generate(self, texts: Sequence[Text]) -> list[str]:
        """What the changed model writes."""
        with self.changed():
            return super().generate(texts)


class FullTuner(Tuner):
    """Every weight that takes part trains."""

    def __init__(self, config: TuningConfig, context: Context) -> None:
        super().__init__(config, context)
        for _, parameter in self.own():
            parameter.requires_grad_(True)


def _check_fills(language: LanguageModel) -> None:
    if language.architecture == "encoder-decoder":
        raise UsageError(
            f"readout: `{language.name}` is an encoder-decoder, whose words are not asked for at a mask",
            hint="use readout=head, or a masked or causal model",
        )
    if not language.fills:
        raise UsageError(
            f"readout: `{language.name}` has no pretrained head over words",
            hint="use readout=head, or another model with --backbone",
        )
