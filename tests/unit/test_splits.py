from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.api import ImageSet
from benchmark.samples import Samples
from benchmark.scenario import content_of, fingerprint
from benchmark.splits import class_incremental, class_order, holdout, sizes

# (rule, C, first entries, first 16 hex digits of the SHA-256 of the comma-joined order): the
# test vectors of the scenario specification, section 0.3.
VECTORS = [
    ("natural", 100, "0,1,2", "3aab9a67460ed56a"),
    ("numpy:1993", 10, "4,2,7,6,0,3,5,8,9,1", "2670e10e311e0f2b"),
    ("numpy:1993", 100, "68,56,78,8,23,84,90,65,74,76,40,89", "997a048a5344d216"),
    ("numpy:1993", 200, "168,136,51,9,183,101,171,99,42,159,191,70", "1d364b99a5915405"),
    ("numpy:1993", 300, "169,221,146,296,92,229,49,70,126,77,243,57", "18613efa7667417c"),
    ("numpy:0", 10, "2,8,4,9,1,6,7,3,0,5", "1035ae681e2372ce"),
    ("numpy:0", 100, "26,86,2,55,75,93,16,73,54,95,53,92", "0b019832a2a97cf6"),
    ("python:1", 100, "53,37,65,51,4,20,38,9,10,81,44,36", "3479baf223fb2dde"),
    ("python:2", 100, "0,76,61,63,1,71,2,6,16,19,13,24", "caaf5db8ee5050cd"),
]


def digest(order: tuple[int, ...]) -> str:
    return hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("rule", "count", "first", "expected"), VECTORS)
def test_class_orders_equal_the_published_vectors(rule: str, count: int, first: str, expected: str) -> None:
    order = class_order(rule, count)
    assert ",".join(map(str, order)).startswith(first)
    assert digest(order) == expected
    assert class_order(",".join(map(str, order)), count) == order


@pytest.mark.parametrize(
    ("count", "first", "expected"),
    [(100, "69,23,57,12,89,87,34,84,3,15,47,74", "cb02b2567bfc2bdb"), (200, "27,39,33,65,32,140", "a6f653b7feb24f25")],
)
def test_a_mammoth_order_is_imported_as_the_inverse(count: int, first: str, expected: str) -> None:
    order = tuple(int(i) for i in np.argsort(class_order("numpy:1993", count)))
    assert ",".join(map(str, order)).startswith(first)
    assert digest(order) == expected


def test_first_task_of_pilot_on_cifar100() -> None:
    assert sorted(class_order("numpy:1993", 100)[:10]) == [8, 23, 56, 65, 68, 74, 76, 78, 84, 90]


def test_the_rule_seed_follows_the_run() -> None:
    assert class_order("seed", 10, seed=0) == class_order("numpy:0", 10)
    assert class_order("seed", 10, seed=1) != class_order("seed", 10, seed=0)
    assert class_order("natural", 10, seed=1) == tuple(range(10))


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("numpy:", "no seed"),
        ("numpy:-1", "no seed"),
        ("python:x", "no seed"),
        (f"numpy:{2**32}", "no seed"),
        ("torch:1", "not a class order"),
        ("", "not a class order"),
        ("0,1,1", "exactly once"),
        ("0,1", "exactly once"),
        ("0,1,3", "exactly once"),
    ],
)
def test_wrong_class_orders_are_refused(rule: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        class_order(rule, 3)


@pytest.mark.parametrize(
    ("split", "count", "expected"),
    [
        ("10x10", 100, (10,) * 10),
        ("5x2", 10, (2,) * 5),
        ("b50-inc10", 100, (50, 10, 10, 10, 10, 10)),
        ("b0-inc10", 100, (10,) * 10),
        ("b50-inc15", 100, (50, 15, 15, 15, 5)),
        ("b100-inc10", 100, (100,)),
        ("20,20,10", 50, (20, 20, 10)),
        ("50", 50, (50,)),
    ],
)
def test_sizes(split: str, count: int, expected: tuple[int, ...]) -> None:
    assert sizes(split, count) == expected


@pytest.mark.parametrize(
    ("split", "what"),
    [
        ("3x30", "90 classes, but there are 100"),
        ("999999999999x1", "but there are 100"),
        ("20,20,10", "adds up to 50 classes, but there are 100"),
        ("100,0", "without classes"),
        ("b101-inc10", "does not fit"),
        ("b50-inc0", "does not fit"),
        ("0x10", "but there are 100"),
        ("ten", "not a split"),
        ("10x", "not a split"),
        ("10,,10", "not a split"),
    ],
)
def test_splits_that_do_not_add_up_are_refused(split: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        sizes(split, 100)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_increments_always_cover_all_classes(first: int, each: int, count: int) -> None:
    if first > count or each > count:
        return
    result = sizes(f"b{first}-inc{each}", count)
    assert sum(result) == count
    assert result[0] == (first or each)
    assert all(size == each for size in result[1:-1])
    assert 1 <= result[-1] <= max(each, first)


def stream(order: tuple[int, ...], split: tuple[int, ...]) -> tuple[ImageSet, ImageSet]:
    labels = torch.arange(len(order)).repeat(4)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    every = torch.arange(len(labels))
    return ImageSet(images, every, labels), ImageSet(images, every[: len(order)], labels[: len(order)])


@given(st.integers(0, 99), st.sampled_from(["2x5", "b4-inc3", "1,2,7"]))
def test_experiences_are_disjoint_and_cover_all(seed: int, rule: str) -> None:
    order, split = class_order(f"numpy:{seed}", 10), sizes(rule, 10)
    train, test = stream(order, split)
    experiences = class_incremental(train, test, order, split)
    assert [len(experience.classes) for experience in experiences] == list(split)
    assert [label for experience in experiences for label in experience.classes] == list(range(10))
    for part, whole in (("train", train), ("test", test)):
        sets = [getattr(experience, part) for experience in experiences]
        assert sorted(torch.cat([images.ids for images in sets]).tolist()) == whole.ids.tolist()
        for experience, images in zip(experiences, sets, strict=True):
            assert set(images.labels.tolist()) == set(experience.classes)
            assert images.ids.tolist() == sorted(images.ids.tolist())
            # Label p is the original class at position p, and the pixels came along.
            original = [order[label] for label in images.labels.tolist()]
            assert original == (images.ids % 10).tolist()
            assert images.images(slice(None))[:, 0, 0, 0].tolist() == images.ids.tolist()


def test_the_fingerprint_knows_order_split_and_subset_but_not_sample_order() -> None:
    def of(rule: str, split: str) -> str:
        order = class_order(rule, 10)
        return fingerprint(class_incremental(*stream(order, ()), order, sizes(split, 10)))

    assert of("natural", "5x2") == of("0,1,2,3,4,5,6,7,8,9", "5x2")
    assert len({of("natural", "5x2"), of("natural", "2x5"), of("numpy:0", "5x2"), of("numpy:1", "5x2")}) == 4
    order = class_order("natural", 10)
    train, test = stream(order, ())
    back = train.subset(torch.arange(len(train)).flip(0))
    plain = fingerprint(class_incremental(train, test, order, (5, 5)))
    assert fingerprint(class_incremental(back, test, order, (5, 5))) == plain
    assert fingerprint(class_incremental(test, train, order, (5, 5))) != plain


def test_the_fingerprint_is_pinned() -> None:
    order = class_order("numpy:0", 10)
    experiences = class_incremental(*stream(order, ()), order, (5, 5))
    content = "c" * 64
    # The hash of the split is that of fingerprints before they knew the content.
    text = f"adaptbench split 2\n7a5ef3904c468aa8ad4034a9888f866ea098c1e77974e454794efadfddcc426e\n{content}"
    assert fingerprint(experiences, (), content) == hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint(experiences) == fingerprint(experiences, (), content_of(experiences)) != text


def test_one_changed_pixel_is_another_content() -> None:
    order = class_order("natural", 10)
    train, test = stream(order, ())
    plain = class_incremental(train, test, order, (5, 5))
    changed = train.images(slice(None)).clone()
    changed[-1, -1, -1, -1] ^= 1
    other = class_incremental(Samples(changed, train.rows, train.labels, train.ids), test, order, (5, 5))
    assert content_of(plain) == content_of(class_incremental(train, test, order, (2, 8)))
    assert content_of(plain) != content_of(other)
    assert fingerprint(plain) != fingerprint(other)


@given(st.lists(st.integers(0, 4), max_size=60), st.sampled_from([0.1, 0.2, 0.29, 0.5]), st.integers(0, 1000))
def test_holdout_takes_its_share_of_each_class(labels: list[int], fraction: float, seed: int) -> None:
    stay, out = holdout(labels, fraction, seed)
    assert sorted([*stay, *out]) == list(range(len(labels)))
    given_labels = np.array(labels, dtype=np.int64)
    for label in set(labels):
        count = labels.count(label)
        assert (given_labels[out] == label).sum() == int(fraction * count + 1e-9)


def test_holdout_follows_the_rule_of_the_specification() -> None:
    labels = np.array([1, 0] * 10)
    generator = np.random.RandomState(8)
    expected = []
    for label in (0, 1):
        positions = np.flatnonzero(labels == label)
        expected += [int(position) for position in positions[generator.permutation(10)][9:]]
    assert holdout(labels, 0.1, 7)[1].tolist() == sorted(expected)
    with pytest.raises(ValueError, match="out of range"):
        holdout(labels, 1.0, 7)


def test_no_global_generator_is_touched() -> None:
    def states() -> list[str]:
        return [repr(random.getstate()), repr(np.random.get_state()), repr(torch.get_rng_state().tolist())]

    before = states()
    class_order("numpy:3", 10)
    class_order("python:3", 10)
    holdout([0, 1, 0, 1], 0.5, 3)
    assert states() == before
