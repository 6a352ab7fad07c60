"""CoOp on cached views against the plain way: the image tower on every batch, 77 tokens of every class in every step.

The sizes are those of CoOp's users: CLIP ViT-B/16, the backbone of the paper track, and ViT-B/32, whose images are four
times cheaper, at 224 px (random weights: they do not matter for time); batches of 32, M = 16 vectors from random
numbers, the ten classes of EuroSAT with 4 or 16 images each. The plain way runs open_clip's own towers, as the official
code runs OpenAI's. Seconds are those of one core, so that a busy machine slows neither. Run by `tox -e perf`.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import factory
from torch import Tensor, nn

from bench_methods.coop import CoOp, bench_register_methods
from benchmark.api import Batch, Context, ExperienceView, ImageSet, Manifest
from benchmark.backbones import _open_clip, _open_clip_weights
from benchmark.backbones.backbone import Backbone
from benchmark.inputs.images import ImagePipeline
from benchmark.run.feed import Feed
from benchmark.run.rules import Rules
from benchmark.scenario import Experience, Scenario

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("one_thread")]

NAMES = (
    *("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"),
    *("Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"),
)
BATCH, VECTORS, VIEWS, TURNS = 32, 16, 2, 3
SPEC = bench_register_methods()[0]


class Plain:
    """CoOp's step as the official code does it."""

    def __init__(self, model: Any, ctx: Tensor) -> None:
        self.model = model
        self.ctx = nn.Parameter(ctx.clone())
        lead = " ".join(["X"] * VECTORS)
        ids = open_clip.SimpleTokenizer(context_length=77)([f"{lead} {name}." for name in NAMES])
        self.ends = ids.argmax(dim=1)
        with torch.no_grad():
            embedded = model.token_embedding(ids)
        self.prefix, self.suffix = embedded[:, :1], embedded[:, 1 + VECTORS :]
        self.optimizer = torch.optim.SGD([self.ctx], lr=1e-5, momentum=0.9, weight_decay=5e-4)

    def step(self, images: Tensor, labels: Tensor) -> float:
        model = self.model
        v = F.normalize(model.encode_image(images), dim=-1)
        rows = torch.cat([self.prefix, self.ctx.expand(len(NAMES), -1, -1), self.suffix], dim=1)
        tokens = model.transformer(rows + model.positional_embedding, attn_mask=model.attn_mask)
        t = model.ln_final(tokens)[torch.arange(len(NAMES)), self.ends] @ model.text_projection
        loss = F.cross_entropy(model.logit_scale.exp() * v @ F.normalize(t, dim=-1).T, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def both_ways(name: str, shots: int) -> tuple[Plain, CoOp, Feed, ImagePipeline, Scenario]:
    """The plain way and ours on one set of weights, and an experience to train on."""
    config = factory.get_model_config(name)
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval().requires_grad_(False)
    dual = _open_clip.build(config, name=name, quick_gelu=False)
    _open_clip_weights.put(dual, model.state_dict(), "random")
    dual.requires_grad_(False).eval()
    image = _open_clip.image_tower(dual)
    backbone = Backbone(name=name, model=image, mean=(0.5,) * 3, std=(0.5,) * 3, sha256="", dual=dual)
    labels = torch.arange(len(NAMES)).repeat_interleave(shots)
    raw = torch.randint(0, 256, (len(labels), 3, 64, 64), dtype=torch.uint8)  # the size of EuroSAT's images
    train = ImageSet(raw, torch.arange(len(labels)), labels)
    experience = Experience(train=train, test=train, classes=tuple(range(len(NAMES))))
    scenario = Scenario(
        name="perf",
        version=1,
        family="few-shot",
        experiences=(experience,),
        num_classes=len(NAMES),
        class_names=NAMES,
        class_order=tuple(range(len(NAMES))),
        fingerprint="",
        image_size=64,
    )
    options = SPEC.config(vectors=VECTORS, views=VIEWS, epochs=TURNS + 1, batch_size=BATCH, warmup=TURNS + 1)
    pipeline = ImagePipeline("clip224", size=224, mean=backbone.mean, std=backbone.std)
    uses = SPEC.uses_of(options)
    context = Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=pipeline,
        manifest=Manifest(SPEC.name, uses),
    )
    method = CoOp(options, context)
    plain = Plain(model, method.ctx.vectors.detach())
    method.begin_experience(ExperienceView(scenario, 0, Manifest(SPEC.name, uses)))
    method.train()
    rules = Rules(
        name=SPEC.name,
        uses=uses,
        pipeline=pipeline,
        device=torch.device("cpu"),
        seed=0,
        eval_seed=0,
        batch_size=BATCH,
    )
    feed = Feed(method, experience, 0, method.passes(), rules)
    return plain, method, feed, pipeline, scenario


@pytest.mark.parametrize(("name", "shots", "least"), [("ViT-B-16", 4, 20), ("ViT-B-32", 16, 15)])
def test_an_epoch_of_coop_is_many_times_faster(name: str, shots: int, least: int) -> None:
    plain, method, feed, pipeline, scenario = both_ways(name, shots)
    train, steps = scenario.experiences[0].train, feed.steps[0]
    # The same step on the same images first: the same thing is timed.
    images = pipeline.eval(train.images(slice(0, BATCH)))
    with torch.no_grad():
        features = method.encode(images)
    ours = method.train_step(Batch(images[:0], train.labels[:BATCH], features=features))["loss"]
    assert float(ours) == pytest.approx(plain.step(images, train.labels[:BATCH]), rel=1e-4)

    began = time.process_time()
    feed.batch(0, 0)
    bank = time.process_time() - began
    fast = []
    for turn in range(1, TURNS + 1):
        began = time.process_time()
        for step in range(steps):
            method.train_step(feed.batch(turn, step))
        fast.append(time.process_time() - began)
    began = time.process_time()
    for step, rows in enumerate(torch.split(torch.randperm(len(train)), BATCH)):
        images = pipeline.train(train.images(rows), torch.Generator().manual_seed(step))
        plain.step(images, train.labels[rows])
    slow = time.process_time() - began
    ratio = slow / statistics.median(fast)
    print(
        f"\nCoOp on {name}, {len(NAMES)} classes, {len(train)} images: an epoch the plain way takes {slow:.1f} s of "
        f"one core, on cached views {statistics.median(fast):.2f} s: {ratio:.0f} times faster; {VIEWS} views of each "
        f"image, once per run, take {bank:.1f} s"
    )
    assert ratio >= least
