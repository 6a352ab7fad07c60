"""`bench tune`: what is searched, how points are chosen, the log that it goes on from, the preset that it writes.

Trials are runs of a toy whose accuracy is best at ``rate=0.1`` and falls on both sides.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from benchmark import records
from benchmark.cli import main
from benchmark.config import Range, read_toml
from benchmark.errors import EXIT_DATA, EXIT_FAILED, EXIT_OK, EXIT_PLUGIN, EXIT_USAGE, UsageError
from benchmark.tuning import presets, strategies, trials
from benchmark.tuning.axes import Axis, axes, declared
from benchmark.tuning.bracket import sides
from benchmark.tuning.strategies import Question
from benchmark.tuning.trials import Target, Trial

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
PLUGIN = """
import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal
from benchmark import ExecutorSpec, ProtocolSpec, hookimpl, run_jobs
from benchmark.config import Range
from benchmark.errors import PluginError, RunFailed
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod, ToyMethodConfig

@dataclass(frozen=True, kw_only=True, slots=True)
class Config(ToyMethodConfig):
    epochs: int = 1
    rate: Annotated[float, Range(above=0, max=100, log=True, search=(1e-3, 1.0))] = 0.01
    depth: Annotated[int, Range(min=1, max=4)] = 2
    mood: Literal["good", "bad", "odd"] = "good"

    def __post_init__(self):
        ToyMethodConfig.__post_init__(self)
        if self.mood == "odd" and self.depth > 2:
            raise ValueError(f"depth: {self.depth} is too deep for odd moods; use 1..2")

class Tuned(ToyMethod):
    def begin_experience(self, experience):
        super().begin_experience(experience)
        if self.config.mood == "bad":
            raise RunFailed("logits are not finite")
        if self.config.depth == 4:
            raise PluginError("a fault")

    def predict(self, images):
        logits = super().predict(images).clone()
        share = 0.4 * abs(math.log10(self.config.rate) + 1)  # of all samples that it gets wrong
        wrong = (images.flatten(1).mean(1) * 5000) % 1 < share
        logits[wrong] = -logits[wrong]
        return logits

@hookimpl
def bench_register_methods():
    return [replace(TOY_METHOD, name="tuned", build=Tuned, config=Config, tracks={"nano": {"lr": 0.4}})]

@hookimpl
def bench_register_scenarios():
    return [replace(TOY_SCENARIO, name="tuned-world"), replace(TOY_SCENARIO, name="tuned-shift", family="dg")]

@hookimpl
def bench_register_protocols():
    axes = {"rate": Range(log=True, search=(0.01, 1.0)), "nothing": (1, 2), "depth": (1, 2)}
    axes["epochs"] = Range(search=(1, 3))
    select = ("training-domain", "leave-one-domain-out", "oracle")
    return [ProtocolSpec(name="tuned-rules", summary="x", family="dg", axes=axes, budget=2, seeds=2, select=select)]

@hookimpl
def bench_register_executors():
    backwards = lambda jobs, how: run_jobs(reversed(jobs), how)
    return [ExecutorSpec(name="backwards", execute=backwards, summary="the last job first")]
"""
LINE = ["tuned", "--scenario", "tuned-world", "--experiences", "1", "--set", "scenario.train=50"]


def tune(*words: str) -> int:
    return main(["tune", *LINE, *words, "--device", "cpu", "-q"])


def log_of(out: Path) -> list[Trial]:
    return [trial for _, trial in trials.read(out / "tuned" / "tuned-tuned-world.csv")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of every kind."""

    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 1e-1))] = 0.01
    decay: Annotated[float, Range(min=0)] = 0.0
    size: Annotated[int, Range(min=1, max=64, log=True)] = 8
    mask: Literal["none", "current"] = "none"
    steps: Annotated[int | None, Range(min=0)] = None
    augment: bool = True


def the(chosen: dict[str, str] | None = None, listed: dict[str, list[str]] | None = None) -> list[Axis]:
    return axes(Options, chosen=chosen or {}, listed=listed or {}, key="method.x")


# --- what is searched -----------------------------------------------------------------------------


def test_a_search_looks_at_what_options_declare_unless_it_is_told() -> None:
    (lr,) = declared(Options, but=set())
    assert (lr.key, lr.low, lr.high, lr.log, lr.whole) == ("lr", 1e-4, 0.1, True, False)
    assert declared(Options, but={"lr"}) == []
    size, mask = the({"size": "2..16"}, {"mask": ["none", "current"]})
    assert (size.low, size.high, size.whole, size.log) == (2, 16, True, True)
    assert mask.values == ("none", "current")
    (augment,) = the(listed={"augment": ["false", "true", "off"]})
    assert augment.values == (False, True)
    (steps,) = the({"steps": "0..9"})
    assert steps.whole


@pytest.mark.parametrize(
    ("chosen", "listed", "message"),
    [
        ({"lrr": "1..2"}, {}, "--range: unknown option `method.x.lrr`"),
        ({}, {"lrr": ["1"]}, "--grid: unknown option `method.x.lrr`"),
        ({"lr": "0.1"}, {}, "--range lr=0.1: not of the form LOW..HIGH"),
        ({"lr": "0..1"}, {}, "--range lr: 0.0 is not positive; use more than 0"),
        ({"lr": "1..0.1"}, {}, "--range lr: 1.0 is not less than 0.1"),
        ({"lr": "a..b"}, {}, "--range lr: 'a' is not a number"),
        ({"size": "1..65"}, {}, "65 is out of range; use 1..64"),
        ({"mask": "1..2"}, {}, "--range mask: no number"),
        ({}, {"size": ["1", "100"]}, "--grid size: 100 is out of range"),
        ({}, {"mask": ["nothing"]}, "'nothing' is not allowed"),
    ],
)
def test_what_cannot_be_searched_is_one_error(
    chosen: dict[str, str], listed: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        the(chosen, listed)
    assert message in error.value.message


@pytest.mark.parametrize("wrong", [{"search": (1.0, 1.0)}, {"search": (0.0, 1.0)}, {"search": (1.0, 9.0), "max": 5}])
def test_a_declaration_says_where_a_search_may_begin(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="search: "):
        Range(log=True, **wrong)


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (Axis(key="a", low=1e-3, high=0.1, log=True), (0.001, 0.003, 0.01, 0.03, 0.1)),
        (Axis(key="a", low=0.1, high=0.2, log=True), (0.1, 0.119, 0.141, 0.168, 0.2)),
        (Axis(key="a", low=0.0, high=1.0), (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Axis(key="a", low=1, high=4, whole=True), (1, 2, 3, 4)),
        (Axis(key="a", values=("x",)), ("x",)),
    ],
)
def test_a_range_becomes_a_list_for_a_grid(axis: Axis, values: tuple[Any, ...]) -> None:
    assert axis.listed().values == values


@pytest.mark.parametrize(
    ("known", "up", "log", "expected"),
    [
        ((0.001, 0.003, 0.01), True, True, 0.03),
        ((0.001, 0.003, 0.01), False, True, 0.0003),
        ((0.03, 0.1, 0.3), True, True, 1.0),
        ((1.0, 100.0), True, True, 1e4),
        ((1.0, 10.0), False, True, 0.1),
        ((0.1, 0.2, 0.5), True, True, 1.0),
        ((0.002, 0.004), True, True, 0.008),
        ((0.2, 0.4), True, False, 0.6),
        ((0.0, 0.1), True, True, 0.2),
    ],
)
def test_a_list_goes_on_as_it_began(known: tuple[float, ...], up: bool, log: bool, expected: float) -> None:
    assert Axis(key="a", values=known, log=log).beyond(known, up=up) == expected


def test_a_list_ends_where_the_option_does() -> None:
    axis = Axis(key="a", values=(2, 4), log=True, whole=True, limits=Range(min=1, max=8))
    assert [axis.beyond((2, 4), up=up) for up in (False, True)] == [1, 8]
    assert [axis.beyond((1, 2, 4, 8), up=up) for up in (False, True)] == [None, None]


# --- strategies -----------------------------------------------------------------------------------

RATE = Axis(key="rate", low=1e-3, high=1.0, log=True)
MOOD = Axis(key="mood", values=("good", "bad"))


def tried(points: list[Any], values: list[float | None], first: int = 0) -> list[Trial]:
    pairs = zip(points, values, strict=True)
    return [Trial(number=number, point=point, value=value) for number, (point, value) in enumerate(pairs, first)]


def test_random_points_depend_on_seed_number_and_option_alone() -> None:
    choose = strategies.load("random")
    start = {"rate": 0.01, "mood": "good"}
    every = choose(Question(axes=[RATE, MOOD], trials=[], count=8, seed=3, start=start))
    assert every[0] == start
    assert all(1e-3 <= point["rate"] <= 1 for point in every)
    assert {point["mood"] for point in every} == {"good", "bad"}
    done = tried(every[:3], [0.1, 0.2, None])
    assert choose(Question(axes=[RATE, MOOD], trials=done, count=5, seed=3, start=start)) == every[3:]
    alone = choose(Question(axes=[RATE], trials=[], count=7, seed=3))
    assert [point["rate"] for point in alone] == [point["rate"] for point in every[1:]]
    assert choose(Question(axes=[RATE], trials=[], count=7, seed=4)) != alone


def test_random_points_end_where_there_are_no_more() -> None:
    found = strategies.load("random")(Question(axes=[MOOD], trials=[], count=9))
    assert sorted(point["mood"] for point in found) == ["bad", "good"]


def test_a_grid_beyond_the_budget_says_how_much_it_needs() -> None:
    grid = [Axis(key="a", values=(1, 2, 3)), MOOD]
    with pytest.raises(UsageError, match="the grid has 6 points") as error:
        strategies.load("grid")(Question(axes=grid, trials=tried([{"a": 1, "mood": "good"}], [1.0]), count=3))
    assert "--budget 6 or more" in (error.value.hint or "")


def bracketed(values: tuple[float, ...], score: Any, limits: Range, budget: int = 20) -> list[Trial]:
    """What a grid search of one option tries."""
    axis, done = Axis(key="a", values=values, log=True, limits=limits), list[Trial]()
    while len(done) < budget:
        question = Question(axes=[axis], trials=done, count=budget - len(done))
        if not (points := strategies.load("grid")(question)):
            break
        done += tried(points, [score(point["a"]) for point in points], len(done))
    assert bool(sides([axis], done)) == (len(done) >= budget)
    return done


@pytest.mark.parametrize(
    ("score", "limits", "last"),
    [
        (lambda value: -abs(value - 30), Range(), [1, 3, 10, 30, 100]),
        (lambda value: -value, Range(), [1, 3, 10, 0.3, 0.1, 0.03, 0.01]),
        (lambda value: -value, Range(min=0.1), [1, 3, 10, 0.3, 0.1]),
        (lambda value: min(value, 30), Range(max=300), [1, 3, 10, 30, 100, 300]),
        (lambda value: None if value > 10 else value, Range(), [1, 3, 10, 30]),
        (lambda value: 1.0 if value > 2 else 0.0, Range(), [1, 3, 10, 30, 100, 300, 1000]),
    ],
)
def test_a_grid_grows_until_the_best_point_has_worse_neighbours(score: Any, limits: Range, last: list[float]) -> None:
    assert [trial.point["a"] for trial in bracketed((1, 3, 10), score, limits, budget=7)] == last


def test_every_list_of_numbers_is_bracketed_around_the_best_point() -> None:
    grid = [Axis(key="a", values=(1, 2), log=True), Axis(key="b", values=(1, 2), log=True), MOOD]
    points = [{"a": a, "b": b, "mood": "bad"} for a in (1, 2) for b in (1, 2)]
    done = tried(points, [0.1, 0.9, 0.2, 0.3])
    assert [str(side) for side in sides(grid, done)] == ["a below 1", "b above 2"]
    assert [side.point for side in sides(grid, done)] == [{**points[1], "a": 0.5}, {**points[1], "b": 5}]
    # A value that was tried with other values of the rest is a neighbour, too.
    more = [*done, *tried([{"a": 0.5, "b": 1, "mood": "bad"}, {"a": 0.5, "b": 5, "mood": "bad"}], [0.1, 0.1], 4)]
    assert {str(side) for side in sides(grid, more)} == {"a below 1", "b above 2"}
    assert sides(grid, tried(points, [None] * 4)) == []


def test_optuna_goes_on_where_it_stopped() -> None:
    pytest.importorskip("optuna")
    choose = strategies.load("optuna")
    grid, start = [RATE, MOOD, Axis(key="size", low=1, high=9, whole=True)], {"rate": 5.0, "mood": "good", "size": 2}

    def go_on(done: list[Trial], count: int) -> list[Trial]:
        for _ in range(count):
            (point,) = choose(Question(axes=grid, trials=done, count=9, seed=1, start=start))
            value = None if point["mood"] == "bad" else 1 - abs(point["rate"] - 0.1)
            done = [*done, *tried([point], [value], len(done))]
        return done

    whole = go_on([], 14)
    assert whole[0].point == start
    assert go_on(whole[:9], 5) == whole
    assert all(1e-3 <= trial.point["rate"] <= 1 and type(trial.point["size"]) is int for trial in whole[1:])
    assert len(choose(Question(axes=grid, trials=whole, count=9, at_once=3, seed=1))) == 3
    done = tried([{"mood": "good"}, {"mood": "bad"}], [1.0, 0.0])
    assert choose(Question(axes=[MOOD], trials=done, count=9, at_once=3)) == [], "there are no others"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "benchmark.tuning.strategies.optuna", raising=False)
    assert tune("--budget", "3", "--strategy", "optuna") == EXIT_USAGE
    assert "pip install adaptbench[tune]" in capsys.readouterr().err


# --- the log --------------------------------------------------------------------------------------


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    file, target = tmp_path / "deep" / "log.csv", Target(method="a@b", scenario="s/1,2", track="nano")
    done = [
        Trial(number=0, point={"lr": 1e-4, "words": 'a "b",\nc', "on": True, "none": None}, value=1 / 3, samples=9),
        Trial(number=1, point={"lr": 2}, strategy="grid", code="1-ab", note="not\nfinite"),
    ]
    for trial in done:
        trials.append(file, target, trial)
    found = trials.read(file)
    assert [target for target, _ in found] == [target, target]
    assert found[0][1] == done[0]
    assert found[1][1].note == "not finite"
    text = file.read_text(encoding="utf-8")
    assert trials.render(found) == text
    file.write_text(text[:-4], encoding="utf-8")  # as a program that is killed leaves it
    assert len(trials.read(file)) == 1
    trials.append(file, target, done[1])
    assert file.read_text(encoding="utf-8") == text
    assert trials.best([trial for _, trial in found]) == done[0]
    odd = "\ufeff" + text.replace("\n", "\n\n", 1)  # as a spreadsheet or an editor leaves it
    file.write_text(odd, encoding="utf-8")
    assert trials.render(trials.read(file)) == text
    assert done[0].noise == pytest.approx((1 / 3 * 2 / 3 / 9) ** 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "not a log of trials"),
        (",".join(trials.COLUMNS) + "\n1,2\n", "line 2: 2 fields, where a trial has 14"),
        (",".join(trials.COLUMNS) + "\n" + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        (",".join(trials.COLUMNS) + '\nm,s,t,{},1,0,acc,0,"' + "[" * 100_000 + '",1,1,,,\n', "line 2: "),
        (",".join(trials.COLUMNS) + "\nm,s,t,{},1,0,acc,0,[],0.5,1,,,\n", "point: not a JSON object"),
        (",".join(trials.COLUMNS) + "\nm,s,t,{},1,0,acc,0,{},nan,1,,,\n", "value: not a finite number"),
    ],
)
def test_what_is_no_log_is_left_alone(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    assert tune("--budget", "1", "--log", str(tmp_path / "log.csv"), "--out", str(tmp_path)) == EXIT_USAGE
    assert message in capsys.readouterr().err
    assert (tmp_path / "log.csv").read_text(encoding="utf-8") == text


# --- the command ----------------------------------------------------------------------------------


def test_a_search_is_bracketed_stopped_resumed_and_its_winner_is_a_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--strategy", "grid", "--grid", "rate=0.001,0.003,0.01", "--budget", "9", "--executor", "backwards"]
    assert tune(*words, "--out", str(tmp_path / "a")) == EXIT_OK
    preset = Path(capsys.readouterr().out.strip())
    whole = log_of(tmp_path / "a")
    assert [trial.point["rate"] for trial in sorted(whole, key=lambda trial: trial.number)] == [
        *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    ]
    assert [trial.number for trial in whole[:3]] == [2, 1, 0], "a line is written when a trial ends"
    top = trials.best(whole)
    assert top is not None
    assert (top.point, top.value, top.samples) == ({"rate": 0.1}, 1.0, 20)
    runs = records.read_all(tmp_path / "a")[0]
    assert {run.evaluated_on for run in runs} == {"validation"}
    assert {sum(run.counts) for run in runs} == {20}
    # Killed in the middle of a line, without the records; what was logged is not repeated.
    other = tmp_path / "b" / "tuned" / "tuned-tuned-world.csv"
    other.parent.mkdir(parents=True)
    text = (tmp_path / "a" / "tuned" / "tuned-tuned-world.csv").read_text(encoding="utf-8")
    other.write_text("\n".join(text.split("\n")[:3]) + "\ntuned,tuned", encoding="utf-8")
    assert tune(*words, "--out", str(tmp_path / "b")) == EXIT_OK
    assert Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8") == preset.read_text(encoding="utf-8")
    assert sorted(other.read_text(encoding="utf-8").splitlines()) == sorted(text.splitlines())
    assert len(records.read_all(tmp_path / "b")[0]) == len(whole) - 2
    # The preset is what `bench run` reads.
    assert main(["run", "--config", str(preset), "--dry-run", "--json"]) == EXIT_OK
    (rows,) = json.loads(capsys.readouterr().out)
    values = {row["key"]: (row["value"], row["origin"]) for row in rows}
    assert values["method.rate"] == (0.1, str(preset))
    assert values["scenario.train"] == (50, str(preset))
    assert values["validate"] == (0, "default")
    assert values["method.lr"][0] == 0.4, "what the track says is not the preset's"


def test_what_fails_is_a_trial_without_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--strategy", "grid", "--budget", "9", "--grid", "mood=bad,good,odd", "--grid", "tuned.depth=2,3"]
    assert tune(*words, "--out", str(tmp_path)) == EXIT_PLUGIN, "a fault of the plugin ends the search"
    assert "a fault" in capsys.readouterr().err
    notes = {(one.point["mood"], one.point["depth"]): one.note for one in log_of(tmp_path)}
    assert notes["bad", 2] == "logits are not finite"
    assert "3 is too deep for odd moods" in notes["odd", 3]
    assert notes["good", 3] == ""
    bad = ["--out", str(tmp_path / "bad"), "--budget", "1", "--grid", "mood=bad"]
    assert tune(*bad) == EXIT_OK, "the values in force come first"
    assert tune(*bad, "--set", "rate=0.1", "--strategy", "grid") == EXIT_FAILED
    assert "no trial" in capsys.readouterr().err


def test_trials_of_other_code_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--budget", "2", "--out", str(tmp_path)]
    assert tune(*words) == EXIT_OK
    file = tmp_path / "tuned" / "tuned-tuned-world.csv"
    first = log_of(tmp_path)
    assert first[0].point == {"rate": 0.01}
    file.write_text(file.read_text(encoding="utf-8").replace(first[0].code, "0-older"), encoding="utf-8")
    assert tune(*words) == EXIT_OK
    assert "2 trials were computed with other code" in capsys.readouterr().err
    again = log_of(tmp_path)
    assert [one.code for one in again] == ["0-older"] * 2 + [first[0].code] * 2
    assert again[2:] == first


def test_a_trial_counts_for_its_weights_and_seeds_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = [tmp_path / f"{name}.pt" for name in "ab"]
    for number, file in enumerate(weights):
        torch.save({"classifier.bias": torch.full((2,), float(number))}, file)
    plan = ["--budget", "2", "--out", str(tmp_path), "--dry-run", "--json"]

    def known(*words: str) -> int:
        assert tune(*plan, *words) == EXIT_OK
        return len(json.loads(capsys.readouterr().out)["known"])

    assert tune("--budget", "2", "--out", str(tmp_path)) == EXIT_OK
    log = tmp_path / "tuned" / "tuned-tuned-world.csv"
    capsys.readouterr()
    assert known() == 2
    for other in (["--init-seed", "7"], ["--class-order-seed", "3"], ["--data-seed", "1"], ["--preset", "cifar32"]):
        assert known(*other) == 0, other
    for file in weights:
        assert known("--weights", str(file)) == 0
    digest = hashlib.sha256(weights[0].read_bytes()).hexdigest()
    (target, trial), *_ = trials.read(log)
    options = json.dumps({**json.loads(target.options), "weights": digest}, sort_keys=True)
    trials.append(log, target, trial)
    trials.append(log, replace(target, options=options), trial)
    assert known() == 2, "one trial twice is one trial"
    assert [known("--weights", str(file)) for file in weights] == [1, 0]


def test_the_preset_has_weights_and_input_preset(tmp_path: Path) -> None:
    target = Target(method="a", scenario="s", track="nano", options='{"preset": "p", "weights": "ab", "engine.x": 1}')
    text = presets.render(target, Trial(number=0, value=0.5), method="a", scenarios=["s"], weights="my/vit.pth")
    (tmp_path / "preset.toml").write_text(text, encoding="utf-8")
    table = read_toml(tmp_path / "preset.toml")
    assert table["run"] == {
        **{"scenario": "s", "method": "a", "track": "nano"},
        **{"preset": "p", "weights": "my/vit.pth"},
    }
    assert table["engine"] == {"x": 1}


def test_a_place_that_cannot_be_written_is_told_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for option in ("--save", "--log"):
        assert tune("--budget", "1", option, str(tmp_path / "folder"), "--out", str(tmp_path / "out")) != EXIT_OK
        assert option in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_budget_that_ends_early_says_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--strategy", "grid", "--grid", "rate=0.001,0.003", "--budget", "2", "--out", str(tmp_path)]
    assert tune(*words) == EXIT_OK
    told = capsys.readouterr()
    assert "before the best point had worse neighbours: rate above 0.003" in told.err
    assert "# not bracketed: nothing worse was tried of rate above 0.003" in Path(told.out.strip()).read_text()


def test_a_plan_says_what_comes_next_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune("--budget", "3", "--seed", "0,1", "--dry-run", "--out", str(tmp_path)) == EXIT_OK
    told = capsys.readouterr().out
    assert "2 run(s) a trial" in told
    assert "rate: 0.001..1, steps of factors" in told
    assert "at most 3 trials of unknown length" in told
    assert told.count("next: ") == 3
    assert tune("--budget", "3", "--seed", "0,1", "--dry-run", "--json", "--out", str(tmp_path)) == EXIT_OK
    assert len(json.loads(capsys.readouterr().out)["next"]) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--budget is missing"),
        (["--budget", "0"], "1 or more"),
        (["--budget", "2", "--strategy", "gird"], "did you mean `grid`"),
        (["--budget", "2", "--range", "scenario.train=1..2"], "what is tested is not searched"),
        (["--budget", "2", "--range", "rate=0.1..1", "--set", "rate=1"], "`rate` is given in two ways"),
        (["--budget", "2", "--range", "rate=0.1..1", "--grid", "tuned.rate=1"], "`rate` is given in two ways"),
        (["--budget", "2", "--set", "rate=0.1"], "nothing to search"),
        (["--budget", "2", "--grid", "rate=1,,2"], "a value is missing"),
        (["--budget", "2", "--experiences", "0"], "1 or more"),
        (["--budget", "1", "--metric", "acc"], "--metric acc: not defined here"),
        (["--budget", "1", "--metric", "forgetting_clipped"], "of this one less is better"),
        (["--budget", "1", "--weights", "{tmp}/nothing.pt"], "nothing.pt: No such file"),
        (["--budget", "1", "--weights", "{tmp}"], "no *.safetensors"),
        (["--budget", "1", "--metric", "ece"], "of this one less is better"),
        (["--budget", "1", "--grid", "rate=1", "--grid", "rate=2"], "--grid rate: given twice"),
        (["--budget", "1", "--experiences", "99"], "experiences, not 99 to validate on"),
    ],
)
def test_what_cannot_be_tuned_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert tune(*words, "--out", str(tmp_path)) == (EXIT_DATA if "--weights" in words else EXIT_USAGE)
    told = capsys.readouterr().err
    assert message in told
    assert "hint: " in told


# --- protocols and their rules --------------------------------------------------------------------

SHIFT = ["tune", "tuned", "--scenario", "tuned-shift", "--set", "scenario.family=dg", "--set", "scenario.train=20"]
SHIFT += ["--set", "scenario.test=10"]


def shift(out: Path, *words: str) -> list[str]:
    return [*SHIFT, "--protocol", "tuned-rules", "--out", str(out), "--device", "cpu", "--set", "epochs=1", *words]


def test_a_protocol_searches_for_every_seed_and_tests_the_winners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*shift(tmp_path), "--set", "depth=2", "--test"]) == EXIT_OK
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line.partition(": best of 2: rate=")[0] for line in lines[:2]] == [f"tuned-shift, seed {n}" for n in (0, 1)]
    assert lines[2].startswith("on test data, chosen by training-domain: ")
    assert lines[2].endswith(" (2 seeds)")
    assert told.err.count("on test data: tuned on tuned-shift, seed ") == 2
    file = tmp_path / "tuned" / "tuned-tuned-shift.csv"
    done = trials.read(file)
    assert [(target.seeds, one.number) for target, one in done] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    first, second = done[1][1].point["rate"], done[3][1].point["rate"]
    assert first != second, "each seed has draws of its own"
    assert all(set(one.point) == {"rate"} for _, one in done), "what is set, and what the method lacks, is not searched"
    presets = sorted(file.parent.glob("*.toml"))
    assert [path.name for path in presets] == [f"tuned-tuned-shift-tuned-shift-{seed}.toml" for seed in (0, 1)]
    runs = [one for one in records.read_all(tmp_path)[0] if one.evaluated_on == "test"]
    assert len(runs) == 2


def test_the_rules_hold_out_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--grid", "rate=0.1", "--budget", "1", "--seed", "0", "--json", "-q"]
    found = {}
    for rule in ("training-domain", "leave-one-domain-out", "oracle"):
        out = tmp_path / rule
        assert main([*shift(out, *words), "--select", rule, "--test"]) == EXIT_OK
        told = capsys.readouterr()
        (shown,) = json.loads(told.out)
        assert shown["select"] == rule
        assert ("an upper bound" in told.err) == (rule == "oracle")
        assert (rule in Path(shown["preset"]).read_text(encoding="utf-8")) == (rule != "training-domain")
        found[rule] = [one for one in records.read_all(out)[0] if one.evaluated_on == "validation"]
        tested = [path for path in out.rglob("*.json") if "tuned/oracle" in path.as_posix()]
        assert bool(tested) == (rule == "oracle"), "no table takes an oracle's runs for others"
    counts = {rule: [run.counts for run in runs] for rule, runs in found.items()}
    # Two classes in two sources and a target, 20 training images of each and 10 test images.
    assert counts == {"training-domain": [[16]], "leave-one-domain-out": [[40], [40]], "oracle": [[4]]}
    assert len({run.run_id for runs in found.values() for run in runs}) == 4
    assert main([*SHIFT, "--budget", "1", "--select", "leave-one", "--out", str(tmp_path)]) == EXIT_USAGE
    assert "did you mean `leave-one-domain-out`" in capsys.readouterr().err


def test_a_domain_that_is_left_out_is_neither_trained_nor_counted() -> None:
    from benchmark.run import streams
    from benchmark.testing.toys import toy_scenario

    scenario = toy_scenario(family="dg", train=20, test=10)
    (part,) = scenario.experiences
    assert part.train.domains is not None
    for place, name in enumerate(part.source_domains):
        (cut,) = streams.validation(scenario, 1, f"domain:{place}").experiences
        assert cut.source_domains == tuple(other for other in part.source_domains if other != name)
        own = part.train.domains == place
        assert cut.test.ids.tolist() == part.train.ids[own].tolist()
        assert cut.train.ids.tolist() == part.train.ids[~own].tolist()
        assert cut.test.domains is None
    (cut,) = streams.validation(scenario, 1, "target").experiences
    assert set(cut.test.ids.tolist()) < set(part.test.ids.tolist())
    assert set(cut.train.ids.tolist()) < set(part.train.ids.tolist())
    with pytest.raises(UsageError, match="number 2 cannot be left out"):
        streams.validation(scenario, 1, "domain:2")
    with pytest.raises(UsageError, match="has no target"):
        streams.validation(toy_scenario(train=20), 1, "target")
    with pytest.raises(UsageError, match="0 source domain"):
        streams.validation(toy_scenario(train=20), 1, "domain:0")


def test_a_protocol_is_for_its_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune("--protocol", "tuned-rules", "--out", str(tmp_path)) == EXIT_USAGE
    assert "is for scenarios of the family dg; `tuned-world` is of class-il" in capsys.readouterr().err


def test_domainbed_searches_what_its_paper_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["tune", "source-only", "--protocol", "domainbed", "--scenario", "glyphs-dg", "--out", str(tmp_path)]
    assert main([*words, "--dry-run", "--json"]) == EXIT_OK
    plans = [json.loads(line)["next"] for line in capsys.readouterr().out.splitlines()]
    assert [len(points) for points in plans] == [20] * (4 * 3), "20 draws for each of four styles and three seeds"
    assert plans[0] != plans[1]
    for points in plans:
        assert points[0]["lr"] == 0.1, "the first are the values in force"
        assert all(1e-5 <= point["lr"] <= 10**-3.5 for point in points[1:])
        assert all(1e-6 <= point["weight_decay"] <= 1e-2 for point in points[1:])
        assert all(8 <= point["batch_size"] <= 45 for point in points[1:])
