"""Drives a method by hand, step by step, for tests of an author's own beside the contract.

::

    (SPEC,) = bench_register_methods()
    scenario = toys.toy_scenario(experiences=2)
    method = Mine(MineConfig(batch_size=8), by_hand.context_of(SPEC, MineConfig(batch_size=8), scenario))
    by_hand.learn(method, scenario, 0)
    method.predict(by_hand.batch_of(method, scenario, 1).images)
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import cache

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmark.api import Batch, Context, ExperienceView, Manifest, Method, MethodConfig, Place, Scenario
from benchmark.backbones.backbone import Backbone
from benchmark.inputs.images import ImagePipeline
from benchmark.specs import MethodSpec
from benchmark.testing.toys import tiny_backbone, toy_scenario


def backbone_of(
    model: VisionTransformer,
    *,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    std: tuple[float, ...] = (1.0, 1.0, 1.0),
    classifier: nn.Linear | None = None,
) -> Backbone:
    """A given model as a backbone, by default of images that are not normalised."""
    return Backbone(name="given", model=model, mean=mean, std=std, sha256="0" * 64, classifier=classifier)


@cache
def _vit_base() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):  # built elsewhere and moved: an old timm cannot be built there
        vit = VisionTransformer(img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12, num_classes=0)
    return vit.to("meta")


def context_of(
    spec: MethodSpec,
    config: MethodConfig,
    scenario: Scenario,
    *,
    backbone: Backbone | None = None,
    pipeline: ImagePipeline | None = None,
    device: str = "cpu",
) -> Context:
    """What a method is built with.

    Args:
        spec: Of the method; tells what the configuration uses.
        config: Its configuration.
        scenario: E.g. of `benchmark.testing.toys.toy_scenario`.
        backbone: Instead of `benchmark.testing.toys.tiny_backbone`, with a text tower for methods with ``text``.
        pipeline: Instead of resizing and the backbone's normalisation.
        device: ``meta`` to count parameters of a large model.
    """
    backbone = tiny_backbone(text=spec.text) if backbone is None else backbone
    if pipeline is None:
        pipeline = ImagePipeline("plain", size=backbone.image_size, mean=backbone.mean, std=backbone.std)
    return Context(
        pretrained=backbone,
        device=torch.device(device),
        scenario=scenario,
        pipeline=pipeline,
        manifest=Manifest(spec.name, spec.uses_of(config)),
    )


def on_meta(spec: MethodSpec, **options: object) -> Method:
    """A method on ViT-B/16 for 224 px, without a single weight: for names and counts of its parameters.

    Args:
        spec: Of the method.
        options: Of its configuration.
    """
    config = spec.config(**options)
    scenario = toy_scenario(experiences=1, classes=2, train=1, test=1)
    backbone = backbone_of(copy.deepcopy(_vit_base()))
    with torch.device("meta"):
        return spec.build(config, context_of(spec, config, scenario, backbone=backbone, device="meta"))


def stream_of(sizes: Sequence[int]) -> Scenario:
    """A stream whose experiences have so many classes: where batches are given, only classes and their order matter."""
    scenario = toy_scenario(experiences=len(sizes), classes=max(sizes), train=1, test=1)
    ends = list(itertools.accumulate(sizes))
    parts = (
        dataclasses.replace(part, classes=tuple(range(end - size, end)))
        for part, size, end in zip(scenario.experiences, sizes, ends, strict=True)
    )
    return dataclasses.replace(scenario, experiences=tuple(parts))


def view_of(method: Method, scenario: Scenario, index: int) -> ExperienceView:
    """What the method is told of an experience."""
    return ExperienceView(scenario, index, method.context.manifest)


def batch_of(method: Method, scenario: Scenario, index: int, step: int = 0, *, size: int = 8) -> Batch:
    """Training samples of an experience as they come, without augmentation; behind the last comes the first."""
    train = scenario.experiences[index].train
    rows = (torch.arange(size) + size * step) % len(train)
    part = train.subset(rows)
    inputs = method.context.pipeline.eval(part.read(slice(None)))
    return Batch(inputs, part.labels, place=place_of(method, len(train), step), references=part.references)


def place_of(method: Method, samples: int, step: int) -> Place:
    """Where a step stands in an experience that has begun, whose passes all read the training samples.

    Args:
        method: Tells its passes.
        samples: Training samples of the experience.
        step: Steps before this one, over all passes.
    """
    each = max(1, math.ceil(samples / method.config.batch_size))
    return place(step, each=each, epochs=len(method.passes()))


def place(step: int, *, each: int = 1, epochs: int = 1) -> Place:
    """A place after so many steps of passes that have ``each`` steps."""
    return Place(
        epoch=step // each,
        epochs=epochs,
        step=step,
        steps=each * epochs,
        epoch_step=step % each,
        epoch_steps=each,
    )


def at(batch: Batch, step: int, *, each: int = 1, epochs: int = 1) -> Batch:
    """The batch, moved to a `place`."""
    return dataclasses.replace(batch, place=place(step, each=each, epochs=epochs))


def begin(method: Method, scenario: Scenario, index: int) -> None:
    """Starts an experience, in training mode."""
    method.begin_experience(view_of(method, scenario, index))
    method.train()


def learn(method: Method, scenario: Scenario, index: int, *, steps: int = 2) -> None:
    """A whole experience of a few steps on batches of 8; eval mode afterwards."""
    begin(method, scenario, index)
    for step in range(steps):
        method.train_step(batch_of(method, scenario, index, step))
    method.end_experience(view_of(method, scenario, index))
    method.eval()
