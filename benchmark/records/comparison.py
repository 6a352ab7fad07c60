"""Two records of one run, part by part: what is equal, what differs, and by how much. A pure function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from benchmark.files import sha256
from benchmark.records import predictions
from benchmark.records.schema import Record

Group = Literal["what ran", "result", "machine"]
MOST = 6  # names in a detail
NEAR = 1e-6  # of metrics, and of losses relative to them: what another processor makes of the same sums


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of two records.

    Attributes:
        group: ``what ran``, ``result`` or ``machine``.
        name: Of the part.
        equal: None where one of them does not tell.
        detail: What differs, or what is equal.
        near: Whether what differs does so by rounding alone: by no more than `NEAR`.
    """

    group: Group
    name: str
    equal: bool | None
    detail: str = ""
    near: bool = False


def compare(old: Record, new: Record, *, old_file: Path | None = None, new_file: Path | None = None) -> list[Part]:
    """Compares a record with that of its repetition.

    Args:
        old: The record.
        new: That of the repetition.
        old_file: Predictions of the first; None or absent where they were not kept.
        new_file: Predictions of the repetition.
    """
    return [*_ran(old, new), *_results(old, new, old_file, new_file), *_machine(old, new)]


def verdict(parts: Sequence[Part]) -> str:
    """The results in a sentence."""
    known = {part.name: part.equal for part in parts if part.group == "result"}
    if known.get("predictions file") is True:
        return "equal bit for bit"
    if known.get("predictions") is True:
        return "equal predictions"
    near = {part.name for part in parts if part.near}
    names = ("predictions", "accuracy", "metrics", "losses")
    told = []
    for word, chosen in (
        ("different", [name for name in names if known.get(name) is False and name not in near]),
        ("equal", [name for name in names if known.get(name) is True]),
        (f"equal within {NEAR:g}", [name for name in names if name in near]),
    ):
        if chosen:
            told.append(f"{word} {', '.join(chosen)}")
    return "; ".join(told) + ("; single predictions are not compared" if known.get("predictions") is None else "")


def reproduced(parts: Sequence[Part]) -> bool:
    """Whether no result is known to differ; the bytes of the predictions file may, where what it holds does not."""
    results = [part for part in parts if part.group == "result" and part.name != "predictions file"]
    return all(part.equal is not False or part.near for part in results)


def _ran(old: Record, new: Record) -> Iterator[Part]:
    def part(name: str, one: Any, other: Any, detail: str = "") -> Part:
        return Part(group="what ran", name=name, equal=one == other, detail="" if one == other else detail)

    a, b = old.scenario, new.scenario
    known = bool(a.content and b.content)
    yield Part(
        group="what ran",
        name="data and split",
        equal=a.fingerprint == b.fingerprint if known else None,
        detail="" if known else "the record does not say what its data decoded to",
    )
    yield part("class order", a.class_order, b.class_order, "another permutation")
    yield part("weights", old.backbone.sha256, new.backbone.sha256, "another file")
    yield _mapping("inputs", old.inputs.facts, new.inputs.facts)
    one, other = (msgspec.to_builtins(record.config.effective) for record in (old, new))
    flat = [{f"{group}.{name}": v for group in values for name, v in values[group].items()} for values in (one, other)]
    yield _mapping("options", *flat)
    yield part("seeds", old.seeds, new.seeds, "other seeds")
    yield part("code", old.identity.code, new.identity.code, f"{old.identity.code[:8]} is now {new.identity.code[:8]}")
    if old.identity.engine == 0:
        told = "the record is older than the number of the engine; its code is hashed in another way"
        yield Part(group="what ran", name="engine", equal=None, detail=told)
    else:
        numbers = f"number {old.identity.engine} is now {new.identity.engine}"
        yield part("engine", old.identity.engine, new.identity.engine, numbers)
    yield part("run id", old.run_id, new.run_id, f"{old.run_id} is now {new.run_id}")


def _mapping(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Options that both have are compared; what only one has is told."""
    differing = [
        f"{key}: {old[key]} is now {new[key]}" for key in sorted(old.keys() & new.keys()) if old[key] != new[key]
    ]
    alone = [f"{key} only before" for key in sorted(old.keys() - new.keys())]
    added = [f"{key}={new[key]} only now" for key in sorted(new.keys() - old.keys())]
    return Part(
        group="what ran", name=name, equal=not differing and not alone, detail=_listed(differing + alone + added)
    )


def _results(old: Record, new: Record, old_file: Path | None, new_file: Path | None) -> Iterator[Part]:
    yield _file(old, new, new_file)
    yield _predictions(old, old_file, new_file)
    yield _matrix(old, new)
    yield _metrics(old, new)
    yield _losses(old, new)


def _file(old: Record, new: Record, new_file: Path | None) -> Part:
    """By hash; where older versions wrote fewer columns, also by that of the file that they would have written."""
    name = "predictions file"
    if old.predictions is None or new.predictions is None:
        return Part(group="result", name=name, equal=None, detail="one of them has none")
    if old.predictions.sha256 == new.predictions.sha256:
        return Part(group="result", name=name, equal=True)
    if new_file is not None and new_file.is_file():
        fewer = predictions.encoded(replace(predictions.read(new_file), prediction_in_task=None))
        if hashlib.sha256(fewer).hexdigest() == old.predictions.sha256:
            return Part(
                group="result", name=name, equal=True, detail="but for the column prediction_in_task, which is new"
            )
    return Part(group="result", name=name, equal=False, detail="other bytes (SHA-256)")


def _predictions(old: Record, old_file: Path | None, new_file: Path | None) -> Part:
    def unknown(detail: str) -> Part:
        return Part(group="result", name="predictions", equal=None, detail=detail)

    if old_file is None or not old_file.is_file() or new_file is None or not new_file.is_file():
        return unknown("those of the record were not kept beside it")
    if old.predictions is not None and sha256(old_file) != old.predictions.sha256:
        return unknown(f"{old_file.name} is not the file that the record names")
    one, other = predictions.read(old_file), predictions.read(new_file)
    if len(one) != len(other):
        return Part(group="result", name="predictions", equal=False, detail=f"{len(one):,} before, {len(other):,} now")
    keys = [np.lexsort((p.sample_id, p.test_set, p.experience)) for p in (one, other)]
    for name in ("experience", "test_set", "sample_id", "label"):
        if not np.array_equal(getattr(one, name)[keys[0]], getattr(other, name)[keys[1]]):
            return Part(group="result", name="predictions", equal=False, detail=f"of other samples ({name})")
    if one.text is not None and other.text is not None:
        same = one.text[keys[0]] == other.text[keys[1]]
    else:
        same = one.prediction[keys[0]] == other.prediction[keys[1]]
    furthest = float(np.abs(one.confidence[keys[0]] - other.confidence[keys[1]]).max(initial=0.0))
    detail = f"{int(same.sum()):,} of {len(same):,} equal; confidence differs by {furthest:.2g} at most"
    return Part(group="result", name="predictions", equal=bool(same.all()), detail=detail)


def _matrix(old: Record, new: Record) -> Part:
    if [len(row) for row in old.accuracy] != [len(row) for row in new.accuracy]:
        return Part(group="result", name="accuracy", equal=False, detail="another shape")
    pairs = [pair for a, b in zip(old.accuracy, new.accuracy, strict=True) for pair in zip(a, b, strict=True)]
    if old.accuracy == new.accuracy:
        return Part(group="result", name="accuracy", equal=True, detail=f"all {_known(pairs)} cells")
    differing = [(a, b) for a, b in pairs if a != b]
    furthest = max((abs(a - b) for a, b in differing if a is not None and b is not None), default=0.0)
    detail = f"{len(differing)} of {_known(pairs)} cells differ, by {100 * furthest:.2f} points at most"
    return Part(group="result", name="accuracy", equal=False, detail=detail)


def _known(pairs: Sequence[tuple[float | None, float | None]]) -> int:
    return sum(a is not None or b is not None for a, b in pairs)


def _metrics(old: Record, new: Record) -> Part:
    one, other = old.metrics or {}, new.metrics or {}
    both = sorted(one.keys() & other.keys())
    differing = [name for name in both if not _close(one[name], other[name], 1e-12)]
    if not both:
        return Part(group="result", name="metrics", equal=None, detail="none in common")
    detail = f"{len(both) - len(differing)} of {len(both)} equal"
    if differing:
        detail += "; " + _listed([f"{name}: {_change(one[name], other[name])}" for name in differing])
    near = bool(differing) and all(_close(one[name], other[name], NEAR) for name in differing)
    return Part(group="result", name="metrics", equal=not differing, detail=detail, near=near)


def _losses(old: Record, new: Record) -> Part:
    one, other = (
        [(place, epoch, name, value) for place, part in enumerate(record.losses) for epoch, terms in enumerate(part)
         for name, value in sorted(terms.items())]
        for record in (old, new)
    )  # fmt: skip
    if one == other:
        return Part(group="result", name="losses", equal=True, detail=f"all {len(one)}")
    if [entry[:3] for entry in one] != [entry[:3] for entry in other]:
        return Part(group="result", name="losses", equal=False, detail="other terms or epochs")
    furthest = max(abs(a[3] - b[3]) / max(abs(a[3]), abs(b[3]), 1e-300) for a, b in zip(one, other, strict=True))
    detail = f"differ by {furthest:.2g} (relative) at most"
    return Part(group="result", name="losses", equal=False, detail=detail, near=furthest <= NEAR)


def _machine(old: Record, new: Record) -> Iterator[Part]:
    a, b = old.provenance, new.provenance
    for name in ("device", "threads", "python", "platform", "deterministic"):
        one, other = getattr(a, name), getattr(b, name)
        yield Part(
            group="machine", name=name, equal=one == other, detail="" if one == other else f"{one} is now {other}"
        )
    names = sorted(a.packages.keys() & b.packages.keys())
    differing = [
        f"{name} {a.packages[name]} is now {b.packages[name]}" for name in names if a.packages[name] != b.packages[name]
    ]
    yield Part(group="machine", name="versions", equal=not differing, detail=_listed(differing))
    commits = f"{(a.git_commit or 'unknown')[:8]} is now {(b.git_commit or 'unknown')[:8]}"
    same = None if a.git_commit is None or b.git_commit is None else a.git_commit == b.git_commit
    yield Part(group="machine", name="commit", equal=same, detail="" if same else commits)


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=0, abs_tol=tolerance)
    return bool(one == other)


def _change(one: Any, other: Any) -> str:
    """How far two values are apart."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        gaps = [abs(a - b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
        return f"values {max(gaps, default=0.0):.2g} apart at most"
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return f"{one:.6g}, {other - one:+.2g}"
    return f"{one} is now {other}"


def _listed(names: Sequence[str]) -> str:
    more = f", {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
