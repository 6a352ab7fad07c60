"""Streams whose class names are known from the start: every test set is predicted after every experience."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark import metrics, records, registry
from benchmark.cli import summary
from benchmark.errors import UsageError
from benchmark.families import FAMILIES, Family
from benchmark.leaderboard import leaderboard
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.run import engine, preparation, streams
from benchmark.testing.laboratory import manager
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import TOY_METHOD, ToyMethod, prepare_toy, toy_scenario

OWN, ALL = FAMILIES["named-task-il"], FAMILIES["named-class-il"]
GOLDEN = Path(__file__).parents[1] / "golden" / "newer_clip" / "clip_continual_metrics"

# --- Metrics ----------------------------------------------------------------------------------

# Transfer of set 1: .3, of set 2: (.1 + .2) / 2; in all (.3 + .15) / 2, whereas the mean of the three cells is .2.
R = [[0.9, 0.3, 0.1], [0.8, 0.7, 0.2], [0.7, 0.5, 0.6]]


def test_scores_are_those_counted_by_hand() -> None:
    for family in (OWN, ALL):
        found = metrics.continual_metrics(R, [1, 2, 3], family=family)
        assert found["unseen_acc"] == pytest.approx(0.225)
        assert found["unseen_accs"] == [None, pytest.approx(0.3), pytest.approx(0.15)]
        assert found["whole_acc"] == pytest.approx(4.8 / 9)
        assert found["whole_accs"] == pytest.approx([0.8, 0.5, 0.3])
        assert found["final_avg_acc"] == pytest.approx(0.6)
        assert found["final_accs"] == [0.7, 0.5, 0.6]
        assert found["fwt"] is None
    assert metrics.fwt_upper(np.array(R)) == pytest.approx(0.2)
    assert "unseen_acc" not in metrics.continual_metrics(R, [1, 2, 3], family=FAMILIES["class-il"])


@pytest.mark.parametrize("name", ["mtil_order1", "mtil_order2"])
def test_scores_are_those_recorded_from_the_official_code(name: str) -> None:
    case = Recorded(GOLDEN, name, torch.float64)
    matrix, rail = (case.arrays[key] / 100 for key in ("f64.matrix", "input.rail_matrix"))
    found = {
        "transfer": metrics.unseen_accs(matrix)[1:],
        "transfer_mean": metrics.unseen_acc(matrix),
        "avg": metrics.whole_accs(matrix),
        "avg_mean": metrics.whole_acc(matrix),
        "last": matrix[-1],
        "last_mean": metrics.final_avg_acc(matrix),
        "rail_transfer": metrics.unseen_acc(rail),
        "rail_avg": metrics.whole_acc(rail),
        "rail_last": metrics.final_avg_acc(rail),
    }
    assert {*found, "matrix"} == set(case.computed(""))
    for key, value in found.items():
        assert value is not None
        case.compare(key, 100 * torch.tensor(value, dtype=torch.float64))


def test_what_was_not_evaluated_is_not_skipped() -> None:
    holed = [[0.9, None, 0.1], *R[1:]]
    found = metrics.continual_metrics(holed, [1, 2, 3], family=OWN)
    assert (found["unseen_acc"], found["whole_acc"]) == (None, None)
    assert found["unseen_accs"] == [None, None, pytest.approx(0.15)]
    for shape in ([[0.5, 0.75]], [[0.5], [0.75]]):  # trained at once; one test set for all
        found = metrics.continual_metrics(shape, [2] * len(shape[0]), family=OWN)
        assert (found["unseen_acc"], found["whole_acc"]) == (None, None)
        assert len(found["unseen_accs"]) == len(found["final_accs"]) == len(shape[0])
    found = metrics.continual_metrics([[0.5]], [2], family=OWN)
    assert (found["unseen_acc"], found["whole_acc"]) == (None, 0.5)


def test_a_family_without_growing_classes_has_no_names_to_come() -> None:
    with pytest.raises(ValueError, match="names: only a stream whose classes grow"):
        Family(name="mine", summary="", stream=True, names="own")
    with pytest.raises(ValueError, match="names: 'most' is unknown"):
        Family(name="mine", summary="", stream=True, grows=True, names="most")  # type: ignore[arg-type]


def test_every_built_in_family_can_be_named_by_a_scenario() -> None:
    assert set(FAMILIES) <= set(registry.names("families"))


# --- Runs -------------------------------------------------------------------------------------

USES = frozenset({*TOY_METHOD.uses_of(None), "open_vocabulary"})
asked: list[tuple[str, ...]] = []


class Named(ToyMethod):
    """Knows the classes seen by the number in their name, and likes the others the less the larger it is."""

    def predict_named(self, inputs: Any, names: Sequence[str], /) -> Tensor:
        asked.append(tuple(names))
        scores = self.predict(inputs)
        labels = [int(name.rpartition(" ")[2]) for name in names]
        columns = [
            scores[:, label] if label < scores.shape[1] else torch.full((len(scores),), -1000.0 - label)
            for label in labels
        ]
        return torch.stack(columns, dim=1)


def run(out: Path, family: str, **options: Any) -> tuple[records.Record, Predictions]:
    prepared = prepare_toy(experiences=3, family=family, build=Named, uses=USES, **options)
    path = engine.execute(prepared, out, hooks=manager([]), quiet=True)
    return records.read(path), predictions.read(path.with_suffix(".parquet"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[records.Record, Predictions]]:
    found = {}
    for family in (OWN.name, ALL.name):
        asked.clear()
        found[family] = run(tmp_path_factory.mktemp(family), family)
        every = tuple(f"thing {label}" for label in range(6))
        told = {every[:2], every[2:4], every[4:]} if family == OWN.name else {every}
        assert set(asked) == told
    return found


def test_the_matrix_is_full_and_answers_stay_among_the_names(
    known: dict[str, tuple[records.Record, Predictions]],
) -> None:
    for record, found in known.values():
        assert all(value is not None for row in record.accuracy for value in row)
        assert record.baseline is None
        assert record.number("unseen_acc") is not None
        assert record.number("whole_acc") == pytest.approx(np.mean(record.accuracy))
        assert len(record.numbers("final_accs")) == 3
        for index, part in enumerate(record.scenario.experiences):
            here = found.on([index])
            within = here.prediction if record.scenario.family == OWN.name else here.prediction_in_task
            assert within is not None
            assert set(within) <= set(part.classes)
    (_, own), (whole, among_all) = known.values()
    assert own.prediction_in_task is None
    early = among_all.after(0)
    assert set(early.prediction) <= {0, 1}  # all that the toy has seen, though all six have a name
    assert whole.accuracy[0][1] == whole.accuracy[0][2] == 0
    assert early.prediction_in_task is not None
    assert set(early.prediction_in_task[early.test_set == 2]) == {4}


def test_training_knows_nothing_of_the_names(
    known: dict[str, tuple[records.Record, Predictions]], tmp_path: Path
) -> None:
    losses = [record.losses for record, _ in known.values()]
    assert losses[0] == losses[1]
    plain = engine.execute(prepare_toy(experiences=3), tmp_path, hooks=manager([]), quiet=True)
    assert records.read(plain).losses == losses[0]


def test_tables_show_average_transfer_and_last(known: dict[str, tuple[records.Record, Predictions]]) -> None:
    for record, _ in known.values():
        assert "transfer to sets to come" in summary.render(record, Path("record.json"), colour=False)
        (table,) = leaderboard([record])
        titles = [column.title for column in table.columns]
        assert titles.index("Avg (%)") == 1
        assert {"Transfer (%)", "Last (%)"} <= set(titles)
        assert ("Last, task known (%)" in titles) == (record.scenario.family == ALL.name)


def test_a_method_that_knows_no_names_is_refused() -> None:
    for family in (OWN.name, ALL.name):
        scenario = toy_scenario(family=family)
        assert "known by name only" in (preparation.refusal(TOY_METHOD, TOY_METHOD.uses_of(None), scenario) or "")
        assert preparation.refusal(TOY_METHOD, USES, scenario) is None


def test_selection_and_validation_are_among_the_same_names(tmp_path: Path) -> None:
    asked.clear()
    record, _ = run(tmp_path, OWN.name, settings={"engine.select": "source-validation"}, validate=2, train=20)
    assert set(asked) == {("thing 0", "thing 1"), ("thing 2", "thing 3")}
    assert record.number("unseen_acc") is not None


def test_names_leave_nothing_to_tell() -> None:
    with pytest.raises(UsageError, match="says among which names a sample is classified"):
        streams.with_task_known(toy_scenario(family=OWN.name))
    merged = streams.joint(toy_scenario(family=OWN.name, experiences=3))
    assert merged.vocabularies == {0: (0, 1), 1: (2, 3), 2: (4, 5)}
    short = dataclasses.replace(merged, scenario=dataclasses.replace(merged.scenario, family=ALL.name))
    assert short.vocabularies[2] == tuple(range(6))
