"""From the fields of an example to tokens: patterns with masks, soft prompts and triggers; padding; batches by length.

A pattern is a text such as ``"it was {mask} . {text}"``. Between braces stand names of fields and

* ``{mask}``: where the model is asked for a word; several in a row with ``{mask:3}``;
* ``{soft:5}``: five positions whose embeddings a method puts in; ``{trigger:3}``: three tokens that it searches;

and ``|`` separates two segments. As in PET (timoschick/pet at 21d32de9, ``pet/pvp.py``, `encode`) every part is
tokenised by itself, so the borders of parts always start a word, and a text that is too long loses its last tokens, one
at a time, from the field at the end of the segment that has more of them, the second one if they have the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import UsageError

Text = Mapping[str, str]
MARKS = ("mask", "soft", "trigger")
_SLOT = re.compile(r"\{(\w+)(?::(\d+))?\}")


@dataclass(frozen=True)
class Encoded:
    """The tokens of one example.

    Attributes:
        ids: Of n tokens, those at the ends included.
        segments: 0 or 1 for each.
        marks: Positions of what a pattern marks, by ``mask``, ``soft``, ``trigger``.
        cut: How many tokens were left out because the text was too long.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    marks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Tokens:
    """A batch of examples, padded to the longest.

    Attributes:
        ids: int64 ``(B, n)``.
        mask: 1 for tokens and 0 for padding, int64 ``(B, n)``.
        segments: int64 ``(B, n)``.
        marks: Positions ``(B, k)``, of the marks of which every example has k.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    marks: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last(self) -> Tensor:
        """Position of the last token of each example, ``(B, 1)``."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (self.mask * places).amax(dim=1, keepdim=True)


@lru_cache(maxsize=4096)
def ids_on(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Ids on a device, ``(n,)``; copied there once, since the host waits for each such copy."""
    with torch.inference_mode(False):  # whoever asks first must not decide what the others may do with them
        return torch.tensor(ids, device=device)


def padded(rows: Sequence[Encoded], *, pad: int, device: torch.device | None = None, left: bool = False) -> Tokens:
    """Puts examples into one batch.

    Args:
        rows: B examples.
        pad: Id that fills up.
        device: Where the batch goes.
        left: Whether the padding stands in front, as for generation.
    """
    length = max(map(len, rows))
    shifts = [length - len(row) if left else 0 for row in rows]

    def moved(values: Sequence[Sequence[int]]) -> Tensor:
        made = torch.tensor(values)
        return made if device is None else made.to(device, non_blocking=True)

    def fill(values: Sequence[Sequence[int]], filler: int) -> Tensor:
        rests = [length - len(row) - shift for row, shift in zip(rows, shifts, strict=True)]
        full = [
            (filler,) * shift + tuple(one) + (filler,) * rest
            for one, shift, rest in zip(values, shifts, rests, strict=True)
        ]
        return moved(full)  # at once: a tensor for each row costs more than all of them

    marks = {}
    for name in MARKS:
        found = [[place + shift for place in row.marks.get(name, ())] for row, shift in zip(rows, shifts, strict=True)]
        if len({len(places) for places in found}) == 1 and found[0]:
            marks[name] = moved(found)
    return Tokens(
        fill([row.ids for row in rows], pad),
        fill([[1] * len(row) for row in rows], 0),
        fill([row.segments for row in rows], 0),
        marks,
    )


def by_length(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Groups of at most ``size`` positions of ``rows``, of similar length, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    return [order[start : start + size] for start in range(0, len(order), size)]


class Layout:
    """How a tokenizer writes one text, or two: what stands in front, between and behind.

    Found by asking it, since each kind has its own rules.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # Byte-level tokenizers write a word differently behind a blank; parts always start a word.
        spaced = tokenizer.convert_ids_to_tokens(tokenizer(" a", add_special_tokens=False)["input_ids"])
        self._blank = " " if spaced and str(spaced[0]).startswith("Ġ") else ""
        self.ids = lru_cache(maxsize=2**16)(self._ids)
        part = self.ids("a")
        one = tuple(tokenizer(self._blank + "a")["input_ids"])
        two = tokenizer(self._blank + "a", self._blank + "a")
        at = _find(one, part, 0)
        self.front, self.back = one[:at], one[at + len(part) :]
        pair = tuple(two["input_ids"])
        second = _find(pair, part, at + len(part))
        self.between, self.end = pair[at + len(part) : second], pair[second + len(part) :]
        types = two.get("token_type_ids") or [0] * len(pair)
        self._types_between = tuple(types[at + len(part) : second])
        self._type_second = types[second]

    def _ids(self, part: str) -> tuple[int, ...]:
        """Ids of a part by itself, without those at the ends."""
        return tuple(self.tokenizer(self._blank + part, add_special_tokens=False)["input_ids"]) if part.strip() else ()

    def extra(self, pair: bool) -> int:
        """How many tokens it adds to one text, or to two."""
        return len(self.front) + (len(self.between) + len(self.end) if pair else len(self.back))

    def write(self, first: Sequence[int], second: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Ids and segments of a whole, and where its second text starts."""
        if second is None:
            ids = (*self.front, *first, *self.back)
            return ids, (0,) * len(ids), len(ids)
        ids = (*self.front, *first, *self.between, *second, *self.end)
        start = len(self.front) + len(first) + len(self.between)
        kind = self._type_second
        segments = (0,) * (len(self.front) + len(first)) + self._types_between
        return ids, segments + (kind,) * (len(second) + len(self.end)), start


def _find(whole: Sequence[int], part: Sequence[int], start: int) -> int:
    for place in range(start, len(whole) - len(part) + 1):
        if tuple(whole[place : place + len(part)]) == tuple(part):
            return place
    raise UsageError("this tokenizer writes a word differently within a text", hint="it cannot be used with patterns")


@dataclass
class _Part:
    """Ids of a part of a pattern; fields may be shortened."""

    ids: list[int]
    field: bool = False
    mark: str = ""


class Template:
    """A pattern, ready to encode examples.

    Args:
        pattern: See the module.
        layout: Of the tokenizer.
        max_length: Most tokens of an example.
        blank: Id that stands at ``{mask}``; None, where a causal model goes on: the pattern ends there.
        keep: Fields that are never shortened.
        place: Id that stands at soft positions and triggers until they are replaced.
        ends: Whether the tokenizer's end stands behind an example; not where the model goes on.

    Raises:
        UsageError: The pattern has no field, more than two segments, or (causal) a field behind the mask.
    """

    def __init__(
        self,
        pattern: str,
        layout: Layout,
        *,
        max_length: int,
        blank: int | None,
        keep: Sequence[str] = (),
        place: int = 0,
        ends: bool = True,
    ) -> None:
        self.pattern, self.layout, self.max_length, self._ends = pattern, layout, max_length, ends
        self._blank, self._place, self._keep = blank, place, frozenset(keep)
        segments = pattern.split("|")
        if len(segments) > 2:
            raise UsageError(f"pattern {pattern!r} has {len(segments)} segments", hint="one `|` separates two")
        self._segments = [_pieces(segment) for segment in segments]
        self.fields = [name for pieces in self._segments for name, _ in pieces if name and name not in MARKS]
        if not self.fields:
            raise UsageError(f"pattern {pattern!r} shows nothing of an example", hint="name a field: {text}")
        if blank is None and "mask" in dict(pieces for segment in self._segments for pieces in segment):
            self._stop_at_mask()

    def _stop_at_mask(self) -> None:
        """Leaves out what stands behind the mask.

        Raises:
            UsageError: A field does.
        """
        kept: list[list[tuple[str, str]]] = []
        behind: list[tuple[str, str]] = []
        for pieces in self._segments:
            names = [name for name, _ in pieces]
            if "mask" in names:
                cut = names.index("mask")
                kept.append(pieces[:cut])
                behind = pieces[cut + 1 :]
                break
            kept.append(pieces)
        left = [name for pieces in kept for name, _ in pieces if name and name not in MARKS]
        if left != self.fields or any(name for name, _ in behind):
            raise UsageError(
                f"pattern {self.pattern!r} shows something behind the word it asks for: a causal model cannot read it",
                hint="choose one that ends with {mask}",
            )
        # One text: nothing stands between segments of a text that goes on.
        self._segments = [[piece for pieces in kept for piece in pieces]]

    @property
    def start(self) -> int:
        """How many tokens stand in front of the first field of every example: the same for all."""
        fixed = itertools.takewhile(lambda piece: not piece[0] or piece[0] in MARKS, self._segments[0])
        return len(self.layout.front) + sum(len(part.ids) for part in self._fill(list(fixed), {}, 0))

    def encode(self, text: Text, *, masks: int = 0) -> Encoded:
        """The tokens of an example.

        Args:
            text: Its fields.
            masks: How many masks stand at ``{mask}``; default: as the pattern says.

        Raises:
            UsageError: It lacks a field of the pattern, or does not fit whatever is left out of its fields.
        """
        segments = [self._fill(pieces, text, masks) for pieces in self._segments]
        pair = len(segments) == 2
        room = self.max_length - self.layout.extra(pair)
        cut = 0
        while sum(len(part.ids) for parts in segments for part in parts) > room:
            shorter = [sum(len(part.ids) for part in parts if part.field) for parts in segments]
            if not any(shorter):
                raise UsageError(
                    f"pattern {self.pattern!r} alone has more than {self.max_length} tokens",
                    hint="choose a shorter one, or a larger max_length",
                )
            losing = segments[0 if not pair or shorter[0] > shorter[1] else 1]
            next(part for part in reversed(losing) if part.field and part.ids).ids.pop()
            cut += 1
        flat = [[number for part in parts for number in part.ids] for parts in segments]
        ids, types, second = self.layout.write(flat[0], flat[1] if pair else None)
        if not self._ends and not pair:  # what goes on has no end yet
            ids = ids[: len(ids) - len(self.layout.back)]
            types = types[: len(ids)]
        if not ids:  # an empty text, and a tokenizer that puts nothing around it: a model reads at least one token
            ids, types = (self._place,), (0,)
        marks: dict[str, list[int]] = {}
        for parts, start in zip(segments, (len(self.layout.front), second), strict=False):
            place = start
            for part in parts:
                if part.mark:
                    marks.setdefault(part.mark, []).extend(range(place, place + len(part.ids)))
                place += len(part.ids)
        return Encoded(ids, types, {name: tuple(places) for name, places in marks.items()}, cut)

    def _fill(self, pieces: Sequence[tuple[str, str]], text: Text, masks: int) -> list[_Part]:
        parts = []
        for name, literal in pieces:
            if not name:
                parts.append(_Part(list(self.layout.ids(literal))))
            elif name == "mask":
                if self._blank is not None:
                    parts.append(_Part([self._blank] * (masks or int(literal)), mark=name))
            elif name in MARKS:
                parts.append(_Part([self._place] * int(literal), mark=name))
            elif name not in text:
                raise UsageError(
                    f"pattern {self.pattern!r} asks for `{name}`, which an example does not have",
                    hint=f"its fields are {', '.join(text)}",
                )
            else:
                parts.append(_Part(list(self.layout.ids(text[name])), field=name not in self._keep))
        return parts


def _pieces(segment: str) -> list[tuple[str, str]]:
    """Parts of a segment: ``("", literal)``, ``(field, "")`` or ``(mark, number)``."""
    pieces, at = [], 0
    for found in _SLOT.finditer(segment):
        if literal := segment[at : found.start()].strip():
            pieces.append(("", literal))
        pieces.append((found[1], found[2] or ("1" if found[1] in MARKS else "")))
        at = found.end()
    if literal := segment[at:].strip():
        pieces.append(("", literal))
    return pieces
