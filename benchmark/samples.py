"""Samples with labels: rows of a source that may be shared, so that subsets copy nothing (promised in `benchmark.api`).

A source holds samples of one kind: images, uint8 ``(B, 3, H, W)``, or texts, each a mapping of fields such as
``{"text": ...}`` or ``{"premise": ..., "hypothesis": ...}``. A uint8 tensor is a source of images, and a list or tuple
of mappings is a source of texts; whoever reads files as they are asked for implements `Source`.

No set copies its source: `Samples.alone` and `Samples.concat` read through to it. Nothing here imports torch before it
is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast, get_args
from weakref import WeakKeyDictionary

from benchmark.digests import array_digest
from benchmark.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["image", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Text: TypeAlias = Mapping[str, str]
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
            content[start:stop] if isinstance(content, torch.Tensor) else _read(content, torch.arange(start, stop))
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


def _read(content: Content, rows: Tensor) -> Raw:
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
        return _read(content, own[rows])

    def __copy__(self) -> Window:
        return self

    def __deepcopy__(self, memo: object) -> Window:
        return self

    def __reduce__(self) -> str:
        raise TypeError("rows of a source that others share cannot be pickled; keep the samples that were read")


_BEHIND: WeakKeyDictionary[Window, tuple[Content, Tensor]] = WeakKeyDictionary()


class _Joined:
    """Sources of one kind, one after the other; copies nothing."""

    def __init__(self, parts: Sequence[Source]) -> None:
        import torch

        kinds = sorted({part.kind for part in parts})
        if len(kinds) > 1:
            raise ValueError(f"sets of {' and '.join(f'{kind}s' for kind in kinds)} cannot be joined")
        self.kind: Kind = parts[0].kind
        self._parts = tuple(parts)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @property
    def digest(self) -> str:
        """Of the digests of its parts; one that they share is theirs."""
        digests = dict.fromkeys(part.digest for part in self._parts)
        return next(iter(digests)) if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Tensor, /) -> Raw:
        import torch

        which = torch.bucketize(rows, self._ends, right=True)
        starts = torch.cat([self._ends.new_zeros(1), self._ends])
        used = sorted(set(which.tolist())) or [0]  # even nothing has a shape
        found = [self._parts[part][(rows - starts[part])[which == part]] for part in used]
        order = which.argsort(stable=True)  # position in `rows` of each sample found
        if self.kind == "image":
            images = torch.cat(cast("list[Tensor]", found))
            return images[order.argsort()]
        texts = [text for part in found for text in cast("Sequence[Text]", part)]
        return tuple(texts[place] for place in order.argsort().tolist())


class Samples:
    """Samples with labels: rows of a shared source, so subsets copy nothing.

    Args:
        source: The whole data set: a `Source`, a uint8 tensor ``(M, 3, H, W)``, or a list or tuple of texts.
        rows: Rows of the source that belong to this set, int64 ``(N,)``.
        labels: Remapped labels, int64 ``(N,)``.
        ids: Sample ids, int64 ``(N,)``, stable across runs (e.g. the raw index); default `rows`.
        domains: Domain of each sample, int64 ``(N,)``, positions in the experience's ``sources``;
            None when they are of one domain or it does not matter.
    """

    def __init__(
        self,
        source: Content,
        rows: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        domains: Tensor | None = None,
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

    def read(self, index: Tensor | slice) -> Raw:
        """Returns the samples at positions ``index`` of this set: what `images` or `texts` returns.

        They are the caller's own: texts are copied, as every reader would else hold the same mappings.
        """
        found = _read(self.source, self.rows[index])
        return tuple(dict(text) for text in found) if self.kind == "text" else found

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

    def _check(self, wanted: Kind) -> None:
        if self.kind != wanted:
            raise PluginError(
                f"`{wanted}s` was asked of a set of {self.kind}s",
                hint=f"read it with `{self.kind}s`, or with `read` whatever it holds",
            )

    def subset(self, index: Tensor) -> Samples:
        """Returns the set of the given positions, in their order, on the same source."""
        domains = None if self.domains is None else self.domains[index]
        return Samples(self.source, self.rows[index], self.labels[index], self.ids[index], domains)

    def alone(self) -> Samples:
        """The same set on a source that shows its own samples only.

        No sample is copied, but labels, ids and domains are: who is handed the set may change them in place.
        """
        domains = None if self.domains is None else self.domains.clone()
        return Samples(*self._own(), self.labels.clone(), self.ids.clone(), domains)

    def without_labels(self) -> Samples:
        """The same, labels -1: a target that leads to nothing else."""
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
            ValueError: Some hold images, others texts.
        """
        import torch

        source = sets[0].source
        labels = torch.cat([part.labels for part in sets])
        ids = torch.cat([part.ids for part in sets])
        known = [part.domains for part in sets if part.domains is not None]
        domains = torch.cat(known) if len(known) == len(sets) else None
        if all(part.source is source for part in sets):
            return Samples(source, torch.cat([part.rows for part in sets]), labels, ids, domains)
        joined = _Joined([Window(part.source, part.rows) for part in sets])
        return Samples(joined, torch.arange(len(joined)), labels, ids, domains)


ImageSet = Samples
ImageSource = Source
