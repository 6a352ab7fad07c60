"""Scenarios that read texts from files: the user's own, and published data sets in small files of the same form."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_scenarios import _tables, five_texts, glue, lama, texts
from benchmark import data_facts, registry
from benchmark.api import Samples, Scenario, ScenarioRequest
from benchmark.cli import main
from benchmark.errors import BenchError, DataMissing
from benchmark.registry import Entry, Loaded
from benchmark.run import preparation
from benchmark.testing import checks


def make(spec: Any, root: Path | None = None, tag: str = "", seed: int = 0, **options: Any) -> Scenario:
    places = {"data_root": root, "cache": Path(), "download": "never", "tag": tag}
    loaded = Loaded(spec, Entry(spec.name, "here", "adaptbench"), "0" * 64)
    return preparation.make_scenario(loaded, spec.config(**options), places, seed=seed)


def mine(path: Path, seed: int = 0, **options: Any) -> Scenario:
    return make(texts.SPEC, tag=str(path), seed=seed, **options)


def read(samples: Samples) -> list[dict[str, str]]:
    return [dict(text) for text in samples.texts(slice(None))]


def as_csv(rows: Iterable[Sequence[object]], **options: Any) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", **options).writerows(rows)
    return file.getvalue()


def saved(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_jsonl(rows: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- texts:FILE -------------------------------------------------------------------------------------------------------

STARS = [
    (f'so "{word}", number {row}\nreally', star, f"shop{row % 2}")
    for star, word in ((5, "good"), (1, "bad"), (3, "fair"))
    for row in range(10)
]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return saved(tmp_path / "mine.csv", as_csv([("review", "stars", "shop"), *STARS]))


OPTIONS: dict[str, Any] = {"label": "stars", "text": ("review",)}


def test_a_file_is_a_stream_of_new_classes(reviews: Path) -> None:
    scenario = mine(reviews, **OPTIONS, experiences=2, pattern="{review} It was {mask}.", words="5=good,great; 1=bad")
    assert scenario.name == f"texts:mine.csv-{scenario.content[:8]}"
    assert (scenario.class_names, scenario.partition) == (("1", "3", "5"), "80/20 cut")
    assert [part.classes for part in scenario.experiences] == [(0, 1), (2,)]
    assert [(len(part.train), len(part.test)) for part in scenario.experiences] == [(16, 4), (8, 2)]
    found = [*read(scenario.experiences[1].train), *read(scenario.experiences[1].test)]
    assert sorted(text["review"] for text in found) == sorted(text for text, star, _ in STARS if star == 5)
    assert scenario.wording is not None
    assert scenario.wording.patterns == ("{review} It was {mask}.",)
    assert scenario.wording.words == {"1": ("bad",), "3": ("3",), "5": ("good", "great")}
    other = mine(reviews, seed=1, **OPTIONS, class_order="seed")
    assert other.content == scenario.content
    assert other.class_names != scenario.class_names


def test_a_file_is_a_stream_of_domains(reviews: Path) -> None:
    scenario = mine(reviews, **OPTIONS, family="domain-il", domain="shop")
    assert (scenario.family, scenario.domains) == ("domain-il", ("shop0", "shop1"))
    for place, part in enumerate(scenario.experiences):
        assert part.train.labels.bincount().tolist() == [4, 4, 4]
        assert part.test.labels.bincount().tolist() == [1, 1, 1]
        assert {text["review"] for text in read(part.train)} < {
            text for text, _, shop in STARS if shop == f"shop{place}"
        }
    assert mine(reviews, **OPTIONS, family="domain-il", domain="shop", order=("shop1",)).domains == ("shop1",)


def test_layouts_with_the_same_rows_are_the_same_data(reviews: Path) -> None:
    rows = [{"review": text, "stars": star, "shop": shop} for text, star, shop in STARS]
    others = [
        saved(
            reviews.with_name("bom.csv"),
            b"\xef\xbb\xbf" + reviews.read_bytes().replace(b"\n", b"\r\n").replace(b"\r\nreally", b"\nreally"),
        ),
        saved(reviews.with_name("mine.tsv"), as_csv([("review", "stars", "shop"), *STARS], delimiter="\t")),
        saved(reviews.with_name("mine.jsonl"), as_jsonl(rows)),
    ]
    expected = mine(reviews, **OPTIONS)
    for path in others:
        assert mine(path, **OPTIONS).fingerprint == expected.fingerprint, path


def test_a_column_or_a_second_file_says_what_is_tested(tmp_path: Path) -> None:
    rows = [
        ("text", "label", "fold"),
        *((f"{name} {row}", name, "test" if row else "Train") for name in "ab" for row in range(3)),
    ]
    scenario = mine(saved(tmp_path / "one.csv", as_csv(rows)), split="fold")
    (part,) = scenario.experiences
    assert scenario.partition == ""
    assert [text["text"] for text in read(part.train)] == ["a 0", "b 0"]
    assert [text["text"] for text in read(part.test)] == ["a 1", "a 2", "b 1", "b 2"]
    saved(tmp_path / "two.csv", as_csv([("text", "label"), ("c", "b"), ("d", "a")]))
    (part,) = mine(tmp_path / "one.csv", test="two.csv").experiences
    assert (len(part.train), [text["text"] for text in read(part.test)]) == (6, ["c", "d"])
    assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())


GOOD = "text,label\n" + "".join(f"{name} {row},{name}\n" for name in "ab" for row in range(5))
BAD: list[tuple[str | bytes | None, dict[str, Any], str]] = [
    (None, {}, "mine.csv cannot be read: No such file or directory"),
    ("", {}, "mine.csv holds no rows"),
    ("text,label\n", {}, "mine.csv holds no rows"),
    ("text,text\na,b\n", {}, "the first row is text, text: these are not different names of columns"),
    ("text,label\na,b,c\n", {}, "line 2 has 3 cells instead of 2 (text, label)"),
    ('text,label\n"a,b\nc,d\n', {}, "line 2: unexpected end of data"),
    (b"text,label\ncaf\xe9,b\n", {}, "there are bytes that are not UTF-8"),
    (GOOD + ' ,a\n"",b\n', {}, "line 12: text is empty (2 such rows)"),
    (GOOD + "z,\n", {}, "line 12: `label` is empty (1 such rows)"),
    (GOOD + "z,c\n", {}, "class 'c' has 1 text(s); the 80/20 cut needs 5"),
    ("text,label\na,b\n", {}, "is of the class 'b'; two or more are needed"),
    (GOOD, {"label": "stars"}, "scenario.texts.label: "),
    (GOOD, {"label": "stars"}, "has no column 'stars'; it has text, label"),
    (GOOD, {"experiences": 3}, "scenario.texts.experiences: 3 is too many for 2 classes"),
    (GOOD, {"class_order": "0,0"}, "scenario.texts.class_order: "),
    (GOOD, {"pattern": "{review} {mask}"}, "needs one {mask}, and no field but text"),
    (GOOD, {"pattern": "{text}"}, "needs one {mask}"),
    (GOOD, {"words": "c=bad"}, "words: 'c=bad' is not CLASS=word,word; classes are a, b"),
    (GOOD, {"split": "label"}, "line 2: `label` is 'a'"),
    (GOOD, {"test": "other.csv"}, "other.csv cannot be read"),
    (GOOD, {"family": "domain-il", "domain": "text"}, "text(s) in domain 'a 0'; the 80/20 cut needs 5"),
]


@pytest.mark.parametrize(("content", "options", "told"), BAD)
def test_bad_files_and_options_get_one_clear_message(
    tmp_path: Path, content: str | bytes | None, options: dict[str, Any], told: str
) -> None:
    path = tmp_path / "mine.csv"
    if content is not None:
        saved(path, content)
    with pytest.raises(BenchError) as error:
        mine(path, **options)
    assert told in error.value.message


def test_empty_texts_may_be_dropped_and_bad_lines_of_json_are_named(tmp_path: Path) -> None:
    scenario = mine(saved(tmp_path / "a.csv", GOOD + " ,a\n"), empty="drop")
    assert sum(len(part.train) + len(part.test) for part in scenario.experiences) == 10
    for line, told in (
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"text": "a"}', "no column 'label'"),
    ):
        with pytest.raises(BenchError) as error:
            mine(saved(tmp_path / "b.jsonl", line))
        assert told in error.value.message
    with pytest.raises(DataMissing, match="its name does not tell its layout"):
        mine(saved(tmp_path / "b.xlsx", "x"))
    for options in (
        {"domain": "a"},
        {"test": "../a.csv"},
        {"text": ()},
        {"order": ("a",)},
        {"split": "a", "test": "b"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            texts.TextsConfig(**options)  # type: ignore[arg-type]


def test_the_size_of_cells_is_no_business_of_others(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    table = _tables.read(saved(tmp_path / "a.csv", f"text\n{long}\n"), "csv")
    assert table.rows == [{"text": long}]
    assert csv.field_size_limit() == before


# --- five data sets ---------------------------------------------------------------------------------------------------


def five(root: Path, rows: int = 40, **changes: str) -> Path:
    """The five data sets, with so many rows of training and a quarter of test; a row too short to count in each."""
    for name, one in five_texts.SETS.items():
        for split, count in (("train", rows), ("test", rows // 2)):
            lines = [
                (row % len(one.classes) + 1, *(f'A "{name}" {column} of {row}' for column in one.columns))
                for row in range(count)
            ]
            short = [(1, *("x" for _ in one.columns))]
            content = as_csv(short + lines, quoting=csv.QUOTE_ALL)
            saved(root / one.folders[0] / f"{split}.csv", changes.get(f"{name}/{split}", content))
    return root


@pytest.mark.parametrize("order", five_texts.ORDERS)
def test_five_texts_in_each_order(tmp_path: Path, order: str) -> None:
    scenario = make(five_texts.SPEC, five(tmp_path), order=order, train=30, test=15)
    assert scenario.name == f"five-texts/{order}"
    assert scenario.domains == five_texts.ORDERS[order]
    assert (scenario.num_classes, len(set(scenario.class_names))) == (33, 33)
    by_name = dict(zip(scenario.domains, scenario.experiences, strict=True))
    assert by_name["yelp"].classes == by_name["amazon"].classes
    assert sum(len(part.classes) for part in scenario.experiences) == 38
    assert scenario.wording is not None
    assert set(scenario.wording.words) == set(scenario.class_names)
    first = read(by_name["yahoo"].train)[0]
    assert first == {"text": 'a "yahoo" title of 0 a "yahoo" content of 0 a "yahoo" answer of 0'}
    assert [scenario.class_names[label] for label in by_name["agnews"].train.labels[:5].tolist()] == [
        "World",
        "Sports",
        "Business",
        "Sci/Tech",
        "World",
    ]


def test_five_texts_pass_the_contract_on_small_files(tmp_path: Path) -> None:
    small = dataclasses.replace(
        five_texts.SPEC,
        build=lambda config, request: five_texts.build(dataclasses.replace(config, train=30, test=15), request),
    )
    five(tmp_path)
    for result in checks.run_checks(
        checks.ScenarioSubject(Loaded(small, Entry("five-texts", "x", "x"), ""), data_root=tmp_path)
    ):
        assert result.result != "fail", result


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"agnews/train": '"7","a","b"\n'}, "line 1: the label is '7'"),
        ({"agnews/train": '"1","a"\n'}, "line 1 has 2 cells instead of 3 (label, title, content)"),
        ({"agnews/test": '"1","a","b"\n'}, "has 0 rows of 20 characters or more instead of 15"),
    ],
)
def test_five_texts_that_are_not_as_published(tmp_path: Path, changes: dict[str, str], told: str) -> None:
    with pytest.raises(DataMissing) as error:
        make(five_texts.SPEC, five(tmp_path, **changes), train=30, test=15)
    assert told in error.value.message


def test_five_texts_are_recognised(tmp_path: Path) -> None:
    five(tmp_path)
    forms = [dataset.look(tmp_path) for dataset in five_texts.DATA if dataset.look is not None]
    assert [form is not None and [path.name for path in form.files] for form in forms] == [
        ["train.csv", "test.csv"]
    ] * 5


def test_five_texts_that_are_absent(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"yelp_review_full_csv.train\.csv is not there"):
        make(five_texts.SPEC, tmp_path)


# --- GLUE and SuperGLUE -----------------------------------------------------------------------------------------------

COUNTS = {"train": 30, "dev": 9}


def published(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, **changes: str) -> glue.Set:
    """One data set in files of the published form and `COUNTS` rows."""
    one = glue.SETS[name]
    files = tuple((file, count) for (file, _), count in zip(one.files, COUNTS.values(), strict=True))
    monkeypatch.setitem(glue.SETS, name, dataclasses.replace(one, files=files))
    for file, count in files:
        kinds = [*one.classes]
        rows = [
            {
                "index": row,
                **{column: f'the "{column} {row}.' for column in one.fields.values()},
                one.label: kinds[row % len(kinds)],
            }
            for row in range(count)
        ]
        if file.endswith("jsonl"):
            content = as_jsonl(
                {**row, one.label: json.loads(str(row[one.label])) if name == "boolq" else row[one.label]}
                for row in rows
            )
        else:
            content = "".join("\t".join(map(str, row)) + "\n" for row in [[*rows[0]], *(row.values() for row in rows)])
        saved(root / one.folder / file, changes.get(file, content))
    return one


@pytest.mark.parametrize("name", glue.SETS)
def test_glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    one = published(tmp_path, monkeypatch, name)
    scenario, other = (
        make(glue.SPECS[name], tmp_path, seed=seed, labels=10, validation=4, unlabelled=12) for seed in (0, 1)
    )
    (part,) = scenario.experiences
    assert (scenario.name, scenario.family) == (f"{name}/10", "few-labels")
    counts = part.train.labels.bincount().tolist()
    assert (sum(counts), max(counts) - min(counts) <= 1, len(counts)) == (10, True, len(one.classes))
    assert part.target is not None
    assert part.validation is not None
    sets = [part.train, part.validation, part.target, part.test]
    assert len(set().union(*(some.ids.tolist() for some in sets))) == sum(map(len, sets)) == 10 + 4 + 12 + 9
    assert set(part.train.ids.tolist()) != set(other.experiences[0].train.ids.tolist())
    assert scenario.wording is not None
    for pattern in scenario.wording.patterns:
        for text in read(part.test):
            assert pattern.replace("{mask}", "").format(**text)
    field, column = next(iter(one.fields.items()))
    assert read(part.test)[0][field] == f'the "{column} 0.'
    assert set(scenario.wording.words) == set(scenario.class_names)
    dataset = glue.DATA[name]
    assert dataset.look is not None
    assert dataset.contents is not None
    form = dataset.look(tmp_path)
    assert form is not None
    assert [path.name for path in form.files] == [file for file, _ in one.files]
    parts, _ = dataset.contents(ScenarioRequest(data_root=tmp_path, cache=tmp_path))
    assert [len(part) for part in parts.values()] == [30, 9]
    assert data_facts.describe(parts, dataset.class_names, {})["parts"]["train"]["absent"] == []
    form.files[1].unlink()
    with pytest.raises(DataMissing, match="is not there"):
        dataset.look(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("cb", {"val.jsonl": '{"premise": "a", "hypothesis": "b", "label": "maybe"}\n'}, "line 1: `label` is 'maybe'"),
        (
            "cb",
            {"val.jsonl": '{"premise": "a", "label": "neutral"}\n'},
            "line 1 has no `hypothesis`, but premise, label",
        ),
        ("sst2", {"dev.tsv": "sentence\tlabel\nfine\t1\n"}, "has 1 examples instead of 9"),
        ("sst2", {"dev.tsv": "sentence\tlabel\nfine\n"}, "line 2 has 1 cells instead of 2 (sentence, label)"),
    ],
)
def test_glue_that_is_not_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, str], told: str
) -> None:
    published(tmp_path, monkeypatch, name, **changes)
    with pytest.raises(DataMissing) as error:
        make(glue.SPECS[name], tmp_path, labels=10, validation=4)
    assert told in error.value.message


def test_glue_refuses_more_labels_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, monkeypatch, "rte")
    with pytest.raises(BenchError, match="labels: 100 needs 50 examples of class 0, and there are 15"):
        make(glue.SPECS["rte"], tmp_path, labels=100)
    with pytest.raises(DataMissing, match=r"BoolQ.train\.jsonl is not there"):
        make(glue.SPECS["boolq"], tmp_path)


# --- facts ------------------------------------------------------------------------------------------------------------

FACTS = [{"sub_label": f"person {row}", "obj_label": place} for place in ("Rome", "Paris") for row in range(5)]


def facts(root: Path, **changes: str) -> Path:
    templates = [{"relation": "P19", "template": "[X] was born in [Y] ."}, {"relation": "P36", "template": "[Y] : [X]"}]
    few = [{"sub_label": "nobody", "obj_label": "Oslo"}]
    for name, content in (("relations.jsonl", as_jsonl(templates)), ("TREx/P19.jsonl", as_jsonl(FACTS + few))):
        saved(root / "LAMA" / name, changes.get(name, content))
    return root


def test_lama(tmp_path: Path) -> None:
    scenario = make(lama.SPEC, facts(tmp_path))
    (part,) = scenario.experiences
    assert (scenario.name, scenario.class_names, scenario.partition) == ("lama/P19", ("Paris", "Rome"), "80/20 cut")
    assert scenario.wording is not None
    assert scenario.wording.patterns == ("{subject} was born in {mask} .",)
    assert part.train.labels.bincount().tolist() == [4, 4]
    assert set(read(part.train)[0]) == {"subject"}
    for split, rows in (("train", FACTS[:7]), ("test", [*FACTS[4:6], {"sub_label": "x", "obj_label": "Bern"}])):
        saved(tmp_path / "LAMA" / "original" / "P19" / f"{split}.jsonl", as_jsonl(rows))
    scenario = make(lama.SPEC, tmp_path)
    (part,) = scenario.experiences
    assert (scenario.partition, len(part.train), len(part.test)) == ("original", 7, 2)
    form = lama.LAMA.look(tmp_path) if lama.LAMA.look is not None else None
    assert form is not None
    assert [path.name for path in form.files] == ["relations.jsonl", "P19.jsonl", "test.jsonl", "train.jsonl"]


def test_lama_without_facts_is_incomplete(tmp_path: Path) -> None:
    assert lama.LAMA.look is not None
    assert lama.LAMA.look(tmp_path) is None
    (tmp_path / "LAMA").mkdir()
    with pytest.raises(DataMissing, match=r"relations\.jsonl is not there"):
        lama.LAMA.look(tmp_path)
    saved(tmp_path / "LAMA" / "relations.jsonl", "{}")
    with pytest.raises(DataMissing, match="has no facts"):
        lama.LAMA.look(tmp_path)


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({}, {"relation": "P20"}, "has no 'P20'; it has P19, P36"),
        ({}, {"relation": "P36"}, "P36.jsonl is not there"),
        ({"relations.jsonl": '{"relation": "P19"}\n'}, {}, "line 1 has no relation with a template"),
        ({"TREx/P19.jsonl": '{"sub_label": "a"}\n'}, {}, "line 1 has no `obj_label`"),
        ({"TREx/P19.jsonl": as_jsonl(FACTS[:5])}, {}, "1 objects of P19 are both trained and tested"),
    ],
)
def test_lama_that_is_not_as_published(
    tmp_path: Path, changes: dict[str, str], options: dict[str, str], told: str
) -> None:
    with pytest.raises(BenchError) as error:
        make(lama.SPEC, facts(tmp_path, **changes), **options)
    assert told in error.value.message


# --- samples to read --------------------------------------------------------------------------------------------------


def test_info_shows_texts_and_wording(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["info", f"texts:{reviews}", "--set", "label=stars", "--set", "text=review"]
    asked = [*given, "--set", "pattern={review} It was {mask}.", "--show"]
    assert main([*asked, "-"]) == 0
    page = capsys.readouterr().out
    assert "## Experience 0: 24 training, 6 test texts" in page
    assert '\n- train: so "bad", number ' in page
    assert "really It was ____." in page
    assert "- test: so " in page
    for name in ("page.md", "page.html"):
        assert main([*asked, str(tmp_path / name)]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8").rstrip() == page.rstrip()
    assert "<li>train: so &quot;bad&quot;" in (tmp_path / "page.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*asked, str(tmp_path / "page.png")]) == 2
    assert "holds texts, no images" in capsys.readouterr().err
    assert main(["info", "reviews-uda"]) == 0
    told = capsys.readouterr().out
    assert "just {mask} ! {text}" in told
    assert "negative: bad or terrible" in told
    assert main(["info", "rte", "--data-root", str(tmp_path)]) == 0
    assert "missing: " in capsys.readouterr().out


def test_the_scenarios_are_registered() -> None:
    assert {"texts", "five-texts", "lama", *glue.SETS} <= set(registry.names("scenarios"))
    assert torch.is_tensor(_tables.Texts([{"text": "a"}])[torch.tensor([0])]) is False
