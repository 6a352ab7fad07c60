"""CoOp and CoCoOp in streams, on features from a bank, and among classes known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import cocoop, coop
from bench_methods._context_learner import ContextLearner
from benchmark import config as configs
from benchmark import records
from benchmark.api import Batch, Context, ExperienceView, Manifest
from benchmark.backbones.dual import DualEncoder
from benchmark.backbones.heads import mask_logits
from benchmark.inputs.images import ImagePipeline
from benchmark.run import engine
from benchmark.specs import MethodSpec
from benchmark.testing import subjects, toys
from benchmark.testing.laboratory import manager

SPECS = [*coop.bench_register_methods(), *cocoop.bench_register_methods()]
both = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
STREAM = toys.toy_scenario(experiences=3, classes=2, train=3, test=1)


def build(spec: MethodSpec, scenario: Any = STREAM, **options: Any) -> ContextLearner:
    options = {"vectors": 3, "words": "", "lr": 0.5, "warmup": 0, "batch_size": 4, **options}
    config, backbone = spec.config(**options), toys.tiny_backbone(text=True)
    context = Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=ImagePipeline("plain", size=32, mean=backbone.mean, std=backbone.std),
        manifest=Manifest(spec.name, spec.uses_of(config)),
    )
    method = spec.build(config, context)
    assert isinstance(method, ContextLearner)
    return method


def begin(method: ContextLearner, index: int, scenario: Any = STREAM) -> Batch:
    """Begins an experience and returns all of its images as a batch from a bank."""
    method.begin_experience(ExperienceView(scenario, index, method.context.manifest))
    method.train()
    train = scenario.experiences[index].train
    images = method.context.pipeline.eval(train.images(slice(None)))
    return Batch(images[:0], train.labels, features=method.encode(images))


@both
def test_the_context_goes_on_and_the_optimizer_starts_anew(spec: MethodSpec) -> None:
    method = build(spec)
    method.train_step(begin(method, 0))
    context, optimizer = method.ctx.vectors.detach().clone(), method.optimizer
    method.train_step(begin(method, 0))
    batch = begin(method, 1)
    assert method.optimizer is not optimizer
    assert method.names == ("thing 0", "thing 1", "thing 2", "thing 3")
    assert method.competing == (2, 3)
    assert not torch.equal(method.ctx.vectors, context)
    before = method.ctx.vectors.detach().clone()
    method.train_step(batch)
    assert not torch.equal(method.ctx.vectors, before)
    assert method.eval().predict(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@both
@pytest.mark.parametrize("mask", ["current", "none"])
def test_the_loss_is_that_of_the_classes_that_compete(spec: MethodSpec, mask: str) -> None:
    method = build(spec, mask=mask)
    begin(method, 0)
    batch = begin(method, 1)
    images = method.context.pipeline.eval(STREAM.experiences[1].train.images(slice(None)))
    with torch.no_grad():
        logits = method.predict(images)
    expected = F.cross_entropy(mask_logits(logits, (2, 3) if mask == "current" else None), batch.labels)
    torch.testing.assert_close(torch.as_tensor(method.train_step(batch)["loss"]), expected, rtol=1e-5, atol=1e-6)


@both
def test_in_domain_incremental_streams_all_classes_compete(spec: MethodSpec) -> None:
    scenario = toys.toy_scenario(family="domain-il", experiences=2, classes=3, train=2)
    method = build(spec, scenario, mask="current")
    begin(method, 1, scenario)
    assert method.competing == (0, 1, 2)


def test_contexts_per_class_grow_and_old_ones_only_decay_under_the_mask() -> None:
    spec = SPECS[0]
    method = build(spec, class_specific=True, weight_decay=0.0)
    method.train_step(begin(method, 0))
    assert method.ctx.vectors.shape == (2, 3, 24)
    old = method.ctx.vectors.detach().clone()
    batch = begin(method, 1)
    assert method.ctx.vectors.shape == (4, 3, 24)
    new = method.ctx.vectors.detach().clone()
    assert 0.01 < float(new[2:].std()) < 0.03
    for _ in range(2):
        method.train_step(batch)
    assert torch.equal(method.ctx.vectors[:2], old)
    assert (method.ctx.vectors[2:] != new[2:]).any(dim=2).all()
    free = build(spec, class_specific=True, weight_decay=0.0, mask="none")
    begin(free, 0)
    batch = begin(free, 1)
    before = free.ctx.vectors.detach().clone()
    free.train_step(batch)
    assert (free.ctx.vectors[:2] != before[:2]).any(dim=2).all()


# --- what is computed ----------------------------------------------------------------------------------------------


class Counter:
    """Counts calls of both towers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, self.texts = 0, 0
        towers = {name: getattr(DualEncoder, name) for name in ("image_features", "encode_text")}

        def image_features(dual: DualEncoder, images: Tensor) -> Tensor:
            self.images += len(images)
            found: Tensor = towers["image_features"](dual, images)
            return found

        def encode_text(dual: DualEncoder, *args: Any, **options: Any) -> Tensor:
            self.texts += 1
            found: Tensor = towers["encode_text"](dual, *args, **options)
            return found

        monkeypatch.setattr(DualEncoder, "image_features", image_features)
        monkeypatch.setattr(DualEncoder, "encode_text", encode_text)


@both
def test_texts_pass_once_per_step(spec: MethodSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(spec)
    batch = begin(method, 1)
    count = Counter(monkeypatch)
    method.train_step(batch)
    method.train_step(batch)
    assert (count.images, count.texts) == (0, 2)


def test_texts_pass_once_for_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(SPECS[0])
    batch = begin(method, 1)
    method.train_step(batch)
    count, images = Counter(monkeypatch), torch.zeros(2, 3, 32, 32)
    for _ in range(3):
        method.predict(images)
        method.predict_named(images, ["a heron"])
    assert (count.images, count.texts) == (12, 2)
    method.train_step(batch)
    method.predict(images)
    assert count.texts == 4


@both
@pytest.mark.parametrize(("options", "encoded"), [({"augment": False}, 1), ({"views": 3}, 3), ({}, 5)])
def test_the_image_tower_rests_while_prompts_train(
    spec: MethodSpec, options: dict[str, Any], encoded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 images: without augmentation once, with three views three times, else in each of five epochs."""
    subject = subjects.method_subject(spec)
    config = spec.config(epochs=5, batch_size=8, vectors=2, words="", **options)
    prepared = subject.prepare(
        toys.toy_scenario(experiences=1, classes=2, train=10, test=12), config=config, counting=True
    )
    count, found, inside = Counter(monkeypatch), [], []
    build: Any = spec.build
    encode, step = ContextLearner.encode, build.train_step

    def counted(self: ContextLearner, images: Tensor) -> Tensor:
        found.append(len(images) if self.training else 0)  # evaluation is none of this
        return encode(self, images)

    def train_step(self: ContextLearner, batch: Batch) -> Any:
        before = count.images
        terms = step(self, batch)
        inside.append(count.images - before)
        return terms

    monkeypatch.setattr(ContextLearner, "encode", counted)
    monkeypatch.setattr(build, "train_step", train_step)
    record = records.read(engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True))
    assert len(record["losses"][0]) == 5
    assert inside == [0] * (5 * 3 + 1)  # one more step is made on a copy, to count its FLOPs
    assert sum(found) == 20 * encoded + (0 if options else 8)


# --- classes known by name -----------------------------------------------------------------------------------------


@both
def test_other_classes_by_name(spec: MethodSpec) -> None:
    method = build(spec)
    method.train_step(begin(method, 0))
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        own, mixed = method.predict(images), method.predict_named(images, ["thing 5", "thing 1", "thing_0"])
    torch.testing.assert_close(mixed[:, [2, 1]], own, rtol=1e-4, atol=1e-5)


@both
def test_state_holds_what_was_learned_and_no_text(spec: MethodSpec) -> None:
    method = build(spec)
    method.train_step(begin(method, 0))
    method.predict(torch.zeros(1, 3, 32, 32))
    own = {name for name in method.state_dict() if not name.startswith("dual.")}
    meta = {f"meta_net.{layer}" for layer in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert own == {"ctx.vectors"} | (meta if spec.name == "cocoop" else set())
    assert sum(tensor.numel() for tensor in method.kept_between_experiences()) == sum(
        p.numel() for p in method.trainable()
    )


# --- recipes -------------------------------------------------------------------------------------------------------


@both
def test_a_published_recipe_means_the_same_on_every_track(spec: MethodSpec) -> None:
    for recipe, given in spec.recipes.items():
        alone, _ = configs.resolve(spec.config, [configs.Layer("recipe", given)], key="method")
        for track, values in spec.tracks.items():
            layers = [configs.Layer(track, values), configs.Layer("recipe", given)]
            assert configs.resolve(spec.config, layers, key="method")[0] == alone, (recipe, track)
