"""Raw samples of either kind, as the contract handles them: uint8 images in a tensor, or a sequence of texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor

from benchmark.samples import Kind, Raw, Samples, Text

T = TypeVar("T", bound=Raw)
_WORDS = ("some", "other", "words", "that", "no", "stream", "has")


def toy_set(
    kind: Kind, images: Tensor, labels: Tensor, ids: Tensor, domains: Tensor | None, tones: Tensor | None = None
) -> Samples:
    """A set of the toy world.

    Args:
        kind: What it holds. A text tells its class, its domain and how bright its image is, in 4 to 22 words.
        images: uint8 ``(N, 3, H, W)``.
        labels: int64 ``(N,)``.
        ids: int64 ``(N,)``.
        domains: Of the samples, where there are several.
        tones: Words for the domains, where they are to be told; default `domains`.
    """
    if kind == "image":
        return Samples(images, torch.arange(len(labels)), labels, ids, domains)
    told = domains if tones is None else tones
    light = images.float().mean(dim=(1, 2, 3)).long()
    texts: list[Text] = [
        {
            "text": " ".join([f"a thing{label} in light{int(light[row])}", *(["it is ."] * (row * 5 % 7))]),
            "place": f"place{0 if told is None else int(told[row])}",
        }
        for row, label in enumerate(labels.tolist())
    ]
    return Samples(texts, torch.arange(len(labels)), labels, ids, domains)


def pick(raw: T, places: Tensor) -> T:
    """The samples at some places, in their order."""
    if isinstance(raw, Tensor):
        return cast("T", raw[places])
    return cast("T", tuple(raw[place] for place in places.tolist()))


def split(raw: T, size: int) -> Iterator[T]:
    """Parts of so many samples."""
    for first in range(0, len(raw), size):
        yield cast("T", raw[first : first + size])


def foreign(raw: T, count: int, generator: torch.Generator) -> T:
    """So many samples that no stream has, in front of the first eight."""
    if isinstance(raw, Tensor):
        noise = torch.randint(0, 256, (count, *raw.shape[1:]), generator=generator, dtype=torch.uint8)
        return cast("T", torch.cat([noise, raw[:8]]))
    drawn = torch.randint(0, len(_WORDS), (count, 9), generator=generator).tolist()
    strange = [dict.fromkeys(raw[0], " ".join(_WORDS[word] for word in row)) for row in drawn]
    return cast("T", (*strange, *raw[:8]))


def altered(samples: Samples) -> Samples:
    """The same set with other content: negative images, texts backwards."""
    rows = torch.arange(len(samples))
    if samples.kind == "image":
        return Samples(255 - samples.images(slice(None)), rows, samples.labels, samples.ids)
    texts = [{field: value[::-1] for field, value in text.items()} for text in samples.texts(slice(None))]
    told = samples.references
    backwards = None if told is None else [[text[::-1] for text in right] for right in told]
    return Samples(texts, rows, samples.labels, samples.ids, references=backwards)


def other_answers(images: Samples) -> Samples:
    """The same set, each label replaced by the next one that occurs in it, references by those of another sample."""
    known = torch.tensor(sorted(set(images.labels.tolist())))
    moved = known.roll(1)[torch.searchsorted(known, images.labels)]
    references = None if images.references is None else [*images.references[1:], images.references[0]]
    return Samples(images.source, images.rows, moved, images.ids, images.domains, references)


def same(one: Raw, two: Raw) -> bool:
    """Whether two batches hold the same samples."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return torch.equal(one, two)
    return not isinstance(one, Tensor) and not isinstance(two, Tensor) and list(one) == list(two)
