"""`bench bundle` and `bench verify`: every number is recomputed, and one changed digit is found."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from benchmark.records import bundles

Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """Two runs of a method that trains nothing, from a fixed moment on."""
    out = tmp_path_factory.mktemp("bundle") / "runs"
    command = ["run", "--scenario", "glyphs-few-shot/1", "--method", "nearest-mean", "--seed", "0-1", "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(session_cache))
        assert main([*command, "--out", str(out)]) == EXIT_OK
    return out


@pytest.fixture(scope="module")
def bundle(results: Path) -> Path:
    file = results.parent / "paper.zip"
    assert main(["bundle", "--results", str(results), "-o", str(file)]) == EXIT_OK
    return file


def changed(bundle: Path, target: Path, change: Callable[[Contents], object], *, honest: bool = False) -> Path:
    """A copy with other content; ``honest``: with a manifest that names the new hashes, as a forger would write it."""
    with zipfile.ZipFile(bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    if honest:
        manifest = json.loads(contents[bundles.MANIFEST])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
            if name != bundles.MANIFEST
        }
        contents[bundles.MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return target


def one_digit(contents: Contents) -> None:
    """Another prediction in the first row of the first Parquet file, and its record names the new hash."""
    name = next(name for name in sorted(contents) if name.endswith(".parquet"))
    table = pq.read_table(pa.BufferReader(contents[name]))
    predicted = table.column("prediction").to_pylist()
    right = table.column("label").to_pylist()
    predicted[0] = right[0] if predicted[0] != right[0] else right[0] + 1
    place = table.column_names.index("prediction")
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(place, "prediction", pa.array(predicted, pa.int32())), sink)
    contents[name] = sink.getvalue().to_pybytes()
    record = json.loads(contents[name.replace(".parquet", ".json")])
    record["predictions"]["sha256"] = hashlib.sha256(contents[name]).hexdigest()
    contents[name.replace(".parquet", ".json")] = json.dumps(record).encode()


def test_what_was_packed_is_verified(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", str(bundle)]) == EXIT_OK
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "verified"
    assert "records       2 checked, 0 wrong" in out
    assert main(["verify", str(bundle), "--json"]) == EXIT_OK
    told = json.loads(capsys.readouterr().out)
    assert told["verified"]
    assert told["checked"]["numbers"] > 40
    assert told["checked"]["locks"] == 2


def test_the_same_records_give_the_same_bytes(bundle: Path, results: Path, tmp_path: Path) -> None:
    file = tmp_path / "paper.zip"
    assert main(["bundle", "--results", str(results), "-o", str(file)]) == EXIT_OK
    assert file.read_bytes() == bundle.read_bytes()


def spoil(part: str, old: bytes, new: bytes) -> Callable[[Contents], None]:
    def change(contents: Contents) -> None:
        name = next(name for name in sorted(contents) if name.startswith(part))
        assert old in contents[name]
        contents[name] = contents[name].replace(old, new, 1)

    return change


def drop(ending: str) -> Callable[[Contents], None]:
    def change(contents: Contents) -> None:
        del contents[next(name for name in sorted(contents) if name.endswith(ending))]

    return change


def flip(contents: Contents) -> None:
    name = next(name for name in sorted(contents) if name.endswith(".parquet"))
    spoiled = bytearray(contents[name])
    spoiled[len(spoiled) // 3] ^= 1
    contents[name] = bytes(spoiled)


@pytest.mark.parametrize(
    ("change", "honest", "told"),
    [
        (flip, False, ".parquet: the content differs from what the manifest says"),
        (flip, True, "differs: "),
        (one_digit, True, "the accuracy matrix of the record differs from that of the predictions"),
        (one_digit, True, "final_avg_acc is 0."),
        (drop(".parquet"), False, ".parquet: is not there"),
        (drop(".parquet"), True, ": no predictions"),
        (lambda contents: contents.update(more=b"?"), False, "more: is not in the manifest"),
        (spoil("records/", b'"final_avg_acc": 0.', b'"final_avg_acc": 0.9'), True, "final_avg_acc is 0.9"),
        (spoil("records/", b'"schema"', b'"scheme"'), True, "is no record: no schema number"),
        (spoil("tables/nano.csv", b"nearest-mean", b"l2p"), True, "tables/nano.csv: not what the records give"),
        (spoil("locks/", b'"version": ', b'"version": 1'), True, "locks/"),
        (drop("tables/nano.tex"), False, "tables/nano.tex: is not there"),
        (drop(".runs.json"), True, "tables/nano.runs.json: cannot be read"),
        (spoil("tables/nano.runs", b'"final_avg_acc": 0.', b'"final_avg_acc": 0.9'), True, "final_avg_acc is 0.9"),
    ],
)
def test_what_was_changed_is_found(
    change: Callable[[Contents], object],
    honest: bool,
    told: str,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = changed(bundle, tmp_path / "b.zip", change, honest=honest)
    assert main(["verify", str(file)]) == EXIT_FAILED
    err = capsys.readouterr().err
    assert told in err
    assert err.splitlines()[-1] == "NOT verified"


def another_version(number: float) -> Callable[[Contents], None]:
    def change(contents: Contents) -> None:
        manifest = json.loads(contents[bundles.MANIFEST])
        contents[bundles.MANIFEST] = json.dumps({**manifest, "adaptbench": "0.0.1"}).encode()
        runs = json.loads(contents["tables/nano.runs.json"])
        first = runs[min(runs)]
        first["final_avg_acc"] = number or first["final_avg_acc"]
        contents["tables/nano.runs.json"] = json.dumps(runs).encode()
        contents["tables/nano.md"] += b"\nrendered otherwise\n"

    return change


def test_of_another_version_numbers_are_compared_instead_of_bytes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(changed(bundle, tmp_path / "a.zip", another_version(0.0), honest=True))]) == EXIT_OK
    assert "rendered by adaptbench 0.0.1" in capsys.readouterr().err
    file = changed(bundle, tmp_path / "b.zip", another_version(0.123), honest=True)
    assert main(["verify", str(file)]) == EXIT_FAILED
    assert "final_avg_acc is 0.123" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "cannot be unpacked"),
        (b"PK\x03\x04 no archive", "cannot be unpacked"),
        ({"../out": b""}, "leads out of its folder"),
        ({"a.json": b"{}"}, "no bundle: it holds no MANIFEST.json"),
        ({bundles.MANIFEST: b'{"format": 3}'}, "damaged bundle: MANIFEST.json"),
    ],
    ids=["absent", "empty", "no-zip", "path", "other-zip", "manifest"],
)
def test_what_is_no_bundle_is_one_message(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.zip"
    if isinstance(content, dict):
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)
    elif content is not None:
        file.write_bytes(content)
    assert main(["verify", str(file)]) == EXIT_DATA
    told = capsys.readouterr().err
    assert message in told
    assert "\nhint: " in told, "what to do next"


def test_predictions_that_are_not_there_are_told(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = tmp_path / "runs"
    for path in results.rglob("*.json"):
        (lacking / "s" / "m").mkdir(parents=True, exist_ok=True)
        (lacking / "s" / "m" / path.name).write_bytes(path.read_bytes())
    command = ["bundle", "--results", str(lacking), "-o", str(tmp_path / "b.zip")]
    assert main(command) == EXIT_DATA
    assert "and 1 more: nobody could recompute its numbers" in capsys.readouterr().err
    assert not (tmp_path / "b.zip").exists()
    assert main([*command, "--allow-missing"]) == EXIT_OK
    assert main(["verify", str(tmp_path / "b.zip")]) == EXIT_OK
    assert "runs without predictions: 2" in capsys.readouterr().err


def test_wrong_words_are_usage_errors(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bundle", "--results", str(results), "-o", str(tmp_path / "b.zip")]
    assert main([*command, "--format", "latx"]) == EXIT_USAGE
    assert "did you mean `latex`" in capsys.readouterr().err
    assert main([*command, "--method", "l2p"]) == EXIT_USAGE
    assert main(["bundle", "--results", str(results), "-o", str(tmp_path)]) == EXIT_USAGE
