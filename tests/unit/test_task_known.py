"""Task-incremental scores: the best label among the classes of the experience that a test sample belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark import metrics
from benchmark.families import FAMILIES
from benchmark.records import predictions
from benchmark.records.predictions import Predictions

# Two experiences with classes 0, 1 and 2, 3; two test images of each class; R = [[.75, -], [.25, .5]] and
# R_task = [[.75, -], [.5, 1]], counted by hand.
LABELS = [0, 0, 1, 1]
AFTER_FIRST = ([0, 0, 1, 0], [0, 0, 1, 0])
AFTER_BOTH = ([0, 2, 3, 3], [0, 1, 0, 1]), ([2, 0, 1, 3], [2, 2, 3, 3])


def rows(experience: int, test_set: int, labels: list[int], found: list[int], in_task: list[int] | None) -> Predictions:
    count = len(labels)
    return Predictions(
        experience=np.full(count, experience, np.int32),
        test_set=np.full(count, test_set, np.int32),
        sample_id=np.arange(count, dtype=np.int64),
        label=np.array(labels, np.int32),
        prediction=np.array(found, np.int32),
        top5=np.array(found, np.int32)[:, None],
        confidence=np.ones(count, np.float32),
        prediction_in_task=None if in_task is None else np.array(in_task, np.int32),
    )


def example() -> Predictions:
    second = [label + 2 for label in LABELS]
    return predictions.concat(
        [
            rows(0, 0, LABELS, *AFTER_FIRST),
            rows(1, 0, LABELS, *AFTER_BOTH[0]),
            rows(1, 1, second, *AFTER_BOTH[1]),
        ]
    )


def test_scores_within_the_task_are_those_counted_by_hand() -> None:
    found = example()
    matrix, counts = metrics.accuracy_matrix(found)
    values = metrics.continual_metrics(matrix, counts, family=FAMILIES["class-il"], predictions=found)
    assert values["final_avg_acc"] == pytest.approx((0.25 + 0.5) / 2)
    assert values["task_avg_acc"] == pytest.approx([0.75, 0.75])
    assert values["task_final_avg_acc"] == pytest.approx((0.5 + 1) / 2)
    assert values["task_final_acc"] == pytest.approx(6 / 8)
    assert values["task_avg_incremental_acc"] == pytest.approx((0.75 + 0.75) / 2)
    assert values["task_forgetting"] == pytest.approx(0.75 - 0.5)
    assert values["task_learning_acc"] == pytest.approx((0.75 + 1) / 2)


def test_further_test_sets_belong_to_no_task() -> None:
    extra = rows(1, 2, [0], [1], [-1])
    found = predictions.concat([example(), rows(0, 2, [0], [1], [-1]), extra])
    values = metrics.task_metrics(found, 2, range(2))
    assert {name: metrics.null(value) for name, value in values.items()} == {
        name: metrics.null(value) for name, value in metrics.task_metrics(example(), 2, range(2)).items()
    }


def test_without_labels_within_the_task_there_are_no_such_scores() -> None:
    found = rows(0, 0, LABELS, LABELS, None)
    matrix, counts = metrics.accuracy_matrix(found)
    values = metrics.continual_metrics(matrix, counts, family=FAMILIES["domain-il"], predictions=found)
    assert not [name for name in values if name.startswith("task_")]
    with pytest.raises(ValueError, match="no score within the task"):
        metrics.task_metrics(found, 1, [0])
    with pytest.raises(ValueError, match="within the experience and some do not"):
        predictions.concat([found, rows(1, 0, LABELS, LABELS, LABELS)])


def test_labels_within_the_task_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    predictions.write(path, example())
    back = predictions.read(path)
    assert back.prediction_in_task is not None
    assert back.prediction_in_task.tolist() == [*AFTER_FIRST[1], *AFTER_BOTH[0][1], *AFTER_BOTH[1][1]]
    assert back.prediction_in_task.dtype == np.int32
