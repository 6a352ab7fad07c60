"""Lock files: which data a number was measured on, and how they were cut, so that others can hold theirs against it.

A lock is a small JSON file: class order, the hash of the sample list of every set, preset, digest of what was decoded.
It names no path and no machine; order of files, locale and layout of folders play no part beyond what the reader of the
data set says. Its short name, ``split-cifar100-10t:9f3c2a``, stands in records and tables.

torch is not needed here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from benchmark.errors import DataMissing, UsageError, plain
from benchmark.files import replace_file

if TYPE_CHECKING:
    from benchmark.samples import Samples
    from benchmark.scenario import Scenario

FORMAT: Literal["adaptbench lock 1"] = "adaptbench lock 1"
DIGITS = 6  # of the hash in a short name
MOST_DIFFERENCES = 6  # told at once
_SET_DIGITS = 16
_LARGEST = 1 << 24  # bytes of a file

_Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_SetHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
_Count = Annotated[int, Meta(ge=0)]


class LockedSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sample list of one set.

    Attributes:
        where: ``experience 3, train``, or ``test set new``.
        samples: How many.
        sha256: First digits of the hash of their sorted ids with their labels.
    """

    where: str
    samples: _Count
    sha256: _SetHash


class Lock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a split recognisable.

    Attributes:
        format: Of the file.
        id: Short name.
        scenario: With its variant; without the place of a user's own data.
        version: Of the scenario.
        track: On which the preset is the scenario's.
        preset: Input preset, or empty where samples are no images.
        options: Of the scenario, all of them.
        seed: Class-order seed, or None where the split does not follow it.
        partition: `benchmark.scenario.Scenario.partition`.
        content: Hash of all that was decoded.
        fingerprint: Hash of split and content.
        class_order: Original label of each class.
        class_names: In label order.
        sets: Sample lists.
    """

    format: Literal["adaptbench lock 1"]
    id: str
    scenario: str
    version: _Count
    track: str
    preset: str
    options: dict[str, Any]
    seed: int | None
    partition: str
    content: _Hash
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(-lossy)?$")]
    class_order: list[int]
    class_names: list[str]
    sets: list[LockedSet]


# --- names --------------------------------------------------------------------------------------


def short_name(
    *,
    scenario: str,
    version: int,
    experiences: int,
    preset: str,
    partition: str,
    content: str,
    fingerprint: str,
    class_order: Sequence[int],
) -> str:
    """``split-cifar100-10t:9f3c2a``: the scenario, its number of experiences, and a hash of what decides the split.

    Args:
        scenario: As a record names it.
        version: Of the scenario.
        experiences: Test sets that belong to experiences.
        preset: Input preset, or empty.
        partition: `benchmark.scenario.Scenario.partition`.
        content: Hash of what was decoded; empty where nobody knows it, as in old records.
        fingerprint: Hash of split and content.
        class_order: Original labels.

    Returns:
        The name; empty where the content is not known.
    """
    if not content:
        return ""
    return _short_name(general(scenario), version, experiences, preset, partition, content, fingerprint, *class_order)


@functools.lru_cache(4096)  # ten thousand records share few splits
def _short_name(
    where: str,
    version: int,
    experiences: int,
    preset: str,
    partition: str,
    content: str,
    fingerprint: str,
    *class_order: int,
) -> str:
    base, _, variant = where.partition("/")
    facts = [FORMAT, where, version, preset, partition, content, fingerprint, class_order]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:DIGITS]
    last = f"{experiences}t" if experiences > 1 else re.sub(r"[^\w.]+", "-", variant)
    return f"{base}-{last}:{digest}" if last else f"{base}:{digest}"


def general(scenario: str) -> str:
    """The name of a scenario without that of a user's own data: ``folder:birds-1a2b3c4d/5x2`` is ``folder/5x2``."""
    return re.sub(":[^/]*", "", scenario, count=1)


# --- locks of scenarios -------------------------------------------------------------------------


def lock_of(
    scenario: Scenario, *, name: str, track: str, preset: str, options: Mapping[str, Any], seed: int | None
) -> Lock:
    """The lock of a scenario that was built.

    Args:
        scenario: It.
        name: With its variant.
        track: On which it runs.
        preset: Of that track.
        options: Of the scenario.
        seed: Class-order seed, or None where the split does not follow it.
    """
    preset = preset if scenario.kind == "image" else ""
    return Lock(
        format=FORMAT,
        id=short_name(
            scenario=name,
            version=scenario.version,
            experiences=len(scenario.experiences),
            preset=preset,
            partition=scenario.partition,
            content=scenario.content,
            fingerprint=scenario.fingerprint,
            class_order=scenario.class_order,
        ),
        scenario=general(name),
        version=scenario.version,
        track=track,
        preset=preset,
        options=dict(options),
        seed=seed,
        partition=scenario.partition,
        content=scenario.content,
        fingerprint=scenario.fingerprint,
        class_order=list(scenario.class_order),
        class_names=list(scenario.class_names),
        sets=[
            LockedSet(where=where, samples=len(samples), sha256=_sample_list(samples))
            for where, samples in _sets(scenario)
        ],
    )


def _sets(scenario: Scenario) -> Iterator[tuple[str, Samples]]:
    for index, experience in enumerate(scenario.experiences):
        for name in ("train", "target", "validation", "test"):
            samples = getattr(experience, name)
            if samples is not None:
                yield f"experience {index}, {name}", samples
    for test in scenario.tests:
        yield f"test set {test.name}", test.images
    for part in () if scenario.test_stream is None else scenario.test_stream.segments:
        yield f"stream {part.name}", part.images


def _sample_list(samples: Samples) -> str:
    ids, labels = samples.ids.numpy(), samples.labels.numpy()
    by_id = np.lexsort((labels, ids))
    content = ids[by_id].astype("<i8").tobytes() + labels[by_id].astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:_SET_DIGITS]


# --- comparison ---------------------------------------------------------------------------------


def check(lock: Lock, found: Lock) -> None:
    """Holds what is here against a lock.

    Args:
        lock: What is asked for.
        found: `lock_of` what was built here.

    Raises:
        DataMissing: They differ; the message says where.
    """
    told = differences(lock, found)
    if not told:
        return
    more = f"; and {len(told) - MOST_DIFFERENCES} more" if len(told) > MOST_DIFFERENCES else ""
    own = f" (here: {found.id})" if found.id != lock.id else ""
    hint = "use the data and options that the lock was made with, or make a lock of these (`bench lock`)"
    if lock.seed is not None and found.seed is not None and lock.seed != found.seed:
        hint = f"the lock was made with --class-order-seed {lock.seed}"
    raise DataMissing(
        f"this is not the split of lock {lock.id}{own}: {'; '.join(told[:MOST_DIFFERENCES])}{more}",
        hint=hint,
    )


def differences(lock: Lock, found: Lock) -> list[str]:
    """What is otherwise here than in a lock, the likely causes first; empty where they agree."""
    told = [
        f"{name} {getattr(found, name) or 'none'} instead of {getattr(lock, name) or 'none'}"
        for name in ("scenario", "version", "preset", "partition")
        if getattr(lock, name) != getattr(found, name)
    ]
    for name in sorted(lock.options.keys() | found.options.keys()):
        here, there = (json.dumps(one.options.get(name)) for one in (found, lock))
        if here != there:
            told.append(f"option {name} {here} instead of {there}")
    told += _sequence("class order", "label", lock.class_order, found.class_order)
    told += _sequence("class names", "name", lock.class_names, found.class_names)
    told += _sample_lists(lock, found)
    if lock.fingerprint.endswith("-lossy") != found.fingerprint.endswith("-lossy"):
        told.append("these data are a lossy copy" if found.fingerprint.endswith("-lossy") else "the lock's are lossy")
    if lock.content != found.content:
        told.append(
            f"other pixels or texts: what was decoded has the hash {found.content[:8]} instead of {lock.content[:8]} "
            "(another copy, resolution, encoding or layout)"
        )
    if not told and lock.fingerprint != found.fingerprint:
        told.append(f"fingerprint {found.fingerprint[:8]} instead of {lock.fingerprint[:8]}")
    return told


def _sequence(what: str, one: str, there: Sequence[object], here: Sequence[object]) -> list[str]:
    if len(here) != len(there):
        return [f"{what}: {len(here)} of them instead of {len(there)}"]
    places = [place for place, pair in enumerate(zip(here, there, strict=True)) if pair[0] != pair[1]]
    if not places:
        return []
    first = places[0]
    more = f", and {len(places) - 1} more differ" if len(places) > 1 else ""
    return [f"{what}: {one} {here[first]} instead of {there[first]} at place {first}{more}"]


def _sample_lists(lock: Lock, found: Lock) -> list[str]:
    """What is otherwise in the sets: of each kind of difference the first set, and how many more there are."""
    there, here = ({part.where: part for part in one.sets} for one in (lock, found))
    told: dict[str, list[str]] = {}
    for where in [*there, *(where for where in here if where not in there)]:
        one, other = there.get(where), here.get(where)
        if other is None:
            told.setdefault("absent", []).append(f"{where} is not there")
        elif one is None:
            told.setdefault("new", []).append(f"{where} is not in the lock")
        elif other.samples != one.samples:
            told.setdefault("number", []).append(f"{where}: {other.samples:,} samples instead of {one.samples:,}")
        elif other.sha256 != one.sha256:
            told.setdefault("list", []).append(f"{where}: as many samples, but other ones or with other labels")
    return [first + (f" (and so in {len(more)} more sets)" if more else "") for first, *more in told.values()]


# --- files --------------------------------------------------------------------------------------


def dumps(lock: Lock) -> str:
    """A lock as JSON, one fact a line."""
    facts = msgspec.to_builtins(lock)
    sets = ",\n".join("    " + json.dumps(part, ensure_ascii=False) for part in facts.pop("sets"))
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]
    return "{\n" + ",\n".join([*lines, f'  "sets": [\n{sets}\n  ]']) + "\n}\n"


def loads(text: str | bytes, where: str) -> Lock:
    """A lock from JSON.

    Args:
        text: The content of a file.
        where: What messages call it.

    Raises:
        UsageError: It is no lock, of another format, or was edited by hand.
    """
    hint = "make one with `bench lock SCENARIO -o FILE`"
    try:
        lock = msgspec.json.decode(text, type=Lock)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UsageError(f"{where} is no lock file: {plain(str(error))}", hint=hint) from error
    wanted = short_name(
        scenario=lock.scenario,
        version=lock.version,
        experiences=len({part.where.partition(",")[0] for part in lock.sets if part.where.startswith("experience")}),
        preset=lock.preset,
        partition=lock.partition,
        content=lock.content,
        fingerprint=lock.fingerprint,
        class_order=lock.class_order,
    )
    if wanted != lock.id:
        raise UsageError(f"{where} was changed: its facts are those of {wanted}, but it says {lock.id}", hint=hint)
    return lock


def read(path: Path) -> Lock:
    """The lock in a file.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{plain(str(path))} cannot be read: {error.strerror}") from error
    return loads(content, plain(str(path)))


def write(lock: Lock, path: Path) -> None:
    """Writes a lock file, whole or not at all.

    Raises:
        RunFailed: It cannot be written.
    """
    replace_file(path, dumps(lock).encode())
