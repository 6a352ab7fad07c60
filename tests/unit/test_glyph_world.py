"""The bundled world: what its images promise."""

from __future__ import annotations

import time
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench_scenarios import glyph_world as world

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "glyphs.npz"


def sample(count: int, *, seed: int = 3, split: int = 0) -> torch.Tensor:
    numbers = np.arange(count)
    return world.render(numbers * 7 % 100, numbers // 3, numbers % 4, seed=seed, split=split)


def test_classes_are_named_and_disjoint_from_pretraining() -> None:
    codes, rest = world.code_points(), world.pretraining_code_points()
    assert len(codes) == len(set(codes)) == len(set(world.class_names())) == 100
    assert codes == sorted(codes)
    assert len(rest) == len(set(rest)) > 3000
    assert not set(codes) & set(rest)
    forms = {unicodedata.normalize("NFKC", chr(code)) for code in codes}
    assert not forms & {unicodedata.normalize("NFKC", chr(code)) for code in rest}


def test_look_alikes_of_a_class_are_not_in_pretraining() -> None:
    """Cyrillic es is a class: what looks like it in some font left pre-training."""
    rest = set(world.pretraining_code_points())
    assert ord("с") in world.code_points()
    assert not rest & {ord("c"), ord("ϲ"), ord("ᴄ"), ord("ⅽ")}


def test_at_least_half_of_the_names_are_made_of_words_of_pretraining() -> None:
    known = {word for code in world.pretraining_code_points() for word in unicodedata.name(chr(code), "").split()}
    alphabets = [name for name in world.class_names() if name.split()[0] in ("LATIN", "GREEK", "CYRILLIC")]
    assert len(alphabets) >= 56
    assert all(known.issuperset(name.split()) for name in alphabets)


def test_domain_classes_are_a_fixed_half() -> None:
    assert world.domain_classes() == list(range(0, 100, 2))


def test_script_classes() -> None:
    assert len(world.script_classes("LATIN", "GREEK", "CYRILLIC")) == 60
    assert [len(world.script_classes(script)) for script in ("LATIN", "GREEK", "CYRILLIC")] == [26, 15, 19]


def test_digits_are_a_set_of_their_own() -> None:
    assert world.class_names(world.DIGITS)[:3] == ["DIGIT ZERO", "DIGIT ONE", "DIGIT TWO"]
    assert world.code_points(world.DIGITS) == list(range(0x30, 0x3A))
    assert set(world.code_points(world.DIGITS)) - set(world.pretraining_code_points()) == {0x32}
    images, labels, domains = world.load(range(10), 2, [0, 3], seed=0, split=0, which=world.DIGITS)
    assert images.shape == (40, 3, 32, 32)
    assert labels.tolist() == [digit for _ in range(2) for digit in range(10) for _ in range(2)]
    assert domains.tolist() == [0] * 20 + [3] * 20
    letters = world.load(range(10), 2, [0, 3], seed=0, split=0)[0]
    assert not torch.equal(images, letters)
    with pytest.raises(ValueError, match=r"classes must be in 0\.\.9"):
        world.render([10], [0], [0], seed=0, split=0, which=world.DIGITS)


@pytest.mark.parametrize("which", [world.LETTERS, world.DIGITS])
def test_shipped_masks_have_three_fonts_or_more_and_an_empty_border(which: str) -> None:
    masks, classes, codes, _ = world._shipped(which)
    assert np.bincount(classes, minlength=len(codes)).min() >= 3
    assert (np.diff(classes) >= 0).all(), "the masks of a class lie together"
    assert not masks[:, :2].any()
    assert not masks[:, -2:].any()
    assert not masks[:, :, :2].any()
    assert not masks[:, :, -2:].any()


def test_a_sample_is_a_pure_function_of_its_arguments() -> None:
    images = sample(256)
    assert images.shape == (256, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images, sample(256))
    assert (images != sample(256, seed=4)).flatten(1).any(1).all()
    assert (images != sample(256, split=1)).flatten(1).any(1).all()
    assert len({image.numpy().tobytes() for image in images}) == 256


def test_a_sample_does_not_depend_on_its_batch_or_the_threads() -> None:
    images = sample(256)
    numbers = np.arange(256)
    alone = [world.render([i * 7 % 100], [i // 3], [i % 4], seed=3, split=0)[0] for i in numbers[::17]]
    assert torch.equal(torch.stack(alone), images[::17])
    backwards = world.render(numbers[::-1] * 7 % 100, numbers[::-1] // 3, numbers[::-1] % 4, seed=3, split=0)
    assert torch.equal(backwards.flip(0), images)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(sample(256), images)
    finally:
        torch.set_num_threads(threads)


def test_images_equal_those_of_the_machine_they_were_made_on() -> None:
    """Integer arithmetic only: equal, not nearly equal."""
    with np.load(GOLDEN, allow_pickle=False) as golden:
        images = world.render(
            golden["classes"],
            golden["indices"],
            golden["domains"],
            seed=int(golden["seed"]),
            split=int(golden["split"]),
        )
        assert int(golden["version"]) == world.VERSION
        np.testing.assert_array_equal(images.numpy(), golden["images"])


def test_the_first_draws_are_those_of_any_64_bit_machine() -> None:
    keys = world.keys([0, 1], [0, 1], [0, 1], seed=0, split=0)
    draws = world._Draws(keys).between(-60, 60)
    assert keys.tolist() == KEYS
    assert draws.tolist() == DRAWS


KEYS = [13500104390725988082, 14551633281877140005]
DRAWS = [-57, 43]


def test_draws_stay_in_bounds_and_fill_them() -> None:
    draws = world._Draws(
        world.keys(np.zeros(4000, np.int64), np.arange(4000), np.zeros(4000, np.int64), seed=0, split=0)
    )
    values = draws.between(-3, 3)
    assert np.bincount(values + 3).min() > 450
    assert set(values.tolist()) == set(range(-3, 4))
    assert abs(np.corrcoef(values, draws.between(-3, 3))[0, 1]) < 0.05, "two draws of a sample are unrelated"


def test_domains_look_different() -> None:
    images = {
        name: world.render(np.arange(200) % 100, np.arange(200), np.full(200, domain), seed=0, split=0).float()
        for domain, name in enumerate(world.DOMAINS)
    }
    level = {name: float(part.mean()) for name, part in images.items()}
    colour = {name: float((part.amax(1) - part.amin(1)).mean()) for name, part in images.items()}
    assert level["ink"] > 170
    assert level["chalk"] < 90
    assert 100 < level["outline"] < 180
    assert colour["photo"] > 2 * max(colour["ink"], colour["outline"])


def test_a_stroke_differs_from_its_background() -> None:
    """The pixels of the glyph differ from those of the border by far more than the noise, in every domain."""
    masks = world.with_contours(np.pad(np.full((1, 20, 20), 255, np.uint8), ((0, 0), (14, 14), (14, 14))))
    for domain in (0, 1, 3):
        keys = world.keys(np.zeros(300, np.int64), np.arange(300), np.full(300, domain), seed=0, split=0)
        images = (
            world.render_masks(masks, np.zeros(300, np.int64), np.full(300, domain), keys).astype(np.float64).mean(1)
        )
        difference = np.abs(images[:, 15:17, 15:17].mean((1, 2)) - images[:, :, :2].mean((1, 2)))
        assert np.quantile(difference, 0.05) > 30, world.DOMAINS[domain]


def test_load_is_balanced_and_sorted() -> None:
    images, labels, domains = world.load([5, 2], 3, [1, 3], seed=0, split=1)
    assert labels.tolist() == [5, 5, 5, 2, 2, 2] * 2
    assert domains.tolist() == [1] * 6 + [3] * 6
    assert torch.equal(images[7], world.render([5], [1], [3], seed=0, split=1)[0])
    many = world.load(range(100), 2, [0], seed=0, split=0)[1]
    assert torch.bincount(many).tolist() == [2] * 100


def test_cache_gives_the_same_and_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = world.load([1, 2], 4, [0], seed=0, split=0)[0]
    assert torch.equal(world.load([1, 2], 4, [0], seed=0, split=0, cache=tmp_path)[0], fresh)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["arrays.json", "images.npy"]
    monkeypatch.setattr(world, "render", None)
    assert torch.equal(world.load([1, 2], 4, [0], seed=0, split=0, cache=tmp_path)[0], fresh)
    with pytest.raises(TypeError):  # another data set has another file
        world.load([1, 2], 4, [0], seed=1, split=0, cache=tmp_path)


def test_an_unwritable_cache_warns_once_and_does_not_fail(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.warns(UserWarning, match="not cached"):
        images = world.load([1], 2, [0], seed=0, split=0, cache=blocked)[0]
    assert len(images) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world.load([1], 3, [0], seed=0, split=0, cache=blocked)


@pytest.mark.parametrize(("classes", "domains"), [([100], [0]), ([-1], [0]), ([0], [4])])
def test_unknown_classes_and_domains_are_refused(classes: list[int], domains: list[int]) -> None:
    with pytest.raises(ValueError, match="classes must be in"):
        world.render(classes, [0], domains, seed=0, split=0)


@pytest.mark.perf
def test_rendering_is_fast() -> None:
    """Two thousand images per second and more; counted on one core."""
    sample(256)
    began = time.perf_counter()
    sample(2048)
    assert 2048 / (time.perf_counter() - began) > 2000
