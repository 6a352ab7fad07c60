"""What each tracker shows of a run that was killed and resumed: every point once. `tox -e trackers` runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench_trackers import on_wandb
from benchmark import records

pytestmark = pytest.mark.trackers
CHILD = Path(__file__).with_name("killed.py")
Rows = list[tuple[str, int, float]]
"""Name, place on its axis and value of everything that a tracker keeps."""


def tensorboard(folder: Path) -> Rows:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    files = list(folder.rglob("events.out.tfevents.*"))
    assert len(files) >= 2
    return [
        (value.tag, event.step, value.simple_value)
        for file in files
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def mlflow(folder: Path) -> Rows:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    (experiment,) = (one for one in client.search_experiments() if one.name != "Default")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["option.method.epochs"] == "2"
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == [
        f"{run.data.tags['adaptbench.run_id']}.json"
    ]
    names = run.data.metrics
    return [(name, one.step, one.value) for name in names for one in client.get_metric_history(run.info.run_id, name)]


def wandb(folder: Path) -> Rows:
    from wandb.proto.wandb_internal_pb2 import Record

    rows: Rows = []
    places = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(places) == 2  # of one id: `wandb sync` puts them together
    assert len({place.name.rpartition("-")[2] for place in places}) == 1
    steps: list[int] = []
    for place in places:
        (file,) = place.glob("*.wandb")
        for blob in on_wandb.parts_of(file.read_bytes()):
            record = Record.FromString(blob)
            if record.HasField("history"):
                found = {one.key or one.nested_key[0]: json.loads(one.value_json) for one in record.history.item}
                steps.append(record.history.step.num)
                axis = "epoch" if "epoch" in found else "experience"
                rows += [(name, found[axis], value) for name, value in found.items() if name[0] != "_" and name != axis]
            if record.HasField("summary"):
                told = {one.key or one.nested_key[0]: json.loads(one.value_json) for one in record.summary.update}
                rows += [(name, 0, value) for name, value in told.items() if name.startswith("final/")]
    assert steps == list(range(6))
    return rows


def trackio(folder: Path) -> Rows:
    code = (
        "import json, sys\nfrom trackio.sqlite_storage import SQLiteStorage\n"
        "(run,) = SQLiteStorage.get_runs('adaptbench')\n"
        "print(json.dumps(SQLiteStorage.get_logs('adaptbench', run), default=str))"
    )
    env = {**os.environ, "TRACKIO_DIR": str(folder / "trackio")}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=env)
    found: Rows = []
    for row in json.loads(told.stdout.splitlines()[-1]):
        axis = next((name for name in ("epoch", "experience") if name in row), None)
        place = 0 if axis is None else row[axis]
        found += [(name, place, value) for name, value in row.items() if "/" in name or name == "average_accuracy"]
    return found


READERS: dict[str, tuple[Callable[[Path], Rows], dict[str, Any]]] = {
    "tensorboard": (tensorboard, {"dir": "{}"}),
    "mlflow": (mlflow, {"uri": "{}/mlruns"}),
    "wandb": (wandb, {"dir": "{}", "mode": "offline"}),
    "trackio": (trackio, {"dir": "{}/trackio"}),
}


def child(out: Path, trackers: dict[str, Any], step: int) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = [sys.executable, str(CHILD), str(out), json.dumps(trackers), str(step)]
    return subprocess.run(words, capture_output=True, text=True, env=env, cwd=out, timeout=600)


@pytest.mark.parametrize("name", list(READERS))
def test_a_run_that_was_killed_and_resumed_is_one_curve(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the extra `{name}` is not installed: pip install adaptbench[{name}]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    read, options = READERS[name]
    kept = tmp_path / "kept"
    kept.mkdir()
    trackers = {name: {key: value.format(kept) for key, value in options.items()}}
    killed = child(tmp_path, trackers, 7)  # in the second pass of the second experience
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = child(tmp_path, trackers, -1)
    assert done.returncode == 0, done.stderr
    assert "the run goes on without it" not in done.stderr
    assert len(done.stdout.splitlines()) == 1  # the path: nothing of the tracker's is in the way
    record = records.read(Path(done.stdout.strip()))
    assert record.timing.resumed == 1
    rows = read(kept)
    twice = {key: count for key, count in Counter((tag, place) for tag, place, _ in rows).items() if count > 1}
    assert not twice
    found = {(tag, place): value for tag, place, value in rows}
    losses = [terms for part in record.losses for terms in part]
    for place, terms in enumerate(losses):
        for term, value in terms.items():
            assert found[f"loss/{term}", place] == pytest.approx(value, rel=1e-6)
    for place, row in enumerate(record.accuracy):
        shown = [value for value in row if value is not None]
        assert found["average_accuracy", place] == pytest.approx(sum(shown) / len(shown), rel=1e-6)
        for test, value in zip(record.scenario.tests, row, strict=True):
            assert (f"accuracy/{test.name}", place) in found if value is not None else True
    assert found["final/final_acc", 0] == pytest.approx(record.number("final_acc"), rel=1e-6)
