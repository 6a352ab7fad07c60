"""Families that transfer: what a method is given, what it cannot reach, what is measured and selected."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from benchmark import records
from benchmark.api import Batch, Context, Experience, ExperienceView, ImageSet, LoopMethod, Manifest, Scenario
from benchmark.cli import main, summary
from benchmark.errors import PluginError, UndeclaredUse, UsageError
from benchmark.families import FAMILIES
from benchmark.metrics import transfer_metrics
from benchmark.records import predictions
from benchmark.run import engine, streams
from benchmark.run.interruption import Interrupted
from benchmark.testing import toys
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import ToyMethod, prepare_toy, toy_scenario

BOTH = frozenset({"boundaries", "unlabelled"})


class Diary(ToyMethod):
    """Writes down every batch; a class per test, as the diary belongs to the class."""

    batches: list[Batch]
    stop_at = -1

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        if len(type(self).batches) == type(self).stop_at:
            type(self).stop_at = -1
            raise KeyboardInterrupt
        type(self).batches.append(batch)
        if not len(batch):
            return {"loss": 0.0}
        return super().train_step(batch)


@pytest.fixture
def diary() -> type[Diary]:
    return type("OwnDiary", (Diary,), {"batches": []})


def execute(prepared: Any, out: Path) -> dict[str, Any]:
    return records.read(engine.execute(prepared, out, hooks=manager([]), quiet=True))


def written(diary: type[Diary], steps: int) -> list[Batch]:
    """Batches without the one of the copy that counts FLOPs, which comes first."""
    assert len(diary.batches) == steps + 1
    return diary.batches[1:]


# --- batches ------------------------------------------------------------------------------------


def test_source_and_target_come_in_one_batch(tmp_path: Path, diary: type[Diary]) -> None:
    # 2 classes x 9 images = 18 source and 18 target images; batches of 8: 3 steps an epoch.
    record = execute(prepare_toy(build=diary, uses=BOTH, family="uda", train=9), tmp_path)
    found = written(diary, 9)
    assert [len(batch) for batch in found] == [8, 8, 2] * 3
    assert all(batch.target is not None and batch.target.shape == (8, 3, 32, 32) for batch in found)
    places = torch.cat([batch.target_index for batch in found if batch.target_index is not None])
    # An endless sequence of shuffled passes: 72 places are four passes over 18 images.
    for start in range(0, 72, 18):
        assert sorted(places[start : start + 18].tolist()) == list(range(18))
    assert places[:18].tolist() != places[18:36].tolist()
    assert all(batch.domains is None for batch in found)  # not declared
    assert record["scenario"]["experiences"][0]["target"] == 18


def test_index_and_target_index_tell_which_image_it_is(tmp_path: Path) -> None:
    class Compares(ToyMethod):
        def begin_experience(self, experience: ExperienceView) -> None:
            super().begin_experience(experience)
            assert experience.unlabelled is not None
            type(self).whole = experience.unlabelled.images(slice(None))  # type: ignore[attr-defined]
            type(self).own = experience.train.images(slice(None))  # type: ignore[attr-defined]

        def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
            assert batch.target_index is not None
            raw = type(self).whole[batch.target_index]  # type: ignore[attr-defined]
            assert torch.equal(self.context.pipeline.eval(raw), batch.target)  # the preset `plain` does not augment
            assert batch.index is not None
            raw = type(self).own[batch.index]  # type: ignore[attr-defined]
            assert torch.equal(self.context.pipeline.eval(raw), batch.images)
            return super().train_step(batch)

    execute(prepare_toy(build=Compares, uses=BOTH, family="uda"), tmp_path)


def test_the_target_does_not_change_the_source_batches(tmp_path: Path, diary: type[Diary]) -> None:
    alone = type("Alone", (Diary,), {"batches": []})
    execute(prepare_toy(build=diary, uses=BOTH, family="uda"), tmp_path / "a")
    execute(prepare_toy(build=alone, family="uda"), tmp_path / "b")
    for one, two in zip(diary.batches, alone.batches, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
        assert two.target is None
        assert two.target_index is None


class SourceFree(Diary):
    """One epoch of the source, then epochs of the target alone."""

    def reads(self, epoch: int) -> Any:
        return "source" if epoch == 0 else "target"


def test_epochs_may_read_the_target_alone(tmp_path: Path) -> None:
    method = type("OwnSourceFree", (SourceFree,), {"batches": []})
    scenario = {"family": "uda", "train": 9}
    record = execute(prepare_toy(build=method, uses=BOTH, **scenario), tmp_path)
    found = written(method, 9)
    assert all(batch.target is None for batch in found[:3])
    for batch in found[3:]:
        assert batch.images.shape == (0, 3, 32, 32)
        assert batch.labels.shape == (0,)
    assert [len(batch.target) for batch in found[3:] if batch.target is not None] == [8, 8, 2, 8, 8, 2]
    for epoch in (3, 6):  # one pass each
        places = [batch.target_index for batch in found[epoch : epoch + 3]]
        assert sorted(torch.cat([part for part in places if part is not None]).tolist()) == list(range(18))
    assert len(record["losses"][0]) == 3


def test_a_wrong_word_of_reads_is_an_error(tmp_path: Path) -> None:
    class Wrong(ToyMethod):
        def reads(self, epoch: int) -> Any:
            return "all"

    with pytest.raises(PluginError, match=r"reads\(0\) returned 'all'"):
        execute(prepare_toy(build=Wrong, uses=BOTH, family="uda"), tmp_path)


@pytest.mark.parametrize("base", [Diary, SourceFree])
@pytest.mark.parametrize("stop_at", [2, 5, 8])
def test_a_resumed_run_sees_the_same_target_batches(tmp_path: Path, base: type[Diary], stop_at: int) -> None:
    whole = type("Whole", (base,), {"batches": []})
    cut = type("Whole", (base,), {"batches": [], "stop_at": stop_at})
    settings = {"engine.checkpoint_seconds": "0"}
    first = execute(prepare_toy(build=whole, uses=BOTH, family="uda", train=9, settings=settings), tmp_path / "a")
    with pytest.raises(Interrupted):
        execute(prepare_toy(build=cut, uses=BOTH, family="uda", train=9, settings=settings), tmp_path / "b")
    second = execute(prepare_toy(build=cut, uses=BOTH, family="uda", train=9, settings=settings), tmp_path / "b")
    assert json.dumps(records.comparable(first)) == json.dumps(records.comparable(second))
    assert len(whole.batches) == len(cut.batches) == 10
    for one, two in zip(whole.batches, cut.batches, strict=True):
        for name in ("images", "labels", "target", "target_index"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a is None and b is None) or torch.equal(a, b)


def test_domains_are_told_to_those_who_declare_them(tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    class Asks(ToyMethod):
        def begin_experience(self, experience: ExperienceView) -> None:
            super().begin_experience(experience)
            told["sources"], told["target"] = experience.source_domains, experience.target_domain
            told["train"] = experience.train.domains

        def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
            assert batch.domains is not None
            told.setdefault("seen", []).append(batch.domains)
            return super().train_step(batch)

    uses = BOTH | {"domains"}
    execute(prepare_toy(build=Asks, uses=uses, family="dg", train=8), tmp_path / "dg")
    assert told["sources"] == ("domain0", "domain1")
    assert told["target"] is None  # held out: not even its name
    assert torch.cat(told["seen"][1:5]).sum() == 16  # half of 32 images are of domain 1
    assert torch.equal(told["train"].bincount(), torch.tensor([16, 16]))
    told.clear()
    execute(prepare_toy(build=Asks, uses=uses, family="uda"), tmp_path / "uda")
    assert (told["sources"], told["target"]) == (("domain0",), "domain1")
    assert not torch.cat(told["seen"]).any()


# --- the firewall -------------------------------------------------------------------------------


class Burglar(ToyMethod):
    """Tries every way to target labels that leads through the objects it is given."""

    loot: dict[str, Any]

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        loot = type(self).loot
        target = experience.unlabelled
        assert target is not None
        loot["labels"] = target.labels
        loot["ids"], loot["rows"] = target.ids, target.rows
        loot["pixels"] = target.source[torch.arange(len(target.source))]
        loot["subset"] = target.subset(torch.arange(3)).labels
        loot["train source"] = experience.train.source[torch.arange(len(experience.train.source))]
        loot["view"] = list(_reachable(experience))
        loot["context"] = list(_reachable(self.context))

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        type(self).loot.setdefault("batch", []).append((batch.labels, batch.target_index))
        return super().train_step(batch)


def _reachable(root: object) -> Iterator[object]:
    """Every object to which attributes, containers and closures lead, code and modules aside."""
    queue, visited = [root], set()
    while queue:
        thing = queue.pop()
        if id(thing) in visited or isinstance(thing, (type, str, int, float)) or type(thing).__name__ == "module":
            continue
        visited.add(id(thing))
        yield thing
        if callable(thing) and hasattr(thing, "__closure__"):
            queue += [cell.cell_contents for cell in thing.__closure__ or ()]
        elif isinstance(thing, Mapping):
            queue += list(thing.values())
        elif isinstance(thing, (list, tuple, set, frozenset)):
            queue += list(thing)
        elif not isinstance(thing, Tensor):
            queue += list(getattr(thing, "__dict__", {}).values())


def test_target_labels_cannot_be_reached(tmp_path: Path) -> None:
    burglar = type("OwnBurglar", (Burglar,), {"loot": {}})
    scenario = toy_scenario(family="uda", train=9)
    truth, known = scenario.experiences[0], scenario.experiences[0].target
    assert known is not None
    assert truth.target_labels is not None
    execute(
        prepare_toy(build=burglar, uses=BOTH | {"domains", "class_names", "num_classes"}, family="uda", train=9),
        tmp_path,
    )
    loot = burglar.loot
    assert (loot["labels"] == -1).all()
    assert (loot["subset"] == -1).all()
    # Ids and rows only count, and the order is not that of the scenario, which is sorted by class.
    assert loot["ids"].tolist() == loot["rows"].tolist() == list(range(18))
    order = [_find(image, known.images(slice(None))) for image in loot["pixels"]]
    assert sorted(order) == list(range(18))
    labels = truth.target_labels[torch.tensor(order)]
    assert labels.tolist() != sorted(labels.tolist())
    # The source of the training images leads to no target and no test image.
    hidden = torch.cat([known.images(slice(None)), truth.test.images(slice(None))])
    assert not any(_find(image, hidden) >= 0 for image in loot["train source"])
    # Batches carry source labels only.
    assert all(len(labels) <= 8 and len(index) == 8 for labels, index in loot["batch"])
    # Nothing behind the view or the context is a scenario, an experience, a test image or a target label.
    for thing in [*loot["view"], *loot["context"]]:
        assert not isinstance(thing, (Scenario, Experience))
        if isinstance(thing, ImageSet):
            assert len(thing) == 18
        if isinstance(thing, Tensor) and thing.ndim == 1 and thing.dtype == torch.int64 and len(thing) == 18:
            assert not torch.equal(thing, labels)


def _find(image: Tensor, images: Tensor) -> int:
    found = (images == image).flatten(1).all(1).nonzero().flatten()
    return int(found[0]) if len(found) else -1


def test_the_order_of_the_target_does_not_depend_on_the_order_of_the_scenario() -> None:
    stream = streams.sequential(toy_scenario(family="uda", train=9))
    one, two = (streams.anonymous(stream, seed).scenario.experiences[0] for seed in (0, 1))
    assert one.target is not None
    assert two.target is not None
    assert one.target_labels is None
    assert not torch.equal(one.target.images(slice(None)), two.target.images(slice(None)))
    again = streams.anonymous(stream, 0).scenario.experiences[0].target
    assert again is not None
    assert torch.equal(one.target.images(slice(None)), again.images(slice(None)))


def test_what_is_not_declared_is_refused() -> None:
    scenario = toy_scenario(family="uda")
    view = ExperienceView(scenario, 0, Manifest("mine", frozenset({"boundaries"})))
    for name, use in (("unlabelled", "unlabelled"), ("source_domains", "domains"), ("target_domain", "domains")):
        with pytest.raises(UndeclaredUse, match=f"does not declare `{use}`"):
            getattr(view, name)
    generalising = ExperienceView(toy_scenario(family="dg"), 0, Manifest("mine", frozenset({"boundaries"})))
    assert generalising.train.domains is None
    closed = ExperienceView(scenario, 0, Manifest("mine", BOTH))
    closed.close()
    for name in ("train", "unlabelled"):
        with pytest.raises(UndeclaredUse, match="`memory`"):
            getattr(closed, name)


# --- what is measured ---------------------------------------------------------------------------


def test_uda_measures_target_and_source(tmp_path: Path) -> None:
    record = execute(prepare_toy(uses=BOTH, family="uda", test=7), tmp_path)
    (row,) = record["accuracy"]
    assert [test["name"] for test in record["scenario"]["tests"]] == ["target", "source"]
    assert [test["further"] for test in record["scenario"]["tests"]] == [False, True]
    assert record["counts"] == [14, 14]
    assert record["metrics"]["target_acc"] == row[0] == record["metrics"]["final_avg_acc"]
    assert record["metrics"]["source_acc"] == row[1]
    assert record["metrics"]["ece_samples"] == 14  # of the target alone
    assert records.plain(record)["selection"] == {"rule": "last", "chosen": [None], "scores": [[]], "facts": {}}


class Names(ToyMethod):
    """Recognises `thing N` by N: a joke of a text encoder."""

    asked: list[tuple[str, ...]]

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        type(self).asked.append(tuple(names))
        return images.flatten(1).mean(1, keepdim=True) * torch.tensor([float(name.split()[-1]) for name in names])


@pytest.mark.parametrize(("family", "column"), [("base-to-new", "new"), ("cross-dataset", "other")])
def test_new_classes_are_known_by_name_only(tmp_path: Path, family: str, column: str) -> None:
    method = type("OwnNames", (Names,), {"asked": []})
    uses = frozenset({"boundaries", "num_classes", "open_vocabulary"})
    settings = {"engine.save_logits": "true"}
    prepared = prepare_toy(build=method, uses=uses, family=family, test=7, settings=settings)
    assert prepared.context.num_classes == 2  # of four: the others are never trained
    path = engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    record = records.read(path)
    assert set(method.asked) == {("thing 2", "thing 3")}
    assert [test["name"] for test in record["scenario"]["tests"]][1] == column
    found = predictions.read(path.with_suffix(".parquet"))
    new = found.on([1])
    assert set(new.prediction.tolist()) <= {2, 3}  # among the new names alone
    assert set(found.on([0]).prediction.tolist()) <= {0, 1}
    assert set(new.top5.flatten().tolist()) == {2, 3, -1} - ({-1} if new.top5.shape[1] == 2 else set())
    assert new.logits is not None
    assert (new.logits[:, :2] == -math.inf).all()
    accuracy = float((new.prediction == new.label).mean())
    assert record["accuracy"][0][1] == pytest.approx(accuracy)
    values = record["metrics"]
    if family == "base-to-new":
        base = record["accuracy"][0][0]
        assert values["base_acc"] == base
        assert values["harmonic_mean"] == pytest.approx(2 * base * accuracy / (base + accuracy))
    else:
        assert values["transfer_accs"] == [pytest.approx(accuracy)]


def test_a_wrong_number_of_named_columns_is_an_error(tmp_path: Path) -> None:
    class Narrow(ToyMethod):
        def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
            return images.flatten(1)[:, :1]

    uses = frozenset({"boundaries", "open_vocabulary"})
    with pytest.raises(PluginError, match="1 columns, but 2 classes were named"):
        execute(prepare_toy(build=Narrow, uses=uses, family="base-to-new"), tmp_path)


def test_methods_without_a_vocabulary_are_refused() -> None:
    with pytest.raises(UsageError, match="known by name only"):
        prepare_toy(family="base-to-new")
    with pytest.raises(UsageError, match="same as ordinary training"):
        prepare_toy(family="uda", stream="joint")


def test_transfer_metrics() -> None:
    assert transfer_metrics(FAMILIES["uda"], 0.5, {"source": 0.75}) == {"target_acc": 0.5, "source_acc": 0.75}
    assert math.isnan(transfer_metrics(FAMILIES["dg"], 0.5, {})["source_acc"])
    assert transfer_metrics(FAMILIES["base-to-new"], 0.82, {"new": 0.6})["harmonic_mean"] == pytest.approx(0.6929577)
    assert transfer_metrics(FAMILIES["cross-dataset"], 0.9, {"a": 0.5, "b": 0.7})["transfer_acc"] == pytest.approx(0.6)
    assert transfer_metrics(FAMILIES["few-shot"], 0.9, {}) == {}


# --- upper bounds and selection -----------------------------------------------------------------


def test_an_oracle_trains_on_target_labels(tmp_path: Path, diary: type[Diary]) -> None:
    record = execute(prepare_toy(build=diary, stream="oracle", family="uda", train=9, test=7), tmp_path)
    assert record["method"]["stream"] == "oracle"
    target = toy_scenario(family="uda", train=9, test=7).experiences[0].target
    assert target is not None
    batch = written(diary, 9)[0]
    raw = target.images(slice(None))
    assert all(batch.target is None for batch in diary.batches)
    pipeline = prepare_toy(family="uda").pipeline
    assert all(_find(image, pipeline.eval(raw)) >= 0 for image in batch.images)
    with pytest.raises(UsageError, match="no target domain"):
        prepare_toy(stream="oracle", family="dg")


def test_an_oracle_is_not_tested_on_what_it_was_trained_on() -> None:
    scenario = dataclasses.replace(toy_scenario(family="uda"), transductive=True)
    with pytest.raises(UsageError, match="tests on its target images"):
        streams.oracle(scenario)


class Worsens(ToyMethod):
    """Right after the first epoch, forgetful in the others: its best epoch is the first."""

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.steps = 0

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        self.steps += 1
        if self.steps <= 3:
            return super().train_step(batch)
        with torch.no_grad():
            self.head.mul_(-1.0 if self.steps == 4 else 1.0)
        return {"loss": 1.0}

    def extra_state(self) -> Mapping[str, Any]:
        return {"steps": self.steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.mark.parametrize("rule", ["source-validation", "target-oracle"])
def test_the_best_epoch_is_put_back(tmp_path: Path, rule: str) -> None:
    last = execute(prepare_toy(build=Worsens, family="uda", train=10), tmp_path / "last")
    chosen = prepare_toy(build=Worsens, family="uda", train=10, settings={"engine.select": rule, "epochs": "3"})
    record = execute(chosen, tmp_path / "best")
    assert last["metrics"]["target_acc"] < 0.5
    assert record["metrics"]["target_acc"] > 0.5
    assert record["selection"]["rule"] == rule == record["config"]["effective"]["engine"]["select"]
    assert record["selection"]["chosen"] == [0]
    (scores,) = record["selection"]["scores"]
    assert len(scores) == 3
    assert scores[0] > scores[1]
    assert record["run_id"] != last["run_id"]
    held = 2 if rule == "source-validation" else 0  # a tenth of ten images of each of two classes
    assert record["scenario"]["experiences"][0]["train"] == 20 - held


def test_what_has_yet_to_read_the_target_is_no_candidate(tmp_path: Path) -> None:
    """SHOT's source model is best on the source, and is not SHOT."""

    class Later(Worsens):
        def reads(self, epoch: int) -> Literal["both", "source", "target"]:
            return "both" if epoch else "source"

    settings = {"engine.select": "source-validation", "epochs": "3"}
    uses = frozenset({"boundaries", "unlabelled"})
    record = execute(prepare_toy(build=Later, family="uda", train=10, settings=settings, uses=uses), tmp_path)
    (scores,) = record["selection"]["scores"]
    assert scores[0] > max(scores[1:])
    assert record["selection"]["chosen"] == [1]
    without = execute(prepare_toy(build=Later, family="dg", train=10, settings=settings, uses=uses), tmp_path)
    assert without["selection"]["chosen"] == [0]  # there is no target to read


def test_selection_survives_a_stop(tmp_path: Path) -> None:
    settings = {"engine.select": "source-validation", "engine.checkpoint_seconds": "0"}
    stop = type("Stops", (Worsens,), {"left": 100})

    def train_step(self: Any, batch: Batch) -> Any:
        stop.left -= 1  # type: ignore[attr-defined]
        if stop.left == 0:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return Worsens.train_step(self, batch)

    stop.train_step = train_step  # type: ignore[method-assign]
    whole = execute(prepare_toy(build=stop, family="uda", train=10, settings=settings), tmp_path / "a")
    for place in (4, 6, 8):
        stop.left = place  # type: ignore[attr-defined]
        with pytest.raises(Interrupted):
            execute(prepare_toy(build=stop, family="uda", train=10, settings=settings), tmp_path / str(place))
        again = execute(prepare_toy(build=stop, family="uda", train=10, settings=settings), tmp_path / str(place))
        assert json.dumps(records.comparable(again)) == json.dumps(records.comparable(whole))


def test_selection_uses_the_validation_images_of_the_scenario() -> None:
    scenario = toy_scenario(family="few-shot", train=2)
    part = scenario.experiences[0]
    own = dataclasses.replace(part, validation=part.test)
    stream = streams.held_out(streams.sequential(dataclasses.replace(scenario, experiences=(own,))))
    assert stream.scenario.experiences[0] is own
    with pytest.raises(UsageError, match="too few training images"):
        streams.held_out(streams.sequential(scenario))


def test_validation_images_are_shown_to_methods_that_declare_them() -> None:
    scenario = toy_scenario(family="few-shot", train=2)
    part = scenario.experiences[0]
    held = ImageSet(part.test.source, part.test.rows[:3], part.test.labels[:3], part.test.ids[:3])
    brought = dataclasses.replace(scenario, experiences=(dataclasses.replace(part, validation=held),))
    shown = ExperienceView(brought, 0, Manifest("m", frozenset({"validation"}))).validation
    assert shown is not None
    assert torch.equal(shown.images(slice(None)), held.images(slice(None)))
    assert torch.equal(shown.labels, held.labels)
    assert len(shown.source[torch.arange(3)]) == 3
    with pytest.raises(IndexError):  # its source holds no other image
        shown.source[torch.tensor([3])]
    assert ExperienceView(scenario, 0, Manifest("m", frozenset({"validation"}))).validation is None
    secret = ExperienceView(brought, 0, Manifest("m", frozenset({"boundaries"})))
    with pytest.raises(UndeclaredUse, match="reads validation images, but does not declare `validation`"):
        _ = secret.validation
    assert "_validation" not in vars(secret) or vars(secret)["_validation"] is None
    over = ExperienceView(brought, 0, Manifest("m", frozenset({"validation"})))
    over.close()
    with pytest.raises(UndeclaredUse, match="validation images of a past experience"):
        _ = over.validation


def test_selection_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no target domain apart"):
        prepare_toy(settings={"engine.select": "target-oracle"})

    class Loops(LoopMethod):
        def train_experience(self, experience: ExperienceView) -> Mapping[str, float]:
            return {}

        def predict(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 2)

    # Behind a function as well: only the object that was built tells what it is.
    for build in (Loops, lambda config, context: Loops(config, context)):
        prepared = prepare_toy(build=build, settings={"engine.select": "source-validation"})
        with pytest.raises(UsageError, match="its own training loop"):
            engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    assert not list(tmp_path.rglob("*.json")), "nothing was run, so there is no record"


def test_the_default_rule_is_no_part_of_the_identity() -> None:
    """Runs recorded before there was a rule are still the same runs."""
    plan = prepare_toy().plan
    assert plan.engine.select == "last"
    assert plan.effective()["engine"]["select"] == "last"
    other = prepare_toy(settings={"engine.select": "source-validation"}, train=10)
    assert prepare_toy(train=10).run_id != other.run_id


def test_validation_keeps_the_target_and_never_touches_test_images() -> None:
    scenario = toy_scenario(family="uda", train=10)
    short = streams.validation(scenario, 1)
    part = short.experiences[0]
    assert part.target is not None
    assert short.tests == ()
    assert len(part.train) == 16
    assert set(part.test.ids.tolist()) <= set(scenario.experiences[0].train.ids.tolist())
    dg = streams.validation(toy_scenario(family="dg", train=10), 1).experiences[0].test
    assert dg.domains is not None
    assert dg.domains.bincount().tolist() == [4, 4]  # a fifth per class and domain


@pytest.mark.parametrize("validate", [0, 1])
def test_held_out_source_images_are_not_called_a_target(
    validate: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare_toy(family="uda", train=10, validate=validate)
    path = engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    record = records.read(path)
    assert ("target_acc" in record["metrics"]) == (not validate)
    text = summary.render(record, path, colour=False)
    assert ("target accuracy" in text) == (not validate)
    assert ("final average accuracy" in text) == bool(validate)
    assert main(["metrics", str(path)]) == 0  # recomputes the same metrics
    assert ("target_acc" in capsys.readouterr().out) == (not validate)


def test_a_joint_run_knows_the_domains() -> None:
    merged = streams.joint(toy_scenario(family="domain-il", experiences=3)).scenario.experiences[0]
    assert merged.source_domains == ("domain0", "domain1", "domain2")
    assert merged.train.domains is not None
    assert merged.train.domains.bincount().tolist() == [16, 16, 16]


def test_context_is_built_for_toys() -> None:
    context = prepare_toy(uses=frozenset({"boundaries", "num_classes"}), family="uda").context
    assert isinstance(context, Context)
    assert (context.family.name, context.num_classes) == ("uda", 2)
    assert toys.TOY_SCENARIO.family == "class-il"
