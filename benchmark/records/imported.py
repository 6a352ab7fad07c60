"""Results of other suites: one JSON file per run of theirs, of a layout of its own.

An `Imported` is no `Record`: nothing that takes records is ever given one, so none can be averaged with a run of ours.
Whatever their file does not say is null. ``accuracy`` and ``reported`` are theirs, ``metrics`` are ours, computed from
``accuracy``. The files lie among records: ``<out>/imported/<importer>/<import id>.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from benchmark.errors import DataMissing
from benchmark.files import replace_file
from benchmark.records.schema import Count, Integer, Metric, Number, Option, Options, Part, Sha256, Share, explain
from benchmark.records.store import IMPORTED_FORMAT, Problem, dumps, json_files, read_bytes, without_garbage_collection

SCHEMA = 1
FOLDER = "imported"


def _text(description: str, **rules: Any) -> Any:
    return Meta(description=description, **rules)


class Source(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a run was read from."""

    suite: Annotated[str, _text("Who wrote the file, e.g. LAMDA-PILOT.")]
    importer: Annotated[str, _text("Who read it: name, version, package.")]
    file: Annotated[str, _text("Its name, without a folder.")]
    sha256: Sha256
    first_line: Annotated[Count, _text("Of the run, from 1.")]
    last_line: Count


class Score(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number that the suite reported itself."""

    name: Annotated[str, _text("As the suite calls it.")]
    value: Annotated[Number, _text("A fraction where `unit` says so.")]
    unit: Annotated[Literal["fraction", "megabytes"] | None, _text("Null: the file does not fix it.")]
    definition: Annotated[str, _text("What the number is, as far as the suite's code says.")]
    metric: Annotated[str, _text("Metric of ours that has the same definition, or empty.")] = ""
    decimals: Annotated[Count | None, _text("To which it was printed, in percent; null: in full.")] = None
    n: Annotated[Count | None, _text("Test samples.")] = None
    error: Annotated[Number | None, _text("Standard error that the suite gave.")] = None


class Imported(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of another suite; null is what its file does not say."""

    format: Literal["adaptbench-imported"]
    schema: Annotated[Literal[1], _text("Version of this layout.")]
    import_id: Annotated[str, _text("Hash of file, place, importer and what was told.", pattern=r"^[0-9a-f]{16}$")]
    source: Source
    complete: Annotated[bool | None, _text("Whether the run came to its end.")]
    notes: Annotated[list[str], _text("What a reader must know.")]
    told: Annotated[dict[str, str], _text("What the caller added, by option of `bench import`.")]
    stands_by: Annotated[str, _text("Scenario of ours beside which its rows stand; the caller says so; or empty.")]
    track: Annotated[str, _text("The track, likewise.")]
    method: str | None
    part: Annotated[str, _text("Of several classifiers of one run, e.g. NME; or empty.")]
    scenario: Annotated[str | None, _text("As the suite calls it.")]
    family: Annotated[str | None, _text("Where the file fixes it.")]
    backbone: Annotated[str | None, _text("Its name; nobody vouches for the weights.")]
    seed: Integer | None
    seeds: Annotated[dict[str, Integer], _text("All seeds that the suite has, by its names.")]
    seed_scope: Annotated[str, _text("What the seed varies, where that is not everything.")]
    selection: Annotated[str, _text("How the model was selected, where that is told.")]
    class_order: list[Integer] | None
    experiences: Annotated[list[Count] | None, _text("Number of classes of each.")]
    tests: Annotated[list[str] | None, _text("Names of the columns of accuracy.")]
    counts: Annotated[list[Count | None] | None, _text("Test samples per column.")]
    config: Annotated[Options, _text("Options as the file has them; runs with equal ones are one row over seeds.")]
    facts: Annotated[Options, _text("What else differs from run to run, e.g. the device.")]
    accuracy: Annotated[list[list[Share | None]] | None, _text("R (T, E): row = time, column = test set.")]
    decimals: Annotated[Count | None, _text("To which accuracies were printed, in percent; null: in full.")]
    metrics: Annotated[dict[str, Metric], _text("Computed by us from accuracy; empty where there is none.")]
    reported: Annotated[list[Score], _text("Computed by the suite.")]
    tables: Annotated[dict[str, list[dict[str, Option]]], _text("What fits nowhere else, e.g. groups of ten classes.")]

    def __post_init__(self) -> None:
        """Checks what parts say of one another.

        Raises:
            ValueError: They contradict each other.
        """
        sets = len(self.tests) if self.tests is not None else None
        for time, row in enumerate(self.accuracy or []):
            if len(row) != sets:
                raise ValueError(f"accuracy[{time}] has {len(row)} entries, tests has {sets}")
        if self.counts is not None and len(self.counts) != sets:
            raise ValueError(f"counts has {len(self.counts)} entries, tests has {sets}")
        if self.metrics and self.accuracy is None:
            raise ValueError("metrics are given, but accuracy is null")
        if self.source.first_line > self.source.last_line:
            raise ValueError("source.last_line lies before source.first_line")

    @property
    def path(self) -> Path:
        """Where it goes, below a results folder."""
        return Path(FOLDER, self.source.importer.partition(" ")[0], f"{self.import_id}.json")

    def number(self, metric: str) -> tuple[float | None, bool]:
        """A metric, and whether the suite computed it rather than we."""
        value = self.metrics.get(metric)
        if value is not None and not isinstance(value, list):
            return value, False
        return next(((score.value, True) for score in self.reported if score.metric == metric), (None, False))


_decode = msgspec.json.Decoder(Imported).decode


def make(content: dict[str, Any]) -> Imported:
    """An imported run from plain values.

    Raises:
        ValueError: They do not follow the layout; the message has the full key.
    """
    try:
        return msgspec.convert({**content, "format": IMPORTED_FORMAT, "schema": SCHEMA}, Imported)
    except msgspec.ValidationError as error:
        raise ValueError(explain(error)) from None


def write(out: Path, run: Imported) -> Path:
    """Writes an imported run below a results folder.

    Returns:
        Its path.

    Raises:
        RunFailed: The file cannot be written.
    """
    path = out / run.path
    replace_file(path, (dumps(msgspec.to_builtins(run)) + "\n").encode())
    return path


def read(path: Path) -> Imported:
    """Reads one imported run.

    Raises:
        DataMissing: No such file, damaged, or not of this layout.
    """
    try:
        return _decode(read_bytes(path))
    except msgspec.ValidationError as error:
        wrong = explain(error)
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    raise DataMissing(f"{path} is no imported run: {wrong}", hint="`bench import` writes it again")


def read_all(folder: Path) -> tuple[list[Imported], list[Problem]]:
    """The imported runs below a results folder, in the order of their paths, and what is wrong with the other files."""
    found: list[Imported] = []
    problems: list[Problem] = []
    with without_garbage_collection():
        place = folder / FOLDER
        for path in json_files(str(place), problems) if place.is_dir() else []:
            try:
                found.append(read(Path(path)))
            except DataMissing as error:
                problems.append(Problem(Path(path), error.message))
    return found, problems
