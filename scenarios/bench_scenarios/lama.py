"""Facts in one word: subject and relation are given, the object is the class. LAMA, one relation a variant.

Source: LAMA (Petroni et al., arXiv 1909.01066), folder ``LAMA`` or ``data`` of its archive: ``relations.jsonl`` with
a template for every relation (``[X] was born in [Y] .``) and ``TREx/P19.jsonl`` with its facts (``sub_label``,
``obj_label``), cut 80/20 within every object. Where ``original/P19/train.jsonl`` and ``test.jsonl`` are there, the
sets of AutoPrompt and P-tuning, these are used as they are. An object is a class, and its word; only objects that are
both trained and tested are kept, so accuracy is precision at 1 among them, not among a whole vocabulary. Version 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench_scenarios import _tables
from benchmark import ScenarioSpec, data, hookimpl, splits
from benchmark.errors import DataMissing
from benchmark.readers.files import is_file, shown
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

FOLDERS = ("LAMA", "LAMA/data", "lama")
LEAST = 5  # facts of an object that the cut leaves one for the test

Facts = list[tuple[str, str]]  # subject, object


@dataclass(frozen=True, kw_only=True, slots=True)
class LamaConfig:
    """Options of ``lama``.

    Attributes:
        relation: Its number in Wikidata, e.g. ``P19``, place of birth.
    """

    relation: str = "P19"

    def __post_init__(self) -> None:
        """Checks its form."""
        if not (self.relation.startswith("P") and self.relation[1:].isdecimal()):
            raise ValueError(f"relation: {self.relation!r} is not the number of a relation, e.g. P19")


def build(config: LamaConfig, request: ScenarioRequest) -> Scenario:
    """Builds it; the seed does not matter.

    Raises:
        ValueError: There is no such relation.
        DataMissing: A file is absent or damaged, or no objects are left.
    """
    root = data.data_root(request.data_root)
    folder = next((root / name for name in FOLDERS if is_file(root / name / "relations.jsonl")), None)
    if folder is None:
        raise DataMissing(
            f"{shown(root / FOLDERS[0] / 'relations.jsonl')} is not there",
            hint="unpack LAMA's data.zip into that folder",
        )
    pattern = _pattern(folder / "relations.jsonl", config.relation)
    own = folder / "original" / config.relation
    if is_file(own / "train.jsonl"):
        train, test, partition = _facts(own / "train.jsonl"), _facts(own / "test.jsonl"), "original"
    else:
        train, test = _cut(_facts(folder / "TREx" / f"{config.relation}.jsonl"))
        partition = "80/20 cut"
    kept = sorted({thing for _, thing in train} & {thing for _, thing in test})
    if len(kept) < 2:
        raise DataMissing(f"{len(kept)} objects of {config.relation} are both trained and tested; two are needed")
    experience = Experience(
        train=_samples(train, kept, 0), test=_samples(test, kept, 1_000_000), classes=tuple(range(len(kept)))
    )
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        class_names=tuple(kept),
        partition=partition,
        notes={"layout": "jsonl"},
        wording=Wording(patterns=(pattern,), words={name: (name,) for name in kept}, segments=("subject",)),
    )


def _pattern(path: Path, relation: str) -> str:
    """The template of a relation as a pattern."""
    known = {}
    for line, row in _tables.rows(path, "jsonl"):
        template = row.get("template", "")
        if "relation" not in row or template.count("[X]") != 1 or template.count("[Y]") != 1:
            raise DataMissing(f"{shown(path)}: line {line} has no relation with a template of one [X] and one [Y]")
        known[row["relation"]] = template.replace("[X]", "{subject}").replace("[Y]", "{mask}")
    if relation not in known:
        raise ValueError(f"relation: {shown(path)} has no {relation!r}; it has {', '.join(known)}")
    return known[relation]


def _facts(path: Path) -> Facts:
    if not is_file(path):
        raise DataMissing(f"{shown(path)} is not there", hint="LAMA has a file for every relation")
    facts = []
    for line, row in _tables.rows(path, "jsonl"):
        for field in ("sub_label", "obj_label"):
            if not row.get(field, "").strip():
                raise DataMissing(f"{shown(path)}: line {line} has no `{field}`")
        facts.append((row["sub_label"].strip(), row["obj_label"].strip()))
    return facts


def _cut(facts: Facts) -> tuple[Facts, Facts]:
    counts = Counter(thing for _, thing in facts)
    facts = [fact for fact in facts if counts[fact[1]] >= LEAST]
    number = {thing: place for place, thing in enumerate(sorted(counts))}
    train, test = splits.train_test([number[thing] for _, thing in facts])
    return [facts[row] for row in train], [facts[row] for row in test]


def _samples(facts: Facts, kept: list[str], start: int) -> Samples:
    import torch

    number = {thing: label for label, thing in enumerate(kept)}
    facts = [fact for fact in facts if fact[1] in number]
    rows = torch.arange(len(facts))
    texts = _tables.Texts([{"subject": subject} for subject, _ in facts])
    return Samples(texts, rows, torch.tensor([number[thing] for _, thing in facts]), rows + start)


def _look(root: Path) -> data.Form | None:
    """All tables of facts, with those of the relations."""
    if data.find(FOLDERS, root) is None:
        return None
    folder = next((root / name for name in FOLDERS if is_file(root / name / "relations.jsonl")), None)
    if folder is None:
        raise DataMissing(f"{shown(root / FOLDERS[0] / 'relations.jsonl')} is not there")
    tables = [path for kind in ("TREx", "original/*") for path in sorted(folder.glob(f"{kind}/*.jsonl"))]
    if not tables:
        raise DataMissing(f"{shown(folder)} has no facts, neither in TREx nor in original")
    return data.Form(name="jsonl", files=(folder / "relations.jsonl", *tables))


LAMA = data.DataSet(
    title="LAMA",
    folders=FOLDERS,
    layouts=("relations.jsonl and TREx/<relation>.jsonl", "relations.jsonl and original/<relation>/{train,test}.jsonl"),
    name="lama",
    look=_look,
)

SPEC = ScenarioSpec(
    name="lama",
    build=build,
    config=LamaConfig,
    summary="LAMA: which word is the object of a fact; one relation",
    family="class-il",
    tracks={"paper": "", "mini": "", "nano": ""},
    variant="relation",
    source="github.com/facebookresearch/LAMA",
    licence="CC BY-NC 4.0",
    size_mb=75.0,
    data=(LAMA,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``lama``."""
    return [SPEC]
