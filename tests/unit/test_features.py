"""Methods on a frozen encoder: where their features come from, and that it makes no difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, FeatureConfig, FeatureMethod, Manifest, Transform
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS
from benchmark.records import predictions
from benchmark.run import costs, engine
from benchmark.run.feed import Feed
from benchmark.run.interruption import Interrupted
from benchmark.run.rules import Rules
from benchmark.run.seeds import derive
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import prepare_toy, tiny_backbone, toy_scenario

BOTH = frozenset({"boundaries", "unlabelled"})
PIPELINES = {
    name: ImagePipeline(name, size=32, mean=(0.5,) * 3, std=(0.5,) * 3) for name in ("plain", "cifar32", "clip224")
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig(FeatureConfig):
    """Three short epochs."""

    epochs: int = 3
    batch_size: int = 8


class Probe(FeatureMethod):
    """A linear head on features of a frozen ViT, which counts the images that it encodes in training."""

    encoded: int
    stop_at = -1

    def __init__(self, config: ProbeConfig, context: Context) -> None:
        super().__init__(config, context)
        self.vit = context.backbone.model
        self.head = nn.Linear(context.backbone.width, 2)
        self.step = 0

    def encode(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not self.vit.training
        type(self).encoded += len(images) if self.training else 0
        return cls_feature(self.vit, images)

    def begin_experience(self, experience: ExperienceView) -> None:
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=0.1, momentum=0.9)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        if self.step == type(self).stop_at:
            type(self).stop_at = -1
            raise KeyboardInterrupt
        self.step += 1
        assert self.optimizer is not None
        assert batch.features is not None
        loss = F.cross_entropy(self.head(batch.features), batch.labels)
        if batch.target_features is not None:
            loss = loss + 0.1 * self.head(batch.target_features).logsumexp(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encode(images))
        return logits

    def extra_state(self) -> Mapping[str, Any]:
        return {"step": self.step}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])


class SourceFree(Probe):
    """One epoch of the source, then the target alone."""

    def reads(self, epoch: int) -> Any:
        return "source" if epoch == 0 else "target"

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        if len(batch):
            return super().train_step(batch)
        assert batch.features is not None
        assert batch.features.shape == (0, 32)
        assert batch.target_features is not None
        assert len(batch.target_features) > 0
        return {"loss": 0.0}


def prepared(build: type[Probe], family: str = "uda", **settings: Any) -> Any:
    """A run of `build` on the toy stream."""
    found = prepare_toy(build=build, uses=BOTH, family=family, train=9)
    plan = dataclasses.replace(found.plan, method_config=ProbeConfig(**settings))
    return dataclasses.replace(found, plan=plan)


def feed(
    pipeline: str, passes: tuple[Transform, ...] = ("train",) * 2, build: type[Probe] = Probe, **config: Any
) -> Any:
    """Batches of the first experience of a toy stream with a target, and the method that reads them."""
    scenario = toy_scenario(family="uda", train=9)
    context = Context(
        pretrained=tiny_backbone(),
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=PIPELINES[pipeline],
        manifest=Manifest("probe", BOTH),
    )
    method = type("Own", (build,), {"encoded": 0})(ProbeConfig(**config), context).train()
    rules = Rules(
        name="probe",
        uses=BOTH,
        pipeline=PIPELINES[pipeline],
        device=torch.device("cpu"),
        seed=5,
        eval_seed=0,
        batch_size=8,
    )
    made = Feed(method, scenario.experiences[0], 0, passes, rules)
    return made, method, scenario.experiences[0]


def test_without_augmentation_each_image_is_encoded_once(tmp_path: Path) -> None:
    build = type("Own", (Probe,), {"encoded": 0})
    engine.execute(prepared(build), tmp_path, hooks=manager([]), quiet=True)
    assert build.encoded == 18 + 18  # source and target


@pytest.mark.parametrize(("pipeline", "views"), [("plain", 0), ("plain", 3), ("cifar32", 0), ("cifar32", 3)])
def test_a_batch_of_features_is_the_encoded_batch_of_images(pipeline: str, views: int) -> None:
    batches, method, experience = feed(pipeline, views=views)
    banked = views > 0 or pipeline == "plain"
    batch = batches.batch(1, 0)
    assert batch.images.shape == ((0 if banked else 8), 3, 32, 32)
    assert batch.features.shape == batch.target_features.shape == (8, 32)
    rows = torch.randperm(18, generator=torch.Generator().manual_seed(derive(5, 0, 1)))[:8]
    assert torch.equal(batch.labels, experience.train.labels[rows])
    for features, images, places in (
        (batch.features, experience.train, rows),
        (batch.target_features, experience.target, batch.target_index),
    ):
        with torch.no_grad():
            still = method.encode(PIPELINES[pipeline].eval(images.images(places)))
        same = torch.allclose(features, still, atol=1e-5)
        assert same == (pipeline == "plain")
    if not banked:
        with torch.no_grad():
            assert torch.equal(batch.features, method.encode(batch.images))


def test_views_are_augmented_as_the_pipeline_says_and_all_are_used() -> None:
    batches, method, experience = feed("cifar32", passes=("train",) * 20, views=3)
    expected = []
    for view in range(3):
        generator = torch.Generator().manual_seed(derive(5, 0, "bank", view))
        with torch.no_grad():
            images = PIPELINES["cifar32"].train(experience.train.images(slice(None)), generator)
            expected.append(method.encode(images))
    taken = set()
    for epoch in range(20):
        for step in range(batches.steps[epoch]):
            features = batches.batch(epoch, step).features
            distance = torch.cdist(features, torch.cat(expected), compute_mode="donot_use_mm_for_euclid_dist")
            assert distance.min(dim=1).values.max() < 1e-4
            taken |= set(distance.argmin(dim=1).tolist())
    assert taken == set(range(3 * 18))
    assert method.encoded == 3 * 18 + 3 * 18 * 2  # once here, once each for source and target in the bank


def test_a_pass_as_at_test_time_has_one_view() -> None:
    batches, method, experience = feed("clip224", passes=("test", "train"), views=2)
    still = batches.batch(0, 0)
    rows = torch.randperm(18, generator=torch.Generator().manual_seed(derive(5, 0, 0)))[:8]
    with torch.no_grad():
        expected = method.encode(PIPELINES["clip224"].eval(experience.train.images(rows)))
    assert torch.allclose(still.features, expected, atol=1e-5)
    before = method.encoded
    batches.batch(1, 0)
    assert method.encoded == before + 2 * 18 * 2


def test_epochs_of_the_target_alone_bring_its_features(tmp_path: Path) -> None:
    build = type("Own", (SourceFree,), {"encoded": 0})
    path = engine.execute(prepared(build), tmp_path, hooks=manager([]), quiet=True)
    assert path.exists()


@pytest.mark.parametrize("views", [0, 2])
def test_a_resumed_run_reads_the_same_features(tmp_path: Path, views: int) -> None:
    found = []
    for stop_at in (-1, 4):
        build = type("Own", (Probe,), {"encoded": 0, "stop_at": stop_at})
        run = prepared(build, views=views)
        run.context.pipeline.preset = PRESETS["cifar32"]
        out = tmp_path / str(stop_at)
        if stop_at >= 0:
            with pytest.raises(Interrupted):
                engine.execute(run, out, hooks=manager([]), quiet=True)
        path = engine.execute(run, out, hooks=manager([]), quiet=True)
        found.append(predictions.read(path.with_suffix(".parquet")).prediction.tolist())
    assert found[0] == found[1]


def test_flops_of_a_step_count_the_encoder_when_it_works() -> None:
    counted = {}
    for views in (0, 2):
        batches, method, experience = feed("cifar32", views=views)
        batch = batches.batch(0, 0)
        method.begin_experience(None)
        counted[views] = costs.step_flops(method, batch)
        images = torch.zeros(16, 3, 32, 32)
    with torch.no_grad():
        encoder = costs.count_flops(method, lambda twin: twin.encode(images))
    assert counted[0] == counted[2] + encoder
    del experience


def test_presets_know_whether_they_draw() -> None:
    for name, pipeline in PIPELINES.items():
        raw = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        one, two = (pipeline.train(raw, torch.Generator().manual_seed(seed)) for seed in (1, 2))
        assert pipeline.random == (not torch.equal(one, two)), name
        quiet = ImagePipeline(name, size=32, mean=(0.5,) * 3, std=(0.5,) * 3, augment=False)
        assert not quiet.random


def test_a_negative_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="views: -1 is negative; use 0"):
        FeatureConfig(views=-1)
