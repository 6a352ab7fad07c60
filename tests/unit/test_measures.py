"""Metrics that plugins bring: in the record, in tables, and computed again."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import records
from benchmark.errors import PluginError
from benchmark.families import FAMILIES
from benchmark.leaderboard import leaderboard
from benchmark.run import engine, measures
from benchmark.specs import MetricSpec
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import prepare_toy

MEDIAN = MetricSpec(
    name="median_acc",
    heading="Median (%)",
    summary="median over test sets",
    compute=lambda accuracy: np.median(accuracy[-1]),
)
R = np.array([[0.5, np.nan, 0.1], [0.25, 0.75, 0.2]])


def known(**changes: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "further": ["other"],
        "family": FAMILIES["class-il"],
        "baseline": None,
        "predictions": None,
    }
    return measures.evidence(R, [4, 4, 9], **(about | changes))


def test_a_metric_is_given_what_it_names_of_the_test_sets_of_experiences() -> None:
    seen: dict[str, Any] = {}

    def compute(**given: Any) -> float:
        seen.update(given)
        return 1.0

    needs = ("accuracy", "counts", "further", "family", "baseline")
    spec = dataclasses.replace(MEDIAN, compute=compute, needs=needs)
    values, facts = measures.measure([spec, MEDIAN], known(baseline=[0.1, 0.2, 0.3]), {})
    assert facts["median_acc"] == {"heading": "Median (%)", "percent": True}
    assert seen["accuracy"].shape == (2, 2)
    assert seen["counts"].tolist() == [4, 4]
    assert seen["further"] == {"other": 0.2}
    assert seen["family"].grows
    assert seen["baseline"].tolist() == [0.1, 0.2]
    assert values == {"median_acc": 0.5}


@pytest.mark.parametrize("found", [None, float("nan")])
def test_what_is_not_defined_is_null(found: float | None) -> None:
    values, _ = measures.measure([dataclasses.replace(MEDIAN, compute=lambda accuracy: found)], known(), {})
    assert values == {"median_acc": None}


def test_a_run_without_what_a_metric_needs_has_none_of_it() -> None:
    spec = dataclasses.replace(MEDIAN, compute=lambda baseline: 1.0, needs=("baseline",))
    assert measures.measure([spec], known(), {})[0] == {"median_acc": None}


@pytest.mark.parametrize(
    "found", ["text", [0.5], float("inf"), 1e200, object()], ids=["text", "list", "infinite", "huge", "object"]
)
def test_what_is_no_number_names_the_metric(found: Any) -> None:
    with pytest.raises(PluginError, match="metric `median_acc`: `compute`"):
        measures.measure([dataclasses.replace(MEDIAN, compute=lambda accuracy: found)], known(), {})


def test_a_metric_takes_no_name_of_ours_and_its_errors_are_its_own() -> None:
    with pytest.raises(PluginError, match="`median_acc`: another one has this name"):
        measures.measure([MEDIAN], known(), {"median_acc": 1.0})
    with pytest.raises(PluginError, match="metric `median_acc`: `compute` failed: ZeroDivisionError"):
        measures.measure([dataclasses.replace(MEDIAN, compute=lambda accuracy: 1 / 0)], known(), {})


def test_it_is_in_the_record_of_a_run_and_a_column_of_its_table(tmp_path: Path) -> None:
    prepared = dataclasses.replace(prepare_toy(), metrics=(MEDIAN,))
    path = engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    record = records.read(path)
    assert record.number("median_acc") == pytest.approx(np.median(record.accuracy[-1]))
    (table,) = leaderboard([record])
    place = [column.title for column in table.columns].index("Median (%)")
    assert table.rows[0].cells[place].value == record.number("median_acc")


def test_a_number_that_is_no_fraction_is_shown_as_it_is() -> None:
    template = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v4.json"))
    found = []
    for seed, value in enumerate((1234.5, 1236.5)):
        record = copy.deepcopy(template)
        record["metrics"]["steps"] = value
        record["metric_facts"] = {"steps": {"heading": "Steps", "percent": False}}
        record["seeds"] = dict.fromkeys(record["seeds"], seed)
        record["run_id"] = f"{seed:016x}"
        found.append(records.parse(json.loads(json.dumps(record))))
    (table,) = leaderboard(found)
    place = [column.title for column in table.columns].index("Steps")
    assert table.rows[0].cells[place].text == "1236 ± 1.4"
