"""Batches in parts: the same arithmetic, or a refusal with the reason; a full memory, and what is done about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import records, registry
from benchmark.api import Batch, Context, ExperienceView, LoopMethod, Place
from benchmark.errors import BenchWarning, RunFailed, UsageError
from benchmark.guard import memory_is_full
from benchmark.records import predictions
from benchmark.run import engine, memory
from benchmark.run.interruption import Interrupted
from benchmark.run.memory import GIB, Room
from benchmark.run.parts import cut, size_of, split, together
from benchmark.stepping import Stepper
from benchmark.testing import checks
from benchmark.testing.disturbances import StopAtStep
from benchmark.testing.toys import ToyMethod, ToyMethodConfig, prepare_toy

CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1610612736 bytes. Error code 12"


def execute(out: Path, build: Any = ToyMethod, *, stop: Any = None, scenario: Any = None, **settings: Any) -> Path:
    given = {name.replace("engine_", "engine."): str(value) for name, value in settings.items()}
    prepared = prepare_toy(
        build=build,
        uses=frozenset({"boundaries", "unlabelled"}),
        settings={"engine.save_logits": "true", "epochs": "2", **given},
        **{"experiences": 1, "train": 9, **(scenario or {})},
    )
    return engine.execute(prepared, out, hooks=registry.without_life_cycle(), quiet=True, stop=stop)


def logits(path: Path) -> Tensor:
    return torch.as_tensor(predictions.read(path.with_suffix(".parquet")).logits)


def losses(path: Path) -> list[float]:
    return [epoch["loss"] for experience in records.read(path)["losses"] for epoch in experience]


def batch(count: int = 7) -> Batch:
    references = tuple((f"text {row}",) for row in range(count))
    return Batch(torch.arange(count * 3.0).view(count, 3), torch.arange(count), references=references)


@pytest.mark.parametrize(("size", "ranks"), [(0, 1), (3, 1), (1, 1), (9, 1), (0, 2), (2, 2), (3, 4), (0, 9)])
def test_parts_are_the_batch(size: int, ranks: int) -> None:
    parts = [part for rank in range(ranks) for part in split(batch(), size=size, rank=rank, ranks=ranks)]
    counted = [part for part in parts if part.weight]
    assert torch.cat([part.batch.labels for part in counted]).tolist() == list(range(7))
    assert torch.equal(torch.cat([part.batch.inputs for part in counted]), batch().inputs)
    assert [text for part in counted for text in part.batch.references or ()] == [(f"text {row}",) for row in range(7)]
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert all(part.weight == pytest.approx(size_of(part.batch) / 7) for part in counted)
    assert len({part.number for part in parts}) == len(parts)
    assert all(size_of(part.batch) <= (size or 7) for part in parts)


def test_a_process_without_a_sample_takes_part_with_nothing() -> None:
    (alone,) = split(batch(1), rank=1, ranks=2)
    assert (alone.weight, size_of(alone.batch)) == (0.0, 1)


def test_target_samples_are_cut_where_they_are_alone() -> None:
    none = torch.empty(0, dtype=torch.int64)
    whole = Batch(torch.empty(0, 3), none, torch.arange(12.0).view(4, 3), torch.arange(4), place=Place(step=3))
    part = cut(whole, slice(1, 3))
    assert (part.target_index is not None, size_of(part), len(part)) == (True, 2, 0)
    assert part.target.tolist() == [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
    assert part.place == whole.place


def test_terms_are_means_over_the_parts_that_tell_them() -> None:
    found = together(
        [(0.5, {"loss": 1.0}), (0.25, {"loss": 2.0}), (0.25, {"loss": 4.0, "norm": 3.0}), (0.0, {"x": 1.0})]
    )
    assert found == {"loss": 2.0, "norm": 3.0}


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_a_run_in_parts_is_the_run(tmp_path: Path, size: int) -> None:
    whole, parts = execute(tmp_path), execute(tmp_path, engine_micro_batch=size)
    assert torch.allclose(logits(whole), logits(parts), rtol=1e-4, atol=1e-5)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)
    assert records.read(parts)["config"]["effective"]["engine"]["micro_batch"] == size


class Clipped(ToyMethod):
    """The norm of the gradient counts, and a part of the network stands still; sees how many samples come."""

    most = 0
    full_above = 10**9
    drops = 0.0

    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.still = nn.Linear(192, 2)

    def begin_experience(self, experience: ExperienceView) -> None:
        """A fresh optimiser."""
        super().begin_experience(experience)
        self.optimizer = torch.optim.Adam([self.head, *self.still.parameters()], lr=0.05)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy."""
        type(self).most = max(type(self).most, len(batch))
        if len(batch) > self.full_above:
            raise RuntimeError(CPU_IS_FULL)
        features = F.dropout(self._features(batch.images), self.drops)
        loss = F.cross_entropy(features @ self.head.T + self.still(features), batch.labels)
        self.descend(loss, clip=0.1, still=[self.still])
        return {"loss": loss.detach()}


def fresh(**attributes: Any) -> Any:
    return type("FreshClipped", (Clipped,), attributes)


def test_norms_are_of_whole_batches_and_samples_come_in_parts(tmp_path: Path) -> None:
    build = fresh()
    whole = execute(tmp_path, build)
    assert build.most == 8
    build = fresh()
    parts = execute(tmp_path, build, engine_micro_batch=3)
    assert build.most == 3
    assert torch.allclose(logits(whole), logits(parts), rtol=1e-4, atol=1e-5)


def test_parts_draw_from_their_place_so_that_a_stop_changes_nothing(tmp_path: Path) -> None:
    build = fresh(drops=0.3)
    with pytest.raises(UsageError, match="or draws random numbers"):
        execute(tmp_path, build, engine_micro_batch=3)

    class Module(Clipped):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.dropout = nn.Dropout(0.3)

        def _features(self, images: Tensor) -> Tensor:
            found: Tensor = self.dropout(super()._features(images))
            return found

    whole = execute(tmp_path / "whole", Module, engine_micro_batch=3)
    with pytest.raises(Interrupted):
        execute(tmp_path / "pieces", Module, stop=StopAtStep(2), engine_micro_batch=3, engine_checkpoint_seconds=0)
    pieces = execute(tmp_path / "pieces", Module, engine_micro_batch=3, engine_checkpoint_seconds=0)
    assert torch.equal(logits(whole), logits(pieces))


class Says(ToyMethod):
    """Knows that it cannot be split."""

    @property
    def coupled(self) -> str | None:
        """The reason."""
        return "the loss has a variance of the batch"


class Spread(ToyMethod):
    """Cannot be split, and does not say so."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A variance over the batch."""
        logits = self._features(batch.images) @ self.head.T
        loss = F.cross_entropy(logits, batch.labels) + logits.var(dim=0).sum()
        self.descend(loss)
        return {"loss": loss.detach()}


class Normed(ToyMethod):
    """Statistics of a batch in a module."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.norm = nn.BatchNorm1d(192)

    def _features(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(super()._features(images))
        return found


class Sums(ToyMethod):
    """A sum instead of a mean."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Summed over samples."""
        logits = self._features(batch.images) @ self.head.T
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        self.descend(loss)
        return {"loss": loss.detach()}


class Twice(ToyMethod):
    """Two steps a batch."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """The usual, twice."""
        super().train_step(batch)
        return super().train_step(batch)


class Itself(ToyMethod):
    """Steps its optimiser itself."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """As before there was a service."""
        loss = F.cross_entropy(self._features(batch.images) @ self.head.T, batch.labels)
        self.active_optimizer.zero_grad()
        loss.backward()
        self.active_optimizer.step()
        return {"loss": loss.detach()}


class None_(ToyMethod):
    """Has no optimiser."""

    def begin_experience(self, experience: ExperienceView) -> None:
        """Nothing to make."""
        super().begin_experience(experience)
        self.optimizer = None


class Loop(LoopMethod):
    """Brings its own loop."""

    def train_experience(self, experience: ExperienceView) -> Mapping[str, float]:
        """Nothing."""
        return {"loss": 0.0}

    def predict(self, images: Tensor) -> Tensor:
        """Nothing."""
        return images


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Says, "the loss has a variance of the batch"),
        (Spread, "couples the samples of a batch"),
        (Normed, "couples the samples of a batch"),
        (Sums, "is not the mean of those of its parts"),
        (Twice, "goes down a loss 2 times"),
        (Itself, "steps its optimiser itself"),
        (None_, "it has no optimiser"),
        (Loop, "brings its own training loop"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(tmp_path: Path, build: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"engine.micro_batch=4: not with method `toy-linear`: .*{reason}") as refused:
        execute(tmp_path, build, engine_micro_batch=4)
    assert "leave" in str(refused.value.hint)


def test_what_fails_on_a_single_sample_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its training step fails on 1 samples: .*more than 1 value per channel"):
        execute(tmp_path, Normed, engine_micro_batch=1)


def test_a_batch_of_two_sides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a mean over labelled and another over target samples"):
        execute(tmp_path, engine_micro_batch=3, scenario={"family": "uda"})


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("l2p", "selection_train=batchwise"),
        ("l2p++", "the key loss is a sum"),
        ("mlp-k", "BatchNorm"),
        ("icarl", "draws images that it remembers"),
        ("shot", "spreads the mean prediction"),
    ],
)
def test_built_in_methods_say_why_their_batches_are_whole(method: str, reason: str) -> None:
    subject = checks.method_subject(method)
    with pytest.raises(UsageError, match=f"engine.micro_batch=3: not with method `{re.escape(method)}`: .*{reason}"):
        subject.run(subject.scenario(experiences=1), micro_batch=3)


# ---- a full memory


def test_a_full_memory_is_known_by_its_words() -> None:
    full = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_IS_FULL)]
    full.append(RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory: you tried to allocate 7 bytes"))
    assert all(map(memory_is_full, full))
    assert not any(map(memory_is_full, [RuntimeError("shapes"), ValueError("not enough memory")]))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (CPU_IS_FULL, 1610612736),
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of", 2.5 * GIB),
        ("Tried to allocate 20.00 MiB", 20 * 2**20),
        ("CUBLAS_STATUS_ALLOC_FAILED", 0),
    ],
)
def test_messages_tell_what_was_asked_for(text: str, size: float) -> None:
    assert memory.asked_for(RuntimeError(text)) == int(size)


def test_what_fits_follows_from_the_sizes() -> None:
    assert memory.fits(128, Room(), 0) == 64
    assert memory.fits(128, Room(held=2 * GIB, total=16 * GIB), GIB) == 64
    assert memory.fits(128, Room(held=2 * GIB, total=16 * GIB), 42 * GIB) == 32
    assert memory.fits(3, Room(held=2 * GIB, total=16 * GIB), 1000 * GIB) == 1


def test_the_message_says_by_how_much_to_lower_what(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        execute(tmp_path, fresh(full_above=3))
    assert "out of memory in a training step of 8 samples, 1.50 GiB more were asked for" in failed.value.message
    assert "--set engine.micro_batch=4 or lower (it was 8)" in str(failed.value.hint)
    assert "engine.batch_fallback=true" in str(failed.value.hint)
    assert failed.value.exit_code == 1
    (record,) = tmp_path.rglob("*.json")
    assert records.read(record)["status"] == "failed"


def test_what_cannot_be_split_is_told_to_lower_its_batch(tmp_path: Path) -> None:
    class Full(Says):
        def train_step(self, batch: Batch) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(RunFailed, match="out of memory in a training step") as failed:
        execute(tmp_path, Full)
    assert "--set method.batch_size=4 or lower" in str(failed.value.hint)


def test_predictions_that_do_not_fit_name_their_own_option(tmp_path: Path) -> None:
    class Full(ToyMethod):
        def predict(self, images: Tensor) -> Tensor:
            raise RuntimeError(CPU_IS_FULL)

    with pytest.raises(RunFailed, match="out of memory in a prediction of 256 samples") as failed:
        execute(tmp_path, Full)
    assert "engine.eval_batch_size=128 or lower" in str(failed.value.hint)


def test_memory_that_is_full_elsewhere_is_said_too(tmp_path: Path) -> None:
    class Full(ToyMethod):
        def end_experience(self, experience: ExperienceView) -> None:
            raise MemoryError

    with pytest.raises(RunFailed, match="out of memory outside of steps and predictions"):
        execute(tmp_path, Full)


def test_a_batch_that_does_not_fit_goes_on_in_parts(tmp_path: Path) -> None:
    whole = execute(tmp_path / "whole", fresh())
    build = fresh(full_above=3)
    with pytest.warns(BenchWarning, match="batches go on in parts of") as said:
        path = execute(tmp_path, build, engine_batch_fallback="true")
    assert [str(one.message).split(" in parts of ")[1] for one in said] == ["4 samples", "2 samples"]
    assert torch.allclose(logits(whole), logits(path), rtol=1e-4, atol=1e-5)
    record = records.read(path)
    assert record["warnings"] == [
        "memory was full: batches were trained on in parts of 2 samples (engine.batch_fallback)"
    ]
    assert record["config"]["effective"]["engine"]["batch_fallback"] is True


def test_the_size_that_was_found_survives_a_stop(tmp_path: Path) -> None:
    with pytest.warns(BenchWarning, match="in parts of"):
        whole = execute(tmp_path / "whole", fresh(full_above=3), engine_batch_fallback="true")
    again = {"engine_batch_fallback": "true", "engine_checkpoint_seconds": 0}
    with pytest.warns(BenchWarning, match="in parts of"), pytest.raises(Interrupted):
        execute(tmp_path / "pieces", fresh(full_above=3), stop=StopAtStep(2), **again)
    pieces = execute(tmp_path / "pieces", fresh(full_above=3), **again)  # without a warning: it is known
    assert torch.equal(logits(whole), logits(pieces))
    assert records.read(pieces)["warnings"] == records.read(whole)["warnings"]


def test_a_step_that_was_begun_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(self: Stepper, optimizer: torch.optim.Optimizer) -> None:
        calls.append(self)
        self.stepped = True
        if len(calls) > 1:  # the first is that of the copy whose operations are counted
            raise RuntimeError(CPU_IS_FULL)

    monkeypatch.setattr(Stepper, "step", full)
    with pytest.raises(RunFailed, match="out of memory in a training step of 8 samples"):
        execute(tmp_path, engine_batch_fallback="true")


def test_one_sample_that_does_not_fit_is_the_end(tmp_path: Path) -> None:
    with (
        pytest.warns(BenchWarning, match="in parts of"),
        pytest.raises(RunFailed, match="out of memory in a training step of 1 samples") as failed,
    ):
        execute(tmp_path, fresh(full_above=0), engine_batch_fallback="true")
    assert "activation_checkpointing" in str(failed.value.hint)
