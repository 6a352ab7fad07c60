"""The loop: order of events, resume, interruption, failures, identity."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pluggy
import pytest
import torch

from benchmark import events, hookspecs, records
from benchmark.api import Batch, Transform
from benchmark.errors import DataMissing, PluginError, RunBusy, RunFailed, UndeclaredUse, UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.run import checkpoint, engine, places, preparation, streams
from benchmark.run.engine import derive
from benchmark.run.interruption import Interrupted
from benchmark.testing import toys
from benchmark.testing.toys import ToyMethod, prepare_toy


def manager(*plugins: object) -> pluggy.PluginManager:
    hooks = pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    for plugin in plugins:
        hooks.register(plugin)
    return hooks


def comparable(path: Path) -> str:
    return json.dumps(records.comparable(records.read(path)), sort_keys=True)


class Stopper(ToyMethod):
    """Stops the run, as Ctrl-C would, at one training step."""

    stop_at: int | None = None
    steps = 0

    def train_step(self, batch: Batch) -> Any:
        type(self).steps += 1
        if type(self).steps == type(self).stop_at:
            signal.raise_signal(signal.SIGINT)
        return super().train_step(batch)


@pytest.fixture
def stopper() -> type[Stopper]:
    return type("FreshStopper", (Stopper,), {})


def test_a_run_writes_a_complete_record(tmp_path: Path) -> None:
    path = engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)
    record = records.read(path)
    assert record["status"] == "completed"
    assert record["accuracy"][0][1] is None  # not met yet
    assert record["accuracy"][1][1] > 0.5
    assert record["cost"]["params_trainable"] == 4 * 192
    assert record["cost"]["storage_bytes"] == [2 * 192 * 4, 4 * 192 * 4]
    assert record["cost"]["flops_forward"] == 2 * 192 * 4
    # Forward, and backward for the weights alone: images need no gradient.
    assert record["cost"]["flops_train_step"] == 2 * 8 * 192 * 4 * 2
    assert path.with_suffix(".parquet").exists()
    assert not path.with_suffix(".work").exists()
    assert not path.with_suffix(".lock").exists()


def test_the_same_run_is_not_repeated_unless_forced(tmp_path: Path) -> None:
    path = engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)
    stamp = path.stat().st_mtime_ns
    assert engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True) == path
    assert path.stat().st_mtime_ns == stamp
    engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True, force=True)
    assert path.stat().st_mtime_ns != stamp


def test_a_forced_repetition_that_was_stopped_goes_on_without_force(tmp_path: Path, stopper: type[Stopper]) -> None:
    """With --force it would start from the beginning again and again."""
    path = engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True)
    first, stamp, trained = comparable(path), path.stat().st_mtime_ns, stopper.steps
    stopper.stop_at = stopper.steps + 8
    with pytest.raises(Interrupted, match="1 of 2 experiences are finished"):
        engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True, force=True)
    assert path.stat().st_mtime_ns == stamp, "the record of the first execution stays until there is another"
    assert not places.is_finished(path)
    engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True)
    assert stopper.steps in (2 * trained, 2 * trained + 1), "no step is trained twice; one may count FLOPs again"
    assert places.is_finished(path)
    assert path.stat().st_mtime_ns != stamp
    assert comparable(path) == first
    assert not path.with_suffix(".work").exists()


def test_a_repetition_replaces_a_damaged_record(tmp_path: Path, stopper: type[Stopper]) -> None:
    path = engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True)
    path.write_text("{")
    with pytest.raises(DataMissing, match="damaged record"):
        engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True)
    stopper.stop_at = stopper.steps + 8
    with pytest.raises(Interrupted):
        engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(), quiet=True, force=True)
    assert records.read(path)["status"] == "interrupted"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    return engine.execute(prepare_toy(experiences=3), out, hooks=manager(), quiet=True)


@pytest.mark.parametrize("stop_at", range(1, 19))
def test_a_run_stopped_at_any_step_resumes_bit_for_bit(
    tmp_path: Path, stopper: type[Stopper], stop_at: int, whole: Path
) -> None:
    stopper.stop_at = stop_at
    prepared = prepare_toy(build=stopper, experiences=3)
    with pytest.raises(Interrupted, match="experiences are finished") as caught:
        engine.execute(prepared, tmp_path / "cut", hooks=manager(), quiet=True)
    assert caught.value.exit_code == 130
    assert "resume with" in str(caught.value.hint)
    unfinished = records.read(places.record_path(tmp_path / "cut", prepared))
    assert unfinished["status"] == "interrupted"
    done = engine.execute(prepare_toy(build=stopper, experiences=3), tmp_path / "cut", hooks=manager(), quiet=True)
    # No step is trained twice; the first of the last experience also runs on a copy that counts FLOPs.
    assert stopper.steps == 18 + 1 + (stop_at == 13)
    assert comparable(done) == comparable(whole)
    assert done.with_suffix(".parquet").read_bytes() == whole.with_suffix(".parquet").read_bytes()
    assert records.read(done)["timing"]["resumed"] == 1


class FirstOnly(Stopper):
    """Trains in the first experience, then looks at its images once more as they are; only looks in later ones."""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.register_buffer("looked", torch.zeros((), dtype=torch.float64))
        self.first = True

    def passes(self) -> tuple[Transform, ...]:
        return ("train", "train", "test") if self.first else ("test",)

    def train_step(self, batch: Batch) -> Any:
        terms = super().train_step(batch)
        self.looked += batch.images.double().sum()
        return terms

    def end_experience(self, experience: Any) -> None:
        self.first = False

    def extra_state(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_extra_state(self, state: Any) -> None:
        self.first = state["first"]


@pytest.fixture(scope="module")
def whole_first_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    out, build = tmp_path_factory.mktemp("first-only"), type("Uninterrupted", (FirstOnly,), {})
    return engine.execute(prepare_toy(build=build, experiences=3), out, hooks=manager(), quiet=True)


def test_passes_may_differ_between_experiences(whole_first_only: Path) -> None:
    record = records.read(whole_first_only)
    assert [len(epochs) for epochs in record["losses"]] == [3, 1, 1]
    assert record["cost"]["flops_train_step"] == 2 * 8 * 192 * 6 * 2


@pytest.mark.parametrize("stop_at", [6, 8])
def test_a_run_with_different_passes_resumes_bit_for_bit(tmp_path: Path, stop_at: int, whole_first_only: Path) -> None:
    build = type("FreshFirstOnly", (FirstOnly,), {"stop_at": stop_at})
    with pytest.raises(Interrupted):
        engine.execute(prepare_toy(build=build, experiences=3), tmp_path, hooks=manager(), quiet=True)
    path = engine.execute(prepare_toy(build=build, experiences=3), tmp_path, hooks=manager(), quiet=True)
    # 16 images in batches of 8: 3 passes, then 1 and 1; one more step counts FLOPs.
    assert build.steps == 2 * (3 + 1 + 1) + 1
    assert comparable(path) == comparable(whole_first_only)
    assert path.with_suffix(".parquet").read_bytes() == whole_first_only.with_suffix(".parquet").read_bytes()


def test_a_test_pass_shows_images_as_they_are_at_test_time(tmp_path: Path) -> None:
    class Looks(ToyMethod):
        seen: list[torch.Tensor] = []  # noqa: RUF012 - of the class: the engine builds its own instance

        def passes(self) -> tuple[Transform, ...]:
            return ("test", "train")

        def train_step(self, batch: Batch) -> Any:
            self.seen.append(batch.images.sort(dim=0).values.mean())
            return super().train_step(batch)

    prepared = prepare_toy(build=Looks, settings={"batch_size": "16"})
    pipeline = ImagePipeline("glyph32", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    prepared = dataclasses.replace(prepared, pipeline=pipeline)
    engine.execute(prepared, tmp_path, hooks=manager(), quiet=True)
    whole = prepared.stream.scenario.experiences[0].train.images(slice(None))
    as_they_are = pipeline.eval(whole).mean()
    torch.testing.assert_close(Looks.seen[0], as_they_are)
    assert (Looks.seen[1] - as_they_are).abs() > 1e-3  # cropped, with padding


def test_no_pass_at_all_leaves_out_training(tmp_path: Path) -> None:
    class Idle(ToyMethod):
        def passes(self) -> tuple[Transform, ...]:
            return ()

        def train_step(self, batch: Batch) -> Any:
            raise AssertionError("train_step was called")

    record = records.read(engine.execute(prepare_toy(build=Idle), tmp_path, hooks=manager(), quiet=True))
    assert record["losses"] == [[], []]
    assert record["cost"]["flops_train_step"] is None


def test_a_second_process_is_told_that_the_run_is_taken(tmp_path: Path) -> None:
    class Second:
        @hookspecs.hookimpl
        def bench_experience_started(self, event: events.ExperienceStarted) -> None:
            with pytest.raises(RunBusy, match="another process"):
                engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)

    engine.execute(prepare_toy(), tmp_path, hooks=manager(Second()), quiet=True)


def test_nan_stops_with_its_place_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Diverges(ToyMethod):
        calls = 0

        def train_step(self, batch: Batch) -> Any:
            type(self).calls += 1
            terms = dict(super().train_step(batch))
            return {"loss": float("nan")} if type(self).calls == 9 else terms  # the 7th call counts FLOPs

    prepared = prepare_toy(build=Diverges)
    with pytest.raises(RunFailed, match="loss = nan at experience 1, epoch 0, step 1") as caught:
        engine.execute(prepared, tmp_path, hooks=manager(), quiet=True)
    assert "the last checkpoint is kept" in str(caught.value.hint)
    path = places.record_path(tmp_path, prepared)
    assert records.read(path)["status"] == "failed"
    kept = checkpoint.load(path.with_suffix(".work") / places.BOUNDARY)
    assert kept["done"]["experience"] == 1


def test_nan_before_the_first_checkpoint_promises_none(tmp_path: Path) -> None:
    class Diverges(ToyMethod):
        def train_step(self, batch: Batch) -> Any:
            return {"loss": float("nan")}

    with pytest.raises(RunFailed, match="loss = nan at experience 0, epoch 0, step 0") as caught:
        engine.execute(prepare_toy(build=Diverges), tmp_path, hooks=manager(), quiet=True)
    assert "there is no checkpoint yet" in str(caught.value.hint)


class Diary:
    """Writes down every event."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @hookspecs.hookimpl
    def bench_run_started(self, event: events.RunStarted) -> None:
        self.told.append(("started", event.method, event.scenario, event.experiences))

    @hookspecs.hookimpl
    def bench_experience_started(self, event: events.ExperienceStarted) -> None:
        self.told.append(("experience", event.experience, isinstance(event.method, ToyMethod)))

    @hookspecs.hookimpl
    def bench_epoch_ended(self, event: events.EpochEnded) -> None:
        self.told.append(("epoch", event.experience, event.epoch, event.epochs, sorted(event.losses)))
        assert event.seconds > 0

    @hookspecs.hookimpl
    def bench_experience_ended(self, event: events.ExperienceEnded) -> None:
        self.told.append(("ended", event.experience, [value is None for value in event.accuracies]))

    @hookspecs.hookimpl
    def bench_run_finished(self, event: events.RunFinished) -> None:
        self.told.append(("finished", event.path.exists(), event.record["status"]))

    @hookspecs.hookimpl
    def bench_run_failed(self, event: events.RunFailed) -> None:
        self.told.append((event.status, event.error))


def test_hooks_are_told_of_each_experience_and_of_the_record(tmp_path: Path) -> None:
    diary = Diary()
    engine.execute(prepare_toy(settings={"epochs": "2"}), tmp_path, hooks=manager(diary), quiet=True)
    assert diary.told == [
        ("started", "toy-linear", "toy", 2),
        ("experience", 0, True),
        ("epoch", 0, 0, 2, ["loss"]),
        ("epoch", 0, 1, 2, ["loss"]),
        ("ended", 0, [False, True]),
        ("experience", 1, True),
        ("epoch", 1, 0, 2, ["loss"]),
        ("epoch", 1, 1, 2, ["loss"]),
        ("ended", 1, [False, False]),
        ("finished", True, "completed"),
    ]


def test_hooks_are_told_of_a_run_that_ends_early(tmp_path: Path, stopper: type[Stopper]) -> None:
    diary = Diary()
    stopper.stop_at = 1
    with pytest.raises(Interrupted):
        engine.execute(prepare_toy(build=stopper), tmp_path, hooks=manager(diary), quiet=True)
    assert diary.told[-1][0] == "interrupted"
    assert "0 of 2 experiences" in diary.told[-1][1]


@pytest.mark.parametrize("use", ["task_id", "class_names", "unlabelled"])
def test_what_is_not_declared_is_withheld(tmp_path: Path, use: str) -> None:
    class Peeks(ToyMethod):
        def begin_experience(self, experience: Any) -> None:
            super().begin_experience(experience)
            getattr(experience, use)

    with pytest.raises(UndeclaredUse, match=f"does not declare `{use}`"):
        engine.execute(prepare_toy(build=Peeks), tmp_path, hooks=manager(), quiet=True)


@pytest.mark.parametrize("use", ["num_classes", "num_experiences"])
def test_the_future_is_withheld_from_the_constructor(tmp_path: Path, use: str) -> None:
    class Peeks(ToyMethod):
        def __init__(self, config: Any, context: Any) -> None:
            super().__init__(config, context)
            getattr(context, use)

    with pytest.raises(UndeclaredUse, match=f"does not declare `{use}`"):
        engine.execute(prepare_toy(build=Peeks), tmp_path, hooks=manager(), quiet=True)


def test_past_images_are_withheld_without_memory(tmp_path: Path) -> None:
    class Hoards(ToyMethod):
        past: Any = None

        def begin_experience(self, experience: Any) -> None:
            super().begin_experience(experience)
            if self.past is not None:
                len(self.past.train)
            self.past = experience

    with pytest.raises(UndeclaredUse, match="does not declare `memory`"):
        engine.execute(prepare_toy(build=Hoards), tmp_path, hooks=manager(), quiet=True)


def test_a_prediction_that_depends_on_its_batch_is_refused(tmp_path: Path) -> None:
    class Leaks(ToyMethod):
        def predict(self, images: torch.Tensor) -> torch.Tensor:
            return super().predict(images - images.mean(dim=0))

    with pytest.raises(PluginError, match="depends on the others of its batch"):
        engine.execute(prepare_toy(build=Leaks), tmp_path, hooks=manager(), quiet=True)
    leaking = prepare_toy(build=Leaks, uses=frozenset({"boundaries", "test_batch"}))
    record = records.read(engine.execute(leaking, tmp_path, hooks=manager(), quiet=True))
    assert "test_batch" in record["method"]["uses"]


def test_evaluation_must_not_change_the_method(tmp_path: Path) -> None:
    class Learns(ToyMethod):
        def predict(self, images: torch.Tensor) -> torch.Tensor:
            self.head.mul_(1.0)
            return super().predict(images)

    with pytest.raises(PluginError, match="changes its parameters"):
        engine.execute(prepare_toy(build=Learns), tmp_path, hooks=manager(), quiet=True)


def test_logits_of_unseen_classes_are_refused(tmp_path: Path) -> None:
    class Wide(ToyMethod):
        def predict(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(super().predict(images), (0, 1))

    with pytest.raises(PluginError, match="returned 3 columns, but 2 classes were seen"):
        engine.execute(prepare_toy(build=Wide), tmp_path, hooks=manager(), quiet=True)


def test_global_random_state_is_left_as_found(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)
    assert torch.equal(torch.rand(1), expected)


def test_an_unwritable_folder_is_one_message(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(RunFailed, match="cannot write"):
        engine.execute(prepare_toy(), blocker, hooks=manager(), quiet=True)


def test_a_full_disk_is_one_message_and_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    real = os.fsync
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) >= 3:  # the predictions and the checkpoint of experience 0 still fit
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    prepared = prepare_toy()
    with pytest.raises(RunFailed, match="no space left"):
        engine.execute(prepared, tmp_path, hooks=manager(), quiet=True)
    monkeypatch.setattr(os, "fsync", real)
    assert not list(tmp_path.rglob("*.part"))
    done = engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)
    assert records.read(done)["timing"]["resumed"] == 1


def test_an_exception_in_a_method_names_the_method(tmp_path: Path) -> None:
    class Broken(ToyMethod):
        def train_step(self, batch: Batch) -> Any:
            raise ZeroDivisionError("oops")

    prepared = prepare_toy(build=Broken)
    message = r"`toy-linear` of `benchmark\.testing`: `train_step` failed: ZeroDivisionError: oops"
    with pytest.raises(PluginError, match=message):
        engine.execute(prepared, tmp_path, hooks=manager(), quiet=True)
    assert records.read(places.record_path(tmp_path, prepared))["status"] == "failed"


def test_a_failed_repetition_keeps_the_finished_record(tmp_path: Path) -> None:
    path = engine.execute(prepare_toy(), tmp_path, hooks=manager(), quiet=True)
    content = path.read_bytes()

    class Broken(ToyMethod):
        def train_step(self, batch: Batch) -> Any:
            raise ZeroDivisionError("oops")

    with pytest.raises(PluginError):
        engine.execute(prepare_toy(build=Broken), tmp_path, hooks=manager(), quiet=True, force=True)
    assert path.read_bytes() == content


def test_seeds_of_initialisation_and_data_order_are_apart() -> None:
    first, second = prepare_toy(init_seed=1), prepare_toy(init_seed=2)
    assert first.plan.seeds["data"] == second.plan.seeds["data"]
    assert first.run_id != second.run_id
    assert derive(0, "a") != derive(0, "b") != derive(1, "b")


def test_the_checkpoint_interval_is_not_part_of_the_identity() -> None:
    plain, often = prepare_toy(), prepare_toy(settings={"engine.checkpoint_seconds": "0"})
    assert plain.run_id == often.run_id
    assert prepare_toy(settings={"lr": "0.1"}).run_id != plain.run_id


def test_joint_stream_trains_once_on_everything(tmp_path: Path) -> None:
    prepared = prepare_toy(stream="joint", experiences=3)
    record = records.read(engine.execute(prepared, tmp_path, hooks=manager(), quiet=True))
    assert len(record["accuracy"]) == 1
    assert len(record["accuracy"][0]) == 3
    assert record["metrics"]["forgetting"] is None


def test_domain_streams_fill_the_whole_matrix_and_measure_the_untrained_model(tmp_path: Path) -> None:
    prepared = prepare_toy(family="domain-il")
    record = records.read(engine.execute(prepared, tmp_path, hooks=manager(), quiet=True))
    assert all(value is not None for row in record["accuracy"] for value in row)
    assert record["metrics"]["fwt"] is not None


def test_validation_never_touches_test_images() -> None:
    prepared = prepare_toy(validate=1)
    full = toys.toy_scenario()
    tests = {int(i) for part in full.experiences for i in part.test.ids}
    used = {int(i) for part in prepared.stream.scenario.experiences for i in [*part.train.ids, *part.test.ids]}
    assert not used & tests
    assert len(prepared.stream.tests) == 1


def test_validation_keeps_the_mark_of_re_encoded_data() -> None:
    lossy = dataclasses.replace(toys.toy_scenario(), fingerprint="0" * 64 + "-lossy")
    assert streams.validation(lossy, 1).fingerprint.endswith("-lossy")
    assert not streams.validation(toys.toy_scenario(), 1).fingerprint.endswith("-lossy")


def test_a_device_that_does_not_exist_is_one_message() -> None:
    assert preparation.pick_device("cpu") == torch.device("cpu")
    for name in ("quantum", "meta"):
        with pytest.raises(UsageError, match=f"--device {name}"):
            preparation.pick_device(name)
