"""A toy world for tests: tiny images, a tiny ViT with random weights, a method in a few lines.

Class means lie on a seeded unit sphere, an image is its class mean plus noise; a colour shift per domain
turns the class-incremental stream into a domain-incremental one, or into one of the families that
transfer. Everything is made in milliseconds and needs no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmark import families
from benchmark.api import (
    Batch,
    Context,
    Experience,
    ExperienceView,
    ImageSet,
    Method,
    MethodConfig,
    Scenario,
    ScenarioRequest,
    TestSet,
)
from benchmark.backbones.backbone import Backbone, Nothing, Pretrained
from benchmark.backbones.dual import DualEncoder, ViTTower
from benchmark.backbones.features import FeatureModel
from benchmark.backbones.text import TextTower, WordTokenizer
from benchmark.families import Family
from benchmark.jobs import Job
from benchmark.registry import Entry, Loaded
from benchmark.run import plan, preparation
from benchmark.run.preparation import Prepared
from benchmark.samples import Kind
from benchmark.scenario import Segment, TestStream
from benchmark.specs import MethodSpec, ScenarioSpec
from benchmark.testing import generation
from benchmark.testing.language import tiny_language, toy_wording
from benchmark.testing.raw import toy_set

SIZE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyConfig:
    """Options of the toy scenario.

    Attributes:
        experiences: T; 1 in families that transfer, whatever is asked for.
        classes: Classes per experience (class-il) or in all (domain-il, ...); base-to-new and
            cross-dataset have as many again that are never trained.
        train: Training images per class and experience (and domain).
        test: Test images per class and experience.
        family: ``class-il``, ``domain-il``, ``uda``, ``dg``, ``tta``, ``few-shot``, ``base-to-new``,
            ``cross-dataset``, or ``generation``, which always holds texts.
        data_seed: Of the images.
        kind: What the samples are; texts tell what the images show.
    """

    experiences: int = 2
    classes: int = 2
    train: int = 8
    test: int = 4
    family: str = "class-il"
    data_seed: int = 0
    kind: Kind = "image"


def build_toy(config: ToyConfig, request: ScenarioRequest) -> Scenario:
    """Builds the toy stream."""
    family = families.get(config.family)
    if family.generates:
        sizes = (config.classes * config.train, config.classes * config.test)
        return generation.toy_stream(family.name, config.experiences, *sizes, seed=config.data_seed)
    if not family.stream:
        return _build_transfer(config, family)
    generator = torch.Generator().manual_seed(config.data_seed)
    growing = family.grows
    total = config.classes * (config.experiences if growing else 1)
    means = F.normalize(torch.randn(total, 3 * 8 * 8, generator=generator), dim=1).view(total, 3, 8, 8)
    means = F.interpolate(means, size=(SIZE, SIZE), mode="nearest")
    experiences = []
    base = 0
    for index in range(config.experiences):
        first = index * config.classes if growing else 0
        labels = list(range(first, first + config.classes))
        shift = torch.zeros(3, 1, 1) if growing else torch.randn(3, 1, 1, generator=generator) * 0.1
        sets = []
        for count in (config.train, config.test):
            targets = torch.tensor(labels).repeat_interleave(count)
            noise = torch.randn(len(targets), 3, SIZE, SIZE, generator=generator) * 0.05
            images = ((means[targets] * 2 + shift + noise + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            ids = base + torch.arange(len(targets))
            sets.append(toy_set(config.kind, images, targets, ids, None, torch.full_like(targets, index)))
            base += len(targets)
        experiences.append(
            Experience(train=sets[0], test=sets[1], classes=tuple(labels), domain=None if growing else f"domain{index}")
        )
    return Scenario(
        name="toy",
        version=1,
        family=family.name,
        experiences=tuple(experiences),
        class_names=tuple(f"thing {label}" for label in range(total)),
        wording=toy_wording(total) if config.kind != "image" else None,
    )


def _build_transfer(config: ToyConfig, family: Family) -> Scenario:
    """One experience of a family that transfers; domains are shifts of colour."""
    generator = torch.Generator().manual_seed(config.data_seed)
    total = config.classes * (2 if family.unseen else 1) + family.unknown
    means = F.normalize(torch.randn(total, 3 * 8 * 8, generator=generator), dim=1).view(total, 3, 8, 8)
    means = F.interpolate(means, size=(SIZE, SIZE), mode="nearest")
    shifts = torch.randn(3, 3, 1, 1, generator=generator) * 0.1
    made = 0

    def draw(labels: Sequence[int], count: int, domains: Sequence[int]) -> ImageSet:
        nonlocal made
        targets = torch.tensor(labels).repeat_interleave(count).repeat(len(domains))
        places = torch.arange(len(domains)).repeat_interleave(len(labels) * count)
        noise = torch.randn(len(targets), 3, SIZE, SIZE, generator=generator) * 0.05
        colours = shifts[torch.tensor(domains)][places]
        images = ((means[targets] * 2 + colours + noise + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        ids = made + torch.arange(len(targets))
        made += len(targets)
        tones = torch.tensor(domains)[places]
        return toy_set(config.kind, images, targets, ids, places if len(domains) > 1 else None, tones)

    known, unknown = list(range(config.classes)), list(range(config.classes, total))
    sources, goal = [0], 0
    if family.shift:
        sources, goal = ([0], 1) if family.unlabelled else ([0, 1], 2)
    met = [*known, *unknown] if family.unknown else known
    target = draw(met, config.train, [goal]) if family.unlabelled else None
    experience = Experience(
        train=draw(known, config.train, sources),
        test=draw(met, config.test, [goal]),
        classes=tuple(known),
        domain=f"domain{goal}",
        target=None if target is None else target.without_labels(),
        target_labels=None if target is None else target.labels,
        sources=tuple(f"domain{place}" for place in sources),
    )
    tests: tuple[TestSet, ...] = ()
    stream = _test_stream(draw, known, config.test) if family.adapts else None
    if goal:
        rest = draw(known, config.test, sources)
        tests = (TestSet(name="source", images=ImageSet(rest.source, rest.rows, rest.labels, rest.ids)),)
    elif unknown:
        name = "new" if family.unseen == "classes" else "other"
        tests = (TestSet(name=name, images=draw(unknown, config.test, [0]), classes=tuple(unknown)),)
    return Scenario(
        name="toy",
        version=1,
        family=family.name,
        experiences=(experience,),
        class_names=tuple(f"thing {label}" for label in range(total)),
        wording=toy_wording(total) if config.kind != "image" else None,
        tests=tests,
        test_stream=stream,
    )


def _test_stream(draw: Callable[..., ImageSet], labels: Sequence[int], count: int) -> TestStream:
    """Three segments of other colours, the last one shifts back to the first; batches of 5, the last ones smaller."""
    segments = []
    for place, (domain, reset) in enumerate(((1, False), (2, True), (1, False))):
        images = draw(labels, count, [domain])
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(place))
        segments.append(Segment(name=f"domain{domain} {place}", images=images.subset(order), reset=reset))
    return TestStream(segments=tuple(segments), batch_size=5)


TOY_SCENARIO = ScenarioSpec(
    name="toy",
    build=build_toy,
    config=ToyConfig,
    summary="synthetic images for tests",
    family="class-il",
    tracks={"nano": "plain"},
)


def toy_scenario(**options: Any) -> Scenario:
    """The toy stream with the given options."""
    return build_toy(ToyConfig(**options), ScenarioRequest(data_root=None, cache=Path()))


def tiny_backbone(seed: int = 0, *, text: bool = False, **architecture: Any) -> Backbone:
    """A ViT of width 32 and depth 2 with random weights and a classifier of 40; global random state is left as found.

    Args:
        seed: Of the weights.
        text: Whether it has a text tower, of width 24, that knows the words of the toy class names.
        **architecture: What differs, arguments of timm's `VisionTransformer`.
    """
    shape = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VisionTransformer(**{**shape, **architecture}).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else None
        dual = _tiny_dual(model) if text else None
        classifier = nn.Linear(model.embed_dim, 40).requires_grad_(False).eval()
    return Backbone(
        name="tiny",
        model=model,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        sha256="0" * 64,
        dual=dual,
        classifier=classifier,
    )


def tiny_resnet(seed: int = 0) -> Backbone:
    """A residual network with BatchNorm, of width 8, with random weights: features and no tokens.

    Running statistics are not those of a fresh network, so that it shows whether they are used. Global random state is
    left as found.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _TinyResNet()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, std=0.1)  # type: ignore[arg-type]  # it tracks them
                nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return Backbone(
        name="tiny-resnet",
        model=FeatureModel(net, name="tiny-resnet", width=8, image_size=SIZE).requires_grad_(False).eval(),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        sha256="1" * 64,
    )


class _TinyResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.down = nn.Sequential(
            nn.Conv2d(8, 8, 8, bias=False), nn.BatchNorm2d(8)
        )  # to one place, as 32 px in stage 5

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        features: Tensor = self.down(F.relu(maps + self.block(maps))).flatten(1)
        return features


def tiny_model(spec: MethodSpec, *, generates: bool = False) -> Pretrained:
    """The tiny pretrained model of the kind that a method is given.

    Args:
        spec: The method.
        generates: Whether it is to write texts, which no masked model does.
    """
    if not spec.pretrained:
        return Nothing()
    if spec.adapts and not spec.text:
        return tiny_resnet()  # for statistics of its batch
    if spec.reads == "image":
        return tiny_backbone(text=spec.text)
    kinds = [kind for kind in spec.models if not (generates and kind == "masked")]
    return tiny_language((kinds or spec.models)[0])


def _tiny_dual(vit: VisionTransformer) -> DualEncoder:
    tokenizer = WordTokenizer(["a", "photo", "of", "thing", "image", "domain", "x", ".", ",", *map(str, range(10))])
    tower = TextTower(vocabulary=len(tokenizer), context=48, width=24, depth=2, heads=2, features=20)
    image = ViTTower(vit, 20)
    for parameter in [*tower.parameters(), *image.projection.parameters()]:
        nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else None
    dual = DualEncoder(image=image, text=tower, tokenizer=tokenizer)
    nn.init.constant_(dual.logit_scale, math.log(10.0))
    return dual.requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyMethodConfig(MethodConfig):
    """Options of the toy method."""

    epochs: int = 3
    batch_size: int = 8
    lr: float = 0.5


class ToyMethod(Method):
    """A linear classifier on mean colours: the smallest method that learns something."""

    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.head = nn.Parameter(torch.zeros(0, 192))

    def _features(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 8).flatten(1)  # (B, 192)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes; a fresh optimiser."""
        fresh = torch.randn(experience.seen - len(self.head), 192, device=self.head.device) * 0.01
        self.head = nn.Parameter(torch.cat([self.head.detach(), fresh]))
        self.optimizer = torch.optim.SGD([self.head], lr=self.config.lr, momentum=0.9)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of cross-entropy."""
        loss = F.cross_entropy(self._features(batch.images) @ self.head.T, batch.labels)
        self.descend(loss)
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of the classes seen."""
        return self._features(images) @ self.head.T

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}head")
        if saved is not None and saved.shape != self.head.shape:
            self.head = nn.Parameter(torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)


TOY_METHOD = MethodSpec(
    name="toy-linear",
    build=ToyMethod,
    config=ToyMethodConfig,
    summary="linear classifier on pixels, for tests",
    uses=frozenset({"boundaries"}),
)


def prepare_toy(
    *,
    build: type[Method] = ToyMethod,
    uses: frozenset[str] = TOY_METHOD.uses,  # type: ignore[assignment]
    stream: Literal["sequential", "joint", "oracle"] = "sequential",
    settings: Mapping[str, str] | None = None,
    validate: int = 0,
    init_seed: int | None = None,
    text: bool = False,
    **scenario: Any,
) -> Prepared:
    """A run of the toy method, or a subclass of it, on the toy stream, ready for `benchmark.run.engine`.

    Args:
        build: The method's class.
        uses: What it declares.
        stream: As in `MethodSpec`.
        settings: As ``--set``.
        validate: As ``--validate``.
        init_seed: As ``--init-seed``.
        text: As in `MethodSpec`; the backbone has a text tower if it is true.
        **scenario: Options of `ToyConfig`.
    """
    spec = replace(TOY_METHOD, build=build, uses=uses, stream=stream, text=text)
    request = Job(
        scenario="toy",
        method=spec.name,
        settings={**(settings or {}), **{f"scenario.{name}": str(value) for name, value in scenario.items()}},
        validate=validate,
        init_seed=init_seed,
        device="cpu",
    )
    here = Entry("toy", __name__, "benchmark.testing")
    resolved = plan.resolve_specs(request, Loaded(TOY_SCENARIO, here, "0" * 64), Loaded(spec, here, "0" * 64))
    built, _ = preparation.build_scenario(resolved, {"data_root": None, "cache": Path(), "download": "never"})
    return preparation.prepare(resolved, built, pretrained=tiny_backbone(text=text))
