"""What is typed: wrong options, the file's table `[run]`, where values come from, the command that resumes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE, UsageError
from benchmark.run import provenance
from benchmark.run.jobs import parse_seeds

RUN = ("run", "--scenario", "split-glyphs", "--method", "finetune")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["run", "--methods", "l2p"], "unknown option of bench run `--methods`", "did you mean `--method`"),
        (["run", "--meth", "l2p"], "unknown option of bench run `--meth`", "did you mean `--method`"),
        (["list", "methods", "more"], "bench list: `more` is one argument too many", "`bench list --help`"),
        (
            ["sweep", "nights.toml"],
            "bench sweep: `nights.toml` is one argument too many",
            "`bench sweep --config nights",
        ),
        (["list", "meth"], "bench list: argument group: invalid choice: 'meth'", "`bench list --help`"),
        (["check"], "bench check: the following arguments are required: name", "`bench check --help`"),
        (["--plugin", "x.py", "lits"], "unknown command `lits`", "did you mean `list`"),
        ([*RUN, "--init-seed=-1"], "--init-seed -1: `-1` is not a seed or a range", "--init-seed 0-4"),
        ([*RUN, "--validate", "x"], "--validate: `x` is not a whole number that is 0 or more", "--help"),
    ],
)
def test_a_wrong_word_is_one_message(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == EXIT_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert hint in lines[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = true", "run.toml: run.seed: True is not a whole number"),
        ("seed = 1.5", "run.toml: run.seed: 1.5 is not a whole number"),
        ("track = 3", "run.toml: run.track: 3 is not text"),
        ('validate = "x"', "run.toml: run.validate: 'x' is not a whole number"),
        ("method = [3]", "run.toml: run.method: [3] is not text"),
        ("weights = 3", "run.toml: run.weights: 3 is not text"),
        ("tracks = 3", "run.toml: unknown key `run.tracks`"),
    ],
)
def test_the_table_run_is_checked_by_key_and_type(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(f"[run]\n{line}\n", encoding="utf-8")
    assert main(["run", "--config", "run.toml", "--dry-run"]) == EXIT_USAGE
    assert message in capsys.readouterr().err


def test_every_table_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "scenario", "engine"):
        Path("run.toml").write_text(f"{name} = 3\n", encoding="utf-8")
        assert main([*RUN, "--config", "run.toml", "--dry-run"]) == EXIT_USAGE
        assert f"run.toml: `{name}` is not a table" in capsys.readouterr().err


def dry_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, tuple[Any, str]]]:
    assert main([*words, "--dry-run", "--json"]) == EXIT_OK
    return [{row["key"]: (row["value"], row["origin"]) for row in rows} for rows in json.loads(capsys.readouterr().out)]


def test_dry_run_tells_option_file_variable_and_default_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", "sets")
    Path("run.toml").write_text(
        '[run]\nscenario = "split-glyphs"\nmethod = ["finetune", "joint"]\nseed = [0, "2-3"]\n'
        'validate = 3\nout = "a"\n',
        encoding="utf-8",
    )
    words = ["run", "--config", "run.toml", "--method", "finetune", "--init-seed", "7", "--validate", "0"]
    runs = dry_run(words, capsys)
    assert [rows["seed.data"] for rows in runs] == [(0, "run.toml"), (2, "run.toml"), (3, "run.toml")]
    rows = runs[0]
    assert rows["scenario"] == ("split-glyphs/10x10", "run.toml")
    assert rows["method"] == ("finetune", "--method")
    assert rows["seed.init"] == (7, "--init-seed")
    assert rows["validate"] == (0, "--validate"), "the command line wins, also with the default's value"
    assert rows["out"] == ("a", "run.toml")
    assert rows["data root"] == ("sets", "BENCH_DATA")
    assert rows["track"] == ("nano", "default of the scenario")
    assert rows["backbone"] == ("nano-vit", "default of track nano")
    assert rows["device"] == ("auto", "default")
    monkeypatch.delenv("BENCH_DATA")
    (rows,) = dry_run([*RUN, "--data-root", ".", "--no-download"], capsys)
    assert rows["seed.data"] == (0, "default")
    assert rows["out"] == ("runs", "default")
    assert rows["data root"] == (".", "--data-root")
    assert rows["download"] == ("never", "--no-download")


@pytest.mark.parametrize(
    ("given", "seeds"), [("0", [0]), ("0-2", [0, 1, 2]), ("3,0-1,3", [3, 0, 1]), (4, [4]), ((0, "2-3"), [0, 2, 3])]
)
def test_seeds(given: Any, seeds: list[int]) -> None:
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", ["", "x", "-1", "3-1", "0-9999999999", "9" * 40, "0,,1", "1" * 9000])
def test_what_is_no_seed(given: str) -> None:
    with pytest.raises(UsageError, match="is not a seed or a range") as caught:
        parse_seeds(given)
    assert len(caught.value.message) < 600


def test_a_variant_may_hold_commas(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--method", "finetune", "--scenario"]
    runs = dry_run([*words, "split-glyphs/50,30,20,glyph-domains, split-glyphs"], capsys)
    assert [rows["scenario"][0].partition("/")[0] for rows in runs] == ["split-glyphs", "glyph-domains", "split-glyphs"]
    assert runs[0]["scenario"][0] == "split-glyphs/50,30,20"
    assert main([*words, "glyph-domains/ink,photo", "--dry-run"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "`photo` behind the comma of `glyph-domains/ink` is not a scenario" in said
    assert "--set scenario." in said


def test_the_command_that_resumes_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    words = ["/somewhere/bin/bench", "run", "--method", "l2p", "--force", "--out", "my runs", "--set", "a=$b"]
    monkeypatch.setattr("sys.argv", words)
    resume = provenance.resume_command()
    assert shlex.split(resume) == [word for word in words if word != "--force"], "--force would start again"
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/bin/{name}")
    assert provenance.resume_command() == "bench run --method l2p --out 'my runs' --set 'a=$b'"
    if os.name == "posix":
        monkeypatch.setenv("BENCH_DATA", "my data")
        assert provenance.resume_command().startswith("BENCH_DATA='my data' bench run ")
    monkeypatch.setattr("sys.argv", ["-c"])
    assert provenance.resume_command() == "the same call again", "started from Python"


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("HERE/results", "results"),
        ("HERE", "."),
        ("--out=/data/of me/runs/", "--out=runs"),
        ("texts:/data/mine.csv", "texts:mine.csv"),
        ("scenario.path=/data/a:b", "scenario.path=a:b"),
        ("folder:/data/a,domains:/data/b", "folder:a,domains:b"),
        ("../runs", "../runs"),
        ("~/runs", "~/runs"),
        ("/", "/"),
        ("http://127.0.0.1:5000/a/b", "http://127.0.0.1:5000/a/b"),
        ("open_clip:ViT-B-16/openai", "open_clip:ViT-B-16/openai"),
        ("split-glyphs/10x10", "split-glyphs/10x10"),
    ],
)
def test_the_command_of_a_record_names_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, kept: str
) -> None:
    monkeypatch.chdir(tmp_path)
    word = word.replace("HERE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["/opt/bin/bench", "run", "--out", word])
    assert provenance.command_line() == shlex.join(["bench", "run", "--out", kept])


def test_weights_that_a_user_brings_and_another_image_size_are_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    import safetensors.torch

    from bench_backbones.bundled import WEIGHTS
    from benchmark.records import read

    state = safetensors.torch.load_file(WEIGHTS / "nano-vit.safetensors")
    safetensors.torch.save_file(
        {f"module.{name}": 0.9 * value for name, value in state.items()}, tmp_path / "own.safetensors"
    )
    small = ["--scenario", "glyphs-few-shot/1", "--set", "scenario.test=1"]
    words = ["run", *small, "--method", "nearest-mean", "--out", str(tmp_path), "--json"]
    for weights, name, size in (
        (tmp_path / "own.safetensors", "custom:own-", ["--set", "engine.image_size=16"]),
        (WEIGHTS / "nano-vit.safetensors", "nano-vit", []),
    ):
        assert main([*words, "--weights", str(weights), *size]) == EXIT_OK
        record = read(Path(json.loads(capsys.readouterr().out)[0]["record"]))
        assert record["backbone"]["name"].startswith(name)
        assert record["backbone"]["own_weights"] == (name != "nano-vit")
        assert record.backbone.architecture == ("nano-vit" if size else "")
        assert record["inputs"]["facts"]["size"] == (16 if size else 32)
        assert record["config"]["effective"]["engine"].get("image_size") == (16 if size else None)
    assert main([*words, "--set", "engine.image_size=30"]) == EXIT_USAGE
    assert "engine.image_size=30: nano-vit reads patches of" in capsys.readouterr().err


def test_warnings_are_one_line_without_the_place_in_our_code(tmp_path: Path) -> None:
    (tmp_path / "warns.py").write_text(
        "import warnings\nwarnings.warn('the copy is lossy')\nwarnings.warn('gone in 3.0', FutureWarning)\n"
    )
    code = "import sys; from benchmark.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "-p", "warns.py", "list", "exporters"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "warning: the copy is lossy"
    assert lines[1].startswith("warning: ")
    assert lines[1].endswith("warns.py:3: FutureWarning: gone in 3.0")
