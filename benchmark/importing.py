"""Reads results of other suites through importers, which are plugins, into imported runs beside our records.

What an importer returns is checked here, metrics are computed here, and the hash of the file is taken here: an importer
only reads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from benchmark import families, metrics, registry
from benchmark.errors import DataMissing, UsageError
from benchmark.foreign import ForeignRun, SourceFile
from benchmark.guard import Guard
from benchmark.records import imported
from benchmark.records.imported import Imported
from benchmark.specs import ImporterSpec

MOST = 2**28  # bytes of a file


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the caller knows and the file does not say.

    Attributes:
        method: Name of the method.
        scenario: Name of the scenario, as the suite calls it.
        family: Family of the scenario.
        backbone: Name of the backbone.
        seed: Seed of the run.
        beside: Scenario of ours beside which the rows are to stand.
        track: Track of that table.
    """

    method: str | None = None
    scenario: str | None = None
    family: str | None = None
    backbone: str | None = None
    seed: int | None = None
    beside: str = ""
    track: str = ""


def import_file(name: str, path: Path, told: Told | None = None) -> list[Imported]:
    """Reads every run of a file.

    Args:
        name: Of the importer.
        path: The file.
        told: What the file does not say.

    Returns:
        The runs in the order of the file; nothing is written.

    Raises:
        UsageError: There is no such importer, the file is of another format, or it says something else than the caller.
        DataMissing: There is no such file, or it cannot be read to its end.
        PluginError: The importer is broken.
    """
    told = told or Told()
    loaded = registry.load("importers", name)
    spec = cast("ImporterSpec", loaded.spec)
    if told.family is not None:
        families.get(told.family)
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no result of {spec.suite}: it is no text (byte {error.start})",
            hint=f"{spec.suite} writes {spec.files or 'text'}; docs/importing.md says which file is read",
        ) from error
    guard = Guard(f"importer `{name}` of `{loaded.entry.distribution}`", hint="-v shows where")
    with guard("read"):
        found = list(spec.read(SourceFile(path, text, spec.suite)))
    if not found or not all(isinstance(run, ForeignRun) for run in found):
        raise guard.refuse("read", found, hint="return one benchmark.foreign.ForeignRun or more, or call file.other")
    about = {
        "suite": spec.suite,
        "importer": f"{spec.name} {spec.version} of {loaded.entry.distribution}",
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    runs = [_added(path, run, told) for run in found]
    try:
        return [imported.make(_record(run, about, told)) for run in runs]
    except ValueError as error:
        raise guard.refuse("read", f"what is no run ({error})", hint="see benchmark.records.imported") from error


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataMissing(f"no file at {path}", hint="name a file, not a folder; several at once are fine")
        if path.stat().st_size > MOST:
            raise DataMissing(
                f"{path} has more than {MOST >> 20} MiB", hint="results are smaller; is it the right file?"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataMissing(
            f"{path} cannot be read: {error.strerror or error}", hint="look at its permissions"
        ) from error


def _added(path: Path, run: ForeignRun, told: Told) -> dict[str, Any]:
    """The run with what the caller told.

    Raises:
        UsageError: The file says something else.
    """
    values = {name: getattr(run, name) for name in ForeignRun.__dataclass_fields__}
    for name in ("method", "scenario", "family", "backbone", "seed"):
        said = getattr(told, name)
        if said is None:
            continue
        if values[name] not in (None, said):
            raise UsageError(
                f"--{name} {said}: {path} says {values[name]}", hint=f"leave --{name} out; it is for what no file says"
            )
        values[name] = said
    return values


def _record(run: Mapping[str, Any], about: Mapping[str, str], told: Told) -> dict[str, Any]:
    matrix = None if run["accuracy"] is None else [[_null(value) for value in row] for row in run["accuracy"]]
    tests = run["tests"]
    if tests is None and matrix is not None:
        tests = [str(place) for place in range(max(map(len, matrix), default=0))]
    given = {name: str(value) for name, value in asdict(told).items() if value not in (None, "")}
    identity = [about["importer"], about["sha256"], run["first_line"], run["part"], given]
    return {
        "import_id": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        "source": {**about, "first_line": run["first_line"], "last_line": run["last_line"]},
        "told": given,
        "stands_by": told.beside,
        "track": told.track,
        "tests": None if tests is None else list(tests),
        "counts": None if run["counts"] is None else list(run["counts"]),
        "accuracy": matrix,
        "metrics": _metrics(run, matrix),
        "reported": [_plain(asdict(score)) for score in run["reported"] if math.isfinite(score.value)],
        "config": _plain(run["config"]),
        "facts": _plain(run["facts"]),
        "seeds": dict(run["seeds"]),
        "class_order": None if run["class_order"] is None else list(run["class_order"]),
        "experiences": None if run["experiences"] is None else list(run["experiences"]),
        "tables": {name: [_plain(row) for row in rows] for name, rows in run["tables"].items()},
        "notes": list(run["notes"]),
        **{
            name: run[name]
            for name in ("complete", "method", "part", "scenario", "family", "backbone", "seed", "seed_scope")
        },
        **{name: run[name] for name in ("selection", "decimals")},
    }


def _metrics(run: Mapping[str, Any], matrix: list[list[float | None]] | None) -> dict[str, Any]:
    """Ours, of a matrix of a run that was not cut off."""
    if not matrix or run["complete"] is False or len(matrix) != len(matrix[-1]):
        return {}
    counts = run["counts"] or [None] * len(matrix)
    sizes = [math.nan if count is None else count for count in counts]
    family = families.of_record(run["family"] or "", None)
    return metrics.continual_metrics(matrix, sizes, family=family, transfers=False)


def _null(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _plain(value: Any) -> Any:
    """Values as records hold them: what is no number is text, and what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _inner(item) for key, item in value.items()}
    return _inner(value)


def _inner(value: Any, depth: int = 0) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth < 2 and isinstance(value, Mapping):
        return {str(key): _inner(item, 2) for key, item in value.items()}
    if depth < 2 and isinstance(value, Iterable):
        return [_inner(item, depth + 1) for item in value]
    return json.dumps(value, default=str)
