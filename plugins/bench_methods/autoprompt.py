"""AutoPrompt: trigger words of a cloze question are searched by gradients; no weight trains.

Paper: Shin, Razeghi, Logan, Wallace, Singh. AutoPrompt: Eliciting Knowledge from Language Models with Automatically
Generated Prompts, EMNLP 2020, arXiv 2010.15980.
Official code: ucinlp/autoprompt at d6376759. Gradients, candidates and their scores, swaps, triggers, metrics on
held-out texts, label tokens and the loss of their search equal those that its ``run_model`` and ``label_search.main``
gave on recorded batches, in float64 (tests/unit/methods/test_autoprompt_golden.py). Written anew, no code taken.

One iteration: the gradients of ``accumulation`` batches at the output of the word embeddings are added up, one trigger
position is drawn, the ``candidates`` words w with the largest ``-e_w . g`` are tried there on as many further batches,
and the best of them stays if it scores strictly higher than the word that is there. ``accuracy`` counts texts whose
class has the lowest loss, ``loss`` (facts) is minus the loss; the loss of a class is minus the log of the summed
probability of its words among all words. Of all triggers the one that is best on held-out texts is kept.

Every step takes one batch of the engine: first those of the gradients, then those of the scores; a run can be stopped
between any two. Candidates are tried together, ``chunk`` sequences in one pass of the model.

Differences from the paper and the official code:
- Batches are those of all methods here, shuffled passes one after the other; the official code shuffles anew for either
  half of an iteration, and ends a half early where a pass does.
- Streams are not in the paper: the triggers go on from experience to experience; what is best starts anew.
- Held-out texts: ``dev=validation`` takes those that few-shot scenarios bring. ``dev=train`` (default) takes training
  texts, which are not held out at all. ``dev=none`` keeps the last trigger.
- At test time the class of the lowest loss counts; the official helper that returns labels takes the largest.
- ``label_search=k`` takes the first k words of each class; in the paper a person chooses. A word that a class has
  already is passed over. New classes of a stream get their words when they come.
- Facts are classes here, whose word is the name of the object: predictions are among the objects seen.
- Models that have no mask start from their end of text, which then is what ``lama`` forbids.

Expected: SST-2, RoBERTa-large, 91.2 % on dev with the best of about 25 settings, from 74 % (issue 39). Not yet
reproduced here on the paper track.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, Context, ExperienceView, LearnerConfig, Method, Samples, Text, Transform
from benchmark.backbones.language import Encoded, Template, Tokens, by_length
from benchmark.backbones.language import triggers as words
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.language import GROUP, Words, chosen_pattern, chosen_words

Metric = Literal["accuracy", "loss"]
Dev = Literal["train", "validation", "none"]
_TRIGGER = re.compile(r"\{trigger(:\d+)?\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoPromptConfig(LearnerConfig):
    """Options of AutoPrompt.

    Attributes:
        pattern: Number of one of the scenario's patterns, or a pattern. The triggers stand where it says ``{trigger}``,
            else in front of the mask. ``auto``: the fields, then triggers, mask and a stop.
        words: Words of each class, ``"bad,terrible;good,great"`` in the order of the labels; default: those of the
            scenario, else the names of the classes.
        max_length: Most tokens of an example; 0: as many as the model takes.
        triggers: Number L of trigger words.
        initial: Words to start from, separated by blanks; "": masks.
        accumulation: Batches of the gradient, and as many of the scores, in one iteration.
        candidates: Words tried per iteration.
        iterations: In each experience; they take the place of `epochs`. 0: as many as `epochs` have batches for.
        filter: Whether special tokens, words of the classes and capitalised words are no candidates.
        metric: What decides: ``accuracy`` among the classes, or ``loss``.
        lama: Whether a trigger that still has a mask loses to any other: templates of facts may hold none.
        dev: Texts on which the best trigger is chosen.
        dev_size: Most training texts of ``dev=train``, spread evenly over them.
        label_search: Words per class that are searched before the triggers; 0: `words`.
        label_lr: Learning rate of that search.
        label_epochs: Its passes.
        chunk: Sequences in one pass of the model while candidates are tried.
    """

    epochs: int = 1
    batch_size: int = 32
    pattern: str = "auto"
    words: str = ""
    max_length: Annotated[int, Range(min=0)] = 0
    triggers: Annotated[int, Range(min=1)] = 3
    initial: str = ""
    accumulation: Annotated[int, Range(min=1)] = 10
    candidates: Annotated[int, Range(min=1)] = 10
    iterations: Annotated[int, Range(min=0)] = 100
    filter: bool = True
    metric: Metric = "accuracy"
    lama: bool = False
    dev: Dev = "train"
    dev_size: Annotated[int, Range(min=1)] = 256
    label_search: Annotated[int, Range(min=0)] = 0
    label_lr: Annotated[float, Range(above=0)] = 3e-4
    label_epochs: Annotated[int, Range(min=1)] = 50
    chunk: Annotated[int, Range(min=1)] = 256


class AutoPrompt(Method):
    """The trigger of the search, and the best one so far.

    Raises:
        UsageError: The pattern has no place for triggers, or `initial` has words for another number of them.
    """

    config: AutoPromptConfig
    trigger: Tensor
    best: Tensor
    best_dev: Tensor
    gradient: Tensor
    tried: Tensor
    scores: Tensor

    def __init__(self, config: AutoPromptConfig, context: Context) -> None:
        super().__init__(config, context)
        self.language = context.language
        end = self.language.tokenizer.eos_token_id
        self.mask = self.language.blank if self.language.blank is not None else int(end or 0)
        self._pattern = "" if config.pattern == "auto" else chosen_pattern(config.pattern, context)
        if config.pattern != "auto" and not _TRIGGER.search(self._pattern) and "{mask" not in self._pattern:
            raise UsageError(
                f"pattern: {self._pattern!r} has no place for the triggers", hint="write {trigger}, or {mask} behind it"
            )
        self._words = Words((), self.language)
        self._barred: Tensor | None = None
        self._dev: tuple[list[Encoded], Tensor] | None = None
        self._template = lru_cache(maxsize=None)(self._new_template)
        table = self.language.embedding.weight
        self.register_buffer("trigger", self._initial())
        self.register_buffer("best", self.trigger.clone())
        self.register_buffer("best_dev", torch.tensor(-math.inf, dtype=torch.float64))
        self.register_buffer("gradient", torch.zeros(config.triggers, table.shape[1], dtype=table.dtype))
        self.register_buffer("tried", torch.zeros(config.candidates, dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(config.candidates + 1, dtype=torch.float64))
        self.slot = self.steps = 0
        self.to(context.device)

    def _initial(self) -> Tensor:
        """Ids of the first trigger.

        Raises:
            UsageError: Its words are not as many as there are triggers.
        """
        given, count = self.config.initial.split(), self.config.triggers
        if given and len(given) != count:
            raise UsageError(
                f"initial: {len(given)} words for {count} triggers", hint="give one word for each, separated by blanks"
            )
        return torch.tensor([self.language.word(word) for word in given] or [self.mask] * count)

    # ---- texts

    def _new_template(self, pattern: str) -> Template:
        return self.language.template(pattern, max_length=self.config.max_length)

    def pattern(self, text: Text) -> str:
        """The pattern of an example, with its trigger positions."""
        slots = f"{{trigger:{self.config.triggers}}}"
        if not self._pattern:
            fields = " ".join(f"{{{name}}}" for name in self.context.segments or tuple(text))
            return f"{fields} {slots} {{mask}} ."
        if _TRIGGER.search(self._pattern):
            return _TRIGGER.sub(slots, self._pattern)
        return self._pattern.replace("{mask", f"{slots} {{mask", 1)

    def rows(self, texts: Sequence[Text]) -> list[Encoded]:
        """The tokens of each text, its trigger positions still empty."""
        return [self._template(self.pattern(text)).encode(text) for text in texts]

    def _rows_of(self, samples: Samples) -> list[Encoded]:
        return self.rows(samples.texts(slice(None)))

    def shortened(self, inputs: Sequence[Text]) -> int:
        """How many of some texts are longer than the model takes."""
        return sum(row.cut > 0 for row in self.rows(inputs))

    def losses(self, tokens: Tokens, *, embeds: Tensor | None = None) -> Tensor:
        """Loss of each class, ``(B, C)``."""
        at = tokens.marks.get("mask", tokens.last)[:, :1]
        return words.word_losses(self.language.logits(tokens, at, embeds=embeds)[:, 0], self._words.ids)

    def metric(self, losses: Tensor, labels: Tensor) -> Tensor:
        """What decides, higher is better, ``(B,)``."""
        if self.config.metric == "accuracy":
            return words.right(losses, labels)
        return -losses.gather(1, labels.unsqueeze(1)).squeeze(1)

    # ---- an experience

    def begin_experience(self, experience: ExperienceView) -> None:
        """Words of the classes, searched if that is asked for; the trigger goes on from the best one."""
        config = self.config
        if config.label_search:
            self._search_words(experience)
        else:
            self._words = Words(chosen_words(config.words, experience), self.language)
        own = [number for some in self._words.ids for number in some]
        self._barred = words.barred_words(self.language, own) if config.filter else None
        held = self._held_out(experience)
        if held is not None:
            self._dev = self._rows_of(held), held.labels.to(self.trigger.device)
        self._per_pass = max(1, math.ceil(len(experience.train) / config.batch_size))
        self.trigger.copy_(self.best)
        self.best_dev.fill_(-math.inf)
        self.steps = 0

    def _held_out(self, experience: ExperienceView) -> Samples | None:
        """Texts on which triggers are compared.

        Raises:
            UsageError: The scenario brings no validation texts, but they are asked for.
        """
        if self.config.dev == "none":
            return None
        if self.config.dev == "train":
            count = min(self.config.dev_size, len(experience.train))
            return experience.train.subset(torch.linspace(0, len(experience.train) - 1, count).round().long())
        if experience.validation is None:
            raise UsageError(
                "dev=validation: the scenario brings no validation texts", hint="use dev=train, or dev=none"
            )
        return experience.validation

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets go of the held-out texts; without any, the last trigger is the best."""
        if self.config.dev == "none":
            self.best.copy_(self.trigger)
        self._dev = None

    def passes(self) -> Sequence[Transform]:
        """As many as `iterations` need, else ``epochs``."""
        needed = math.ceil(2 * self.config.accumulation * self.config.iterations / self._per_pass)
        once: tuple[Transform, ...] = ("train",)
        return once * (needed if self.config.iterations else self.config.epochs)

    # ---- the search

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A part of an iteration: a batch of the gradient, or of the scores; behind the last iteration nothing.

        Returns:
            The mean loss with the trigger as it was.
        """
        tokens, half = self.language.batch(self.rows(batch.texts)), self.config.accumulation
        done, place = divmod(self.steps, 2 * half)
        self.steps += 1
        if self.config.iterations and done >= self.config.iterations:
            with torch.no_grad():
                losses = self.losses(words.with_trigger(tokens, self.trigger))
        elif place < half:
            losses = self.accumulate(tokens, batch.labels, first=place == 0)
            if place == half - 1:
                self.choose()
        else:
            losses = self.try_candidates(tokens, batch.labels)
            if place == 2 * half - 1:
                self.decide()
        return {"loss": losses.gather(1, batch.labels.unsqueeze(1)).mean()}

    def accumulate(self, tokens: Tokens, labels: Tensor, *, first: bool) -> Tensor:
        """Adds the gradient of a batch; returns its losses ``(B, C)``."""
        tokens = words.with_trigger(tokens, self.trigger)
        embeds = self.language.embed(tokens.ids).detach().requires_grad_(True)
        losses = self.losses(tokens, embeds=embeds)
        loss = losses.gather(1, labels.unsqueeze(1)).mean()
        loss.backward()
        found = embeds.grad
        assert found is not None
        at = tokens.marks["trigger"].unsqueeze(-1).expand(-1, -1, found.shape[-1])
        part = found.gather(1, at).sum(dim=0) / self.config.accumulation  # (L, D)
        self.gradient.copy_(part if first else self.gradient + part)
        return losses.detach()

    def choose(self) -> None:
        """Draws a position, and takes the words that may lower the loss there."""
        self.slot = random.randrange(self.config.triggers)
        gradient = self.gradient[self.slot]
        self.tried.copy_(words.best_words(self.language, gradient, len(self.tried), self._barred))
        self.scores.zero_()

    @torch.no_grad()
    def try_candidates(self, tokens: Tokens, labels: Tensor) -> Tensor:
        """Adds the metric of the trigger and of each candidate on a batch; returns the trigger's losses ``(B, C)``."""
        rows = self.trigger.repeat(len(self.tried) + 1, 1)  # the trigger itself comes first
        rows[1:, self.slot] = self.tried
        count, found = len(rows), []
        each = max(1, self.config.chunk // count)
        for start in range(0, len(tokens), each):
            part = slice(start, start + each)
            marks = {name: at[part] for name, at in tokens.marks.items()}
            few = Tokens(tokens.ids[part], tokens.mask[part], tokens.segments[part], marks)
            many = words.with_trigger(words.repeated(few, count), rows.repeat(len(few), 1))
            found.append(self.losses(many).unflatten(0, (len(few), count)))
        losses = torch.cat(found)  # (B, K + 1, C)
        metric = self.metric(losses.flatten(0, 1), labels.repeat_interleave(count)).unflatten(0, (-1, count))
        self.scores += metric.double().sum(dim=0)
        return losses[:, 0]

    def decide(self) -> None:
        """Puts the best candidate in place if it is better than what is there, and compares triggers."""
        lama = self.config.lama
        current = -math.inf if lama and self.mask in self.trigger else float(self.scores[0])
        others = self.scores[1:]
        if not bool((others > current).any()):
            return
        self.trigger[self.slot] = self.tried[int(others.argmax())]
        if self._dev is None:
            return
        found = self.dev_metric(self.trigger)
        if lama and self.mask in self.best:
            self.best_dev.fill_(-math.inf)
        if found > float(self.best_dev):
            self.best.copy_(self.trigger)
            self.best_dev.fill_(found)

    @torch.no_grad()
    def dev_metric(self, trigger: Tensor) -> float:
        """Mean metric of a trigger on the held-out texts."""
        assert self._dev is not None
        rows, labels = self._dev
        return float(self.metric(self._in_groups(rows, trigger), labels).double().sum() / (len(rows) + 1e-13))

    def _in_groups(self, rows: Sequence[Encoded], trigger: Tensor) -> Tensor:
        """Losses ``(B, C)`` of examples, computed in groups of similar length."""
        groups = by_length(rows, GROUP)
        found = [
            self.losses(words.with_trigger(self.language.batch([rows[row] for row in group]), trigger))
            for group in groups
        ]
        order = torch.tensor([row for group in groups for row in group]).argsort()
        return torch.cat(found)[order.to(trigger.device, non_blocking=True)]

    def predict(self, texts: Sequence[Text]) -> Tensor:
        """Log of the summed probability of the words of each class seen, ``(B, C)``."""
        return -self._in_groups(self.rows(texts), self.best)

    # ---- words of the classes

    def _search_words(self, experience: ExperienceView) -> None:
        """Words of the classes of the experience that have none yet."""
        config = self.config
        new = [label for label in experience.classes if label >= len(self._words.ids)]
        if not new:
            return
        rows = self._rows_of(experience.train)
        groups = by_length(rows, GROUP)
        with torch.no_grad():
            parts = []
            for group in groups:
                tokens = words.with_trigger(self.language.batch([rows[row] for row in group]), self.trigger)
                at = tokens.marks.get("mask", tokens.last)[:, :1]
                parts.append(words.features_of_words(self.language, tokens, at))
            order = torch.tensor([row for group in groups for row in group]).argsort()
            features = torch.cat(parts)[order.to(self.trigger.device)]
        places = {label: place for place, label in enumerate(experience.classes)}
        labels = torch.tensor([places[label] for label in experience.train.labels.tolist()], device=features.device)
        projection = words.LabelProjection(self.language, len(places), lr=config.label_lr)
        with torch.enable_grad():
            for _ in range(config.label_epochs):
                for part in torch.randperm(len(features)).to(features.device).split(config.batch_size):
                    projection.step(features[part], labels[part])
        taken = {number for some in self._words.ids for number in some}
        scores = projection.scores()
        for label in new:
            ranked = scores[places[label]].argsort(descending=True, stable=True).tolist()
            found = [number for number in ranked if number not in taken][: config.label_search]
            taken.update(found)
            self._words.ids.append(found)

    def extra_state(self) -> Mapping[str, Any]:
        """Words of the classes as ids, the place in the search."""
        return {"words": self._words.ids, "slot": self.slot, "steps": self.steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._words.ids = [list(some) for some in state["words"]]
        self.slot, self.steps = state["slot"], state["steps"]


def uses(config: AutoPromptConfig) -> frozenset[str]:
    """What a configuration looks at."""
    return frozenset({"boundaries", "class_names", *(["validation"] if config.dev == "validation" else [])})


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``autoprompt``."""
    return [
        MethodSpec(
            name="autoprompt",
            build=AutoPrompt,
            config=AutoPromptConfig,
            summary="trigger words of a question, searched by gradients; no weight trains",
            uses=uses,
            recipes={
                "sst2": {
                    "batch_size": 24,
                    "triggers": 3,
                    "accumulation": 30,
                    "candidates": 100,
                    "iterations": 180,
                    "filter": False,
                },
                "facts": {
                    "batch_size": 56,
                    "triggers": 3,
                    "accumulation": 1,
                    "candidates": 10,
                    "iterations": 1000,
                    "filter": True,
                    "metric": "loss",
                    "lama": True,
                },
                "label-search": {"label_search": 3, "label_lr": 3e-4, "label_epochs": 50},
            },
            tracks={
                "nano": {"batch_size": 16, "accumulation": 2, "candidates": 8, "iterations": 8, "dev_size": 60},
            },
            rule="sizes that fit into a minute on reviews-domains; nothing was searched",
            waits=5,  # once in an iteration the trigger and its candidates are compared on the host
            toy={"iterations": 3, "accumulation": 2, "candidates": 4, "label_epochs": 2},
            sources={
                "sst2": "ucinlp/autoprompt at d6376759, README: roberta-large; with words=worse,incompetence,Worse,"
                "blamed,sucked;Cris,marvelous,philanthrop,visionary,wonderful",
                "facts": "the same, README: fact retrieval",
                "label-search": "the same, README: label token selection; how many words are kept is adaptbench's",
            },
            paper="arXiv:2010.15980",
            reference="ucinlp/autoprompt@d6376759",
            reads="text",
            models=("masked", "causal"),
            cloze=True,
        )
    ]
