"""What a method is examined on after an experience, after an epoch, and before its first batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from benchmark import families, metrics
from benchmark.api import Method, Samples
from benchmark.guard import Guard
from benchmark.inputs.pipeline import Inputs
from benchmark.records import predictions
from benchmark.run import checkpoint, evaluation
from benchmark.run.preparation import Prepared
from benchmark.run.streams import Task


class Examiner:
    """Predictions and accuracies of one run's method; random state is left as found.

    Args:
        prepared: The run.
        guard: Stands around the method's functions.
    """

    def __init__(self, prepared: Prepared, guard: Guard) -> None:
        self._prepared = prepared
        self._stream = prepared.stream
        self._guard = guard

    def after(self, method: Method, index: int) -> predictions.Predictions:
        """Predictions on all test sets that may be shown after an experience."""
        tests = [(place, self._stream.tests[place]) for place in self._stream.tests_seen[index]]
        names = self._stream.scenario.class_names
        vocabularies = {
            place: evaluation.Vocabulary(labels, tuple(names[label] for label in labels))
            for place, labels in self._stream.vocabularies.items()
        }
        tasks = {place: task for place, task in self._stream.tasks.items() if place in self._stream.tests_seen[index]}
        return self._predict(method, index, tests, vocabularies, tasks)

    def row(self, found: predictions.Predictions, index: int) -> list[float | None]:
        """The row of the accuracy matrix after an experience."""
        matrix, _ = metrics.accuracy_matrix(found, index + 1, len(self._stream.tests))
        return list(metrics.null(matrix[index]))

    def score(self, method: Method, index: int, held: Samples) -> float:
        """Accuracy on samples for selection."""
        task = Task(index, self._stream.scenario.experiences[index].classes)
        found = self._predict(method, index, [(0, held)], {}, {0: task} if self._prepared.rules.task_known else {})
        return float((found.prediction == found.label).mean())

    def baseline(self, method: Method) -> list[float] | None:
        """Accuracy of the untrained model per test set, where forward transfer means something."""
        if families.get(self._stream.scenario.family).grows or len(self._stream.scenario.experiences) == 1:
            return None
        with self._guard("predict"), torch.no_grad():
            columns = method.eval().predict(self.one()).shape[1]
            method.train()
        if columns == 0:  # it does not know a single class before its first batch: there is no baseline
            return None
        found = self.after(method, 0)
        return [float(value) for value in metrics.accuracy_matrix(found, 1, len(self._stream.tests))[0][0]]

    def one(self) -> Inputs:
        """One test sample as the method reads it."""
        return self._prepared.rules.tested(self._stream.tests[0], slice(0, 1))

    def _predict(
        self,
        method: Method,
        index: int,
        tests: Sequence[tuple[int, Samples]],
        vocabularies: Mapping[int, evaluation.Vocabulary],
        tasks: Mapping[int, Task],
    ) -> predictions.Predictions:
        state = checkpoint.random_state()
        try:
            return evaluation.evaluate(
                method,
                tests,
                self._prepared.rules,
                experience=index,
                seen=len(self._stream.scenario.seen_classes(index)),
                vocabularies=vocabularies,
                tasks=tasks,
                guard=self._guard,
            )
        finally:
            checkpoint.set_random_state(state)
