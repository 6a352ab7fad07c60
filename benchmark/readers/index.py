"""Hashes of image files, read once: an index by path, size and times, in the cache folder.

A tree whose files have the sizes and times that the index has is not read again. Of the two times, that of the last
change is one that copying and unpacking cannot set. While a file is hashed it is also looked at: one that is cut off or
no image is known before anything is trained on its neighbours.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing, RunFailed
from benchmark.files import replace_file
from benchmark.readers import files
from benchmark.readers.cache import DAMAGE
from benchmark.readers.images import MOST_IMAGE_BYTES, complete, open_image
from benchmark.readers.walk import Found

FOLDER = "files"
_VERSION = 1
_THREADS = 4
_AT_ONCE = 512
_SAVED_EVERY = 100_000  # files: an interrupted first reading does not begin again
HASHED, DECODED = 1, 2


@dataclass(frozen=True)
class Indexed:
    """Files and what is known of their content.

    Attributes:
        found: The files.
        digests: SHA-256 of each file's bytes, uint8 ``(N, 32)``.
        bad: Why a file cannot be read as an image, by row.
        read: How many files were read for it now.
    """

    found: Found
    digests: npt.NDArray[np.uint8]
    bad: Mapping[int, str] = field(default_factory=dict)
    read: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of the files, in their order."""
        return hashlib.sha256(self.digests.tobytes()).hexdigest()

    def take(self, rows: npt.NDArray[np.int64]) -> Indexed:
        """Some of the files, none of which may be a bad one."""
        return Indexed(self.found.take(rows), self.digests[rows])


def index_files(found: Found, cache: Path, *, decode: bool = False, quiet: bool = False) -> Indexed:
    """Hashes files, or takes their hashes from the index.

    Args:
        found: The files, from `benchmark.readers.walk`.
        cache: Cache folder; the index is written there if it can be.
        decode: Decode every image to be sure that it can be. Otherwise only those that do not look complete.
        quiet: No progress bar.

    Raises:
        DataMissing: A file cannot be opened at all.
    """
    place = _place(found.root, cache)
    digests = np.zeros((len(found), 32), np.uint8)
    level = np.zeros(len(found), np.uint8)
    bad: dict[int, str] = {}
    kept = _load(place)
    if kept is not None:
        _take(kept, found, digests, level, bad)
    todo = np.flatnonzero(level < (DECODED if decode else HASHED))
    if not len(todo):
        return Indexed(found, digests, bad)
    from tqdm import tqdm

    look = functools.partial(_look, found, decode)
    unsaved = 0
    bar = tqdm(total=len(todo), desc="reading image files", unit="img", disable=True if quiet else None, leave=False)
    with bar, ThreadPoolExecutor(_THREADS) as pool:
        parts = np.array_split(todo, max(1, -(-len(todo) // _AT_ONCE)))
        for rows, answers in zip(parts, pool.map(look, parts), strict=True):
            for row, (digest, problem) in zip(rows.tolist(), answers, strict=True):
                digests[row] = np.frombuffer(digest, np.uint8)
                level[row] = DECODED if decode or problem else HASHED
                bad.pop(row, None)
                if problem:
                    bad[row] = problem
            bar.update(len(rows))
            unsaved += len(rows)
            if unsaved >= _SAVED_EVERY:
                _save(place, found, digests, level, bad)
                unsaved = 0
    _save(place, found, digests, level, bad)
    return Indexed(found, digests, bad, len(todo))


def _look(found: Found, decode: bool, rows: npt.NDArray[np.int64]) -> list[tuple[bytes, str]]:
    """Hash of each file, and what is wrong with it."""
    answers = []
    for row in rows.tolist():
        path = found.path(row)
        try:
            blob = files.read_bytes(path, most=MOST_IMAGE_BYTES)
        except DataMissing as error:
            answers.append((bytes(32), error.message))
            continue
        problem = ""
        if decode or not complete(blob):
            try:
                open_image(files.shown(found.names[row]), blob)
            except DataMissing as error:
                problem = error.message
        answers.append((hashlib.sha256(blob).digest(), problem))
    return answers


def _place(root: Path, cache: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    return cache / FOLDER / f"{name}.npz"


def _load(place: Path) -> Mapping[str, Any] | None:
    """What was kept, or None where there is nothing that can be used."""
    try:
        with np.load(place, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ("version", "blob", "ends", "state", "digests", "level", "bad")}
    except FileNotFoundError:
        return None
    except (*DAMAGE, OSError):
        return None  # damaged, or of another version: made anew
    rows = len(arrays["ends"])
    sound = int(arrays["version"]) == _VERSION and all(
        len(arrays[name]) == rows for name in ("state", "digests", "level")
    )
    return arrays if sound else None


def _take(
    kept: Mapping[str, Any],
    found: Found,
    digests: npt.NDArray[np.uint8],
    level: npt.NDArray[np.uint8],
    bad: dict[int, str],
) -> None:
    """Copies what is kept of files that have not changed since."""
    names, told = found.names, json.loads(kept["bad"].tobytes())
    if np.array_equal(kept["ends"], names.ends) and np.array_equal(kept["blob"], names.blob):
        own = theirs = np.arange(len(found))
    else:
        blob, ends = kept["blob"].tobytes(), kept["ends"].tolist()
        rows = {blob[start:end]: row for row, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))}
        pairs = [(row, rows[raw]) for row in range(len(found)) if (raw := names.raw(row)) in rows]
        own, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
    same = (kept["state"][theirs] == found.state[own]).all(axis=1)
    own, theirs = own[same], theirs[same]
    digests[own], level[own] = kept["digests"][theirs], kept["level"][theirs]
    if told:
        place = dict(zip(theirs.tolist(), own.tolist(), strict=True))
        bad.update({place[int(row)]: problem for row, problem in told.items() if int(row) in place})


def _save(
    place: Path,
    found: Found,
    digests: npt.NDArray[np.uint8],
    level: npt.NDArray[np.uint8],
    bad: Mapping[int, str],
) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        version=np.int64(_VERSION),
        blob=found.names.blob,
        ends=found.names.ends,
        state=found.state,
        digests=digests,
        level=level,
        bad=np.frombuffer(json.dumps(bad).encode(), np.uint8),
    )
    try:
        replace_file(place, buffer.getvalue())
    except RunFailed:  # a cache that cannot be written is none; the files are read again next time
        return
