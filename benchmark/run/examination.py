"""What a method is examined on after an experience, after an epoch, and before its first batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from benchmark import families, metrics
from benchmark.api import Method, Samples
from benchmark.guard import Guard
from benchmark.inputs.pipeline import Inputs
from benchmark.records import predictions
from benchmark.run import checkpoint, evaluation, memory
from benchmark.run.keeper import Keeper
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress
from benchmark.run.streams import Task
from benchmark.run.unknown import Unknown


class Examiner:
    """Predictions and accuracies of one run's method; random state is left as found.

    Args:
        prepared: The run.
        guard: Stands around the method's functions.
        keeper: Knows features of frozen networks; default: nobody does.
    """

    def __init__(self, prepared: Prepared, guard: Guard, keeper: Keeper | None = None) -> None:
        self._prepared = prepared
        self._stream = prepared.stream
        self._guard = guard
        self._keeper = keeper
        self._family = families.get(prepared.stream.scenario.family)

    def after(
        self, method: Method, index: int, sets: Sequence[int] | None = None, *, known: bool = True
    ) -> predictions.Predictions:
        """Predictions on all test sets that may be shown after an experience.

        Args:
            method: After it.
            index: The experience.
            sets: Some of them, by their positions; None: all.
            known: Whether features of frozen networks that the run knows are of use.
        """
        tests = [
            (place, self._stream.tests[place]) for place in (self._stream.tests_seen[index] if sets is None else sets)
        ]
        vocabularies = {place: self._vocabulary(labels) for place, labels in self._stream.vocabularies.items()}
        tasks = {place: task for place, task in self._stream.tasks.items() if place in self._stream.tests_seen[index]}
        again = index + 1 < len(self._stream.scenario.experiences)
        return self._predict(method, index, tests, vocabularies, tasks, self._stream.unknown, again=again, known=known)

    def row(self, found: predictions.Predictions, index: int) -> list[float | None]:
        """The row of the accuracy matrix after an experience (`benchmark.metrics.score_matrix`)."""
        matrix, _ = metrics.score_matrix(found, self._family, index + 1, len(self._stream.tests))
        return list(metrics.null(matrix[index]))

    def score(self, method: Method, index: int, held: Samples) -> float:
        """Accuracy, or BLEU, on samples for selection."""
        task = Task(index, self._stream.scenario.experiences[index].classes)
        named = self._stream.named(task.classes)
        vocabularies = {0: self._vocabulary(named)} if named else {}
        tasks = {0: task} if self._prepared.rules.task_known else {}
        found = self._predict(method, index, [(0, held)], vocabularies, tasks)
        if self._family.generates:
            return float(metrics.score_matrix(found, self._family, index + 1, 1)[0][index, 0])
        return float((found.prediction == found.label).mean())

    def baseline(self, method: Method) -> list[float] | None:
        """Accuracy of the untrained model per test set, where forward transfer means something."""
        family = self._family
        if family.grows or family.generates or len(self._stream.scenario.experiences) == 1:
            return None  # before its first batch, a model that writes has not been told what to write
        if self._stream.joint:  # what comes next has no test set of its own
            return None
        with self._guard("predict"), torch.no_grad(), self._prepared.computing.forward():
            columns = method.eval().predict(self.one()).shape[1]
            method.train()
        if columns == 0:  # it does not know a single class before its first batch: there is no baseline
            return None
        found = self.after(method, 0)
        return [float(value) for value in metrics.accuracy_matrix(found, 1, len(self._stream.tests))[0][0]]

    def one(self) -> Inputs:
        """One test sample as the method reads it."""
        return self._prepared.rules.tested(self._stream.tests[0], slice(0, 1))

    def count_shortened(self, method: Method, index: int, done: Progress) -> None:
        """Asks how many samples of an experience, and of its test sets, are read in part only; each set once.

        Args:
            method: After the experience. Nothing is read for one that leaves the question to its base class.
            index: The experience.
            done: Is told.
        """
        if type(method).shortened is Method.shortened:
            return
        train = self._stream.scenario.experiences[index].train
        done.shortened_train.append(self._shortened(method, train))
        for place in self._stream.tests_seen[index]:
            if str(place) not in done.shortened_test:
                done.shortened_test[str(place)] = self._shortened(method, self._stream.tests[place])

    def _shortened(self, method: Method, samples: Samples) -> int:
        state, rules, total = checkpoint.random_state(), self._prepared.rules, 0
        method.eval()
        for first in range(0, len(samples), rules.eval_batch_size):
            inputs = rules.tested(samples, slice(first, first + rules.eval_batch_size))
            with self._guard("shortened"), torch.no_grad():
                found = method.shortened(inputs)
            if type(found) is not int or not 0 <= found <= len(inputs):
                raise self._guard.refuse("shortened", found, hint=f"return how many of the {len(inputs)} inputs are")
            total += found
        checkpoint.set_random_state(state)
        return total

    def _vocabulary(self, labels: tuple[int, ...]) -> evaluation.Vocabulary:
        names = self._stream.scenario.class_names
        return evaluation.Vocabulary(labels, tuple(names[label] for label in labels))

    def _predict(
        self,
        method: Method,
        index: int,
        tests: Sequence[tuple[int, Samples]],
        vocabularies: Mapping[int, evaluation.Vocabulary],
        tasks: Mapping[int, Task],
        strange: Unknown | None = None,
        *,
        again: bool = True,
        known: bool = True,
    ) -> predictions.Predictions:
        state, rules = checkpoint.random_state(), self._prepared.rules
        before = memory.room(rules.device)
        try:
            return evaluation.evaluate(
                method,
                tests,
                rules,
                experience=index,
                seen=len(self._stream.scenario.seen_classes(index)),
                vocabularies=vocabularies,
                tasks=tasks,
                strange=strange,
                guard=self._guard,
                keeper=self._keeper if known else None,
                again=again,
            )
        except Exception as error:
            if not memory.memory_is_full(error):
                raise
            raise memory.explained(
                error,
                label=self._prepared.label,
                doing="a prediction",
                rows=rules.eval_batch_size,
                option="engine.eval_batch_size",
                before=before,
                kept="what is finished is kept",
            ) from error
        finally:
            checkpoint.set_random_state(state)
