"""What reaches stdout and stderr: data apart from words, in any encoding, without what steers a terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main, terminal
from benchmark.errors import EXIT_OK, EXIT_PLUGIN, EXIT_USAGE

RECORD = Path(__file__).parents[1] / "golden" / "records" / "v2.json"
MAIN = "import sys; from benchmark.cli import main; sys.exit(main())"
CHATTY = """
import os
from benchmark import ExporterSpec, hookimpl
print("loud: import")
os.system("echo loud: program")

@hookimpl
def bench_register_exporters():
    print("loud: registration")
    return [ExporterSpec(name="chatty", export=export, summary="prints")]

@hookimpl
def bench_experience_ended(event):
    print(f"loud: after {event.experience}")

def export(tables):
    print("loud: export")
    return '"data"'
"""
pytestmark = pytest.mark.usefixtures("registry_as_it_was")


def plugin(folder: Path, text: str, name: str = "chatty.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    shutil.copy(RECORD, tmp_path / "runs" / "v2.json")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "words",
    [
        ["list", "exporters", "--json"],
        ["info", "chatty", "--json"],
        ["leaderboard", "--json"],
        ["leaderboard", "--format", "chatty"],
    ],
)
def test_what_a_plugin_prints_is_no_data(words: list[str], results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["--results", str(results)] if words[0] == "leaderboard" else []
    assert main([*words, *extra, "-p", plugin(results.parent, CHATTY)]) == EXIT_OK
    said = capsys.readouterr()
    json.loads(said.out)
    assert "loud: registration" in said.err


def test_programs_that_a_plugin_starts_print_no_data_either(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MAIN, "-p", plugin(tmp_path, CHATTY), "list", "exporters", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert [row["name"] for row in json.loads(done.stdout)["exporters"]][:1] == ["chatty"]
    assert {"loud: import", "loud: program", "loud: registration"} <= set(done.stderr.splitlines())


def test_a_run_with_a_chatty_plugin_in_any_encoding_prints_records_and_does_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    small = ["--set", "scenario.train=1", "--set", "scenario.test=1", "--set", "scenario.split=2x50", "--seed", "0,1"]
    words = ["run", "--scenario", "split-glyphs", "--method", "nearest-mean", *small, "--out", str(tmp_path / "é")]
    for options in (["--json"], []):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([*words, "-p", plugin(tmp_path, CHATTY), *options]) == EXIT_OK
        stream.flush()
        said = stream.buffer.getvalue().decode("ascii")
        assert "loud" not in said
        if options:
            assert [run["seed"] for run in json.loads(said)] == [0, 1]
        else:
            assert said.count("record: ") == 2
            assert "\\xe9" in said
    monkeypatch.undo()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_every_text_can_be_printed_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.encodable():
        terminal.show("░▒▓█ · 1 ± 2 … 漢 \udcff")
    said = stream.buffer.getvalue().decode(encoding)
    assert said.isprintable() or said.endswith("\n")
    if encoding == "ascii":
        assert said == ".:*# . 1 +- 2 ... \\u6f22 \\udcff\n"
    assert stream.errors == "strict", "the stream is left as it was found"


def test_a_document_is_utf_8_where_no_terminal_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.write("81 ± 1\n")
    assert stream.buffer.getvalue() == "81 ± 1\n".encode()


def test_a_reader_that_has_gone_ends_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


EVIL = "a\x1b[2J\u202eb\r\x07"


def test_names_and_messages_cannot_steer_the_terminal(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"from benchmark import ExporterSpec, hookimpl\nNAME = {EVIL!r}\n@hookimpl\ndef bench_register_exporters():\n"
    )
    text += "    return [ExporterSpec(name=NAME, export=str, summary=NAME)]\n"
    record = json.loads(RECORD.read_text())
    record["scenario"]["name"] = record["method"]["name"] = EVIL
    (results / "v2.json").write_text(json.dumps(record))
    for words in (["list"], ["info", EVIL], ["run", "--scenario", EVIL, "--method", "x"], [EVIL]):
        main([*words, "-p", plugin(tmp_path, text)] if words[0] in ("list", "info") else words)
    main(["leaderboard", "--results", str(results)])
    main(["metrics", str(results / "v2.json")])
    said = capsys.readouterr()
    for part in (said.out, said.err):
        assert part
        assert all(char.isprintable() for char in part.replace("\n", ""))
    assert "a\\x1b[2J\\u202eb" in said.out


def test_a_message_never_echoes_thousands_of_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 9000
    run = ["run", "--scenario", "split-glyphs", "--method", "finetune"]
    toml = tmp_path / "run.toml"
    toml.write_text(f"[method.finetune]\nepochs = '{long}'\n")
    for words in (
        [long],
        ["list", long],
        ["info", long],
        ["run", f"--{long}"],
        ["run", "--scenario", long, "--method", long],
        [*run, "--set", long],
        [*run, "--set", f"{long}=3"],
        [*run, "--set", f"epochs={long}"],
        [*run, "--set", f"engine.select={long}"],
        [*run, "--set", f"{long}.lr=3"],
        [*run, "--seed", long],
        [*run, "--seed", "1" * 9000],
        [*run, "--track", long],
        [*run, "--config", str(toml), "--dry-run"],
        ["run", "--scenario", f"split-glyphs/{long}", "--method", "finetune"],
        ["run", "--scenario", "split-glyphs", "--method", f"finetune@{long}"],
        ["check", "csv", "--only", long],
        ["info", "l2p", "--diff", long],
        ["info", "l2p", "--diff", f"pilot,{long}"],
        ["leaderboard", "--format", long],
        ["new-plugin", long],
        ["-p", long, "list"],
    ):
        assert main(words) == EXIT_USAGE, words[0]
        said = capsys.readouterr().err
        assert "error: " in said
        assert len(said) < 2500, [word[:30] for word in words]


@pytest.mark.parametrize("raised", ["SystemExit(0)", "SystemExit('bye')", "GeneratorExit()", "ValueError('no')"])
@pytest.mark.parametrize("place", ["import", "registration", "export"])
def test_a_plugin_cannot_end_the_program(
    place: str, raised: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "from benchmark import ExporterSpec, hookimpl\n"
    text += f"def fail(*args):\n    raise {raised}\n"
    text += "fail()\n" if place == "import" else ""
    text += "@hookimpl\ndef bench_register_exporters():\n"
    text += "    fail()\n" if place == "registration" else ""
    text += "    return [ExporterSpec(name='ends', export=fail, summary='x')]\n"
    words = ["-p", plugin(results.parent, text, "ends.py"), "leaderboard", "--results", str(results)]
    assert main([*words, "--format", "ends"]) == EXIT_PLUGIN
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "ends" in said.err.splitlines()[0]
    assert "Traceback" not in said.err


def test_ctrl_c_passes_through_a_plugin(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-p", plugin(results.parent, "raise KeyboardInterrupt\n"), "list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("export", "problem"),
    [
        ("lambda tables: None", "returned NoneType"),
        ("lambda tables: b'x'", "returned bytes"),
        ("lambda tables: tables", "returned list"),
        ("lambda: 'x'", "TypeError"),
        ("lambda tables, more: 'x'", "TypeError"),
        ("lambda tables: 1 / 0", "ZeroDivisionError"),
        ("lambda tables: '\\udcff'", "not Unicode"),
        ("'no function'", "TypeError"),
    ],
)
@pytest.mark.parametrize("to_file", [False, True])
def test_an_exporter_that_breaks_its_contract_is_named(
    export: str, problem: str, to_file: bool, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "from benchmark import ExporterSpec, hookimpl\n@hookimpl\ndef bench_register_exporters():\n"
    text += f"    return [ExporterSpec(name='odd', export={export}, summary='x')]\n"
    file = plugin(results.parent, text, "odd.py")
    target = results.parent / "table.txt"
    words: list[Any] = ["-o", str(target)] if to_file else []
    assert main(["-p", file, "leaderboard", "--results", str(results), "--format", "odd", *words]) == EXIT_PLUGIN
    said = capsys.readouterr()
    assert said.out == ""
    assert not target.exists()
    assert "odd" in said.err
    assert problem in said.err or "export" in said.err, "or the registry refuses the record"


def test_the_streams_are_left_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.fstat(1).st_ino, sys.stdout
    assert main(["list", "exporters"]) == EXIT_OK
    print("still here")
    assert (os.fstat(1).st_ino, sys.stdout) == before
    assert capfd.readouterr().out.endswith("still here\n")
