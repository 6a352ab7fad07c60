"""The bundled world of language: what its texts promise."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from bench_scenarios import _language_words as words
from bench_scenarios import language_world as world


@pytest.fixture(scope="module")
def documents() -> list[world.Document]:
    return [world.document(index) for index in range(6000)]


def test_texts_are_a_function_of_split_seed_and_index_alone() -> None:
    ahead = [world.review("book", index, split="test", seed=2).text for index in range(20)]
    assert [world.review("book", index, split="test", seed=2).text for index in reversed(range(20))] == ahead[::-1]
    others = [
        world.review("book", i, split=split, seed=seed).text
        for split, seed in (("train", 2), ("test", 3))
        for i in range(20)
    ]
    assert len(set(ahead) & set(others)) == 0


def test_texts_stay_as_they_are() -> None:
    """A change here is a new version of the world, and the bundled models must be trained again."""
    texts = [world.document(index, style=style).text for style in ("usual", "plain") for index in range(200)]
    reviewed = itertools.product(world.DOMAINS, ("train", "test"), range(20))
    texts += [world.review(domain, index, split=split).text for domain, split, index in reviewed]
    texts += [world.news(index, split="test").text for index in range(100)]
    sheets = [world.sheet(index, split="test", kind=kind) for kind in world.SHEETS for index in range(20)]
    texts += [text for sheet in sheets for text in (sheet.source, *sheet.references)]
    assert world.VERSION == 1
    assert world.review("car", 0, split="test") == world.Labelled(
        "nobody found the seat smooth . the dealer ignored us .", 0
    )
    assert (
        hashlib.sha256("\n".join(texts).encode()).hexdigest()
        == "03ed805071ea98f653c5fa236b6e355a9495676b1268537315ee81ab03b4af70"
    )


def test_plain_documents_deny_nothing() -> None:
    texts = [world.document(index, style="plain").text for index in range(2000)]
    assert not any(piece in text for text in texts for piece in (" was not ", " far from ", "although ", "in the end "))


def test_a_text_of_one_split_is_in_no_other(documents: list[world.Document]) -> None:
    parts = {part for document in documents for part in document.parts}
    assert {world.split_of(part) for part in parts} == {"pretraining"}
    for split in ("train", "test"):
        reviews = {world.review(domain, i, split=split).text for domain in world.DOMAINS for i in range(100)}
        news = {world.news(index, split=split).text for index in range(400)}
        sheets = {world.sheet(i, kind=kind, split=split).combination for kind in world.SHEETS for i in range(100)}
        assert {world.split_of(part) for part in reviews | news | sheets} == {split}
        assert not parts & (reviews | news | sheets)


def test_documents_contain_the_parts_they_name(documents: list[world.Document]) -> None:
    for document in documents:
        texts = [part for part in document.parts if part.split()[0] not in world.SHEETS]
        assert all(text in document.text for text in texts)


def test_the_key_of_a_document_sums_it_up(documents: list[world.Document]) -> None:
    keys = Counter(document.text.split()[document.key] for document in documents if document.key >= 0)
    assert set(keys) == {*words.GOOD, *words.BAD, *world.TOPICS}
    assert keys["good"] > keys["great"] > keys["lovely"]


def test_the_vocabulary_is_that_of_all_texts(documents: list[world.Document]) -> None:
    known, seen = set(world.vocabulary()), {word for document in documents for word in document.text.split()}
    for domain, index in itertools.product(world.DOMAINS, range(100)):
        seen |= set(world.review(domain, index, split="test").text.split())
    for index in range(200):
        sheet = world.sheet(index, split="test")
        seen |= {word for text in (sheet.source, *sheet.references) for word in text.split()}
    assert seen <= known
    assert all(word == word.lower() and (word.isalpha() or len(word) == 1) for word in known)
    assert len(known) < 1000


def test_words_have_one_meaning() -> None:
    own = [word for domain in world.DOMAINS for label in (0, 1) for word in world.adjectives(domain, label)]
    polar = [*own, *words.GOOD, *words.BAD, *words.FLIPPING]
    assert len(polar) == len(set(polar)) == 200 + 12 + 10
    aspects = [aspect for domain in world.DOMAINS for aspect in world.aspects(domain)]
    nouns = [noun for topic in world.TOPICS for noun in world.nouns(topic)]
    assert len(aspects) == len(set(aspects)) == 80
    assert len(nouns) == len(set(nouns)) == 200
    assert not set(nouns) & {*aspects, *world.TOPICS, *polar}


def test_domains_disagree() -> None:
    assert all(len(world.flipping(domain, label)) == 5 for domain in world.DOMAINS for label in (0, 1))
    assert all(len(praised.split()) == 5 for praised in words.FLIPPING.values())
    disagree = [
        len(set(world.flipping(a, 1)) & set(world.flipping(b, 0))) * 2
        for a, b in itertools.combinations(world.TARGET, 2)
    ]
    assert min(disagree) >= 4
    assert np.mean(disagree) == 6


def test_opaque_words_are_only_in_questions(documents: list[world.Document]) -> None:
    for domain in world.TARGET:
        hidden = set(world.opaque(domain))
        assert len(hidden) == 4
        told = [document for document in documents if hidden & set(document.text.split())]
        assert told
        assert all(document.parts == () for document in told)
        assert any(hidden & set(world.review(domain, index, split="test").text.split()) for index in range(50))


def test_target_domains_have_no_summary(documents: list[world.Document]) -> None:
    for document in documents:
        if document.key >= 0:
            assert not set(document.text.split()) & {
                aspect for domain in world.TARGET for aspect in world.aspects(domain)
            }


def test_labels_are_balanced() -> None:
    assert Counter(world.review("kettle", index, split="train").label for index in range(100)) == {0: 50, 1: 50}
    assert set(Counter(world.news(index, split="train").label for index in range(100)).values()) == {5}


def test_references_say_each_slot() -> None:
    for index in range(100):
        sheet = world.sheet(index, split="test")
        assert 1 <= len(sheet.references) <= 3
        for text in sheet.references:
            assert all(
                sheet.slots[slot] in text.split()
                for slot in ("name", "kind", "food", "rating", "area", "near")
                if slot in sheet.slots
            )


def bag(texts: list[world.Labelled], ids: dict[str, int]) -> np.ndarray:
    counts = np.zeros((len(texts), len(ids)))
    for row, item in enumerate(texts):
        for word in item.text.split():
            counts[row, ids[word]] += 1
    return counts


def test_a_hundred_labels_teach_a_bag_of_words_less_than_pretraining_does() -> None:
    """Naive Bayes, the better of two smoothings, stays below what zero-shot must reach on target domains: 0.60."""
    ids = {word: number for number, word in enumerate(world.vocabulary())}
    tests = [world.review(domain, index, split="test") for domain in world.TARGET for index in range(200)]
    counts, labels = bag(tests, ids), np.array([item.label for item in tests])
    found = []
    for seed in range(3):
        shown = [world.review(domain, i, split="train", seed=seed) for domain in world.TARGET for i in range(20)]
        given, truth = bag(shown, ids), np.array([item.label for item in shown])
        for smoothing in (0.3, 1.0):
            rates = [np.log(given[truth == label].sum(0) + smoothing) for label in (0, 1)]
            rates = [rate - np.log(np.exp(rate).sum()) for rate in rates]
            found.append(((counts @ (rates[1] - rates[0]) > 0) == labels).mean())
    assert max(np.mean(found[0::2]), np.mean(found[1::2])) < 0.60


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: world.review("book", 0, split="dev"), "unknown split `dev`: one of pretraining, train, test"),
        (
            lambda: world.sheet(0, split="test", kind="zoo"),
            "unknown kind of sheet `zoo`: one of place, museum, inn, shop",
        ),
        (lambda: world.document(0, style="odd"), "unknown style `odd`: one of plain, usual, dense"),
        (lambda: world.news(-1, split="test"), "count from 0"),
    ],
)
def test_wrong_requests_say_what_is_allowed(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
