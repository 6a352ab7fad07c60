"""The bundled dual encoder: what it is made of, what it knows by name, and that image-only methods run on it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_backbones import bundled
from bench_scenarios import glyph_world
from benchmark import loading, registry
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.dual import DualEncoder, dual_of
from benchmark.backbones.text import WordTokenizer
from benchmark.cli import main
from benchmark.errors import DataMissing, UsageError
from benchmark.jobs import Job
from benchmark.records import predictions
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, plan, preparation
from benchmark.testing import toys
from benchmark.testing.laboratory import manager

SCRIPTS = ("LATIN ", "GREEK ", "CYRILLIC ")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return loading.load("nano-clip")


@pytest.fixture(scope="module")
def dual(backbone: Backbone) -> DualEncoder:
    return dual_of(backbone)


@pytest.fixture(scope="module")
def compositional() -> list[int]:
    """The evaluation classes whose names are made of words that pre-training used."""
    return [label for label, name in enumerate(glyph_world.class_names()) if name.startswith(SCRIPTS)]


@pytest.fixture(scope="module")
def pictures(dual: DualEncoder, compositional: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Features, places in ``compositional`` and styles of three test pictures per class and style."""
    images, labels, styles = glyph_world.load(compositional, 3, range(4), seed=0, split=1)
    with torch.no_grad():
        features = dual.image_features(images / 127.5 - 1)
    return features, torch.searchsorted(torch.tensor(compositional), labels), styles


def test_it_sees_as_nano_vit_and_adds_at_most_two_million_parameters(backbone: Backbone, dual: DualEncoder) -> None:
    nano = loading.load("nano-vit")
    for name, value in nano.model.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value), name
    assert (backbone.mean, backbone.std, backbone.image_size) == (nano.mean, nano.std, nano.image_size)
    assert loading.image_towers() == {backbone.sha256: ("nano-vit", nano.sha256)}  # one table holds rows on either
    added = sum(parameter.numel() for parameter in dual.parameters()) - nano.parameters
    assert 0 < added <= 2_000_000
    assert not any(parameter.requires_grad for parameter in dual.parameters())


@pytest.mark.parametrize("template", ["a drawing of {}.", "a photo of a {}.", "{}"])
def test_unseen_characters_are_known_by_name(
    template: str, dual: DualEncoder, compositional: list[int], pictures: tuple[Tensor, Tensor, Tensor]
) -> None:
    features, labels, styles = pictures
    names = [glyph_world.class_names()[label] for label in compositional]
    assert len(names) >= 40
    with torch.no_grad():
        right = dual.logits(features, dual.class_features(names, [template])).argmax(dim=1) == labels
    assert right.float().mean() >= 0.5
    for style in range(4):
        assert right[styles == style].float().mean() >= 0.4  # three pictures per class: a coarse figure


def test_styles_are_known_by_name(
    dual: DualEncoder, compositional: list[int], pictures: tuple[Tensor, Tensor, Tensor]
) -> None:
    features, labels, styles = pictures
    names = [glyph_world.class_names()[label] for label in compositional]
    texts = [f"a {style} drawing of {name}." for name in names for style in glyph_world.DOMAINS]
    with torch.no_grad():
        text = dual.text_features(texts).view(len(names), 4, -1)
        similar = torch.einsum("bd,bsd->bs", F.normalize(features, dim=1), F.normalize(text[labels], dim=2))
    assert (similar.argmax(dim=1) == styles).float().mean() >= 0.35  # of chance 0.25: the features hold little of it


def test_words_of_the_compositional_names_and_of_the_styles_are_known(
    dual: DualEncoder, compositional: list[int]
) -> None:
    unknown = 1
    for label in compositional:
        assert unknown not in dual.tokenizer.encode(glyph_world.class_names()[label])
    for text in (*glyph_world.DOMAINS, "a drawing of", "a photo of a", "X X .", ", a ink image.."):
        assert unknown not in dual.tokenizer.encode(text), text
    assert dual.tokenizer.encode("X") == dual.tokenizer.encode("x")
    assert dual.tokenizer.encode("chimpanzee") == [unknown]


def test_no_word_comes_from_evaluation_names_alone(dual: DualEncoder) -> None:
    known = {unicodedata.name(chr(code)).lower() for code in glyph_world.pretraining_code_points()}
    words = {word for name in known for word in WordTokenizer.split(name)}
    only_there = {word for name in glyph_world.class_names() for word in WordTokenizer.split(name) if word not in words}
    assert only_there  # THAI, CADUCEUS, ...
    assert all(dual.tokenizer.encode(word) == [1] for word in only_there)


@pytest.mark.parametrize("shift", [4, 16, 32])
def test_names_are_understood_behind_meaningless_words(
    shift: int, dual: DualEncoder, compositional: list[int], pictures: tuple[Tensor, Tensor, Tensor]
) -> None:
    features, labels, _ = pictures
    names = [glyph_world.class_names()[label] for label in compositional]
    with torch.no_grad():
        text = dual.text_features(["x " * shift + name + "." for name in names])
        right = dual.logits(features, text).argmax(dim=1) == labels
    assert right.float().mean() >= 0.5


def test_another_file_must_keep_its_words(backbone: Backbone, dual: DualEncoder, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(dual.state_dict(), file)
    with pytest.raises(DataMissing, match=r"mine\.safetensors: damaged, or without a vocabulary"):
        loading.load("nano-clip", weights=file)
    safetensors.torch.save_file(dual.state_dict(), file, metadata={"words": "a b"})
    with pytest.raises(DataMissing, match=r"tensor `text\.token_embedding\.weight` has shape"):
        loading.load("nano-clip", weights=file)
    torch.save(dual.state_dict(), tmp_path / "mine.pt")
    with pytest.raises(UsageError, match="no vocabulary"):
        loading.load("nano-clip", weights=tmp_path / "mine.pt")


def test_a_damaged_description_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = json.loads((bundled.WEIGHTS / "nano-clip.json").read_text())
    (tmp_path / "nano-clip.safetensors").write_bytes((bundled.WEIGHTS / "nano-clip.safetensors").read_bytes())
    (tmp_path / "nano-clip.json").write_text(json.dumps({**about, "text": {"wings": 2}}))
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path)
    with pytest.raises(DataMissing, match=r"nano-clip\.json: text: .*wings"):
        loading.load("nano-clip")


def test_another_image_size() -> None:
    backbone = loading.load("nano-clip", image_size=48)
    assert backbone.image_size == 48
    assert dual_of(backbone).image_features(torch.zeros(1, 3, 48, 48)).shape[0] == 1


@pytest.mark.parametrize(
    ("method", "settings"), [("nearest-mean", {}), ("linear-probe", {"epochs": "1"}), ("l2p", {"epochs": "1"})]
)
def test_image_only_methods_run_as_on_nano_vit(method: str, settings: dict[str, str], tmp_path: Path) -> None:
    found = {}
    for name in ("nano-vit", "nano-clip"):
        request = Job(
            scenario="toy",
            method=method,
            backbone=name,
            settings={"scenario.train": "6", "engine.save_logits": "true", **settings},
            device="cpu",
        )
        toy = Loaded(toys.TOY_SCENARIO, Entry("toy", toys.__name__, "adaptbench"), "0" * 64)
        resolved = plan.resolve_specs(request, toy, registry.load_method(method))
        places: dict[str, Any] = {"data_root": None, "cache": tmp_path, "download": "never"}
        scenario, _ = preparation.build_scenario(resolved, places)
        path = engine.execute(preparation.prepare(resolved, scenario), tmp_path, hooks=manager([]), quiet=True)
        found[name] = predictions.read(path.with_suffix(".parquet"))
    one, two = found["nano-vit"].logits, found["nano-clip"].logits
    assert one is not None
    assert two is not None
    assert np.array_equal(one, two)


def test_info_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nano-clip"]) == 0
    out = capsys.readouterr().out
    assert "# nano-clip" in out
    assert "sha256" in out
    assert main(["list", "backbones"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"nano-clip", "open_clip"} <= set(names)
    assert main(["info", "open_clip"]) == 0
    assert "open_clip:MODEL/TAG" in capsys.readouterr().out
