"""Experiment trackers: each point once, whatever interrupts the run; and a run that no tracker can harm."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmark import How, Job, TrackerSpec, events, records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE, UsageError
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, executors, jobs, places, tracking
from benchmark.run.interruption import Interrupted
from benchmark.testing.disturbances import StopAtStep
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import prepare_toy
from benchmark.tracking import Point, Tracker, flat

OPTIONS: dict[str, Any] = {"settings": {"epochs": "2"}, "experiences": 2}
pytestmark = pytest.mark.usefixtures("one_thread")
PLUGIN = """
import json
from dataclasses import dataclass
from pathlib import Path

from benchmark import TrackerSpec, hookimpl
from benchmark.testing.toys import TOY_SCENARIO
from benchmark.tracking import Tracker, flat

@dataclass(frozen=True)
class Options:
    file: str = "points.jsonl"
    every: int = 1

class Lines(Tracker):
    def __init__(self, options): self.file = Path(options.file)
    def begin(self, event): self.file.write_text(json.dumps(flat(event)) + "\\n"); return ()
    def write(self, point): self.file.write_text(self.file.read_text() + point.kind + "\\n")
    def finish(self, event): self.file.write_text(self.file.read_text() + event.record["run_id"] + "\\n")
    def fail(self, event): pass

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]

@hookimpl
def bench_register_trackers():
    return [TrackerSpec(name="lines", open=Lines, summary="x", config=Options),
            TrackerSpec(name="absent", open=Lines, summary="x", needs="no_such_package", install="pip install it")]
"""


class Kept(Tracker):
    """Keeps what it is told, over all processes of a run."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.told: list[str] = []

    def begin(self, event: events.RunStarted) -> Iterable[Any]:  # type: ignore[override]
        self.event = event
        return [(point.kind, point.index) for point in self.points]

    def write(self, point: Point) -> None:
        self.points.append(point)

    def finish(self, event: events.RunFinished) -> None:
        self.told.append("finished")

    def fail(self, event: events.RunFailed) -> None:
        self.told.append(f"{event.status} after {event.finished}")


def run(out: Path, tracker: Tracker | None, stop: int = -1, checkpoints: str = "0") -> Path:
    spec = TrackerSpec(name="kept", open=lambda options: cast("Tracker", tracker), summary="x")
    told = tracking.Told(Loaded(spec, Entry("kept", "here", "bench-here 0.1"), ""), None)
    hooks = manager([told] if tracker is not None else [])
    settings = {**OPTIONS["settings"], "engine.checkpoint_seconds": checkpoints}
    prepared = prepare_toy(settings=settings, experiences=2)
    return engine.execute(prepared, out, hooks=hooks, quiet=True, stop=StopAtStep(stop))


def values(points: Iterable[Point]) -> list[tuple[str, int, int, Mapping[str, float]]]:
    """Points without times."""
    return [
        (one.kind, one.index, one.step, {name: one.values[name] for name in one.values if "seconds" not in name})
        for one in points
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, dict[str, Any]]:
    """An undisturbed run, and its record."""
    tracker = Kept()
    return tracker, records.plain(records.read(run(tmp_path_factory.mktemp("whole"), tracker)))


def test_points_are_the_losses_and_accuracies_of_the_record(whole: tuple[Kept, dict[str, Any]]) -> None:
    tracker, record = whole
    assert [(one.kind, one.index) for one in tracker.points] == [
        ("epoch", 0),
        ("epoch", 1),
        ("experience", 0),
        ("epoch", 2),
        ("epoch", 3),
        ("experience", 1),
    ]
    assert [one.step for one in tracker.points] == list(range(6))
    losses = [{f"loss/{name}": value for name, value in terms.items()} for part in record["losses"] for terms in part]
    assert [point[3] for point in values(tracker.points) if point[0] == "epoch"] == losses
    row = record["accuracy"][1]
    last = tracker.points[-1].values
    assert [last["accuracy/0"], last["accuracy/1"]] == row
    assert last["average_accuracy"] == pytest.approx(np.mean(row))
    assert tracker.told == ["finished"]
    facts = flat(tracker.event)
    assert (facts["method"], facts["option.method.epochs"], facts["seed"]) == ("toy-linear", 2, 0)
    assert facts["run_id"] == record["run_id"]


@pytest.mark.parametrize(
    ("known", "checkpoints", "stops", "told", "resumed"),
    [
        (True, "0", (3, 2), ["interrupted after 0", "interrupted after 1"], 2),
        (True, "1000", (3, 7), ["interrupted after 0", "interrupted after 1"], 1),  # what was told is done again
        (False, "0", (3, 4), [], 2),  # the run begins without the tracker
    ],
)
def test_an_interrupted_run_continues_its_curves(
    known: bool,
    checkpoints: str,
    stops: tuple[int, ...],
    told: list[str],
    resumed: int,
    tmp_path: Path,
    whole: tuple[Kept, dict[str, Any]],
) -> None:
    tracker = Kept()
    for stop in stops:
        with pytest.raises(Interrupted):
            run(tmp_path, tracker if known else None, stop, checkpoints)
    assert tracker.told == told
    run(tmp_path, tracker)
    assert tracker.event.resumed == resumed
    assert values(tracker.points) == values(whole[0].points)


@pytest.mark.parametrize("call", ["open", "begin", "write", "finish"])
@pytest.mark.parametrize("error", [OSError("no server"), SystemExit(1), UsageError("wrong key")], ids=repr)
def test_a_tracker_that_raises_is_named_and_harms_nothing(
    call: str, error: BaseException, tmp_path: Path, whole: tuple[Kept, dict[str, Any]]
) -> None:
    calls = []

    class Raises(Kept):
        def __getattribute__(self, name: str) -> Any:
            if name in ("begin", "write", "finish", "fail"):
                calls.append(name)
                if name == call:
                    raise error
            return super().__getattribute__(name)

    def open_(options: Any) -> Tracker:
        if call == "open":
            raise error
        return Raises()

    spec = TrackerSpec(name="kept", open=open_, summary="x")
    told = tracking.Told(Loaded(spec, Entry("kept", "here", "bench-here 0.1"), ""), None)
    words = "wrong key" if isinstance(error, UsageError) else f"tracker `kept` of `bench-here 0.1`: `{call}` failed: "
    with pytest.warns(UserWarning, match=f"{words}.*; the run goes on without it") as caught:
        path = engine.execute(prepare_toy(**OPTIONS), tmp_path, hooks=manager([told]), quiet=True)
    assert len(caught) == 1
    assert calls.count(call) == (call != "open")
    assert places.is_finished(path)
    assert records.read(path)["accuracy"] == whole[1]["accuracy"]


def test_what_a_tracker_draws_at_random_changes_no_number(tmp_path: Path, whole: tuple[Kept, dict[str, Any]]) -> None:
    class Draws(Kept):
        def write(self, point: Point) -> None:
            torch.rand(3)
            np.random.rand(3)

    path = run(tmp_path, Draws())
    assert records.read(path)["losses"] == whole[1]["losses"]


def test_what_is_no_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"`open` returned 3 \(int\)"):
        run(tmp_path, cast("Tracker", 3))


def test_tensorboard_shows_an_interrupted_run_as_one_curve(tmp_path: Path, whole: tuple[Kept, dict[str, Any]]) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("the extra `tensorboard` is not installed: pip install adaptbench[tensorboard]")
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    from bench_trackers.on_tensorboard import TensorBoard, TensorBoardOptions

    options = TensorBoardOptions(dir=str(tmp_path / "logs"))
    with pytest.raises(Interrupted):
        run(tmp_path, TensorBoard(options), 7, "1000")  # its third pass is done again
    path = run(tmp_path, TensorBoard(options))
    files = list((tmp_path / "logs").rglob("events.out.tfevents.*"))
    assert {file.parent.name for file in files} == {path.stem}
    rows = [
        (value.tag, event.step, value.simple_value)
        for file in files
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
    told = sorted((tag, step) for tag, step, _ in rows if tag in ("loss/loss", "average_accuracy"))
    assert told == [("average_accuracy", 0), ("average_accuracy", 1), *(("loss/loss", step) for step in range(4))]
    found = {(tag, step): value for tag, step, value in rows}
    losses = [terms["loss"] for part in whole[1]["losses"] for terms in part]
    assert [found["loss/loss", step] for step in range(4)] == pytest.approx(losses, rel=1e-6)
    assert found["final/final_acc", 0] == pytest.approx(whole[1]["metrics"]["final_acc"], rel=1e-6)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry_as_it_was: None) -> Path:
    """A folder to work in, and a file with two trackers."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    registry.add_file(file)
    return tmp_path


TOY = ["--scenario", "split-glyphs", "--method", "nearest-mean"]


def test_trackers_are_asked_for_by_name_and_are_no_part_of_a_run(
    lines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(executors, "execute", lambda name, jobs, how: asked.extend(jobs) or iter(()))
    for words in (["--tracker-set", "file=x"], ["--tracker-set", "lines.file=x"], []):
        if not words:
            (lines / "c.toml").write_text('[run]\ntracker = "lines"\n[tracker.lines]\nfile = "x"\n')
        picked = ["--tracker", "lines"] if words else ["--config", "c.toml"]
        assert main(["run", *TOY, *picked, *words]) == EXIT_OK
        assert asked.pop().trackers == {"lines": {"file": "x", "every": 1}}
    assert main(["run", *TOY, "--tracker", "lines", "--dry-run"]) == EXIT_OK
    assert "tracker.lines.every" in capsys.readouterr().out
    job = Job(scenario="split-glyphs", method="nearest-mean", trackers={"lines": {"file": "x"}})
    assert Job.of(json.loads(json.dumps(job.as_dict()))) == job
    facts = {"fingerprint": "", "partition": "", "weights_sha256": "", "inputs": {}, "device": "cpu"}
    bare = Job(scenario="split-glyphs", method="nearest-mean")
    assert jobs.plan_of(job).run_id(**facts) == jobs.plan_of(bare).run_id(**facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--tracker", "linse"], "unknown tracker `linse`"),
        (["--tracker", "absent"], "tracker `absent` needs `no_such_package`, which is not installed"),
        (["--tracker", "lines", "--tracker-set", "lines.fil=x"], "unknown option `tracker.lines.fil`"),
        (["--tracker", "lines", "--tracker-set", "every=x"], "tracker.lines.every: 'x' is not a whole number"),
        (["--tracker", "lines", "--tracker-set", "other.file=x"], "`other` is not among --tracker lines"),
        (["--tracker-set", "lines.file=x"], "no --tracker was given"),
    ],
)
@pytest.mark.usefixtures("lines")
def test_what_was_not_meant_is_told_before_anything_runs(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *TOY, *words]) == EXIT_USAGE
    assert problem in capsys.readouterr().err


def test_a_job_tells_its_trackers_in_any_executor(lines: Path) -> None:
    trackers = {"lines": {"file": str(lines / "own.jsonl")}}
    job = Job(scenario="toy", method="nearest-mean", trackers=trackers, device="cpu")
    (outcome,) = executors.execute("local", [job], How())
    assert outcome.path is not None
    first, *told = (lines / "own.jsonl").read_text().splitlines()
    assert json.loads(first)["method"] == "nearest-mean"
    assert told.count("experience") == 2
    assert told[-1] == outcome.path.stem
