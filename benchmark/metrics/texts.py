"""Scores of generated texts against the references of their inputs.

All are fractions: 0.45 is what papers print as 45 (BLEU, chrF, ROUGE-L) or as 45 % (slot error). Each text is compared
with all references of its input, whose number may differ from input to input.

* **BLEU**: sacrebleu's corpus BLEU, signature `BLEU_SIGNATURE`. From the n-gram counts of single texts, which add up,
  so that the interval is of the very same score.
* **chrF**: sacrebleu's corpus chrF, signature `CHRF_SIGNATURE`: character n-grams up to 6, no words, beta 2.
* **ROUGE-L**: rouge-score's F measure without stemming, of the best reference of the text, averaged over texts. Its
  tokenizer knows ASCII letters and digits only: other alphabets score 0.
* **Slot error**: see `slot_errors`. Defined where inputs are tables.

Scores are of one test set; over several their mean is what is stored, as with accuracies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmark.metrics.continual import (
    NAN,
    Array,
    accuracy_matrix,
    avg_incremental_acc_task,
    bwt,
    final_avg_acc,
    forgetting,
    learning_acc,
)

if TYPE_CHECKING:
    from benchmark.records.predictions import Predictions

BLEU_SIGNATURE = "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp"
CHRF_SIGNATURE = "nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no"
RESAMPLES = 1000
SEED = 0
CONFIDENCE = 0.95
_ORDER = 4  # of BLEU's n-grams

Counts = npt.NDArray[np.int64]
References = Sequence[Sequence[str]]
Slots = Sequence[tuple[str, str]]
_Words = tuple[str, ...]


# --- BLEU, chrF, ROUGE-L ----------------------------------------------------------------------


def bleu_counts(texts: Sequence[str], references: References) -> Counts:
    """What BLEU counts in each text, ``(N, 10)``: right n-grams of 1 to 4 words, all of them, length, reference length.

    The reference length is that of the reference nearest in length. The counts of a corpus are the sums of those of its
    texts.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)  # of a single text sacrebleu wants it; it changes no count
    found = np.zeros((len(texts), 2 * _ORDER + 2), dtype=np.int64)
    for row, (text, right) in enumerate(zip(texts, references, strict=True)):
        score = scorer.sentence_score(text, list(right))
        found[row] = [*score.counts, *score.totals, score.sys_len, score.ref_len]
    return found


def bleu(counts: Counts) -> float:
    """Corpus BLEU of the texts whose `bleu_counts` are given."""
    from sacrebleu.metrics.bleu import BLEU

    if not len(counts):
        return NAN
    total = counts.sum(axis=0).tolist()
    right, every, length, nearest = total[:_ORDER], total[_ORDER : 2 * _ORDER], total[-2], total[-1]
    score = BLEU.compute_bleu(right, every, length, nearest, smooth_method="exp")
    return min(1.0, float(score.score) / 100)  # 1e-16 above 1 is rounding


def bleu_interval(sets: Sequence[Counts]) -> tuple[float, float]:
    """The 95 % interval of the mean BLEU over test sets: percentiles over resamples of each set's texts.

    Args:
        sets: `bleu_counts` of each test set.
    """
    if not sets or not all(len(counts) for counts in sets):
        return NAN, NAN
    draw = np.random.RandomState(SEED)  # its numbers never change, those of a Generator may
    drawn = np.zeros((RESAMPLES, len(sets)))
    for column, counts in enumerate(sets):
        for row in range(RESAMPLES):
            drawn[row, column] = bleu(counts[draw.randint(0, len(counts), size=len(counts))])
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn.mean(axis=1), [outside, 100 - outside])
    return float(low), float(high)


def chrf(texts: Sequence[str], references: References) -> float:
    """Corpus chrF."""
    from sacrebleu.metrics.chrf import CHRF

    if not len(texts):
        return NAN
    most = max(map(len, references))
    # sacrebleu takes None where an input has fewer references, which its annotations do not say.
    streams: list[list[Any]] = [
        [right[place] if place < len(right) else None for right in references] for place in range(most)
    ]
    return min(1.0, float(CHRF().corpus_score(list(texts), streams).score) / 100)


def rouge_l(texts: Sequence[str], references: References) -> float:
    """Mean over texts of the best ROUGE-L F measure."""
    from rouge_score.rouge_scorer import RougeScorer

    if not len(texts):
        return NAN
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(texts, references, strict=True)
    return float(np.mean([scorer.score_multi(list(right), text)["rougeL"].fmeasure for text, right in pairs]))


# --- Slot error -------------------------------------------------------------------------------


class SlotErrors(NamedTuple):
    """Errors per judged value of the inputs, of one test set; NaN where no value can be judged."""

    error: float
    missing: float
    added: float


def slots(fields: Mapping[str, str]) -> Slots | None:
    """The slots of an input with their values, or None where it is no table.

    A field that reads ``slot : value | slot : value`` is a table, blanks around the marks included; of several fields
    each other one is a slot. A single text is no table.
    """
    found: list[tuple[str, str]] = []
    for name, text in fields.items():
        parts = [part.strip().partition(" : ") for part in text.split(" | ")]
        if all(mark for _, mark, _ in parts):
            found += [(slot.strip(), value.strip()) for slot, _, value in parts]
        elif len(fields) > 1:
            found.append((name, text.strip()))
        else:
            return None
    return found


def slot_errors(tables: Sequence[Slots], texts: Sequence[str], references: References) -> SlotErrors:
    """Values of tables that their texts lack, and values of other tables that they tell.

    By look-up: a value occurs in a text if its words stand there one after the other, upper and lower case alike. A
    value is *judged* if it occurs in a reference of its input; what references never say word for word (``yes``, a
    price that they call ``cheap``) is passed over. With N judged values in all inputs, each counted once per input::

        missing = judged values that do not occur in the text of their input / N
        added   = values judged somewhere in the test set that occur in a text, but neither in its input nor in any
                  of its references / N
        error   = missing + added

    After the slot error rate of Wen et al. (2015, arXiv 1508.01745), (p + q) / N. Within a text the longest value that
    begins at a word counts, and the next one begins behind it. May exceed 1.

    Args:
        tables: For each input what `slots` finds.
        texts: What was generated.
        references: For each input the texts that would have been right.
    """
    judged: list[set[_Words]] = []
    told: list[list[_Words]] = []
    for table, right in zip(tables, references, strict=True):
        told.append([_words(text) for text in right])
        values = {_words(value) for _, value in table} - {()}
        judged.append({value for value in values if any(_occurs(value, text) for text in told[-1])})
    known = set().union(*judged)
    longest = max(map(len, known), default=0)
    total, missing, added = sum(map(len, judged)), 0, 0
    for table, text, said, own in zip(tables, texts, told, judged, strict=True):
        words = _words(text)
        missing += sum(not _occurs(value, words) for value in own)
        given = [*said, *(_words(f"{slot} {value}") for slot, value in table)]
        strange = _values_in(words, known, longest)
        added += sum(not any(_occurs(value, one) for one in given) for value in strange)
    if not total:
        return SlotErrors(NAN, NAN, NAN)
    return SlotErrors((missing + added) / total, missing / total, added / total)


def _words(text: str) -> _Words:
    return tuple(re.findall(r"\w+", text.lower()))


def _occurs(value: _Words, words: _Words) -> bool:
    return any(words[place : place + len(value)] == value for place in range(len(words) - len(value) + 1))


def _values_in(words: _Words, known: set[_Words], longest: int) -> set[_Words]:
    """The values that a text tells, each once."""
    found = set()
    place = 0
    while place < len(words):
        sizes = range(min(longest, len(words) - place), 0, -1)
        size = next((size for size in sizes if words[place : place + size] in known), 0)
        if size:
            found.add(words[place : place + size])
        place += max(1, size)
    return found


# --- What a record stores ---------------------------------------------------------------------


def bleu_matrix(predictions: Predictions, times: int | None = None, sets: int | None = None) -> tuple[Array, Array]:
    """What `accuracy_matrix` is of classified samples: corpus BLEU on each test set after each experience.

    Args:
        predictions: Generated texts.
        times: T; default: the largest experience + 1.
        sets: E; default: the largest test set + 1.

    Returns:
        ``(T, E)``, NaN where nothing was generated, and n ``(E,)``, the samples per test set.

    Raises:
        ValueError: If a test set has different sizes after different experiences, or nothing was generated.
    """
    texts, references, _ = _columns(predictions)
    matrix, counts = accuracy_matrix(predictions, times, sets)
    for time, column in np.argwhere(~np.isnan(matrix)).tolist():
        rows = np.flatnonzero((predictions.experience == time) & (predictions.test_set == column)).tolist()
        matrix[time, column] = bleu(bleu_counts([texts[row] for row in rows], [references[row] for row in rows]))
    return matrix, counts


def generation_metrics(matrix: Array, predictions: Predictions | None) -> dict[str, Any]:
    """What a record stores of a run that generates.

    Args:
        matrix: BLEU ``(T, E)`` on the test sets of the experiences.
        predictions: Texts generated after the last experience on these test sets, if they are there.

    Returns:
        ``bleu`` (after the last experience, mean over test sets) and ``bleus`` (of each); of streams of several
        experiences ``avg_incremental_bleu``, ``learning_bleu``, ``forgetting``, ``forgetting_curve`` and ``bwt``, which
        are to BLEU what the metrics of the same names are to accuracy; with predictions ``bleu_low`` and ``bleu_high``
        (`bleu_interval`), ``chrf``, ``rouge_l``, ``slot_error``, ``slot_missing`` and ``slot_added``.
    """
    several = len(matrix) > 1
    values: dict[str, Any] = {
        "bleu": final_avg_acc(matrix),
        "bleus": matrix[-1],
        "avg_incremental_bleu": avg_incremental_acc_task(matrix) if several else NAN,
        "learning_bleu": learning_acc(matrix) if several else NAN,
        "forgetting": forgetting(matrix),
        "forgetting_curve": [forgetting(matrix, time) for time in range(len(matrix))],
        "bwt": bwt(matrix),
    }
    if predictions is None:
        return values
    from benchmark.records.predictions import fields

    texts, references, inputs = _columns(predictions)
    counts, scores = [], []
    for column in np.unique(predictions.test_set).tolist():
        rows = np.flatnonzero(predictions.test_set == column).tolist()
        some, right = [texts[row] for row in rows], [references[row] for row in rows]
        tables = [slots(fields(inputs[row])) for row in rows]
        known = [table for table in tables if table is not None]
        wrong = slot_errors(known, some, right) if len(known) == len(tables) else SlotErrors(NAN, NAN, NAN)
        counts.append(bleu_counts(some, right))
        scores.append((chrf(some, right), rouge_l(some, right), *wrong))
    low, high = bleu_interval(counts)
    names = ("chrf", "rouge_l", "slot_error", "slot_missing", "slot_added")
    means = np.mean(scores, axis=0).tolist() if scores else [NAN] * len(names)
    return values | {"bleu_low": low, "bleu_high": high} | dict(zip(names, means, strict=True))


def _columns(predictions: Predictions) -> tuple[Sequence[str], References, Sequence[str]]:
    if predictions.text is None or predictions.references is None or predictions.input is None:
        raise ValueError("predictions: no texts were generated, so there is nothing to compare with references")
    return predictions.text.tolist(), predictions.references.tolist(), predictions.input.tolist()
