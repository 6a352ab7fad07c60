"""Zero-shot CLIP against figures of the official implementation on closed-form weights; its templates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from bench_methods._templates import TEMPLATES, expand
from bench_methods.clip_zero_shot import ClipZeroShot, ClipZeroShotConfig, bench_register_methods
from benchmark import records
from benchmark.api import Context, ExperienceView, Manifest
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.run import checkpoint, engine
from benchmark.testing import toys
from benchmark.testing.closed_form import image_batch, tiny_clip
from benchmark.testing.laboratory import manager

NAMES = ("dog", "sea_turtle", "aircraft_carrier")
SCENARIO = dataclasses.replace(toys.toy_scenario(experiences=1, classes=3, train=1, test=1), class_names=NAMES)
USES = frozenset({"class_names", "open_vocabulary"})
SINGLE = [[2.3673506, 5.6906137, 5.6839194], [-2.5533495, -0.0079012, -0.0028179]]
ENSEMBLE = [[5.0793853, 3.2457746, 3.1107249], [-0.7393731, -2.0367665, -2.0959671]]


def make(dtype: torch.dtype = torch.float32, **options: Any) -> ClipZeroShot:
    """The method on the tiny CLIP, told of the three classes."""
    backbone = tiny_clip()
    assert backbone.dual is not None
    backbone.dual.to(dtype)
    context = Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=SCENARIO,
        pipeline=ImagePipeline("plain", size=32, mean=(0.0,) * 3, std=(1.0,) * 3),
        manifest=Manifest("clip-zero-shot", USES),
    )
    method = ClipZeroShot(ClipZeroShotConfig(**options), context).eval()
    method.begin_experience(ExperienceView(SCENARIO, 0, Manifest("clip-zero-shot", USES)))
    return method


def close(found: Tensor, expected: list[list[float]], tolerance: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("templates", "expected"),
    [("a photo of a {}.", SINGLE), ("imagenet-7", ENSEMBLE)],
    ids=["single", "ensemble"],
)
def test_logits_equal_the_official_ones(templates: str, expected: list[list[float]], dtype: torch.dtype) -> None:
    # The figures are float32 of another implementation.
    close(make(dtype, templates=templates).predict(image_batch().to(dtype)), expected, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_ensemble_is_a_mean_of_texts_not_of_logits(dtype: torch.dtype) -> None:
    one, seven = make(dtype), make(dtype, templates="imagenet-7|a photo of a {}.")
    images, dual = image_batch().to(dtype), one.dual
    texts = torch.stack(
        [dual.text_features([t.replace("{}", name.replace("_", " ")) for name in NAMES]) for t in expand("imagenet-7")]
        + [dual.text_features([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])]
    )  # (8, 3, d)
    v = dual.image_features(images)
    mean = (texts / texts.norm(dim=2, keepdim=True)).mean(dim=0)
    by_hand = 20.0 * (v / v.norm(dim=1, keepdim=True)) @ (mean / mean.norm(dim=1, keepdim=True)).T
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    # The logit scale of the tiny CLIP is the float32 logarithm of 20.
    torch.testing.assert_close(seven.predict(images) * 20.0 / dual.logit_scale.exp(), by_hand, rtol=0, atol=tolerance)
    unit = texts / texts.norm(dim=2, keepdim=True)
    mean_of_logits = 20.0 * torch.einsum("bd,kcd->kbc", v / v.norm(dim=1, keepdim=True), unit).mean(dim=0)
    assert float((mean_of_logits - by_hand).abs().max()) > 0.1


def test_logits_of_any_names_and_texts_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make()
    asked: list[int] = []
    encode = method.dual.encode_text
    monkeypatch.setattr(method.dual, "encode_text", lambda e, ends: asked.append(len(e)) or encode(e, ends))
    images = image_batch()
    close(method.predict(images), SINGLE, 2e-5)
    assert asked == []  # encoded when the experience began
    named = method.predict_named(images, ["aircraft carrier", "dog"])
    close(named, [[row[2], row[0]] for row in SINGLE], 2e-5)
    for _ in range(3):
        assert torch.equal(method.predict_named(images, ["aircraft carrier", "dog"]), named)
    assert asked == [2]
    for count in range(1, 7):
        method.predict_named(images, ["dog"] * count)
    assert len(method._features) == 4


def test_nothing_is_trained_added_or_kept(tmp_path: Path) -> None:
    method = make()
    assert method.optimizer is None
    assert method.passes() == ()
    assert not any(parameter.requires_grad for parameter in method.parameters())
    assert list(method.kept_between_experiences()) == []
    state = checkpoint.snapshot(method)
    assert state["method"] == {}
    again = make()
    again.names = ()
    checkpoint.restore(again, state)
    assert torch.equal(again.predict(image_batch()), method.predict(image_batch()))
    prepared = toys.prepare_toy(build=ClipZeroShot, uses=USES, text=True, family="uda")
    prepared = dataclasses.replace(
        prepared, plan=dataclasses.replace(prepared.plan, method_config=ClipZeroShotConfig())
    )
    record = records.read(engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True))
    assert record["losses"] == [[]]
    assert record["cost"]["params_trainable"] == record["cost"]["params_added"] == 0
    assert record["cost"]["flops_train_step"] is None


# --- templates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    {
        "imagenet-7": 7,
        "imagenet-80": 80,
        "promptsrc-60": 60,
        "caltech101": 34,
        "cars": 8,
        "cifar": 18,
        "country211": 5,
        "describable-textures": 8,
        "eurosat": 3,
        "fgvc-aircraft": 2,
        "gtsrb": 3,
        "kinetics700": 28,
        "mnist": 1,
        "resisc45": 18,
        "sun397": 2,
        "ucf101": 48,
    }.items(),
)
def test_as_many_templates_as_published(name: str, count: int) -> None:
    assert len(expand(name)) == count
    assert ClipZeroShotConfig(templates=name).template_count == count
    assert all("  " not in text and text.strip() == text for text in expand(name))


def test_every_set_is_counted_above() -> None:
    counted = test_as_many_templates_as_published.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert set(dict(counted)) == set(TEMPLATES)


def test_the_eighty_are_the_official_ones_and_hold_the_seven() -> None:
    official = {template("{}") for template in OPENAI_IMAGENET_TEMPLATES}
    assert set(expand("imagenet-80")) == official
    assert set(expand("imagenet-7")) <= official


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{} texture.", ("{} texture.",)),
        ("a photo of a {}, a type of pet.", ("a photo of a {}, a type of pet.",)),
        ("a {} | the {}|a {}", ("a {}", "the {}")),
        ("[a/the ]{}", ("a{}", "the {}")),
        ("[a/the] [/big ]{}", ("a {}", "a big {}", "the {}", "the big {}")),
        ("sun397|a {}", ("a photo of a {}.", "a photo of the {}.", "a {}")),
        ('a photo of the number: "{}".', ('a photo of the number: "{}".',)),
    ],
)
def test_templates_by_option(given: str, expected: tuple[str, ...]) -> None:
    assert expand(given) == expected


@pytest.mark.parametrize("given", ["", "a dog", "imagenet-8", "a {} and {}", "a {}||the {}"])
def test_templates_without_a_place_for_the_name_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"templates: .* must have one \{\}.*imagenet-80"):
        ClipZeroShotConfig(templates=given)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs: 1 passes change nothing"):
        ClipZeroShotConfig(epochs=1)
    with pytest.raises(TypeError, match="trains nothing"):
        make().train_step(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is longer than the 77"):
        make(templates="very " * 80 + "{}")


def test_recipes() -> None:
    spec = bench_register_methods()[0]
    assert spec.control
    counts = {name: ClipZeroShotConfig(**recipe).template_count for name, recipe in spec.recipes.items()}  # type: ignore[arg-type]
    assert counts == {"imagenet-7": 7, "imagenet-80": 80, "cifar": 18, "coop-ensemble": 8, "promptsrc-60": 60}
    assert ClipZeroShotConfig().templates == "a photo of a {}."
