"""Task-incremental scores: the best label among the classes of the experience that a test sample belongs to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from benchmark import metrics, records
from benchmark.errors import PluginError, UsageError
from benchmark.families import FAMILIES
from benchmark.leaderboard import leaderboard
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.run import engine
from benchmark.testing import subjects
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import TOY_METHOD, ToyMethod, prepare_toy

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


# --- Runs -------------------------------------------------------------------------------------

KNOWN = {"engine.task_known": "true"}
TOLD = frozenset({*TOY_METHOD.uses_of(None), "task_id"})


def run(out: Path, **options: Any) -> tuple[records.Record, Predictions]:
    prepared = prepare_toy(experiences=3, **options)
    path = engine.execute(prepared, out, hooks=manager([]), quiet=True)
    return records.read(path), predictions.read(path.with_suffix(".parquet"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[records.Record, Predictions]:
    return run(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[records.Record, Predictions]:
    return run(tmp_path_factory.mktemp("known"), settings=KNOWN)


def test_one_run_gives_both_scores(
    plain: tuple[records.Record, Predictions], known: tuple[records.Record, Predictions]
) -> None:
    """Training is the same, so what a task-incremental run is scored by stands in the class-incremental one too."""
    record, found = plain
    told, masked = known
    assert record.scenario.family == "class-il"
    assert told.scenario.family == "task-il"
    assert found.prediction_in_task is not None
    assert masked.prediction_in_task is None
    assert found.prediction_in_task.tolist() == masked.prediction.tolist()
    for name in ("final_avg_acc", "final_acc", "avg_incremental_acc", "forgetting", "learning_acc"):
        assert record.number(f"task_{name}") == told.number(name)
    assert record.number("task_final_avg_acc") >= record.number("final_avg_acc")
    assert not [name for name in told.metrics or {} if name.startswith("task_")]


def test_every_label_within_the_task_is_one_of_its_classes(known: tuple[records.Record, Predictions]) -> None:
    record, found = known
    for index, part in enumerate(record.scenario.experiences):
        assert set(found.prediction[found.test_set == index]) <= set(part.classes)
        assert set(found.top5[found.test_set == index].ravel()) <= {*part.classes, -1}


def test_tables_keep_both_apart_and_show_the_second_score(
    plain: tuple[records.Record, Predictions], known: tuple[records.Record, Predictions]
) -> None:
    first, second = leaderboard([plain[0], known[0]])
    if "task-il" in first.title:
        first, second = second, first
    assert "task-il" in second.title
    assert "task_final_avg_acc" in [column.key for column in first.columns]
    assert "task_final_avg_acc" not in [column.key for column in second.columns]


class Asked(ToyMethod):
    """Answers the first class of the task that it is told, for ever."""

    def predict_task(self, inputs: Any, task: int, /) -> Tensor:
        scores = self.predict(inputs)
        scores[:] = 0
        scores[:, 2 * task] = 1
        return scores


class Mute(ToyMethod):
    def predict_task(self, inputs: Any, task: int, /) -> Tensor:
        scores = self.predict(inputs)
        if scores.shape[1] > 2:
            scores[:, 2 * task : 2 * task + 2] = -float("inf")
        return scores


def test_a_method_that_asks_is_told_the_task_of_each_test_set(tmp_path: Path) -> None:
    _, found = run(tmp_path, build=Asked, uses=TOLD, settings=KNOWN)
    assert (found.prediction == 2 * found.test_set).all()


def test_nobody_is_told_the_task_in_a_class_incremental_run_or_without_asking(tmp_path: Path) -> None:
    for options in ({"uses": TOLD}, {"settings": KNOWN}):
        _, found = run(tmp_path, build=Asked, **options)
        assert not (found.prediction == 2 * found.test_set).all()


def test_a_method_that_rules_out_the_whole_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="rule out every class of a sample's experience"):
        run(tmp_path, build=Mute, uses=TOLD, settings=KNOWN)


def test_a_joint_run_has_the_score_of_every_experience(tmp_path: Path) -> None:
    record, found = run(tmp_path, stream="joint")
    assert found.prediction_in_task is not None
    for index in range(3):
        assert set(found.prediction_in_task[found.test_set == index]) <= {2 * index, 2 * index + 1}
    assert record.number("task_final_avg_acc") is not None


def test_where_all_experiences_have_the_same_classes_there_is_nothing_to_know() -> None:
    with pytest.raises(UsageError, match="every experience of `toy` has the same classes"):
        prepare_toy(family="domain-il", settings=KNOWN)


def test_the_contract_runs_a_method_that_asks_for_the_task_on_a_task_incremental_stream() -> None:
    asking = subjects.method_subject(dataclasses.replace(TOY_METHOD, uses=TOLD))
    assert "task-il" in asking.families
    assert asking.run(asking.scenario(family="task-il")).record["scenario"]["family"] == "task-il"
    assert "task-il" not in subjects.method_subject(TOY_METHOD).families
