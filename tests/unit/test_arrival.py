"""Online and blurry streams of any scenario whose classes grow, and scenarios with one test set for all experiences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import arrival, families, records
from benchmark.arrival import ArrivalConfig
from benchmark.errors import UsageError
from benchmark.jobs import Job
from benchmark.leaderboard import leaderboard
from benchmark.run import engine, streams
from benchmark.run.plan import resolve
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import TOY_METHOD, prepare_toy, toy_scenario

MIXED = next(family for family in families.FAMILIES.values() if family.mixed)


# --- The schedule -------------------------------------------------------------------------------


def test_the_schedule_is_that_of_the_published_rule() -> None:
    """Probabilities against the rule written out, coins against their generator."""
    classes, tasks, batches = 10, 20, 5
    generator = np.random.RandomState(3)
    expected = []
    for task in range(tasks):
        while True:
            coins = generator.random_sample(classes)
            here = [
                label
                for label in range(classes)
                if coins[label] < np.exp(-((task * batches - (label * 10 + 5)) ** 2) / 5000)
            ]
            if here:
                break
        expected.append(tuple(here))
    assert arrival.schedule(classes, tasks, batches, 3) == expected


def test_the_published_stream_is_pinned() -> None:
    plan = arrival.schedule(100, 200, 5, 0)
    assert (len(plan), plan[0]) == (200, (0, 1, 2, 3, 4))
    assert {label for classes in plan for label in classes} == set(range(100))
    middle = [sum(classes) / len(classes) for classes in plan]
    assert np.corrcoef(middle, range(200))[0, 1] > 0.98
    wide = arrival.schedule(100, 200, 1, 0)
    assert np.mean([len(classes) for classes in wide]) > 3 * np.mean([len(classes) for classes in plan])


@pytest.mark.parametrize(
    ("classes", "tasks", "batches", "message"),
    [
        (100, 9, 10, "9 tasks of 10 batches are too few for 100 classes"),
        (2, 2, 2000, "no class comes in task"),
        (60, 2, 30, "classes never come"),
    ],
)
def test_a_schedule_that_leaves_classes_or_tasks_out_is_refused(
    classes: int, tasks: int, batches: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        arrival.schedule(classes, tasks, batches, 0)


# --- Blurry scenarios ---------------------------------------------------------------------------


def blurry(seed: int = 0, tasks: int = 8) -> Any:
    return arrival.mixed(toy_scenario(experiences=3), tasks, 10, seed)


def test_classes_are_numbered_as_they_come_and_keep_their_names() -> None:
    plain, found = toy_scenario(experiences=3), blurry()
    assert found.family == MIXED.name
    assert found.joint_test
    seen: set[int] = set()
    for part in found.experiences:
        seen |= set(part.classes)
        assert seen == set(range(len(seen)))
        assert set(part.train.labels.tolist()) == set(part.classes)
    assert len(seen) == 6
    assert len(found.experiences[0].test) == sum(len(part.test) for part in plain.experiences)
    names = {}
    for part in plain.experiences:
        for samples in (part.train, part.test):
            names.update(
                {
                    int(sample): plain.class_names[label]
                    for sample, label in zip(samples.ids, samples.labels, strict=True)
                }
            )
    for samples in (found.experiences[0].test, *(part.train for part in found.experiences)):
        for sample, label in zip(samples.ids.tolist(), samples.labels.tolist(), strict=True):
            assert found.class_names[label] == names[sample]
    assert [plain.class_names[label] for label in found.class_order] == list(found.class_names)
    assert blurry().fingerprint == found.fingerprint != blurry(seed=1).fingerprint
    assert found.content == plain.content


def test_one_test_set_is_one_column() -> None:
    stream = streams.sequential(blurry())
    assert (len(stream.tests), stream.names, stream.joint) == (1, ("joint",), True)
    assert stream.tests_seen == ((0,),) * 8
    whole = streams.joint(blurry())
    assert len(whole.tests) == 1
    assert len(whole.scenario.experiences[0].train) == sum(
        len(part.train) for part in toy_scenario(experiences=3).experiences
    )
    assert sorted(whole.scenario.experiences[0].train.ids.tolist()) == sorted(
        {int(sample) for part in blurry().experiences for sample in part.train.ids}
    )


def test_held_out_samples_of_a_blurry_stream_would_be_trained_on() -> None:
    with pytest.raises(UsageError, match="share samples"):
        streams.validation(blurry(), 2)


def test_only_a_blurry_stream_changes_the_scenario() -> None:
    plain = toy_scenario()
    assert arrival.arranged(plain, ArrivalConfig(stream="online"), 0) is plain
    changed = arrival.arranged(plain, ArrivalConfig(stream="blurry", blurry_tasks=4, blurry_batches=20), 0)
    assert len(changed.experiences) == 4


# --- Options ------------------------------------------------------------------------------------


def plan(method: str = "finetune", scenario: str = "split-glyphs", **settings: str) -> Any:
    return resolve(Job(scenario=scenario, method=method, settings=settings))


def test_a_record_keeps_what_the_stream_depends_on_and_nothing_of_the_usual_one() -> None:
    assert "stream" not in plan().effective()["scenario"]
    online = plan(stream="online", online_batch="7")
    kept = {
        key: value for key, value in online.effective()["scenario"].items() if key not in plan().effective()["scenario"]
    }
    assert kept == {"stream": "online", "online_batch": 7}
    assert (online.method_config.epochs, online.method_config.batch_size) == (1, 7)
    assert online.of_track()["method"] == online.effective()["method"]  # so that no label tells it
    assert "stream" not in online.of_track()["scenario"]
    assert online.origin["method.epochs"] == "scenario.stream=online"
    mixed = plan(**{"scenario.stream": "blurry"})
    assert mixed.effective()["scenario"]["blurry_tasks"] == 200
    assert "online_batch" not in mixed.effective()["scenario"]
    assert mixed.method_config == plan().method_config


def test_identities_differ_by_what_the_stream_is() -> None:
    facts: dict[str, Any] = {"fingerprint": "f", "partition": "", "weights_sha256": "w", "inputs": {}, "device": "cpu"}
    found = {
        plan(**options).run_id(**facts)
        for options in ({}, {"stream": "sequential"}, {"stream": "online"}, {"stream": "blurry"})
    }
    assert len(found) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": "online", "epochs": "3"}, "method.finetune.epochs=3: scenario.stream=online means epochs=1"),
        ({"stream": "online", "batch_size": "64"}, "batch_size=64: scenario.stream=online means batch_size=10"),
        ({"stream": "often"}, "'often' is not allowed"),
        ({"stream": "online", "online_batch": "0"}, "online_batch: 0 is too small"),
    ],
)
def test_values_that_contradict_the_stream_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**settings)


def test_values_that_agree_with_the_stream_are_fine() -> None:
    assert plan(stream="online", epochs="1", batch_size="10").method_config.batch_size == 10
    assert plan("joint", stream="online").method_config == plan("joint").method_config  # an upper bound
    assert plan("clip-zero-shot", stream="online").method_config.epochs == 0


def test_only_streams_whose_classes_grow_have_these_options() -> None:
    with pytest.raises(UsageError, match="stream"):
        plan(scenario="glyph-domains", stream="online")


# --- Runs ---------------------------------------------------------------------------------------


def run(out: Path, **options: Any) -> records.Record:
    path = engine.execute(prepare_toy(**options), out, hooks=manager([]), quiet=True)
    return records.read(path)


def test_a_second_pass_is_refused_in_an_online_stream(tmp_path: Path) -> None:
    class Twice(TOY_METHOD.build):  # type: ignore[misc, name-defined]
        def passes(self) -> tuple[str, ...]:
            return ("train", "test")

    online = {"scenario.stream": "online"}
    assert run(tmp_path, settings=online).config.effective["method"]["epochs"] == 1
    with pytest.raises(UsageError, match="makes 2 passes over an experience, an online stream has one"):
        run(tmp_path / "twice", settings=online, build=Twice)


def test_a_blurry_run_is_one_column_and_a_table_of_its_own(tmp_path: Path) -> None:
    settings = {"scenario.stream": "blurry", "scenario.blurry_tasks": "6", "scenario.blurry_batches": "10"}
    record = run(tmp_path, experiences=3, settings=settings)
    assert record.scenario.family == MIXED.name
    assert [len(row) for row in record.accuracy] == [1] * 6
    assert record.number("final_acc") == record.accuracy[-1][0]
    assert record.number("forgetting") is None
    assert record.number("avg_incremental_acc") == pytest.approx(np.mean([row[0] for row in record.accuracy]))
    (table,) = leaderboard([record])
    assert table.columns[1].title == "Final acc. (%)"
    assert "stream=blurry" in table.title
