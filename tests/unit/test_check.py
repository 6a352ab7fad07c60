"""The contract finds what it is made to find: one misbehaving method or scenario per check."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.api import Batch, Context, Experience, ExperienceView, ImageSet, Scenario, ScenarioRequest
from benchmark.cli import main
from benchmark.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UndeclaredUse
from benchmark.samples import Pixels
from benchmark.specs import MethodSpec, ScenarioSpec
from benchmark.testing import ExporterContract, MethodContract, ScenarioContract, checks, toys
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod, ToyMethodConfig

pytestmark = pytest.mark.usefixtures("one_thread")


class TestToyMethod(MethodContract):
    method = TOY_METHOD


class TestToyScenario(ScenarioContract):
    scenario = TOY_SCENARIO


class TestCsv(ExporterContract):
    exporter = "csv"


class LooksAtTheBatch(ToyMethod):
    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images - images.mean(dim=0)) if len(images) > 8 else super().predict(images)


class SwallowsRefusals(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        with contextlib.suppress(UndeclaredUse):
            _ = experience.task_id


class ReadsPrivately(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        with torch.no_grad():
            self.head += experience._index


class KeepsImages(ToyMethod):
    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        self.kept = [*vars(self).get("kept", []), batch.images.clone()]  # some of them happen not to be shifted
        return super().train_step(batch)


class KeepsTheSet(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.data = {"old": [experience.train]}


class KeepsTheSource(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.data = experience.train.source


class KeepsTheReader(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.data = experience.train.images


class KeepsAFunction(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        train = experience.train
        self.data = lambda: train


class Forgets(ToyMethod):
    """Counts steps in an attribute that no checkpoint holds."""

    steps = 0

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        self.steps += 1
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = self.config.lr / self.steps
        return super().train_step(batch)


class DrawsInPredict(ToyMethod):
    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images) + torch.rand(1) * 1e-7


class Reseeds(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        torch.manual_seed(0)
        super().begin_experience(experience)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        return {"loss": 0.0}


class SaysItDrawsNothing(ToyMethod):
    @property
    def deterministic(self) -> bool:
        return True


class DrawsNothing(SaysItDrawsNothing):
    """Class means of the training images."""

    def begin_experience(self, experience: ExperienceView) -> None:
        images = self.context.pipeline.eval(experience.train.images(slice(None)))
        features = self._features(images)
        own = [features[experience.train.labels == label].mean(dim=0) for label in experience.classes]
        self.head = torch.nn.Parameter(torch.cat([self.head.detach(), torch.stack(own)]))

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        return {"loss": 0.0}


class HasATrainingAid(ToyMethod):
    """Trains more than it has in the end; ``late`` is made when the engine no longer looks."""

    late = False

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.aid = None if self.late else self._made()

    def _made(self) -> torch.nn.Linear:
        aid = torch.nn.Linear(192, 192, bias=False)
        if self.optimizer is not None:
            self.optimizer.add_param_group({"params": aid.parameters()})
        return aid

    def _features(self, images: Tensor) -> Tensor:
        features = super()._features(images)
        return features if self.aid is None else self.aid(features)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        self.aid = self.aid or self._made()
        return super().train_step(batch)

    def end_experience(self, experience: ExperienceView) -> None:
        self.aid = self.optimizer = None


class HasALateTrainingAid(HasATrainingAid):
    late = True


class Unseeded(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        with torch.no_grad():
            self.head += random.SystemRandom().random()


class LeavesAWeight(ToyMethod):
    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.idle = torch.nn.Parameter(torch.ones(3))
        self.optimizer = torch.optim.SGD([self.head, self.idle], lr=0.1)


class ThawsTheBackbone(ToyMethod):
    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        context.backbone.model.requires_grad_(False)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        with torch.no_grad():
            self.context.backbone.model.norm.weight.mul_(1.01)
        return super().train_step(batch)


class ChangesThreads(ToyMethod):
    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().train_step(batch)


class NeedsTwo(ToyMethod):
    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        if len(batch) < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        return super().train_step(batch)


class ForgetsTheDevice(ToyMethod):
    """Makes a tensor where tensors are made by default."""

    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images) + torch.arange(len(self.head)) * 0.0


class ReadsItsLoss(ToyMethod):
    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        return {name: float(term) for name, term in super().train_step(batch).items()}


class LeavesItsPastBehind(ToyMethod):
    """What it takes back from a checkpoint stays on the CPU."""

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.shift = torch.zeros(1, 192, device=self.head.device)

    def _features(self, images: Tensor) -> Tensor:
        return super()._features(images) + self.shift

    def extra_state(self) -> Mapping[str, Any]:
        return {"shift": self.shift}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.shift = state["shift"]


class AsksForTheDevice(ToyMethod):
    """Learns otherwise where there is a GPU."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = self.config.lr / (1 if batch.images.device.type == "cpu" else 2)
        return super().train_step(batch)


class PeeksAhead(ToyMethod):
    """Reaches through the frames that a determined cheat would use."""

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        last = sys._getframe(1).f_locals["self"].prepared.stream.scenario.experiences[-1]
        with torch.no_grad():
            self.head += last.train.images(slice(None)).float().mean() / 255


@pytest.mark.parametrize(
    ("build", "check", "message"),
    [
        (LooksAtTheBatch, "batch", "depends on the others of its batch|differ"),
        (SwallowsRefusals, "undeclared", "reads the task id"),
        (ReadsPrivately, "undeclared", "private attribute `_index`"),
        (ReadsPrivately, "task-id", "numbered from 7 differs"),
        (KeepsImages, "no-images-kept", r"`self\.kept\[\d+\]` holds a training image"),
        (KeepsTheSet, "no-images-kept", r"`self\.data\.old\[0\]` keeps training images \(Samples\)"),
        (KeepsTheSource, "no-images-kept", r"`self\.data` keeps training images \(Window\)"),
        (KeepsTheReader, "no-images-kept", r"`self\.data` keeps training images \(Samples\)"),
        (KeepsAFunction, "no-images-kept", r"`self\.data` keeps training images \(Samples\)"),
        (Forgets, "resume", "stopped .* differs in"),
        (DrawsInPredict, "evaluation", "draws random numbers"),
        (Reseeds, "other-seed", "seeds 0 and 1 give the same"),
        (SaysItDrawsNothing, "other-seed", "says that it is deterministic"),
        (HasALateTrainingAid, "costs", r"\d+ of \d+ parameters are trained"),
        (Unseeded, "same-seed", "second run with the same seed differs"),
        (LeavesAWeight, "weights", "the optimiser holds `idle`, which never moved"),
        (ThawsTheBackbone, "weights", r"the frozen backbone weight `norm\.weight` changed"),
        (ChangesThreads, "surroundings", "a run changes the number of threads"),
        (NeedsTwo, "batch-of-one", "more than 1 value"),
        (ForgetsTheDevice, "device", r"`predict` failed: MixedDevices: .* at unit/test_check.py:\d+"),
        (ReadsItsLoss, "device", r"the host waits 1 times .* a number is read at unit/test_check.py:\d+ \(1 times\)"),
        (LeavesItsPastBehind, "device", "MixedDevices"),
        (AsksForTheDevice, "device", "on a GPU and on the CPU its losses differ"),
        (PeeksAhead, "future", "in the third experience, predictions after the second differ"),
    ],
)
def test_method_checks_find(build: type[ToyMethod], check: str, message: str) -> None:
    spec = dataclasses.replace(TOY_METHOD, build=build)
    (result,) = checks.run_checks(checks.method_subject(spec), frozenset({check}))
    assert result.result == "fail", result
    assert re.search(message, result.message), result.message


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fragile(ToyMethodConfig):
    """The recipe below is out of range."""

    def __post_init__(self) -> None:
        if self.lr > 1:
            raise ValueError(f"lr: {self.lr} is too large; use at most 1")


def result_of(spec: MethodSpec, check: str) -> checks.Result:
    (result,) = checks.run_checks(checks.method_subject(spec), frozenset({check}))
    return result


def test_recipes_must_be_valid() -> None:
    result = result_of(dataclasses.replace(TOY_METHOD, config=Fragile, recipes={"fast": {"lr": 2.0}}), "options")
    assert result.result == "fail"
    assert "recipe fast: method.toy-linear.lr: 2.0 is too large" in result.message


def test_recipes_must_be_valid_on_every_track() -> None:
    """A recipe that is fine alone may clash with what a track sets and the recipe leaves as it is."""

    def together(self: Fragile) -> None:
        if self.epochs > 3 and self.batch_size > 8:
            raise ValueError(f"batch_size: {self.batch_size} is too large for {self.epochs} epochs; use 8")

    config = dataclasses.make_dataclass(
        "Both", [], bases=(Fragile,), frozen=True, namespace={"__post_init__": together}
    )
    spec = dataclasses.replace(
        TOY_METHOD, config=config, tracks={"nano": {"batch_size": 16}}, recipes={"long": {"epochs": 9}}
    )
    result = result_of(spec, "options")
    assert result.result == "fail"
    assert "recipe long on track nano: method.toy-linear.batch_size: 16 is too large for 9 epochs" in result.message


def test_a_method_may_say_that_the_seed_does_not_matter() -> None:
    spec = dataclasses.replace(TOY_METHOD, build=DrawsNothing)
    assert result_of(spec, "other-seed").result == "pass"


def test_what_only_training_needs_is_no_part_of_the_total() -> None:
    spec = dataclasses.replace(TOY_METHOD, build=HasATrainingAid)
    assert result_of(spec, "costs").result == "pass"


def test_supports_must_give_a_reason() -> None:
    result = result_of(dataclasses.replace(TOY_METHOD, supports=lambda scenario: ""), "supports")
    assert result.result == "fail"
    assert "return None or the reason" in result.hint
    refuses = dataclasses.replace(TOY_METHOD, supports=lambda scenario: "needs text")
    assert result_of(refuses, "same-seed").message.startswith("it supports no toy stream: class-il: needs text")


def test_declared_uses_are_skipped_with_the_reason() -> None:
    spec = dataclasses.replace(TOY_METHOD, uses=frozenset({"boundaries", "test_batch", "memory", "task_id"}))
    for check in ("batch", "no-images-kept", "task-id"):
        assert result_of(spec, check).result == "skip"


def alike(images: ImageSet) -> ImageSet:
    """The same images from a source whose digest says nothing."""
    return ImageSet(Pixels(images.images(slice(None)), "d" * 64), torch.arange(len(images)), images.labels, images.ids)


def build_bad(kind: str) -> Any:
    def build(config: toys.ToyConfig, request: ScenarioRequest) -> Scenario:
        if kind == "global":
            torch.rand(1)
        seed = random.SystemRandom().randrange(10**6) if kind == "images" else 0
        good = toys.build_toy(dataclasses.replace(config, data_seed=seed), request)
        first: Experience = good.experiences[0]
        if kind == "labels":
            first = dataclasses.replace(first, classes=(0, 1, 2))
        elif kind == "ids":
            first.train.ids[1] = first.train.ids[0]
        elif kind == "shared":
            first = dataclasses.replace(first, test=first.train)
        parts = (first, *good.experiences[1:])
        names = ("same",) * good.num_classes if kind == "names" else good.class_names
        mark = "0" * 64 if kind == "fingerprint" else good.fingerprint
        content = {"seeded": f"{request.seed:064}", "no hash": "mine"}.get(kind, good.content)
        if kind == "constant":
            parts = tuple(dataclasses.replace(part, train=alike(part.train), test=alike(part.test)) for part in parts)
        return dataclasses.replace(good, experiences=parts, class_names=names, fingerprint=mark, content=content)

    return build


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        ("global", "surroundings", "torch's global generator was used"),
        ("images", "repeat", "two builds have different samples"),
        ("fingerprint", "repeat", "the fingerprint is not"),
        ("seeded", "content", "seed 1 changes `content`"),
        ("no hash", "content", "`content` is 'mine', not a SHA-256"),
        ("constant", "content", "sources with one `digest` hold different samples"),
        ("labels", "classes", "labels and `classes` differ"),
        ("names", "names", "1 different names for 4 classes"),
        ("ids", "ids", "1 sample ids occur twice"),
        ("shared", "ids", "share rows"),
    ],
)
def test_scenario_checks_find(kind: str, check: str, message: str) -> None:
    spec: ScenarioSpec = dataclasses.replace(TOY_SCENARIO, build=build_bad(kind))
    (result,) = checks.run_checks(checks.scenario_subject(spec), frozenset({check}))
    assert result.result == "fail", result
    assert message in result.message


def test_unknown_tracks_and_presets() -> None:
    for tracks, message in (({"huge": "plain"}, "track `huge`"), ({"nano": "plane"}, "input preset `plane`")):
        spec = dataclasses.replace(TOY_SCENARIO, tracks=tracks)
        (result,) = checks.run_checks(checks.scenario_subject(spec), frozenset({"record"}))
        assert message in result.message


def test_every_check_says_what_it_means() -> None:
    for table in checks._TABLES.values():
        for check in table.values():
            assert 10 < len(checks.meaning(check)) < 120


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "csv", "--only", "pure,nothing"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "2 passed, 0 failed, 0 skipped" in shown
    assert main(["check", "csv", "--json"]) == EXIT_OK
    (found,) = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in found["checks"]] == list(checks.EXPORTER_CHECKS)


def test_command_fails_with_exit_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(subject: Any) -> None:
        """is refused for the test"""
        raise checks.CheckFailed("it is wrong", hint="make it right")

    monkeypatch.setitem(checks.EXPORTER_CHECKS, "pure", refuse)
    assert main(["check", "csv"]) == EXIT_FAILED
    shown = capsys.readouterr().out
    assert "it is wrong" in shown
    assert "hint: make it right" in shown


def test_one_cause_of_many_checks_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(subject: Any) -> None:
        """is refused for the test"""
        raise checks.CheckFailed("it is wrong", hint="make it right")

    for name in list(checks.EXPORTER_CHECKS)[1:]:
        monkeypatch.setitem(checks.EXPORTER_CHECKS, name, refuse)
    assert main(["check", "csv"]) == EXIT_FAILED
    shown = capsys.readouterr().out
    assert shown.count("it is wrong") == shown.count("make it right") == 1
    first = list(checks.EXPORTER_CHECKS)[1]
    assert f"{', '.join(list(checks.EXPORTER_CHECKS)[1:])} have one cause, told at `{first}`" in shown


@pytest.mark.parametrize("words", [["nearest-meen"], ["csv", "--only", "purr"], ["csv", "--only", ","]])
def test_wrong_names(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == EXIT_USAGE
    assert "hint: " in capsys.readouterr().err


# --- families that transfer ---------------------------------------------------------------------


@pytest.mark.parametrize("family", ["uda", "dg", "base-to-new", "cross-dataset"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_toys_of_every_family_pass(family: str) -> None:
    def build(config: Any, request: ScenarioRequest) -> Scenario:
        return toys.build_toy(dataclasses.replace(config, family=family), request)

    spec = dataclasses.replace(TOY_SCENARIO, build=build, family=family)
    for result in checks.run_checks(checks.scenario_subject(spec)):
        assert result.result in ("pass", "skip"), result
        if result.check == "target":
            assert (result.result == "skip") == (family in ("base-to-new", "cross-dataset"))


BAD_TARGETS: list[tuple[str, dict[str, Any], str, str]] = [
    ("uda", {"sources": ()}, "names", r"sources are \(\), the target is domain1"),
    ("uda", {"domain": "domain0"}, "names", "the target is domain0"),
    ("dg", {"train": "no domains"}, "names", "do not say which of the sources"),
    ("uda", {"train": "shares"}, "target", "the source of the training images holds other images"),
    ("uda", {"target": "shares"}, "target", "the source of the target images holds other images"),
    ("uda", {"target": "labelled"}, "target", "labels other than -1"),
    ("uda", {"target": None}, "target", "there are no target images"),
    ("uda", {"test": "target"}, "ids", "not declared transductive"),
    ("uda", {"transductive": True}, "ids", "declared transductive, but"),
    ("base-to-new", {"tests": "trained"}, "classes", "has classes that are never trained"),
    ("few-shot", {}, "shots", "draw the same training images"),
]


@pytest.mark.parametrize(("family", "changes", "check", "message"), BAD_TARGETS)
def test_scenario_checks_find_leaks(family: str, changes: dict[str, Any], check: str, message: str) -> None:
    def build(config: Any, request: ScenarioRequest) -> Scenario:
        good = toys.build_toy(dataclasses.replace(config, family=family), request)
        part = good.experiences[0]
        both = torch.cat([part.train.images(slice(None)), part.test.images(slice(None))])
        made = {
            "no domains": lambda: ImageSet(part.train.source, part.train.rows, part.train.labels),
            "labelled": lambda: ImageSet(part.train.source, part.train.rows, part.train.labels, part.train.ids + 999),
            "target": lambda: ImageSet(part.target.source, part.target.rows, part.target_labels, part.target.ids),
        }
        for name, value in changes.items():
            if name == "transductive":
                good = dataclasses.replace(good, transductive=value)
            elif name == "tests":
                good = dataclasses.replace(good, tests=(dataclasses.replace(good.tests[0], classes=None),))
            elif value == "shares":
                old = getattr(part, name)
                part = dataclasses.replace(part, **{name: ImageSet(both, old.rows, old.labels, old.ids)})
            else:
                found = made[value]() if isinstance(value, str) and value in made else value
                part = dataclasses.replace(part, **{name: found})
        return dataclasses.replace(good, experiences=(part,), fingerprint="")

    spec = dataclasses.replace(TOY_SCENARIO, build=build, family=family)
    (result,) = checks.run_checks(checks.scenario_subject(spec), frozenset({check}))
    assert result.result == "fail", result
    assert re.search(message, result.message), result


class TrainsOnTheTestLabels(ToyMethod):
    """Reaches through the frames that a determined cheat would use."""

    def end_experience(self, experience: ExperienceView) -> None:
        test = sys._getframe(1).f_locals["self"].stream.tests[0]
        with torch.no_grad():
            self.head[0, 0] += test.labels[: len(test) // 2].sum()


def test_use_of_hidden_labels_is_found() -> None:
    assert result_of(dataclasses.replace(TOY_METHOD, build=TrainsOnTheTestLabels), "hidden-labels").result == "fail"
    assert result_of(TOY_METHOD, "hidden-labels").result == "pass"


def test_classes_known_by_name_are_checked() -> None:
    class Good(ToyMethod):
        def predict_named(self, images: Tensor, names: Any) -> Tensor:
            return images.flatten(1)[:, :1] * torch.tensor([float(len(name)) for name in names])

    class ByPlace(Good):
        def predict_named(self, images: Tensor, names: Any) -> Tensor:
            return super().predict_named(images, names) + torch.arange(len(names))

    class ByBatch(Good):
        def predict_named(self, images: Tensor, names: Any) -> Tensor:
            return super().predict_named(images, names) + images.mean()

    uses = TOY_METHOD.uses_of(None) | {"open_vocabulary"}
    for build, message in ((Good, ""), (ByPlace, "names in another order"), (ByBatch, "alone and together")):
        found = result_of(dataclasses.replace(TOY_METHOD, build=build, uses=uses), "named")
        assert (found.result == "pass") == (not message)
        assert message in found.message


def test_toy_limits_lower_options_and_never_raise_them() -> None:
    limited = checks.method_subject(dataclasses.replace(TOY_METHOD, toy={"epochs": 1}))
    assert limited.small("default").epochs == 1
    generous = checks.method_subject(dataclasses.replace(TOY_METHOD, toy={"epochs": 50}))
    assert generous.small("default").epochs == 3  # the method's own value, below the limit
