"""E2E and WebNLG: texts are written about the slots of a restaurant, or about triples of facts.

Source of ``e2e-nlg``: the E2E challenge (Novikova et al., arXiv 1706.09254), folder ``e2e-dataset`` with
``trainset.csv`` and ``testset_w_refs.csv``: a meaning representation ``name[The Eagle], food[French]`` and a
reference in a row; equal representations are one sample with all their references. Source of ``webnlg``: the WebNLG
challenge of 2017 (Gardent et al., 2017), folder ``webnlg_challenge_2017`` with ``train.json`` and ``test.json``: sets
of triples, with texts. Inputs are read by models as one line, ``name : The Eagle | food : French`` and ``subject :
property : object | ...``, as prefix-tuning (Li and Liang, arXiv 2101.00190) has them. The development sets are not
read. Version 1.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_scenarios import _tables
from benchmark import ScenarioSpec, data, hookimpl
from benchmark.errors import DataMissing
from benchmark.readers.files import is_file, read_bytes, shown
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

Found = dict[str, list[str]]  # references of each input, in the order of the file

_SLOT = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*")


@dataclass(frozen=True, slots=True)
class Set:
    """One of the data sets as it is published.

    Attributes:
        folder: Name of its folder.
        files: Of training and test inputs, with the published numbers of texts.
        read: Reads a file.
    """

    folder: str
    files: tuple[tuple[str, int], tuple[str, int]]
    read: Callable[[Path], Found]


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesTextConfig:
    """There are no options."""


def build(name: str, config: TablesTextConfig, request: ScenarioRequest) -> Scenario:
    """Builds one of `SETS`; it does not depend on the seed.

    Raises:
        DataMissing: A file is absent, damaged, or has not as many texts as are published.
    """
    one = SETS[name]
    folder = data.data_root(request.data_root) / one.folder
    train, test = (_samples(folder / file, one, count, side) for side, (file, count) in enumerate(one.files))
    return Scenario.of(
        SPECS[name],
        config,
        version=1,
        experiences=(Experience(train=train, test=test, classes=(0,)),),
        class_names=("text",),
        notes={"layout": Path(one.files[0][0]).suffix.removeprefix(".")},
        wording=Wording(patterns=("{source} = {mask}",), segments=("source",)),
    )


def _samples(path: Path, one: Set, count: int, side: int) -> Samples:
    import torch

    if not is_file(path):
        raise DataMissing(f"{shown(path)} is not there", hint=f"unpack the data set into {one.folder} of the data root")
    found = one.read(path)
    texts = sum(map(len, found.values()))
    if texts != count:
        raise DataMissing(f"{shown(path)} has {texts:,} texts instead of {count:,}", hint="fetch the file anew")
    rows = torch.arange(len(found))
    source = _tables.Texts([{"source": line} for line in found])
    return Samples(source, rows, torch.zeros(len(found)), rows + side * 1_000_000, references=[*found.values()])


def _e2e(path: Path) -> Found:
    found: Found = {}
    for line, row in _tables.rows(path, "csv"):
        slots, reference = row.get("mr", ""), row.get("ref", "").strip()
        parts = _SLOT.findall(slots)
        if not parts or not reference or _SLOT.sub("", slots).strip(", "):
            raise DataMissing(
                f"{shown(path)}: line {line} is no representation with a reference: {slots!r:.100}",
                hint="its columns are mr and ref, e.g. name[The Eagle], food[French]",
            )
        found.setdefault(" | ".join(f"{slot.strip()} : {value}" for slot, value in parts), []).append(reference)
    return found


def _webnlg(path: Path) -> Found:
    found: Found = {}
    try:
        for entry in json.loads(read_bytes(path))["entries"]:
            for number, facts in entry.items():
                triples = [(one["subject"], one["property"], one["object"]) for one in facts["modifiedtripleset"]]
                texts = [one["lex"].strip() for one in facts["lexicalisations"]]
                if not triples or not texts or not all(texts):
                    raise DataMissing(f"{shown(path)}: entry {number} has no triples or an empty text")
                found.setdefault(" | ".join(" : ".join(one) for one in triples), []).extend(texts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataMissing(
            f"{shown(path)} is not WebNLG in JSON: {type(error).__name__}: {error}",
            hint="it holds `entries` with `modifiedtripleset` and `lexicalisations`",
        ) from error
    return found


SETS: dict[str, Set] = {
    "e2e-nlg": Set("e2e-dataset", (("trainset.csv", 42_061), ("testset_w_refs.csv", 4_693)), _e2e),
    "webnlg": Set("webnlg_challenge_2017", (("train.json", 18_102), ("test.json", 4_928)), _webnlg),
}
_ABOUT = {
    "e2e-nlg": ("sentences about the slots of a restaurant", "CC BY-SA 4.0", 11.8, "macs.hw.ac.uk/InteractionLab/E2E"),
    "webnlg": ("sentences about triples of facts", "CC BY-NC-SA 4.0", 25.0, "gitlab.com/shimorina/webnlg-dataset"),
}


def _contents(name: str, request: ScenarioRequest) -> tuple[dict[str, Samples], dict[str, str]]:
    """All inputs, see `benchmark.data.DataSet.contents`."""
    one = SETS[name]
    folder = data.data_root(request.data_root) / one.folder
    parts = (("train", *one.files[0]), ("test", *one.files[1]))
    return {part: _samples(folder / file, one, count, 0) for part, file, count in parts}, {}


DATA: dict[str, data.DataSet] = {
    name: data.DataSet(
        title={"e2e-nlg": "E2E", "webnlg": "WebNLG 2017"}[name],
        folders=(one.folder,),
        layouts=(" and ".join(file for file, _ in one.files),),
        name=name,
        class_names=("text",),
        look=functools.partial(_tables.look, folders=(one.folder,), names=[file for file, _ in one.files]),
        contents=functools.partial(_contents, name),
    )
    for name, one in SETS.items()
}
SPECS: dict[str, ScenarioSpec] = {
    name: ScenarioSpec(
        name=name,
        build=functools.partial(build, name),
        config=TablesTextConfig,
        summary=what,
        family="generation",
        tracks={"paper": "", "mini": "", "nano": ""},
        source=source,
        licence=licence,
        size_mb=size,
        data=(DATA[name],),
    )
    for name, (what, licence, size, source) in _ABOUT.items()
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``e2e-nlg`` and ``webnlg``."""
    return list(SPECS.values())
