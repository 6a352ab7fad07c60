"""`bench compare` and the critical difference diagram, on records that the test makes."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE
from benchmark.leaderboard import comparison, scores
from benchmark.leaderboard.compared import points
from benchmark.records import predictions

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))
TEMPLATE["config"]["track"] = {
    group: dict(values) for group, values in TEMPLATE["config"]["effective"].items() if group != "derived"
}
SAMPLES = 40  # of each of the two test sets


def record(
    method: str, seed: int, value: float, scenario: str = "split-glyphs/10x10", **options: Any
) -> dict[str, Any]:
    made = copy.deepcopy(TEMPLATE)
    made["method"] |= {"name": method, "control": False}
    made["seeds"] = dict.fromkeys(made["seeds"], seed)
    made["metrics"] |= {"final_avg_acc": value, "final_acc": value}
    made["scenario"]["name"] = scenario
    made["config"]["effective"]["method"] |= options
    made["predictions"] = None
    identity = json.dumps([method, seed, value, scenario, options])
    made["run_id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return made


def predict(path: Path, made: dict[str, Any], right: list[int]) -> None:
    """A predictions file in which so many samples of each test set are right, the first ones."""
    parts = []
    last = len(made["accuracy"]) - 1
    for place, number in enumerate(right):
        label = np.full(SAMPLES, place)
        correct = np.arange(SAMPLES) < number
        parts.append(
            predictions.table(
                last,
                test_set=np.full(SAMPLES, place),
                sample_id=np.arange(SAMPLES) + 1000 * place,
                label=label,
                prediction=np.where(correct, label, label + 1),
                top5=np.zeros((SAMPLES, 1)),
                confidence=np.full(SAMPLES, 0.5),
            )
        )
    file = path.with_suffix(".parquet")
    predictions.write(file, predictions.concat(parts))
    made["predictions"] = {"file": file.name, "rows": 2 * SAMPLES, "sha256": "0" * 64}


def shelf(folder: Path, made: list[dict[str, Any]], right: dict[str, list[int]] | None = None) -> Path:
    for one in made:
        path = folder / one["method"]["name"] / f"{one['run_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if right:
            predict(path, one, right[one["method"]["name"]])
        records.write(path, one)
    return folder


def three(method: str, *values: float, **more: Any) -> list[dict[str, Any]]:
    return [record(method, seed, value, **more) for seed, value in enumerate(values)]


def said(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["compare", *words, "--results", str(folder)]) == EXIT_OK
    return capsys.readouterr().out


def test_a_difference_and_what_is_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [*three("a", 0.80, 0.81, 0.82), *three("b", 0.70, 0.705, 0.72), *three("c", 0.79, 0.83, 0.80)]
    out = said(["a", "b", "c"], shelf(tmp_path, made), capsys)
    first, _, rest = out.partition("a - c:")
    assert "a - b: +10.17 points over 3 common seeds" in first
    assert first.rstrip().splitlines()[-2].endswith(": a difference")
    assert "undecided; 3 seeds can show differences from" in rest.partition("b - c:")[0]
    assert "(with 3 seeds it cannot be below 0.25)" in out
    assert "predictions do not lie beside" in out


def test_with_one_seed_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(["a,b"], shelf(tmp_path, [record("a", 0, 0.5), record("b", 0, 0.4), record("c", 1, 0.4)]), capsys)
    assert "nothing can be said with one" in out
    out = said(["a", "c"], tmp_path, capsys)
    assert "a - c: no seed in common" in out


def test_the_same_samples_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [*three("a", 0.9, 0.9), *three("b", 0.6, 0.6)]
    shelf(tmp_path, made, {"a": [30, 30], "b": [20, 24]})
    found, _ = records.locate(tmp_path)
    paths = {id(run): Path(path) for path, run in found.items()}
    (board,) = scores.boards_of(found.values())
    (pair,) = comparison.compare(
        comparison.choose(board, ["a", "b"]), lambda run: paths[id(run)].with_suffix(".parquet")
    )
    assert pair.samples is not None
    assert pair.samples.samples == 2 * SAMPLES
    assert pair.samples.difference == pytest.approx((10 / SAMPLES + 6 / SAMPLES) / 2)
    assert pair.samples.low < pair.samples.difference < pair.samples.high
    assert {(test.only_x, test.only_y) for test in pair.samples.mcnemar.values()} == {(16, 0)}
    order = TEMPLATE["scenario"]["class_order"]
    assert pair.samples.classes == {order[0]: 10 / SAMPLES, order[1]: 6 / SAMPLES}
    out = said(["a", "b", "--by", "class"], tmp_path, capsys)
    assert "over 80 test samples after the last experience: +20.00" in out
    assert f"by class (original label): {order[0]} +25.00, {order[1]} +15.00" in out
    data = json.loads(said(["a", "b", "--json"], tmp_path, capsys))
    assert data["tables"][0]["pairs"][0]["samples"]["samples"] == 80


SIX = [f"split-glyphs-{name}" for name in "uvwxyz"]


def six(folder: Path) -> Path:
    """Three methods on six scenarios, m1 < m2 < m3 on all but one of them."""
    made = []
    for place, name in enumerate(SIX):
        for method, offset in {"m1": 0.0, "m2": 0.1, "m3": 0.2 if place else 0.05}.items():
            made += three(method, *(0.3 + 0.05 * place + offset + 0.01 * seed for seed in range(3)), scenario=name)
    return shelf(folder, made)


def test_over_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(["m1", "m2", "m3"], six(tmp_path), capsys).partition("Over 6 scenarios")[2]
    assert "m1          3.00" in out
    assert "m3          1.17" in out
    assert "m1 : m2  win/tie/loss 0/0/6, Wilcoxon p = 0.031 (Holm 0.094), P(m1 better) = 0.00" in out
    assert "Nemenyi: average ranks of these 3 rows differ from 1.35 on" in out
    fewer = said(["m1", "m2", "--scenario", f"{SIX[0]},{SIX[1]}"], tmp_path, capsys)
    assert "fewer than 5 scenarios: tests over scenarios would say nothing" in fewer
    assert "Wilcoxon" not in fewer.partition("Over 2 scenarios")[2]


def test_variants_of_a_scenario_count_once(tmp_path: Path) -> None:
    made = [one for place in range(2) for one in three("a", 0.5, 0.6, scenario=f"s/{place}")]
    made += [one for place in range(2) for one in three("b", 0.4 + place / 5, 0.5, scenario=f"s/{place}")]
    made += [*three("a", 0.5, 0.6, scenario="t"), *three("b", 0.4, 0.5, scenario="t")]
    found, _ = records.read_all(shelf(tmp_path, made))
    boards = scores.boards_of(found)
    assert len(boards) == 3
    ranks = comparison.rank([(board, comparison.choose(board, ["a", "b"])) for board in boards], ["a", "b"])
    assert ranks is not None
    assert [name.partition(" ")[0] for name in ranks.scenarios] == ["s", "t"]
    assert ranks.scores == pytest.approx(np.array([[0.55, 0.5], [0.55, 0.45]]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "`a` alone cannot be compared"),
        (["a", "bb"], "unknown row in these tables `bb`"),
        (["a", "d"], "no table has two of these rows"),
        (["a", "c"], "`c` is several rows of"),
        (["a", "b", "--scenario", "none"], "unknown scenario"),
    ],
)
def test_wrong_words_are_one_message(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [*three("a", 0.5, 0.6), *three("b", 0.5, 0.7), *three("d", 0.5, scenario="other")]
    made += [*three("c", 0.5, lr=0.1), *three("c", 0.5, lr=0.2)]
    shelf(tmp_path, made)
    assert main(["compare", *words, "--results", str(tmp_path)]) == EXIT_USAGE
    assert message in capsys.readouterr().err


def test_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = records.read_all(six(tmp_path / "runs"))
    figure = registry.load_plot("performance-profile").draw(found)
    lines = {}
    for line, text in zip(figure.axes[0].lines, figure.legends[0].get_texts(), strict=True):
        lines[text.get_text()] = np.interp([0, 43, 100], line.get_xdata(), line.get_ydata())
    # m1 is at 0.30 + 0.05 s + 0.01 seed on scenario s: of 18 values 9 are above 0.43.
    assert lines["m1"].tolist() == pytest.approx([100, 50, 0])
    assert (lines["m2"] >= lines["m1"]).all()
    command = ["plot", "performance-profile", "--results", str(tmp_path / "runs"), "-o", str(tmp_path / "p.png")]
    assert main(command) == EXIT_OK
    assert main([*command, "--scenario", SIX[0]]) == EXIT_USAGE
    assert "1 scenarios have 3 methods in common; it needs 2 and 2" in capsys.readouterr().err


def test_the_diagram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = records.read_all(six(tmp_path / "runs"))
    figure = registry.load_plot("critical-difference").draw(found)
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert [text for text in texts if text.startswith("m")] == ["m3 (1.17)", "m2 (1.83)", "m1 (3.00)"]
    assert "critical difference 1.35" in texts
    command = ["plot", "critical-difference", "--results", str(tmp_path / "runs"), "-o", str(tmp_path / "cd.png")]
    assert main(command) == EXIT_OK
    assert main([*command, "--scenario", SIX[0]]) == EXIT_USAGE
    assert "1 scenarios have 3 methods in common; it needs 5 and 2" in capsys.readouterr().err


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert [points(gap) for gap in (-0.00001, 0.0, -0.0, 0.00001, -0.0201)] == ["+0.00"] * 4 + ["-2.01"]
