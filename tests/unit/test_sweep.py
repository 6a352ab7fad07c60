"""`bench sweep`: plans, grids, worker processes that die, fail or are stopped, and what is said about it all.

Most workers here are small programs that speak as `benchmark.run.worker` does; one sweep has real ones.
"""

from __future__ import annotations

import errno
import io
import json
import os
import queue
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmark import How, Job, jobs, records
from benchmark.cli import live, main
from benchmark.errors import EXIT_DATA, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, DataMissing, RunFailed
from benchmark.run import executors, interruption, machine, pool, worker
from benchmark.run.interruption import Interrupted
from benchmark.run.jobs import Shelf, life_cycle

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
PLUGIN = """
import os, signal
from dataclasses import replace
from pathlib import Path
from benchmark import hookimpl
from benchmark.errors import RunFailed
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod

class Dies(ToyMethod):
    def end_experience(self, experience):
        super().end_experience(experience)
        for mark in (Path(os.environ["MARK"] + str(turn)) for turn in range(3)):
            if not mark.exists():  # two experiences go well, the third one that ends takes its process with it
                mark.touch()
                if mark.name.endswith("2"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return

class Fails(ToyMethod):
    def begin_experience(self, experience):
        print("about to fail")
        raise RunFailed("it cannot be")

@hookimpl
def bench_register_methods():
    return [TOY_METHOD, replace(TOY_METHOD, name="dies", build=Dies), replace(TOY_METHOD, name="fails", build=Fails)]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""
LINE = ["--scenario", "toy", "--device", "cpu"]


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}, "device": "cpu"}
    return Job(**{**values, "out": str(out), **changes})


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["sweep", *LINE, *words, "--dry-run", "--json"]) == EXIT_OK
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


# --- plans ----------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_of_its_values_that_reaches_the_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--method", "toy-linear,fails", "--seed", "0,1", "--out", str(tmp_path)]
    grid = ["--grid", "epochs=1,2", "--grid", "toy-linear.lr=0.1,0.2,0.1", "--grid", "scenario.train=8"]
    found = plan(capsys, *words, *grid)
    assert len(found) == 2 * (2 * 2 + 2)
    assert found[0]["label"] == "toy-linear on toy, seed 0, epochs=1, toy-linear.lr=0.1, scenario.train=8"
    assert {len(one["grid"]) for one in found if one["method"] == "fails"} == {2}
    assert len({one["label"] for one in found}) == len(found)


def test_full_keys_are_those_of_messages_and_equal_values_are_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--method", "toy-linear,fails", "--out", str(tmp_path), "--set", "scenario.toy.train=8"]
    found = plan(capsys, *words, "--grid", "method.toy-linear.lr=0.1,1e-1,0.10,0.2")
    assert [(one["method"].partition("@")[0], one["grid"]) for one in found] == [
        ("toy-linear", {"method.toy-linear.lr": "0.1"}),
        ("toy-linear", {"method.toy-linear.lr": "0.2"}),
        ("fails", {}),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "lr=1", "--grid", "lr=2"], "--grid lr: given twice"),
        (["--grid", "method.toy-linear.lrr=1,2"], "--grid: unknown option `method.toy-linear.lrr`"),
        (["--set", "method.toy-linear.lrr=1"], "--set: unknown option `method.toy-linear.lrr`"),
    ],
)
def test_what_no_grid_can_be_is_named_as_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["sweep", *LINE, "--method", "toy-linear", "--out", str(tmp_path), *words]) == EXIT_USAGE
    assert message in capsys.readouterr().err


def test_a_file_says_the_same_as_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        f"[run]\nscenario = 'toy'\nmethod = 'fails'\nout = {str(tmp_path)!r}\n"
        "[sweep]\nmethod = ['toy-linear']\nseed = '0-1'\njobs = 2\n"
        "[sweep.grid]\nepochs = [1, 2]\n'scenario.family' = ['class-il', 'domain-il']\n",
        encoding="utf-8",
    )
    words = ["--method", "toy-linear", "--seed", "0,1", "--grid", "epochs=1,2", "--out", str(tmp_path)]
    other = plan(capsys, *words, "--grid", "scenario.family=class-il,domain-il")
    assert plan(capsys, "--config", str(file)) == other
    assert len(plan(capsys, "--config", str(file), "--grid", "epochs=3", "--seed", "4")) == 2, "the line wins"
    assert main(["run", "--config", str(file)]) == EXIT_USAGE
    assert "bench sweep --config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "file", "message"),
    [
        (["--grid", "epochs"], "", "--grid epochs: not of the form key=value"),
        (["--grid", "epochs="], "", "--grid epochs: a value is missing"),
        (["--grid", "epochs=1,,2"], "", "--grid epochs: a value is missing"),
        (["--grid", "epocs=1"], "", "epocs"),
        (["--grid", "epochs=1,x"], "", "epochs"),
        (["--grid", "epochs=1,2", "--set", "epochs=3"], "", "`epochs` is in --set and in the grid"),
        (["--jobs", "0"], "", "at least one run"),
        (["--results", "/nowhere"], "", "no results folder"),
        ([], "[sweep]\ngrids = 1", "did you mean `sweep.grid`"),
        ([], "[sweep]\ngrid = 1", "sweep.grid is not a table"),
        ([], "[sweep.grid]\ntoy-linear.epochs = [1]", "toy-linear is a table"),
        ([], "[sweep.grid]\nepochs = []", "a value is missing"),
        ([], "[sweep]\njobs = 'many'", "sweep.jobs"),
    ],
)
def test_what_cannot_be_planned_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], file: str, message: str
) -> None:
    (tmp_path / "s.toml").write_text(file, encoding="utf-8")
    more = ["--method", "toy-linear", "--config", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]
    assert main(["sweep", *LINE, *more, *words]) == EXIT_USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_thread_asked_for_is_one_thread_in_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one only waits where others compute: MKL's own variable goes before the common one."""
    for name in jobs.THREADS:
        monkeypatch.delenv(name, raising=False)
    for given, wanted in {"": "4", "1": "1", "8": "4", "0": "4", "many": "4"}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert jobs.threads(4) == dict.fromkeys(jobs.THREADS, wanted), given
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1"}
    assert jobs.threads(4) == wanted


# --- real workers ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_sweep_gives_the_records_of_runs_one_after_the_other_whatever_dies_or_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "died"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [*LINE, "--method", "dies,toy-linear,fails", "--set", "epochs=1", "--seed", "0,1"]
    out = tmp_path / "sweep"
    assert main(["sweep", *words, "--out", str(out)]) == EXIT_FAILED
    told = capsys.readouterr().err
    assert "6 runs, 0 finished: unknown" in told
    assert "was killed by SIGKILL (often a full memory): the run goes on in a new one" in told
    assert "[6/6] " in told
    assert "4 done, 2 failed" in told
    assert told.count("\nfailed: fails on toy, seed ") == 2
    assert "it cannot be" in told
    logs = sorted((out / ".logs").iterdir())
    assert [log.name.rpartition("-")[0] for log in logs] == ["toy-fails-0", "toy-fails-1"]
    assert "about to fail" in logs[0].read_text(encoding="utf-8")
    assert main(["run", *words, "--out", str(tmp_path / "run"), "-q"]) == EXIT_FAILED
    both = [
        [one for one in records.read_all(folder)[0] if one.status == "completed"] for folder in (out, tmp_path / "run")
    ]
    assert len(both[0]) == 4
    assert [records.comparable(one) for one in both[0]] == [records.comparable(one) for one in both[1]]
    hashes = [[one.predictions.sha256 for one in ones if one.predictions] for ones in both]
    assert hashes[0] == hashes[1]
    capsys.readouterr()
    words[5] = "dies,toy-linear"
    expected = plan(capsys, *words[2:], "--out", str(out))
    assert [one["finished"] for one in expected] == [True] * 4
    assert all(one["seconds"] > 0 for one in expected)
    assert main(["sweep", *words, "--seed", "0-2", "--out", str(out), "--dry-run", "--jobs", "3"]) == EXIT_OK
    assert "6 runs, 4 finished: about " in capsys.readouterr().out
    again = plan(capsys, *words[2:], "--out", str(tmp_path / "new"), "--results", str(out))
    assert [(one["finished"], one["seconds"]) for one in again] == [(False, one["seconds"]) for one in expected]


# --- workers that are small programs --------------------------------------------------------------

FAKE = """
import json, os, signal, sys, threading, time
orders = sys.stdin
own = json.loads(orders.readline())
for line in orders:
    order = json.loads(line)
    seed, settings = order["job"]["seed"], order["job"]["settings"]
    with open(order["log"], "a") as log:
        log.write(f"threads {os.environ['OMP_NUM_THREADS']}\\nseed {seed}\\n")
    answer = {"status": "done", "path": os.environ["RECORD"], "label": "x", "error": None, "warnings": []}
    what = settings.get("what")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(3)
    if what == "warn":
        answer["warnings"] = ["odd"]
    if what in ("DataMissing", "Fault", "RunBusy", "PluginError"):
        answer |= {"status": "skipped" if what == "RunBusy" else "failed", "path": None}
        answer["error"] = {"kind": what, "message": "no data", "hint": "get some"}
    if what == "wait":
        print("stopping", file=sys.stderr) if orders.read() == "" else None
        time.sleep(0.2)
        open(os.environ["MARK"], "w").close()
        sys.exit(0)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Workers are small programs; gives a results folder."""
    monkeypatch.setattr(pool, "_PROGRAM", FAKE)
    (tmp_path / "record.json").write_text("{}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record.json"))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    return tmp_path / "out"


def test_every_job_is_done_once_and_who_begins_where_is_told(fake: Path) -> None:
    begun: list[str] = []
    jobs = [job(fake, seed=seed) for seed in range(20)]
    how = How(workers=3, started=lambda job, place: begun.append(place))
    outcomes = list(executors.execute("local", jobs, how))
    assert sorted(outcome.job.seed for outcome in outcomes) == list(range(20))
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert len(begun) == 20
    assert set(begun) == {"worker 1", "worker 2", "worker 3"}
    assert not (fake / ".logs").exists(), "logs of runs that went well are removed"


def test_the_log_is_told_where_a_plugin_failed_and_not_where_we_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(method: str) -> dict[str, Any]:
        found: dict[str, Any] = worker.do(job(tmp_path, method=method), Shelf(), life_cycle())["error"]
        return found

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    assert answer("fails")["explained"] is False
    monkeypatch.setattr("os.replace", full)
    told = answer("toy-linear")
    assert told["kind"] == "RunFailed"
    assert told["explained"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize(
    ("what", "message"),
    [("die", "was killed by SIGKILL (often a full memory), 2 times"), ("exit", "ended with exit code 3, 2 times")],
)
def test_a_run_whose_process_dies_twice_has_failed_and_no_other_has(fake: Path, what: str, message: str) -> None:
    jobs = [
        job(fake, seed=0),
        job(fake, seed=7, settings={"what": what}),
        *(job(fake, seed=one) for one in range(2, 6)),
    ]
    with pytest.warns(UserWarning, match="toy-linear on toy, seed 7 .*goes on in a new one"):
        outcomes = {outcome.job.seed: outcome for outcome in executors.execute("local", jobs, How(workers=1))}
    assert [outcomes[seed].status for seed in (0, 2, 3, 4, 5)] == ["done"] * 5
    error = outcomes[7].error
    assert isinstance(error, RunFailed)
    assert message in error.message
    assert "its last lines: " in error.message
    assert "| seed 7" in error.message
    assert "goes on from the last checkpoint" in (error.hint or "")


def test_what_a_worker_says_is_an_outcome_here(fake: Path) -> None:
    whats = ["DataMissing", "Fault", "RunBusy", "warn", "PluginError"]
    with pytest.warns(UserWarning, match="odd"):
        found = list(pool.run([job(fake, settings={"what": what}) for what in whats], How(workers=1)))
    data, fault, busy, _, plugin = [outcome.error for outcome in found]
    assert [outcome.status for outcome in found] == ["failed", "failed", "skipped", "done", "failed"]
    assert isinstance(data, DataMissing)
    assert data.message == "no data"
    assert (data.hint or "").startswith("get some; log: ")
    assert isinstance(fault, RunFailed)
    assert "no data; its last lines: " in fault.message
    assert plugin is not None
    assert "no data; its last lines: " in plugin.message
    assert busy is not None
    assert busy.hint == "get some"


def test_the_exit_code_and_one_line_tell_each_failure(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(fake, seed=0), job(fake, seed=1, settings={"what": "DataMissing"})]
    from argparse import Namespace

    from benchmark.cli import sweep

    state = live.State(jobs, ["first", "second"], [None, None], workers=1)
    assert sweep._execute(Namespace(json=False, quiet=True), jobs, "local", state, How(workers=1)) == EXIT_DATA
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [os.environ["RECORD"]]
    assert shown.err.startswith("failed: second: no data (get some; log: ")


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes there")
def test_ctrl_c_stops_all_workers_and_says_how_to_go_on(fake: Path, tmp_path: Path) -> None:
    jobs = [job(fake, settings={"what": "wait"}), job(fake, seed=1)]

    def started(job: Job, place: str) -> None:
        threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.warns(UserWarning, match="waiting until 1 run"),
            pytest.raises(Interrupted, match="stopped: 0 of 2 runs are done") as caught,
        ):
            list(executors.execute("local", jobs, How(workers=1, started=started)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.exit_code == EXIT_INTERRUPTED
    assert (caught.value.hint or "").startswith("resume with: ")
    assert (tmp_path / "mark").exists(), "the worker came to its checkpoint"


def test_a_sweep_that_is_given_up_leaves_no_process(fake: Path, tmp_path: Path) -> None:
    outcomes = executors.execute("local", [job(fake), job(fake, settings={"what": "wait"})], How(workers=2))
    assert next(outcomes).status == "done"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes.close()
    assert (tmp_path / "mark").exists()


def test_cores_are_divided_and_a_user_may_want_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [jobs.threads(pool._share(workers))["OMP_NUM_THREADS"] for workers in (2, 20)] == ["4", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [jobs.threads(pool._share(workers))["OMP_NUM_THREADS"] for workers in (2, 4)] == ["3", "2"]
    assert machine.cores() > 0
    assert (machine.memory() or 1) > 0


def test_a_worker_takes_its_gpu_and_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *share: asked.append(share))
    worker.share_accelerators(2, 3)
    assert asked == [0, (0.5, 0)]


def test_a_worker_that_is_told_to_stop_from_two_sides_still_comes_to_its_checkpoint() -> None:
    """A cluster sends SIGTERM to every process, and the parent ends the orders."""
    stop = interruption.Stop(patient=True)
    with stop.installed():
        with stop.deferring():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)  # while the checkpoint is written
    other = interruption.Stop(patient=True)
    with other.installed():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # while it says what is finished
    usual = interruption.Stop()
    with usual.installed(), usual.deferring():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_the_end_of_the_orders_interrupts_what_is_being_done() -> None:
    orders = worker._Orders(io.BytesIO(b'{"job": 1}\n'))
    assert orders.next() == {"job": 1}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert orders.next() is None
        hand = io.BytesIO(b"")
        busy = worker._Orders.__new__(worker._Orders)
        busy.busy, busy._found = True, queue.SimpleQueue()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            busy._read(hand)
            for _ in range(1000):
                pass
    finally:
        signal.signal(signal.SIGINT, before)


# --- what is shown --------------------------------------------------------------------------------


def test_the_time_left_comes_from_records_and_from_what_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    jobs = [job(tmp_path, seed=seed) for seed in range(4)]
    state = live.State(jobs, [f"run {seed}" for seed in range(4)], [0.0, 30.0, None, None], workers=2)
    assert state.eta() is None
    state.started(jobs[2], "worker 1")
    now[0] += 10
    from benchmark import Outcome

    state.started(jobs[3], "worker 1")  # before the end of the other is told
    state.ended(Outcome(job=jobs[2], status="done"))
    assert state.eta() == (30 + 10) / 2
    now[0] += 4
    assert state.eta() == (30 + 10 - 4) / 2
    assert state.running() == [("worker 1", "run 3", "4 s")]
    state.ended(Outcome(job=jobs[3], status="failed", error=RunFailed("no [bold]way", hint="look")))
    assert state.summary() == "4 runs in 14 s: 1 done, 1 failed"
    assert state.failed == ["run 3: no [bold]way (look)"]
    console = Console(file=io.StringIO(), width=100)
    console.print(live.render(state))
    shown = console.file.getvalue()
    assert "2 of 4 runs: 1 done, 1 failed; about 15 s left" in shown
    assert "failed: run 3: no [bold]way (look)" in shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.4, "3 s"), (90, "2 min"), (3599, "1 h 00 min"), (7860, "2 h 11 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert live.duration(seconds) == words
