"""Records: one JSON file per run, written once, read for ever.

``<out>/<scenario with '/' as '-'>/<method>[@recipe]/<run id>.json``. The layout is
`benchmark.records.schema`. Older schemas are upgraded on reading (`benchmark.records.upgrades`); a newer one is
refused.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmark.errors import DataMissing, RunFailed, UsageError
from benchmark.files import replace_file
from benchmark.records.schema import SCHEMA, Record, explain, parse, plain
from benchmark.records.sharing import Shared
from benchmark.records.upgrades import UPGRADES

TABLES_FORMAT = "adaptbench-tables"
"""Value of ``format`` in JSON files that hold tables, which may lie among records."""
IMPORTED_FORMAT = "adaptbench-imported"
"""The same of results of other suites (`benchmark.records.imported`)."""

_LARGEST = 2**28  # bytes of a record: the largest streams need a tenth of it
_decode = msgspec.json.Decoder(Record).decode


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not a readable record.

    Attributes:
        path: The file.
        message: What is wrong, with the path.
    """

    path: Path
    message: str


def write(path: Path, record: Record | Mapping[str, Any]) -> Record:
    """Writes a record atomically, keys sorted, numbers at full precision.

    Returns:
        What was written.

    Raises:
        RunFailed: The disk is full, the folder cannot be written, or a value is NaN or infinite.
        ValueError: The record does not follow the schema.
    """
    content = plain(record) if isinstance(record, Record) else record
    bad = next(_not_finite(content, ""), None)
    if bad is not None:
        raise RunFailed(f"{path}: {bad} cannot be stored", hint="undefined values are null in records")
    try:
        checked = parse(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    replace_file(path, (dumps(plain(checked)) + "\n").encode())
    return checked


def read(path: Path) -> Record:
    """Reads a record and upgrades it to the current schema.

    Raises:
        DataMissing: No such file, damaged JSON, a missing key, or a schema newer than this program.
    """
    record = _parse(path)
    if record is None:
        raise DataMissing(
            f"{path} holds tables or imported results, not a record", hint="records are named like `<run id>.json`"
        )
    return record


def read_all(folder: Path) -> tuple[list[Record], list[Problem]]:
    """Reads every record below a folder, in the order of their paths.

    Args:
        folder: Results folder. Hidden files, ``*.work`` folders of unfinished runs and rendered
            tables are passed over.

    Returns:
        The good records, and what is wrong with the other files.

    Raises:
        UsageError: There is no such folder.
    """
    found, problems = locate(folder)
    return list(found.values()), problems


def locate(folder: Path) -> tuple[dict[str, Record], list[Problem]]:
    """As `read_all`, with the path of every record.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"no results folder {folder}", hint="`bench run` makes `runs/`; or give --results DIR")
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    shared = Shared()
    with without_garbage_collection():
        for path in json_files(str(folder), problems):
            try:
                record = _parse(path, shared)
            except DataMissing as error:
                problems.append(Problem(Path(path), error.message))
            else:
                if record is not None:
                    records[path] = record
    return records, problems


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For work that makes millions of objects and no cycles: looking for some would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def find(folder: Path, run_id: str) -> Path:
    """Finds a record by the beginning of its run id.

    Raises:
        UsageError: None or several runs begin so, or there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"no results folder {folder}", hint="give the path of a record, or --results DIR")
    paths = [path for path in map(Path, json_files(str(folder), [])) if path.stem.startswith(run_id)]
    if len({path.stem for path in paths}) > 1:
        shown = ", ".join(sorted({path.stem for path in paths})[:5])
        raise UsageError(f"several runs begin with `{run_id}`: {shown}", hint="give more of its id")
    if not paths:
        raise UsageError(
            f"no run `{run_id}` in {folder}", hint="give the path of a record, or the folder with --results DIR"
        )
    return paths[0]


def named(given: Path, folder: Path) -> Path:
    """The path of a record that a user named: by its path, or by the beginning of its run id.

    Args:
        given: Path or beginning of a run id.
        folder: Where run ids are looked up.

    Raises:
        UsageError: There is none, or there are several.
    """
    if given.is_file():
        return given
    if given.suffix or len(given.parts) > 1:
        raise UsageError(f"no record at {given}", hint="give the path of a record, or a run id with --results DIR")
    return find(folder, str(given))


def comparable(record: Record) -> dict[str, Any]:
    """The record as plain values without timing, provenance and model: equal for two executions of the same run."""
    return {key: value for key, value in plain(record).items() if key not in ("timing", "provenance", "model")}


def json_files(
    folder: str, problems: list[Problem], above: tuple[str, ...] = (), real: str | None = None
) -> Iterator[str]:
    """Paths of ``*.json`` files, sorted; several times faster than ``Path.rglob``.

    Args:
        folder: Where to look.
        problems: Takes the folders that cannot be read.
        above: Folders in which it lies.
        real: Its path without links, where that is known: asking takes as long as looking.
    """
    real = real or os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that it lies in
    try:
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
    except OSError as error:
        problems.append(Problem(Path(folder), f"cannot read folder {folder}: {error.strerror}"))
        return
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            if not item.name.endswith(".work"):
                known = None if item.is_symlink() else os.path.join(real, item.name)
                yield from json_files(item.path, problems, (*above, real), known)
        elif item.name.endswith(".json"):
            yield item.path


def _parse(path: Path | str, shared: Shared | None = None) -> Record | None:
    """The upgraded record, or None for a file of tables or of another suite.

    Args:
        path: The file.
        shared: What it may have in common with others.
    """
    text = read_bytes(path)
    if shared is not None:
        with contextlib.suppress(ValueError, RecursionError):  # told below, with the whole key
            return shared.decode(text)
    try:
        return _decode(text)
    except msgspec.ValidationError as error:  # of an older schema, most often
        wrong = explain(error)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    try:
        content = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if isinstance(content, dict) and content.get("format") in (TABLES_FORMAT, IMPORTED_FORMAT):
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema < 1:
        raise DataMissing(f"{path} is no record: no schema number", hint="records are named like `<run id>.json`")
    if schema > SCHEMA:
        raise DataMissing(
            f"{path} has schema {schema}, newer than {SCHEMA}, the newest this adaptbench can read",
            hint="upgrade with `pip install -U adaptbench`",
        )
    if schema == SCHEMA:
        raise _damaged(path, wrong)
    try:
        for step in range(schema, SCHEMA):
            content = UPGRADES[step](content)
        return parse(content)
    except KeyError as error:
        raise _damaged(path, f"{error.args[0]} is missing") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    except (TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, f"it does not follow schema {schema} ({error})") from error


def read_bytes(path: Path | str) -> bytes:
    """The content of a record's file.

    Raises:
        DataMissing: There is none, or it cannot be a record.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST:
            raise DataMissing(
                f"{path} is no record: {'too large' if stat.S_ISREG(about.st_mode) else 'no regular file'}",
                hint="records are JSON files of some kilobytes",
            )
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataMissing(f"no record at {path}", hint="give the path of a record, or a run id") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _damaged(path, str(error)) from error


def _damaged(path: Path | str, wrong: str) -> DataMissing:
    return DataMissing(f"damaged record: {path}: {wrong}", hint="run it again with --force")


def _not_finite(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _not_finite(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield from _not_finite(part, f"{key}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key} = {value}"


def dumps(value: Any, indent: str = "") -> str:
    """JSON with one key per line, and lists of numbers on one line so that matrices stay readable."""
    deeper = indent + " "
    if isinstance(value, Mapping) and value:
        lines = [f"{deeper}{json.dumps(str(key))}: {dumps(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return "[\n" + ",\n".join(deeper + dumps(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
