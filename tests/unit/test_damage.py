"""What a kill, a full disk or a bad one leaves behind: never other numbers, never a traceback, never for ever."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pluggy
import pytest

from benchmark import events, hookspecs, records
from benchmark.errors import DataMissing, PluginError
from benchmark.run import checkpoint, engine, places
from benchmark.run.interruption import Interrupted
from benchmark.run.places import BOUNDARY, MIDDLE
from benchmark.testing.disturbances import StopAtStep
from benchmark.testing.toys import prepare_toy

OPTIONS: dict[str, Any] = {"settings": {"epochs": "1", "engine.checkpoint_seconds": "0"}, "experiences": 3}
pytestmark = pytest.mark.usefixtures("one_thread")


def manager(*plugins: object) -> pluggy.PluginManager:
    hooks = pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    for plugin in plugins:
        hooks.register(plugin)
    return hooks


def run(out: Path, *plugins: object, stop: int = -1, force: bool = False) -> Path:
    prepared = prepare_toy(**OPTIONS)
    return engine.execute(prepared, out, hooks=manager(*plugins), quiet=True, stop=StopAtStep(stop), force=force)


def numbers(path: Path) -> tuple[str, bytes]:
    record = json.dumps(records.comparable(records.read(path)), sort_keys=True)
    return record, path.with_suffix(".parquet").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """What the undisturbed run gives."""
    return numbers(run(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run stopped in its third experience: both checkpoints, two parts."""
    out = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        run(out, stop=5)
    (work,) = out.rglob("*.work")
    assert sorted(path.name for path in work.iterdir()) == [
        BOUNDARY,
        MIDDLE,
        "predictions-0000.parquet",
        "predictions-0001.parquet",
    ]
    return out


@pytest.mark.parametrize("name", [BOUNDARY, MIDDLE, "predictions-0000.parquet", "predictions-0001.parquet"])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.3, 0.7, 0.98, "cut", "empty"])
def test_one_changed_byte_never_changes_a_number_in_silence(
    tmp_path: Path, stopped: Path, whole: tuple[str, bytes], name: str, place: float | str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    (file,) = out.rglob(name)
    content = bytearray(file.read_bytes())
    if isinstance(place, float):
        content[int(place * len(content))] ^= 0x10
    file.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(str(place), len(content))])
    with pytest.warns(UserWarning, match="experience 2 of .* starts again" if name == MIDDLE else "from the beginning"):
        path = run(out)
    assert numbers(path) == whole
    assert not list(out.rglob("*.work"))


def test_every_byte_of_a_checkpoint_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": [1.5, {"b": None}], "c": checkpoint.random_state()["torch"][:64]})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataMissing, match="is damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("missing", ["predictions-0000.parquet", BOUNDARY, MIDDLE])
def test_a_missing_file_of_the_work_folder_is_made_again(
    tmp_path: Path, stopped: Path, whole: tuple[str, bytes], missing: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    next(out.rglob(missing)).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert numbers(run(out)) == whole


class Deletes:
    """Deletes the work folder once, in the middle of a run."""

    @hookspecs.hookimpl
    def bench_experience_ended(self, event: events.ExperienceEnded) -> None:
        if event.experience == 1:
            (work,) = self.out.rglob("*.work")
            shutil.rmtree(work)

    def __init__(self, out: Path) -> None:
        self.out = out


def test_a_work_folder_deleted_during_the_run_costs_nothing(tmp_path: Path, whole: tuple[str, bytes]) -> None:
    assert numbers(run(tmp_path, Deletes(tmp_path))) == whole


def test_a_work_folder_deleted_during_a_run_that_is_stopped_afterwards(
    tmp_path: Path, whole: tuple[str, bytes]
) -> None:
    class Stops(Deletes):
        @hookspecs.hookimpl
        def bench_experience_ended(self, event: events.ExperienceEnded) -> None:
            super().bench_experience_ended(event)
            if event.experience == 2:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(tmp_path, Stops(tmp_path))
    with pytest.warns(UserWarning, match="predictions-0000.parquet are gone or damaged.* from the beginning"):
        path = run(tmp_path)
    assert numbers(path) == whole


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_finished_run_without_its_predictions_is_done_again(
    tmp_path: Path, whole: tuple[str, bytes], damage: str
) -> None:
    path = run(tmp_path)
    file = path.with_suffix(".parquet")
    if damage == "gone":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[:-5] if damage == "cut" else content[:-5] + bytes(5))
    with pytest.warns(UserWarning, match="gone or damaged: the run is done again"):
        run(tmp_path)
    assert numbers(path) == whole
    assert places.is_finished(path)


def test_what_a_killed_process_left_is_cleared_by_the_next_call(tmp_path: Path) -> None:
    path = run(tmp_path)
    work = path.with_suffix(".work")
    work.mkdir()
    hidden = [path.with_name(f".{path.stem}{end}.part") for end in (".json.a", ".parquet.b")]
    leftovers = [work / "x", path.with_suffix(".lock"), *hidden]
    other = path.with_name(".another.json.c.part")
    for left in (*leftovers, other):
        left.write_bytes(b"")
    run(tmp_path)
    assert sorted(path.parent.iterdir()) == sorted([path, path.with_suffix(".parquet"), other])


def test_a_hook_that_raises_at_the_end_leaves_a_finished_run(tmp_path: Path) -> None:
    class Raises:
        @hookspecs.hookimpl
        def bench_run_finished(self, event: events.RunFinished) -> None:
            raise OSError("no tracker")

    with pytest.raises(PluginError, match=r"life-cycle plugin .* `bench_run_finished` failed: OSError: no tracker"):
        run(tmp_path, Raises())
    (path,) = tmp_path.rglob("*.json")
    assert places.is_finished(path)
    assert sorted(path.parent.iterdir()) == [path, path.with_suffix(".parquet")]


def test_time_after_a_resume_is_that_of_all_sessions(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop=5)
    timing = records.read(run(tmp_path))["timing"]
    assert timing["resumed"] == 1
    assert timing["total_seconds"] >= sum(timing["train_seconds"]) + sum(timing["eval_seconds"])


def test_the_record_of_another_run_under_the_name_of_one_is_not_its_record(tmp_path: Path) -> None:
    path = run(tmp_path)
    own, content = path.stem, path.read_text()
    path.write_text(content.replace(own, "0123456789abcdef"))
    with pytest.raises(DataMissing, match=r"holds the record of run 0123456789abcdef") as caught:
        run(tmp_path)
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    assert records.read(run(tmp_path, force=True))["run_id"] == own
