from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark import config as configs
from benchmark import leaderboard, loading, records, registry
from benchmark.arrival import ArrivalConfig, demands
from benchmark.errors import DataMissing, RunFailed, UsageError
from benchmark.records import contents, store, upgrades
from benchmark.records import schema as record_schema
from benchmark.run import provenance

GOLDEN = Path(__file__).parents[1] / "golden" / "records"
STREAM = {field.name for field in dataclasses.fields(ArrivalConfig)}
EXPORTERS = [registry.load_exporter(name) for name in registry.names("exporters")]
VALIDATOR = jsonschema.Draft202012Validator(record_schema.json_schema())


@pytest.fixture
def record() -> dict[str, Any]:
    return records.plain(records.read(GOLDEN / f"v{records.SCHEMA}.json"))


@pytest.mark.parametrize("version", range(1, records.SCHEMA + 1))
def test_every_schema_can_still_be_read(version: int) -> None:
    old = records.read(GOLDEN / f"v{version}.json")
    assert old["schema"] == records.SCHEMA
    assert old["metrics"]["final_avg_acc"] == pytest.approx((0.8 + 0.84 + 0.9) / 3)
    VALIDATOR.validate(records.plain(old))


@pytest.fixture(scope="module")
def committed() -> list[records.Record]:
    found, problems = records.read_all(Path(__file__).parents[2] / "results" / "records")
    assert [problem.message for problem in problems] == []
    return found


def test_every_committed_record_can_be_read(committed: list[records.Record]) -> None:
    assert len(committed) >= 1098


def test_old_records_tell_which_options_differ_from_their_track(committed: list[records.Record]) -> None:
    told, since = set(), set()
    for run in committed:
        scenario = run["config"]["effective"]["scenario"]
        arrival = configs.resolve(
            ArrivalConfig,
            [configs.Layer("record", {name: scenario[name] for name in STREAM if name in scenario})],
            key="scenario",
        )[0]
        demanded = {f"method.{name}" for name in demands(arrival, epochs=1)}
        for group in ("scenario", "method", "engine"):
            track, effective = run["config"]["track"][group], run["config"]["effective"][group]
            own = set(arrival.chosen) if group == "scenario" else set()  # no track has options of a stream
            differing = {name for name, value in effective.items() if name not in track or track[name] != value} - own
            assert track.keys() | own == effective.keys(), run.run_id  # the defaults of all that users set are known
            unasked = {f"{group}.{name}" for name in differing} - demanded - run.config.given.keys()
            if unasked:  # the oldest records of CIFAR-100 were made before the search of hyper-parameters on this track
                assert (run.identity.engine, run.scenario.name) == (0, "split-cifar100/10x10"), (run.run_id, unasked)
                since |= unasked
            told |= {f"{group}.{name}" for name in differing}
        assert not arrival.chosen or "scenario.stream" in run.config.given, run.run_id
    assert {"method.prompts", "method.views", "scenario.train", "scenario.pair"} <= told
    assert since == {f"method.{name}" for name in ("batch_size", "lr", "prompt_init", "prompt_length", "top_k")}


def test_old_records_name_the_weights_that_see_their_images(committed: list[records.Record]) -> None:
    towers = {(run.backbone.name, run.backbone.image_name) for run in committed}
    assert {("nano-vit", "nano-vit"), ("nano-clip", "nano-vit"), ("mini-vit", "mini-vit")} <= towers
    hashes = loading.image_towers()
    for run in committed:
        own = run.backbone.name, run.backbone.sha256
        assert (run.backbone.image_name, run.backbone.image_sha256) == hashes.get(run.backbone.sha256, own)


def test_what_was_not_known_of_an_option_stays_unknown() -> None:
    old = json.loads((GOLDEN / "v2.json").read_text())
    assert records.read(GOLDEN / "v2.json").config.track.method == {"epochs": 2}  # lr was set, and `mine` is unknown
    old["method"] |= {"name": "linear-probe"}
    old["config"]["given"] = {"method.lr": 0.5, "method.gone": 1}
    old["config"]["effective"]["method"] |= {"lr": 0.5, "gone": 1}
    found = upgrades.upgrade_2_to_3(old)["config"]["track"]["method"]
    assert found == {"epochs": 2, "lr": 0.01}


def test_the_fingerprint_of_old_data_follows_from_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    old = json.loads((GOLDEN / "v2.json").read_text())
    old["scenario"]["notes"]["split"] = "official lists (90/10)"
    entry = {"scenarios": ["toy-stream"], "version": old["scenario"]["version"], "content": "c" * 64}
    told = {
        "contents": [{**entry, "notes": {"layout": "native", "lossy": "JPEG"}}],
        "partitions": {"official lists (90/10)": "official lists"},
    }
    monkeypatch.setattr(contents, "_known", lambda: told)
    assert upgrades.upgrade_2_to_3(old)["scenario"]["content"] == ""
    split = old["scenario"]["fingerprint"]
    old["scenario"]["fingerprint"] += "-lossy"
    old["scenario"]["notes"]["lossy"] = "JPEG"
    found = upgrades.upgrade_2_to_3(old)["scenario"]
    text = f"adaptbench split 2\n{split}\n{'c' * 64}"
    assert found["fingerprint"] == hashlib.sha256(text.encode()).hexdigest() + "-lossy"
    assert (found["content"], found["partition"]) == ("c" * 64, "official lists")


@pytest.mark.parametrize(("mark", "good"), [("", True), ("-lossy", True), ("-small", False)])
def test_fingerprints_of_re_encoded_data(record: dict[str, Any], mark: str, good: bool) -> None:
    record["scenario"]["fingerprint"] = "ab" * 32 + mark
    with contextlib.nullcontext() if good else pytest.raises(ValueError, match="fingerprint"):
        records.parse(record)
    assert VALIDATOR.is_valid(record) == good


def test_an_upgraded_record_is_the_record_of_the_next_schema() -> None:
    assert (
        records.read(GOLDEN / "v1.json")
        == records.read(GOLDEN / "v2.json")
        == records.read(GOLDEN / "v3.json")
        == records.read(GOLDEN / "v4.json")
    )


def test_a_damaged_record_of_schema_1_is_told_from_a_good_one(tmp_path: Path) -> None:
    old = json.loads((GOLDEN / "v1.json").read_text())
    del old["scenario"]["experiences"]
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(DataMissing, match="damaged record"):
        records.read(tmp_path / "run.json")


def test_the_document_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema.json_schema())


def test_round_trip_is_identity(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "new" / "folders" / "run.json"
    records.write(path, record)
    assert records.plain(records.read(path)) == record
    assert path.read_text() == (GOLDEN / f"v{records.SCHEMA}.json").read_text()
    assert "NaN" not in path.read_text()
    assert " [0.96, null, null],\n" in path.read_text()  # a matrix has one row per line


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1),
        SCALARS
        | st.lists(SCALARS | st.lists(SCALARS, max_size=4), max_size=4)
        | st.dictionaries(st.text(), SCALARS | st.lists(SCALARS, max_size=4), max_size=4),
        max_size=4,
    )
)
def test_round_trip_of_any_options(tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]) -> None:
    record = records.plain(records.read(GOLDEN / "v1.json"))
    record["config"]["effective"]["method"] = options
    path = tmp_path_factory.mktemp("r") / "run.json"
    records.write(path, record)
    assert records.plain(records.read(path)) == record


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30])
def test_long_integers_keep_every_digit(tmp_path: Path, record: dict[str, Any], number: int) -> None:
    record["config"]["effective"]["method"] = {"long": number, "list": [1, number]}
    records.write(tmp_path / "run.json", record)
    assert records.plain(records.read(tmp_path / "run.json")) == record


def test_a_command_that_is_not_unicode_can_be_kept(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "run", "--data-root", "a\udcff b"])
    record["provenance"]["command"] = provenance.command_line()
    records.write(tmp_path / "run.json", record)
    assert records.read(tmp_path / "run.json").provenance.command == "bench run --data-root 'a\\udcff b'"


def test_usual_permissions(tmp_path: Path, record: dict[str, Any]) -> None:
    before = os.umask(0o027)
    try:
        records.write(tmp_path / "run.json", record)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_file_alone(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    records.write(path, record)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFailed, match="no space left for") as caught:
        records.write(path, {**record, "track": "mini"})
    assert caught.value.hint
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_an_unwritable_folder(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write"):
        records.write(tmp_path / "file" / "run.json", record)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_by_key(tmp_path: Path, record: dict[str, Any], bad: float) -> None:
    record["losses"][1][0]["loss"] = bad
    with pytest.raises(RunFailed, match=r"losses\[1\]\[0\]\.loss = (nan|inf)"):
        records.write(tmp_path / "run.json", record)
    assert not list(tmp_path.iterdir())


def test_a_record_that_breaks_the_schema_is_not_written(tmp_path: Path, record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unknown field `extra`"):
        records.write(tmp_path / "run.json", {**record, "extra": 1})
    assert not list(tmp_path.iterdir())


MISTAKES: list[tuple[tuple[str, ...], Any, str]] = [
    (("run_id",), "XYZ", "run_id: Expected `str` matching regex"),
    (("run_id",), "0123456789abcdef\n", "run_id: Expected `str` of length <= 16"),
    (("status",), "done", "status: Invalid enum value 'done'"),
    (("status",), ["completed"], "status: Expected `str`, got `array`"),
    (("method", "stream"), {}, "method.stream: Expected `str`, got `object`"),
    (("selection", "rule"), [], "selection.rule: Expected `str`, got `array`"),
    (("evaluated_on",), 1, "evaluated_on: Expected `str`, got `int`"),
    (("accuracy",), [[0.5, "x", None]], "accuracy[0][1]: Expected `float | null`, got `str`"),
    (("accuracy",), [[0.5, 1.5, None]], "accuracy[0][1]: Expected `float` <= 1.0"),
    (("counts",), [5, -1], "counts[1]: Expected `int` >= 0"),
    (("counts",), [10**400, 5, 5], "counts[0]: "),
    (("cost", "storage_bytes"), [None, -1], "cost.storage_bytes[1]: Expected `int` >= 0"),
    (("counts",), [1.5], "counts[0]: Expected `int`, got `float`"),
    (("seeds", "seed"), None, "seeds.seed: Expected `int`, got `null`"),
    (("seeds", "seed"), True, "seeds.seed: Expected `int`, got `bool`"),
    (("method", "control"), 1, "method.control: Expected `bool`, got `int`"),
    (("metrics", "bwt"), "low", "metrics[...]: Expected `int | float | array | null`, got `str`"),
    (("metrics", "bwt"), 1e300, "metrics[...]: Expected `float` <= 1e+100"),
    (("timing", "total_seconds"), -1, "timing.total_seconds: Expected `float` >= 0.0"),
    (
        ("scenario", "experiences"),
        [{"classes": [1]}],
        "scenario.experiences[0]: Object missing required field `domain`",
    ),
    (("losses",), {}, "losses: Expected `array`, got `object`"),
    (("provenance",), [], "provenance: Expected `object`, got `array`"),
    (("config", "effective", "method"), {"deep": [[[1]]]}, "config.effective.method[...][0][0]: Expected"),
    (("predictions", "file"), "../other.parquet", "predictions.file: Expected `str` matching regex"),
    (("predictions", "file"), "..", "predictions.file: Expected `str` matching regex"),
    (("predictions", "file"), "run.parquet\n", "predictions.file: Expected `str` matching regex"),
    (("new",), 1, "Object contains unknown field `new`"),
    (("scenario", "new"), 1, "scenario: Object contains unknown field `new`"),
]
CONTRADICTIONS: list[tuple[tuple[str, ...], Any, str]] = [
    (("metrics",), None, "metrics is null, but status is completed"),
    (("metrics", "final_avg_acc"), [0.5], "metrics.final_avg_acc is a list"),
    (("metrics", "avg_acc"), 0.5, "metrics.avg_acc is no list"),
    (("accuracy",), [[0.5], [0.5], [0.5]], "accuracy[0] has 1 entries, counts has 3"),
    (("accuracy",), [], "accuracy has 0 rows of 3, but status is completed"),
    (("baseline",), [0.5], "baseline has 1 entries, counts has 3"),
    (("scenario", "tests"), [], "scenario.tests has 0 entries, counts has 3"),
    (("provenance", "command"), "bench run --config 'a", "provenance: command: No closing quotation"),
]
"""What JSON Schema cannot say."""


def changed(record: dict[str, Any], key: tuple[str, ...], value: Any) -> dict[str, Any]:
    part = record
    for name in key[:-1]:
        part = part[name]
    part[key[-1]] = value
    return record


@pytest.mark.parametrize(("key", "value", "words"), [*MISTAKES, *CONTRADICTIONS])
def test_what_does_not_follow_the_schema_is_refused_by_key(
    tmp_path: Path, record: dict[str, Any], key: tuple[str, ...], value: Any, words: str
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(changed(record, key, value)))
    with pytest.raises(DataMissing, match=f"damaged record: .*{re.escape(words)}"):
        records.read(path)


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES)
def test_the_json_schema_agrees(record: dict[str, Any], key: tuple[str, ...], value: Any, words: str) -> None:
    assert VALIDATOR.is_valid(record)
    assert not VALIDATOR.is_valid(changed(record, key, value))


def test_the_json_schema_describes_and_requires_keys() -> None:
    document = record_schema.json_schema()
    text = json.dumps(document)
    assert "Different versions never share a table." in text
    required = sum(len(part["required"]) for part in document["$defs"].values())
    assert required > 80


def test_a_record_reads_like_its_file_or_by_attribute(record: dict[str, Any]) -> None:
    found = records.parse(record)
    assert found["scenario"]["name"] == found.scenario.name == record["scenario"]["name"]
    assert found.number("bwt") == -0.12
    assert found.number("none") is None
    assert found.numbers("avg_acc") == record["metrics"]["avg_acc"]
    with pytest.raises(KeyError):
        found["none"]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a record that holds a value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for name, part in parts for place in places(part, (*at, name)))]


GOOD = records.plain(records.read(GOLDEN / f"v{records.SCHEMA}.json"))
PLACES = places(GOOD)
JUNK = [
    "null", "true", "0", "-1", "1.5", "1e308", "-1e308", "5e-324", "1" + "0" * 30, "1" + "0" * 400, "1" + "0" * 5000,
    "1e999", "NaN", "-Infinity", '""', '"\\ud800"', '"\\u0000"', '"few-shot"', '"uda"', '"base-to-new"', '"a/\u00b2"',
    '"=1+1"',
    '"\\u202e"',
    "[]", "{}", "[[]]", "[null]", '["x"]', '{"x": 1}', "[" * 900 + "]" * 900, "[" * 5000 + "]" * 5000,
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(JUNK)), min_size=1, max_size=2))
def test_a_record_is_refused_or_can_be_put_into_a_table(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], str]]
) -> None:
    """One record must never break the tables of all others."""
    folder = tmp_path_factory.mktemp("junk")
    damaged: Any = copy.deepcopy(GOOD)
    damaged["run_id"] = "f" * 16
    for number, (place, _) in enumerate(changes):
        part = damaged
        with contextlib.suppress(KeyError, IndexError, TypeError):  # inside of what the first change replaced
            for name in place[:-1]:
                part = part[name]
            part[place[-1]] = f"<{number}>"
    text = json.dumps(damaged)
    for number, (_, junk) in enumerate(changes):
        text = text.replace(json.dumps(f"<{number}>"), junk)
    (folder / "junk.json").write_text(text)
    records.write(folder / "good.json", GOOD)
    found, problems = records.read_all(folder)
    assert len(found) + len(problems) == 2
    tables = leaderboard.leaderboard(found)
    assert leaderboard.render_text(tables)
    for exporter in EXPORTERS:
        exporter.export(tables)


def test_unfinished_runs_may_lack_results(tmp_path: Path, record: dict[str, Any]) -> None:
    unfinished = {
        **record,
        "status": "interrupted",
        "accuracy": [],
        "metrics": None,
        "cost": None,
        "predictions": None,
        "error": "stopped",
    }
    VALIDATOR.validate(unfinished)
    records.write(tmp_path / "run.json", unfinished)
    assert records.plain(records.read(tmp_path / "run.json")) == unfinished


def test_a_newer_schema(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**record, "schema": records.SCHEMA + 1}))
    with pytest.raises(DataMissing, match="newer than") as caught:
        records.read(path)
    assert caught.value.hint
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"schema": 1', "damaged record"),
        (b"", "damaged record"),
        (b"\xff\xfe\x00", "damaged record"),
        (b"[1]", "no schema number"),
        (b"{}", "no schema number"),
        (b'{"schema": "1"}', "no schema number"),
        (b'{"schema": 0}', "no schema number"),
        (b'{"schema": true}', "no schema number"),
        (b"[" * 100_000, "damaged record"),
        (b'{"schema": 1}', "scenario is missing"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(DataMissing, match=words) as caught:
        records.read(path)
    assert str(path) in caught.value.message
    with pytest.raises(DataMissing, match="no record at"):
        records.read(tmp_path / "other.json")


def test_old_records_are_upgraded_step_by_step(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def upgrade_1_to_2(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "schema": 2, "track": old["track"] + "-2"}

    def upgrade_2_to_3(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "schema": 3, "track": old["track"] + "-3"}

    def upgrade_3_to_4(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "schema": 4, "track": old["track"] + "-4"}

    monkeypatch.setattr(store, "UPGRADES", {1: upgrade_1_to_2, 2: upgrade_2_to_3, 3: upgrade_3_to_4})
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**record, "schema": 1}))
    before = path.read_bytes()
    new = records.read(path)
    assert (new["schema"], new["track"]) == (4, "nano-2-3-4")
    assert path.read_bytes() == before


def test_read_all_reports_and_goes_on(tmp_path: Path, record: dict[str, Any]) -> None:
    for number in (2, 1):
        records.write(tmp_path / f"s{number}" / "m" / "run.json", {**record, "track": f"t{number}"})
    (tmp_path / "s1" / "m" / "bad.json").write_text("{")
    (tmp_path / "s1" / "newer.json").write_text('{"schema": 99}')
    (tmp_path / "s1" / "m" / "run.work").mkdir()
    (tmp_path / "s1" / "m" / "run.work" / "state.json").write_text("{}")
    (tmp_path / ".hidden.json").write_text("{")
    (tmp_path / "s1" / "other.json").write_text("{}")
    (tmp_path / "table.json").write_text(json.dumps({"format": records.TABLES_FORMAT}))
    good, problems = records.read_all(tmp_path)
    assert [item["track"] for item in good] == ["t1", "t2"]
    assert [problem.path.name for problem in problems] == ["bad.json", "newer.json", "other.json"]
    assert "damaged record" in problems[0].message
    assert "newer than" in problems[1].message
    assert "other.json is no record" in problems[2].message
    with pytest.raises(DataMissing, match="holds tables"):
        records.read(tmp_path / "table.json")
    with pytest.raises(UsageError, match="no results folder"):
        records.read_all(tmp_path / "none")


def test_find_by_the_beginning_of_an_id(tmp_path: Path, record: dict[str, Any]) -> None:
    for run_id in ("aaaa000000000000", "aabb000000000000"):
        records.write(tmp_path / "s" / f"{run_id}.json", {**record, "run_id": run_id})
    assert records.find(tmp_path, "aab").stem == "aabb000000000000"
    with pytest.raises(UsageError, match="several runs"):
        records.find(tmp_path, "aa")
    with pytest.raises(UsageError, match="no run `ff`"):
        records.find(tmp_path, "ff")
    with pytest.raises(UsageError, match="no results folder"):
        records.find(tmp_path / "none", "ff")


def test_comparable_leaves_out_what_differs_between_executions(record: dict[str, Any]) -> None:
    again = copy.deepcopy(record)
    again["timing"]["total_seconds"] += 1
    again["provenance"]["date"] = "later"
    assert again != record
    assert records.comparable(again) == records.comparable(record)
    again["accuracy"][0][0] = 0.5
    assert records.comparable(again) != records.comparable(record)


def test_records_that_are_read_together_share_what_is_equal_and_are_what_each_is_alone(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    paths = [tmp_path / f"{number:016x}.json" for number in range(3)]
    for number, path in enumerate(paths):
        about = {"seeds": {**record["seeds"], "seed": number}, "run_id": path.stem}
        other = {**record["method"], "name": "other"} if number == 2 else record["method"]
        records.write(path, {**record, **about, "method": other})
    found, problems = records.locate(tmp_path)
    assert not problems
    first, second, third = (found[str(path)] for path in paths)
    assert [first, second, third] == [records.read(path) for path in paths]
    assert first.method is second.method
    assert third.method.name == "other"
    assert first.config is second.config is third.config
    assert [one.seeds.seed for one in (first, second, third)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        ("scenario", {"version": "1"}, "scenario.version: "),
        ("config", {"origin": []}, "config.origin: "),
        ("selection", {"more": 1}, "selection: "),
        ("seeds", {"seed": 0.5}, "seeds.seed: "),
    ],
)
def test_damage_is_told_with_its_whole_key_among_many_too(
    tmp_path: Path, record: dict[str, Any], part: str, wrong: dict[str, Any], message: str
) -> None:
    for number in range(2):
        records.write(tmp_path / f"{number:016x}.json", {**record, "run_id": f"{number:016x}"})
    (tmp_path / "damaged.json").write_text(store.dumps({**record, part: {**record[part], **wrong}}))
    found, (problem,) = records.read_all(tmp_path)
    assert len(found) == 2
    assert message in problem.message
    with pytest.raises(DataMissing) as alone:
        records.read(tmp_path / "damaged.json")
    assert alone.value.message == problem.message
