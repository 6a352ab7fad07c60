"""Runs from Python: `benchmark.run`, `benchmark.load`, `Records`; docstrings and docs/python.md are executed."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import benchmark as bench
from benchmark import results
from benchmark.cli import main
from benchmark.errors import EXIT_OK, BenchError, BenchWarning, DataMissing, RunBusy, RunFailed, UsageError
from benchmark.jobs import How, Job, Outcome
from benchmark.results import collection, running, trained
from benchmark.run import executors
from benchmark.run.interruption import Interrupted

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PLUGIN = """
from benchmark import hookimpl
from benchmark.testing.toys import TOY_SCENARIO

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, session_cache: Path, plugin_file: Any) -> Path:
    """A folder in which ``runs`` has two seeds of one method."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(session_cache))
        made = bench.run(scenario="toy", method="nearest-mean", seeds=[0, 1], out=place / "runs", device="cpu")
    assert [run.seeds.seed for run in made] == [0, 1]
    return place


@pytest.fixture
def runs(folder: Path) -> bench.Records:
    return bench.load(folder / "runs")


def toy(text: str) -> str:
    """Examples on a scenario that takes no time."""
    return text.replace('"split-glyphs"', '"toy"')


@pytest.mark.parametrize(
    "module", [collection, running, trained], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_examples_of_docstrings(module: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    runner, number = doctest.DocTestRunner(), 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        for example in test.examples:
            example.source = toy(example.source)
            number += 1
        runner.run(test)
    assert number >= 4
    assert runner.failures == 0


def test_the_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "runs", tmp_path / "runs")  # half of it is done
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(toy(block), "docs/python.md", "exec"), names)
    said = capsys.readouterr().out
    assert "<4 records: 2 methods, 1 scenario, 2 seeds>" in said
    assert "unknown method `nearest-meen`" in said
    assert "nearest-mean - linear-probe" in said
    assert "known nearest-mean on toy, seed 1" in said
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert len(names["frame"]) == 4
    assert names["text"].startswith("## toy")


def test_the_command_line_makes_the_same_run(folder: Path, runs: bench.Records, capsys: Any) -> None:
    words = ["run", "--scenario", "toy", "--method", "nearest-mean", "--seed", "0-1", "--device", "cpu"]
    assert main([*words, "--out", str(folder / "runs"), "--quiet"]) == EXIT_OK
    assert set(capsys.readouterr().out.split()) == set(map(str, runs.paths))
    assert main(["leaderboard", "--results", str(folder / "runs")]) == EXIT_OK
    assert capsys.readouterr().out == runs.leaderboard().text()


def test_run_is_there_before_and_behind_its_package() -> None:
    assert callable(bench.run)
    assert inspect.signature(bench.run) == inspect.signature(results.run)
    assert bench.run.jobs.run_jobs is bench.run_jobs  # type: ignore[attr-defined]


def test_frames(runs: bench.Records) -> None:
    frame, long = runs.frame(), runs.frame(long=True)
    assert isinstance(frame, pd.DataFrame)
    assert set(frame["run_id"]) == {run.run_id for run in runs}
    assert len(long) == sum(value is not None for run in runs for row in run.accuracy for value in row)
    assert set(long["accuracy"]) == {
        value for run in runs for row in run.accuracy for value in row if value is not None
    }


def test_choosing(runs: bench.Records) -> None:
    assert [run.seeds.seed for run in runs.where(seed="1")] == [1]
    assert len(runs.where(scenario=["toy"], method=f"nearest-mean@{runs[0].method.recipe}", track="nano")) == 2
    assert runs[1:].paths == runs.paths[1:]
    assert not runs.where(seed=7)
    for wrong in ({"scenario": "toi"}, {"track": "nona"}, {"method": "l2p"}):
        with pytest.raises(UsageError, match="in these records"):
            runs.where(**wrong)  # type: ignore[arg-type]


def test_notebooks_show_what_names_hold(runs: bench.Records) -> None:
    shown = runs.leaderboard(rename={"nearest-mean": "<script>x</script>"})._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert runs._repr_html_().startswith("<p>2 records: 1 method, 1 scenario, 2 seeds</p><pre>toy")


def test_tables(runs: bench.Records) -> None:
    tables = runs.leaderboard(method="nearest-mean")
    assert len(tables) == 1
    assert tables[0].title.startswith("toy")
    assert tables[:0].text() == ""
    assert max(map(len, tables.text(width=60).splitlines()[:3])) <= 60
    with pytest.raises(UsageError, match="unknown format `exel`"):
        tables.export("exel")
    with pytest.raises(UsageError, match="unknown method in these records"):
        runs.leaderboard(method="l2p")


def test_figures_are_refused_before_they_are_drawn(runs: bench.Records, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format of figures"):
        runs.plot("accuracy", tmp_path / "x.gif")
    with pytest.raises(UsageError, match="width 1: no width of a figure"):
        runs.plot("accuracy", width=1)
    with pytest.raises(UsageError, match="unknown plot"):
        runs.plot("acuracy")


def test_compare_needs_two_rows(runs: bench.Records) -> None:
    with pytest.raises(UsageError, match="`nearest-mean` alone"):
        runs.compare("nearest-mean")


def test_what_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no records in"):
        bench.load(tmp_path)
    with pytest.raises(UsageError, match="an empty list"):
        bench.load([])
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(DataMissing, match="damaged record"):
        bench.load(broken)
    with pytest.warns(BenchWarning, match="damaged record.*skipped"):
        assert len(bench.load([tmp_path, folder / "runs"])) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 1}, "unknown option `method.nearest-mean.epoch`"),
        ({"epochs": 1, "settings": {"epochs": 2}}, "`epochs` is an argument and in settings"),
        ({"epochs": 1, "grid": {"epochs": [1, 2]}}, "`epochs` is in the settings and in the grid"),
        ({"grid": {"epochs": "1"}}, "grid: epochs: no list of values"),
        ({"seeds": "x"}, "`x` is not a seed"),
        ({"seeds": 1.5}, "is not a seed"),
        ({"method": ""}, "no run was asked for"),
        ({"scenario": "toi"}, "unknown scenario `toi`"),
        ({"jobs": 0}, "jobs: 0 is too small"),
        ({"executor": "locl"}, "unknown executor `locl`"),
        ({"executor_options": {"x": 1}}, "executor `local` has no option `x`"),
        ({"errors": "ignore"}, "errors: 'ignore' is unknown"),
        ({"download": "perhaps"}, "download: 'perhaps' is unknown"),
    ],
)
def test_what_cannot_be_run(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"scenario": "toy", "method": "nearest-mean", "out": tmp_path / "runs", **arguments}
    with pytest.raises(UsageError, match=re.escape(message)):
        bench.run(**asked)
    assert not (tmp_path / "runs").exists()


class Pretended:
    """Instead of executors: keeps what it was asked for, and gives some outcomes."""

    def __init__(self, errors: Sequence[BenchError | None], path: Path) -> None:
        self.errors, self.path = errors, path
        self.jobs: list[Job] = []
        self.how = How()

    def __call__(self, name: str, jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
        self.jobs, self.how = list(jobs), how
        for job, error in reversed(list(zip(jobs, self.errors, strict=True))):
            status: Any = "done" if error is None else "skipped" if isinstance(error, RunBusy) else "failed"
            yield Outcome(job=job, status=status, path=self.path if error is None else None, error=error)


def pretend(patch: pytest.MonkeyPatch, path: Path, *errors: BenchError | None) -> Pretended:
    found = Pretended(errors, path)
    patch.setattr(executors, "execute", found)
    return found


def test_every_combination_several_at_once(runs: bench.Records, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pretend(monkeypatch, runs.paths[0], *[None] * 4)
    bench.run(
        scenario="toy",
        method=["nearest-mean", "linear-probe"],
        grid={"batch_size": [4, 8, 4]},
        seeds=3,
        jobs=2,
        normalize="half_half",
        init_seeds=[5],
    )
    assert found.how.workers == 2
    assert [(job.method, job.settings["batch_size"]) for job in found.jobs] == [
        ("nearest-mean", "4"),
        ("nearest-mean", "8"),
        ("linear-probe", "4"),
        ("linear-probe", "8"),
    ]
    assert {(job.seed, job.init_seed, job.settings["normalize"]) for job in found.jobs} == {(3, 5, "half_half")}


def test_one_that_fails_stops_no_other_and_is_told(runs: bench.Records, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"scenario": "toy", "method": "nearest-mean", "seeds": "0-2"}
    failure = RunFailed("the loss is not a number", hint="try a lower lr")
    pretend(monkeypatch, runs.paths[0], None, failure, RunBusy("another process works on it"))
    with pytest.warns(BenchWarning) as told:
        assert len(bench.run(**asked, errors="warn")) == 1
    assert [str(one.message) for one in told] == [
        "nearest-mean on toy, seed 1 failed: the loss is not a number",
        "nearest-mean on toy, seed 2 skipped: another process works on it",
    ]
    with pytest.raises(RunFailed, match="not a number") as caught:
        bench.run(**asked)
    assert (
        caught.value.hint
        == 'try a lower lr; 1 of 3 runs failed, benchmark.load("runs") reads the records of the others'
    )
    pretend(monkeypatch, runs.paths[0], RunBusy("another process works on it"))
    with pytest.raises(RunBusy):
        bench.run(**{**asked, "seeds": 0}, errors="warn")


def test_ctrl_c_keeps_what_is_finished(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the second run; the first one's record is there, and the same call does the rest."""
    from benchmark.run import engine

    usual, begun = engine.execute, []

    def execute(prepared: Any, *rest: Any, **options: Any) -> Any:
        begun.append(prepared)
        if len(begun) == 2:
            raise Interrupted("stopped")
        return usual(prepared, *rest, **options)

    monkeypatch.setattr(engine, "execute", execute)
    asked: dict[str, Any] = {"scenario": "toy", "method": "nearest-mean", "seeds": [0, 1], "out": tmp_path}
    with pytest.raises(Interrupted):
        bench.run(**asked)
    assert len(bench.load(tmp_path)) == 1
    assert len(bench.run(**asked)) == 2
    assert len(begun) == 3
