"""Reads images of the user's own: what lies at a path, hashed, and cut into training and test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from benchmark import readers, splits
from benchmark.config import Range, check_ranges
from benchmark.errors import DataMissing
from benchmark.readers import Array, FileImages, Layout
from benchmark.samples import Samples
from benchmark.scenario import ScenarioRequest

LISTED = 200  # names of files that a note holds


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderConfig:
    """Options of ``folder``.

    Attributes:
        family: What the images are used for: ``class-il``; ``few-shot`` and ``base-to-new`` draw ``shots`` training
            images per class (`bench_scenarios._shots`), base-to-new trains on the first half of the classes.
        experiences: Of a class-incremental stream, each with the same number of new classes.
        split: Instead of ``experiences``: ``10x10``, ``b50-inc10``, ``20,20,10`` (`benchmark.splits.sizes`).
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed) or a list,
            `benchmark.splits.class_order`.
        shots: Training images per class in few-shot and base-to-new.
        size: Larger images are reduced to this shorter side in pixels before anything else; 0 leaves them as they are.
        on_error: What a file that cannot be read does: ``stop``, or ``skip`` with its name in the record.
    """

    family: Literal["class-il", "few-shot", "base-to-new"] = "class-il"
    experiences: Annotated[int, Range(min=1)] = 5
    split: str = ""
    class_order: str = "natural"
    shots: Annotated[int, Range(min=1, max=10_000)] = 16
    size: Annotated[int, Range(min=0)] = 0
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        """Checks ranges; what depends on the data is checked with them."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainsConfig(FolderConfig):
    """Options of ``domains``.

    Attributes:
        family: What the images are used for: ``domain-il``, one experience per domain; ``uda``, labelled in ``source``
            and unlabelled in ``target``, whose images are tested; ``dg``, trained on all domains but ``target``; or,
            with the images of all domains together, ``class-il``, ``few-shot``, ``base-to-new``.
        order: Domains to go through, each at most once; or ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed``.
        source: Labelled domain of ``uda``; default: the first.
        target: Other domain of ``uda`` and ``dg``; default: the last.
    """

    family: Literal["domain-il", "uda", "dg", "class-il", "few-shot", "base-to-new"] = "domain-il"  # type: ignore[assignment]
    order: tuple[str, ...] = ("natural",)
    source: str = ""
    target: str = ""


@dataclass(frozen=True)
class Own:
    """What was found.

    Attributes:
        layout: The images, those that cannot be read left out.
        source: The same as a source.
        train: Rows for training.
        test: Rows for testing.
        notes: For the record.
        partition: What made the two.
    """

    layout: Layout
    source: FileImages
    train: Array
    test: Array
    notes: dict[str, str]
    partition: str

    @property
    def every(self) -> Array:
        """All rows."""
        return np.arange(len(self.layout.labels))

    def subset(self, rows: Array, domains: Array | None = None) -> Samples:
        """Images of the given rows, ids are rows."""
        import torch

        where = None if domains is None else torch.from_numpy(domains)
        return Samples(self.source, torch.from_numpy(rows), torch.from_numpy(self.layout.labels[rows]), None, where)

    def of(self, rows: Array, domain: int) -> Array:
        """Those of the rows that are of a domain."""
        found: Array = rows[self.layout.domains[rows] == domain]
        return found


def load(path: Path, config: FolderConfig, request: ScenarioRequest) -> Own:
    """Finds the images, hashes them unless the index knows them, and cuts them into training and test images."""
    layout = readers.read_layout(path, domains=isinstance(config, DomainsConfig))
    skip = config.on_error == "skip"
    indexed = readers.index_files(layout.found, request.cache, decode=skip)
    notes = {"layout": layout.form}
    if indexed.bad and not skip:
        row = min(indexed.bad)
        more = f", and {len(indexed.bad) - 1} more files cannot be read" if len(indexed.bad) > 1 else ""
        raise DataMissing(
            f"{indexed.bad[row]}{more}",
            hint="repair or remove what `bench data check` lists, or leave it out with --set scenario.on_error=skip",
        )
    if indexed.bad:
        kept = np.array([row for row in range(len(layout.found)) if row not in indexed.bad], np.int64)
        names = [readers.shown(layout.found.names[row]) for row in sorted(indexed.bad)]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        notes["skipped"] = f"{len(names)} files that cannot be read: {', '.join(names[:LISTED])}{more}"
        layout, indexed = layout.take(kept), indexed.take(kept)
        gone = sorted(set(range(len(layout.class_names))) - set(layout.labels.tolist()))
        if gone:
            raise DataMissing(f"no image of class {layout.class_names[gone[0]]} can be read")
    if layout.left_out:
        notes["left out"] = ", ".join(layout.left_out)
    if layout.test is not None:
        train, test = np.flatnonzero(~layout.test), np.flatnonzero(layout.test)
        partition = "given"
    else:
        train, test = _cut(layout)
        partition = "80/20 cut"
        notes["split"] = "80/20 per class" + (" and domain" if layout.domain_names else "") + ", seed 0"
    few = sorted(set(range(len(layout.class_names))) - set(layout.labels[test].tolist()))
    if few:
        names = [layout.class_names[label] for label in few]
        notes["untested"] = f"{len(few)} classes have no test image: {', '.join(names[:LISTED])}"
    if not len(test):
        raise DataMissing("no class has the 5 images of which one is for testing; add images, or a folder test")
    source = FileImages(indexed, short=config.size)
    return Own(layout, source, train, test, notes, partition)


def _cut(layout: Layout) -> tuple[Array, Array]:
    parts = []
    for domain in range(max(len(layout.domain_names), 1)):
        rows = np.flatnonzero(layout.domains == domain)
        kept, held = splits.train_test(layout.labels[rows])
        parts.append((rows[kept], rows[held]))
    train, test = (np.sort(np.concatenate([part[place] for part in parts])) for place in (0, 1))
    return train, test
