"""One fine-tuned masked language model per pattern and repetition, and a classifier that learns from all of them.

What `pet` and `ipet` share. An experience is a row of phases: one for each model of each generation, then one for the
classifier. The models are trained one after the other in the one language model at hand; of each only its scores on the
unlabelled texts are kept, and those of the last generation are what the classifier learns from. A phase is a number of
passes of the engine, and the state says in which one the run is, so that it resumes anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, Place, Samples, Transform
from benchmark.backbones.language import Tokens
from benchmark.config import Range
from benchmark.learners import pattern_exploiting as parts
from benchmark.learners.language import HeadConfig, HeadLearner, Words, asked, chosen_words, rate_at
from benchmark.samples import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternEnsembleConfig(HeadConfig):
    """Options of the models, of what they read, and of the classifier.

    Attributes:
        epochs: Passes over the labelled texts in the training of one model; 0: the models are not trained, the
            classifier still is.
        batch_size: Texts of an update, of models and of the classifier.
        lr: Learning rate of models and classifier; the schedule starts anew for each.
        pattern: ``all`` patterns of the scenario, numbers of some (``0,2``), or patterns separated by ``;``.
        words: Words of each class, ``"bad,terrible;good,great"`` in the order of the labels; default: those of the
            scenario, else the names of the classes.
        repetitions: Models per pattern.
        steps: Updates of one model, the last of them at the end of the schedule; the passes are rounded up and what
            is left of them changes nothing. It takes the place of `epochs`. 0: `epochs`.
        micro_batch: Texts of a forward pass; gradients add up over an update. 0: all at once.
        alpha: Weight of the labelled texts; ``1 - alpha`` is that of the gaps that the model fills in unlabelled ones.
            1: none. (It is 1 minus the alpha of the paper.)
        unlabelled_batch: Unlabelled texts with gaps beside each forward pass of labelled ones; 0: as many as these.
        released_gaps: Gaps as the official code with transformers 3.0.2 draws them: also at the mask of the pattern,
            and in padding.
        reduction: How scores are merged: ``wmean`` weighs models by their accuracy on the labelled texts before
            training, ``mean`` does not.
        temperature: Of the distillation.
        distil_epochs: Passes of the classifier over the unlabelled texts.
        distil_steps: Updates of the classifier, in place of `distil_epochs`; 0: `distil_epochs`.
        distil_lr: Learning rate of the classifier; 0: `lr`.
    """

    epochs: int = 3
    batch_size: int = 4
    lr: float = 1e-5
    optimizer: Literal["adamw", "adam", "early-adamw", "adafactor"] = "early-adamw"
    weight_decay: float = 0.01
    max_length: int = 256
    pattern: str = "all"
    words: str = ""
    repetitions: Annotated[int, Range(min=1)] = 3
    steps: Annotated[int, Range(min=0)] = 0
    micro_batch: Annotated[int, Range(min=0)] = 0
    alpha: Annotated[float, Range(min=0, max=1)] = 1.0
    unlabelled_batch: Annotated[int, Range(min=0)] = 0
    released_gaps: bool = False
    reduction: Literal["wmean", "mean"] = "wmean"
    temperature: Annotated[float, Range(above=0)] = 2.0
    distil_epochs: Annotated[int, Range(min=1)] = 3
    distil_steps: Annotated[int, Range(min=0)] = 0
    distil_lr: Annotated[float, Range(min=0)] = 0.0


NANO: dict[str, object] = {"batch_size": 16, "repetitions": 1, "steps": 20, "lr": 1e-3, "distil_epochs": 2}
RULE = "nano: few updates, so that a stream takes minutes; lr looked at on validation texts of one domain, not searched"
"""Options on the nano track, and where they come from."""


@dataclass(frozen=True)
class _Phase:
    """The training of one model, or of the classifier.

    Attributes:
        passes: Of the engine.
        per_pass: Steps of one of them.
        updates: How many of these steps change something.
    """

    passes: int
    per_pass: int
    updates: int

    @property
    def steps(self) -> int:
        return self.passes * self.per_pass


def _phase(steps: int, epochs: int, per_pass: int, own: int = 0) -> _Phase:
    """A phase of `steps` updates, or of `epochs` passes over a set of `own` steps (default: the engine's)."""
    updates = steps or epochs * (own or per_pass)
    return _Phase(math.ceil(updates / per_pass), per_pass, updates)


class PatternEnsemble(HeadLearner):
    """Models of patterns in turn, then a classifier that is distilled from their merged scores.

    Args:
        config: Options.
        context: Has a masked language model.
        generations: How often all models are trained; each generation but the last labels texts for the next one.
    """

    config: PatternEnsembleConfig

    def __init__(self, config: PatternEnsembleConfig, context: Context, *, generations: int = 1) -> None:
        super().__init__(config, context)
        patterns = parts.chosen_patterns(config.pattern, context)
        self._models = tuple(pattern for pattern in patterns for _ in range(config.repetitions))
        self._count = generations * len(self._models)  # the number of the last phase: that of the classifier
        self._pretrained = _weights(self.model)
        self.model.requires_grad_(True)
        self._words = Words((), self.language)
        self._phases: tuple[_Phase, ...] = ()
        self._classifier: dict[str, Tensor] = {}  # where it starts in this experience
        self._taught = False
        self._labelled: Samples | None = None
        self._texts: Sequence[Text] = ()  # without labels
        self._places: dict[tuple[tuple[str, str], ...], int] = {}
        self._accuracies: dict[str, float] = {}
        self._let_go()

    def _let_go(self) -> None:
        """Forgets what belongs to an experience."""
        self._labelled, self._texts, self._places, self._accuracies = None, (), {}, {}
        self._scores: list[Tensor] = []
        self._sets: list[Tensor] = []
        self._order = torch.empty(0, dtype=torch.int64)

    # ---- what an experience is made of

    def begin_experience(self, experience: ExperienceView) -> None:
        """Looks at labelled and unlabelled texts, weighs the patterns, plans the phases, starts with the first."""
        super().begin_experience(experience)
        self._words = Words(chosen_words(self.config.words, experience), self.language)
        self._let_go()
        train, target = experience.train, experience.unlabelled
        self._labelled = train
        self._texts = (train if target is None else target).texts(slice(None))
        self._places = {_key(text): place for place, text in enumerate(self._texts)}
        self._classifier = _weights(self.model) if self._taught else self._pretrained
        self._phases = self._planned(train, len(self._texts))
        self._phase = 0
        self._put(self._pretrained)
        if self.config.reduction == "wmean":
            texts, labels = train.texts(slice(None)), train.labels
            for pattern in dict.fromkeys(self._models):
                found = self._scored(texts, pattern).argmax(dim=1).cpu()
                self._accuracies[pattern] = float((found == labels).double().mean())

    def _planned(self, train: Samples, unlabelled: int) -> tuple[_Phase, ...]:
        config, size = self.config, self.config.batch_size
        per_pass = math.ceil(len(train) / size)
        plan = []
        for number in range(self._count):
            more = sum(self.new_sizes(train.labels, number // len(self._models)))
            own = math.ceil((len(train) + more) / size)
            plan.append(_phase(config.steps, config.epochs, per_pass, own))
        return (*plan, _phase(config.distil_steps, config.distil_epochs, math.ceil(unlabelled / size)))

    def passes(self) -> Sequence[Transform]:
        """Those of all phases."""
        once: tuple[Transform, ...] = ("train",)
        return once * sum(phase.passes for phase in self._phases)

    def reads(self, epoch: int) -> Literal["source", "target"]:
        """The models read labelled texts, the classifier those without labels."""
        return "source" if epoch < sum(phase.passes for phase in self._phases[:-1]) else "target"

    def _where(self, place: Place) -> tuple[int, int]:
        """The phase of a step, and how many steps of the phase came before it."""
        ends = list(accumulate(phase.passes for phase in self._phases))
        number = next(number for number, end in enumerate(ends) if place.epoch < end)
        return number, place.step - sum(phase.steps for phase in self._phases[:number])

    # ---- from phase to phase

    def _advance(self, number: int) -> None:
        """Ends phases and starts the next until one is reached; each starts from the weights where it has to."""
        while self._phase < number:
            pattern = self._models[self._phase % len(self._models)]
            self._scores.append(self._scored(self._texts, pattern).cpu())
            self._phase += 1
            if self._phase % len(self._models) == 0:
                self._end_generation(self._phase // len(self._models) - 1)
            self._order = self._order[:0]
            self._put(self._classifier if self._distils else self._pretrained)
            self.active_optimizer.state.clear()

    def _end_generation(self, generation: int) -> None:
        weights = [self._accuracies[pattern] for pattern in self._models] if self._accuracies else None
        if self._phase == self._count:
            self._scores = [parts.merged(self._scores, weights)]
        else:
            self._sets, self._scores = self.new_sets(self._scores, weights, generation), []

    @property
    def labels(self) -> Tensor:
        """Of the labelled texts of the experience."""
        if self._labelled is None:
            raise RuntimeError("there is no experience")
        return self._labelled.labels

    def new_sizes(self, labels: Tensor, generation: int) -> Sequence[int]:
        """How many new texts of each class the models of a generation are given; none here."""
        return ()

    def new_sets(self, scores: Sequence[Tensor], weights: Sequence[float] | None, generation: int) -> list[Tensor]:
        """New texts for the models of the next generation (`pattern_exploiting.new_sets`)."""
        raise NotImplementedError(f"{type(self).__name__} has one generation")

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        """Weights for what comes next; the head over words is no part of the classifier and stays as it is."""
        body = {id(parameter) for parameter in self.language.model.base_model.parameters()}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if not self._distils or id(parameter) in body:
                    parameter.copy_(weights[name])

    @torch.no_grad()
    def _scored(self, texts: Sequence[Text], pattern: str) -> Tensor:
        """Raw scores of texts in a pattern by the weights as they are, without dropout."""
        was, phase = self.training, self._phase
        self.eval()
        self._phase = self._models.index(pattern)
        found = self.logits(texts)
        self._phase = phase
        self.train(was)
        return found

    # ---- what a phase reads and computes

    @property
    def _distils(self) -> bool:
        return self._phase == self._count

    def pattern(self, text: Text) -> str:
        """That of the model at hand; of the classifier: its segments."""
        return super().pattern(text) if self._distils else self._models[self._phase % len(self._models)]

    def scores(self, tokens: Tokens) -> Tensor:
        """Mean logits of the words of each class; of the classifier: its logits."""
        if self._distils:
            return super().scores(tokens)
        return self._words.scores(self.language.logits(tokens, asked(tokens))[:, 0])

    def with_gaps(self, tokens: Tokens) -> parts.Gaps:
        """Gaps in unlabelled texts."""
        return parts.with_gaps(tokens, self.language, ends_only=self.config.released_gaps)

    def _gap_loss(self, count: int) -> Tensor:
        """Auxiliary language modelling on unlabelled texts in the model's pattern, none twice."""
        rows = torch.randperm(len(self._texts))[: self.config.unlabelled_batch or count]
        batch = self.language.batch(self.rows([self._texts[row] for row in rows.tolist()]))
        return parts.gap_loss(self.with_gaps(batch), self.language)

    def _model_loss(self, texts: Sequence[Text], labels: Tensor) -> Tensor:
        loss, alpha = self.loss(self.language.batch(self.rows(texts)), labels), self.config.alpha
        return loss if alpha == 1 else alpha * loss + (1 - alpha) * self._gap_loss(len(texts))

    def _distillation(self, texts: Sequence[Text]) -> Tensor:
        logits = self.scores(self.language.batch(self.rows(texts)))
        wanted = self._scores[0][[self._places[_key(text)] for text in texts]].to(logits.device, non_blocking=True)
        if self._allowed is not None:
            logits, wanted = logits[:, list(self._allowed)], wanted[:, list(self._allowed)]
        return parts.distillation(logits, wanted, temperature=self.config.temperature)

    def _own_batch(self, done: int) -> tuple[Sequence[Text], Tensor]:
        """The next batch of a model that has a set of its own beside the labelled texts: shuffled passes over both."""
        if self._labelled is None:
            raise RuntimeError("there is no experience")
        size, first = self.config.batch_size, len(self._labelled)
        new = self._sets[self._phase % len(self._models)]
        place = done % math.ceil((first + len(new)) / size)
        if place == 0:
            self._order = torch.randperm(first + len(new))
        rows = self._order[place * size : (place + 1) * size]
        old, drawn = rows[rows < first], new[rows[rows >= first] - first]
        texts = [*self._labelled.texts(old), *(self._texts[row] for row in drawn[:, 0].tolist())]
        return texts, torch.cat([self._labelled.labels[old], drawn[:, 1]]).to(self.context.device, non_blocking=True)

    def _shares(self, batch: Batch, done: int) -> Iterator[tuple[Tensor, float]]:
        """Losses of the parts of an update, and which share of it each is."""
        labels = batch.labels
        if self._distils:
            texts: Sequence[Text] = batch.texts if batch.target is None else batch.target
        elif self._sets:
            texts, labels = self._own_batch(done)
        else:
            texts = batch.texts
        size = self.config.micro_batch or len(texts)
        for start in range(0, len(texts), size):
            some, known = texts[start : start + size], labels[start : start + size]
            loss = self._distillation(some) if self._distils else self._model_loss(some, known)
            yield loss, len(some) / len(texts)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One update of the model or the classifier whose phase it is."""
        number, done = self._where(batch.place)
        self._advance(number)
        total = self._phases[number].updates
        if done >= total:
            with torch.no_grad():
                return {"loss": _sum(loss * share for loss, share in self._shares(batch, done))}
        optimizer = self.active_optimizer
        factor = rate_at(Place(step=done, steps=total), schedule=self.config.schedule, warmup=self.config.warmup)
        if self._distils and self.config.distil_lr:
            factor *= self.config.distil_lr / self.config.lr
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.zero_grad(set_to_none=True)
        terms = []
        for loss, share in self._shares(batch, done):
            (loss * share).backward()
            terms.append(loss.detach() * share)
        if self.config.clip:
            moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(moved, self.config.clip)
        optimizer.step()
        return {"loss": _sum(terms)}

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets texts, scores and the optimiser go."""
        super().end_experience(experience)
        self._let_go()
        self._classifier, self._phases = {}, ()
        self.optimizer = None
        self._taught = True

    def extra_state(self) -> Mapping[str, Any]:
        """The phase, and what the phases before it left."""
        return {
            "phase": self._phase,
            "taught": self._taught,
            "words": self._words.ids,
            "scores": self._scores,
            "sets": self._sets,
            "order": self._order,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts it back."""
        self._phase, self._taught, self._words.ids = state["phase"], state["taught"], state["words"]
        self._scores, self._sets, self._order = list(state["scores"]), list(state["sets"]), state["order"]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _key(text: Text) -> tuple[tuple[str, str], ...]:
    """What tells a text: texts with the same fields have the same scores."""
    return tuple(sorted(text.items()))


def _sum(losses: Any) -> Tensor:
    return torch.stack(list(losses)).sum()
