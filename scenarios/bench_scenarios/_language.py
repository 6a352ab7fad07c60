"""What the scenarios of the bundled language world share: its texts as samples, and how a model may be asked.

Texts are a function of (split, kind, domain, index), so a set is a range of indices: nothing is written before it is
read, and the digest of a set is that of the world with the name of the range. All are of the world's seed 0; no text of
one split occurs in another.

Patterns are those of PET for Yelp and for AG News (Schick and Schuetze, arXiv 2001.07676), in lower case and with
blanks between words, as the world writes. The one that names the thing reviewed ("in summary, the restaurant is ...")
is left out, since it would tell the domain at test time; for causal models there are patterns in which the text stands
before the word asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench_scenarios import language_world as world
from benchmark.samples import Kind, Samples, Text
from benchmark.scenario import Wording

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "written by the grammar of adaptbench (bench_scenarios.language_world)"
LICENCE = "Apache-2.0, as adaptbench"
NOTES = {"layout": "written"}

SENTIMENTS = ("negative", "positive")
"""Names of the labels 0 and 1 of reviews."""

REVIEWS = Wording(
    patterns=(
        "it was {mask} . {text}",
        "{text} all in all , it was {mask} .",
        "just {mask} ! {text}",
        "{text} it was {mask} .",
    ),
    words={"negative": ("bad", "terrible"), "positive": ("good", "great")},
    segments=("text",),
)
NEWS = Wording(
    patterns=(
        "{mask} : {text}",
        "{mask} news : {text}",
        "from the pages on {mask} : {text}",
        "[ category : {mask} ] {text}",
        "{text} more about {mask} tomorrow .",
    ),
    words={topic: (topic,) for topic in world.TOPICS},
    segments=("text",),
)


class Written:
    """A range of texts as a source: each is written when it is first read, and kept.

    Args:
        name: What the texts are, which no other range is called.
        count: How many there are.
        write: Writes the text of a row.
    """

    kind: Kind = "text"

    def __init__(self, name: str, count: int, write: Callable[[int], str]) -> None:
        self.digest = hashlib.sha256(f"{world.digest()} {name} {count}".encode()).hexdigest()
        self._write = write
        self._kept: list[str | None] = [None] * count

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, rows: Tensor, /) -> Sequence[Text]:
        return tuple({"text": self._text(row)} for row in rows.tolist())

    def _text(self, row: int) -> str:
        text = self._kept[row]
        if text is None:
            text = self._kept[row] = self._write(range(len(self._kept))[row])
        return text


def reviews(domain: str, split: str, count: int, *, start: int = 0) -> Samples:
    """Reviews of a domain, half of which praise (label 1).

    Args:
        domain: One of `world.DOMAINS`.
        split: ``train`` or ``test``.
        count: How many; an odd one has one more that blames, if ``start`` is even.
        start: Index of the first.
    """
    return _samples(
        f"review {domain}",
        world.DOMAINS.index(domain),
        split,
        (start, count),
        2,
        lambda index: world.review(domain, index, split=split).text,
    )


def news(split: str, count: int) -> Samples:
    """So many pieces of news of every topic; labels are positions in `world.TOPICS`."""
    return _samples(
        "news",
        len(world.DOMAINS),
        split,
        (0, count * len(world.TOPICS)),
        len(world.TOPICS),
        lambda index: world.news(index, split=split).text,
    )


def _samples(
    name: str, number: int, split: str, part: tuple[int, int], classes: int, write: Callable[[int], str]
) -> Samples:
    """Samples of a range of indices, whose remainder is the label; ids tell (name, split, index) apart."""
    import torch

    start, count = part
    source = Written(f"{name} {split} {start}", count, lambda row: write(start + row))
    rows = torch.arange(count)
    ids = (number * len(world.SPLITS) + world.SPLITS.index(split)) * 1_000_000 + start + rows
    return Samples(source, rows, (start + rows) % classes, ids)


def check_domain(field: str, domain: str, known: Sequence[str]) -> None:
    """Holds a domain to those there are.

    Raises:
        ValueError: It is none of them.
    """
    if domain not in known:
        raise ValueError(f"{field}: {domain!r} is not a domain; use one of {', '.join(known)}")
