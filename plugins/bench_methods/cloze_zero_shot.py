"""Zero-shot classification by a word: the language model fills the gap of a pattern, and nothing trains.

Papers: Schick and Schuetze, arXiv 2001.07676 (patterns, verbalizers; their "unsupervised" rows); Zhao et al., Calibrate
Before Use, ICML 2021, arXiv 2102.09690 (contextual calibration); Holtzman et al., Surface Form Competition, EMNLP 2021,
arXiv 2104.08315 (PMI_DC).
Official code compared with: timoschick/pet at 21d32de9 (scores of the recorded cases, ``tests/golden/pet``). The
calibrations are formulas of the papers, held against figures worked out by hand.

The score of a class is the mean raw logit of its words where the model is asked for one: at the mask, or behind the
text of a causal model. Of several patterns the mean counts. Calibration takes away what a pattern says of the classes
when it is filled with texts that say nothing: a prediction depends on its own text alone.

Differences:
- Zhao et al. sum the probabilities of all words of a class over the whole vocabulary; here a class has its score of
  PET, and probabilities are over the classes. With one word per class both are the same.
- Their content-free inputs are "N/A", "[MASK]" and "" (here: the model's own mask, where it has one). Of an example
  with several fields all are replaced. PMI_DC divides by the probability behind the pattern alone, i.e. with "".
- Patterns of the scenario in which a causal model would be asked before it has read the text are left out by ``all``.

Expected (RoBERTa-large, accuracy, best and worst pattern differ widely): Yelp full 33.8, AG News 69.5, Yahoo 44.0, MNLI
39.1 on average over patterns (paper, table 1). Not yet reproduced here; `nano-mlm`: results/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, LearnerConfig, Method, Transform
from benchmark.backbones.language import Encoded, Template, Tokens
from benchmark.config import Range
from benchmark.learners.language import Words, asked, chosen_words, grouped
from benchmark.learners.pattern_exploiting import chosen_patterns
from benchmark.samples import Text
from benchmark.specs import MethodSpec

CONTENT_FREE = ("N/A", "[MASK]", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClozeZeroShotConfig(LearnerConfig):
    """Options of zero-shot classification.

    Attributes:
        pattern: ``all`` patterns of the scenario that the model can read, numbers of some (``0,2``), or patterns
            separated by ``;``: ``"it was {mask} . {text}"``.
        words: Words of each class, ``"bad,terrible;good,great"`` in the order of the labels; default: those of the
            scenario, else the names of the classes.
        calibration: ``none``; ``contextual`` divides the probabilities of the classes by their mean over texts without
            content; ``domain`` by those of the pattern alone.
        max_length: Most tokens of an example; 0: as many as the model takes.
    """

    epochs: int = 0
    pattern: str = "all"
    words: str = ""
    calibration: Literal["none", "contextual", "domain"] = "none"
    max_length: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        LearnerConfig.__post_init__(self)
        if self.epochs:
            raise ValueError(f"epochs: {self.epochs} passes change nothing, because nothing is trained; use 0")


class ClozeZeroShot(Method):
    """Mean logits of words at the masks of patterns; the language model is as it was."""

    config: ClozeZeroShotConfig

    def __init__(self, config: ClozeZeroShotConfig, context: Context) -> None:
        super().__init__(config, context)
        self.language = context.language
        self._patterns = chosen_patterns(config.pattern, context)
        self._words = Words((), self.language)
        self._template = lru_cache(maxsize=None)(self._new_template)

    def _new_template(self, pattern: str) -> Template:
        return self.language.template(pattern, max_length=self.config.max_length)

    @property
    def deterministic(self) -> bool:
        """Nothing is drawn."""
        return True

    def passes(self) -> Sequence[Transform]:
        """None: training texts are not read."""
        return ()

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Not called: there is no pass.

        Raises:
            TypeError: Always.
        """
        raise TypeError("cloze-zero-shot trains nothing; the engine makes no pass")

    def begin_experience(self, experience: ExperienceView) -> None:
        """Looks up the words of the classes seen so far."""
        self._words = Words(chosen_words(self.config.words, experience), self.language)

    def _rows(self, pattern: str, texts: Sequence[Text]) -> list[Encoded]:
        return [self._template(pattern).encode(text) for text in texts]

    def _scores(self, tokens: Tokens) -> Tensor:
        return self._words.scores(self.language.logits(tokens, asked(tokens))[:, 0])

    def _bias(self, pattern: str) -> Tensor:
        """What the pattern says of the classes by itself, ``(C,)``: a logarithm of probabilities."""
        blank = self.language.tokenizer.mask_token if self.language.blank is not None else None
        inputs = CONTENT_FREE if self.config.calibration == "contextual" else ("",)
        contents = [blank if text == "[MASK]" and blank else text for text in inputs]
        rows = self._rows(pattern, [dict.fromkeys(self._template(pattern).fields, text) for text in contents])
        return grouped(rows, self.language, self._scores).softmax(dim=1).mean(dim=0).log()

    def shortened(self, inputs: Sequence[Text]) -> int:
        """How many of some texts are longer than the model takes, in any pattern."""
        cut = [
            any(row.cut for row in rows) for rows in zip(*(self._rows(p, inputs) for p in self._patterns), strict=True)
        ]
        return sum(cut)

    def predict(self, texts: Sequence[Text]) -> Tensor:
        """Scores of the classes seen so far, ``(B, C)``: raw, or logarithms of probabilities that are calibrated."""
        found = []
        for pattern in self._patterns:
            scores = grouped(self._rows(pattern, texts), self.language, self._scores)
            if self.config.calibration != "none":
                scores = scores.log_softmax(dim=1) - self._bias(pattern)
            found.append(scores)
        return torch.stack(found).mean(dim=0)

    def extra_state(self) -> Mapping[str, Any]:
        """Ids of the words of the classes seen."""
        return {"words": self._words.ids}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._words.ids = state["words"]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``cloze-zero-shot``."""
    return [
        MethodSpec(
            name="cloze-zero-shot",
            build=ClozeZeroShot,
            config=ClozeZeroShotConfig,
            summary="asks a language model for a word of each class; trains nothing",
            uses=frozenset({"boundaries", "class_names"}),
            recipes={
                "contextual": {"calibration": "contextual"},
                "domain": {"calibration": "domain"},
                "first": {"pattern": "0"},
            },
            default_recipe="mean",
            sources={
                "mean": "paper, section 3: scores of patterns are averaged (uniform)",
                "contextual": "Zhao et al., arXiv 2102.09690, section 4: diagonal W, b = 0; three content-free inputs",
                "domain": "Holtzman et al., arXiv 2104.08315, section 3: PMI_DC",
                "first": "timoschick/pet: one pattern, ``--pattern_ids 0``",
            },
            paper="arXiv:2001.07676",
            reference="timoschick/pet@21d32de9",
            control=True,
            reads="text",
            models=("masked", "causal"),
            cloze=True,
        )
    ]
