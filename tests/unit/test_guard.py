"""Whatever a plugin raises, returns or forks: one error that names it, a record that says `failed`, no traceback."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest
import torch

from benchmark import hookspecs, records
from benchmark.api import Batch, ExperienceView, FeatureConfig, FeatureMethod, LoopMethod, Method
from benchmark.errors import EXIT_PLUGIN, BenchError, PluginError, RunFailed
from benchmark.guard import Guard
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, preparation
from benchmark.specs import MethodSpec
from benchmark.testing import toys
from benchmark.testing.laboratory import manager
from benchmark.testing.subjects import method_subject
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod, prepare_toy, toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")
METHOD = r"method `toy-linear` of `benchmark\.testing`"


def execute(out: Path, build: Any, *plugins: object, **options: Any) -> Path:
    hooks = pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    for plugin in plugins:
        hooks.register(plugin, name="tracker")
    prepared = prepare_toy(build=build, settings={"epochs": "1", **options})
    return engine.execute(prepared, out, hooks=hooks, quiet=True)


class Foreign(BaseException):
    """No `Exception`, as `SystemExit`."""


def raises(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> Any:
        raise error

    return function


def gives(value: Any) -> Callable[..., Any]:
    return lambda *args, **options: value


def with_(name: str, function: Any, base: type[Method] = ToyMethod) -> type[Method]:
    return type("Bad", (base,), {name: function})


ERRORS = [SystemExit(0), SystemExit("bye"), Foreign("x"), GeneratorExit(), StopIteration(), ZeroDivisionError("oops")]
STEPS = ["begin_experience", "train_step", "passes", "predict", "end_experience", "extra_state", "to"]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("step", STEPS)
def test_what_a_method_raises_is_its_error(tmp_path: Path, step: str, error: BaseException) -> None:
    where = "kept_between_experiences" if step == "extra_state" else step  # which asks for it first
    with pytest.raises(PluginError, match=f"{METHOD}: `{where}` failed: .*{type(error).__name__}") as caught:
        execute(tmp_path, with_(step, raises(error)))
    assert caught.value.exit_code == EXIT_PLUGIN
    (path,) = tmp_path.rglob("*.json")
    assert records.read(path)["status"] == "failed"


@pytest.mark.parametrize("error", ERRORS[:3], ids=repr)
def test_a_method_that_cannot_be_built_is_its_error(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `build` failed: {type(error).__name__}"):
        execute(tmp_path, raises(error))


@pytest.mark.parametrize("signature", [lambda: None, lambda self: None, lambda self, a, b, c: None])
@pytest.mark.parametrize("step", ["begin_experience", "train_step", "predict", "end_experience"])
def test_a_wrong_signature_is_the_methods_error(tmp_path: Path, step: str, signature: Any) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `{step}` failed: TypeError"):
        execute(tmp_path, with_(step, signature))


ONE = torch.ones(())
LOSSES = [None, {}, [], "loss", 1.0, {"total": 1.0}, {"loss": None}, {"loss": "1.0"}, {"loss": [1.0]}, {1: 2.0}]
LOSSES += [{"loss": torch.ones(2)}, {"loss": 1j}, {"loss": ONE + 1j}, {"loss": np.ones(3)}, {"loss": 1.0, "more": {}}]


@pytest.mark.parametrize("terms", LOSSES, ids=repr)
def test_losses_of_a_wrong_kind_are_refused(tmp_path: Path, terms: Any) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `train_step.*` returned") as caught:
        execute(tmp_path, with_("train_step", gives(terms)))
    assert "under `loss`" in str(caught.value.hint)


@pytest.mark.parametrize("terms", [{"loss": 1}, {"loss": True}, {"loss": np.float32(1)}, {"loss": ONE[None]}], ids=repr)
def test_losses_of_a_right_kind_are_numbers(tmp_path: Path, terms: Any) -> None:
    record = records.read(execute(tmp_path, with_("train_step", gives(terms))))
    assert record["losses"] == [[{"loss": 1.0}], [{"loss": 1.0}]]


def logits(change: Callable[[torch.Tensor], Any]) -> type[Method]:
    return with_("predict", lambda self, images: change(ToyMethod.predict(self, images)))


def one_bad(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[0, 0] = value
        return scores

    return change


WRONG: list[Callable[[torch.Tensor], Any]] = [
    gives(None),
    gives("logits"),
    lambda scores: scores.tolist(),
    lambda scores: list(scores),
    lambda scores: scores.numpy(),
    lambda scores: scores.to_sparse(),
    lambda scores: scores + 0j,
    lambda scores: scores[0],
    lambda scores: scores[:, :1],
    lambda scores: scores[:, :0],
    lambda scores: scores[:-1],
    lambda scores: scores[None],
    lambda scores: (scores, scores),
    lambda scores: {"logits": scores},
]


@pytest.mark.parametrize("change", WRONG, ids=range(len(WRONG)))
def test_logits_of_a_wrong_kind_are_refused(tmp_path: Path, change: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(PluginError, match=r"method `toy-linear`.*`predict` returned"):
        execute(tmp_path, logits(change))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("every", [False, True])
def test_logits_that_are_not_finite_end_the_run(tmp_path: Path, value: float, every: bool) -> None:
    change = (lambda scores: torch.full_like(scores, value)) if every else one_bad(value)
    with pytest.raises(RunFailed, match="method `toy-linear`: logits are not finite"):
        execute(tmp_path, logits(change))


def test_a_class_may_be_ruled_out_but_not_all_of_them(tmp_path: Path) -> None:
    def rule_out(scores: torch.Tensor) -> torch.Tensor:
        return torch.cat([scores[:, :1], torch.full_like(scores[:, 1:], -torch.inf)], dim=1)

    execute(tmp_path, logits(rule_out))
    with pytest.raises(RunFailed, match="not finite"):
        execute(tmp_path / "all", logits(lambda scores: torch.full_like(scores, -torch.inf)))


@pytest.mark.parametrize("passes", [None, 3, "train", ["trian"], [1], {"train"}, [["train"]], (None,)], ids=repr)
def test_passes_of_junk_are_refused(tmp_path: Path, passes: Any) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `passes` returned"):
        execute(tmp_path, with_("passes", gives(passes)))


@pytest.mark.parametrize(
    "state",
    [None, 3, [1], {"a": object()}, {"a": {1.5: 2}}, {"a": lambda: None}],
    ids=["none", "number", "list", "object", "float key", "function"],
)
def test_extra_state_of_junk_is_refused(tmp_path: Path, state: Any) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `(extra_state|kept_between_experiences)` failed"):
        execute(tmp_path, with_("extra_state", gives(state)))


@pytest.mark.parametrize(
    "built", [None, object(), torch.nn.Linear(1, 1), ToyMethod], ids=["none", "object", "net", "cls"]
)
def test_what_is_built_must_be_a_method(tmp_path: Path, built: Any) -> None:
    with pytest.raises(PluginError, match=f"{METHOD}: `build` returned"):
        execute(tmp_path, gives(built))


def test_an_optimiser_of_junk_is_refused(tmp_path: Path) -> None:
    def begin(self: Any, experience: ExperienceView) -> None:
        ToyMethod.begin_experience(self, experience)
        self.optimizer, self.train_step = "adam", gives({"loss": 1.0})

    with pytest.raises(PluginError, match=f"{METHOD}: `optimizer` failed: AttributeError"):
        execute(tmp_path, with_("begin_experience", begin))


class Encodes(FeatureMethod):
    """Returns features of a wrong kind."""

    features: Any = None

    def encode(self, images: torch.Tensor) -> Any:
        return self.features

    def train_step(self, batch: Batch) -> Mapping[str, float]:
        return {"loss": 0.0}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), 2)


@pytest.mark.parametrize("features", [None, [1.0], np.ones((8, 2)), torch.ones(3, 2), torch.ones(())], ids=repr)
def test_features_of_a_wrong_kind_are_refused(tmp_path: Path, features: Any) -> None:
    spec = MethodSpec(
        name="encodes", build=type("E", (Encodes,), {"features": features}), config=FeatureConfig, summary="bad"
    )
    prepared = method_subject(spec).prepare(toy_scenario())
    with pytest.raises(PluginError, match=r"method `encodes`.*`encode` (failed|returned)"):
        engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)


@pytest.mark.parametrize("losses", [None, [1.0], {"loss": None}, {2: 1.0}], ids=repr)
def test_losses_of_a_method_with_its_own_loop_are_checked(tmp_path: Path, losses: Any) -> None:
    class Loops(LoopMethod):
        def train_experience(self, experience: ExperienceView) -> Any:
            return losses

        def predict(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_zeros(len(images), 2)

    with pytest.raises(PluginError, match=f"{METHOD}: `train_experience.*` returned"):
        execute(tmp_path, Loops)


USES = [
    raises(SystemExit(0)),
    raises(KeyError("x")),
    gives(None),
    gives("boundaries"),
    gives(["boundaries"]),
    gives({"x"}),
]


@pytest.mark.parametrize("uses", USES, ids=range(len(USES)))
def test_uses_that_fail_or_are_junk_are_the_methods_error(uses: Any) -> None:
    with pytest.raises(PluginError, match=r"method `toy-linear`: `uses` (failed|returned)"):
        prepare_toy(uses=uses)


@pytest.mark.parametrize(
    "supports", [raises(SystemExit(0)), raises(KeyError("x")), gives(True), gives(0), lambda: None]
)
def test_supports_that_fails_or_returns_junk_is_the_methods_error(supports: Any) -> None:
    spec = dataclasses.replace(TOY_METHOD, supports=supports)
    with pytest.raises(PluginError, match=r"method `toy-linear`: `supports` (failed|returned)"):
        preparation.refusal(spec, frozenset(), toy_scenario())


def changed(**changes: Any) -> Any:
    return dataclasses.replace(toy_scenario(), **changes)


def relabelled(labels: list[int]) -> Any:
    scenario = toy_scenario()
    first = scenario.experiences[0]
    train = toys.ImageSet(first.train.source, first.train.rows[:2], torch.tensor(labels), first.train.ids[:2])
    return changed(experiences=(dataclasses.replace(first, train=train), *scenario.experiences[1:]))


SCENARIOS: list[Callable[..., Any]] = [
    raises(SystemExit(0)),
    raises(Foreign("x")),
    raises(KeyError("x")),
    gives(None),
    gives([]),
    lambda config: None,
    lambda *_: changed(experiences=()),
    lambda *_: changed(experiences=None),
    lambda *_: changed(experiences=("a", "b")),
    lambda *_: changed(class_names=("one",)),
    lambda *_: changed(class_names=None),
    lambda *_: relabelled([0, 9]),
    lambda *_: relabelled([0, -1]),
    lambda *_: relabelled([0, 3]),
]


@pytest.mark.parametrize("build", SCENARIOS, ids=range(len(SCENARIOS)))
def test_a_scenario_that_fails_or_is_none_is_its_error(build: Any) -> None:
    spec = dataclasses.replace(TOY_SCENARIO, build=build)
    loaded = Loaded(spec, Entry("toy", "toys", "somebody 1.0"), "0" * 64)
    with pytest.raises(PluginError, match=r"scenario `toy` of `somebody 1\.0`"):
        preparation.make_scenario(loaded, toys.ToyConfig(), {"data_root": None, "cache": Path()}, seed=0)


def test_images_that_cannot_be_read_are_the_scenarios_error(tmp_path: Path) -> None:
    prepared = prepare_toy()
    prepared.stream.scenario.experiences[0].train.rows.fill_(10**6)
    with pytest.raises(PluginError, match=r"scenario `toy` of `benchmark\.testing`: `images` failed: IndexError"):
        engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)


class Fails:
    """A source that can be read some times only."""

    kind = "image"
    digest = "0" * 64

    def __init__(self, images: torch.Tensor, answer: Callable[[torch.Tensor], Any]) -> None:
        self.images, self.answer = images, answer

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: torch.Tensor, /) -> Any:
        return self.answer(self.images[rows])


@pytest.mark.parametrize("where", ["train", "test"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raises(OSError("gone")), "failed: OSError: gone"),
        (raises(SystemExit(0)), "failed: SystemExit"),
        (lambda images: images[1:], "returned a Tensor"),
        (gives(None), "failed: TypeError"),
        (lambda images: images[:, :1, 0], "failed"),
    ],
)
def test_what_a_source_raises_or_returns_during_a_run_is_the_scenarios_error(
    tmp_path: Path, where: str, answer: Any, said: str
) -> None:
    prepared = prepare_toy(settings={"epochs": "1"})
    samples = getattr(prepared.stream.scenario.experiences[0], where)
    samples.source = Fails(samples.source, answer)
    with pytest.raises(PluginError, match=f"scenario `toy` of `benchmark\\.testing`: `images` {said}"):
        engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)


def test_images_that_cannot_be_read_for_features_are_the_scenarios_error(tmp_path: Path) -> None:
    spec = MethodSpec(name="encodes", build=Encodes, config=FeatureConfig, summary="bad")
    prepared = method_subject(spec).prepare(toy_scenario())
    samples = prepared.stream.scenario.experiences[0].train
    samples.source = Fails(samples.source, raises(OSError("gone")))
    with pytest.raises(PluginError, match=r"scenario .*: `images` failed: OSError: gone"):
        engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)


HOOKS = [
    "bench_run_started",
    "bench_experience_started",
    "bench_epoch_ended",
    "bench_experience_ended",
    "bench_run_finished",
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_life_cycle_plugin_raises_is_its_error(tmp_path: Path, hook: str, error: BaseException) -> None:
    def function(self: Any, event: Any) -> None:
        raise error

    function.__name__ = hook
    plugin = type("Tracker", (), {hook: hookspecs.hookimpl(function)})()
    with pytest.raises(PluginError, match=f"life-cycle plugin `tracker`: `{hook}` failed: {type(error).__name__}"):
        execute(tmp_path, ToyMethod, plugin)
    (path,) = tmp_path.rglob("*.json")
    assert records.read(path)["status"] == ("completed" if hook == "bench_run_finished" else "failed")


def test_a_hook_that_fails_about_a_failure_does_not_hide_it(tmp_path: Path) -> None:
    class Tracker:
        @hookspecs.hookimpl
        def bench_run_failed(self, event: Any) -> None:
            raise SystemExit(0)

    with (
        pytest.warns(UserWarning, match="life-cycle plugin `tracker`: `bench_run_failed` failed: SystemExit"),
        pytest.raises(PluginError, match="ZeroDivisionError: oops"),
    ):
        execute(tmp_path, with_("train_step", raises(ZeroDivisionError("oops"))), Tracker())


def test_memory_and_expected_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="out of memory"):
        execute(tmp_path, with_("train_step", raises(MemoryError())))
    with pytest.raises(BenchError, match="mine"):
        execute(tmp_path, with_("train_step", raises(BenchError("mine"))))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes that fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("step", ["train_step", "predict", "begin_experience"])
@pytest.mark.parametrize("end", ["goes on", "raises", "exits"])
def test_a_child_that_a_method_forks_never_goes_on_with_the_run(tmp_path: Path, step: str, end: str) -> None:
    children: list[int] = []
    here = os.getpid()

    def forks(self: Any, *args: Any) -> Any:
        if os.getpid() == here and not children:
            child = os.fork()
            if child == 0:
                if end == "raises":
                    raise ZeroDivisionError
                if end == "exits":
                    raise SystemExit(0)
            else:
                children.append(child)
        return getattr(ToyMethod, step)(self, *args)

    path = execute(tmp_path, with_(step, forks))
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == EXIT_PLUGIN
    record = records.read(path)
    assert record["status"] == "completed"
    assert sorted(path.parent.iterdir()) == [path, path.with_suffix(".parquet")]


def test_the_message_of_a_plugin_is_cut_and_its_cause_is_kept() -> None:
    with pytest.raises(PluginError) as caught, Guard("plugin `x`")("f"):
        raise ValueError("long " * 1000)
    assert len(caught.value.message) < 400
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_call_that_ctrl_c_cuts_before_its_block_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    Guard("it")("predict").__enter__()
    gc.collect()
    assert not lost
