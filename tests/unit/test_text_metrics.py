"""Scores of generated texts: against sacrebleu and rouge-score, by hand, and what a record stores of them."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest

from benchmark import metrics
from benchmark.families import FAMILIES
from benchmark.metrics import texts
from benchmark.records import predictions
from benchmark.records.predictions import Predictions

FAMILY = FAMILIES["generation"]
WORDS = ["the", "inn", "by", "river", "is", "a", "cheap", "small", "place", "with", "good", "food", "and", "parking"]


def corpus(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Texts with one to three references each, among them an empty text and one that is right."""
    draw = random.Random(seed)
    references = [[" ".join(draw.choices(WORDS, k=9)) for _ in range(draw.randint(1, 3))] for _ in range(count)]
    found = [" ".join(right[0].split()[:6] + draw.choices(WORDS, k=draw.randint(0, 5))) for right in references]
    return ["", references[1][0], *found[2:]], references


def streams(references: list[list[str]]) -> list[list[Any]]:
    return [[right[place] if place < len(right) else None for right in references] for place in range(3)]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    found, references = corpus(40)
    for scorer, score, signature in (
        (BLEU(), texts.bleu(texts.bleu_counts(found, references)), texts.BLEU_SIGNATURE),
        (CHRF(), texts.chrf(found, references), texts.CHRF_SIGNATURE),
    ):
        assert score == pytest.approx(scorer.corpus_score(found, streams(references)).score / 100, abs=1e-12)
        assert str(scorer.get_signature()).rpartition("|version:")[0] == signature


def test_rouge_l_is_that_of_the_best_reference() -> None:
    # The longest common subsequence of 3 words: P = 3/3, R = 3/4, F = 6/7; of the other reference 1/3, 1/2, 2/5.
    found = texts.rouge_l(["a cheap inn", "same words"], [["near the", "a very cheap inn"], ["Same words."]])
    assert found == pytest.approx((6 / 7 + 1) / 2)


def test_scores_of_extremes() -> None:
    right = ["the inn is cheap and by the river"]
    assert texts.bleu(texts.bleu_counts(right, [right])) == 1.0
    assert texts.chrf(right, [right]) == texts.rouge_l(right, [right]) == 1.0
    assert (
        texts.bleu(texts.bleu_counts([""], [right])) == texts.chrf([""], [right]) == texts.rouge_l([""], [right]) == 0
    )
    for nothing in (texts.bleu(texts.bleu_counts([], [])), texts.chrf([], []), texts.rouge_l([], [])):
        assert math.isnan(nothing)
    assert all(map(math.isnan, texts.bleu_interval([])))


def test_the_interval_is_of_the_mean_over_sets_and_repeats_itself() -> None:
    one, two = (texts.bleu_counts(*corpus(30, seed)) for seed in (0, 1))
    low, high = texts.bleu_interval([one, two])
    assert low < (texts.bleu(one) + texts.bleu(two)) / 2 < high
    assert (low, high) == texts.bleu_interval([one, two])
    same = np.repeat(one[:1], 30, axis=0)  # equal texts: nothing varies
    assert texts.bleu_interval([same]) == (texts.bleu(same),) * 2
    assert high - low < np.subtract(*texts.bleu_interval([one])[::-1])  # a mean of two varies less


def test_slots_of_both_forms() -> None:
    assert texts.slots({"source": "name : The Inn | area : river side"}) == [
        ("name", "The Inn"),
        ("area", "river side"),
    ]
    assert texts.slots({"name": "The Inn", "area": " river "}) == [("name", "The Inn"), ("area", "river")]
    assert texts.slots({"source": "name : The Inn", "kind": "inn"}) == [("name", "The Inn"), ("kind", "inn")]
    assert texts.slots({"text": "He said: nothing | at all"}) is None
    assert texts.slots({"text": "Note : one thing | and another"}) is None


def test_slot_errors_by_hand() -> None:
    tables = [
        [("name", "The Inn"), ("area", "river side"), ("family", "yes")],
        [("name", "Zizzi"), ("area", "city"), ("price", "cheap")],
    ]
    references = [["The Inn is by the river side", "the inn, river side."], ["Zizzi is a cheap place in the city"]]
    # Judged: The Inn, river side (`yes` is in no reference); Zizzi, city, cheap.
    perfect = [right[0] for right in references]
    assert texts.slot_errors(tables, perfect, references) == (0, 0, 0)
    written = ["the INN is cheap. Cheap!", "Zizzi, river side; the river is no value, nor is yes"]
    found = texts.slot_errors(tables, written, references)
    # Missing: river side; city, cheap. Added: cheap, once; river side.
    assert found == pytest.approx((5 / 5, 3 / 5, 2 / 5))
    assert texts.slot_errors(tables, ["", ""], references) == (1, 1, 0)
    assert all(map(math.isnan, texts.slot_errors([[("family", "yes")]], ["yes"], [["for children"]])))


def test_a_longer_value_hides_the_shorter_one_in_it() -> None:
    tables = [[("area", "old mill")], [("area", "mill")], [("area", "sea")]]
    references = [["at the old mill"], ["at the mill"], ["at the sea"]]
    # `mill` is no addition to a text that tells the input's `old mill`; in the third text both are added.
    written = ["at the old mill", "at the mill", "at the sea, a mill and the old mill"]
    assert texts.slot_errors(tables, written, references) == pytest.approx((2 / 3, 0, 2 / 3))


def generated(experience: int, found: list[str], references: list[list[str]], test_set: int = 0) -> Predictions:
    count = len(found)
    return predictions.generated(
        experience,
        test_set=[test_set] * count,
        sample_id=range(count),
        label=[0] * count,
        text=found,
        references=references,
        inputs=[{"source": f"name : {right[0].split()[0]}"} for right in references],
    )


def stream() -> Predictions:
    """Two experiences, two test sets; the first set is answered worse after the second experience."""
    (a, right_a), (b, right_b) = corpus(12), corpus(12, seed=1)
    best_a, best_b = ([right[0] for right in some] for some in (right_a, right_b))
    parts = [generated(0, best_a, right_a), generated(0, b, right_b, 1)]
    return predictions.concat([*parts, generated(1, a, right_a), generated(1, best_b, right_b, 1)])


def test_what_a_record_stores() -> None:
    found = stream()
    matrix, counts = metrics.score_matrix(found, FAMILY, 2, 2)
    assert counts.tolist() == [12, 12]
    assert matrix[0, 0] == matrix[1, 1] == 1.0
    values = metrics.continual_metrics(matrix, counts, family=FAMILY, predictions=found)
    assert values["bleus"] == matrix[1].tolist()
    assert values["bleu"] == pytest.approx(matrix[1].mean())
    assert values["avg_incremental_bleu"] == pytest.approx((1 + matrix[1].mean()) / 2)
    assert values["learning_bleu"] == 1.0
    assert values["forgetting"] == pytest.approx(1 - matrix[1, 0])
    assert values["bwt"] == pytest.approx(matrix[1, 0] - 1)
    assert values["bleu_low"] < values["bleu"] < values["bleu_high"]
    last = found.after(1)
    scores = []
    for column in (0, 1):
        part = last.on([column])
        assert part.text is not None
        assert part.references is not None
        scores.append(texts.chrf(part.text.tolist(), part.references.tolist()))
    assert values["chrf"] == pytest.approx(np.mean(scores))
    assert values["slot_error"] == pytest.approx(values["slot_missing"] + values["slot_added"])
    alone = metrics.continual_metrics(matrix[:, :1][:1], counts[:1], family=FAMILY)
    assert {name for name, value in alone.items() if value is not None} == {"bleu", "bleus", "forgetting_curve"}


def test_free_texts_have_no_slot_error() -> None:
    found = stream()
    assert found.input is not None
    free = found.input.copy()
    free[0] = '{"text": "once upon a time"}'
    matrix, counts = metrics.score_matrix(found, FAMILY, 2, 2)
    changed = dataclasses.replace(found, input=np.repeat(free[:1], len(found)))
    values = metrics.continual_metrics(matrix, counts, family=FAMILY, predictions=changed)
    assert values["slot_error"] is values["slot_missing"] is values["slot_added"] is None
    assert values["chrf"] is not None


def test_scores_need_texts() -> None:
    classified = predictions.table(
        0, test_set=[0], sample_id=[0], label=[0], prediction=[0], top5=[[0]], confidence=[1.0]
    )
    with pytest.raises(ValueError, match="no texts were generated"):
        metrics.score_matrix(classified, FAMILY)
