"""Where and how many at once runs are done, options of executors, kinds of locks, and results of several machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import How, Job, records
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE, RunBusy, UsageError
from benchmark.run import executors, lease, places

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
LINE = ["--scenario", "toy", "--method", "toy-linear", "--set", "epochs=1", "--device", "cpu"]
PLUGIN = """
from dataclasses import dataclass
from typing import Annotated, Literal

from benchmark import ExecutorSpec, hookimpl, run_jobs
from benchmark.config import Range
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO

@dataclass(frozen=True)
class Options:
    queue: str = "short"
    cpus: Annotated[int, Range(min=1)] = 1
    kind: Literal["cheap", "dear"] = "cheap"

seen = []

def execute(jobs, how):
    seen.append(how)
    return run_jobs(jobs)

@hookimpl
def bench_register_executors():
    return [
        ExecutorSpec(name="queue", execute=execute, summary="with options", config=Options),
        ExecutorSpec(name="plain", execute=execute, summary="without"),
    ]

@hookimpl
def bench_register_methods():
    return [TOY_METHOD]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}, "device": "cpu"}
    return Job(**{**values, "out": str(out), **changes})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[How]:
    """What executors are asked for, instead of doing it."""
    found: list[How] = []

    def execute(name: str, jobs: Any, how: How) -> Iterator[Any]:
        found.append(how)
        return (one for one in ())

    monkeypatch.setattr(executors, "execute", execute)
    return found


def test_run_and_sweep_do_as_many_at_once_as_they_are_told(tmp_path: Path, asked: list[How]) -> None:
    file = tmp_path / "f.toml"
    file.write_text("[run]\njobs = 3\n", encoding="utf-8")
    for command in ("run", "sweep"):
        for more in ([], ["--jobs", "2"], ["--config", str(file)]):
            assert main([command, *LINE, "--out", str(tmp_path), *more]) == EXIT_OK
    assert [how.workers for how in asked] == [0, 2, 3, 1, 2, 3]


def test_options_of_an_executor_come_from_the_line_the_file_and_defaults(
    tmp_path: Path, asked: list[How], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text("[run]\nexecutor = 'queue'\n[executor.queue]\ncpus = 2\nkind = 'dear'\n", encoding="utf-8")
    words = ["run", *LINE, "--out", str(tmp_path / "out"), "--config", str(file), "--executor-set", "cpus=4"]
    assert main(words) == EXIT_OK
    options = asked[0].options
    assert (options.queue, options.cpus, options.kind) == ("short", 4, "dear")
    assert main([*words, "--dry-run", "--json"]) == EXIT_OK
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(capsys.readouterr().out)[0]}
    assert rows["executor"] == ("queue", str(file))
    assert rows["executor.cpus"] == (4, "--executor-set")
    assert rows["executor.kind"] == ("dear", str(file))
    assert rows["executor.queue"] == ("short", "default")
    assert main(["info", "queue", "--json"]) == EXIT_OK
    told = json.loads(capsys.readouterr().out)["options"]
    assert told[1] == {"option": "cpus", "default": 1, "range": "1 or more"}


@pytest.mark.parametrize(
    ("words", "file", "message"),
    [
        (["--executor-set", "cpu=1"], "", "did you mean `executor.queue.cpus`"),
        (["--executor-set", "cpus=0"], "", "--executor-set: executor.queue.cpus: 0 is too small; use 1 or more"),
        (["--executor-set", "kind=free"], "", "use one of cheap, dear"),
        (["--executor-set", "kind"], "", "--executor-set kind: not of the form key=value"),
        (["--executor", "plain", "--executor-set", "kind=dear"], "", "executor `plain` has no option `kind`"),
        ([], "[executor.queue]\ncpus = 'many'", "executor.queue.cpus: 'many' is not a whole number"),
        ([], "[executor.queu]\ncpus = 1", "did you mean `queue`"),
        ([], "[executor]\ncpus = 1", "write [executor.NAME]"),
        ([], "[run]\njobs = 0", "at least one run goes on at a time"),
    ],
)
def test_an_option_that_is_wrong_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], file: str, message: str
) -> None:
    (tmp_path / "f.toml").write_text(file, encoding="utf-8")
    more = ["--out", str(tmp_path / "out"), "--config", str(tmp_path / "f.toml"), "--executor", "queue", *words]
    assert main(["run", *LINE, *more]) == EXIT_USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_from_python_an_executor_has_its_defaults(tmp_path: Path, plugin_file: Any) -> None:
    assert list(executors.execute("queue", [])) == []
    assert plugin_file.seen[-1].options == plugin_file.Options()
    assert list(executors.execute("queue", [], How(options=plugin_file.Options(cpus=3)))) == []
    assert plugin_file.seen[-1].options.cpus == 3


def test_leases_are_asked_for_once_and_change_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *LINE, "--out", str(tmp_path / "a"), "--lock-kind", "lease", "-q"]) == EXIT_OK
    assert main(["run", *LINE, "--out", str(tmp_path / "b"), "-q"]) == EXIT_OK
    one, other = (records.read(next((tmp_path / name).rglob("*.json"))) for name in "ab")
    assert records.comparable(one) == records.comparable(other)
    assert (tmp_path / "a" / places.LEASES).exists()
    assert not (tmp_path / "b" / places.LEASES).exists()
    (path,) = (tmp_path / "a").rglob("*.json")
    with lease.held(path.with_suffix(".lease")) as ours:  # another machine works on it
        assert ours is not None
        (outcome,) = benchmark.run_jobs([job(tmp_path / "a", force=True)])
    assert outcome.status == "skipped"
    with pytest.raises(UsageError, match="lock_kind: 'none' is unknown"):
        benchmark.run_job(job(tmp_path, lock_kind="none"))


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def check(ours: lease.Lease) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RunBusy("another one has taken over")

    monkeypatch.setattr(lease.Lease, "check", check)
    (outcome,) = benchmark.run_jobs([job(tmp_path, lock_kind="lease")])
    assert outcome.status == "skipped"
    assert not list(tmp_path.rglob("*.json")), "no record of a failed run over that of the other"
    (work,) = tmp_path.rglob("*.work")
    assert sorted(file.name for file in work.iterdir()) == ["boundary.safetensors", "predictions-0000.parquet"]
    monkeypatch.undo()
    (again,) = benchmark.run_jobs([job(tmp_path)])
    assert again.status == "done"


def test_results_of_several_machines_merge_by_copying_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, one, merged = (tmp_path / name for name in ("first", "second", "one", "merged"))
    for out, seeds in ((first, (0, 1)), (second, (1, 2)), (one, (0, 1, 2))):
        assert {outcome.status for outcome in benchmark.run_jobs([job(out, seed=seed) for seed in seeds])} == {"done"}
    for out in (first, second):  # seed 1 was done on both
        shutil.copytree(out, merged, dirs_exist_ok=True)
    tables = []
    for out in (one, merged):
        assert main(["leaderboard", "--results", str(out), "--format", "markdown"]) == EXIT_OK
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "toy-linear" in tables[0]
    assert [outcome.status for outcome in benchmark.run_jobs([job(merged, seed=seed) for seed in range(3)])] == [
        "known"
    ] * 3
