"""Your own texts, from one CSV, TSV or JSON-lines file, without writing a package: ``texts:/data/mine.csv``.

``bench run --scenario texts:/data/mine.csv --set label=stars --set text=review --set experiences=5 ...`` reads a
stream of new classes from the columns ``stars`` and ``review``; ``--set family=domain-il --set domain=shop`` one of
domains. Where a method has an option of the same name, write ``scenario.label=stars``. Training and test texts are
cut 80/20 within every class, by the rule of `benchmark.splits.train_test` with seed 0, unless a column or a second
file says otherwise. Records name the file and the hash of its texts, not where it lies. Version 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from bench_scenarios import _tables
from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.errors import DataMissing
from benchmark.files import user_path
from benchmark.readers.files import shown
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

if TYPE_CHECKING:
    from torch import Tensor

CUT, LEAST = "80/20 cut", 5  # texts of a class that the cut leaves one for the test


@dataclass(frozen=True, kw_only=True, slots=True)
class TextsConfig:
    """Options of ``texts``.

    Attributes:
        label: Column of the class.
        text: Columns that a method reads, one or more; they are the fields of an example, under their names, in which
            ``_`` stands for anything but letters and digits.
        family: ``class-il``: every experience brings new classes; ``domain-il``: the same classes, one domain after
            another.
        experiences: Of ``class-il``: their number, classes shared out as evenly as it goes; 0: five, or as many as give
            each two classes.
        class_order: ``natural`` (numbers by size, else names by code point), ``numpy:SEED``, ``python:SEED``, ``seed``
            (follows the run's seed) or a list of positions, `benchmark.splits.class_order`.
        domain: Of ``domain-il``: column of the domain.
        order: Of ``domain-il``: the domains to go through; default: all, by name.
        split: Column with ``train`` or ``test`` in every row; default: cut.
        test: A second file with the test texts, by its name in the folder of the first; default: cut.
        quotes: Whether ``"`` encloses cells of CSV and TSV.
        empty: What becomes of rows whose texts are all empty: ``refuse`` or ``drop``.
        pattern: How a language model may be asked, e.g. ``{review} All in all, it was {mask}.``; several are separated
            by ``||``.
        words: Words for the classes, e.g. ``1=bad,terrible; 5=great``; default: the name of the class.
    """

    label: str = "label"
    text: tuple[str, ...] = ("text",)
    family: Literal["class-il", "domain-il"] = "class-il"
    experiences: Annotated[int, Range(min=0, max=10_000)] = 0
    class_order: str = "natural"
    domain: str = ""
    order: tuple[str, ...] = ()
    split: str = ""
    test: str = ""
    quotes: bool = True
    empty: Literal["refuse", "drop"] = "refuse"
    pattern: str = ""
    words: str = ""

    def __post_init__(self) -> None:
        """Checks what needs no file."""
        check_ranges(self)
        if not self.text or len(set(map(field_of, self.text))) != len(self.text):
            raise ValueError(f"text: {','.join(self.text)!r} is not a list of different columns")
        if (self.family != "class-il") != bool(self.domain):
            raise ValueError("domain: a column of domains is given for family=domain-il, and only there")
        if self.order and not self.domain:
            raise ValueError("order: it is that of domains, and there is no `domain`")
        if self.split and self.test:
            raise ValueError("split: the test texts are in the file `test`; give one of the two")
        if self.test and Path(self.test).name != self.test:
            raise ValueError(f"test: {self.test!r} is a path; give the name of a file in the folder of the first")


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one file: texts, and for each its label, domain and side."""

    table: _tables.Table
    texts: list[dict[str, str]]
    labels: list[str]
    domains: list[str]
    sides: list[str]


def field_of(column: str) -> str:
    """The name of a column as a field of examples and patterns."""
    return re.sub(r"\W+", "_", column)


def build(config: TextsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed may decide the class order.

    Raises:
        ValueError: An option does not fit the file.
        DataMissing: The file is absent, damaged, or has too few texts.
    """
    path = user_path(request.tag)
    first = _part(path, config)
    second = _part(path.with_name(config.test), config) if config.test else None
    parts = [part for part in (first, second) if part is not None]
    names = _sorted({label for part in parts for label in part.labels})
    if len(names) < 2:
        raise ValueError(f"label: every text of {shown(path)} is of the class {names[0]!r}; two or more are needed")
    domains = _domains(config, parts)
    train, test = _sides(config, names, domains, first, second)
    common: dict[str, Any] = {
        "name": SPEC.name,
        "version": 1,
        "family": config.family,
        "partition": "" if config.split or config.test else CUT,
        "notes": {"layout": _layout(path)},
        "wording": _wording(config, names),
    }
    if config.domain:
        experiences = tuple(
            Experience(
                train=_only(train, place), test=_only(test, place), classes=tuple(range(len(names))), domain=domain
            )
            for place, domain in enumerate(domains)
        )
        return Scenario(experiences=experiences, class_names=tuple(names), **common)
    try:
        order = splits.class_order(config.class_order, len(names), seed=request.seed)
    except ValueError as error:
        raise ValueError(f"class_order: {error}") from error
    experiences = splits.class_incremental(train, test, order, _sizes(config.experiences, len(names)))
    class_names = tuple(names[label] for label in order)
    return Scenario(experiences=experiences, class_names=class_names, class_order=order, **common)


def _layout(path: Path) -> _tables.Layout:
    layout = _tables.SUFFIXES.get(path.suffix.lower())
    if layout is None:
        raise DataMissing(
            f"{shown(path)}: its name does not tell its layout", hint=f"use one of {', '.join(_tables.SUFFIXES)}"
        )
    return layout


def _part(path: Path, config: TextsConfig) -> _Part:
    table = _tables.read(path, _layout(path), quotes=config.quotes)
    cells = {field_of(name): _tables.column(table, "text", name) for name in config.text}
    columns = [
        _tables.column(table, field, name) if (name := getattr(config, field)) else [""] * len(table.rows)
        for field in ("label", "domain", "split")
    ]
    texts = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    full = [row for row, text in enumerate(texts) if any(cell.strip() for cell in text.values())]
    if len(full) < len(texts) and config.empty == "refuse":
        row = next(row for row in range(len(texts)) if row not in set(full))
        raise DataMissing(
            f"{table.path}: line {table.lines[row]}: {' and '.join(config.text)} is empty "
            f"({len(texts) - len(full)} such rows)",
            hint="--set scenario.empty=drop leaves them out",
        )
    for field, cells_of in zip(("label", "domain", "split"), columns, strict=True):
        bare = [row for row in full if not cells_of[row].strip()] if getattr(config, field) else []
        if bare:
            raise DataMissing(
                f"{table.path}: line {table.lines[bare[0]]}: `{getattr(config, field)}` is empty "
                f"({len(bare)} such rows)",
                hint=f"every text needs its {field}",
            )
    labels, domains, sides = ([cell[row].strip() for row in full] for cell in columns)
    wrong = next(
        (row for row, side in enumerate(sides) if config.split and side.lower() not in ("train", "test")), None
    )
    if wrong is not None:
        raise DataMissing(
            f"{table.path}: line {table.lines[full[wrong]]}: `{config.split}` is {sides[wrong]!r}",
            hint="it is train or test in every row",
        )
    return _Part(table, [texts[row] for row in full], labels, domains, [side.lower() for side in sides])


def _sorted(names: set[str]) -> list[str]:
    """Numbers by size, else names by code point."""
    if all(re.fullmatch(r"-?\d+(\.\d+)?", name, re.ASCII) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names)


def _domains(config: TextsConfig, parts: Sequence[_Part]) -> list[str]:
    found = _sorted({domain for part in parts for domain in part.domains})
    if not config.order:
        return found
    if len(set(config.order)) < len(config.order) or not set(config.order) <= set(found):
        raise ValueError(f"order: {','.join(config.order)!r} is not possible; use each of {', '.join(found)} once")
    return list(config.order)


def _sides(
    config: TextsConfig, names: Sequence[str], domains: Sequence[str], first: _Part, second: _Part | None
) -> tuple[Samples, Samples]:
    """Training and test texts; domains are positions in ``domains``, -1 for those that are left out."""
    import torch

    whole = _samples(first, names, domains, 0)
    if second is not None:
        train, test = whole, _samples(second, names, domains, len(first.texts))
    elif config.split:
        told = torch.tensor([side == "test" for side in first.sides])
        train, test = whole.subset((~told).nonzero().flatten()), whole.subset(told.nonzero().flatten())
    else:
        assert whole.domains is not None
        groups = whole.labels + whole.domains * len(names)
        one, two = splits.train_test(groups)
        train, test = whole.subset(torch.from_numpy(one)), whole.subset(torch.from_numpy(two))
    _check(config, names, domains, whole, train, test)
    return train, test


def _samples(part: _Part, names: Sequence[str], domains: Sequence[str], start: int) -> Samples:
    import torch

    label, place = ({name: number for number, name in enumerate(known)} for known in (names, domains))
    rows = torch.arange(len(part.texts))
    labels = torch.tensor([label[name] for name in part.labels])
    return Samples(
        _tables.Texts(part.texts), rows, labels, rows + start, torch.tensor([place.get(d, -1) for d in part.domains])
    )


def _check(
    config: TextsConfig, names: Sequence[str], domains: Sequence[str], whole: Samples, train: Samples, test: Samples
) -> None:
    """Makes sure that every class has training and test texts, in every domain.

    Raises:
        DataMissing: One has none.
    """

    def count(samples: Samples, place: int, label: int) -> int:
        assert samples.domains is not None
        return int(((samples.labels == label) & (samples.domains == place)).sum())

    for place, domain in enumerate(domains):
        where = f" in domain {domain!r}" if config.domain else ""
        for label, name in enumerate(names):
            here = [count(samples, place, label) for samples in (train, test)]
            if all(here):
                continue
            if config.split or config.test:
                raise DataMissing(
                    f"class {name!r} has {here[0]} training and {here[1]} test texts{where}; both are needed",
                    hint="add texts, or leave the class out",
                )
            raise DataMissing(
                f"class {name!r} has {count(whole, place, label)} text(s){where}; the {CUT} needs {LEAST}",
                hint="add texts, leave the class out, or say yourself what is tested: --set scenario.split=COLUMN or "
                "scenario.test=FILE",
            )


def _only(samples: Samples, place: int) -> Samples:
    """The texts of a domain."""
    assert samples.domains is not None
    part: Tensor = (samples.domains == place).nonzero().flatten()
    return Samples(samples.source, samples.rows[part], samples.labels[part], samples.ids[part])


def _sizes(experiences: int, classes: int) -> tuple[int, ...]:
    experiences = experiences or max(1, min(5, classes // 2))
    if experiences > classes:
        raise ValueError(f"experiences: {experiences} is too many for {classes} classes")
    each, more = divmod(classes, experiences)
    return tuple(each + (place < more) for place in range(experiences))


def _wording(config: TextsConfig, names: Sequence[str]) -> Wording:
    fields = tuple(map(field_of, config.text))
    patterns = tuple(pattern.strip() for pattern in config.pattern.split("||") if pattern.strip())
    for pattern in patterns:
        try:
            found = [name for _, name, *_ in Formatter().parse(pattern) if name is not None]
        except ValueError as error:
            raise ValueError(f"pattern: {pattern!r}: {error}") from error
        if found.count("mask") != 1 or not set(found) <= {*fields, "mask"}:
            raise ValueError(f"pattern: {pattern!r} needs one {{mask}}, and no field but {', '.join(fields)}")
    words: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    for entry in filter(str.strip, config.words.split(";")):
        name, _, listed = (part.strip() for part in entry.rpartition("="))
        given = tuple(word for part in listed.split(",") if (word := part.strip()))
        if name not in words or not given:
            raise ValueError(f"words: {entry.strip()!r} is not CLASS=word,word; classes are {', '.join(names)}")
        words[name] = given
    return Wording(patterns=patterns, words=words, segments=fields)


def example(folder: Path) -> str:
    """Writes a file of four classes with eight texts each; see `benchmark.ScenarioSpec.example`."""
    things = {
        "weather": "rain wind sun",
        "food": "bread soup salt",
        "music": "song drum tune",
        "travel": "road ship map",
    }
    rows = [(name, words.split()[row % 3], row) for name, words in things.items() for row in range(8)]
    lines = ["text,label", *(f'"a {word}, number {row}",{name}' for name, word, row in rows)]
    path = folder / "example.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


SPEC = ScenarioSpec(
    name="texts",
    build=build,
    config=TextsConfig,
    summary="your own texts from a CSV, TSV or JSON-lines file; class- or domain-incremental",
    family="class-il",
    tracks={"nano": "", "mini": "", "paper": ""},
    tag="FILE",
    example=example,
    source="yours",
    licence="yours",
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``texts``."""
    return [SPEC]
