from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import cli, records
from benchmark.leaderboard import HEADLINE, Table, frame, leaderboard, render_text

GOLDEN = Path(__file__).parents[1] / "golden"
TEMPLATE = records.plain(records.read(GOLDEN / "records" / "v1.json"))
TEMPLATE["config"]["track"] = {
    group: dict(values) for group, values in TEMPLATE["config"]["effective"].items() if group != "derived"
}
ONE = "1" * 64
CONTROLS = {"floor": "sequential", "probe": "sequential", "everything": "joint"}


def run(method: str, seed: int, value: float, **changes: Any) -> records.Record:
    """A record; ``changes`` are ``part__key=value`` or ``key=value``."""
    record = copy.deepcopy(TEMPLATE)
    record["method"] |= {"name": method, "control": method in CONTROLS, "stream": CONTROLS.get(method, "sequential")}
    record["seeds"] = dict.fromkeys(record["seeds"], seed)
    record["metrics"] |= {"final_avg_acc": value, "final_acc": value}
    for name, other in changes.items():
        part, _, key = name.partition("__")
        if key:
            record[part][key] = other
        else:
            record[part] = other
    identity = json.dumps([record[key] for key in sorted(record) if key != "run_id"], sort_keys=True)
    record["run_id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return records.parse(record)


def basic() -> list[records.Record]:
    return [
        *(run("floor", seed, value) for seed, value in enumerate([0.30, 0.32, 0.31])),
        *(run("probe", seed, value) for seed, value in enumerate([0.60, 0.61, 0.62])),
        *(run("mine", seed, value) for seed, value in enumerate([0.80, 0.81, 0.82])),
        *(run("everything", seed, value) for seed, value in enumerate([0.90, 0.91, 0.92])),
    ]


def rows(table: Table) -> dict[str, dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return {row.cells[0].text: dict(zip(keys, row.cells, strict=True)) for row in table.rows}


def only(found: list[records.Record], **options: Any) -> Table:
    tables = leaderboard(found, **options)
    assert len(tables) == 1
    return tables[0]


def test_numbers() -> None:
    table = only(basic())
    found = rows(table)
    assert list(found) == ["everything", "mine", "probe", "floor"]
    mine = found["mine"]
    assert mine["final_avg_acc"].text == "81.00 ± 1.00"
    assert mine["final_avg_acc"].value == pytest.approx(0.81)
    assert mine["ci95"].text == "[78.52, 83.48]"  # 4.3027 * 0.01 / sqrt 3
    assert mine["gain"].text == "+20.00"
    assert found["probe"]["gain"].text == "best control"
    assert found["floor"]["gain"].text == "-30.00"
    assert found["everything"]["gain"].text == "+30.00"  # the joint run is no control to beat
    assert mine["seeds"].text == "3"
    assert mine["params_trainable"].text == "200"
    assert mine["train_seconds"].text == "4.5"
    assert "ddof = 1" in table.caption
    assert len(table.runs) == 12


def test_the_order_of_records_changes_nothing() -> None:
    forward, backward = leaderboard(basic()), leaderboard(basic()[::-1])
    assert forward == backward
    assert leaderboard(basic() + basic()) == forward  # a run that is there twice counts once


def test_bold_needs_more_than_noise() -> None:
    assert [name for name, row in rows(only(basic())).items() if row["final_avg_acc"].bold] == ["mine"]
    noisy = [record for record in basic() if record["method"]["name"] != "mine"]
    noisy += [run("mine", seed, value) for seed, value in enumerate([0.9, 0.6, 0.62])]
    assert not any(row["final_avg_acc"].bold for row in rows(only(noisy)).values())
    single = [record for record in basic() if record["seeds"]["seed"] == 0]
    found = rows(only(single))
    assert not any(row["final_avg_acc"].bold for row in found.values())
    assert found["mine"]["final_avg_acc"].text == "80.00"
    assert found["mine"]["ci95"].text == "–"


def test_a_weak_row_takes_no_bold_away() -> None:
    near = [run("near", seed, value) for seed, value in enumerate([0.785, 0.790, 0.80])]
    weak = [run(f"weak-{n}", seed, 0.2 + n / 100 + (seed % 2) / 5) for n in range(8) for seed in range(3)]
    for found in (basic() + near, basic() + near + weak):
        table = only(found)
        assert [name for name, row in rows(table).items() if row["final_avg_acc"].bold] == ["mine"]
        said = (
            "Best row: mine. Second: near, n = 3 common seeds, 1.83 points apart, p = 0.0082; the smallest difference "
        )
        said += "that they could show: 0.72 points (2.48 standard deviations of the differences)."
        assert ("", said) in table.footnotes


def test_what_the_seeds_cannot_tell_is_said() -> None:
    table = only([*basic(), *(run("near", seed, value) for seed, value in enumerate([0.79, 0.815, 0.82]))])
    said = [text for mark, text in table.footnotes if not mark and text.startswith("Best row")]
    assert said[0].startswith(
        "Best row: mine. Hardest to tell from it: near, n = 3 common seeds, 0.17 points apart, p = 0.7"
    )
    table = only([*basic(), run("once", 0, 0.5), run("twice", 7, 0.1)])
    said = "Best row: mine. No test tells it from once and 1 more: fewer than two seeds in common."
    assert ("", said) in table.footnotes
    assert not any(text.startswith("Best row") for _, text in only([run("mine", 0, 0.5)]).footnotes)


def test_seeds_that_change_nothing_are_called_deterministic() -> None:
    matrix = [[0.5, None, None], [0.5, 0.5, None], [0.5, 0.5, 0.5]]
    same = {"accuracy": matrix, "metrics": {"final_avg_acc": 0.5, "forgetting": 0.0}}
    found = rows(only([*basic(), *(run("fixed", seed, 0.5, **same) for seed in range(3)), run("once", 0, 0.5, **same)]))
    assert (found["fixed"]["final_avg_acc"].text, found["fixed"]["ci95"].text) == ("50.00", "deterministic")
    assert found["fixed"]["forgetting"].text == "0.00"
    assert (found["once"]["final_avg_acc"].text, found["once"]["ci95"].text) == ("50.00", "–")
    other = {**same, "accuracy": [[0.6, None, None], *matrix[1:]]}  # the same mean in the end, by chance
    mixed = [run("chance", seed, 0.5, **(other if seed else same)) for seed in range(3)]
    assert rows(only([*basic(), *mixed]))["chance"]["final_avg_acc"].text == "50.00 ± 0.00"


def test_intervals_end_where_accuracies_end() -> None:
    found = rows(only([run("mine", seed, value) for seed, value in enumerate([0.0, 0.02, 0.999])]))
    assert found["mine"]["ci95"].text == "[0.00, 100.00]"


def test_times_of_other_machines_are_marked() -> None:
    found = [*basic(), run("far", 0, 0.5, provenance__threads=8), run("far", 1, 0.5)]
    table = only(found)
    notes = dict(table.footnotes)
    far, mine = rows(table)["far"], rows(table)["mine"]
    assert notes[far["train_seconds"].marks[0]].startswith("time of Linux")
    assert notes[far["train_seconds"].marks[0]].endswith("cpu, 8 threads: does not compare")
    assert mine["train_seconds"].marks == ()
    assert any(text.endswith("where not marked; what ran beside is not known.") for _, text in table.footnotes)


def test_rows_are_called_otherwise() -> None:
    found = [*basic(), run("mine", 0, 0.7, method__recipe="x"), run("mine", 0, 0.6, **with_options("method", lr=5.0))]
    names = {"mine": "Mine", "mine (lr=5.0)": "Mine, fast", "probe": "Probe"}
    table = only(found, names=names)
    assert set(rows(table)) == {"everything", "Mine", "Mine@x", "Mine, fast", "Probe", "floor"}
    assert {row["row"] for row in table.runs if row["method"] == "mine"} == {"Mine", "Mine@x", "Mine, fast"}
    assert any(text.startswith("Best row: Mine.") for _, text in table.footnotes)
    assert {row.cells[0].value for row in table.rows} >= {"mine", "mine (lr=5.0)", "probe"}
    same = only(found, names={"mine": "One", "probe": "One"})  # no two rows get one name
    assert {"mine", "probe"} <= set(rows(same))


def test_values_for_machines_can_be_left_out() -> None:
    with_them, without = only(basic()), only(basic(), raw=False)
    assert (len(with_them.runs), without.runs) == (12, ())
    assert dataclasses.replace(with_them, runs=()) == without


def test_controls_that_are_missing_show() -> None:
    other = [run("mine", 0, 0.5, scenario__name="other-stream"), run("late", 0, 0.7, scenario__name="other-stream")]
    tables = leaderboard(basic() + other)
    assert [table.title.split(" ")[0] for table in tables] == ["other-stream", "toy-stream/3x2"]
    found = rows(tables[0])
    assert list(found) == ["everything", "late", "mine", "floor", "probe"]
    for name in CONTROLS:
        assert found[name]["seeds"].text == "missing"
        assert found[name]["final_avg_acc"].text == "–"
    assert found["mine"]["gain"].text == "–"


def test_backbones_that_see_through_the_same_weights_share_a_table() -> None:
    hashes = {"nano-vit": "1" * 64, "nano-clip": "2" * 64}
    tower = {"backbone__image_name": "nano-vit", "backbone__image_sha256": "1" * 64}

    def on(backbone: str, found: list[records.Record]) -> list[records.Record]:
        changes = {"backbone__name": backbone, "backbone__sha256": hashes[backbone], **tower}
        return [run(one["method"]["name"], one["seeds"]["seed"], one["metrics"][HEADLINE], **changes) for one in found]

    named = [run("names", seed, 0.5) for seed in range(3)]
    table = only(on("nano-vit", basic()) + on("nano-clip", named))
    assert table.title.endswith("nano-vit")
    assert rows(table)["names"]["gain"].text == "-11.00"  # from a control on the other backbone
    said = "Backbones, which see images through the same weights: names on nano-clip; the others on nano-vit."
    assert ("", said) in table.footnotes
    both = rows(only(on("nano-vit", basic()) + on("nano-clip", basic())))
    assert {"mine (backbone=nano-clip)", "mine (backbone=nano-vit)"} < both.keys()
    assert only(on("nano-clip", named)).title.endswith("nano-clip")
    altered = [run("names", 0, 0.5, backbone__name="nano-clip", backbone__sha256="0" * 64)]
    assert len(leaderboard(on("nano-vit", basic()) + altered)) == 2


def test_missing_seeds_and_unfinished_runs_show() -> None:
    found = basic()[:-1]
    stopped = run("mine", 5, 0.0, status="interrupted", metrics={})
    alone = run("broken", 0, 0.0, status="failed", metrics={}, cost=None)
    table = rows(only([*found, stopped, alone]))
    assert table["everything"]["seeds"].text == "2 of 4"
    assert table["mine"]["seeds"].text == "3 of 4, 1 interrupted"
    assert table["mine"]["final_avg_acc"].text == "81.00 ± 1.00"
    assert table["broken"]["seeds"].text == "0 of 4, 1 failed"
    assert table["broken"]["final_avg_acc"].text == "–"


def test_a_finished_run_hides_its_unfinished_record() -> None:
    finished = basic()
    twin = records.parse(records.plain(finished[6]) | {"status": "interrupted", "metrics": {}})
    assert leaderboard([twin, *finished]) == leaderboard(finished)


def test_different_options_are_different_rows() -> None:
    found = basic()
    effective = copy.deepcopy(TEMPLATE["config"]["effective"])
    effective["method"]["lr"] = 0.5
    config = {**TEMPLATE["config"], "effective": effective}
    found += [run("mine", 0, 0.2, config=config), run("mine", 0, 0.3, method__recipe="pilot")]
    assert list(rows(only(found))) == ["everything", "mine", "mine@pilot", "mine (lr=0.5)", "probe", "floor"]


def test_tables_are_apart() -> None:
    changed = [
        {"track": "mini"},
        {"backbone__image_sha256": "0" * 64},
        {"backbone__image_name": "other", "backbone__name": "other"},
        {"scenario__version": 2},
        {"scenario__options": {"split": "3x2", "train": 10}},
    ]
    tables = leaderboard(basic() + [run("mine", 0, 0.5, **change) for change in changed])
    assert len(tables) == 6
    assert len({table.title for table in tables}) == 6


def test_validation_runs_are_counted_not_shown() -> None:
    table = only([*basic(), run("mine", 0, 0.99, evaluated_on="validation")])
    assert rows(table)["mine"]["final_avg_acc"].text == "81.00 ± 1.00"
    assert ("", "1 run on validation data not shown.") in table.footnotes
    assert leaderboard([run("mine", 0, 0.9, evaluated_on="validation")]) == []


def test_footnotes_tell_what_a_method_used() -> None:
    leak = run(
        "leak",
        0,
        0.9,
        method__uses=["test_batch", "new-use"],
        method__distribution="stranger 1.0",
        provenance__git_dirty=True,
        warnings=["half precision"],
        provenance__deterministic=False,
    )
    table = only([*basic(), leak])
    notes = dict(table.footnotes)
    told = " | ".join(notes[mark] for mark in rows(table)["leak"]["method"].marks)
    for words in (
        "uses test_batch: lets a prediction depend",
        "leaking",
        "uses new-use: not known",
        "third-party method of stranger 1.0",
        "uncommitted changes",
        "warning: half precision",
        "without deterministic",
    ):
        assert words in told
    assert [notes[mark] for mark in rows(table)["mine"]["method"].marks] == [
        "uses boundaries: is told when one experience ends and the next begins, and its classes"
    ]


def test_notes_on_the_data() -> None:
    lossy = [
        run("mine", 0, 0.5, scenario__notes={"lossy": "JPEG files were decoded"}, scenario__content=ONE),
        run("mine", 0, 0.5, scenario__distribution="stranger 1.0", method__recipe="y", scenario__content=ONE),
    ]
    told = " | ".join(text for _, text in only(lossy).footnotes)
    assert "Data: lossy: JPEG files were decoded." in told
    assert "Third-party scenario of stranger 1.0." in told


# --- Records of different data (A1) -----------------------------------------------------------


def three(values: tuple[float, float, float], **changes: Any) -> list[records.Record]:
    return [run("mine", seed, value, **changes) for seed, value in enumerate(values)]


LOSSLESS, LOSSY = (0.1435, 0.1505, 0.1575), (-0.0495 + 0.05, 0.0, 0.001)


def numbers(table: Table) -> list[tuple[str, str]]:
    return [(row["final_avg_acc"].text, row["seeds"].text) for row in rows(table).values()]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"scenario__fingerprint": "a" * 64 + "-lossy"}, "lossy copy"),
        ({"scenario__content": "b" * 64, "scenario__fingerprint": "a" * 64}, "content bbbbbbbb"),
        ({"scenario__partition": "80/20 cut", "scenario__fingerprint": "a" * 64}, "80/20 cut"),
        ({"scenario__notes": {"split": "80/20"}, "scenario__fingerprint": "a" * 64}, "split: 80/20"),
        ({"scenario__fingerprint": "a" * 64}, "fingerprint aaaaaaaa"),
    ],
    ids=["lossy", "content", "partition", "notes", "fingerprint alone"],
)
def test_runs_on_other_data_are_no_seeds_of_one_row(changes: dict[str, Any], label: str) -> None:
    first, second = leaderboard(three(LOSSLESS) + three(LOSSY, **changes))
    if label in first.title:
        first, second = second, first
    assert label in second.title
    assert label not in first.title
    assert numbers(first) == [("15.05 ± 0.70", "3")]
    assert numbers(second) == [("0.05 ± 0.05", "3")]


def test_a_copy_of_the_data_that_reads_the_same_shares_the_row() -> None:
    """What was decoded is equal: it does not matter how it was packed."""
    packed = {"scenario__content": ONE, "scenario__notes": {"layout": "parquet"}}
    loose = {"scenario__content": ONE, "scenario__notes": {"layout": "tree"}}
    found = [run("mine", 0, 0.1435, **packed), run("mine", 1, 0.1505, **loose), run("mine", 2, 0.1575, **packed)]
    assert numbers(only(found)) == [("15.05 ± 0.70", "3")]


def test_the_partition_is_always_in_the_title() -> None:
    table = only(three(LOSSLESS, scenario__partition="official lists"))
    assert table.title.startswith("toy-stream/3x2 (version 1, official lists), track")


# --- What ran is always told (A4) -------------------------------------------------------------


def with_options(group: str, **options: Any) -> dict[str, Any]:
    """Changes of a record of a run that was given these options."""
    config = copy.deepcopy(TEMPLATE["config"])
    config["effective"][group] |= options
    config["given"] |= {f"{group}.{name}": value for name, value in options.items()}
    changes: dict[str, Any] = {"config": config}
    if group == "scenario":
        changes["scenario__options"] = config["effective"][group]
    return changes


def test_options_that_are_not_the_tracks_are_told_although_nothing_collides() -> None:
    table = only([run("mine", 0, 0.5, **with_options("method", lr=5.0, epochs=1)), run("plain", 0, 0.5)])
    assert list(rows(table)) == ["mine (epochs=1, lr=5.0)", "plain"]
    assert list(rows(only([run("mine", 0, 0.5, **with_options("engine", eval_batch_size=7))]))) == [
        "mine (engine.eval_batch_size=7)"
    ]
    table = only([run("mine", 0, 0.5, **with_options("scenario", train=1))])
    assert table.title.startswith("toy-stream/3x2 (version 1, train=1), track")


def test_an_option_whose_value_on_the_track_is_not_known_is_told() -> None:
    config = copy.deepcopy(TEMPLATE["config"])
    del config["track"]["method"]["lr"]
    assert list(rows(only([run("mine", 0, 0.5, config=config)]))) == ["mine (lr=0.01)"]


def test_one_name_is_not_two_settings_in_two_tables() -> None:
    def under(lr: float, origin: str, scenario: str) -> records.Record:
        config = copy.deepcopy(TEMPLATE["config"])
        config["track"]["method"]["lr"] = config["effective"]["method"]["lr"] = lr
        config["origin"]["method.lr"] = origin
        return run("mine", 0, 0.5, config=config, scenario__name=scenario)

    def labels(*found: records.Record) -> list[str]:
        return [name for table in leaderboard(found) for name in rows(table)]

    old, new = under(0.1, "track nano", "old"), under(0.2, "track nano", "new")
    assert labels(new, old) == ["mine (lr=0.2)", "mine (lr=0.1)"]
    assert labels(old) == labels(old, under(0.1, "track nano", "new"))[:1] == ["mine"]
    demanded = under(0.3, "scenario.stream=online", "stream")  # which the title of its table says
    assert labels(old, demanded) == ["mine", "mine"]


def test_another_device_is_told() -> None:
    found = [run("mine", 0, 0.5), run("mine", 0, 0.6, provenance__device="cuda:1")]
    assert set(rows(only(found))) == {"mine", "mine (device=cuda)"}


def test_own_weights_are_named_as_own() -> None:
    own = {"name": "custom:mine.safetensors", "image_name": "custom:mine.safetensors"}
    changes = {f"backbone__{key}": value for key, value in own.items()}
    changes |= {"backbone__own_weights": True, "backbone__sha256": "c" * 64, "backbone__image_sha256": "c" * 64}
    first, second = leaderboard([run("mine", 0, 0.5), run("mine", 0, 0.6, **changes)])
    told = first if "own" in first.title else second
    assert told.title.endswith("custom:mine.safetensors (own weights cccccccc)")
    assert told.runs[0]["own_weights"] is True


def test_other_code_is_told_where_it_makes_two_rows() -> None:
    found = [run("mine", 0, 0.5), run("mine", 0, 0.6, identity__code="d" * 64), run("mine", 1, 0.6, identity__engine=7)]
    labels = set(rows(only(found)))
    assert len(labels) == 3
    assert any("code=dddddddd" in label for label in labels)
    assert any("engine=7" in label for label in labels)


def test_every_option_is_a_column_for_machines() -> None:
    raw = only([run("mine", 0, 0.5, **with_options("scenario", train=1, names=["a", "b"]))]).runs[0]
    assert raw["scenario.train"] == 1
    assert raw["scenario.names"] == '["a", "b"]'
    assert raw["method.lr"] == 0.01
    assert {f"engine.{name}" for name in TEMPLATE["config"]["effective"]["engine"]} <= raw.keys()


def test_columns_follow_the_content() -> None:
    plain = {column.key for column in only(basic()).columns}
    assert "final_acc" not in plain
    assert "worst_domain_acc" not in plain
    values = {"final_avg_acc": 0.75, "worst_domain_acc": 0.25, "final_acc": 0.5}
    domains = [run("mine", 0, 0.75, metrics=values)]
    columns = {column.key for column in only(domains).columns}
    assert {"final_acc", "worst_domain_acc"} <= columns


def test_method_filter_keeps_controls() -> None:
    found = [*basic(), run("late", 0, 0.7), run("late", 0, 0.8, method__recipe="x")]
    assert list(rows(only(found, methods=["late@x"]))) == ["everything", "late@x", "probe", "floor"]


def test_minus_zero_is_zero() -> None:
    found = [run("floor", 0, 0.5), run("mine", 0, 0.5 - 1e-9, metrics__forgetting=-1e-9)]
    row = rows(only(found))["mine"]
    assert (row["gain"].text, row["forgetting"].text) == ("+0.00", "0.00")


def test_text(update_golden: bool) -> None:
    text = render_text(leaderboard(basic()))
    path = GOLDEN / "exporters" / "basic.txt"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()
    assert render_text([]) == ""


@pytest.mark.parametrize("width", [40, 60, 80, 120, 1000])
def test_text_is_folded_to_the_terminal(width: int) -> None:
    (table,) = leaderboard(basic())
    whole, folded = (render_text([table], width=room) for room in (None, width))
    assert max(map(len, folded.splitlines()[1:])) <= width
    assert (folded == whole) == (max(map(len, whole.splitlines())) <= width)
    assert (folded.count("everything") > 1) == (folded != whole)
    for row in table.rows:
        assert all(cell.text in folded for cell in row.cells)


def test_a_column_wider_than_the_terminal_stands_alone() -> None:
    (table,) = leaderboard(basic())
    text = render_text([table], width=5)
    assert text.count("everything") == len(table.columns) - 1


# --- Commands ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in basic():
        records.write(tmp_path / "results" / f"{record['run_id']}.json", record)
    return tmp_path / "results"


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.json").write_text("{")
    assert cli.main(["leaderboard", "--results", str(folder)]) == 0
    output = capsys.readouterr()
    assert "toy-stream/3x2 (version 1), track nano, tiny-vit" in output.out
    assert "81.00 ± 1.00*" in output.out
    assert output.err.startswith("warning: damaged record:")
    assert output.err.rstrip().endswith("skipped")


def test_command_writes_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "board.txt"
    assert cli.main(["leaderboard", "--results", str(folder), "-o", str(target)]) == 0
    assert capsys.readouterr().out == ""
    assert target.read_text() == render_text(leaderboard(basic()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "markdwon"], ["unknown format `markdwon`", "`markdown`"]),
        (["--scenario", "toy-steam"], ["unknown scenario in these records `toy-steam`", "`toy-stream`"]),
        (["--track", "micro"], ["unknown track in these records `micro`"]),
        (["--method", "mien"], ["unknown method in these records `mien`", "`mine`"]),
    ],
)
def test_command_suggests(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    assert cli.main(["leaderboard", "--results", str(folder), *options]) == 2
    told = capsys.readouterr().err
    for word in words:
        assert word in told


def test_command_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("toy-stream", "toy-stream/3x2"):
        assert cli.main(["leaderboard", "--results", str(folder), "--scenario", name, "--track", "nano"]) == 0
        assert "81.00" in capsys.readouterr().out


def test_the_last_part_of_a_variant_is_the_column_and_the_others_name_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"scenario__family": "few-shot", "scenario__variant_option": "task"}
    found = [
        run("mine", 0, shots / 20, **facts, scenario__name=f"toy/{name}/{shots}", scenario__content=name * 64)
        for name in ("a", "b")
        for shots in (2, 16)
    ]
    tables = leaderboard(found)
    assert [table.title.partition(" ")[0] for table in tables] == ["toy/a", "toy/b"]
    assert [column.title for column in tables[0].columns][1:3] == ["2 shots", "16 shots"]
    assert [cell.text for cell in tables[0].rows[0].cells][1:3] == ["10.00", "80.00"]
    for record in found:
        (tmp_path / f"{record.run_id}.json").write_text(json.dumps(records.plain(record)))
    for name in ("toy", "toy/b", "toy/b/16"):
        assert cli.main(["leaderboard", "--results", str(tmp_path), "--scenario", name, "--format", "csv"]) == 0
        told = capsys.readouterr().out
        assert "toy/b/16" in told
        assert ("toy/a/16" in told) == (name == "toy")


def test_command_makes_tables_for_papers(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["leaderboard", "--results", str(folder), "--rows", "mine,probe", "--columns", "final_avg_acc,Seeds"]
    words += ["--rename", "probe=Probe", "--rename", "Seeds=n", "--caption", "short", "--bib", str(tmp_path / "x.bib")]
    assert cli.main([*words]) == 0
    shown = capsys.readouterr()
    assert "no paper is known of mine, probe" in shown.err or "wrote" in shown.err
    lines = shown.out.splitlines()
    assert lines[2].split() == ["Method", "Final", "avg.", "acc.", "(%)", "n"]
    assert [line.split()[0] for line in lines[4:7] if line] == ["mine", "Probe"]
    assert "The final average accuracy in %" in shown.out
    assert (tmp_path / "x.bib").exists()
    assert cli.main([*words, "--transpose", "--split", "1", "--over-samples", "wilson"]) == 0
    assert "part 2 of 2" in capsys.readouterr().out
    asked = ["leaderboard", "--results", str(folder), "--rows", "nobody (a=1, b=2),mine"]
    assert cli.main(asked) == 2
    assert "`nobody (a=1, b=2)`" in capsys.readouterr().err
    assert cli.main(["leaderboard", "--results", str(folder), "--rename", "mien=x"]) == 2
    assert "did you mean `mine`" in capsys.readouterr().err


def test_command_without_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["leaderboard", "--results", str(tmp_path)]) == 2
    assert "no records in" in capsys.readouterr().err
    assert cli.main(["leaderboard", "--results", str(tmp_path / "none")]) == 2
    assert "hint: `bench run` makes" in capsys.readouterr().err


def test_command_does_not_import_torch(folder: Path) -> None:
    code = (
        "import sys; from benchmark import cli; "
        f"code = cli.main(['leaderboard', '--results', {str(folder)!r}, '--json']); "
        "heavy = {'torch', 'timm', 'pandas', 'avalanche'} & set(sys.modules); "
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tables"][0]["title"].startswith("toy-stream")


def test_data_frames_hold_single_runs_and_single_accuracies() -> None:
    found = basic()
    wide = frame(found)
    assert sorted(wide["run_id"]) == sorted(record.run_id for record in found)
    best = {row: cells["final_avg_acc"] for row, cells in rows(only(found)).items()}
    means = wide.groupby("row")["final_avg_acc"].mean()
    assert set(means.index) <= set(best)
    long = frame(found, long=True)
    assert len(long) == sum(value is not None for record in found for row in record.accuracy for value in row)
    first = found[0]
    own = long[(long["run_id"] == first.run_id) & (long["experience"] == 0)]
    assert own["accuracy"].iloc[0] == first.accuracy[0][0]
    assert own["test"].iloc[0] == first.scenario.tests[0].name


class TestMetricsCommand:
    @pytest.fixture
    def record(self, tmp_path: Path) -> Path:
        """A record with predictions that give exactly its accuracies."""
        import numpy as np

        from benchmark import families, metrics
        from benchmark.records import predictions

        parts = []
        sets = np.repeat(np.arange(3), 50)
        for time, row in enumerate(TEMPLATE["accuracy"]):
            seen = sets <= time
            right = np.concatenate([np.arange(50) < round(50 * (value or 0)) for value in row])[seen]
            labels = 2 * sets[seen]
            guesses = np.where(right, labels, labels + 1)
            # 0.875 is not a multiple of 1/50: the accuracies are recomputed below.
            parts.append(
                predictions.table(
                    time,
                    test_set=sets[seen],
                    sample_id=np.arange(seen.sum()),
                    label=labels,
                    prediction=guesses,
                    top5=guesses[:, None],
                    confidence=np.full(seen.sum(), 0.5),
                    logits=None,
                )
            )
        joined = predictions.concat(parts)
        record = copy.deepcopy(TEMPLATE)
        path = tmp_path / f"{record['run_id']}.json"
        predictions.write(path.with_suffix(".parquet"), joined)
        matrix, counts = metrics.accuracy_matrix(joined)
        record["accuracy"] = metrics.null(matrix)
        record["metrics"] = metrics.continual_metrics(
            matrix, counts, family=families.get("class-il"), predictions=joined
        )
        record["predictions"]["sha256"] = hashlib.sha256(path.with_suffix(".parquet").read_bytes()).hexdigest()
        records.write(path, record)
        return path

    def test_recomputes_from_predictions(self, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["metrics", str(record), "--json"]) == 0
        output = capsys.readouterr()
        found = json.loads(output.out)
        assert output.err == ""
        assert found["source"] == "predictions"
        assert found["differences"] == {}
        assert found["metrics"] == records.read(record)["metrics"]
        assert found["metrics"]["ece_samples"] == 150

    def test_by_the_beginning_of_an_id(self, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["metrics", record.stem[:6], "--results", str(record.parent)]) == 0
        assert "final_avg_acc" in capsys.readouterr().out

    @pytest.mark.parametrize("variant", ["chaudhry", "clipped", "first-last", "stepwise"])
    def test_one_forgetting(self, record: Path, capsys: pytest.CaptureFixture[str], variant: str) -> None:
        assert cli.main(["metrics", str(record), "--json", "--forgetting", variant]) == 0
        stored = records.read(record)["metrics"]
        key = "forgetting" if variant == "chaudhry" else f"forgetting_{variant.replace('-', '_')}"
        assert json.loads(capsys.readouterr().out)["metrics"] == {f"forgetting ({variant})": stored[key]}

    def test_says_when_the_record_is_wrong(self, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
        changed = records.plain(records.read(record))
        changed["metrics"]["final_avg_acc"] = 0.99
        records.write(record, changed)
        assert cli.main(["metrics", str(record)]) == 1
        assert "warning: final_avg_acc is 0.99 in the record, but 0.8" in capsys.readouterr().err
        changed["accuracy"][2][0] = 0.1
        records.write(record, changed)
        assert cli.main(["metrics", str(record)]) == 1
        assert "the accuracy matrix of the record differs" in capsys.readouterr().err

    def test_without_predictions_it_says_so(self, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
        record.with_suffix(".parquet").unlink()
        assert cli.main(["metrics", str(record), "--json"]) == 0
        output = capsys.readouterr()
        assert "is not there: recomputed from the accuracy matrix" in output.err
        assert json.loads(output.out)["source"] == "accuracy matrix"

    @pytest.mark.parametrize(
        "change",
        [
            {"accuracy": []},
            {"accuracy": [[]]},
            {"accuracy": [[0.5], [0.5, 0.5], [0.5]]},
            {"accuracy": [[1.5, 0.5, 0.5]] * 3},
            {"accuracy": [[-0.1, 0.5, 0.5]] * 3},
            {"accuracy": [[0.5, 0.5, 0.5]] * 2},
            {"counts": [10]},
            {"counts": []},
            {"predictions": {"file": "../x.parquet"}},
            {"predictions": {"file": "/etc/passwd"}},
            {"predictions": {"file": ""}},
            {"predictions": {"file": ".."}},
            {"predictions": {"file": "a\0b"}},
            {"provenance": {"command": "bench run 'x"}, "status": "interrupted"},
        ],
        ids=str,
    )
    def test_a_record_that_contradicts_itself_is_one_message(
        self, change: dict[str, Any], record: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = json.loads(record.read_text())
        for key, value in change.items():
            content[key] = {**content[key], **value} if isinstance(value, dict) else value
        record.write_text(json.dumps(content))
        assert cli.main(["metrics", str(record)]) in (2, 4)
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert len(said.err.splitlines()) == 2

    def test_errors(self, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["metrics", str(tmp_path / "none.json")]) == 2
        unfinished = records.plain(records.read(record)) | {"status": "interrupted"}
        records.write(tmp_path / "u.json", unfinished)
        assert cli.main(["metrics", str(tmp_path / "u.json")]) == 2
        assert "hint: resume it with: bench run" in capsys.readouterr().err
        record.with_suffix(".parquet").write_bytes(b"PAR1")
        assert cli.main(["metrics", str(record)]) == 4
