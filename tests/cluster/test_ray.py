"""The executor `ray` on a real cluster: two machines' worth of Ray on one. Run by `tox -e cluster`."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import How, Job, Outcome, records, registry, run_job
from benchmark.errors import RunFailed, UsageError
from benchmark.run import executors

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'adaptbench[ray]'")
from bench_executors import on_ray  # noqa: E402
from bench_executors.on_ray import RayOptions  # noqa: E402

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
RUNS = 1000
WORLD = """
import os, signal, time
from dataclasses import replace
from pathlib import Path
from benchmark import hookimpl
from benchmark.errors import BenchWarning, RunFailed, warn
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod

MARK = Path(__file__).parent

class Slow(ToyMethod):
    def train_step(self, batch):
        if not (MARK / "fast").exists():
            with (MARK / f"trains-{os.getpid()}").open("a") as mark:
                mark.write(".")
            time.sleep(0.02)
        return super().train_step(batch)

class Dies(ToyMethod):
    def begin_experience(self, experience):
        os.kill(os.getpid(), signal.SIGKILL)

class Fails(ToyMethod):
    def begin_experience(self, experience):
        warn("about to fail")
        raise RunFailed("it cannot be", hint="do not")

@hookimpl
def bench_register_methods():
    every = {"slow": Slow, "dies": Dies, "fails": Fails}
    return [TOY_METHOD, *(replace(TOY_METHOD, name=name, build=build) for name, build in every.items())]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Two of them, with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        found.add_node(num_cpus=1, resources={"big": 2})
        found.wait_for_nodes()
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a plugin."""
    path, before = tmp_path_factory.mktemp("plugins") / "ray_world.py", list(registry._files)
    path.write_text(WORLD, encoding="utf-8")
    registry.add_file(path)
    yield path.parent
    registry._files[:] = before


@pytest.fixture
def options(machines: Any) -> RayOptions:
    return RayOptions(address=machines.address)


def job(out: Path, **changes: Any) -> Job:
    values = {"scenario": "toy", "method": "toy-linear", "settings": {"epochs": "1"}, "device": "cpu"}
    return Job(**{**values, "out": str(out), **changes})


def go(jobs: list[Job], how: How) -> tuple[dict[tuple[str, int], Outcome], list[str]]:
    """Outcomes by method and seed, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = {(one.job.method, one.job.seed): one for one in executors.execute("ray", jobs, how)}
    return found, [str(one.message) for one in said]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_run_whose_process_is_killed_in_the_middle_goes_on_and_no_other_suffers(
    tmp_path: Path, world: Path, options: RayOptions
) -> None:
    out = tmp_path / "out"
    slow = [job(out, method="slow", settings={"epochs": "300"}, seed=seed) for seed in range(2)]
    jobs = [*slow, job(out, method="fails"), job(out, method="dies"), job(out)]
    begun: list[tuple[str, int, str]] = []

    def started(one: Job, place: str) -> None:
        begun.append((one.method, one.seed, place))
        if len(begun) == 2:
            threading.Thread(target=kill_one, daemon=True).start()

    def kill_one() -> None:
        while len(marks := list(world.glob("trains-*"))) < 2:
            time.sleep(0.05)
        time.sleep(1)
        os.kill(int(marks[0].name.partition("-")[2]), signal.SIGKILL)
        (world / "fast").touch()

    found, said = go(jobs, How(workers=2, started=started, options=options))
    assert {one: outcome.status for one, outcome in found.items()} == {
        **{("slow", seed): "done" for seed in range(2)},
        ("fails", 0): "failed",
        ("dies", 0): "failed",
        ("toy-linear", 0): "done",
    }
    # In a new process, or in the other one if its own run is over.
    assert len([place for method, _, place in begun if method == "slow"]) == 3, "two runs, and one of them again"
    assert sum("its process was lost, it goes on in a new one" in text for text in said) == 2
    error = found["fails", 0].error
    assert isinstance(error, RunFailed)
    assert (error.message, error.hint) == ("it cannot be", "do not")
    assert "about to fail" in said
    assert re.match("dies on toy, seed 0: its process was lost, 2 time", str(found["dies", 0].error))
    for seed in range(2):
        path = found["slow", seed].path
        assert path is not None
        other = run_job(job(tmp_path / "other", method="slow", settings={"epochs": "300"}, seed=seed))
        assert records.comparable(records.read(path)) == records.comparable(records.read(other))
    again, _ = go(jobs[:2], How(workers=2, options=options))
    assert {outcome.status for outcome in again.values()} == {"known"}


def test_ctrl_c_leaves_checkpoints(tmp_path: Path, world: Path, options: RayOptions) -> None:
    (world / "fast").unlink(missing_ok=True)
    for mark in world.glob("trains-*"):
        mark.unlink()
    jobs = [job(tmp_path, method="slow", settings={"epochs": "400"}, seed=7)]

    def stop() -> None:
        # The first step counts what a step costs; a checkpoint has something to keep from the second one on.
        while not any(mark.stat().st_size > 3 for mark in world.glob("trains-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def too_soon(outcome: Outcome) -> None:
        pytest.fail(f"it ended before Ctrl-C: {outcome}")

    threading.Thread(target=stop, daemon=True).start()
    with pytest.warns(UserWarning, match="waiting until 1 run"), pytest.raises(KeyboardInterrupt):
        list(map(too_soon, executors.execute("ray", jobs, How(workers=1, options=options))))
    assert list(tmp_path.rglob("middle.safetensors"))
    (world / "fast").touch()
    found, _ = go(jobs, How(workers=1, options=options))
    path = found["slow", 7].path
    assert path is not None
    assert records.read(path).timing.resumed == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": 2.0}, "no machine of the Ray cluster has 2 CPU"),
        ({"gpus": 1.0}, "no machine of the Ray cluster has 1 CPU, 1 GPU"),
        ({"resources": ("big=3",)}, "no machine of the Ray cluster has 1 CPU, 3 big"),
        ({"mem_gb": 100000.0}, "no machine of the Ray cluster has 1 CPU, 100000 GB of memory"),
    ],
)
def test_what_no_machine_has_is_one_error(tmp_path: Path, machines: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(executors.execute("ray", [job(tmp_path)], How(options=RayOptions(address=machines.address, **changes))))


def test_a_cluster_that_is_not_there_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    how = How(options=RayOptions(address="127.0.0.1:1"))
    with pytest.raises(UsageError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        list(executors.execute("ray", [job(tmp_path)], how))


def test_a_thousand_trivial_runs_cost_little(
    tmp_path: Path, options: RayOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tasks answer at once; printed, with the limit that the scheduler keeps on one machine."""
    record = tmp_path / "record.json"
    record.write_text("{}")

    def trivial(number: int, values: dict[str, Any], world: Any, desk: Any) -> dict[str, Any]:
        desk.began.remote(number, "here")
        path = values["data_root"]
        return {"status": "done", "path": path, "label": "x", "error": None, "warnings": []}

    monkeypatch.setattr(on_ray, "do", trivial)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    warm = How(workers=2, options=options)
    list(executors.execute("ray", [job(tmp_path, data_root=str(record))], warm))
    jobs = [job(tmp_path, data_root=str(record), seed=seed) for seed in range(RUNS)]
    began = time.perf_counter()
    outcomes = list(executors.execute("ray", jobs, warm))
    each = (time.perf_counter() - began) / RUNS
    assert [outcome.status for outcome in outcomes] == ["done"] * RUNS
    with capsys.disabled():
        print(f"\nray, {RUNS} trivial runs: {each * 1000:.1f} ms a run")
    assert each < 0.1
