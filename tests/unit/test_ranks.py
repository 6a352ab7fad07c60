"""One run in two processes: equal to one process with as many parts, resumed bit for bit, refused with the reason."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import records, registry
from benchmark.cli import main
from benchmark.records import predictions
from benchmark.run import engine
from benchmark.testing.toys import ToyMethod, prepare_toy

FILE = Path(__file__).with_name("two_processes.py")


def script() -> Any:
    spec = importlib.util.spec_from_file_location("two_processes", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(arguments: list[str], number: int, port: int) -> subprocess.Popen[str]:
    env = {"TORCHELASTIC_RUN_ID": "test", "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def logits(path: Path) -> Any:
    return predictions.read(path.with_suffix(".parquet")).logits


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out, port = tmp_path_factory.mktemp("ranks"), free_port()
    processes = [started([str(FILE), str(out)], number, port) for number in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return out, [text for text, _ in said]


def alone(folder: Path, build: Any, settings: dict[str, str]) -> Path:
    prepared = prepare_toy(build=build, uses=frozenset({"boundaries", "num_classes"}), settings=settings)
    return engine.execute(prepared, folder, hooks=registry.without_life_cycle(), quiet=True)


def same(path: Path, other: Path) -> None:
    np.testing.assert_allclose(logits(path), logits(other), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(records.read(path)["losses"], records.read(other)["losses"], strict=True):
        assert [epoch["loss"] for epoch in mine] == pytest.approx([epoch["loss"] for epoch in theirs], rel=1e-4)


def test_two_processes_are_as_one(ran: tuple[Path, list[str]], tmp_path: Path) -> None:
    (path,) = (ran[0] / "plain").rglob("*.json")
    two, one = records.read(path), alone(tmp_path, ToyMethod, script().PLAIN)
    assert two["config"]["effective"]["engine"]["ranks"] == 2
    assert two["config"]["origin"]["engine.ranks"] == "torchrun"
    assert one.stem != path.stem
    same(path, one)


def test_two_processes_drop_out_as_one_with_two_parts(ran: tuple[Path, list[str]], tmp_path: Path) -> None:
    (path,) = (ran[0] / "whole").rglob("*.json")
    here = script()
    same(path, alone(tmp_path, here.Dropping, {**here.SETTINGS, "engine.micro_batch": "4"}))


def test_a_run_that_one_process_stopped_goes_on_bit_for_bit(ran: tuple[Path, list[str]]) -> None:
    assert all("resumed" in text for text in ran[1])
    whole, pieces = (next((ran[0] / name).rglob("*.json")) for name in ("whole", "pieces"))
    first, second = (json.dumps(records.comparable(records.read(path)), sort_keys=True) for path in (whole, pieces))
    assert first == second
    assert np.array_equal(logits(whole), logits(pieces))


def test_only_the_first_process_writes(ran: tuple[Path, list[str]]) -> None:
    for name in ("whole", "pieces"):
        assert len(list((ran[0] / name).rglob("*.json"))) == 1
        assert not list((ran[0] / name).rglob("*.work"))


def test_what_compares_samples_of_a_batch_is_refused_in_every_process(ran: tuple[Path, list[str]]) -> None:
    for text in ran[1]:
        assert "engine.ranks=2: not with method `toy-linear`: the loss has a variance of the batch" in text


def test_processes_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--scenario", "split-glyphs", "--method", "finetune", "--dry-run", "--set", "engine.ranks=2"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "engine.ranks=2: this run has 1 process\n" in said
    assert "torchrun --nproc-per-node 2" in said


def test_several_runs_do_not_share_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ["run", "--scenario", "split-glyphs", "--method", "finetune", "--seed", "0,1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "2 processes share one run, but 2 runs were asked for" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_starts_a_run(tmp_path: Path) -> None:
    """The command of the documentation, on a bundled stream, twice: the second time there is nothing left to do."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command += ["-m", "benchmark", "run", "--scenario", "split-glyphs", "--method", "finetune", "--device", "cpu"]
    command += ["--set", "epochs=1", "--out", str(tmp_path)]
    for text in ("final average accuracy", "already done"):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
        assert (done.stdout + done.stderr).count(text) == 1
    assert len(list(tmp_path.rglob("*.json"))) == 1
