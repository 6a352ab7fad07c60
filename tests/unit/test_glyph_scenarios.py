from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_scenarios import glyph_domains, glyph_world, split_glyphs
from bench_scenarios.glyph_domains import GlyphDomainsConfig
from bench_scenarios.split_glyphs import SplitGlyphsConfig
from benchmark.api import ImageSet, Scenario, ScenarioRequest
from benchmark.config import Layer, resolve
from benchmark.errors import UsageError


def request_in(folder: Path, seed: int = 0) -> ScenarioRequest:
    return ScenarioRequest(data_root=None, cache=folder, seed=seed, download="never")


@pytest.fixture
def few(tmp_path: Path) -> Scenario:
    return split_glyphs.build(SplitGlyphsConfig(train=2, test=1, class_order="numpy:1"), request_in(tmp_path))


def parts(scenario: Scenario) -> list[ImageSet]:
    return [images for experience in scenario.experiences for images in (experience.train, experience.test)]


def test_default_sizes() -> None:
    assert (SplitGlyphsConfig().train * 4, SplitGlyphsConfig().test * 4) == (48, 20)
    assert (GlyphDomainsConfig().train, GlyphDomainsConfig().test) == (12, 10)


def test_split_glyphs_has_disjoint_classes_that_cover_all(few: Scenario) -> None:
    assert (few.name, few.family, len(few.experiences), few.image_size) == ("split-glyphs/10x10", "class-il", 10, 32)
    assert [label for experience in few.experiences for label in experience.classes] == list(range(100))
    for experience in few.experiences:
        assert set(experience.train.labels.tolist()) == set(experience.test.labels.tolist()) == set(experience.classes)
        assert (len(experience.train), len(experience.test)) == (10 * 4 * 2, 10 * 4 * 1)


def test_ids_are_unique_and_say_what_the_image_shows(few: Scenario) -> None:
    ids = torch.cat([images.ids for images in parts(few)])
    assert len(ids.unique()) == len(ids) == 100 * 4 * 3
    for images in parts(few):
        index, rest = images.ids % 10_000, images.ids // 10_000
        character, rest = rest % 100, rest // 100
        style, split = rest % 4, rest // 4
        assert [few.class_order[label] for label in images.labels.tolist()] == character.tolist()
        for number in (0, 1):
            chosen = split == number
            shown = glyph_world.render(
                character[chosen].numpy(),
                index[chosen].numpy(),
                style[chosen].numpy(),
                seed=split_glyphs.WORLD_SEED,
                split=number,
            )
            assert torch.equal(images.images(chosen.nonzero().flatten()), shown)


def test_names_follow_the_class_order(few: Scenario) -> None:
    names = glyph_world.class_names()
    assert list(few.class_names) == [names[character] for character in few.class_order]
    assert list(few.class_order) != list(range(100))


def test_glyph_domains_shows_the_same_classes_in_every_style(tmp_path: Path) -> None:
    scenario = glyph_domains.build(GlyphDomainsConfig(train=2, test=1), request_in(tmp_path))
    assert scenario.domains == ("ink", "chalk", "outline", "photo") == glyph_world.DOMAINS
    assert scenario.num_classes == len(scenario.class_names) == 50
    for place, experience in enumerate(scenario.experiences):
        for images in (experience.train, experience.test):
            assert set(images.labels.tolist()) == set(range(50)) == set(experience.classes)
            assert set((images.ids // 1_000_000 % 4).tolist()) == {place}
            characters = images.ids // 10_000 % 100
            assert [scenario.class_order[label] for label in images.labels.tolist()] == characters.tolist()
    ids = torch.cat([images.ids for images in parts(scenario)])
    assert len(ids.unique()) == len(ids)


def test_the_styles_can_come_in_another_order(tmp_path: Path) -> None:
    plain = glyph_domains.build(GlyphDomainsConfig(train=1, test=1), request_in(tmp_path))
    turned = glyph_domains.build(GlyphDomainsConfig(order=("photo", "ink"), train=1, test=1), request_in(tmp_path))
    assert turned.domains == ("photo", "ink")
    first, same = turned.experiences[0].train, plain.experiences[3].train
    assert torch.equal(first.ids, same.ids)
    assert torch.equal(first.images(slice(None)), same.images(slice(None)))


@pytest.mark.parametrize(
    ("module", "config"),
    [
        (split_glyphs, SplitGlyphsConfig(train=1, test=1)),
        (glyph_domains, GlyphDomainsConfig(train=1, test=1)),
        (split_glyphs, SplitGlyphsConfig(train=1, test=1, class_order="seed")),
    ],
)
def test_builds_repeat_and_only_the_class_order_may_follow_the_seed(module: Any, config: Any, tmp_path: Path) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    first, again = (module.build(config, request_in(tmp_path)) for _ in range(2))
    other = module.build(config, request_in(tmp_path, seed=1))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # type: ignore[index]
    assert first.fingerprint == again.fingerprint
    assert (other.fingerprint != first.fingerprint) == (getattr(config, "class_order", "") == "seed")
    # Whatever the order, an id shows the same pixels.
    assert all(
        torch.equal(left.images(left.ids.argsort()), right.images(right.ids.argsort()))
        for left, right in [[ImageSet.concat([e.train for e in s.experiences]) for s in (first, other)]]
    )


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        (SplitGlyphsConfig, "split", "3x30", "scenario.g.split: '3x30' makes 90 classes, but there are 100"),
        (SplitGlyphsConfig, "class_order", "numpy:x", "scenario.g.class_order: 'numpy:x' has no seed"),
        (SplitGlyphsConfig, "train", "0", "scenario.g.train: 0 is out of range"),
        (GlyphDomainsConfig, "order", "ink,ink", "scenario.g.order: 'ink,ink' is not possible"),
        (GlyphDomainsConfig, "order", "ink,neon", "scenario.g.order: 'ink,neon' is not possible"),
        (GlyphDomainsConfig, "test", "-1", "scenario.g.test: -1 is out of range"),
    ],
)
def test_wrong_options_name_the_key(config: type, field: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(config, [Layer("--set", {field: value})], key="scenario.g")
    assert message in caught.value.message


@pytest.mark.parametrize("module", [split_glyphs, glyph_domains])
def test_the_spec_is_what_the_command_line_needs(module: Any) -> None:
    (spec,) = module.bench_register_scenarios()
    assert spec.tracks == {"nano": "glyph32-v2"}
    assert spec.size_mb == 0
    assert dataclasses.is_dataclass(spec.config)
