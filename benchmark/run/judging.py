"""What epochs are compared on: accuracy on labelled samples, or scores that need no target label."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.api import Method, Samples
from benchmark.backbones.logistic import fit_logistic
from benchmark.errors import UsageError
from benchmark.guard import Guard
from benchmark.metrics.single import mean_class_acc
from benchmark.run import checkpoint, target_free
from benchmark.run.examination import Examiner
from benchmark.run.options import BY_BOTH, TARGET_FREE
from benchmark.run.preparation import Prepared
from benchmark.run.seeds import derive
from benchmark.run.target_free import Array

MOST_NEIGHBOURS = 5000  # target images whose cosines SND compares: their number must be the same for all models
MOST_SOURCES = 3000  # images of each side that densities and classifiers are made of, as in SND's copy of DEV
SHARE = 0.55  # of the image that prevails in a mixture (MixVal)
STRENGTH = 1.0  # C of logistic regressions
EPSILON = 1e-12  # least bandwidth


class Judge(Protocol):
    """Scores epochs of one experience.

    Attributes:
        facts: What must be known of the scores; survives a restart.
    """

    facts: dict[str, Any]

    def __call__(self, method: Method) -> float | None:
        """The score of a method, more is better; None: it must not be kept."""
        ...


@dataclass
class Labelled:
    """Accuracy (BLEU where texts are written) on samples.

    Args:
        examiner: Asks the method.
        index: The experience.
        samples: With labels.
    """

    examiner: Examiner
    index: int
    samples: Samples
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, method: Method) -> float:
        """The accuracy, in [0, 1]."""
        return self.examiner.score(method, self.index, self.samples)


class TargetFree:
    """A score of `benchmark.run.target_free`, turned so that more is better.

    Args:
        prepared: The run.
        guard: Stands around the method's functions.
        index: The experience.
    """

    def __init__(self, prepared: Prepared, guard: Guard, index: int) -> None:
        experience = prepared.stream.scenario.experiences[index]
        if experience.target is None:
            raise ValueError("there is no target")
        self.rule = prepared.plan.engine.select
        self._prepared, self._guard = prepared, guard
        self._source, self._held = experience.train, experience.validation
        self._seed = derive(prepared.plan.seeds["data"], "target-free selection", index)
        # Target images come in random order: the first ones are a random part of them.
        most = {"snd": MOST_NEIGHBOURS, **dict.fromkeys(BY_BOTH, MOST_SOURCES)}.get(self.rule)
        self._target = experience.target
        if most is not None and len(self._target) > most:
            self._target = self._target.subset(torch.arange(most))
        self.facts: dict[str, Any] = {"targets": len(self._target)}

    def __call__(self, method: Method) -> float | None:
        """The score; None where nearly all predictions are one class, which most rules take for perfect."""
        state, training = checkpoint.random_state(), method.training
        method.eval()
        try:
            with torch.no_grad():
                logits = self._answers(method, "predict", self._target)
                if target_free.collapsed(logits):
                    return None
                score: float = getattr(self, f"_{self.rule}")(method, logits)
        finally:
            method.train(training)
            checkpoint.set_random_state(state)
        if not math.isfinite(score):
            raise UsageError(
                f"engine.select={self.rule}: its score is {score} here", hint="choose another rule, e.g. entropy"
            )
        return score

    def _answers(self, method: Method, asked: str, samples: Samples) -> Array:
        """Logits or features ``(N, d)``, in float64."""
        rules, found = self._prepared.rules, []
        for first in range(0, len(samples), rules.eval_batch_size):
            inputs = rules.tested(samples, slice(first, first + rules.eval_batch_size))
            found.append(self._asked(method, asked, inputs))
        return torch.cat(found).numpy()

    def _asked(self, method: Method, asked: str, inputs: Any) -> Tensor:
        with self._guard(asked), self._prepared.computing.forward():
            answer: Tensor = getattr(method, asked)(inputs)
        if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != len(inputs):
            raise self._guard.refuse(asked, answer, hint=f"return a tensor of shape ({len(inputs)}, d)")
        return answer.detach().cpu().double()

    def _part(self, samples: Samples) -> Samples:
        """At most `MOST_SOURCES` samples, the same ones for every epoch."""
        if len(samples) <= MOST_SOURCES:
            return samples
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(self._seed))
        return samples.subset(order[:MOST_SOURCES].sort().values)

    def _entropy(self, method: Method, logits: Array) -> float:
        return -target_free.entropy(logits)

    def _snd(self, method: Method, logits: Array) -> float:
        self.facts["temperature"] = 0.05
        return target_free.soft_neighborhood_density(logits, 0.05)

    def _mano(self, method: Method, logits: Array) -> float:
        # Scores of the two ways are not comparable: the first epoch decides for all.
        taylor = bool(self.facts.setdefault("taylor", target_free.mean_loss(logits) <= target_free.TAYLOR))
        return target_free.matrix_norm(logits, taylor=taylor)

    def _mixval(self, method: Method, logits: Array) -> float:
        self.facts["share"] = SHARE
        rules = self._prepared.rules
        order = torch.randperm(len(self._target), generator=torch.Generator().manual_seed(self._seed))
        partners, found = self._target.subset(order), []
        for first in range(0, len(order), rules.eval_batch_size):
            rows = slice(first, first + rules.eval_batch_size)
            one, other = (rules.tested(samples, rows) for samples in (self._target, partners))
            if not isinstance(one, Tensor) or not isinstance(other, Tensor):
                raise UsageError("engine.select=mixval mixes images, and the scenario holds texts", hint="use snd")
            found.append(self._asked(method, "predict", SHARE * one + (1 - SHARE) * other).argmax(dim=1))
        scores = target_free.mixing_consistency(logits.argmax(axis=1), order.numpy(), torch.cat(found).numpy())
        return float(np.nanmean(scores))

    def _features(self, method: Method) -> tuple[Array, Array]:
        """Of source images that are trained, and of the target."""
        return self._answers(method, "embed", self._part(self._source)), self._answers(method, "embed", self._target)

    def _wrong(self, method: Method) -> tuple[Array, Samples]:
        """Which held-out source images are predicted wrongly, 1 or 0, and the images."""
        held = self._held
        if held is None:
            raise UsageError(f"engine.select={self.rule}: there are no held-out source images", hint="use entropy")
        right = self._answers(method, "predict", held).argmax(axis=1) == held.labels.numpy()
        return 1.0 - right, held

    def _weighed(self, weights: target_free.Weights, sources: int, held: int) -> target_free.Weights:
        """Notes how many images decide."""
        least = min(weights.effective, self.facts.get("effective_held_out", math.inf))
        self.facts |= {"sources": sources, "held_out": held, "effective_held_out": least}
        return weights

    def _iwv(self, method: Method, logits: Array) -> float:
        source, target = self._features(method)
        errors, held = self._wrong(method)
        features = self._answers(method, "embed", held)
        rows = torch.from_numpy(source[:500])
        bandwidth = max(float(torch.pdist(rows).median()), EPSILON)  # of one, neighbours are far in many dimensions
        weights = target_free.density_weights(target, source, features, bandwidth)
        return -target_free.importance_weighted(errors, self._weighed(weights, len(source), len(held)))

    def _dev(self, method: Method, logits: Array) -> float:
        source, target = self._features(method)
        errors, held = self._wrong(method)
        features = self._answers(method, "embed", held)
        told = fit_logistic(
            torch.from_numpy(np.concatenate([source, target])),
            torch.tensor([1] * len(source) + [0] * len(target)),
            (0, 1),
            strength=STRENGTH,
        )
        shares = (torch.from_numpy(features) @ told.weight.T + told.bias).softmax(dim=1)[:, 0]
        weights = target_free.classifier_weights(shares.numpy(), len(source), len(target))
        return -target_free.deep_embedded_risk(errors, self._weighed(weights, len(source), len(held)))

    def _circular(self, method: Method, logits: Array) -> float:
        part = self._part(self._source)
        self.facts["sources"] = len(part)
        source, target = self._features(method)
        labels = torch.from_numpy(logits.argmax(axis=1))
        classes = sorted(set(labels.tolist()))
        back = fit_logistic(torch.from_numpy(target), labels, classes, strength=STRENGTH)
        found = (torch.from_numpy(source) @ back.weight.T + back.bias).argmax(dim=1)
        return mean_class_acc(part.labels.numpy(), np.array(classes)[found.numpy()])


def judge_of(prepared: Prepared, examiner: Examiner, guard: Guard, index: int) -> Judge | None:
    """What the epochs of an experience are compared on; None: the last one is taken."""
    rule = prepared.plan.engine.select
    if rule in TARGET_FREE:
        return TargetFree(prepared, guard, index)
    experience = prepared.stream.scenario.experiences[index]
    samples = {"source-validation": experience.validation, "target-oracle": experience.test}.get(rule)
    return None if samples is None else Labelled(examiner, index, samples)
