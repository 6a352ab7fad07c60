"""Scenarios of tables and texts about them: the bundled one, and published ones in small files of the same form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench_scenarios import language_world as world
from bench_scenarios import places_text, tables_text
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing
from benchmark.metrics.texts import slots


def make(spec: Any, root: Path | None = None, **options: Any) -> Scenario:
    built: Scenario = spec.build(
        spec.config(**options), ScenarioRequest(data_root=root, cache=Path(), download="never")
    )
    return built


def test_places_of_the_test_have_combinations_of_their_own() -> None:
    (part,) = make(places_text.SPEC, train=40, test=20).experiences
    sheets = [world.sheet(index, split="test") for index in range(20)]
    assert [text["source"] for text in part.test.texts(slice(None))] == [sheet.source for sheet in sheets]
    assert part.test.references == tuple(sheet.references for sheet in sheets)
    combinations = [
        {text["source"].partition(" | ")[2] for text in samples.texts(slice(None))}
        for samples in (part.train, part.test)
    ]
    assert not combinations[0] & combinations[1]
    assert slots(part.test.texts(slice(0, 1))[0]) == [*sheets[0].slots.items()]


@pytest.mark.parametrize("name", ["e2e-nlg", "webnlg"])
def test_the_files_are_recognised(name: str, tmp_path: Path) -> None:
    dataset = tables_text.DATA[name]
    assert dataset.look is not None
    assert dataset.look(tmp_path) is None
    files = [tmp_path / tables_text.SETS[name].folder / file for file, _ in tables_text.SETS[name].files]
    files[0].parent.mkdir()
    files[0].write_text("x")
    with pytest.raises(DataMissing, match=f"{files[1].name} is not there"):
        dataset.look(tmp_path)
    files[1].write_text("y")
    form = dataset.look(tmp_path)
    assert form is not None
    assert form.files == tuple(files)


E2E = """mr,ref
"name[The Eagle], food[French]",The Eagle is French.
"name[The Eagle], food[French]","French food, at The Eagle."
"name[Mill], near[Burger King]",Mill is near Burger King.
"""
ENTRIES = {
    "entries": [
        {
            "1": {
                "modifiedtripleset": [
                    {"subject": "Aarhus", "property": "leader", "object": "Jacob"},
                    {"subject": "Aarhus", "property": "country", "object": "Denmark"},
                ],
                "lexicalisations": [{"comment": "good", "lex": "Jacob leads Aarhus."}, {"lex": "Aarhus, by Jacob."}],
            }
        },
        {
            "2": {
                "modifiedtripleset": [{"subject": "a", "property": "b", "object": "c"}],
                "lexicalisations": [{"lex": "a b c."}],
            }
        },
    ]
}


def published(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, count: int = 3) -> None:
    one = tables_text.SETS[name]
    files = tuple((file, count) for file, _ in one.files)
    monkeypatch.setitem(tables_text.SETS, name, dataclasses.replace(one, files=files))
    (root / one.folder).mkdir()
    for file, _ in files:
        (root / one.folder / file).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "source", "references"),
    [
        ("e2e-nlg", E2E, "name : The Eagle | food : French", ("The Eagle is French.", "French food, at The Eagle.")),
        (
            "webnlg",
            json.dumps(ENTRIES),
            "Aarhus : leader : Jacob | Aarhus : country : Denmark",
            ("Jacob leads Aarhus.", "Aarhus, by Jacob."),
        ),
    ],
)
def test_published_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, source: str, references: tuple[str, ...]
) -> None:
    published(tmp_path, monkeypatch, name, content)
    (part,) = make(tables_text.SPECS[name], tmp_path).experiences
    assert (len(part.train), len(part.test)) == (2, 2)
    assert part.train.texts(slice(0, 1))[0] == {"source": source}
    assert part.train.references is not None
    assert part.train.references[0] == references
    assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())


@pytest.mark.parametrize(
    ("name", "content", "count", "told"),
    [
        ("e2e-nlg", E2E, 5, "has 3 texts instead of 5"),
        ("e2e-nlg", "mr,ref\nThe Eagle,x\n", 1, "line 2 is no representation with a reference: 'The Eagle'"),
        ("e2e-nlg", "a,b\nc,d\n", 1, "line 2 is no representation"),
        ("webnlg", "{", 1, "is not WebNLG in JSON: JSONDecodeError"),
        ("webnlg", '{"entries": [{"1": {}}]}', 1, "is not WebNLG in JSON: KeyError: 'modifiedtripleset'"),
    ],
)
def test_tables_that_are_not_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, count: int, told: str
) -> None:
    published(tmp_path, monkeypatch, name, content, count)
    with pytest.raises(DataMissing) as error:
        make(tables_text.SPECS[name], tmp_path)
    assert told in error.value.message
    with pytest.raises(DataMissing, match="is not there"):
        make(tables_text.SPECS[name], tmp_path.parent / tmp_path.name / tables_text.SETS[name].folder)
