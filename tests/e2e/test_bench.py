"""The installed `bench`, as a user calls it: run, resume after kill -9, tables, errors, exit codes.

A process of its own takes seconds to import torch. What is about more than one command, or about words and exit codes,
is asked of the same entry point in this process, after one that was installed has done its part.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmark import records
from benchmark.cli import main

Here = Callable[..., tuple[str, str]]
BENCH = Path(sys.executable).with_name("bench")
# Small streams of the bundled world: seconds each.
SMALL = ["--set", "scenario.train=2", "--set", "scenario.test=1"]


def bench(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs `bench` and checks its exit code."""
    done = subprocess.run([str(BENCH), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`bench` in this process, in an empty folder: gives what was printed to stdout and to stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        found = main(arguments)
        shown = capsys.readouterr()
        assert found == code, f"exit {found}\n{shown.out}\n{shown.err}"
        return shown.out, shown.err

    return call


def small(method: str, out: str, *more: str) -> list[str]:
    """Arguments of a run that takes seconds."""
    return ["run", "--scenario", "split-glyphs", "--method", method, "--out", out, *SMALL, *more]


def comparable(folder: Path) -> str:
    """The only record below a folder, without what may differ between two executions."""
    found, problems = records.read_all(folder)
    assert len(found) == 1
    assert not problems
    assert found[0]["status"] == "completed"
    return json.dumps(records.comparable(found[0]), sort_keys=True)


def test_run_resume_leaderboard_metrics(tmp_path: Path, here: Here) -> None:
    first = bench(*small("nearest-mean,linear-probe", "runs", "--seed", "0,1", "--set", "epochs=1"), cwd=tmp_path)
    assert "final average accuracy" in first.stdout
    assert first.stdout.count("record: ") == 4
    assert "accuracy in %" in first.stdout
    _, told = here(*small("nearest-mean", "runs", "--set", "epochs=1"))
    assert "already done" in told
    table, _ = here("leaderboard")
    assert "nearest-mean" in table
    assert "linear-probe" in table
    record = next((tmp_path / "runs").rglob("*.json"))
    here("metrics", str(record), "--forgetting", "clipped")
    assert json.loads(here("metrics", str(record), "--json")[0])


def test_kill_at_random_points_then_resume_is_bit_for_bit(tmp_path: Path, here: Here) -> None:
    """kill -9 at random moments, also within an experience; the record must not tell."""
    arguments = ["--set", "engine.checkpoint_seconds=0", "--set", "epochs=2", "-q"]
    here(*small("l2p", "whole", *arguments))
    chance = random.Random(20261122)
    kills = 0
    while kills < 4:
        process = subprocess.Popen(
            [str(BENCH), *small("l2p", "cut", *arguments)],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Wait until this process has written a checkpoint, so that every attempt gets further.
        before = checkpoints(tmp_path / "cut")
        while process.poll() is None and checkpoints(tmp_path / "cut") == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.6))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2, "the run was over before it could be killed twice"
    bench(*small("l2p", "cut", *arguments), cwd=tmp_path)
    assert comparable(tmp_path / "cut") == comparable(tmp_path / "whole")
    files = [next((tmp_path / name).rglob("*.parquet")).read_bytes() for name in ("cut", "whole")]
    assert files[0] == files[1]


def checkpoints(folder: Path) -> list[tuple[str, int]]:
    """Names and times of the checkpoints below a folder."""
    found = []
    for path in folder.rglob("*.safetensors"):
        try:
            found.append((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:  # replaced between listing and looking
            continue
    return sorted(found)


def test_ctrl_c_keeps_what_is_done_and_prints_how_to_resume(tmp_path: Path) -> None:
    arguments = small("l2p", "my runs", "--set", "engine.checkpoint_seconds=0")
    process = subprocess.Popen(
        [str(BENCH), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not checkpoints(tmp_path / "my runs"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "are finished and kept" in errors
    assert "Traceback" not in errors
    (line,) = re.findall(r"^hint: resume with: (.+)$", errors, re.MULTILINE)
    pasted = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert pasted.returncode == 0, pasted.stderr
    assert comparable(tmp_path / "my runs")
    (record,) = records.read_all(tmp_path / "my runs")[0]
    assert record["timing"]["resumed"] == 1


@pytest.mark.slow
def test_ctrl_c_stops_a_sweep_in_the_middle_of_its_runs_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many for runs on their own as for two at once
    words = small("l2p", "runs", "--seed", "0,1", "--set", "engine.checkpoint_seconds=0")[1:]
    grid = ["--grid", "epochs=1", "--jobs", "2"]
    process = subprocess.Popen([str(BENCH), "sweep", *words, *grid], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not checkpoints(tmp_path / "runs"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "runs are done, what the others have finished is kept" in errors
    assert "waiting until " in errors
    assert "Traceback" not in errors
    kept = [record["status"] for record in records.read_all(tmp_path / "runs")[0]]
    assert "interrupted" in kept, "a worker has stopped at a step and said so"
    (line,) = re.findall(r"^hint: resume with: (.+)$", errors, re.MULTILINE)
    assert " sweep " in line
    pasted = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert pasted.returncode == 0, pasted.stderr
    words[words.index("runs")] = "alone"
    bench("run", *words, "--set", "epochs=1", "-q", cwd=tmp_path)
    found = [records.read_all(tmp_path / name)[0] for name in ("runs", "alone")]
    assert len(found[0]) == 2
    assert any(record["timing"]["resumed"] for record in found[0])
    assert [records.comparable(record) for record in found[0]] == [records.comparable(record) for record in found[1]]


@pytest.mark.slow
def test_a_sweep_killed_three_times_gives_the_tables_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = small("l2p,nearest-mean", "cut", "--seed", "0,1", "--set", "engine.checkpoint_seconds=0", "-q")[1:]
    command = [str(BENCH), "sweep", *words, "--grid", "l2p.epochs=1,2", "--jobs", "2"]
    for _ in range(3):
        before = checkpoints(tmp_path / "cut")
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and before == checkpoints(tmp_path / "cut"):
            time.sleep(0.01)
        time.sleep(1)
        assert process.poll() is None, "it was over before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()
    assert len(list((tmp_path / "cut").rglob("*.json"))) < 6, "the last one had something left to do"
    subprocess.run(command, cwd=tmp_path, check=True, timeout=500)
    subprocess.run(["whole" if word == "cut" else word for word in command], cwd=tmp_path, check=True, timeout=500)
    found = [records.read_all(tmp_path / name)[0] for name in ("cut", "whole")]
    assert len(found[0]) == 6
    assert [records.comparable(record) for record in found[0]] == [records.comparable(record) for record in found[1]]
    cut, whole = (
        pd.read_csv(io.StringIO(bench("leaderboard", "--results", name, "--format", "csv", cwd=tmp_path).stdout))
        for name in ("cut", "whole")
    )
    measured = [*(column for column in whole if "second" in column), "peak_memory_bytes", "typed"]
    pd.testing.assert_frame_equal(cut.drop(columns=measured), whole.drop(columns=measured))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--scenario", "split-glyph", "--method", "l2p"], 2, "unknown scenario `split-glyph`"),
        (["run", "--scenario", "split-glyphs", "--method", "l2pp"], 2, "did you mean `l2p`"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p@pilt"], 2, "did you mean `pilot`"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--set", "topk=3"], 2, "method.l2p.top_k"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--set", "top_k=12"], 2, "larger than pool_size"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--set", "top_k=two"], 2, "not a whole number"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--set", "top_k"], 2, "not of the form key=value"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--track", "mini"], 2, "not offered on track"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--backbone", "nano-vti"], 2, "`nano-vit`"),
        (["run", "--scenario", "split-glyphs", "--method", "l2p", "--seed", "a"], 2, "is not a seed"),
        (["run", "--scenario", "split-glyphs/7x7", "--method", "l2p"], 2, "split"),
        (["run", "--method", "l2p"], 2, "--scenario is missing"),
        (["run", "--scenario", "split-cifar", "--method", "l2p", "--no-download", "--data-root", "."], 4, "cifar100"),
        (["rum"], 2, "did you mean `run`"),
        (["info", "l2q"], 2, "did you mean `l2p`"),
        (["leaderboard", "--results", "nowhere"], 2, "no results folder"),
        (["leaderboard", "--format", "latx"], 2, "did you mean `latex`"),
    ],
)
def test_bad_input_is_one_clear_message(
    tmp_path: Path, here: Here, arguments: list[str], code: int, message: str
) -> None:
    if arguments[:1] == ["leaderboard"] and "--results" not in arguments:
        (tmp_path / "runs").mkdir()
    out, told = here(*arguments, code=code)
    assert message in told
    assert told.startswith("error: ")
    assert "Traceback" not in told
    assert not out


def test_the_exit_code_is_that_of_the_process(tmp_path: Path) -> None:
    done = bench("rum", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: ")
    assert not done.stdout


def test_dry_run_shows_every_value_and_its_origin(tmp_path: Path, here: Here) -> None:
    (tmp_path / "run.toml").write_text("[method.l2p]\ntop_k = 3\n[engine]\neval_batch_size = 64\n")
    out, _ = here(
        "run", "--scenario", "split-glyphs", "--method", "l2p@pilot", "--config", "run.toml",
        "--set", "epochs=2", "--dry-run", "--json",
    )  # fmt: skip
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(out)[0]}
    assert rows["method.epochs"] == (2, "--set")
    assert rows["method.top_k"] == (3, "run.toml")
    assert rows["method.selection_eval"][1] == "recipe pilot"
    assert rows["engine.eval_batch_size"] == (64, "run.toml")
    assert rows["method.readout"][1] == "default"
    assert not (tmp_path / "runs").exists()


def test_a_typo_in_the_file_names_file_and_key(tmp_path: Path, here: Here) -> None:
    (tmp_path / "run.toml").write_text("[method.l2p]\ntop_kk = 3\n")
    _, told = here("run", "--scenario", "split-glyphs", "--method", "l2p", "--config", "run.toml", code=2)
    assert "run.toml: unknown option `method.l2p.top_kk`" in told


def test_show_images_draws_a_picture(tmp_path: Path, here: Here) -> None:
    out, _ = here("info", "split-glyphs", "--show-images", "sheet.png", *SMALL)
    assert "fingerprint" in out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_recipes_are_compared(here: Here) -> None:
    rows = json.loads(here("info", "l2p", "--diff", "pilot,v2-jax", "--json")[0])
    assert {row["option"] for row in rows} >= {"prompt_length", "top_k", "pull", "variant"}
