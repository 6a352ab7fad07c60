"""Bundles: records, predictions, locks and tables of a paper in one zip file that anybody can check (`bench verify`).

=================== =============================================================================
``MANIFEST.json``   `Manifest`: every other file with its hash
``records/``        records as they were written, and their predictions, as in a results folder
``locks/``          lock files of the scenarios (`benchmark.locks`)
``tables/``         what was rendered from the records
``environment.json``  what the runs were computed with, by distinct environment
``README.md``       how to check it
=================== =============================================================================

The same content gives the same bytes: entries are sorted and carry no date.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct

from benchmark.errors import DataMissing
from benchmark.files import replace_file, sha256

FORMAT: Literal["adaptbench bundle 1"] = "adaptbench bundle 1"
MANIFEST = "MANIFEST.json"
RECORDS, LOCKS, TABLES, ENVIRONMENT = "records", "locks", "tables", "environment.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold
_PACKED = frozenset({".parquet"})  # compressed already


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle.

    Attributes:
        sha256: Of its content.
        bytes: Its size.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Meta(ge=0)]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle holds.

    Attributes:
        format: Of the bundle.
        adaptbench: Version that made it: another may render tables otherwise.
        methods: Methods that the tables show beside the controls; empty for all.
        exporters: Table formats by track file, ``{"nano.csv": "csv"}``.
        no_predictions: Runs without predictions; their numbers rest on their records alone.
        no_lock: Locks that could not be made, with the reason.
        files: Every other file of the bundle.
    """

    format: Literal["adaptbench bundle 1"] = FORMAT
    adaptbench: str
    methods: list[str]
    exporters: dict[str, str]
    no_predictions: list[str]
    no_lock: dict[str, str]
    files: dict[str, File]


def write(path: Path, contents: Mapping[str, bytes | Path], **about: Any) -> Manifest:
    """Writes a bundle, whole or not at all.

    Args:
        path: Of the zip file.
        contents: By name, what is in it or where it lies.
        about: The other attributes of `Manifest`.

    Raises:
        RunFailed: It cannot be written, or a file cannot be read.
    """
    listed = {}
    for name in sorted(contents):
        content = contents[name]
        if isinstance(content, Path):
            listed[name] = File(sha256=sha256(content), bytes=content.stat().st_size)
        else:
            listed[name] = File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    manifest = Manifest(files=listed, **about)

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
            archive.writestr(_entry(MANIFEST), text)
            for name in listed:
                content = contents[name]
                archive.writestr(_entry(name), content.read_bytes() if isinstance(content, Path) else content)

    replace_file(path, fill)
    return manifest


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if Path(name).suffix in _PACKED else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def read(folder: Path) -> Manifest:
    """The manifest of a bundle that was unpacked into a folder.

    Raises:
        DataMissing: There is none, or it cannot be read.
    """
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DataMissing(f"no bundle: it holds no {MANIFEST}", hint="`bench bundle -o FILE.zip` makes one") from None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise DataMissing(f"damaged bundle: {MANIFEST}: {error}", hint="get it again from where it came") from error


def wrong_files(folder: Path, manifest: Manifest) -> list[str]:
    """What is otherwise in a folder than a manifest says: files that are changed, gone or not listed."""
    there = {str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    told = [f"{name}: is not there" for name in sorted(manifest.files.keys() - there)]
    told += [f"{name}: is not in the manifest" for name in sorted(there - manifest.files.keys())]
    told += [
        f"{name}: the content differs from what the manifest says (sha256)"
        for name in sorted(there & manifest.files.keys())
        if sha256(folder / name) != manifest.files[name].sha256
    ]
    return told
