"""Scenarios as Avalanche benchmarks, Avalanche strategies as methods.

Importing Avalanche takes several seconds; of the default tests only this file and test_avalanche_restated do it.
"""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import avalanche_derpp, avalanche_ewc, avalanche_lwf, avalanche_naive, avalanche_replay
from bench_scenarios import glyph_domains, split_glyphs
from benchmark.api import Context, Experience, ExperienceView, ImageSet, Manifest, Scenario, ScenarioRequest
from benchmark.avalanche import import_quietly, to_benchmark
from benchmark.avalanche.strategies import (
    AvalancheConfig,
    AvalancheMethod,
    InputStage,
    pack,
    pack_groups,
    unpack,
    unpack_groups,
)
from benchmark.errors import PluginError
from benchmark.inputs.images import ImagePipeline
from benchmark.run import checkpoint
from benchmark.testing.toys import tiny_backbone, toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")


# --- scenarios ----------------------------------------------------------------------------------


def glyphs(tmp_path: Path) -> Scenario:
    config = split_glyphs.SplitGlyphsConfig(split="5x20", class_order="numpy:3", train=2, test=1)
    return split_glyphs.build(config, ScenarioRequest(data_root=None, cache=tmp_path))


def styles(tmp_path: Path) -> Scenario:
    config = glyph_domains.GlyphDomainsConfig(train=2, test=1)
    return glyph_domains.build(config, ScenarioRequest(data_root=None, cache=tmp_path))


def shuffled(_: Path) -> Scenario:
    """Sets whose rows, positions and ids all differ."""
    scenario = toy_scenario(experiences=3)

    def mixed(images: ImageSet) -> ImageSet:
        return images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(1)))

    parts = [dataclasses.replace(e, train=mixed(e.train), test=mixed(e.test)) for e in scenario.experiences]
    return dataclasses.replace(scenario, experiences=tuple(parts))


@pytest.mark.parametrize("build", [glyphs, styles, shuffled])
@pytest.mark.parametrize("task_labels", [False, True])
def test_a_scenario_equals_its_avalanche_benchmark_sample_for_sample(
    build: Any, task_labels: bool, tmp_path: Path
) -> None:
    scenario: Scenario = build(tmp_path)
    benchmark = to_benchmark(scenario, task_labels=task_labels)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == len(scenario.experiences)
    for name in ("train", "test"):
        for index, (theirs, ours) in enumerate(
            zip(getattr(benchmark, f"{name}_stream"), scenario.experiences, strict=True)
        ):
            images: ImageSet = getattr(ours, name)
            data = theirs.dataset
            assert theirs.current_experience == index
            assert theirs.domain == ours.domain
            assert theirs.classes_in_this_experience == set(images.labels.tolist())
            assert theirs.classes_seen_so_far == set(scenario.seen_classes(index))
            assert len(data) == len(images)
            assert list(data.targets) == images.labels.tolist()
            assert list(data.sample_ids) == images.ids.tolist()
            items = [data[place] for place in range(len(data))]
            assert [item[1] for item in items] == images.labels.tolist()
            assert all(list(item[2:]) == ([0] if task_labels else []) for item in items)
            pixels = torch.stack([item[0] for item in items])
            assert pixels.dtype == torch.float32
            assert torch.equal(pixels, images.images(slice(None)).to(torch.float32) / 255)
            assert torch.equal(data.eval()[0][0], pixels[0])


def test_target_images_come_without_labels() -> None:
    scenario = toy_scenario()
    first = scenario.experiences[0]
    hidden = ImageSet(first.test.source, first.test.rows, torch.full((len(first.test),), -1))
    experiences = (dataclasses.replace(first, target=hidden), *scenario.experiences[1:])
    benchmark = to_benchmark(dataclasses.replace(scenario, experiences=experiences))
    target = benchmark.train_stream[0].target_dataset
    assert torch.equal(torch.stack([target[i] for i in range(len(target))]), hidden.images(slice(None)) / 255)
    assert not hasattr(target, "targets")
    assert not hasattr(benchmark.train_stream[1], "target_dataset")


def test_building_leaves_the_global_generators_alone() -> None:
    import_quietly("avalanche.benchmarks")
    state = checkpoint.random_state()
    to_benchmark(toy_scenario())
    assert str(checkpoint.random_state()) == str(state)


def test_avalanche_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys, benchmark.avalanche, benchmark.avalanche.strategies, bench_methods.avalanche_derpp as m\n"
        "m.bench_register_methods()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'avalanche']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- methods ------------------------------------------------------------------------------------

METHODS = {
    "naive": (avalanche_naive, {}),
    "replay": (avalanche_replay, {"memory": 10}),
    "ewc": (avalanche_ewc, {"penalty": 10.0}),
    "ewc-online": (avalanche_ewc, {"penalty": 10.0, "mode": "online", "decay": 0.5}),
    "lwf": (avalanche_lwf, {"alpha": 2.0}),
    "derpp": (avalanche_derpp, {"memory": 10}),
}
ALL = list(METHODS)


def context_for(scenario: Scenario, spec: Any, config: Any, preset: str = "cifar32") -> Context:
    backbone = tiny_backbone()
    pipeline = ImagePipeline(preset, size=32, mean=backbone.mean, std=backbone.std, augment=config.augment)
    return Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=pipeline,
        manifest=Manifest(spec.name, spec.uses_of(config)),
    )


def made(name: str, scenario: Scenario, **options: Any) -> AvalancheMethod:
    module, fixed = METHODS[name]
    (spec,) = module.bench_register_methods()  # type: ignore[attr-defined]
    config = spec.config(**{"batch_size": 8, "epochs": 2, **fixed, **options})
    torch.manual_seed(0)
    method: AvalancheMethod = spec.build(config, context_for(scenario, spec, config))
    return method


def train(method: AvalancheMethod, scenario: Scenario, index: int) -> Mapping[str, float]:
    """One experience as the engine does it."""
    checkpoint.seed_everything(100 + index)
    view = ExperienceView(scenario, index, method.context.manifest)
    method.train()
    method.begin_experience(view)
    losses = method.train_experience(view)
    method.end_experience(view)
    view.close()
    return losses


def logits(method: AvalancheMethod, images: ImageSet) -> Tensor:
    method.eval()
    with torch.no_grad():
        return method.predict(method.context.pipeline.eval(images.images(slice(None))))


def accuracy(method: AvalancheMethod, images: ImageSet) -> float:
    return float((logits(method, images).argmax(dim=1) == images.labels).float().mean())


def flat(state: Any, key: str = "") -> dict[str, Any]:
    """Leaves of a tree by path."""
    if isinstance(state, Mapping):
        return {k: v for name, item in state.items() for k, v in flat(item, f"{key}/{name}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for place, item in enumerate(state) for k, v in flat(item, f"{key}/{place}").items()}
    return {key: state}


def same(left: Any, right: Any) -> bool:
    a, b = flat(left), flat(right)
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a
    )


@pytest.mark.parametrize("family", ["class-il", "domain-il"])
@pytest.mark.parametrize("name", ALL)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name: str, family: str, tmp_path: Path) -> None:
    scenario = toy_scenario(experiences=3, classes=2 if family == "class-il" else 3, family=family)
    whole = made(name, scenario)
    for index in range(3):
        train(whole, scenario, index)
    file = tmp_path / "state.safetensors"
    for index in range(3):  # a new process for each experience
        method = made(name, scenario)
        if index:
            checkpoint.restore(method, checkpoint.load(file))
        train(method, scenario, index)
        checkpoint.save(file, checkpoint.snapshot(method))
    assert same(checkpoint.snapshot(method), checkpoint.snapshot(whole))
    assert torch.equal(logits(method, scenario.experiences[0].test), logits(whole, scenario.experiences[0].test))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(name: str) -> None:
    scenario = toy_scenario()
    first, again, other = made(name, scenario), made(name, scenario), made(name, scenario, lr=0.02)
    for method in (first, again, other):
        for index in range(2):
            train(method, scenario, index)
    assert same(checkpoint.snapshot(first), checkpoint.snapshot(again))
    assert not same(checkpoint.snapshot(first), checkpoint.snapshot(other))


@pytest.mark.parametrize("name", ALL)
def test_every_method_learns_and_answers_with_the_classes_seen(name: str) -> None:
    scenario = toy_scenario(train=16)
    method = made(name, scenario, epochs=6, augment=False)
    for index, seen in enumerate((2, 4)):
        losses = train(method, scenario, index)
        assert 0 < losses["loss"] < 3
        test = scenario.experiences[index].test
        assert logits(method, test).shape == (len(test), seen)
        assert accuracy(method, test) > 0.8


def test_replay_and_derpp_remember_what_naive_forgets() -> None:
    scenario = toy_scenario(train=16)
    old = {}
    for name in ("naive", "replay", "derpp"):
        method = made(name, scenario, epochs=6, augment=False, **({} if name == "naive" else {"memory": 16}))
        for index in range(2):
            train(method, scenario, index)
        old[name] = accuracy(method, scenario.experiences[0].test)
    assert old["naive"] < 0.5
    assert min(old["replay"], old["derpp"]) > old["naive"] + 0.3


@pytest.mark.parametrize(
    ("name", "free"), [("ewc", {"penalty": 0.0}), ("ewc-online", {"penalty": 0.0}), ("lwf", {"alpha": 0.0})]
)
def test_penalties_hold_the_model_back(name: str, free: dict[str, float]) -> None:
    scenario = toy_scenario()
    strong = {"penalty": 1000.0} if "penalty" in free else {"alpha": 50.0}
    moved = {}
    for label, options in (("free", free), ("held", strong)):
        method = made(name, scenario, augment=False, lr=0.001, momentum=0.0, **options)
        train(method, scenario, 0)
        before = logits(method, scenario.experiences[0].test)
        train(method, scenario, 1)
        moved[label] = float(F.mse_loss(logits(method, scenario.experiences[0].test)[:, :2], before))
    assert moved["held"] < moved["free"]


def test_ewc_without_penalty_and_lwf_without_alpha_are_naive() -> None:
    """The adapter adds nothing of its own: with their terms off, all three are the same training."""
    scenario = toy_scenario()
    heads = []
    for name, options in (("naive", {}), ("ewc", {"penalty": 0.0}), ("lwf", {"alpha": 0.0})):
        method = made(name, scenario, **options)
        for index in range(2):
            train(method, scenario, index)
        heads.append(method.model.head.weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])


def test_one_step_equals_plain_torch() -> None:
    """A whole batch, one epoch, no augmentation: one step of SGD on the test transform of the images."""
    scenario = toy_scenario()
    train_set = scenario.experiences[0].train
    method = made("naive", scenario, epochs=1, batch_size=len(train_set), augment=False, momentum=0.0)
    checkpoint.seed_everything(100)
    twin = copy.deepcopy(method)
    losses = train(method, scenario, 0)
    checkpoint.seed_everything(100)
    twin.begin_experience(ExperienceView(scenario, 0, twin.context.manifest))
    loss = F.cross_entropy(twin.predict(twin.context.pipeline.eval(train_set.images(slice(None)))), train_set.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert losses["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    for (key, mine), (_, theirs) in zip(method.model.named_parameters(), twin.model.named_parameters(), strict=True):
        step = theirs - 0.01 * theirs.grad if theirs.grad is not None else theirs
        assert torch.allclose(mine, step, atol=1e-5), key


def test_nothing_of_avalanche_is_kept_between_experiences() -> None:
    """Only a tree of tensors is: it can be counted, copied and written."""
    scenario = toy_scenario()
    method = made("replay", scenario)
    train(method, scenario, 0)
    found = flat(method.extra_state())
    assert all(isinstance(value, (Tensor, int, float, str, type(None))) for value in found.values())
    images = [value for key, value in found.items() if key.endswith("/images")]
    assert [(tuple(value.shape), value.dtype) for value in images] == [((10, 3, 32, 32), torch.uint8)]
    kept = sum(tensor.numel() * tensor.element_size() for tensor in method.kept_between_experiences())
    assert kept > 10 * 3 * 32 * 32


def test_the_memory_holds_only_images_that_were_shown() -> None:
    scenario = toy_scenario(experiences=3)
    for name in ("replay", "derpp"):
        method = made(name, scenario)
        shown: set[int] = set()
        for index in range(3):
            train(method, scenario, index)
            shown |= set(scenario.experiences[index].train.ids.tolist())
            stored = [entry["data"] for entry in method.extra_state()["kept"]["groups"] if entry["data"]]
            ids = torch.cat([data["ids"] for data in stored])
            assert len(ids) == len(ids.unique()) == 10
            assert set(ids.tolist()) <= shown
            for data in stored:
                for row, label, image in zip(data["ids"].tolist(), data["labels"], data["images"], strict=True):
                    source = next(e.train for e in scenario.experiences if row in e.train.ids.tolist())
                    place = source.ids.tolist().index(row)
                    assert source.labels[place] == label
                    assert torch.equal(source.images(torch.tensor([place]))[0], image)


def test_methods_declare_what_they_use() -> None:
    uses = {name: module.bench_register_methods()[0].uses for name, (module, _) in METHODS.items()}  # type: ignore[attr-defined]
    assert uses["naive"] == uses["ewc"] == uses["lwf"] == {"boundaries"}
    assert uses["replay"] == {"boundaries", "memory"}
    assert uses["derpp"] == {"boundaries", "memory", "num_classes"}


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (AvalancheConfig, {"lr": 0.0}, "lr: 0.0 is not positive"),
        (AvalancheConfig, {"momentum": 1.0}, "momentum: 1.0 is out of range"),
        (AvalancheConfig, {"weight_decay": -1.0}, "weight_decay: -1.0 is negative"),
        (AvalancheConfig, {"batch_size": 0}, "batch_size: 0 is too small"),
        (avalanche_replay.ReplayConfig, {"memory": 0}, "memory: 0 is too small"),
        (avalanche_ewc.EwcConfig, {"penalty": -1.0}, "penalty: -1.0 is negative"),
        (avalanche_ewc.EwcConfig, {"decay": 2.0}, "decay: 2.0 is out of range"),
        (avalanche_lwf.LwfConfig, {"temperature": 0.0}, "temperature: 0.0 is not positive"),
        (avalanche_lwf.LwfConfig, {"alpha": -1.0}, "alpha: -1.0 is negative"),
        (avalanche_derpp.DerppConfig, {"memory": 5, "batch_size": 8}, r"memory: 5 is less than batch_size \(8\)"),
        (avalanche_derpp.DerppConfig, {"beta": -0.5}, "beta: -0.5 is negative"),
    ],
)
def test_values_out_of_range_are_refused(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


# --- authors' own -------------------------------------------------------------------------------


class WithPlugin(AvalancheMethod):
    """An author's method that forgot to say what its plugin keeps."""

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        plugins = import_quietly("avalanche.training.plugins")
        templates = import_quietly("avalanche.training.templates")
        return templates.SupervisedTemplate(
            model=model, optimizer=optimizer, plugins=[plugins.SynapticIntelligencePlugin(si_lambda=1.0)], **common
        )


class WithGss(WithPlugin):
    def remember(self, strategy: Any) -> Mapping[str, Any]:
        return {}


def test_a_strategy_with_plugins_must_say_what_it_keeps() -> None:
    scenario = toy_scenario()
    (spec,) = avalanche_naive.bench_register_methods()
    config = AvalancheConfig(batch_size=8, epochs=1)
    silent = WithPlugin(config, context_for(scenario, spec, config))
    with pytest.raises(PluginError, match="does not say what SupervisedTemplate, SynapticIntelligencePlugin keeps"):
        train(silent, scenario, 0)
    outspoken = WithGss(config, context_for(scenario, spec, config))
    assert train(outspoken, scenario, 0)["loss"] > 0


def test_avalanches_own_warnings_are_dropped_and_others_are_not() -> None:
    scenario = toy_scenario()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(made("replay", scenario), scenario, 0)
    assert [str(warning.message) for warning in caught] == []

    class Loud(AvalancheMethod):
        def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
            return import_quietly("avalanche.training.supervised").Naive(model=model, optimizer=optimizer, **common)

    (spec,) = avalanche_naive.bench_register_methods()
    config = AvalancheConfig(batch_size=8, epochs=1)
    with pytest.warns(UserWarning, match="mind the gap"):
        train(Loud(config, context_for(scenario, spec, config)), scenario, 0)


def test_the_experience_tells_no_more_than_the_past() -> None:
    scenario = toy_scenario(experiences=3)
    told: list[Any] = []

    class Curious(AvalancheMethod):
        def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
            strategy = import_quietly("avalanche.training.supervised").Naive(model=model, optimizer=optimizer, **common)
            told.append(strategy)
            return strategy

    (spec,) = avalanche_naive.bench_register_methods()
    config = AvalancheConfig(batch_size=8, epochs=1)
    method = Curious(config, context_for(scenario, spec, config))
    for index in range(2):
        view = ExperienceView(scenario, index, method.context.manifest)
        method.begin_experience(view)
        experience = method._experience(view)
        assert experience.current_experience == index
        assert experience.classes_in_this_experience == {2 * index, 2 * index + 1}
        assert experience.classes_seen_so_far == set(range(2 * index + 2))
        assert not hasattr(experience, "future_classes")
        method.train_experience(view)
    assert [strategy.clock.train_exp_counter for strategy in told] == [1, 2]
    assert told[0] is not told[1]


def test_the_input_stage_gives_teacher_and_student_the_same_batch() -> None:
    stage = InputStage(ImagePipeline("cifar32", size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    raw = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    images = raw.to(torch.float32) / 255
    stage.train()
    first = stage(images)
    assert copy.deepcopy(stage)(images) is first
    assert not torch.equal(stage(images.clone()), first)  # another batch is augmented anew
    stage.eval()
    assert torch.equal(stage(images), stage.pipeline.eval(raw))
    changed = stage(images)
    images.zero_()
    assert not torch.equal(stage(images), changed)
    stage.forget()
    assert stage._last is None


def test_memories_survive_packing() -> None:
    storage = import_quietly("avalanche.training.storage_policy")
    scenario = toy_scenario()
    stream = to_benchmark(scenario, task_labels=True).train_stream
    policy = storage.ExperienceBalancedBuffer(max_size=5)
    for experience in stream:
        policy.post_adapt(None, experience)
    packed = pack_groups(policy)
    fresh = storage.ExperienceBalancedBuffer(max_size=5)
    unpack_groups(fresh, packed)
    assert same(pack_groups(fresh), packed)
    assert [len(group.buffer) for group in fresh.buffer_groups.values()] == [3, 2]
    again = pack(unpack(packed["groups"][0]["data"]))
    assert same(again, packed["groups"][0]["data"])


def test_an_experience_of_the_real_interface_is_enough(tmp_path: Path) -> None:
    """Images larger than the model's input: the stage resizes."""
    images = torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = ImageSet(images, torch.arange(8), torch.arange(8) % 2)
    scenario = dataclasses.replace(
        toy_scenario(), experiences=(Experience(train=part, test=part, classes=(0, 1)),), image_size=40
    )
    (spec,) = avalanche_derpp.bench_register_methods()
    config = avalanche_derpp.DerppConfig(batch_size=4, epochs=1, memory=4)
    method = spec.build(config, context_for(scenario, spec, config, preset="unit224"))
    train(method, scenario, 0)
    assert logits(method, part).shape == (8, 2)
    checkpoint.save(tmp_path / "file", checkpoint.snapshot(method))
