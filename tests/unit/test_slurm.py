"""The executor `slurm`: what it asks Slurm for, and what it makes of what comes back.

Slurm is a few small programs here that do what its own would say; one test has submitit's local jobs, which are real
processes. A real Slurm is in `tests/cluster`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("submitit")

from bench_executors import on_slurm, parcels
from bench_executors.on_slurm import SlurmOptions
from benchmark import How, Job, Outcome, records, registry, run_job
from benchmark.cli import main
from benchmark.errors import EXIT_USAGE, DataMissing, RunBusy, RunFailed, UsageError
from benchmark.run import executors, pool

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform == "win32", reason="Slurm is for Unix"),
]
GOLDEN = Path(__file__).parents[1] / "golden" / "slurm"
QUICK = {"poll": 0.05}


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}, "device": "cpu"}
    return Job(**{**values, "out": str(out), **changes})


# --- options and what is not there ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["partitoin=gpu"], "did you mean `executor.slurm.partition`"),
        (["cpus=0"], "executor.slurm.cpus: 0 is too small"),
        (["at_once=4", "pack=2"], "executor.slurm.at_once: 4 runs at once, but a job holds 2"),
        (["walltime=1", "grace=60"], "executor.slurm.grace: 60 s are not less than the walltime of 1 min"),
        (["mem_gb=0"], "executor.slurm.mem_gb: 0.0 is not positive"),
        (["cluster=moon"], "use one of slurm, local"),
        (["sbatch==x"], "executor.slurm.sbatch: '=x' has no name"),
    ],
)
def test_an_option_that_is_wrong_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    line = ["--scenario", "split-glyphs", "--method", "nearest-mean", "--out", str(tmp_path), "--executor", "slurm"]
    assert main(["sweep", *line, *(part for word in words for part in ("--executor-set", word))]) == EXIT_USAGE
    assert message in capsys.readouterr().err


def test_without_submitit_or_slurm_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no `sbatch` on this machine") as caught:
        list(executors.execute("slurm", [job(tmp_path / "out")]))
    assert "login node" in (caught.value.hint or "")
    monkeypatch.setattr(on_slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs submitit") as caught:
        list(executors.execute("slurm", [job(tmp_path / "out")]))
    assert caught.value.hint == "pip install 'adaptbench[slurm]'"
    assert not (tmp_path / "out").exists()


def test_the_package_imports_no_library_of_a_cluster() -> None:
    code = "import sys, bench_executors.on_slurm, bench_executors.on_ray\n"
    code += "print({*sys.modules} & {'ray', 'submitit', 'torch'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- a Slurm of small programs --------------------------------------------------------------------

SBATCH = """
import json, re, sys
from pathlib import Path
from submitit.core.utils import DelayedSubmission
here = Path(sys.argv[0]).parent
script = Path(sys.argv[1]).read_text()
(here / f"script-{len(list(here.glob('script-*')))}").write_text(script)
refused = here / "refuses"
if refused.exists():
    sys.exit(refused.read_text())
folder = Path(re.search("#SBATCH --output=(.*)/", script)[1])
number = 40 + len(list(here.glob("script-*")))
packs = [DelayedSubmission.load(file).function for file in sorted(folder.glob("*.pkl")) if "_" not in file.name]
packs.sort(key=lambda pack: pack.jobs[0][0])
for place, pack in enumerate(packs):
    name = f"{number}_{place}" if len(packs) > 1 else str(number)
    with open(pack.told, "a+") as told:
        told.write("\\n")
        told.seek(0)
        done = {json.loads(line)["number"] for line in told if '"status"' in line}
        def tell(**line):
            told.write(json.dumps(line) + "\\n")
        for number_of_run, values in pack.jobs:
            what = values["settings"].get("what", "done")
            if number_of_run in done or what == "lost" or (what == "lost once" and number == 41):
                continue
            tell(number=number_of_run, where="node7, worker 1")
            error = None if what != "DataMissing" else {"kind": what, "message": "no data", "hint": "get some"}
            status = "failed" if error else "done"
            path = None if error else values["data_root"]
            tell(number=number_of_run, status=status, path=path, label="x", error=error)
        told.write('{"warning": "odd"}\\n')
        told.write('{"number": 0, "whe')  # it died in a line
    (folder / f"{name}_0_log.err").write_text("slurmstepd: error: oom\\n")
    if what == "waits":
        (here / "alive").write_text(name)
    (folder / f"{name}_0_result.pkl").touch()
print("Submitted batch job", number)
"""
PROGRAMS = {
    "sbatch": SBATCH,
    "srun": "",
    "scontrol": "",
    "squeue": "import sys; from pathlib import Path; file = Path(sys.argv[0]).parent / 'alive'\n"
    "print(file.read_text() if file.exists() else '')",
    "scancel": "import sys; from pathlib import Path\n"
    "(Path(sys.argv[0]).parent / 'cancelled').write_text(str(sys.argv[1:]))",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(on_slurm, "LOOKS", 0.02)
    (tmp_path / "record.json").write_text("{}")
    return folder


def go(tmp_path: Path, whats: list[str], how: How) -> list[Outcome]:
    record = str(tmp_path / "record.json")
    jobs = [
        job(tmp_path / "out", seed=seed, settings={"what": what}, data_root=record) for seed, what in enumerate(whats)
    ]
    return list(executors.execute("slurm", jobs, how))


def test_the_script_is_as_it_was(tmp_path: Path, slurm: Path) -> None:
    options = SlurmOptions(
        partition="gpu",
        account="lab",
        qos="high",
        constraint="a100",
        walltime=30,
        grace=90,
        cpus=8,
        gpus=1,
        mem_gb=12.5,
        pack=2,
        at_once=2,
        setup="module load cuda; ulimit -n 4096",
        sbatch=("reservation=school", "exclusive"),
        **QUICK,
    )
    with pytest.warns(UserWarning, match="odd"):
        outcomes = go(tmp_path, ["done"] * 5, How(workers=4, options=options))
    assert [outcome.status for outcome in outcomes] == ["done"] * 5
    script = (slurm / "script-0").read_text(encoding="utf-8")
    for found, name in ((str(tmp_path), "/scratch"), (sys.executable, "/python")):
        script = script.replace(found, name)
    script = re.sub("bench-[0-9a-f]{8}", "bench-01234567", script)
    assert script == (GOLDEN / "array.sh").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / ".slurm").exists(), "nothing is left of a sweep that went well"


def test_what_is_not_asked_for_is_left_to_the_cluster(tmp_path: Path, slurm: Path) -> None:
    with pytest.warns(UserWarning, match="odd"):
        go(tmp_path, ["done"], How(workers=1, options=SlurmOptions(**QUICK)))
    flags = re.findall(r"#SBATCH --([\w-]+)", (slurm / "script-0").read_text(encoding="utf-8"))
    for name in ("partition", "account", "qos", "constraint", "mem", "gpus-per-node", "array"):
        assert name not in flags
    assert {"time", "cpus-per-task", "signal", "output", "error"} <= {*flags}


@pytest.mark.filterwarnings("ignore:odd")
def test_outcomes_come_back_and_a_job_that_is_gone_is_submitted_once_more(tmp_path: Path, slurm: Path) -> None:
    begun: list[tuple[int, str]] = []
    how = How(
        workers=2,
        started=lambda job, place: begun.append((job.seed, place)),
        options=SlurmOptions(pack=2, **QUICK),
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outcomes = go(tmp_path, ["done", "DataMissing", "done", "lost once", "lost", "done"], how)
    again = [str(one.message) for one in said if "again" in str(one.message)]
    assert again == [f"Slurm job 41_{n} is gone before its runs are done: they are submitted again" for n in (1, 2)]
    by_seed = {outcome.job.seed: outcome for outcome in outcomes}
    assert [by_seed[seed].status for seed in range(6)] == ["done", "failed", "done", "done", "failed", "done"]
    assert isinstance(by_seed[1].error, DataMissing)
    assert (by_seed[1].error.message, by_seed[1].error.hint) == ("no data", "get some")
    lost = by_seed[4].error
    assert isinstance(lost, RunFailed)
    assert re.match(
        r"Slurm job 4\d(_\d)? ended before its runs, 2 times; its last lines: slurmstepd: .*oom", lost.message
    )
    assert (0, "node7, worker 1 (41_0)") in begun
    assert [seed for seed, _ in begun].count(3) == 1
    assert list((tmp_path / "out" / ".slurm").iterdir()), "the log that the message names is kept"


@pytest.mark.parametrize(
    ("words", "message"), [("", "pack=2"), ("sbatch: error: invalid partition specified: gpo", "invalid partition")]
)
def test_what_slurm_would_refuse_is_one_error(tmp_path: Path, slurm: Path, words: str, message: str) -> None:
    (slurm / "refuses").write_text(words)
    count = 2 if words else 1001
    with pytest.raises(UsageError) as caught:
        go(tmp_path, ["done"] * count, How(workers=1, options=SlurmOptions(**QUICK)))
    assert message in caught.value.message + str(caught.value.hint)


@pytest.mark.filterwarnings("ignore:odd")
def test_ctrl_c_cancels_what_is_left(tmp_path: Path, slurm: Path) -> None:
    record = str(tmp_path / "record.json")
    jobs = [job(tmp_path / "out", settings={"what": "done"}, data_root=record)]
    jobs.append(job(tmp_path / "out", seed=1, settings={"what": "waits"}))
    (slurm / "sbatch").write_text(
        (slurm / "sbatch").read_text().replace('what == "lost" or', 'what in ("lost", "waits") or')
    )
    outcomes = executors.execute("slurm", jobs, How(workers=1, options=SlurmOptions(**QUICK)))
    assert next(outcomes).status == "done"
    threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(UserWarning, match="are cancelled"), pytest.raises(KeyboardInterrupt):
            next(outcomes)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (slurm / "cancelled").read_text() == "['41_1']"


def test_while_slurm_does_not_answer_nothing_is_thought_lost(tmp_path: Path, slurm: Path) -> None:
    sweep = on_slurm._Sweep([job(tmp_path / "out")], How(workers=1), SlurmOptions(**QUICK))
    assert sweep._queue() == set()
    (slurm / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    assert sweep._queue() is None


# --- packs ----------------------------------------------------------------------------------------


def test_outcomes_are_plain_values_on_their_way(tmp_path: Path) -> None:
    class Odd(RunBusy):
        pass

    one = job(tmp_path)
    for outcome in (
        Outcome(job=one, status="done", path=tmp_path / "x.json", label="x"),
        Outcome(job=one, status="skipped", error=Odd("busy", hint="wait")),
    ):
        again = Outcome.of(one, json.loads(json.dumps(outcome.as_dict())))
        assert (again.status, again.path, again.label) == (outcome.status, outcome.path, outcome.label)
        assert (again.error is None) == (outcome.error is None)
    assert type(again.error) is RunBusy
    foreign = {"kind": "Exception", "message": "m", "hint": None}
    assert type(Outcome.of(one, {**outcome.as_dict(), "error": foreign}).error) is RunFailed


def test_paths_are_sent_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = parcels.sent(Job(scenario="a", method="b", out="runs", data_root="data"))
    assert (values["out"], values["data_root"], values["weights"]) == (
        str(tmp_path / "runs"),
        str(tmp_path / "data"),
        None,
    )


def test_a_pack_that_is_put_back_does_what_is_left_and_stops_when_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with workers that are small programs."""
    program = """
import json, sys
json.loads(sys.stdin.readline())
for line in sys.stdin:
    order = json.loads(line)
    open(order["log"], "a").close()
    if order["job"]["seed"] == 3:
        sys.stdin.read()
        sys.exit(0)
    answer = {"status": "done", "path": "r", "label": "x", "error": None, "warnings": ["odd"]}
    print(json.dumps(answer), flush=True)
"""
    monkeypatch.setattr(pool, "_PROGRAM", program)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    told = tmp_path / "told.jsonl"
    told.write_text('{"number": 0, "status": "done"}\n')
    jobs = tuple((number, parcels.sent(job(tmp_path, seed=number))) for number in range(4))
    world = parcels.World(("bench", "sweep"), (), {"BENCH_SPECIAL": "1"})
    pack = parcels.Pack(jobs, world, str(told), 1, signal.SIGUSR2)
    put_back: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: put_back.append(number))

    def when_it_waits() -> None:
        while '"number": 3' not in told.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR2)

    try:
        threading.Thread(target=when_it_waits).start()
        with pytest.raises(SystemExit):
            pack()
    finally:
        signal.signal(signal.SIGUSR2, before)
        os.environ.pop("BENCH_SPECIAL", None)
    assert put_back == [signal.SIGUSR2]
    lines = parcels.Told(told).news()
    assert [line["number"] for line in lines if "status" in line] == [0, 1, 2]
    assert [line["number"] for line in lines if "where" in line] == [1, 2, 3]
    assert {"warning": "odd"} in lines
    assert pack.checkpoint().function == pack


def test_a_pack_that_is_cancelled_ends(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught, parcels.Stopping(signal.SIGUSR2):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM


# --- submitit's local jobs ------------------------------------------------------------------------

WORLD = """
import os, time
from dataclasses import replace
from pathlib import Path
from benchmark import hookimpl
from benchmark.errors import RunFailed
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod

class Slow(ToyMethod):
    def train_step(self, batch):
        mark = Path(os.environ["MARK"])
        if not mark.with_name("fast").exists():
            mark.touch()
            time.sleep(0.02)
        return super().train_step(batch)

class Fails(ToyMethod):
    def begin_experience(self, experience):
        raise RunFailed("it cannot be", hint="do not")

@hookimpl
def bench_register_methods():
    return [replace(TOY_METHOD, name="slow", build=Slow), replace(TOY_METHOD, name="fails", build=Fails)]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


@pytest.fixture
def _world(tmp_path: Path, registry_as_it_was: None) -> None:
    path = tmp_path / "slow_world.py"
    path.write_text(WORLD, encoding="utf-8")
    registry.add_file(path)


@pytest.mark.slow
@pytest.mark.usefixtures("_world")
def test_a_run_goes_on_from_its_checkpoint_after_its_time_was_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "trains"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    slow = job(out, method="slow", settings={"epochs": "300"})
    jobs = [slow, job(out, method="fails")]

    def started(one: Job, place: str) -> None:
        def time_is_up() -> None:
            while not (tmp_path / "trains").exists():
                time.sleep(0.05)
            time.sleep(0.2)
            controller = re.findall(r"\((\d+)\)", place)[0]
            found = subprocess.run(["pgrep", "-P", controller], capture_output=True, text=True, check=True)
            os.kill(int(found.stdout), signal.SIGUSR2)  # as the cluster would
            (tmp_path / "fast").touch()

        if one == slow and not (tmp_path / "fast").exists():
            threading.Thread(target=time_is_up).start()

    options = SlurmOptions(cluster="local", walltime=5, pack=2, poll=1)
    how = How(workers=1, started=started, options=options)
    outcomes = {outcome.job.method: outcome for outcome in executors.execute("slurm", jobs, how)}
    assert (outcomes["fails"].status, outcomes["fails"].error.message) == ("failed", "it cannot be")  # type: ignore[union-attr]
    assert outcomes["slow"].status == "done", outcomes["slow"].error
    assert outcomes["slow"].path is not None
    record = records.read(outcomes["slow"].path)
    assert record.timing.resumed == 1
    other = run_job(job(tmp_path / "other", method="slow", settings={"epochs": "300"}))
    assert records.comparable(record) == records.comparable(records.read(other))
    assert not (out / ".slurm").exists()
