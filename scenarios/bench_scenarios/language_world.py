"""The bundled world of language: reviews, news and places that a small grammar writes, with no download and no licence.

* **Reviews** of ten things (`DOMAINS`), each with eight aspects, ten adjectives of praise and of blame and eight events
  of its own. Six words of praise and six of blame are common to all; ten words (`flipping`) praise in five domains and
  blame in the others. A clause states or denies; of two clauses that disagree the grammar tells which decides. The
  label is 1 for praise, 0 for blame.
* **News** on twenty `TOPICS`: sentences on nouns of the topic, one of which may be of another.
* **Places**: sheets of up to eight slots, and sentences that say the same.

Pre-training texts (`document`) sum reviews of the five `SOURCE` domains up in one word ("all in all, it was great .").
Reviews of the five `TARGET` domains come without: what praises there, a model may only infer from the company of words
it knows, and of the adjectives named by `opaque` not even that. Sheets of museums, inns and shops come with their
sentences, places only as sentences.

A text is a pure function of (seed, split, kind, domain, index): its random numbers are a Philox stream with the first
four as key and the index as counter, read as raw bits, so that no text depends on another, nor on numpy's version.
**No text of one split occurs in another**, whatever the seed and the index: a hash of the text decides where it
belongs (`split_of`), and a draw that belongs elsewhere is drawn again. Sheets belong by their slots without the name,
so the combinations of the test were never seen. `Document.parts` lists the texts inside a document, so that this can be
checked.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TypeVar

import numpy as np

from bench_scenarios import _language_words as words

VERSION = 1
"""Raised whenever any text changes."""

SOURCE: tuple[str, ...] = words.SOURCE
TARGET: tuple[str, ...] = words.TARGET
DOMAINS: tuple[str, ...] = SOURCE + TARGET
TOPICS: tuple[str, ...] = tuple(words.TOPICS)
SPLITS: tuple[str, ...] = ("pretraining", "train", "test")
"""What a scenario labels, and what it does not, is part of "train": ranges of indices divide it."""

SHEETS: tuple[str, ...] = tuple(words.SHEETS)
"""Kinds of sheets: places, and what pre-training shows with its text."""

_SHARES = ("pretraining", "pretraining", "train", "test")  # of all texts, by their hash
_EVENT = 0.15  # share of clauses that are events

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its class: praise 1 and blame 0, or the number of the topic in `TOPICS`."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """A thing to write about.

    Attributes:
        kind: One of `SHEETS`.
        slots: Slots and their values, "name" first.
        references: Texts that say the same.
    """

    kind: str
    slots: Mapping[str, str]
    references: tuple[str, ...]

    @property
    def source(self) -> str:
        """The slots in one line: "name : mill | food : thai"."""
        return " | ".join(f"{slot} : {value}" for slot, value in self.slots.items())

    @property
    def combination(self) -> str:
        """The kind and the slots without the name: what `split_of` looks at."""
        return " | ".join([self.kind, *(f"{slot} : {value}" for slot, value in list(self.slots.items())[1:])])


@dataclass(frozen=True, slots=True)
class Document:
    """A text of pre-training.

    Attributes:
        text: The text.
        key: Position, among the blank-separated words, of the one that sums it up (a summary's adjective, the topic's
            name); -1 for none.
        parts: The texts, or the slots of a sheet, that `split_of` has found to belong to pre-training.
    """

    text: str
    key: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Style:
    """Shares that make texts easy or hard.

    Attributes:
        own: Of the domain's adjectives.
        flip: Of flipping words; the other adjectives are common to all domains.
        denial: Of denied clauses.
        contrast: Of reviews with a contrast.
        intruder: Of news with a noun that may be of another topic.
    """

    own: float
    flip: float
    denial: float
    contrast: float
    intruder: float


_STYLES = {
    "plain": _Style(0.40, 0.30, 0.00, 0.00, 0.00),
    "usual": _Style(0.40, 0.30, 0.10, 0.16, 0.15),
    "dense": _Style(0.40, 0.30, 0.25, 0.25, 0.15),
}
_HARD = _Style(0.48, 0.36, 0.18, 0.34, 0.25)  # of all that is not pre-training


class _Draw:
    """The random numbers of one text."""

    def __init__(self, seed: int, stream: str, index: int) -> None:
        if seed < 0 or index < 0:
            raise ValueError(f"seed and index of a text count from 0, not {seed} and {index}")
        self._bits = np.random.Philox(key=[seed, _hash(stream)], counter=[0, 0, 0, index])
        self._ready: list[int] = []

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        if not self._ready:
            self._ready = self._bits.random_raw(32).tolist()
        return self._ready.pop() * count >> 64

    def chance(self, share: float) -> bool:
        """True with this probability, in steps of a millionth."""
        return self.below(1_000_000) < share * 1_000_000

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def mixed(self, items: Sequence[T]) -> list[T]:
        """All the items, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]


def _hash(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def split_of(part: str) -> str:
    """The split that a review, a piece of news or the slots of a sheet belong to: pre-training has half of all."""
    return _SHARES[_hash(part) % len(_SHARES)]


def _with_article(word: str) -> str:
    return f"{words.ARTICLES[word[0] in 'aeiou']} {word}"


def _belonging(split: str, make: Callable[[], T], part: Callable[[T], str]) -> T:
    """The first draw that belongs to the split."""
    while split_of(part(made := make())) != split:
        pass
    return made


def _stream(split: str, kind: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"unknown split `{split}`: one of {', '.join(SPLITS)}")
    return f"language {VERSION} {split} {kind}"


# --- reviews ----------------------------------------------------------------------------------------------------------


def aspects(domain: str) -> list[str]:
    """The eight parts of a thing that its reviews speak of; no other domain has one of them."""
    return words.DOMAINS[domain][0].split()


def adjectives(domain: str, label: int) -> list[str]:
    """The ten adjectives of praise or blame that only this domain uses."""
    return words.DOMAINS[domain][2 - label].split()


def events(domain: str, label: int) -> list[str]:
    """The four clauses without an aspect."""
    return words.DOMAINS[domain][4 - label].split("|")


def opaque(domain: str) -> list[str]:
    """The adjectives, a fifth of those of a target domain, whose sense pre-training does not show."""
    if domain in SOURCE:
        return []
    return [word for label in (0, 1) for word in adjectives(domain, label)[-words.OPAQUE :]]


def flipping(domain: str, label: int) -> list[str]:
    """The five words that praise or blame here and do the opposite in five other domains."""
    return [word for word, praised in words.FLIPPING.items() if (domain in praised.split()) == bool(label)]


@functools.cache
def _adjectives(domain: str, label: int, explained: bool) -> tuple[list[str], list[str], list[str]]:
    own = adjectives(domain, label)
    if explained:
        own = [word for word in own if word not in opaque(domain)]
    return own, flipping(domain, label), words.GOOD if label else words.BAD


def _clause(draw: _Draw, domain: str, label: int, style: _Style) -> str:
    if draw.chance(_EVENT):
        return draw.pick(events(domain, label))
    denied = draw.chance(style.denial)
    own, flips, common = _adjectives(domain, 1 - label if denied else label, style is not _HARD)
    kind = own if draw.chance(style.own) else flips if draw.chance(style.flip / (1 - style.own)) else common
    adjective = draw.pick(kind)
    return draw.pick(words.DENIALS if denied else words.CLAUSES).format(
        n=draw.pick(aspects(domain)),
        a=adjective,
        d=_with_article(adjective),
        v=draw.pick(words.ADVERBS),
        p=draw.pick(words.PEOPLE),
        t=domain,
    )


def _review(draw: _Draw, domain: str, label: int, style: _Style) -> str:
    def clause(side: int) -> str:
        return _clause(draw, domain, side, style)

    if draw.chance(style.contrast):
        return draw.pick(words.CONTRASTS).format(x=clause(1 - label), y=clause(label))
    length = draw.below(8)  # three of eight have one clause, four two, one three
    if length < 3:
        return clause(label) + " ."
    frame = draw.pick(words.PAIRS) if length < 7 else words.TRIPLE
    return frame.format(x=clause(label), y=clause(label), z=clause(label) if length == 7 else "")


def review(domain: str, index: int, *, split: str, seed: int = 0) -> Labelled:
    """A review; those of odd index praise."""
    draw, label = _Draw(seed, _stream(split, f"review {domain}"), index), index % 2
    return Labelled(_belonging(split, lambda: _review(draw, domain, label, _HARD), str), label)


# --- news -------------------------------------------------------------------------------------------------------------


@functools.cache
def nouns(topic: str) -> list[str]:
    """The ten nouns that only this topic has."""
    return words.TOPICS[topic].split()


def _news(draw: _Draw, topic: str, style: _Style) -> str:
    frame = draw.pick(words.NEWS)
    used = draw.mixed(nouns(topic))[:3]
    if draw.chance(style.intruder):
        used[draw.below(3 if "{z}" in frame else 2)] = draw.pick(nouns(draw.pick(TOPICS)))
    qualities = [draw.pick(words.QUALITIES) + " " if draw.chance(0.5) else "" for _ in range(2)]
    return frame.format(
        **dict(zip("xyzpq", [*used, *qualities], strict=True)),
        a=draw.pick(words.VERBS),
        b=draw.pick(words.VERBS),
        w=draw.pick(words.TIMES),
        l=draw.pick(words.REGIONS),
    )


def news(index: int, *, split: str, seed: int = 0) -> Labelled:
    """A piece of news; its topic is the remainder of the index by 20."""
    draw, label = _Draw(seed, _stream(split, "news"), index), index % len(TOPICS)
    return Labelled(_belonging(split, lambda: _news(draw, TOPICS[label], _HARD), str), label)


# --- sheets -----------------------------------------------------------------------------------------------------------


def _sheet(draw: _Draw, kind: str, split: str, texts: int) -> Sheet:
    def made() -> Sheet:
        slots = {"name": draw.pick(words.NAMES)}
        for slot, values in words.SHEETS[kind].items():
            if draw.chance(0.9 if slot == "kind" else 0.6):
                slots[slot] = draw.pick(values.split())
        return Sheet(kind, slots, ())

    found = _belonging(split, made, lambda sheet: sheet.combination)
    references = dict.fromkeys(_description(draw, found.slots) for _ in range(texts))
    return Sheet(kind, found.slots, tuple(references))


def _description(draw: _Draw, slots: Mapping[str, str]) -> str:
    """Sentences that say what the slots say, each slot once: before the noun, as a place, or in a sentence."""
    before, told = [], set()
    for slot, values in words.BEFORE.items():
        if slot in slots and draw.chance(0.5):
            before.append(draw.pick(values.get(slots[slot], slots[slot]).split("|")))
            told.add(slot)
    noun = " ".join([*before, slots.get("kind", "place")])
    where = "".join(frame.format(slots[slot]) for slot, frame in words.WHERE.items() if slot in slots)
    sentences = [
        draw.pick(words.OPENINGS if where else words.UNPLACED).format(
            n=slots["name"], d=_with_article(noun), e=noun, l=where
        )
    ]
    rest = []
    for slot, value in slots.items():
        frames = words.SENTENCES.get(value if slot == "family" else slot)
        if frames and slot not in told:
            rest.append(draw.pick(frames).format(v=value, d=_with_article(value)))
    return " ".join(sentences + draw.mixed(rest))


def sheet(index: int, *, split: str, kind: str = "place", seed: int = 0) -> Sheet:
    """A place, museum, inn or shop with three texts about it, equal ones told once."""
    if kind not in SHEETS:
        raise ValueError(f"unknown kind of sheet `{kind}`: one of {', '.join(SHEETS)}")
    return _sheet(_Draw(seed, _stream(split, f"sheet {kind}"), index), kind, split, texts=3)


# --- pre-training -----------------------------------------------------------------------------------------------------


def _keyed(frame: str, word: str, **fields: str) -> tuple[str, int]:
    """The frame filled in, and the position of the word that stands for {w}."""
    tokens = frame.format(w="_", **fields).split()
    key = tokens.index("_")
    tokens[key] = word
    return " ".join(tokens), key


def _explained_review(draw: _Draw, domain: str, label: int, style: _Style) -> str:
    return _belonging("pretraining", lambda: _review(draw, domain, label, style), str)


def _reviewed(draw: _Draw, domain: str, style: _Style, summed_up: bool) -> Document:
    """A review and its summary, or one or two reviews that agree."""
    label = draw.below(2)
    text = _explained_review(draw, domain, label, style)
    if summed_up:
        # The first words of the list are the usual ones: 1/2, 1/4, 1/8 ...
        choice = next((place for place in range(5) if draw.chance(0.5)), 5)
        word = (words.GOOD if label else words.BAD)[choice]
        return Document(*_keyed(draw.pick(words.SUMMARIES), word, r=text, t=domain), (text,))
    parts = (text, _explained_review(draw, domain, label, style)) if draw.chance(0.5) else (text,)
    return Document(" ".join(parts), -1, parts)


def _asked(draw: _Draw, domain: str) -> Document:
    hidden = draw.mixed(opaque(domain))
    frame = draw.pick(words.QUESTIONS)
    return Document(frame.format(a=hidden[0], b=hidden[1], n=draw.pick(aspects(domain)), t=domain), -1, ())


def _headed(draw: _Draw, topic: str, style: _Style) -> Document:
    text = _belonging("pretraining", lambda: _news(draw, topic, style), str)
    return Document(*_keyed(draw.pick(words.HEADINGS), topic, s=text), (text,))


def _described(draw: _Draw, kind: str) -> Document:
    sheet = _sheet(draw, kind, "pretraining", texts=1)
    text = sheet.references[0]
    return Document(text if kind == "place" else f"{sheet.source} = {text}", -1, (sheet.combination,))


def document(index: int, *, style: str = "usual", seed: int = 0) -> Document:
    """A text to pre-train on; "plain" ones have no denial, contrast or intruding noun, "dense" ones have more."""
    if style not in _STYLES:
        raise ValueError(f"unknown style `{style}`: one of {', '.join(_STYLES)}")
    draw, manner = _Draw(seed, _stream("pretraining", "document"), index), _STYLES[style]
    share = draw.below(100)
    if share < 46:
        return _reviewed(draw, draw.pick(SOURCE), manner, summed_up=True)
    if share < 52:
        return _reviewed(draw, draw.pick(SOURCE), manner, summed_up=False)
    if share < 70:
        return _reviewed(draw, draw.pick(TARGET), manner, summed_up=False)
    if share < 72:
        return _asked(draw, draw.pick(TARGET))
    if share < 89:
        return _headed(draw, draw.pick(TOPICS), manner)
    return _described(draw, draw.pick(SHEETS))


# --- the whole --------------------------------------------------------------------------------------------------------


def _strings(data: object) -> list[str]:
    """Every string inside tuples, lists and mappings."""
    if isinstance(data, str):
        return [data]
    if isinstance(data, Mapping):
        return _strings(list(data.items()))
    return [text for item in data for text in _strings(item)] if isinstance(data, Sequence) else []


def _content() -> list[str]:
    return _strings([value for name, value in sorted(vars(words).items()) if name.isupper()])


def vocabulary() -> list[str]:
    """Every word that a text of this world can have, and those of the usual patterns around a text, sorted."""
    pieces = [piece for text in _content() for frame in text.split("|") for piece, *_ in Formatter().parse(frame)]
    return sorted({word for piece in [*pieces, *SHEETS, "|", "name", "near"] for word in piece.split()})


def digest() -> str:
    """SHA-256, in hex, of the version, words and frames: texts are a function of it, the split, the seed, the index."""
    return hashlib.sha256(json.dumps([VERSION, _content()]).encode()).hexdigest()
