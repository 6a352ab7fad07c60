"""Learners on a pretrained language model: a classifier on its states, or the words that it gives at a mask.

Both read the fields of examples through a pattern (`benchmark.backbones.language.templates`), train what the method
switches on by cross-entropy over the classes seen, and predict in groups of similar length. A method of one's own
overrides what it adds: `LanguageLearner.prefix` (keys and values in every layer), `embeds` (embeddings of some tokens),
or `scores`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, LearnerConfig, Method, Place
from benchmark.backbones.heads import ClassHead, HeadInit, mask_logits
from benchmark.backbones.language import Encoded, LanguageModel, Prefix, Template, Tokens, by_length, ids_on
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.optimizers import Adafactor, DecayLastAdamW
from benchmark.samples import Text

GROUP = 64  # texts of a forward pass at test time: few enough to be of similar length
NO_DECAY = ("bias", "norm")
"""What is never decayed, by its name: biases, and weights of layer norms (transformers' ``no_decay``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageConfig(LearnerConfig):
    """Options of every learner on a language model.

    Attributes:
        lr: Learning rate at the start of each experience.
        optimizer: Made anew for each experience: ``adamw`` of torch, ``adam`` (decay is added to the gradient),
            ``early-adamw``, that of transformers before 4.12 (`benchmark.optimizers.DecayLastAdamW`), or ``adafactor``,
            that of t5x (`benchmark.optimizers.Adafactor`).
        weight_decay: Not of biases and layer norms.
        schedule: Learning rate within an experience: ``constant``, or ``linear`` to 0, per step.
        warmup: Share of the steps in which it rises from 0.
        clip: Largest norm of the gradient; 0: any.
        max_length: Most tokens of an example; 0: as many as the model takes. Longer texts lose their last tokens
            (`benchmark.backbones.language.templates`).
        mask: Classes that compete in the training loss: ``none`` lets all classes seen compete, ``current`` only
            those of the experience (without effect in domain-incremental streams).
    """

    lr: Annotated[float, Range(above=0, log=True, search=(1e-5, 0.1))] = 1e-3
    optimizer: Literal["adamw", "adam", "early-adamw", "adafactor"] = "adamw"
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0
    schedule: Literal["constant", "linear"] = "linear"
    warmup: Annotated[float, Range(min=0, below=1)] = 0.0
    clip: Annotated[float, Range(min=0)] = 1.0
    max_length: Annotated[int, Range(min=0)] = 0
    mask: Literal["none", "current"] = "none"


def rate_at(place: Place, *, schedule: str, warmup: float) -> float:
    """Factor of the learning rate in a step: linear warm-up, then constant or linear to 0.

    As `get_linear_schedule_with_warmup` of transformers: the first step of a warm-up has factor 0.
    """
    start = int(warmup * place.steps)
    if place.step < start:
        return place.step / start
    return 1.0 if schedule == "constant" else (place.steps - place.step) / max(1, place.steps - start)


class LanguageLearner(Method, abc.ABC):
    """What learners on a language model share.

    Args:
        config: `LanguageConfig`.
        context: Has a language model.
    """

    config: LanguageConfig
    added = 0
    """Positions that the method adds to every example; the context is so much shorter for texts."""

    def __init__(self, config: LanguageConfig, context: Context) -> None:
        super().__init__(config, context)
        self.language: LanguageModel = context.language
        self.model: nn.Module = self.language.module
        self._allowed: Sequence[int] | None = None
        self._template = lru_cache(maxsize=None)(self._new_template)

    def _new_template(self, pattern: str) -> Template:
        return self.language.template(pattern, max_length=self.config.max_length, added=self.added)

    @abc.abstractmethod
    def pattern(self, text: Text) -> str:
        """The pattern for an example."""

    @abc.abstractmethod
    def scores(self, tokens: Tokens) -> Tensor:
        """Logits ``(B, classes seen)``."""

    def prefix(self) -> Prefix | None:
        """Keys and values in front of those of every layer; None: none."""
        return None

    def embeds(self, tokens: Tokens) -> Tensor | None:
        """Embeddings ``(B, n, D)`` instead of those of the tokens; None: none."""
        return None

    def rows(self, texts: Sequence[Text]) -> list[Encoded]:
        """The tokens of each text."""
        return [self._template(self.pattern(text)).encode(text) for text in texts]

    def shortened(self, inputs: Sequence[Text]) -> int:
        """How many of some texts are longer than the model takes."""
        return sum(row.cut > 0 for row in self.rows(inputs))

    def begin_experience(self, experience: ExperienceView) -> None:
        """The classes that compete; a fresh optimiser."""
        masked = self.config.mask == "current" and not self.context.family.domains
        self._allowed = experience.classes if masked else None
        self.optimizer = self.make_optimizer()

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Names and parameters that the optimiser moves."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    def groups(self) -> list[dict[str, Any]]:
        """Groups of the optimiser, each with its ``base_lr``: what decays, and what does not."""
        config = self.config
        kept: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, parameter in self.trained():
            (kept if any(part in name.lower() for part in NO_DECAY) else decayed).append(parameter)
        rates = {"lr": config.lr, "base_lr": config.lr}
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay, **rates},
            {"params": kept, "weight_decay": 0.0, **rates},
        ]
        return [group for group in groups if group["params"]]

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser of an experience; None where nothing trains."""
        groups = self.groups()
        if not groups:
            return None
        kinds: dict[str, Any] = {
            "adamw": torch.optim.AdamW,
            "adam": torch.optim.Adam,
            "early-adamw": partial(DecayLastAdamW, eps=1e-8),  # as everywhere in transformers
            "adafactor": Adafactor,
        }
        made: torch.optim.Optimizer = kinds[self.config.optimizer](groups)
        return made

    def loss(self, tokens: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy over the classes that compete."""
        return F.cross_entropy(mask_logits(self.scores(tokens), self._allowed), labels)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        return self.follow(self.loss(self.language.batch(self.rows(batch.texts)), batch.labels), batch.place)

    def follow(self, loss: Tensor, place: Place) -> Mapping[str, Tensor | float]:
        """One step of the optimiser down a loss, at the rate of the place; returns the terms of the log."""
        factor = rate_at(place, schedule=self.config.schedule, warmup=self.config.warmup)
        self.descend(loss, factor=factor, clip=self.config.clip)
        return {"loss": loss.detach()}

    def in_groups(self, texts: Sequence[Text], compute: Callable[[Tokens], Tensor]) -> Tensor:
        """Rows ``(B, ...)`` for B texts, in groups of similar length; ``compute`` returns ``(b, ...)`` for b texts."""
        return grouped(self.rows(texts), self.language, compute)

    def logits(self, texts: Sequence[Text]) -> Tensor:
        """Logits of all classes seen, in groups."""
        return self.in_groups(texts, self.scores)

    def predict(self, texts: Sequence[Text]) -> Tensor:
        """Logits of all classes seen, ``(B, C)``."""
        return self.logits(texts)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig(LanguageConfig):
    """Options of a classifier on a language model.

    Attributes:
        head_init: How rows of new classes are drawn (`benchmark.backbones.heads.ClassHead`).
        head_lr: Learning rate of the head; 0: `lr`.
    """

    head_init: HeadInit = "trunc_normal"
    head_lr: Annotated[float, Range(min=0, log=True)] = 0.0


class HeadLearner(LanguageLearner):
    """A linear head that grows with the classes, on the pooled state of the model (`LanguageModel.pooled`)."""

    config: HeadConfig

    def __init__(self, config: HeadConfig, context: Context) -> None:
        super().__init__(config, context)
        self.head = ClassHead(self.language.width, init=config.head_init).to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes; a fresh optimiser."""
        self.head.grow(experience.seen)
        super().begin_experience(experience)

    def groups(self) -> list[dict[str, Any]]:
        """As those of all learners, those of the head with a learning rate of their own if it has one."""
        groups = super().groups()
        if not self.config.head_lr:
            return groups
        head = {id(parameter) for parameter in self.head.parameters()}
        apart = []
        for group in groups:
            inside = [p for p in group["params"] if id(p) in head]
            outside = [p for p in group["params"] if id(p) not in head]
            rates = {"lr": self.config.head_lr, "base_lr": self.config.head_lr}
            apart += [{**group, "params": outside}, {**group, "params": inside, **rates}]
        return [group for group in apart if group["params"]]

    def pattern(self, text: Text) -> str:
        """The segments that the scenario names, else all fields: the first one, and the others as a second segment."""
        first, *others = self.context.segments or tuple(text)
        behind = " ".join(f"{{{name}}}" for name in others)
        return f"{{{first}}} | {behind}" if others else f"{{{first}}}"

    def states(self, tokens: Tokens) -> Tensor:
        """What the head reads, ``(B, D)``."""
        hidden = self.language.hidden(tokens, embeds=self.embeds(tokens), prefix=self.prefix())
        return self.language.pooled(hidden, tokens)

    def scores(self, tokens: Tokens) -> Tensor:
        """Logits of the head."""
        found: Tensor = self.head(self.states(tokens))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class ClozeConfig(LanguageConfig):
    """Options of a learner that asks for words.

    Attributes:
        pattern: Number of one of the scenario's patterns, or a pattern: ``"it was {mask} . {text}"``; ``auto`` is the
            first of the scenario's that the model can read (a causal one goes on where the text ends).
        words: Words of each class, ``"bad,terrible;good,great"`` in the order of the labels; default: those of the
            scenario, else the names of the classes.
    """

    pattern: str = "auto"
    words: str = ""


class ClozeLearner(LanguageLearner):
    """Scores classes by their words: the mean logit of a class's words at the mask, or behind the end of the text.

    Source: PET (Schick and Schuetze, arXiv 2001.07676; timoschick/pet at 21d32de9, ``pet/pvp.py``). Needs
    ``boundaries`` and ``class_names`` among the uses of the method, and ``cloze=True`` in its spec.
    """

    config: ClozeConfig

    def __init__(self, config: ClozeConfig, context: Context) -> None:
        super().__init__(config, context)
        self._pattern = self.choose_pattern()
        self._words = Words((), self.language)

    def choose_pattern(self) -> str:
        """The pattern of all examples."""
        return chosen_pattern(self.config.pattern, self.context)

    def ask_for(self, words: Sequence[Sequence[str]]) -> None:
        """Looks up the words of the classes seen so far, in label order."""
        self._words = Words(words, self.language)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Looks up the words of new classes; a fresh optimiser."""
        self.ask_for(chosen_words(self.config.words, experience))
        super().begin_experience(experience)

    def pattern(self, text: Text) -> str:
        """The one that was chosen."""
        return self._pattern

    def scores(self, tokens: Tokens) -> Tensor:
        """Mean logits of the words of each class."""
        logits = self.language.logits(tokens, asked(tokens), embeds=self.embeds(tokens), prefix=self.prefix())
        return self._words.scores(logits[:, 0])

    def extra_state(self) -> Mapping[str, Any]:
        """Ids of the words of the classes seen."""
        return {"words": self._words.ids}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._words.ids = state["words"]


class Words:
    """The words of classes as ids.

    Args:
        words: Of each class, in label order.
        language: Its tokenizer has each of them as one token.

    Raises:
        UsageError: One is several tokens, or stands for two classes.
    """

    def __init__(self, words: Sequence[Sequence[str]], language: LanguageModel) -> None:
        self.ids = [[language.word(word) for word in some] for some in words]
        owner: dict[int, int] = {}
        for label, some in enumerate(self.ids):
            for number, word in zip(some, words[label], strict=True):
                if owner.setdefault(number, label) != label:
                    raise UsageError(
                        f"word `{word}` stands for two classes ({owner[number]} and {label})",
                        hint="give each class words of its own (option `words`)",
                    )

    def scores(self, logits: Tensor) -> Tensor:
        """Mean logit of the words of each class, ``(B, C)``, for logits of all words ``(B, V)``."""
        columns = [ids_on(tuple(some), logits.device) for some in self.ids]
        return torch.stack([logits[:, some].mean(dim=1) for some in columns], dim=1)


def asked(tokens: Tokens) -> Tensor:
    """Where the model is asked for a word, ``(B, 1)``: the first mask, or the last token of a causal model."""
    return tokens.marks.get("mask", tokens.last)[:, :1]


def grouped(rows: Sequence[Encoded], language: LanguageModel, compute: Callable[[Tokens], Tensor]) -> Tensor:
    """A row for each example, in their order, computed in groups of similar length so that little is padded."""
    places = by_length(rows, GROUP)
    found = torch.cat([compute(language.batch([rows[place] for place in group])) for group in places])
    order = torch.tensor([place for group in places for place in group]).argsort()
    return found[order.to(found.device, non_blocking=True)]


def chosen_pattern(option: str, context: Context) -> str:
    """The pattern that an option names.

    Args:
        option: Number of one of the scenario's patterns, a pattern, or ``auto``: the first that the model can read.
        context: Knows those of the scenario.

    Raises:
        UsageError: There is none of that number, none that the model can read, or it asks a masked model for no word.
    """
    found = _readable(context) if option == "auto" else option
    if option.isdecimal():
        if int(option) >= len(context.patterns):
            known = "; ".join(f"{number}: {pattern}" for number, pattern in enumerate(context.patterns))
            raise UsageError(
                f"pattern: the scenario has no pattern {option}",
                hint=f"use {known}" if known else 'give one, e.g. --set pattern="it was {mask} . {text}"',
            )
        found = context.patterns[int(option)]
    if "{mask" not in found and context.language.architecture == "masked":
        raise UsageError(f"pattern: {found!r} asks for no word", hint="write {mask} where the word belongs")
    return found


def _readable(context: Context) -> str:
    refused: UsageError | None = None
    for pattern in context.patterns:
        try:
            context.language.template(pattern)
        except UsageError as error:
            refused = refused or error
        else:
            return pattern
    raise refused or UsageError(
        "pattern: the scenario has no patterns", hint='give one, e.g. --set pattern="it was {mask} . {text}"'
    )


def chosen_words(option: str, experience: ExperienceView) -> Sequence[Sequence[str]]:
    """The words of the classes seen so far, in label order.

    Args:
        option: ``"bad,terrible;good,great"`` for all classes of the stream, or "".
        experience: Knows the words of the scenario, and how many classes were seen.

    Raises:
        UsageError: The option has words for fewer classes.
    """
    if not option:
        return experience.words
    given = [[word.strip() for word in some.split(",") if word.strip()] for some in option.split(";")]
    if len(given) < experience.seen or not all(given):
        raise UsageError(
            f"words: {option!r} names words of {len(given)} classes, and {experience.seen} were seen",
            hint="separate classes by `;` and words of one class by `,`, in the order of the labels",
        )
    return given[: experience.seen]
