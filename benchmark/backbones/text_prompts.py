"""Learned vectors between the words of a dual encoder's texts: what CoOp, CoCoOp, DAPL and their like share.

A text begins with M placeholder words; their embeddings give way to learned vectors, the others stay as they are::

    lead, ctx = first_context(dual, vectors=16)                 # "X X ... X" and N(0, 0.02^2), (M, d_t)
    lead, ctx = first_context(dual, words="a photo of a")       # these words and their embeddings
    prompts = TextPrompts(dual, placeholders(names, lead), vectors=len(ctx))
    t = prompts.features(ctx)                                    # (C, d), gradients reach ctx

The text tower does as little as possible: it runs up to the last end-of-text token, and what texts begin with alike,
the start token and shared vectors in front of the name, passes it once. Contexts broadcast to
``(..., R, M, d_t)``, and rows and features have the same leading axes:

* one for all texts: ``(M, d_t)``; one per text (class-specific): ``(R, M, d_t)``;
* one per image (CoCoOp): ``(B, 1, M, d_t)`` gives features ``(B, R, d)``, some images at a time;
* one per domain (DAPL): ``groups=D`` and ``(D, M, d_t)``, texts domain by domain::

    texts = domain_placeholders(names, domains, lead)            # D * C, domain-major
    prompts = TextPrompts(dual, texts, vectors=M1 + M2, groups=len(domains))
    t = prompts.features(domain_contexts(ctx, domain_vectors))   # (D * C, d)

``rows(ctx)`` and ``ends`` are what `DualEncoder.encode_text` takes, for methods that do more with them.

`TextPrompts` belongs to one list of names and keeps no state: make another one when classes come. `PromptBank` does
so, and keeps the features of all classes for prediction as long as the vectors do not change.

Shapes: B images, R texts, C classes, D domains, M vectors, n tokens, d_t text width, d feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmark.backbones.dual import DualEncoder, spoken
from benchmark.errors import UsageError

Position = Literal["end", "middle", "front"]

PLACEHOLDER = "X"  # one token in CLIP's vocabulary; another word might split
CHUNK = 1024  # texts encoded at once when each image has its own
KEPT_PROMPTS, KEPT_FEATURES = 2, 16  # lists of names whose embedded texts and features a `PromptBank` keeps


def first_context(
    dual: DualEncoder, *, vectors: int = 0, words: str = "", classes: int = 0, std: float = 0.02
) -> tuple[str, Tensor]:
    """The words in front of a class name, and the vectors that take their place before training.

    Args:
        dual: The dual encoder.
        vectors: M; with ``words`` their number counts instead.
        words: Start from these, separated by blanks (or underscores); empty: draw from a normal distribution. The
            rule of CoOp: M is the number of *words*, and where one of them is several tokens, the first M tokens of
            the phrase are trained and the rest stay frozen behind them.
        classes: C for vectors per class, 0 for vectors that all classes share. Not together with ``words``.
        std: Of the normal distribution.

    Returns:
        The placeholder words, and ``(M, d_t)`` or ``(C, M, d_t)``; a copy, drawn on the CPU with the global generator.

    Raises:
        UsageError: ``words`` holds nothing, or the tokenizer makes fewer tokens than words of it.
    """
    if not words:
        shape = (vectors, dual.text_width) if classes == 0 else (classes, vectors, dual.text_width)
        return blank_words(vectors), nn.init.normal_(torch.empty(shape), std=std)
    if classes:
        raise ValueError("vectors per class start from random numbers, not from words")
    lead = spoken(words).split()
    ids = dual.tokenizer.encode(" ".join(lead))
    if not lead or len(ids) < len(lead):
        raise UsageError(
            f"no context can start from the words {words!r}: they give {len(ids)} tokens",
            hint='use plain words, e.g. "a photo of a"',
        )
    first = torch.tensor(ids[: len(lead)], device=dual.logit_scale.device)
    return " ".join(lead), dual.embed(first).detach().clone()


def blank_words(vectors: int) -> str:
    """``X X ... X``: M placeholder words of one token each."""
    return " ".join([PLACEHOLDER] * vectors)


def placeholders(names: Sequence[str], lead: str, *, ending: str = ".") -> list[str]:
    """``X X X X sea turtle.`` for each class.

    Args:
        names: C class names; underscores become blanks.
        lead: The placeholder words (`first_context`).
        ending: What follows a name.
    """
    return [f"{lead} {spoken(name)}{ending}" for name in names]


def domain_placeholders(names: Sequence[str], domains: Sequence[str], lead: str, *, stop: str = "..") -> list[str]:
    """``X X X X sea turtle , a sketch image..`` for each domain and class, domain-major, as DAPL writes it.

    Args:
        names: C class names; underscores become blanks.
        domains: D names of domains; underscores stay.
        lead: The placeholder words of both kinds of vectors.
        stop: The end of the text: two full stops, which are one token of CLIP, in the official code.
    """
    return [text for domain in domains for text in placeholders(names, lead, ending=f" , a {domain} image{stop}")]


def domain_contexts(shared: Tensor, own: Tensor) -> Tensor:
    """Contexts of domain-major texts: the vectors that domains share, then those of the domain.

    Args:
        shared: ``(M1, d_t)``, or ``(C, M1, d_t)`` if they are class-specific.
        own: ``(D, M2, d_t)``.

    Returns:
        ``(D, M1 + M2, d_t)``, or ``(D * C, M1 + M2, d_t)``.
    """
    domains = len(own)
    if shared.ndim == 2:
        return torch.cat([shared.expand(domains, -1, -1), own], dim=1)
    classes = len(shared)
    both = [shared.expand(domains, -1, -1, -1), own.unsqueeze(1).expand(-1, classes, -1, -1)]
    return torch.cat(both, dim=2).flatten(0, 1)


class TextPrompts:
    """Texts with places for M learned vectors.

    Args:
        dual: The dual encoder.
        texts: R texts, each beginning with the placeholder words.
        vectors: M.
        names: The class name in each text; needed unless the vectors stand in front of it.
        position: Where the name stands: at the ``end``; in the ``middle``, behind M // 2 of the vectors; in ``front``
            of all of them. The rest of the text, e.g. its full stop, always stays last.
        groups: Texts come in so many groups of equal size, which may have a context each (`domain_placeholders`).

    Attributes:
        ids: The placeholder texts as tokens, int64 ``(R, n)``; n is the longest of them.
        ends: Position of each text's end-of-text token, int64 ``(R,)``, on the CPU; the same in all layouts.
        lengths: Tokens of the class name alone, int64 ``(R,)``; 0 without ``names``.
        frozen: Embeddings of all tokens in their places, ``(R, n, d_t)``; those at ``places`` do not count.
        places: Positions of the vectors, int64 ``(R, M)``.

    Raises:
        UsageError: A text is longer than the text tower takes, or the tower takes no embedded prompts.
    """

    def __init__(
        self,
        dual: DualEncoder,
        texts: Sequence[str],
        *,
        vectors: int,
        names: Sequence[str] = (),
        position: Position = "end",
        groups: int = 1,
    ) -> None:
        if len(names) != len(texts) and (names or position != "end"):
            raise ValueError(f"{len(texts)} texts need as many names, not {len(names)}")
        if groups < 1 or len(texts) % groups:
            raise ValueError(f"{len(texts)} texts do not make {groups} groups of equal size")
        self.dual = dual
        self.vectors = vectors
        self.groups = groups
        tokens = dual.tokenize(texts)
        self.ids, self.ends = tokens.ids, tokens.ends
        device = self.ids.device
        lengths = [len(dual.tokenizer.encode(spoken(name))) for name in names] or [0] * len(texts)
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=device)
        # h vectors stand before the name, the others behind its L tokens.
        before = {"end": vectors, "middle": vectors // 2, "front": 0}[position]
        self._before = before
        name = self.lengths.unsqueeze(1)
        vector = torch.arange(vectors, device=device).expand(len(texts), -1)
        self.places = 1 + vector + torch.where(vector < before, 0, name)
        place = torch.arange(self.ids.shape[1], device=device).expand(len(texts), -1)
        inside = (place > before) & (place <= before + name)
        source = torch.where(inside, place + vectors - before, place)  # tokens of the name move over the vectors
        self.frozen = dual.embed(self.ids.gather(1, source)).detach()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ctx: Tensor) -> Tensor:
        """Embedded texts ``(..., R, n, d_t)``, without positions.

        Args:
            ctx: ``(M, d_t)``, or ``(..., K, M, d_t)`` with K one of 1, the number of groups, R.
        """
        ctx = self._checked(ctx)
        ctx = ctx.repeat_interleave(len(self) // ctx.shape[-3], dim=-3)
        index = self.places.unsqueeze(-1).expand_as(ctx)
        return self.frozen.expand(*ctx.shape[:-3], -1, -1, -1).scatter(-2, index, ctx.to(self.frozen.dtype))

    def _checked(self, ctx: Tensor) -> Tensor:
        """The context with an axis for texts, ``(..., K, M, d_t)``."""
        count, width = len(self), self.frozen.shape[-1]
        ctx = ctx.unsqueeze(0) if ctx.ndim == 2 else ctx
        if ctx.shape[-3] not in (1, self.groups, count) or ctx.shape[-2:] != (self.vectors, width):
            raise ValueError(
                f"a context of shape {tuple(ctx.shape)} does not fit {count} texts in {self.groups} groups "
                f"with {self.vectors} vectors of width {width}"
            )
        return ctx

    def features(self, ctx: Tensor, deep: Tensor | None = None, *, chunk: int = CHUNK) -> Tensor:
        """Text features ``(..., R, d)``, not normalised; gradients reach the context.

        Args:
            ctx: As for `rows`.
            deep: Vectors that take their place at the entry of the second block of the tower, the third and so on,
                ``(J, M, d_t)``; the context is then one for all texts, ``(M, d_t)``, in front of the names.
            chunk: With leading axes, about so many texts are encoded at once. That bounds the memory where no
                gradients are kept; in training, split the batch and go backward part by part.
        """
        if deep is not None and (ctx.ndim != 2 or self._before < self.vectors):
            raise ValueError("deep vectors need one context for all texts, in front of the names")
        ctx = self._checked(ctx)
        lead = ctx.shape[:-3]
        images = ctx.flatten(0, -4) if lead else ctx.unsqueeze(0)  # (B, K, M, d_t)
        parts = [self._encode(some, deep) for some in torch.split(images, max(1, chunk // len(self)))]
        return torch.cat(parts).view(*lead, len(self), -1)

    def _encode(self, ctx: Tensor, deep: Tensor | None) -> Tensor:
        """Features ``(B * R, d)`` for contexts ``(B, K, M, d_t)``.

        What the texts of one context begin with alike, the start token and the vectors in front of the name, goes
        through the tower once.
        """
        rows, ends = self.rows(ctx).flatten(0, 1), self.ends.repeat(len(ctx))
        alike = 1 + (self._before if ctx.shape[1] < len(self) or deep is not None else 0)
        first = rows[:: len(self) // ctx.shape[1] if alike > 1 else len(rows), :alike]
        return self.dual.encode_text(rows[:, alike:], ends, shared=first, deep=deep)


class ContextVectors(nn.Module):
    """Learned vectors: M that all classes share, or M for each class, which grow with the classes seen.

    A state dict of another number of classes can be loaded: the vectors take its size.

    Args:
        start: Shared vectors ``(M, d_t)``, or ``(C, M, d_t)`` for a start with C classes, e.g. from `first_context`.
        std: Of the normal distribution from which the vectors of further classes are drawn.

    Attributes:
        vectors: The parameter.
    """

    def __init__(self, start: Tensor, *, std: float = 0.02) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.clone())
        self.std = std

    @property
    def per_class(self) -> bool:
        """Whether each class has its own vectors."""
        return self.vectors.ndim == 3

    def grow(self, classes: int) -> bool:
        """Adds vectors up to ``classes``, if each class has its own; the old ones keep their values.

        The parameter is a new object afterwards: make the optimiser after growing.

        Returns:
            Whether anything changed.
        """
        if not self.per_class or classes <= len(self.vectors):
            return False
        shape = (classes - len(self.vectors), *self.vectors.shape[1:])
        fresh = nn.init.normal_(torch.empty(shape), std=self.std).to(self.vectors)
        self.vectors = nn.Parameter(torch.cat([self.vectors.detach(), fresh]))
        return True

    def of(self, classes: Sequence[int]) -> Tensor:
        """The context of some classes: ``(M, d_t)``, or ``(K, M, d_t)``, as `TextPrompts` takes it."""
        return self.vectors[list(classes)] if self.per_class else self.vectors

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}vectors")
        if self.per_class and isinstance(stored, Tensor) and len(stored) != len(self.vectors):
            self.vectors = nn.Parameter(self.vectors.new_empty(len(stored), *self.vectors.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class PromptBank:
    """Prompts of the classes asked for, and their features as long as the vectors do not change.

    It holds no state of the run: what is kept is compared with the vectors, number by number, and made anew when they
    differ, so that resumed, copied and converted methods predict what they should.

    Args:
        place: Makes the prompts of a list of names.
    """

    def __init__(self, place: Callable[[Sequence[str]], TextPrompts]) -> None:
        self._place = place
        self._prompts: dict[tuple[str, ...], TextPrompts] = {}
        self._features: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    def prompts(self, names: Sequence[str]) -> TextPrompts:
        """The prompts of these names."""
        key = tuple(names)
        if key not in self._prompts:
            _make_room(self._prompts, KEPT_PROMPTS)
            self._prompts[key] = self._place(key)
        return self._prompts[key]

    @torch.no_grad()
    def features(self, names: Sequence[str], ctx: Tensor, deep: Tensor | None = None) -> Tensor:
        """Text features ``(R, d)`` of these names under the context, without gradients; computed once."""
        key, vectors = tuple(names), ctx if deep is None else torch.cat([ctx.unsqueeze(0), deep])
        known = self._features.get(key)
        if known is None or not _same(known[0], vectors):
            found = self.prompts(names).features(ctx, deep)
            _make_room(self._features, KEPT_FEATURES)
            known = self._features[key] = (vectors.detach().clone(), found)
        return known[1]


def _make_room(kept: dict[tuple[str, ...], Any], most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]


def _same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype and one.device == two.device and torch.equal(one, two)
