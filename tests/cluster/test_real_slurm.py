"""The executor `slurm` on a real Slurm of one node, which the test starts itself. Run by `tox -e cluster`."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import How, Job, records, registry, run_job
from benchmark.run import executors

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
ABSENT = [name for name in PROGRAMS if shutil.which(name) is None]
pytest.importorskip("submitit", reason="submitit is not installed: pip install 'adaptbench[slurm]'")
from bench_executors.on_slurm import SlurmOptions  # noqa: E402

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(ABSENT), reason=f"no {', '.join(ABSENT)} (Debian: slurmctld, slurmd, slurm-client, munge)"),
    pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can start a Slurm"),
]
CONFIG = """
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16917
SlurmdPort=16918
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={at}/munge.sock
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
WORLD = """
import os, time
from dataclasses import replace
from pathlib import Path
from benchmark import hookimpl
from benchmark.errors import RunFailed
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod

MARK = Path(__file__).parent

class Slow(ToyMethod):
    def train_step(self, batch):
        if not (MARK / "fast").exists():
            (MARK / "trains").touch()
            time.sleep(0.1)
        return super().train_step(batch)

class Fails(ToyMethod):
    def begin_experience(self, experience):
        raise RunFailed("it cannot be", hint="do not")

@hookimpl
def bench_register_methods():
    return [TOY_METHOD, replace(TOY_METHOD, name="slow", build=Slow), replace(TOY_METHOD, name="fails", build=Fails)]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm; gives the folder of its logs."""
    at = tmp_path_factory.mktemp("slurm")
    for part in (*(at.parents[i] for i in range(len(at.parents) - 2)), at):
        part.chmod(part.stat().st_mode | 0o055)  # munge wants to see who may change its socket
    host = platform.node().split(".")[0]
    (at / "slurm.conf").write_text(CONFIG.format(at=at, host=host, cores=os.cpu_count()), encoding="utf-8")
    for folder in ("state", "spool"):
        (at / folder).mkdir()
    (at / "key").write_bytes(secrets.token_bytes(64))
    (at / "key").chmod(0o600)
    munged = ["munged", "--foreground", "--force", f"--key-file={at / 'key'}", f"--socket={at / 'munge.sock'}"]
    munged += [f"--{name}-file={at / name}" for name in ("pid", "log", "seed")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(at / "slurm.conf"))
        daemons = []
        try:
            for words in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
                with (at / f"{words[0]}.out").open("wb") as out:
                    daemons.append(subprocess.Popen(words, stdout=out, stderr=out))
                time.sleep(1)
            until = time.monotonic() + 30
            while (
                "idle"
                not in (said := subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)).stdout
            ):
                assert time.monotonic() < until, said
                time.sleep(0.5)
            yield at
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(timeout=30)


@pytest.fixture
def world(tmp_path: Path, registry_as_it_was: None) -> Path:
    """The folder of a plugin."""
    path = tmp_path / "slurm_world.py"
    path.write_text(WORLD, encoding="utf-8")
    registry.add_file(path)
    return tmp_path


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}, "device": "cpu"}
    return Job(**{**values, "out": str(out), **changes})


def test_packs_of_runs_come_back_and_one_that_is_cancelled_is_submitted_again(
    slurm: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = world / "out"
    slow = job(out, method="slow", settings={"epochs": "300"})
    jobs = [slow, job(out, method="fails"), job(out), job(out, seed=1)]

    def started(one: Job, place: str) -> None:
        if one == slow and not (world / "fast").exists():
            while not (world / "trains").exists():
                time.sleep(0.05)
            time.sleep(1)
            subprocess.run(["scancel", place.rpartition("(")[2].rstrip(")")], check=True)
            (world / "fast").touch()

    how = How(workers=2, started=started, options=SlurmOptions(pack=2, poll=1, walltime=5))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = {(one.job.method, one.job.seed): one for one in executors.execute("slurm", jobs, how)}
    assert [found[name].status for name in (("slow", 0), ("fails", 0), ("toy-linear", 0), ("toy-linear", 1))] == [
        *("done", "failed", "done", "done")
    ], {name: one.error for name, one in found.items()}
    assert str(found["fails", 0].error).startswith("it cannot be; its last lines: ")
    assert sum("is gone before its runs are done" in str(one.message) for one in said) == 1
    path = found["slow", 0].path
    assert path is not None
    record = records.read(path)
    assert record.timing.resumed == 1
    other = run_job(job(world / "other", method="slow", settings={"epochs": "300"}))
    assert records.comparable(record) == records.comparable(records.read(other))


def test_a_job_whose_time_is_up_goes_back_into_the_queue(
    slurm: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes: Slurm lets a requeued job wait."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slow = job(world / "out", method="slow", settings={"epochs": "600"})
    turns: list[str] = []

    def started(one: Job, place: str) -> None:
        turns.append(place)
        if len(turns) == 2:
            (world / "fast").touch()

    how = How(workers=1, started=started, options=SlurmOptions(poll=1, walltime=2, grace=25))
    (outcome,) = executors.execute("slurm", [slow], how)
    assert outcome.status == "done", outcome.error
    assert outcome.path is not None
    record = records.read(outcome.path)
    assert record.timing.resumed == 1
    assert len(turns) == 2
    assert turns[0].rpartition("(")[2] == turns[1].rpartition("(")[2], "the same Slurm job, put back"
    other = run_job(job(world / "other", method="slow", settings={"epochs": "600"}))
    assert records.comparable(record) == records.comparable(records.read(other))
