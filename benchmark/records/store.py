"""Records: one JSON file per run, written once, read for ever.

``<out>/<scenario with '/' as '-'>/<method>[@recipe]/<run id>.json``. The layout is
`benchmark.records.schema`. Older schemas are upgraded on reading, one step at a time; a newer one
is refused.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmark.errors import DataMissing, RunFailed, UsageError
from benchmark.files import replace_file
from benchmark.records.schema import check

SCHEMA = 2
IDENTITY = 1
"""The last schema that changed what a run is; part of its identity (`benchmark.run.plan.Plan.run_id`). Schema 2 only
says more about a run, so a run that was recorded under schema 1 is not done again."""
TABLES_FORMAT = "adaptbench-tables"
"""Value of ``format`` in JSON files that hold tables, which may lie among records."""

# Bytes to "0" for digits, " " for what can stand before a number, "x" for the rest (quotes: hashes are no numbers).
_SHAPES = bytes(
    ord("0") if chr(c).isdecimal() else ord(" ") if chr(c) in " [,:-\n\r\t" else ord("x") for c in range(256)
)
_LONG_NUMBER = b" " + b"0" * 19

Record = dict[str, Any]


def upgrade_1_to_2(record: Record) -> Record:
    """Schema 2 tells how the model was selected, and names the test sets, the target and the variant's option."""
    try:
        scenario, config = record["scenario"], record["config"]
        effective = config["effective"]
        parts = scenario["experiences"]
        own = len(parts) == len(record["counts"])
        names = [(parts[place]["domain"] if own else None) or str(place) for place in range(len(record["counts"]))]
        return {
            **record,
            "schema": 2,
            "scenario": {
                **scenario,
                "experiences": [{**part, "target": None} for part in parts],
                "tests": [{"name": name, "further": False} for name in names],
                "transductive": False,
                "variant_option": "",
            },
            "config": {
                **config,
                "effective": {**effective, "engine": {**effective.get("engine", {}), "select": "last"}},
            },
            "selection": {"rule": "last", "chosen": [], "scores": []},
        }
    except (KeyError, TypeError, AttributeError, IndexError):
        return {**record, "schema": 2}  # damaged: the check says what is missing


_UPGRADES: dict[int, Callable[[Record], Record]] = {1: upgrade_1_to_2}
"""``{n: upgrade_n_to_n_plus_1}``; each returns a new record and never edits the file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not a readable record.

    Attributes:
        path: The file.
        message: What is wrong, with the path.
    """

    path: Path
    message: str


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record atomically, keys sorted, numbers at full precision.

    Raises:
        RunFailed: The disk is full, the folder cannot be written, or a value is NaN or infinite.
        ValueError: The record does not follow the schema.
    """
    bad = next(_not_finite(record, ""), None)
    if bad is not None:
        raise RunFailed(f"{path}: {bad} cannot be stored", hint="undefined values are null in records")
    wrong = check(record)
    if wrong is not None:
        raise ValueError(f"{path}: {wrong}")
    replace_file(path, (_dumps(record) + "\n").encode())


def read(path: Path) -> Record:
    """Reads a record and upgrades it to the current schema.

    Raises:
        DataMissing: No such file, damaged JSON, a missing key, or a schema newer than this program.
    """
    record = _parse(path)
    if record is None:
        raise DataMissing(f"{path} holds tables, not a record", hint="records are named like `<run id>.json`")
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
    if not folder.is_dir():
        raise UsageError(f"no results folder {folder}", hint="`bench run` makes `runs/`; or give --results DIR")
    records: list[Record] = []
    problems: list[Problem] = []
    with without_garbage_collection():
        for path in _json_files(str(folder)):
            try:
                record = _parse(path)
            except DataMissing as error:
                problems.append(Problem(Path(path), error.message))
            else:
                if record is not None:
                    records.append(record)
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
    paths = [path for path in map(Path, _json_files(str(folder))) if path.stem.startswith(run_id)]
    if len({path.stem for path in paths}) > 1:
        shown = ", ".join(sorted({path.stem for path in paths})[:5])
        raise UsageError(f"several runs begin with `{run_id}`: {shown}", hint="give more of its id")
    if not paths:
        raise UsageError(
            f"no run `{run_id}` in {folder}", hint="give the path of a record, or the folder with --results DIR"
        )
    return paths[0]


def comparable(record: Mapping[str, Any]) -> Record:
    """The record without timing and provenance: equal for two executions of the same run."""
    return {key: value for key, value in record.items() if key not in ("timing", "provenance")}


def _json_files(folder: str) -> Iterator[str]:
    """Paths of ``*.json`` files, sorted; several times faster than ``Path.rglob``."""
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            if not item.name.endswith(".work"):
                yield from _json_files(item.path)
        elif item.name.endswith(".json"):
            yield item.path


def _parse(path: Path | str) -> Record | None:
    """The upgraded record, or None for a file of tables."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        # orjson is several times as fast, but rounds integers of more than 64 bits, which json keeps.
        content = json.loads(text) if _LONG_NUMBER in text.translate(_SHAPES) else orjson.loads(text)
    except FileNotFoundError:
        raise DataMissing(f"no record at {path}", hint="give the path of a record, or a run id") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: JSON and UTF-8
        raise DataMissing(f"damaged record: {path}: {error}", hint="run it again with --force") from error
    if isinstance(content, dict) and content.get("format") == TABLES_FORMAT:
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema < 1:
        raise DataMissing(f"damaged record: {path}: no schema number", hint="is this a record of `bench run`?")
    if schema > SCHEMA:
        raise DataMissing(
            f"{path} has schema {schema}, newer than {SCHEMA}, the newest this adaptbench can read",
            hint="upgrade with `pip install -U adaptbench`",
        )
    for step in range(schema, SCHEMA):
        content = _UPGRADES[step](content)
    wrong = check(content)
    if wrong is not None:
        raise DataMissing(f"damaged record: {path}: {wrong}", hint="run it again with --force")
    record: Record = content
    return record


def _not_finite(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _not_finite(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield from _not_finite(part, f"{key}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key} = {value}"


def _dumps(value: Any, indent: str = "") -> str:
    """JSON with one key per line, and lists of numbers on one line so that matrices stay readable."""
    deeper = indent + " "
    if isinstance(value, Mapping) and value:
        lines = [f"{deeper}{json.dumps(str(key))}: {_dumps(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return "[\n" + ",\n".join(deeper + _dumps(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
