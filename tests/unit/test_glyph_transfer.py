"""The glyph scenarios that transfer: what is in which set, and what the seed decides."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_scenarios import (
    _glyphs,
    _shots,
    glyph_world,
    glyphs_base_to_new,
    glyphs_cross_dataset,
    glyphs_dg,
    glyphs_few_shot,
    glyphs_uda,
)
from benchmark import splits
from benchmark.api import ImageSet, Scenario, ScenarioRequest

SMALL: dict[str, Any] = {"train": 2, "test": 1}


def request_in(folder: Path, seed: int = 0) -> ScenarioRequest:
    return ScenarioRequest(data_root=None, cache=folder, seed=seed, download="never")


def styles(images: ImageSet) -> set[int]:
    return set((images.ids // 1_000_000 % 4).tolist())


def world_splits(images: ImageSet) -> set[int]:
    return set((images.ids // 4_000_000).tolist())


def characters(images: ImageSet) -> list[int]:
    return (images.ids // 10_000 % 100).tolist()


def test_pairs_are_all_ordered_pairs() -> None:
    assert len(_glyphs.PAIRS) == len(set(_glyphs.PAIRS)) == 12
    assert _glyphs.PAIRS[:3] == ("ink-chalk", "ink-outline", "ink-photo")
    assert glyphs_uda.bench_register_scenarios()[0].variants == _glyphs.PAIRS
    with pytest.raises(ValueError, match="pair: 'ink-ink' is not possible; use SOURCE-TARGET"):
        glyphs_uda.GlyphsUdaConfig(pair="ink-ink")


@pytest.mark.parametrize("pair", ["ink-photo", "chalk-outline"])
def test_uda(tmp_path: Path, pair: str) -> None:
    scenario = glyphs_uda.build(glyphs_uda.GlyphsUdaConfig(pair=pair, **SMALL), request_in(tmp_path))
    (part,) = scenario.experiences
    source, target = (glyph_world.DOMAINS.index(style) for style in pair.split("-"))
    assert (scenario.name, scenario.family, scenario.num_classes) == (f"glyphs-uda/{pair}", "uda", 60)
    assert (part.source_domains, part.domain) == ((pair.split("-")[0],), pair.split("-")[1])
    assert part.target is not None
    assert part.target_labels is not None
    rest = scenario.tests[0].images
    assert (styles(part.train), styles(part.target), styles(part.test), styles(rest)) == (
        {source},
        {target},
        {target},
        {source},
    )
    assert (world_splits(part.train), world_splits(part.target), world_splits(part.test)) == ({0}, {0}, {1})
    assert (len(part.train), len(part.target), len(part.test), len(rest)) == (120, 120, 60, 60)
    assert (part.target.labels == -1).all()
    chosen = glyph_world.script_classes("LATIN", "GREEK", "CYRILLIC")
    assert [chosen[label] for label in part.target_labels.tolist()] == characters(part.target)
    assert [chosen[label] for label in part.test.labels.tolist()] == characters(part.test)
    assert scenario.class_names[part.test.labels[0]] == glyph_world.class_names()[characters(part.test)[0]]


def test_several_source_styles_are_told_apart(tmp_path: Path) -> None:
    config = glyphs_uda.GlyphsUdaConfig(pair="rest-chalk", **SMALL)
    scenario = glyphs_uda.build(config, request_in(tmp_path))
    (part,) = scenario.experiences
    assert part.source_domains == ("ink", "outline", "photo")
    assert part.train.domains is not None
    assert part.train.domains.bincount().tolist() == [120] * 3
    for place, style in enumerate(part.source_domains):
        of_style = part.train.subset((part.train.domains == place).nonzero().flatten())
        assert styles(of_style) == {glyph_world.DOMAINS.index(style)}
    rest = scenario.tests[0].images
    assert (rest.domains, len(rest)) == (None, 180)
    assert scenario.partition == "several sources"  # a table of its own


def test_transductive_uda(tmp_path: Path) -> None:
    config = glyphs_uda.GlyphsUdaConfig(transductive=True, characters="half", **SMALL)
    scenario = glyphs_uda.build(config, request_in(tmp_path))
    (part,) = scenario.experiences
    assert scenario.transductive
    assert scenario.num_classes == 50
    assert part.target is not None
    assert part.target_labels is None
    assert part.target.ids.tolist() == part.test.ids.tolist()


@pytest.mark.parametrize("held_out", glyph_world.DOMAINS)
def test_dg(tmp_path: Path, held_out: str) -> None:
    scenario = glyphs_dg.build(glyphs_dg.GlyphsDgConfig(held_out=held_out, **SMALL), request_in(tmp_path))
    (part,) = scenario.experiences
    away = glyph_world.DOMAINS.index(held_out)
    assert styles(part.test) == {away}
    assert styles(part.train) == styles(scenario.tests[0].images) == {0, 1, 2, 3} - {away}
    assert held_out not in part.source_domains
    assert part.target is None
    assert part.train.domains is not None
    for domain, style in zip(part.train.domains.tolist(), (part.train.ids // 1_000_000 % 4).tolist(), strict=True):
        assert part.source_domains[domain] == glyph_world.DOMAINS[style]


# --- few-shot -----------------------------------------------------------------------------------


def reference(labels: list[int], validation: list[int], shots: int, seed: int) -> tuple[list[int], list[int]]:
    """The rule as CoOp has it, on Python's global generator."""
    state = random.getstate()
    random.seed(seed)
    found = []
    for given, count in ((labels, shots), (validation, min(shots, 4))):
        groups: dict[int, list[int]] = {}
        for place, label in enumerate(given):
            groups.setdefault(label, []).append(place)
        chosen: list[int] = []
        for items in groups.values():
            chosen.extend(random.sample(items, count) if len(items) >= count else items)
        found.append(chosen)
    random.setstate(state)
    return found[0], found[1]


@pytest.mark.parametrize("shots", _shots.SHOTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_published_sampling_rule(shots: int, seed: int) -> None:
    generator = np.random.RandomState(seed)
    labels, validation = generator.randint(0, 7, 130).tolist(), generator.randint(0, 7, 30).tolist()
    expected = reference(labels, validation, shots, seed)
    own = random.Random(seed)
    found = splits.few_shot(labels, shots, own).tolist()
    held = splits.few_shot(validation, min(shots, 4), own).tolist()
    assert (found, held) == expected
    assert len(set(found)) == len(found)
    assert found[0] in [place for place, label in enumerate(labels) if label == labels[0]]  # first seen, first drawn


def test_few_shot_does_not_touch_the_global_generator() -> None:
    before = random.getstate()
    splits.few_shot([0, 1, 0, 1], 1, random.Random(0))
    assert random.getstate() == before


def test_classes_with_too_few_images_keep_all() -> None:
    assert sorted(splits.few_shot([0, 1, 1, 1, 1], 3, random.Random(0)).tolist())[0] == 0


@pytest.mark.parametrize("shots", [1, 5])
def test_few_shot(tmp_path: Path, shots: int) -> None:
    def make(seed: int) -> Scenario:
        return glyphs_few_shot.build(
            glyphs_few_shot.GlyphsFewShotConfig(shots=shots, **SMALL), request_in(tmp_path, seed)
        )

    one, two = make(1).experiences[0], make(2).experiences[0]
    assert one.train.labels.bincount().tolist() == [shots] * 60
    assert one.validation is not None
    assert one.validation.labels.bincount().tolist() == [min(shots, 4)] * 60
    assert (world_splits(one.train), world_splits(one.validation), world_splits(one.test)) == ({0}, {2}, {1})
    assert one.train.ids.tolist() != two.train.ids.tolist()
    assert one.test.ids.tolist() == two.test.ids.tolist()
    assert make(1).fingerprint == make(1).fingerprint != make(2).fingerprint
    pool = _glyphs.draw(_glyphs.choose("alphabets"), _glyphs.STYLES, 2, 0, tmp_path)
    spare = _glyphs.draw(_glyphs.choose("alphabets"), _glyphs.STYLES, 2, 2, tmp_path)
    rows, held = reference(pool.labels.tolist(), spare.labels.tolist(), shots, 1)
    assert one.train.ids.tolist() == pool.ids[rows].tolist()
    assert one.validation.ids.tolist() == spare.ids[held].tolist()


def test_more_shots_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shots: 9 is out of range; use 1\.\.8"):
        glyphs_few_shot.GlyphsFewShotConfig(shots=9, **SMALL)


def test_base_to_new(tmp_path: Path) -> None:
    config = glyphs_base_to_new.GlyphsBaseToNewConfig(shots=3, **SMALL)
    scenario = glyphs_base_to_new.build(config, request_in(tmp_path, 1))
    (part,), (new,) = scenario.experiences, scenario.tests
    assert part.classes == tuple(range(30))
    assert new.classes == tuple(range(30, 60))
    assert part.train.labels.bincount().tolist() == [3] * 30
    assert set(part.test.labels.tolist()) == set(range(30))
    assert set(new.images.labels.tolist()) == set(range(30, 60))
    assert not set(scenario.class_names[:30]) & set(scenario.class_names[30:])
    # Cut after sampling: the same images as in the few-shot scenario of the same seed.
    whole = glyphs_few_shot.build(glyphs_few_shot.GlyphsFewShotConfig(shots=3, **SMALL), request_in(tmp_path, 1))
    drawn = whole.experiences[0].train
    assert part.train.ids.tolist() == drawn.ids[drawn.labels < 30].tolist()
    assert scenario.seen_classes(0) == part.classes


@pytest.mark.parametrize("script", ["latin", "greek"])
def test_cross_dataset(tmp_path: Path, script: Any) -> None:
    config = glyphs_cross_dataset.GlyphsCrossDatasetConfig(script=script, shots=2, **SMALL)
    scenario = glyphs_cross_dataset.build(config, request_in(tmp_path))
    sizes = {"latin": 26, "greek": 15, "cyrillic": 19}
    (part,) = scenario.experiences
    assert len(part.classes) == sizes[script]
    assert [test.name for test in scenario.tests] == [name for name in sizes if name != script]
    for name, classes, images in (
        (script, part.classes, part.train),
        (script, part.classes, part.test),
        *((test.name, test.classes or (), test.images) for test in scenario.tests),
    ):
        assert len(classes) == sizes[name]
        assert all(scenario.class_names[label].startswith(name.upper()) for label in classes)
        assert set(images.labels.tolist()) == set(classes)
        own = glyph_world.class_names()
        for label, character in zip(images.labels.tolist(), characters(images), strict=True):
            assert scenario.class_names[label] == own[character]


# --- splits -------------------------------------------------------------------------------------


def test_train_test_is_the_rule_for_sets_without_a_test_split() -> None:
    labels = torch.tensor([1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0])
    train, test = splits.train_test(labels, seed=3)
    generator = np.random.RandomState(3)
    expected = []
    for label, count in ((0, 6), (1, 5)):
        places = np.flatnonzero(labels.numpy() == label)
        expected += places[generator.permutation(count)][: -(-4 * count // 5)].tolist()
    assert train.tolist() == sorted(expected)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(11))
    assert len(train) == 5 + 4  # ceil(0.8 * 6) and ceil(0.8 * 5): no rounding up of 4.000000000000001
    with pytest.raises(ValueError, match="share: 1 is out of range"):
        splits.train_test(labels, 1)
