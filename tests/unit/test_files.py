"""Paths as users write them, folders checked before work begins, switches of the environment."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from benchmark import data, files
from benchmark.backbones import _hub
from benchmark.cli import COMMANDS, main, module_of
from benchmark.errors import EXIT_OK, EXIT_USAGE, DataMissing, RunFailed, UsageError

RUN = ["run", "--scenario", "split-glyphs", "--method", "finetune"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_takes_a_path_understands_the_home_folder(command: str, home: Path) -> None:
    parser = argparse.ArgumentParser()
    module_of(command).add_arguments(parser)
    for action in parser._actions:
        if action.type is Path or "DIR" in str(action.metavar) or "FILE" in str(action.metavar):
            assert callable(action.type), action.option_strings
            assert action.type("~/x") == home / "x"


def test_the_home_folder_in_a_file_of_options_and_for_plugins(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run.toml").write_text('[run]\nout = "~/results"\nweights = "~/w.pt"\n')
    (home / "plugin.py").write_text("")
    words = ["-p", "~/plugin.py", *RUN, "--config", "~/run.toml", "--data-root", "~/sets", "--dry-run", "--json"]
    assert main(words) == EXIT_OK
    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)[0]}
    assert (rows["out"], rows["weights"]) == (str(home / "results"), str(home / "w.pt"))
    assert rows["data root"] == str(home / "sets")
    assert not Path("~").exists()


def test_a_home_folder_that_nobody_has() -> None:
    with pytest.raises(UsageError, match="there is no such home folder"):
        files.user_path("~nobody-has-this-name/x")
    with pytest.raises(UsageError, match="cannot be a path"):
        files.user_path("a\0b")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("taken", "taken is not a folder"),
        ("taken/below/it", "taken is not a folder"),
        ("dangling/x", "dangling is not a folder"),
        ("n" * 300, "name too long"),
        ("closed/x", "closed cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    path: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("")
    Path("dangling").symlink_to("nothing")
    Path("closed").mkdir()
    usual = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p).name != "closed" and usual(p, mode))  # root may write
    assert main([*RUN, "--out", path]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert problem in said.lower().replace("file name too long", "name too long")
    assert len(said.splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="file names are text there")
@pytest.mark.parametrize("word", ["--out", "--data-root", "--weights"])
def test_names_that_are_no_text_are_refused_before_training(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, word, os.fsdecode(b"na\xffme")]) == EXIT_USAGE
    assert "error: `na\\udcffme` is not UTF-8" in capsys.readouterr().err


def test_names_of_variables_that_are_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_DATA", "na\udcffme")
    assert main([*RUN, "--dry-run"]) == EXIT_USAGE
    assert "`BENCH_DATA=na\\udcffme` is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "on"),
    [
        ("1", True),
        ("yes", True),
        ("TRUE", True),
        ("on", True),
        ("", False),
        ("0", False),
        ("no", False),
        ("Off", False),
    ],
)
def test_a_switch_means_the_same_everywhere(value: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark import data

    monkeypatch.setenv("BENCH_OFFLINE", value)
    assert files.switched_on("BENCH_OFFLINE") == on
    monkeypatch.setattr(_hub, "_size", lambda url: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(DataMissing) as caught:
        _hub.fetch("x", "timm/none", ["none.bin"], offline=False)
    assert ("downloads are off" in caught.value.message) == on
    assert (data.forbidden(0, "auto") is not None) == on


def test_a_switch_that_says_neither_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_OFFLINE", "maybe")
    with pytest.raises(UsageError, match="BENCH_OFFLINE=maybe is neither yes nor no"):
        files.switched_on("BENCH_OFFLINE")


def test_both_download_options_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["info", "split-glyphs"], ["info", "l2p"], RUN, [*RUN, "--dry-run"]):
        assert main([*words, "--download", "--no-download"]) == EXIT_USAGE
        assert "exclude each other" in capsys.readouterr().err


def test_a_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "f").write_bytes(content)
    assert files.sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_no_file_takes_the_place_of_a_device_a_pipe_or_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "pipe.png").symlink_to(pipe)
    for words in (["leaderboard", "-o", str(pipe)], ["plot", "accuracy", "-o", str(tmp_path / "pipe.png")]):
        assert main([*words, "--results", str(tmp_path)]) == EXIT_USAGE
        assert f"{words[-1]}: it is not a regular file" in capsys.readouterr().err
    with pytest.raises(RunFailed, match="not a regular file"):
        files.replace_file(pipe, b"")
    assert pipe.is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("variable", ["BENCH_CACHE", "BENCH_DATA"])
def test_a_home_folder_that_nobody_has_in_a_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "~nobody-has-this-name/x")
    with pytest.raises(UsageError, match="there is no such home folder"):
        (data.cache_root if variable == "BENCH_CACHE" else data.data_root)()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('File "/home/me/env/torch/nn/module.py", line 3', 'File "module.py", line 3'),
        ("cannot write /data/runs/.logs/: disk full", "cannot write .logs: disk full"),
        (r"C:\Users\me\runs\a.json is damaged", "a.json is damaged"),
        ("no such file: /data/a/b; its last lines: /x/y|/x/z", "no such file: b; its last lines: y|z"),
        ("7 of n/a, ~/runs, split-glyphs/10x10/s, a / b, /", "7 of n/a, ~/runs, split-glyphs/10x10/s, a / b, /"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_a_message_for_readers_elsewhere_names_no_place(text: str, kept: str) -> None:
    assert files.without_places(text) == kept
