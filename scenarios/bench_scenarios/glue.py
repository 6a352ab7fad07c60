"""SST-2, RTE, MNLI, BoolQ and CB from 10, 32 or 100 labels: few-shot transfer of real texts.

Source: GLUE (``SST-2`` and ``MNLI``: ``train.tsv``, ``dev.tsv``, ``dev_matched.tsv``; no quoting) and SuperGLUE
(``RTE``, ``BoolQ``, ``CB``: ``train.jsonl``, ``val.jsonl``), in folders of these names as they are unpacked. Labels
of the official test sets are not published: the development sets are the test sets. As in PET (Schick and Schuetze,
arXiv 2001.07676 and 2009.07118), some training examples keep their labels and others come without
(``Experience.target``). A variant is the number of labelled examples in all, shared by the classes as evenly as it
goes and drawn with the run's class-order seed; validation examples are drawn after them, and the first of the others
are the unlabelled ones. The draw is ours: PET's own files of 32 examples (FewGLUE) are not read. Patterns are PET's;
those that need other words for the classes are left out. Fields that end in ``_bare`` lack the final punctuation.
Version 1.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bench_scenarios import _tables
from benchmark import ScenarioSpec, data, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.errors import DataMissing
from benchmark.readers.files import is_file, shown
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

LABELS = (10, 32, 100)
PUNCTUATION = ".,;:!?"


@dataclass(frozen=True, slots=True)
class Set:
    """One of the data sets as it is published.

    Attributes:
        folder: Name of its folder.
        files: Of training and test examples, with the published numbers of examples.
        fields: Column of each field of an example.
        label: Column of the class.
        classes: What stands in that column, with the name of the class.
        wording: Patterns and words.
        size_mb: Of the download.
        licence: As the source states it.
        what: For the summary.
    """

    folder: str
    files: tuple[tuple[str, int], tuple[str, int]]
    fields: Mapping[str, str]
    label: str
    classes: Mapping[str, str]
    wording: Wording
    size_mb: float
    licence: str
    what: str


_YES_NO = {"entailment": ("Yes",), "not entailment": ("No",)}
_PAIR = ("premise", "hypothesis")
_INFERENCE = (
    '" {hypothesis_bare} " ? | {mask} , " {premise} "',
    "{hypothesis_bare} ? | {mask} , {premise}",
    '" {hypothesis_bare} " ? | {mask} . " {premise} "',
    "{hypothesis_bare} ? | {mask} . {premise}",
)
_THREE = {"entailment": ("Yes",), "contradiction": ("No",), "neutral": ("Maybe",)}
SETS: dict[str, Set] = {
    "sst2": Set(
        "SST-2",
        (("train.tsv", 67_349), ("dev.tsv", 872)),
        {"sentence": "sentence"},
        "label",
        {"0": "negative", "1": "positive"},
        Wording(
            patterns=(
                "It was {mask} . {sentence}",
                "{sentence} . All in all, it was {mask} .",
                "Just {mask} ! | {sentence}",
            ),
            words={"negative": ("bad",), "positive": ("good",)},
            segments=("sentence",),
        ),
        7.4,
        "not stated by GLUE",
        "praise or blame in phrases of film reviews",
    ),
    "rte": Set(
        "RTE",
        (("train.jsonl", 2_490), ("val.jsonl", 277)),
        {"premise": "premise", "hypothesis": "hypothesis"},
        "label",
        {"entailment": "entailment", "not_entailment": "not entailment"},
        Wording(patterns=_INFERENCE, words=_YES_NO, segments=_PAIR),
        0.8,
        "not stated by SuperGLUE",
        "whether a text entails another",
    ),
    "mnli": Set(
        "MNLI",
        (("train.tsv", 392_702), ("dev_matched.tsv", 9_815)),
        {"premise": "sentence1", "hypothesis": "sentence2"},
        "gold_label",
        {"entailment": "entailment", "contradiction": "contradiction", "neutral": "neutral"},
        Wording(
            patterns=('" {premise_bare} " ? | {mask} , " {hypothesis} "', "{premise_bare} ? | {mask} , {hypothesis}"),
            words=_THREE,
            segments=_PAIR,
        ),
        313.0,
        "OANC and others, see the paper (arXiv 1704.05426)",
        "whether a text entails, contradicts, or neither",
    ),
    "boolq": Set(
        "BoolQ",
        (("train.jsonl", 9_427), ("val.jsonl", 3_270)),
        {"passage": "passage", "question": "question"},
        "label",
        {"false": "no", "true": "yes"},
        Wording(
            patterns=(
                "{passage} . Question: {question} ? Answer: {mask} .",
                "{passage} . Based on the previous passage, {question} ? {mask} .",
                "Based on the following passage, {question} ? {mask} . {passage}",
            ),
            words={"no": ("No",), "yes": ("Yes",)},
            segments=("passage", "question"),
        ),
        4.1,
        "CC BY-SA 3.0",
        "yes or no, by a passage",
    ),
    "cb": Set(
        "CB",
        (("train.jsonl", 250), ("val.jsonl", 56)),
        {"premise": "premise", "hypothesis": "hypothesis"},
        "label",
        {"entailment": "entailment", "contradiction": "contradiction", "neutral": "neutral"},
        Wording(patterns=_INFERENCE, words=_THREE, segments=_PAIR),
        0.1,
        "not stated by SuperGLUE",
        "whether a speaker is committed to a clause",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GlueConfig:
    """Options of the scenarios.

    Attributes:
        labels: Labelled training examples in all.
        unlabelled: Training examples without labels, at most.
        validation: Labelled examples for model selection in all, at most.
    """

    labels: Annotated[int, Range(min=2, max=100_000)] = 32
    unlabelled: Annotated[int, Range(min=1, max=1_000_000)] = 20_000
    validation: Annotated[int, Range(min=2, max=100_000)] = 32

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_ranges(self)


def build(name: str, config: GlueConfig, request: ScenarioRequest) -> Scenario:
    """Builds one of `SETS`; the seed draws the labelled examples.

    Raises:
        ValueError: A class has fewer training examples than are asked for.
        DataMissing: A file is absent, damaged, or not what is published.
    """
    import torch

    one = SETS[name]
    folder = data.data_root(request.data_root) / one.folder
    whole, test = (_read(folder / file, one, count, side * 10_000_000) for side, (file, count) in enumerate(one.files))
    generator = random.Random(request.seed)
    drawn = _draw(whole, config.labels, len(one.classes), generator, "labels")
    rest = sorted(set(range(len(whole))) - set(drawn))
    left = whole.subset(torch.tensor(rest))
    held = _draw(left, config.validation, len(one.classes), generator, "validation")
    others = sorted(set(range(len(left))) - set(held))[: config.unlabelled]
    if not others:
        raise ValueError(f"unlabelled: no training example of {len(whole)} is left")
    unlabelled = left.subset(torch.tensor(others))
    experience = Experience(
        train=whole.subset(torch.tensor(drawn)).alone(),
        test=test,
        classes=tuple(range(len(one.classes))),
        target=unlabelled.without_labels(),
        target_labels=unlabelled.labels,
        validation=left.subset(torch.tensor(held)),
    )
    return Scenario.of(
        SPECS[name],
        config,
        version=1,
        experiences=(experience,),
        class_names=tuple(one.classes.values()),
        partition="development set",
        notes={"layout": Path(one.files[0][0]).suffix.removeprefix(".")},
        wording=one.wording,
    )


def _draw(samples: Samples, count: int, classes: int, generator: random.Random, field: str) -> list[int]:
    """Positions of so many examples, of every class as many, but one more of the first where it does not go."""
    drawn: list[int] = []
    for label in range(classes):
        wanted = count // classes + (label < count % classes)
        found = (samples.labels == label).nonzero().flatten().tolist()
        if wanted > len(found):
            raise ValueError(f"{field}: {count} needs {wanted} examples of class {label}, and there are {len(found)}")
        drawn += generator.sample(found, wanted)
    return drawn


def _read(path: Path, one: Set, count: int, start: int) -> Samples:
    import torch

    if not is_file(path):
        raise DataMissing(
            f"{shown(path)} is not there",
            hint=f"unpack {one.folder} of gluebenchmark.com or super.gluebenchmark.com into the data root",
        )
    layout = _tables.SUFFIXES[path.suffix]
    known = {label: number for number, label in enumerate(one.classes)}
    texts, labels = [], []
    for line, row in _tables.rows(path, layout, quotes=False):
        if missing := [column for column in (*one.fields.values(), one.label) if column not in row]:
            raise DataMissing(f"{shown(path)}: line {line} has no `{missing[0]}`, but {', '.join(row)}")
        if row[one.label] not in known:
            raise DataMissing(
                f"{shown(path)}: line {line}: `{one.label}` is {row[one.label]!r}", hint=f"it is {' or '.join(known)}"
            )
        text = {field: row[column].strip() for field, column in one.fields.items()}
        bare = {f"{field}_bare": value.rstrip(PUNCTUATION) for field, value in text.items()}
        wanted = " ".join(one.wording.patterns)
        texts.append(text | {field: value for field, value in bare.items() if f"{{{field}}}" in wanted})
        labels.append(known[row[one.label]])
    if len(texts) != count:
        raise DataMissing(
            f"{shown(path)} has {len(texts):,} examples instead of {count:,}",
            hint="fetch the file anew; it is not whole",
        )
    rows = torch.arange(count)
    return Samples(_tables.Texts(texts), rows, torch.tensor(labels), rows + start)


def _source(one: Set) -> str:
    return "gluebenchmark.com" if one.files[0][0].endswith("tsv") else "super.gluebenchmark.com"


def _contents(name: str, request: ScenarioRequest) -> tuple[dict[str, Samples], Mapping[str, str]]:
    """All examples with their labels, see `benchmark.data.DataSet.contents`."""
    one = SETS[name]
    folder = data.data_root(request.data_root) / one.folder
    parts = (("train", *one.files[0]), ("test", *one.files[1]))
    found = {part: _read(folder / file, one, count, 0) for part, file, count in parts}
    return found, {"layout": Path(one.files[0][0]).suffix.removeprefix(".")}


DATA: dict[str, data.DataSet] = {
    name: data.DataSet(
        title=one.folder,
        folders=(one.folder,),
        layouts=(" and ".join(file for file, _ in one.files),),
        name=name,
        source=_source(one),
        licence=one.licence,
        class_names=tuple(one.classes.values()),
        look=functools.partial(_tables.look, folders=(one.folder,), names=[file for file, _ in one.files]),
        contents=functools.partial(_contents, name),
    )
    for name, one in SETS.items()
}
SPECS: dict[str, ScenarioSpec] = {
    name: ScenarioSpec(
        name=name,
        build=functools.partial(build, name),
        config=GlueConfig,
        summary=f"{one.folder}: {one.what}; from 10, 32 or 100 labels beside unlabelled texts",
        family="few-labels",
        tracks={"paper": "", "mini": "", "nano": ""},
        variant="labels",
        variants=tuple(map(str, LABELS)),
        source=_source(one),
        licence=one.licence,
        size_mb=one.size_mb,
        data=(DATA[name],),
    )
    for name, one in SETS.items()
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``sst2``, ``rte``, ``mnli``, ``boolq`` and ``cb``."""
    return list(SPECS.values())
