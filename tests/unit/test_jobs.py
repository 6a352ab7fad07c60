"""Jobs: a run as data, from Python as from the command line, and where executors do it."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import Job, records, registry
from benchmark.cli import main
from benchmark.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PLUGIN,
    DataMissing,
    PluginError,
    RunBusy,
    UsageError,
)
from benchmark.run import executors, jobs, lock, places, preparation

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
LINE = ["--scenario", "toy", "--method", "toy-linear", "--set", "epochs=1", "--device", "cpu"]


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}}
    return Job(**{**values, "out": str(out), "device": "cpu", **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """A results folder with one finished run."""
    out = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(session_cache))
        benchmark.run_job(job(out))
    return out


def test_a_job_is_data(tmp_path: Path) -> None:
    one = job(tmp_path, tables={"method": {"toy-linear": {"batch_size": 7}}}, init_seed=3)
    again = Job.of(json.loads(json.dumps(one.as_dict())))
    assert again == one
    assert len({one, again, job(tmp_path, seed=1)}) == 2
    assert Job(**{**one.as_dict(), "origin": {"seed": "--seed"}}) == one, "where a value comes from is not what it is"
    with pytest.raises(UsageError, match=r"not a job: .*sead"):
        Job.of({**one.as_dict(), "sead": 1})


def test_python_gives_the_record_that_the_command_line_gives(
    tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = done.rglob("*.json")
    assert main(["run", *LINE, "--out", str(tmp_path), "-q"]) == EXIT_OK
    (other,) = tmp_path.rglob("*.json")
    assert other.name == path.name
    assert records.comparable(records.read(other)) == records.comparable(records.read(path))


def test_a_run_from_python_prints_nothing_and_is_known_the_second_time(
    done: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = benchmark.run_jobs([job(done)])
    assert outcome.status == "known"
    assert outcome.label == "toy-linear on toy, seed 0"
    assert outcome.path == benchmark.run_job(job(done))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "toy-liner"}, UsageError, "unknown method"),
        ({"settings": {"epocs": "1"}}, UsageError, "epocs"),
        ({"seed": -1}, UsageError, "seed: -1 is not a whole number"),
        ({"init_seed": "1"}, UsageError, "init_seed: '1' is not a whole number"),
        ({"device": "quantum"}, UsageError, "--device quantum"),
        ({"download": "perhaps"}, UsageError, "download: 'perhaps'"),
        ({"out": __file__}, UsageError, "--out .*test_jobs"),
        ({"weights": "/nowhere.safetensors"}, DataMissing, "nowhere"),
        ({"scenario": "split-cifar10", "data_root": "/nowhere", "download": "never"}, DataMissing, "/nowhere"),
    ],
)
def test_a_job_is_checked_as_a_command_is(tmp_path: Path, changes: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        benchmark.run_job(Job(**{**job(tmp_path, settings={}).as_dict(), **changes}))
    assert not list(tmp_path.rglob("*.json"))


def test_jobs_are_asked_for_one_by_one(done: Path) -> None:
    """So that a process can be given them as they come (the executor of Ray lives by it)."""
    asked: list[Job] = []
    outcomes = benchmark.run_jobs(iter(asked.pop, None))
    for seed in (0, 0):
        asked.append(job(done, seed=seed))
        assert next(outcomes).status == "known"


def test_jobs_go_on_after_one_that_fails_and_skip_one_that_is_busy(
    tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = done.rglob("*.json")
    busy = tmp_path / path.relative_to(done)
    busy.parent.mkdir(parents=True)
    with lock.held(busy.with_suffix(".lock")):
        outcomes = list(benchmark.run_jobs([job(tmp_path, method="nothing"), job(tmp_path), job(tmp_path, seed=1)]))
        words = ["run", *LINE, "--out", str(tmp_path), "-q"]
        assert main([*words, "--seed", "0,1"]) == EXIT_OK
        assert "skipped: run" in capsys.readouterr().err
        with pytest.raises(RunBusy):
            benchmark.run_job(job(tmp_path))
    assert [outcome.status for outcome in outcomes] == ["failed", "skipped", "done"]
    assert isinstance(outcomes[1].error, RunBusy)
    assert places.is_finished(outcomes[2].path or Path())


EXECUTOR = """
import pathlib

from benchmark import ExecutorSpec, Outcome, hookimpl, run_jobs
from benchmark.errors import RunFailed

def backwards(jobs, how):
    yield from run_jobs(reversed(jobs), how)

def lazy(jobs, how):
    return []

def junk(jobs, how):
    return ["done"]

def twice(jobs, how):
    error = RunFailed("oops")
    return [Outcome(job=job, status="failed", error=error) for job in (*jobs, *jobs)]

def silent(jobs, how):
    return [Outcome(job=job, status="failed") for job in jobs]

def pathless(jobs, how):
    return [Outcome(job=job, status="done") for job in jobs]

def empty(jobs, how):
    return [Outcome(job=job, status="known", path=pathlib.Path("nowhere.json")) for job in jobs]

def both(jobs, how):
    return [Outcome(job=job, status="done", error=RunFailed("oops")) for job in jobs]

def other(jobs, how):
    return [Outcome(job=job, status="lost", error=RunFailed("oops")) for job in jobs]

def leaves(jobs, how):
    raise SystemExit(0)

@hookimpl
def bench_register_executors():
    every = (backwards, lazy, junk, twice, silent, pathless, empty, both, other, leaves)
    return [ExecutorSpec(name=one.__name__, execute=one, summary=one.__name__) for one in every]
"""


@pytest.fixture
def strange(tmp_path: Path, registry_as_it_was: None) -> None:
    path = tmp_path / "strange.py"
    path.write_text(EXECUTOR, encoding="utf-8")
    registry.add_file(path)


@pytest.mark.usefixtures("strange")
def test_an_executor_of_somebody_else_does_jobs_in_its_own_way(done: Path) -> None:
    both = [job(done), job(done, seed=1)]
    assert [outcome.job for outcome in executors.execute("backwards", both)] == both[::-1]
    words = ["run", *LINE, "--out", str(done), "-q"]
    assert main([*words, "--executor", "backwards"]) == EXIT_OK


@pytest.mark.usefixtures("strange")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lazy", "has no outcome for 1 of 1 jobs"),
        ("junk", "`execute` returned 'done'"),
        ("twice", "`execute` returned a Outcome"),
        ("silent", "an outcome is `failed`, but its error is None"),
        ("pathless", "an outcome is `done`, but its path is None"),
        ("empty", r"an outcome names a record that is not there: nowhere\.json"),
        ("both", "an outcome is `done` with an error"),
        ("other", r"an outcome has the status 'lost'"),
        ("leaves", "`execute` failed: SystemExit"),
    ],
)
def test_an_executor_that_fails_is_one_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=f"executor `{name}` of `file .*{message}") as caught:
        list(executors.execute(name, [job(tmp_path)]))
    assert caught.value.exit_code == EXIT_PLUGIN


def test_a_fault_of_ours_within_a_run_is_not_blamed_on_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "make_pipeline", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(executors.execute("local", [job(tmp_path)]))


def test_an_unknown_executor_is_named_before_anything_is_done(tmp_path: Path) -> None:
    assert main(["run", *LINE, "--out", str(tmp_path), "--executor", "locale"]) == 2
    assert not list(tmp_path.iterdir())


def test_a_broken_life_cycle_plugin_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(report: Any) -> None:
        report(None, PluginError("tracker is broken"))

    monkeypatch.setattr(registry, "life_cycle", broken)
    with pytest.warns(UserWarning, match="tracker is broken; left out"):
        jobs.life_cycle()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM that can be handled")
@pytest.mark.parametrize("place", ["build_scenario", "prepare"])
def test_sigterm_while_data_or_weights_are_loaded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    monkeypatch.setattr(preparation, place, lambda *rest, **options: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", *LINE, "--out", str(tmp_path)]) == EXIT_INTERRUPTED
    said = capsys.readouterr().err
    assert "error: stopped between two runs; what is finished is kept" in said
    assert "hint: resume with: " in said
    assert signal.getsignal(signal.SIGTERM) is before
