"""Models that give features alone: timm's other architectures, BatchNorm, image sizes, and who is refused on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
import safetensors.torch
import timm
import torch
from timm.models import is_model

from benchmark import loading, registry
from benchmark.backbones import prompted_vit
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.features import FeatureModel, NoTokens
from benchmark.cli import main
from benchmark.errors import EXIT_USAGE, DataMissing, UsageError
from benchmark.jobs import Job
from benchmark.leaderboard import published
from benchmark.run import checkpoint, preparation
from benchmark.run.options import EngineConfig
from benchmark.run.plan import resolve
from benchmark.testing import toys
from benchmark.testing.backbone_checks import BACKBONE_CHECKS, backbone_subject
from benchmark.testing.subjects import method_subject

HERE = (
    "test_resnet",
    "test_convnext",
    "test_vit2",
    "test_efficientnet",
)  # timm's own for tests, some only in newer ones


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.nn.Module, Path]]:
    """Small models of timm with random weights and their files."""
    folder, made = tmp_path_factory.mktemp("features"), {}
    for name in filter(is_model, HERE):
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(name, num_classes=5).eval()
        safetensors.torch.save_file(model.state_dict(), folder / f"{name}.safetensors")
        made[name] = model, folder / f"{name}.safetensors"
    return made


def load(name: str, path: Path, **options: Any) -> Backbone:
    return cast("Backbone", loading.load(f"timm:{name}", weights=path, **options))


@pytest.mark.parametrize("name", HERE)
def test_any_image_model_of_timm_gives_its_features(name: str, files: dict[str, tuple[torch.nn.Module, Path]]) -> None:
    if name not in files:
        pytest.skip(f"timm {timm.__version__} has no {name}")
    original, path = files[name]
    backbone = load(name, path)
    images = torch.rand(2, 3, 64, 64) if name != "test_vit2" else torch.rand(2, 3, 160, 160)
    wanted = original.forward_head(original.forward_features(images), pre_logits=True)
    assert isinstance(backbone.model, FeatureModel)
    with torch.no_grad():
        found = backbone.features(images)
        assert torch.equal(found, wanted)
        assert torch.equal(prompted_vit.cls_feature(backbone.model, images), wanted)
        if name == "test_resnet":
            assert backbone.classifier is not None
            assert torch.equal(backbone.classifier(found), original(images))
    assert (backbone.width, backbone.image_size) == (wanted.shape[1], 160)
    assert backbone.mean == tuple(original.pretrained_cfg["mean"]) or name == "test_vit2"
    assert backbone.name.startswith(f"custom:{name}-")
    assert not any(part.training for part in backbone.module.modules())


def test_whoever_asks_for_tokens_is_told_why_there_are_none(files: dict[str, tuple[torch.nn.Module, Path]]) -> None:
    model = toys.tiny_resnet().model
    assert not hasattr(model, "blocks")
    for ask in (
        lambda: model.blocks,
        lambda: toys.tiny_resnet().patch_size,
        lambda: toys.tiny_resnet().depth,
        lambda: prompted_vit.patch_tokens(model, torch.zeros(1, 3, 32, 32)),
    ):
        with pytest.raises(NoTokens, match="needs a vision transformer's tokens; tiny-resnet has none"):
            ask()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = model.nonsense
    with pytest.raises(NoTokens, match="test_vit2 has no class token"):
        _ = load("test_vit2", files["test_vit2"][1]).depth


@pytest.mark.parametrize("check", ["frozen", "repeat", "surroundings", "batch", "size"])
def test_a_model_of_features_keeps_the_contract(check: str, files: dict[str, tuple[torch.nn.Module, Path]]) -> None:
    name = next(name for name in HERE if name in files)
    BACKBONE_CHECKS[check](backbone_subject(f"timm:{name}", files[name][1]))


def test_a_missing_count_of_batches_is_no_missing_tensor(
    files: dict[str, tuple[torch.nn.Module, Path]], tmp_path: Path
) -> None:
    model, path = files.get("test_resnet", (None, None))
    if model is None or path is None:
        pytest.skip("timm has no test_resnet yet")
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    safetensors.torch.save_file(
        {f"module.encoder.{name}": v for name, v in state.items()}, tmp_path / "old.safetensors"
    )
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            load("test_resnet", tmp_path / "old.safetensors").features(images),
            load("test_resnet", path).features(images),
        )
    del state["bn1.running_var"]
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(DataMissing, match=r"tensor `bn1\.running_var` is missing"):
        load("test_resnet", tmp_path / "odd.safetensors")


# --- BatchNorm -------------------------------------------------------------------------------------------------------


def test_a_training_batch_of_one_uses_running_statistics_and_leaves_them() -> None:
    model, images = toys.tiny_resnet().model, torch.rand(4, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        alone = model(images[:1])
        model.train()
        assert torch.equal(model(images[:1]), alone)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert model.net.stem[1].training
        assert not torch.equal(model(images)[:1], alone)
    assert not torch.equal(model.state_dict()["net.stem.1.running_mean"], before["net.stem.1.running_mean"])


@pytest.mark.parametrize(("method", "kept"), [("finetune", 3), ("linear-probe", 0)])
def test_statistics_are_in_the_checkpoint_where_the_network_trains(method: str, kept: int) -> None:
    subject = method_subject(method)
    subject.model = toys.tiny_resnet
    prepared = subject.prepare(subject.brief())
    made = subject.spec.build(prepared.plan.method_config, prepared.context).train()
    state = checkpoint.snapshot(made)["backbone"]
    assert sum(name.endswith("running_var") for name in state) == kept
    assert made.context.pretrained.module.training == (kept > 0)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    checkpoint.restore(made, {**checkpoint.snapshot(made), "backbone": zeros})
    found = made.context.pretrained.module.state_dict()
    assert all(not found[name].any() for name in state)


# --- Image size ------------------------------------------------------------------------------------------------------


def test_an_image_size_that_does_not_fit_the_patch_is_refused(
    files: dict[str, tuple[torch.nn.Module, Path]],
) -> None:
    with pytest.raises(UsageError, match=r"engine.image_size=50: nano-vit reads patches of \d+ px") as caught:
        loading.load("nano-vit", image_size=50)
    assert "use e.g. 48 or" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"engine.image_size=100: timm:test_vit2 reads patches of 16 px"):
        load("test_vit2", files["test_vit2"][1], image_size=100)
    if "test_convnext" in files:
        assert load("test_convnext", files["test_convnext"][1], image_size=64).image_size == 64
        with pytest.raises(UsageError, match=r"engine.image_size=8: timm:test_convnext takes no images of 8 px"):
            load("test_convnext", files["test_convnext"][1], image_size=8)


def test_positions_of_a_vit_without_a_class_token_are_resampled_as_timm_does(
    files: dict[str, tuple[torch.nn.Module, Path]],
) -> None:
    original, path = files["test_vit2"]
    other = timm.create_model("test_vit2", img_size=64, num_classes=0).eval()
    other.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(original.state_dict(), other), strict=False
    )
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load("test_vit2", path, image_size=64).features(images), other(images))


def test_the_image_size_is_in_the_identity_only_where_it_was_given() -> None:
    job = Job(scenario="split-glyphs", method="nearest-mean")
    plain, sized = resolve(job), resolve(replace(job, settings={"engine.image_size": "48"}))
    assert "image_size" not in plain.effective()["engine"]
    assert sized.effective()["engine"]["image_size"] == 48
    assert sized.given["engine.image_size"] == 48
    assert EngineConfig().image_size is None
    with pytest.raises(UsageError, match="image_size"):
        resolve(replace(job, settings={"engine.image_size": "0"}))


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        ("l2p", "timm:resnet50.a1_in1k"),
        ("vpt-deep", "timm:swin_tiny_patch4_window7_224.ms_in1k"),
        ("ranpac", "timm:convnext_atto.d2_in1k"),
    ],
)
def test_a_method_on_tokens_is_refused_before_anything_is_loaded(
    method: str, backbone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("data or weights were loaded")

    monkeypatch.setattr(preparation, "build_scenario", never)
    monkeypatch.setattr(loading, "load", never)
    words = ["run", "--scenario", "split-glyphs", "--method", method, "--backbone", backbone]
    assert main(words) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"method `{method}` needs a vision transformer's tokens; {backbone} has none" in said
    assert "linear-probe" in said


@pytest.mark.parametrize(
    "backbone", ["timm:vit_tiny_patch16_224.augreg_in21k", "nano-vit", "open_clip:ViT-B-32/openai"]
)
def test_a_plain_vit_is_refused_nowhere(backbone: str) -> None:
    assert loading.tokenless(backbone) is None


def test_clips_resnets_have_no_tokens() -> None:
    assert loading.tokenless("open_clip:RN50/openai") == "has none"


def test_what_methods_say_of_tokens_depends_on_their_options() -> None:
    spec = registry.load_method("ranpac").spec
    assert spec.tokens_of(SimpleNamespace(adaptation="adapter"))
    assert not spec.tokens_of(SimpleNamespace(adaptation="none"))
    spec = registry.load_method("finetune").spec
    assert [spec.tokens_of(SimpleNamespace(dropout=rate)) for rate in (0.0, 0.1)] == [False, True]
    assert not registry.load_method("nearest-mean").spec.tokens_of(None)


def test_checkpoints_behind_published_figures_are_known_to_their_libraries() -> None:
    import open_clip

    names = set(published.CHECKPOINTS.values())
    for name in names:
        library, _, tag = name.partition(":")
        if library == "timm":
            assert timm.list_pretrained(tag), name
        else:
            assert tuple(tag.split("/")) in open_clip.list_pretrained(), name
    figures = published._read(published.FIGURES)
    assert {row["backbone"] for row in figures} >= published.CHECKPOINTS.keys()
    attempted = [row for row in figures if "ResNet" in row["backbone"] or "RN" in row["backbone"]]
    assert sum(published.checkpoint(row["backbone"]) is not None for row in attempted) > 400
