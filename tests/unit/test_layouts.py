"""The tables of the families that transfer, from synthetic records."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark import records, registry
from benchmark.families import FAMILIES
from benchmark.leaderboard import Table, leaderboard, render_text
from benchmark.leaderboard.boards import BOARDS

GOLDEN = Path(__file__).parents[1] / "golden"
TEMPLATE = records.plain(records.read(GOLDEN / "records" / "v2.json"))
TEMPLATE["config"]["track"] = {
    **{group: dict(TEMPLATE["config"]["effective"][group]) for group in ("method", "engine")},
    "scenario": {"train": 3},
}
OPTIONS = {"uda": "pair", "dg": "held_out", "few-shot": "shots"}


def run(method: str, family: str, name: str, seed: int, metrics: dict[str, Any], **changes: Any) -> records.Record:
    """A record of a run; ``changes`` are ``part__key=value`` or ``key=value``."""
    record = copy.deepcopy(TEMPLATE)
    variant = name.partition("/")[2]
    option = OPTIONS.get(family, "") if variant else ""
    record["scenario"] |= {
        "family": family,
        "name": name,
        "variant_option": option,
        "options": {"train": 3, **({option: variant} if option else {})},
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "tests": [{"name": "target", "further": False}],
    }
    record["method"] |= {"name": method, "control": method.startswith("control"), "stream": "sequential"}
    record["seeds"] = dict.fromkeys(record["seeds"], seed)
    record["metrics"] = metrics
    record["losses"] = []
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if inner:
            record[part][inner] = value
        else:
            record[part] = value
    sets = len(record["scenario"]["tests"])
    record["counts"] = [50] * sets
    record["accuracy"] = [[None] * sets for _ in record["scenario"]["experiences"]]
    identity = json.dumps([record[key] for key in sorted(record) if key != "run_id"], sort_keys=True)
    record["run_id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return records.parse(record)


def uda(method: str, pair: str, seed: int, target: float, **changes: Any) -> dict[str, Any]:
    values = {"final_avg_acc": target, "target_acc": target, "source_acc": 0.9, "mean_class_acc": target - 0.1}
    return run(method, "uda", f"styles-uda/{pair}", seed, changes.pop("metrics", values), **changes)


def pairs(method: str, values: dict[str, list[float]], **changes: Any) -> list[records.Record]:
    return [uda(method, pair, seed, value, **changes) for pair, row in values.items() for seed, value in enumerate(row)]


def rows(table: Table) -> dict[str, dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return {row.cells[0].text: dict(zip(keys, row.cells, strict=True)) for row in table.rows}


def only(found: list[records.Record], **options: Any) -> Table:
    (table,) = leaderboard(found, **options)
    return table


def basic() -> list[records.Record]:
    return [
        *pairs("control-a", {"ink-chalk": [0.50, 0.52], "chalk-ink": [0.60, 0.62]}),
        *pairs("mine", {"ink-chalk": [0.70, 0.72], "chalk-ink": [0.80, 0.82]}),
    ]


def test_every_family_has_a_board() -> None:
    assert {family.board for family in FAMILIES.values()} == set(BOARDS)


def test_pairs_are_columns_of_one_table() -> None:
    table = only(basic())
    assert table.title == "styles-uda (version 1), track nano, tiny-vit"
    assert [column.title for column in table.columns] == [
        "Method",
        "chalk-ink",
        "ink-chalk",
        "Mean",
        "Per-class mean (%)",
        "Source kept (%)",
        "95 % interval (%)",
        "Gain (points)",
        "Trainable params",
        "Training (s)",
        "Seeds",
    ]
    mine = rows(table)["mine"]
    assert mine["variant ink-chalk"].text == "71.00"
    assert mine["variant chalk-ink"].value == pytest.approx(0.81)
    assert mine["mean"].text == "76.00 ± 1.41"  # of the means of the pairs, 75 and 77
    assert mine["mean_class_acc"].text == "66.00"
    assert mine["source_acc"].text == "90.00"
    assert mine["gain"].text == "+20.00"
    assert mine["seeds"].text == "2"
    assert rows(table)["control-a"]["gain"].text == "best control"
    assert len(table.runs) == 8
    assert table.runs[0]["family"] == "uda"
    assert "fingerprint" not in " ".join(text for _, text in table.footnotes)


def test_the_mean_needs_every_pair() -> None:
    found = [record for record in basic() if record["scenario"]["name"] != "styles-uda/ink-chalk"]
    found += [record for record in basic() if record["method"]["name"] == "control-a"]
    mine = rows(only(found))["mine"]
    assert mine["variant chalk-ink"].text == "81.00"
    assert mine["variant ink-chalk"].text == "–"
    assert mine["mean"].text == "–"
    assert mine["gain"].text == "–"
    assert mine["seeds"].text == "0 of 2"
    missing_seed = [record for record in basic() if record["run_id"] != basic()[5]["run_id"]]
    assert rows(only(missing_seed))["mine"]["seeds"].text == "1 of 2"
    assert rows(only(missing_seed))["mine"]["mean"].text == "75.00"


def test_the_caption_states_how_models_were_selected() -> None:
    assert "Model selection: last epoch." in only(basic()).caption
    rule = {"rule": "source-validation", "chosen": [0], "scores": [[0.1, 0.2]], "facts": {}}
    chosen = only(pairs("mine", {"ink-chalk": [0.5]}, selection=rule))
    assert "Model selection: best epoch on held-out source images." in chosen.caption
    stream = copy.deepcopy(TEMPLATE)
    assert "Model selection: last epoch." in only([records.parse(stream)]).caption


def test_an_oracle_is_marked_and_competes_with_nobody() -> None:
    rule = {"rule": "target-oracle", "chosen": [0], "scores": [[0.1, 0.2]], "facts": {}}
    effective = copy.deepcopy(TEMPLATE["config"]["effective"])
    effective["engine"]["select"] = "target-oracle"
    config = {**TEMPLATE["config"], "effective": effective}
    values = {"ink-chalk": [0.95, 0.951], "chalk-ink": [0.96, 0.961]}
    found = [*basic(), *pairs("mine", values, selection=rule, config=config)]
    found += pairs("oracle", values, method__stream="oracle")
    table = only(found)
    shown = rows(table)
    assert list(shown) == ["mine (engine.select=target-oracle)", "oracle", "mine", "control-a"]
    assert [row.group for row in table.rows] == ["upper bound", "upper bound", "method", "control"]
    notes = dict(table.footnotes)
    told = [" ".join(notes[mark] for mark in shown[name]["method"].marks) for name in list(shown)[:2]]
    assert "oracle: the epoch was chosen by the labels of the target's test images" in told[0]
    assert "oracle: trained on labelled target images" in told[1]
    assert "last epoch (engine.select=last); best epoch on the labels" in table.caption
    assert shown["mine"]["mean"].bold == rows(only(basic()))["mine"]["mean"].bold


def test_bold_is_for_the_mean() -> None:
    found = [
        *pairs("control-a", {"ink-chalk": [0.50, 0.52, 0.51], "chalk-ink": [0.60, 0.62, 0.61]}),
        *pairs("mine", {"ink-chalk": [0.70, 0.72, 0.71], "chalk-ink": [0.80, 0.81, 0.82]}),
    ]
    assert [name for name, row in rows(only(found)).items() if row["mean"].bold] == ["mine"]
    assert not any(cell.bold for cell in rows(only(found))["control-a"].values())


def test_options_and_tracks_are_other_tables() -> None:
    found = [*basic(), uda("mine", "ink-chalk", 0, 0.5, track="mini")]
    found.append(uda("mine", "ink-chalk", 0, 0.5, scenario__options={"train": 7, "pair": "ink-chalk"}))
    tables = leaderboard(found)
    assert len(tables) == 3
    assert any("train=7" in table.title and "pair" not in table.title for table in tables)


def test_controls_of_other_families_are_not_missing() -> None:
    stream = copy.deepcopy(TEMPLATE)
    stream["method"] |= {"name": "control-b", "control": True}
    stream["run_id"] = "e" * 16
    other = uda("mine", "ink-photo", 0, 0.5, scenario__version=2)
    tables = {
        table.title.split(" ")[0] + table.title[-40:]: table
        for table in leaderboard([*basic(), records.parse(stream), other])
    }
    assert len(tables) == 3
    names = [set(rows(table)) for table in tables.values()]
    assert {"control-b"} in names  # streams do not miss what only adaptation has
    assert {"mine", "control-a"} in names  # version 2 misses its control, but no control of streams
    missing = next(table for table in tables.values() if "version 2" in table.title)
    assert rows(missing)["control-a"]["seeds"].text == "missing"


def test_domains_held_out_are_columns() -> None:
    found = [
        run("mine", "dg", f"styles-dg/{domain}", 0, {"target_acc": value, "source_acc": 0.9, "final_acc": value})
        for domain, value in (("photo", 0.5), ("ink", 0.7))
    ]
    table = only(found)
    mine = rows(table)["mine"]
    assert [column.title for column in table.columns][:5] == ["Method", "ink", "photo", "Mean", "Sources (%)"]
    assert (mine["mean"].text, mine["source_acc"].text, mine["variant ink"].text) == ("60.00", "90.00", "70.00")


def test_shots_are_columns_by_size() -> None:
    found = [
        run(method, "few-shot", f"few/{shots}", seed, {"final_acc": base + 0.01 * int(shots) + 0.001 * seed})
        for method, base in (("mine", 0.5), ("control-a", 0.4))
        for shots in ("16", "1", "2")
        for seed in range(2)
    ]
    table = only(found)
    assert [column.title for column in table.columns][:4] == ["Method", "1 shot", "2 shots", "16 shots"]
    mine = rows(table)["mine"]
    assert mine["variant 16"].text == "66.05 ± 0.07"
    assert mine["gain"].text == "+10.00"
    assert "of the column 16 shots" in table.caption
    assert list(rows(table)) == ["mine", "control-a"]


def test_base_new_and_their_harmonic_mean() -> None:
    def base_to_new(method: str, seed: int, base: float, new: float) -> dict[str, Any]:
        both = {"base_acc": base, "new_acc": new, "harmonic_mean": 2 * base * new / (base + new)}
        return run(method, "base-to-new", "letters-base-to-new", seed, both)

    found = [base_to_new("mine", 0, 0.9, 0.3), base_to_new("mine", 1, 0.5, 0.7), base_to_new("control-a", 0, 0.5, 0.5)]
    table = only(found)
    assert [column.title for column in table.columns][:4] == ["Method", "Base (%)", "New (%)", "H (%)"]
    mine = rows(table)["mine"]
    assert mine["base_acc"].text.startswith("70.00 ±")
    assert mine["harmonic_mean"].value == pytest.approx(0.583333, abs=1e-6)  # of the means, not the mean of H
    assert mine["gain"].text == "+8.33"
    assert mine["seeds"].text == "2"


def test_other_data_sets_are_columns() -> None:
    tests = [{"name": "base", "further": False}, *({"name": name, "further": True} for name in ("greek", "cyrillic"))]
    metrics = {"source_acc": 0.9, "transfer_acc": 0.6, "transfer_accs": [0.5, 0.7]}
    found = run("mine", "cross-dataset", "scripts/latin", 0, metrics, scenario__tests=tests)
    table = only([found])
    titles = [column.title for column in table.columns][:5]
    assert titles == ["Method", "Trained (%)", "greek (%)", "cyrillic (%)", "Mean (%)"]
    mine = rows(table)["mine"]
    assert [mine[key].text for key in ("source_acc", "other greek", "other cyrillic", "transfer_acc")] == [
        "90.00",
        "50.00",
        "70.00",
        "60.00",
    ]
    assert table.title.startswith("scripts/latin")  # what was trained sets tables apart


def test_a_scenario_without_variants_has_one_column() -> None:
    found = run("mine", "uda", "office-uda", 0, {"target_acc": 0.5, "source_acc": None, "mean_class_acc": 0.4})
    table = only([found])
    assert [column.title for column in table.columns][:3] == ["Method", "Accuracy (%)", "Per-class mean (%)"]
    assert "source_acc" not in rows(table)["mine"]


def test_unfinished_runs_show() -> None:
    found = [*basic(), uda("broken", "ink-chalk", 0, 0.0, status="failed", metrics={}, cost=None)]
    broken = rows(only(found))["broken"]
    assert broken["seeds"].text == "0 of 2, 1 failed"
    assert broken["mean"].text == "–"


def everything() -> list[records.Record]:
    found = basic()
    styles = ("ink", "chalk", "outline", "photo")
    for one in styles:
        for two in styles:
            if one != two:
                found += pairs("wide", {f"{one}-{two}": [0.5, 0.6]}, track="mini")
    both = {"base_acc": 0.8, "new_acc": 0.5, "harmonic_mean": 0.6153846}
    found.append(run("mine", "base-to-new", "letters-base-to-new", 0, both))
    found += [run("mine", "few-shot", f"few/{shots}", 0, {"final_acc": 0.1 * shots}) for shots in (1, 2, 4)]
    found += [run("mine", "dg", f"styles-dg/{style}", 0, {"target_acc": 0.5, "source_acc": 0.6}) for style in styles]
    return found


@pytest.mark.parametrize("name", ["csv", "html", "json", "latex", "markdown"])
def test_every_exporter_renders_every_layout(name: str) -> None:
    tables = leaderboard(everything())
    assert len(tables) == 5
    text = registry.load_exporter(name).export(tables)
    for words in (
        ("styles-uda", "letters-base-to-new", "few", "styles-dg") if name != "csv" else ("styles-uda/ink-chalk",)
    ):
        assert words in text
    if name == "csv":
        assert "selection" in text.splitlines()[0]
    if name == "latex":
        assert r"\resizebox" in text  # twelve pairs do not fit


def test_text(update_golden: bool) -> None:
    text = render_text(leaderboard(everything()))
    path = GOLDEN / "exporters" / "families.txt"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()
