"""Samples with labels: rows of a source that may be shared, so that subsets copy nothing (promised in `benchmark.api`).

A source holds samples of one kind: images, uint8 ``(B, 3, H, W)``, or texts, each a mapping of fields such as
``{"text": ...}`` or ``{"premise": ..., "hypothesis": ...}``. A uint8 tensor is a source of images, and a list or tuple
of mappings is a source of texts; whoever reads files as they are asked for implements `Source`.

What is to be written about a sample, where texts are generated, are its *references*: like a label they belong to the
set, are no part of the source, and are hidden where labels are. All labels of such a set are 0, of the one class
``text``, so that the code that splits, counts and balances classes needs no other way.

No set copies its source: `Samples.alone` and `Samples.concat` read through to it. Nothing here imports torch before it
is used. It is one file because windows, joins and the way through them share what must not be seen from outside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, cast, get_args
from weakref import WeakKeyDictionary

from benchmark.digests import array_digest
from benchmark.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["image", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Text: TypeAlias = Mapping[str, str]
References: TypeAlias = tuple[tuple[str, ...], ...]
Raw: TypeAlias = "Tensor | Sequence[Text]"


_BLOCK = 256  # samples hashed at once


class Source(Protocol):
    """Samples by row, read when they are asked for: a memory map, a decoder of files, a table of texts."""

    @property
    def kind(self) -> Kind:
        """What it holds."""

    @property
    def digest(self) -> str:
        """SHA-256 of the decoded content, in hexadecimal: two sources with one digest hold the same samples.

        It enters the fingerprint of a scenario and keys caches.
        """

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: Tensor, /) -> Raw:
        """Returns the samples at int64 ``rows`` (B,): uint8 images ``(B, 3, H, W)``, or B texts."""


Content: TypeAlias = "Source | Tensor | Sequence[Text]"


def kind_of(content: Content) -> Kind:
    """What a source holds."""
    import torch

    if isinstance(content, torch.Tensor):
        return "image"
    return "text" if isinstance(content, (list, tuple)) else cast("Source", content).kind


def digest_of(content: Content) -> str:
    """The digest of a source, see `Source.digest`: its own, else computed by reading every sample once."""
    import torch

    own = None if isinstance(content, (torch.Tensor, list, tuple)) else getattr(content, "digest", None)
    if isinstance(own, str):
        return own
    digest, dtype, shape = hashlib.sha256(), "text", (len(content),)
    for start in range(0, len(content), _BLOCK):
        stop = min(start + _BLOCK, len(content))
        part: Raw = (
            content[start:stop] if isinstance(content, torch.Tensor) else read(content, torch.arange(start, stop))
        )
        if isinstance(part, torch.Tensor):
            array = part.detach().cpu().contiguous().numpy()
            digest.update(array.data)
            dtype, shape = str(array.dtype), (len(content), *array.shape[1:])
        else:
            for text in part:
                digest.update((json.dumps(dict(text), sort_keys=True) + "\n").encode())
    return array_digest(dtype, shape, digest.hexdigest())


class Pixels:
    """Images in memory as a source that is hashed once.

    Args:
        images: uint8 ``(M, 3, H, W)``.
        digest: Theirs where it is known, e.g. from `benchmark.readers.Arrays`; else it is computed when asked for.
    """

    kind: Kind = "image"

    def __init__(self, images: Tensor, digest: str | None = None) -> None:
        self._images = images
        self._digest = digest

    @property
    def digest(self) -> str:
        """See `Source.digest`."""
        if self._digest is None:
            self._digest = digest_of(self._images)
        return self._digest

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self._images[rows]


def read(content: Content, rows: Tensor, cut: Any = None) -> Raw:
    """The samples at some rows of a source, of files cut to squares as ``cut`` says."""
    if cut is not None:
        return assembled(parts_of(content, rows), cut)
    if isinstance(content, (list, tuple)):
        return tuple(content[row] for row in rows.tolist())
    return cast("Source", content)[rows]


class Window:
    """Some rows of a source as a source of their own: it copies nothing, and nothing leads from it to other rows.

    Which source, and which rows of it, is kept apart from the object: a path or a row number often tells the class. A
    copy of a window is the window itself; it cannot be pickled.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, content: Content, rows: Tensor) -> None:
        if isinstance(content, Window):
            content, own = _BEHIND[content]
            rows = own[rows]
        _BEHIND[self] = (content, rows)

    @property
    def kind(self) -> Kind:
        """What the source holds."""
        return kind_of(_BEHIND[self][0])

    @property
    def digest(self) -> str:
        """That of the whole source."""
        return digest_of(_BEHIND[self][0])

    def __len__(self) -> int:
        return len(_BEHIND[self][1])

    def __getitem__(self, rows: Tensor, /) -> Raw:
        content, own = _BEHIND[self]
        return read(content, own[rows])

    def __copy__(self) -> Window:
        return self

    def __deepcopy__(self, memo: object) -> Window:
        return self

    def __reduce__(self) -> str:
        raise TypeError("rows of a source that others share cannot be pickled; keep the samples that were read")


_BEHIND: WeakKeyDictionary[Window, tuple[Content, Tensor]] = WeakKeyDictionary()


def behind(content: Content) -> Content:
    """The source that a window shows rows of, or the source itself."""
    return _BEHIND[content][0] if isinstance(content, Window) else content


class _Joined:
    """Sources of one kind, one after the other; copies nothing."""

    def __init__(self, parts: Sequence[Source]) -> None:
        import torch

        kinds = sorted({part.kind for part in parts})
        if len(kinds) > 1:
            raise ValueError(f"sets of {' and '.join(f'{kind}s' for kind in kinds)} cannot be joined")
        self.kind: Kind = parts[0].kind
        self.parts = tuple(parts)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @property
    def digest(self) -> str:
        """Of the digests of its parts; one that they share is theirs."""
        digests = dict.fromkeys(part.digest for part in self.parts)
        return next(iter(digests)) if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def located(self, rows: Tensor) -> list[tuple[Source, Tensor, Tensor]]:
        """The parts that rows are in, the rows there, and their places among those asked for."""
        import torch

        which = torch.bucketize(rows, self._ends, right=True)
        starts = torch.cat([self._ends.new_zeros(1), self._ends])
        used = sorted(set(which.tolist())) or [0]  # even nothing has a shape
        return [
            (self.parts[part], (rows - starts[part])[which == part], (which == part).nonzero().flatten())
            for part in used
        ]

    def __getitem__(self, rows: Tensor, /) -> Raw:
        import torch

        located = self.located(rows)
        found = [part[own] for part, own, _ in located]
        order = torch.cat([places for *_, places in located])  # position in `rows` of each sample found
        if self.kind == "image":
            images = torch.cat(cast("list[Tensor]", found))
            return images[order.argsort()]
        texts = [text for part in found for text in cast("Sequence[Text]", part)]
        return tuple(texts[place] for place in order.argsort().tolist())


class Part(NamedTuple):
    """Rows of one source, without windows and joins around it.

    Attributes:
        source: The source.
        rows: Rows of it, int64 ``(K,)``.
        places: Where they stand among the rows that were asked for, int64 ``(K,)``.
    """

    source: Content
    rows: Tensor
    places: Tensor


def parts_of(content: Content, rows: Tensor, places: Tensor | None = None) -> list[Part]:
    """Which rows of which sources a request for ``rows`` reads."""
    import torch

    places = torch.arange(len(rows)) if places is None else places
    if isinstance(content, Window):
        inner, own = _BEHIND[content]
        return parts_of(inner, own[rows], places)
    if isinstance(content, _Joined):
        return [part for inner, own, mine in content.located(rows) for part in parts_of(inner, own, places[mine])]
    return [Part(content, rows, places)]


def sources_of(content: Content) -> Iterator[Content]:
    """The sources that a set reads, without windows and joins around them."""
    if isinstance(content, Window):
        yield from sources_of(_BEHIND[content][0])
    elif isinstance(content, _Joined):
        for part in content.parts:
            yield from sources_of(part)
    else:
        yield content


def in_files(content: Content) -> bool:
    """Whether all samples are images that are decoded when they are asked for (`benchmark.readers.FileImages`)."""
    return all(hasattr(source, "cut") for source in sources_of(content))


def assembled(parts: Sequence[Part], cut: Any = None) -> Tensor:
    """The images of a request in its order, uint8 ``(B, 3, S, S)``.

    Args:
        parts: From `parts_of`, all of sources of files where ``cut`` is given.
        cut: How each image is cut (`benchmark.inputs.cuts`); None: as the sources give them.
    """
    import torch

    found = [
        cast("Tensor", read(source, rows)) if cut is None else cast(Any, source).cut(rows, cut.at(places.numpy()))
        for source, rows, places in parts
    ]
    if len(found) == 1 and torch.equal(parts[0].places, torch.arange(len(parts[0].places))):
        return cast("Tensor", found[0])
    order = torch.cat([part.places for part in parts])
    return torch.cat(found)[order.argsort()]


def changed(content: Content, change: Callable[[Content], Content]) -> Content:
    """The same windows and joins around other sources of the same rows."""
    if isinstance(content, Window):
        inner, own = _BEHIND[content]
        return Window(changed(inner, change), own)
    if isinstance(content, _Joined):
        return _Joined([cast("Source", changed(part, change)) for part in content.parts])
    return change(content)


class Samples:
    """Samples with labels: rows of a shared source, so subsets copy nothing.

    Args:
        source: The whole data set: a `Source`, a uint8 tensor ``(M, 3, H, W)``, or a list or tuple of texts.
        rows: Rows of the source that belong to this set, int64 ``(N,)``.
        labels: Remapped labels, int64 ``(N,)``.
        ids: Sample ids, int64 ``(N,)``, stable across runs (e.g. the raw index); default `rows`.
        domains: Domain of each sample, int64 ``(N,)``, positions in the experience's ``sources``;
            None when they are of one domain or it does not matter.
        references: For each sample the texts of which any one would be right to generate, at least one, in the order of
            the set; None where samples are classified, and where they are hidden.
    """

    def __init__(
        self,
        source: Content,
        rows: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        domains: Tensor | None = None,
        references: Sequence[Sequence[str]] | None = None,
    ) -> None:
        import torch

        self.source = source
        self.rows = rows.to(torch.int64)
        self.labels = labels.to(torch.int64)
        self.ids = self.rows if ids is None else ids.to(torch.int64)
        self.domains = None if domains is None else domains.to(torch.int64)
        if not len(self.rows) == len(self.labels) == len(self.ids):
            raise ValueError(f"rows, labels and ids differ in length: {len(rows)}, {len(labels)}, {len(self.ids)}")
        if domains is not None and len(domains) != len(self.rows):
            raise ValueError(f"rows and domains differ in length: {len(rows)}, {len(domains)}")
        self.references: References | None = None
        if references is not None:
            self.references = tuple(_texts(texts) for texts in references)
            if len(self.references) != len(self.rows):
                raise ValueError(f"rows and references differ in length: {len(rows)}, {len(self.references)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        """What the source holds."""
        return kind_of(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(3, H, W)`` of the stored images, before any resizing."""
        _, channels, height, width = self.images(slice(0, 1)).shape
        return channels, height, width

    def read(self, index: Tensor | slice, cut: Any = None) -> Raw:
        """Returns the samples at positions ``index`` of this set: what `images` or `texts` returns.

        They are the caller's own: texts are copied, as every reader would else hold the same mappings.

        Args:
            index: Positions in this set.
            cut: Of images in files (`in_files`): how each whole image is cut (`benchmark.inputs.cuts`).
        """
        found = read(self.source, self.rows[index], cut)
        return tuple(dict(text) for text in found) if self.kind == "text" else found

    def on(self, change: Callable[[Content], Content]) -> Samples:
        """The same set on other sources of the same rows."""
        return Samples(changed(self.source, change), self.rows, self.labels, self.ids, self.domains)

    def images(self, index: Tensor | slice) -> Tensor:
        """Returns uint8 images ``(B, 3, H, W)`` at positions ``index`` of this set.

        Raises:
            PluginError: The set holds texts.
        """
        self._check("image")
        return cast("Tensor", self.read(index))

    def texts(self, index: Tensor | slice) -> Sequence[Text]:
        """Returns B texts, mappings of fields, at positions ``index`` of this set.

        Raises:
            PluginError: The set holds images.
        """
        self._check("text")
        return cast("Sequence[Text]", self.read(index))

    def fields(self) -> Sequence[Text]:
        """The fields of all samples, as predictions keep them beside what was generated; images have none."""
        return self.texts(slice(None)) if self.kind == "text" else [{}] * len(self)

    def _check(self, wanted: Kind) -> None:
        if self.kind != wanted:
            raise PluginError(
                f"`{wanted}s` was asked of a set of {self.kind}s",
                hint=f"read it with `{self.kind}s`, or with `read` whatever it holds",
            )

    def subset(self, index: Tensor) -> Samples:
        """Returns the set of the given positions, in their order, on the same source."""
        domains = None if self.domains is None else self.domains[index]
        references = self.referring(index)
        return Samples(self.source, self.rows[index], self.labels[index], self.ids[index], domains, references)

    def referring(self, index: Tensor) -> References | None:
        """The references of the samples at positions ``index``, or None where there are none."""
        return None if self.references is None else tuple(self.references[place] for place in index.tolist())

    def without_domains(self) -> Samples:
        """The same set, where it is not told which domain a sample is of."""
        return Samples(self.source, self.rows, self.labels, self.ids, references=self.references)

    def alone(self) -> Samples:
        """The same set on a source that shows its own samples only.

        No sample is copied, but labels, ids and domains are: who is handed the set may change them in place.
        """
        domains = None if self.domains is None else self.domains.clone()
        return Samples(*self._own(), self.labels.clone(), self.ids.clone(), domains, self.references)

    def without_labels(self) -> Samples:
        """The same, labels -1 and no references: a target that leads to nothing else."""
        import torch

        return Samples(*self._own(), torch.full_like(self.labels, -1), self.ids)

    def _own(self) -> tuple[Source, Tensor]:
        import torch

        return Window(self.source, self.rows), torch.arange(len(self))

    @staticmethod
    def concat(sets: Sequence[Samples]) -> Samples:
        """Joins sets of one kind, one after the other; nothing is copied.

        Domains are kept when every set has them.

        Raises:
            ValueError: Some hold images, others texts; or some have references, others none.
        """
        import torch

        source = sets[0].source
        labels = torch.cat([part.labels for part in sets])
        ids = torch.cat([part.ids for part in sets])
        known = [part.domains for part in sets if part.domains is not None]
        domains = torch.cat(known) if len(known) == len(sets) else None
        told = [part.references for part in sets if part.references is not None]
        if told and len(told) < len(sets):
            raise ValueError("sets with references and sets without cannot be joined")
        references = tuple(texts for part in told for texts in part) if told else None
        if all(part.source is source for part in sets):
            return Samples(source, torch.cat([part.rows for part in sets]), labels, ids, domains, references)
        joined = _Joined([Window(part.source, part.rows) for part in sets])
        return Samples(joined, torch.arange(len(joined)), labels, ids, domains, references)


def _texts(texts: Sequence[str]) -> tuple[str, ...]:
    """The references of one sample.

    Raises:
        ValueError: There is none, or they are something else.
    """
    found = () if isinstance(texts, str) else tuple(texts)
    if not found or not all(isinstance(text, str) for text in found):
        raise ValueError(f"references: {texts!r:.200} is no sequence of one or more texts; give one tuple per sample")
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"references: {texts!r:.200} holds half a character: {error.reason}") from error
    return found


ImageSet = Samples
ImageSource = Source
