"""Data sets as data: what must be known of one to find, recognise, fetch and check it, and to say that it is missing.

`benchmark.data` gives out these names, with the folders that hold data and the way to fetch them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import DataMissing

_BLOCK = 1 << 18


def find(names: Sequence[str], root: Path) -> Path | None:
    """The first of the folders ``names`` that exists below ``root``."""
    return next((root / name for name in names if os.path.isdir(root / name)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A file on the net.

    Attributes:
        url: Address; in a `Mirror` the path in its repository.
        file: Name it is stored under, below the data set's folder.
        size: In bytes; anything else is refused.
        md5: Published checksum, hexadecimal.
        sha256: Likewise; one of the two is needed.
        unpack: Folder below the data set's that the archive is unpacked into; empty: it is read as it is.
        inside: Folder of the archive that is the data set's own: what it holds is unpacked there.
    """

    url: str
    file: str
    size: int
    md5: str = ""
    sha256: str = ""
    unpack: str = ""
    inside: str = ""

    def __post_init__(self) -> None:
        """Checks that it can be verified.

        Raises:
            ValueError: It cannot.
        """
        if not self.md5 and not self.sha256:
            raise ValueError(f"{self.url}: a download needs a checksum")

    def __str__(self) -> str:
        return f"{self.url} ({mebibytes(self.size)}, {self.checksum})"

    @property
    def checksum(self) -> str:
        """``md5 ...`` or ``sha256 ...``."""
        return f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}"

    def wrong(self, path: Path) -> str | None:
        """What is wrong with a file that was fetched, or None."""
        kind = "sha256" if self.sha256 else "md5"
        size, found = path.stat().st_size, file_hash(path, kind)
        if size == self.size and found == (self.sha256 or self.md5):
            return None
        return f"{size} bytes, {kind} {found}, instead of {self.size} bytes, {self.checksum}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """Copies of a data set in a repository of the Hugging Face hub.

    Attributes:
        repository: ``owner/name`` of a data set.
        revision: Commit, so that nobody can change what is fetched.
        files: The files; ``url`` is their path in the repository.
    """

    repository: str
    revision: str
    files: tuple[Download, ...]

    def __str__(self) -> str:
        return f"huggingface.co/datasets/{self.repository} at {self.revision[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What was recognised of a data set on disk.

    Attributes:
        name: ``native``, ``tree``, ``parquet``, ``idx``, ...
        files: All files that are read.
        md5: Published checksums of some of them.
    """

    name: str
    files: tuple[Path, ...]
    md5: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """What must be known of a data set to look for it and to say that it is missing.

    Attributes:
        title: For people, e.g. ``CIFAR-100``.
        folders: Accepted folder names below the data root, the preferred one first.
        layouts: Accepted contents of that folder, one readable line each.
        download: How to get it, or None.
        downloads: Where it takes several files, in place of ``download``.
        mirror: Copies on the Hugging Face hub.
        name: For ``bench data``; default: the preferred folder in lower case.
        licence: As the source states it; default: as the scenario does.
        source: Where the data are from, likewise.
        class_names: In the order of the original labels.
        look: ``look(root)`` recognises what is below a data root without decoding it: its form, None where there is
            nothing, `DataMissing` where it is incomplete.
        contents: ``contents(request)`` reads it whole: `Samples` with original labels by part (``train``, ``test``, a
            domain) and notes (``lossy`` where it is a re-encoded copy). Counts are checked there.
        facts: File of its committed statistics (`benchmark.data_facts`).
    """

    title: str
    folders: tuple[str, ...]
    layouts: tuple[str, ...]
    download: Download | None = None
    downloads: tuple[Download, ...] = ()
    mirror: Mirror | None = None
    name: str = ""
    licence: str = ""
    source: str = ""
    class_names: tuple[str, ...] = ()
    look: Callable[[Path], Form | None] | None = None
    contents: Callable[[Any], tuple[Mapping[str, Any], Mapping[str, str]]] | None = None
    facts: Path | None = None

    @property
    def key(self) -> str:
        """Its name in ``bench data``."""
        return self.name or self.folders[0].partition("/")[0].lower()

    @property
    def every_download(self) -> tuple[Download, ...]:
        """All files of its own source."""
        return self.downloads or ((self.download,) if self.download else ())

    @property
    def size(self) -> int:
        """Bytes to fetch, 0 where that is not known."""
        return sum(part.size for part in self.every_download or (self.mirror.files if self.mirror else ()))

    def missing(self, root: Path, reason: str) -> DataMissing:
        """The one error for absent or unusable data: what, where, how to get it, what is accepted."""
        folder = find(self.folders, root) or root / self.folders[0]
        every = self.every_download
        fetch_it = f"fetch {', '.join(map(str, every))} and put it into {folder}{os.sep}; " if every else ""
        if any(part.unpack or part.inside for part in every):
            fetch_it = f"`bench data get {self.key}` fetches and unpacks {', '.join(map(str, every))}; "
        accepted = " | ".join(self.layouts)
        return DataMissing(
            f"{self.title}: {reason}",
            hint=f"{fetch_it}accepted in {folder}{os.sep}: {accepted}; "
            "another data root: --data-root DIR or BENCH_DATA",
        )

    @contextmanager
    def reading(self, root: Path) -> Iterator[None]:
        """Completes the errors of readers inside it: the name of the data set, and what is accepted where.

        Raises:
            DataMissing: In place of one without a hint.
        """
        try:
            yield
        except DataMissing as error:
            if error.hint:
                raise
            raise self.missing(root, error.message) from error


def mebibytes(size: int) -> str:
    """``169001437`` as ``161 MiB``."""
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def file_md5(path: Path) -> str:
    """MD5 of a file, hexadecimal: the checksum that data sets of that age publish."""
    return file_hash(path, "md5")


def file_hash(path: Path, kind: str) -> str:
    """A hash of a file by the name of its kind, hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
