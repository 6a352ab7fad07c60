"""Decoded arrays kept beside what they were decoded from: named by their sources, checked when read."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.digests import array_digest
from benchmark.errors import RunFailed
from benchmark.files import replace_file
from benchmark.readers.files import cannot_read, opened

Array = npt.NDArray[Any]

DAMAGE = (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged entry ends with, beside what the file system says."""
MANIFEST = "arrays.json"
"""Its name tells its layout: a folder that an earlier version filled under another name is filled anew."""


@dataclass(frozen=True)
class Arrays:
    """Arrays of one cache entry.

    Attributes:
        arrays: By name.
        notes: Facts found while they were made.
        digests: Hash of the content of each array (`benchmark.digests.array_digest`).
    """

    arrays: dict[str, Array]
    notes: dict[str, str]
    digests: dict[str, str]


def file_key(paths: Sequence[Path], base: Path, *extra: str) -> str:
    """Hash of what tells source files apart without reading them: names, sizes, times, first bytes.

    Of the two times, that of the last change is one that copying and unpacking cannot set: an archive or a copy gives
    other data of the same sizes the same time of modification.

    Args:
        paths: Source files. The first 64 KiB of at most the first 16 are read.
        base: Names are relative to it.
        extra: Anything else that the derived arrays depend on.

    Raises:
        DataMissing: One of them cannot be read.
    """
    digest = hashlib.sha256(json.dumps(extra).encode())
    for number, path in enumerate(paths):
        try:
            state = path.stat()
        except OSError as error:
            raise cannot_read(path, error) from error
        digest.update(os.fsencode(path.relative_to(base).as_posix()))
        digest.update(f" {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}\n".encode())
        if number < 16:
            with opened(path, most=sys.maxsize) as file:
                digest.update(file.read(1 << 16))
    return digest.hexdigest()[:24]


def cached_arrays(folder: Path, build: Callable[[], tuple[dict[str, Array], dict[str, str]]]) -> Arrays:
    """Arrays and notes of ``build``, kept as ``.npy`` files with a manifest of their SHA-256 and its own.

    Missing or damaged files are built again; a folder that cannot be written gives a warning only.

    Args:
        folder: Of this set of arrays alone; its name holds everything they depend on (`file_key`).
        build: Makes the arrays by name, and notes.
    """
    manifest = folder / MANIFEST
    if os.path.isfile(manifest):
        try:
            return _read(folder, json.loads(manifest.read_text(encoding="utf-8")))
        except (*DAMAGE, OSError, MemoryError) as error:
            print(f"{folder} is damaged ({error}); it is made again", file=sys.stderr, flush=True)
    arrays, notes = build()
    entries, digests = {}, {}
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in kept.items():
        entries[name], digests[name] = _entry(array)
    try:
        for name, array in kept.items():
            replace_file(folder / f"{name}.npy", functools.partial(np.save, arr=array, allow_pickle=False))
        # Last: without a manifest that fits, the arrays do not count.
        told = {"arrays": entries, "notes": notes}
        replace_file(manifest, json.dumps({**told, "sha256": _hash(told)}, indent=1).encode())
    except RunFailed as error:
        _warn_once(folder.parent, str(getattr(error.__cause__, "strerror", None) or error.message))
    return Arrays(kept, notes, digests)


def _read(folder: Path, manifest: Mapping[str, Any]) -> Arrays:
    if _hash({"arrays": manifest["arrays"], "notes": manifest["notes"]}) != manifest["sha256"]:
        raise ValueError(f"{MANIFEST} is not what was written")
    arrays, digests = {}, {}
    for name, entry in manifest["arrays"].items():
        with open(folder / f"{name}.npy", "rb") as file:
            array = np.load(file, allow_pickle=False)
        found, digests[name] = _entry(array)
        if found != entry:
            raise ValueError(f"{name}.npy is not what its manifest says")
        arrays[name] = array
    return Arrays(arrays, {str(key): str(value) for key, value in manifest["notes"].items()}, digests)


def _hash(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _entry(array: Array) -> tuple[dict[str, Any], str]:
    """What the manifest says of an array, and the hash of its content: its bytes are hashed once for both."""
    sha256 = hashlib.sha256(array.data).hexdigest()
    entry = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": sha256}
    return entry, array_digest(str(array.dtype), array.shape, sha256)


@functools.cache
def _warn_once(folder: Path, problem: str) -> None:
    warnings.warn(f"decoded images are not cached: {folder} cannot be written ({problem})", stacklevel=4)
