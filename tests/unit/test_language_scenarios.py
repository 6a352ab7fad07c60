"""Scenarios of the bundled language world: what is in which set, what the seed decides, how a model may be asked."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import torch

from bench_scenarios import (
    _language,
    reviews_domains,
    reviews_few_shot,
    reviews_uda,
    split_topics,
)
from bench_scenarios import language_world as world
from benchmark import splits
from benchmark.api import Samples, Scenario, ScenarioRequest
from benchmark.samples import digest_of

MODULES: tuple[Any, ...] = (reviews_domains, split_topics, reviews_uda, reviews_few_shot)
HERE = Path()


def make(module: Any, seed: int = 0, **options: Any) -> Scenario:
    (spec,) = module.bench_register_scenarios()
    request = ScenarioRequest(data_root=None, cache=HERE, seed=seed, download="never")
    built: Scenario = spec.build(spec.config(**options), request)
    return built


def written(samples: Samples) -> list[str]:
    return [text["text"] for text in samples.texts(slice(None))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_building_is_quick_and_no_test_text_is_trained_on(module: Any) -> None:
    started = time.perf_counter()
    scenario = make(module)
    assert time.perf_counter() - started < 1  # 0.05 s; nothing is written before it is read
    assert scenario.content == world.digest()
    shown = {text for part in scenario.experiences for text in written(part.train)}
    shown |= {text for part in scenario.experiences if part.target is not None for text in written(part.target)}
    tested = {text for part in scenario.experiences for text in written(part.test)}
    assert shown
    assert tested
    assert not shown & tested


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_its_wording_is_in_the_words_of_the_world(module: Any) -> None:
    scenario = make(module)
    wording = scenario.wording
    assert wording is not None
    fields = set(scenario.experiences[0].train.texts(torch.tensor([0]))[0])
    known = set(world.vocabulary())
    assert set(wording.words) == set(scenario.class_names)
    for pattern in wording.patterns:
        pieces = [name for _, name, *_ in Formatter().parse(pattern) if name]
        assert sorted(pieces) == sorted([*fields, "mask"])
        assert set(re.sub(r"\{\w+\}", "", pattern).split()) <= known
        assert not set(pattern.split()) & set(world.DOMAINS)  # nothing tells the domain
    assert {word for words in wording.words.values() for word in words} <= known
    assert len({words[0] for words in wording.words.values()}) == len(scenario.class_names)


def test_a_range_is_written_once_and_not_before_it_is_read() -> None:
    rows: list[int] = []

    def write(row: int) -> str:
        rows.append(row)
        return f"text {row}"

    source = _language.Written("letters", 5, write)
    assert (source.digest, rows) == (digest_of(source), [])
    assert source[torch.tensor([4, 0, 4])] == ({"text": "text 4"}, {"text": "text 0"}, {"text": "text 4"})
    assert source[torch.tensor([-1])] == ({"text": "text 4"},)
    assert rows == [4, 0]
    assert len({_language.Written("letters", count, write).digest for count in (4, 5)} | {source.digest}) == 2
    with pytest.raises(IndexError):
        source[torch.tensor([5])]


def test_reviews_are_those_of_the_world() -> None:
    some = _language.reviews("book", "test", 6, start=3)
    expected = [world.review("book", index, split="test") for index in range(3, 9)]
    assert written(some) == [item.text for item in expected]
    assert some.labels.tolist() == [item.label for item in expected]
    assert len(torch.unique(torch.cat([some.ids, _language.reviews("book", "train", 6, start=3).ids]))) == 12


def test_reviews_domains() -> None:
    scenario = make(reviews_domains, train=10, test=4)
    assert scenario.domains == ("restaurant", "book", "car", "course", "kettle")
    for part in scenario.experiences:
        assert part.train.labels.bincount().tolist() == [5, 5]
        assert written(part.test) == [world.review(str(part.domain), index, split="test").text for index in range(4)]
    assert make(reviews_domains, train=10, test=4, order=("car", "film")).domains == ("car", "film")
    assert make(reviews_domains, seed=1, train=10, test=4).fingerprint == scenario.fingerprint
    with pytest.raises(ValueError, match=r"order: 'car,car' is not possible; use each of film, .* once"):
        reviews_domains.ReviewsDomainsConfig(order=("car", "car"))


def test_split_topics_follows_the_seed() -> None:
    one, two = make(split_topics, train=2, test=1), make(split_topics, seed=1, train=2, test=1)
    assert one.class_order == splits.class_order("seed", 20, seed=0) != two.class_order
    for part in one.experiences:
        assert len(part.classes) == 2
        for label, text in zip(part.train.labels.tolist(), written(part.train), strict=True):
            topic = one.class_names[label]
            assert text in [world.news(world.TOPICS.index(topic) + 20 * row, split="train").text for row in (0, 1)]
    with pytest.raises(ValueError, match="split: '3x7' makes 21 classes"):
        split_topics.SplitTopicsConfig(split="3x7")


@pytest.mark.parametrize("pair", reviews_uda.PAIRS)
def test_reviews_uda(pair: str) -> None:
    source, target = pair.split("-")
    scenario = make(reviews_uda, pair=pair, train=8, unlabelled=6, test=4)
    (part,) = scenario.experiences
    assert (scenario.name, part.source_domains, part.domain) == (f"reviews-uda/{pair}", (source,), target)
    assert (source in world.SOURCE, target in world.TARGET) == (True, True)
    assert written(part.train) == [world.review(source, index, split="train").text for index in range(8)]
    assert part.target is not None
    assert part.target_labels is not None
    assert written(part.target) == [world.review(target, index, split="train").text for index in range(6)]
    assert part.target_labels.tolist() == [0, 1] * 3
    assert written(scenario.tests[0].images) == [world.review(source, index, split="test").text for index in range(4)]


def test_reviews_uda_transductive_and_wrong_pairs() -> None:
    scenario = make(reviews_uda, unlabelled=6, transductive=True)
    (part,) = scenario.experiences
    assert part.target is not None
    assert written(part.target) == written(part.test)
    for pair in ("book", "book-book", "book-boat"):
        with pytest.raises(ValueError, match=f"pair: '{pair}' is not a pair of domains"):
            reviews_uda.ReviewsUdaConfig(pair=pair)


@pytest.mark.parametrize("labels", reviews_few_shot.LABELS)
def test_reviews_few_shot(labels: int) -> None:
    one, two = (make(reviews_few_shot, seed, labels=labels, domain="car", unlabelled=50) for seed in (0, 1))
    (part,), (other,) = one.experiences, two.experiences
    drawn = splits.few_shot([0, 1] * 1000, labels // 2, random.Random(0))
    assert one.name == f"reviews-few-shot/{labels}"
    assert written(part.train) == [world.review("car", index, split="train").text for index in drawn.tolist()]
    assert part.train.labels.bincount().tolist() == [labels // 2] * 2
    assert set(part.train.ids.tolist()) != set(other.train.ids.tolist())
    for name in ("target", "validation", "test"):
        assert getattr(part, name).ids.tolist() == getattr(other, name).ids.tolist()
    sets = [part.train, part.target, part.validation, part.test]
    assert len(set().union(*(one.ids.tolist() for one in sets if one is not None))) == labels + 50 + 100 + 400


def test_reviews_few_shot_refuses() -> None:
    with pytest.raises(ValueError, match=r"labels: 11 is odd; both labels have as many texts, e.g. 12"):
        reviews_few_shot.ReviewsFewShotConfig(labels=11)
    with pytest.raises(ValueError, match="domain: 'boat' is not a domain; use one of film"):
        reviews_few_shot.ReviewsFewShotConfig(domain="boat")
