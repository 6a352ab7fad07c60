"""Results of other suites in tables: in rows of their own, marked, never in one with ours."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from benchmark import records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK
from benchmark.leaderboard import Table, leaderboard, render_text
from benchmark.records import imported
from benchmark.records.imported import Imported

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))
SCENARIO = TEMPLATE["scenario"]["name"]
METHOD = TEMPLATE["method"]["name"]
EMPTY: dict[str, Any] = {
    "import_id": "0" * 16,
    "source": {
        "suite": "TheirSuite",
        "importer": "theirs 1 of adaptbench 0.1.0",
        "file": "log.txt",
        "sha256": "a" * 64,
        "first_line": 1,
        "last_line": 9,
    },
    "complete": True,
    "notes": [],
    "told": {},
    "stands_by": SCENARIO,
    "track": "",
    "method": METHOD,
    "part": "",
    "scenario": "their-stream",
    "family": None,
    "backbone": "vit",
    "seed": None,
    "seeds": {},
    "seed_scope": "",
    "selection": "",
    "class_order": None,
    "experiences": None,
    "tests": None,
    "counts": None,
    "config": {},
    "facts": {},
    "accuracy": None,
    "decimals": None,
    "metrics": {},
    "reported": [],
    "tables": {},
}


def ours(seed: int, accuracy: float) -> records.Record:
    record = copy.deepcopy(TEMPLATE)
    record["seeds"] = dict.fromkeys(record["seeds"], seed)
    record["metrics"] |= {"final_avg_acc": accuracy, "final_acc": accuracy - 0.01}
    record["run_id"] = f"{seed:016x}"
    return records.parse(record)


def theirs(number: int, accuracy: float | None, **changes: Any) -> Imported:
    values = copy.deepcopy(EMPTY) | {"import_id": f"{number:016x}", "seed": number}
    if accuracy is not None:
        values |= {"metrics": {"final_avg_acc": accuracy}, "accuracy": [[accuracy]], "tests": ["0"]}
    return imported.make(values | changes)


def score(name: str, value: float, metric: str = "", unit: str | None = "fraction") -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "definition": f"what {name} is", "metric": metric}


def cells(table: Table, label: str) -> dict[str, Any]:
    (row,) = [row for row in table.rows if row.cells[0].text == label]
    return {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}


OURS = [ours(seed, value) for seed, value in enumerate([0.80, 0.81, 0.82])]


def test_a_row_of_its_own_below_ours() -> None:
    before = leaderboard(OURS)
    best = [theirs(seed, value) for seed, value in enumerate([0.97, 0.98, 0.99])]
    (table,) = leaderboard(OURS, imported=best)
    assert table.rows[: len(before[0].rows)] == before[0].rows, "ours are as they were"
    assert len(table.rows) == len(before[0].rows) + 1
    assert table.rows[-1].group == "imported"
    row = cells(table, f"{METHOD} (TheirSuite)")
    assert row["final_avg_acc"].text == "98.00 ± 1.00"
    assert not any(cell.bold for cell in table.rows[-1].cells)
    assert row["gain"].value is None
    assert row["seeds"].text == "3"
    notes = dict(table.footnotes)
    told = [notes[mark] for mark in row["method"].marks]
    assert told[0].startswith("imported from TheirSuite: log.txt (aaaaaaaa, lines 1-9), ")
    assert "not verified" in told[0]
    assert leaderboard(OURS) == before


def test_every_mark_keeps_its_text() -> None:
    (before,) = leaderboard(OURS)
    (after,) = leaderboard(OURS, imported=[theirs(1, 0.9, notes=["odd"])])
    kept = [pair for pair in before.footnotes if pair[0]]
    assert after.footnotes[: len(kept)] == tuple(kept)
    assert ("", dict(before.footnotes)[""]) in after.footnotes
    assert "import: odd" in dict(after.footnotes).values()


def test_runs_of_one_setting_are_a_row_and_others_are_not() -> None:
    runs = [
        theirs(1, 0.9),
        theirs(2, 0.8),
        theirs(2, 0.8),  # once more
        theirs(3, 0.7, config={"lr": 1}),
        theirs(4, 0.6, backbone="another"),
        theirs(5, 0.5, part="NME"),
    ]
    (table,) = leaderboard(OURS, imported=runs)
    rows = [row for row in table.rows if row.group == "imported"]
    found = {row.cells[0].text: row.cells[1].text for row in rows}
    assert found == {
        f"{METHOD} (TheirSuite) (backbone=vit, lr=null)": "85.00 ± 7.07",
        f"{METHOD} (TheirSuite) (backbone=vit, lr=1)": "70.00",
        f"{METHOD} (TheirSuite) (backbone=another, lr=null)": "60.00",
        f"{METHOD} NME (TheirSuite)": "50.00",
    }


def test_incomplete_runs_and_unknown_seeds_are_said() -> None:
    runs = [theirs(1, 0.9), theirs(2, None, complete=False), theirs(3, 0.8, seed=None)]
    (table,) = leaderboard(OURS, imported=runs)
    row = cells(table, f"{METHOD} (TheirSuite)")
    assert row["seeds"].text == "2, seeds unknown, 1 incomplete"
    assert row["final_avg_acc"].text == "85.00 ± 7.07"


def test_a_number_that_only_the_suite_computed_is_marked() -> None:
    (table,) = leaderboard(OURS, imported=[theirs(1, 0.9, reported=[score("total", 0.88, "final_acc")])])
    row = cells(table, f"{METHOD} (TheirSuite)")
    assert row["final_acc"].text == "88.00"
    assert dict(table.footnotes)[row["final_acc"].marks[0]].startswith("as the suite reported it")
    assert row["final_avg_acc"].marks == ()


@pytest.mark.parametrize("changes", [{"stands_by": ""}, {"stands_by": "split-nothing/1x1"}, {"track": "paper"}])
def test_what_belongs_to_no_table_has_one_of_its_own(changes: dict[str, Any]) -> None:
    run = theirs(1, None, **changes, reported=[score("acc", 0.5), score("perplexity", 12.5, unit=None)])
    mine, own = leaderboard(OURS, imported=[run])
    assert (mine,) == tuple(leaderboard(OURS))
    assert own.title.startswith("their-stream (TheirSuite), imported")
    row = cells(own, f"{METHOD} (TheirSuite)")
    assert (row["reported acc"].text, row["reported perplexity"].text) == ("50.00", "12.5")
    assert dict(own.footnotes)[row["reported acc"].marks[0]] == "reported: what acc is"


def test_every_format_renders_them_and_the_csv_tells_them_apart() -> None:
    tables = leaderboard(OURS, imported=[theirs(1, 0.9), theirs(2, 0.8, stands_by="")])
    texts = {name: registry.load_exporter(name).export(tables) for name in registry.names("exporters")}
    texts["table"] = render_text(tables)
    assert all("TheirSuite" in text for text in texts.values())
    lines = texts["csv"].splitlines()
    assert sum(",imported," in line for line in lines) == 2
    assert sum(",completed," in line for line in lines) == 3


def test_command_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported.write(tmp_path, theirs(1, 0.9))
    assert main(["leaderboard", "--results", str(tmp_path)]) == EXIT_OK
    assert "There is no table of ours" in capsys.readouterr().out
    for run in OURS:
        records.write(tmp_path / "x" / f"{run.run_id}.json", run)
    assert main(["leaderboard", "--results", str(tmp_path), "--scenario", SCENARIO]) == EXIT_OK
    assert f"{METHOD} (TheirSuite)" in capsys.readouterr().out
    assert main(["leaderboard", "--results", str(tmp_path), "--track", TEMPLATE["track"]]) == EXIT_OK
    assert main(["leaderboard", "--results", str(tmp_path), "--method", METHOD]) == EXIT_OK
    imported.write(tmp_path, theirs(2, 0.9, method="other"))
    capsys.readouterr()
    assert main(["leaderboard", "--results", str(tmp_path), "--method", METHOD]) == EXIT_OK
    assert "other (TheirSuite)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"accuracy": [[0.5, 0.5]], "tests": ["0"]}, r"accuracy\[0\] has 2 entries, tests has 1"),
        ({"counts": [1], "tests": []}, "counts has 1 entries, tests has 0"),
        ({"accuracy": None, "metrics": {"final_avg_acc": 0.5}}, "accuracy is null"),
        ({"source": EMPTY["source"] | {"first_line": 10}}, "last_line lies before"),
        ({"accuracy": [[3.0]], "tests": ["0"]}, "accuracy"),
    ],
)
def test_parts_that_contradict_are_refused(change: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        imported.make(copy.deepcopy(EMPTY) | change)
