"""Tables at equal cost, and Pareto fronts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import records
from benchmark.cli import equal_cost, main
from benchmark.errors import EXIT_OK, EXIT_USAGE
from benchmark.leaderboard import budgets

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))


def record(method: str, score: float, weights: int | None, **more: Any) -> records.Record:
    made = copy.deepcopy(TEMPLATE)
    made["method"] |= {"name": method, "control": False}
    made["metrics"] |= {"final_avg_acc": score}
    made["cost"]["params_trainable"] = weights
    made["config"]["effective"]["method"] |= more
    made["run_id"] = f"{abs(hash((method, score, weights))) % 16**16:016x}"
    return records.parse(made)


def test_costs_are_those_of_the_record() -> None:
    run = record("m", 0.5, 10, batch_size=4)
    passes = sum(len(losses) * part.train for losses, part in zip(run.losses, run.scenario.experiences, strict=True))
    steps = sum(
        len(losses) * -(-part.train // 4) for losses, part in zip(run.losses, run.scenario.experiences, strict=True)
    )
    assert budgets.cost_of(run, "params_trainable") == 10
    assert budgets.cost_of(run, "passes") == passes > 0
    assert run.cost is not None
    assert budgets.cost_of(run, "training_flops") == steps * (run.cost.flops_train_step or 0)
    assert budgets.cost_of(run, "storage_bytes") == run.cost.storage_bytes[-1]
    assert budgets.cost_of(run, "train_seconds") == sum(run.timing.train_seconds)
    assert tuple(budgets.COSTS) == equal_cost.COSTS


points = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=12)


@given(points)
def test_a_front_dominates_and_is_not_dominated(pairs: list[tuple[float, float]]) -> None:
    front = [pairs[place] for place in budgets.front(pairs)]
    assert front == sorted(front)
    for cost, score in pairs:
        assert any(one <= cost and other >= score for one, other in front)
    for cost, score in front:
        assert not any(one <= cost and other >= score and (one, other) != (cost, score) for one, other in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = [record("small", 0.5, 10), record("odd", 0.4, 50), record("large", 0.9, 1000), record("dark", 0.95, None)]
    for run in found:
        records.write(tmp_path / f"{run.run_id}.json", run)
    return tmp_path


def test_a_budget_leaves_out_what_costs_more_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--results", str(folder), "--budget", "params_trainable=100"]) == EXIT_OK
    out = " ".join(capsys.readouterr().out.split())
    assert "small" in out
    assert "large" not in out
    assert "Budget: trainable parameters at most 100; 2 runs that cost more, or whose cost is not known, are" in out
    assert main(["leaderboard", "--results", str(folder), "--pareto", "params_trainable"]) == EXIT_OK
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "Pareto front of score against trainable parameters, the cheapest first: small (lr=0.01); large (lr=0.01)."
        in out
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("params_trained=1", "did you mean `params_trainable`"),
        ("params_trainable=few", "not a number"),
        ("params_trainable=1", "none of 4 runs costs so little"),
        ("params_trainable", "--budget"),
    ],
)
def test_wrong_budgets(budget: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--results", str(folder), "--budget", budget]) == EXIT_USAGE
    assert message in capsys.readouterr().err
