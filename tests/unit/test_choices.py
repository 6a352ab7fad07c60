"""Which prompts samples choose: kept beside predictions where a run is asked to, without touching anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest
import torch
from torch import Tensor

import benchmark as bench
from benchmark import hookspecs, records
from benchmark.errors import BenchWarning, PluginError
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.run import engine, places
from benchmark.run.interruption import Interrupted
from benchmark.testing.toys import ToyMethod, prepare_toy

PLUGIN = """
from benchmark import hookimpl
from benchmark.testing.toys import TOY_SCENARIO

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""
KEPT = {"engine.save_choices": "true"}


class Chooser(ToyMethod):
    """Its choice is its best class and the next one: a reader can hold it against the predictions."""

    def chosen_parts(self, inputs: Tensor) -> Tensor | None:
        return self.predict(inputs).argsort(dim=1, descending=True, stable=True)[:, :2]


def run(
    out: Path, build: type[ToyMethod] = Chooser, settings: dict[str, str] | None = None
) -> tuple[Path, Predictions]:
    hooks = pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    prepared = prepare_toy(build=build, settings={"engine.eval_batch_size": "5", **(settings or {})})
    path = engine.execute(prepared, out, hooks=hooks, quiet=True)
    return path, predictions.read(path.with_suffix(".parquet"))


def test_every_sample_has_its_own_choices(tmp_path: Path) -> None:
    _, found = run(tmp_path, settings=KEPT)
    assert found.choices is not None
    assert found.choices.tolist() == found.top5[:, :2].tolist()
    assert len({tuple(row) for row in found.choices.tolist()}) > 2
    part = found.after(1).on([0])
    assert part.choices is not None
    assert part.choices.tolist() == part.top5[:, :2].tolist()


def test_the_option_changes_neither_the_run_nor_its_numbers(tmp_path: Path) -> None:
    with_choices, found = run(tmp_path / "a", settings=KEPT)
    without, plain = run(tmp_path / "b")
    silent, _ = run(tmp_path / "c", build=ToyMethod)
    assert with_choices.name == without.name
    assert plain.choices is None
    assert not predictions.has_choices(without.with_suffix(".parquet"))
    ours, theirs = (records.comparable(records.read(one)) for one in (with_choices, without))
    assert {key for key in ours if ours[key] != theirs[key]} <= {"config", "predictions"}
    assert ours["config"]["effective"] == theirs["config"]["effective"]
    for name in ("sample_id", "prediction", "confidence", "top5"):
        assert np.array_equal(getattr(found, name), getattr(plain, name))
    # A method that could tell, but is not asked, leaves the same bytes as one that cannot.
    assert without.with_suffix(".parquet").read_bytes() == silent.with_suffix(".parquet").read_bytes()


def test_a_run_without_choices_is_done_again_where_they_are_asked_for(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.warns(BenchWarning, match=r"what it chose was not kept \(engine.save_choices\): the run is done again"):
        path, found = run(tmp_path, settings=KEPT)
    assert found.choices is not None
    assert places.is_finished(path, choices=True)
    assert run(tmp_path)[1].choices is not None  # who does not ask takes what is there


def test_a_method_that_chooses_nothing_has_empty_choices_and_is_done_once(tmp_path: Path) -> None:
    path, found = run(tmp_path, build=ToyMethod, settings=KEPT)
    assert found.choices is not None
    assert found.choices.shape == (len(found), 0)
    assert places.is_finished(path, choices=True)


def test_choices_kept_from_some_point_of_a_run_on_are_padded(tmp_path: Path) -> None:
    class Stops(Chooser):
        stopped = False

        def begin_experience(self, experience: Any) -> None:
            if experience.seen > 2 and not Stops.stopped:
                Stops.stopped = True
                raise KeyboardInterrupt
            super().begin_experience(experience)

    with pytest.raises(Interrupted):
        run(tmp_path, build=Stops)
    _, found = run(tmp_path, build=Stops, settings=KEPT)
    assert found.choices is not None
    assert (found.after(0).choices == -1).all()
    assert (found.after(1).choices >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: torch.zeros(len(images), 1),
        lambda images: torch.zeros(len(images), dtype=torch.int64),
        lambda images: torch.zeros(1 + len(images), 1, dtype=torch.int64),
        lambda images: torch.full((len(images), 1), -1),
        lambda images: [[0]] * len(images),
    ],
)
def test_what_is_no_choice_is_refused(tmp_path: Path, wrong: Any) -> None:
    class Wrong(ToyMethod):
        def chosen_parts(self, inputs: Tensor) -> Any:
            return wrong(inputs)

    with pytest.raises(PluginError, match="chosen_parts"):
        run(tmp_path, build=Wrong, settings=KEPT)
    run(tmp_path / "not asked", build=Wrong)


# --- methods that choose ----------------------------------------------------------------------------


def of(out: Path, method: str, **settings: Any) -> tuple[records.Record, Predictions]:
    chosen = {"scenario.train": 4, "scenario.test": 3, "engine.save_model": True, **KEPT, **settings}
    path = bench.run(scenario="toy", method=method, settings=chosen, out=out, device="cpu", epochs=1, quiet=True)
    return records.read(path.paths[0]), predictions.read(path.paths[0].with_suffix(".parquet"))


@pytest.mark.usefixtures("one_thread", "plugin_file")
@pytest.mark.parametrize(
    ("method", "settings", "each", "most"),
    [
        ("l2p", {"pool_size": 6, "top_k": 2}, 2, 6),
        ("l2p++", {"pool_size": 5, "top_k": 2, "prompt_depth": 2}, 4, 10),
        ("dualprompt", {}, 1, 2),
        ("hide-prompt", {"align_epochs": 1, "task_epochs": 1}, 1, 2),
        ("s-prompts", {"scenario.family": "domain-il", "first_epochs": 1}, 1, 2),
    ],
)
def test_methods_tell_what_they_choose(
    tmp_path: Path, method: str, settings: dict[str, Any], each: int, most: int
) -> None:
    record, found = of(tmp_path, method, **settings)
    assert found.choices is not None
    assert found.choices.shape[1] == each
    assert (found.choices >= 0).all()
    assert found.choices.max() < most
    model = bench.load_model(next(tmp_path.glob(f"*/*/{record.run_id}.json")), device="cpu")
    learner = model._opened.method
    images = torch.rand(7, 3, *[record.inputs.facts["size"]] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told, before = learner.chosen_parts(images), learner.predict(images)
        if method in ("l2p", "l2p++", "dualprompt"):
            used = learner.run(images).chosen.selection  # what `predict` goes through
            used = used if used.ndim == 2 else torch.cat([used[0], used[1] + 5], dim=1)
            assert told.tolist() == used.tolist()
        assert torch.equal(learner.predict(images), before)
    if method in ("hide-prompt", "s-prompts"):  # after the first experience there is one module
        assert (found.after(0).choices == 0).all()


@pytest.mark.usefixtures("one_thread", "plugin_file")
@pytest.mark.parametrize(("method", "settings"), [("coda-prompt", {}), ("l2p", {"prompts": "off"})])
def test_what_weighs_all_prompts_or_has_none_chooses_none(
    tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    _, found = of(tmp_path, method, **settings)
    assert found.choices is not None
    assert found.choices.shape[1] == 0


@pytest.mark.usefixtures("one_thread", "plugin_file")
def test_where_texts_are_written_nothing_is_chosen(tmp_path: Path) -> None:
    settings = {"scenario.family": "generation", "scenario.train": 2, "scenario.test": 2, **KEPT}
    options: dict[str, Any] = {"method": "lm-finetune", "backbone": "nano-lm", "settings": settings, "out": tmp_path}
    path = bench.run(scenario="toy", epochs=1, device="cpu", quiet=True, **options).paths[0]
    found = predictions.read(path.with_suffix(".parquet"))
    assert found.choices is not None
    assert found.choices.shape == (len(found), 0)
