"""`bench plot`: a file of the right kind, equal bytes from equal records, and one line for what cannot be drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bench_plots import accuracy
from benchmark import records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_PLUGIN, EXIT_USAGE

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))


def run(method: str, seed: int, **changes: Any) -> records.Record:
    """A record; ``changes`` are ``key=value``."""
    about = {**TEMPLATE["method"], "name": method, "control": False}
    seeds = dict.fromkeys(TEMPLATE["seeds"], seed)
    run_id = hashlib.sha256(repr((method, seed, changes)).encode()).hexdigest()[:16]
    return records.parse({**TEMPLATE, "method": about, "seeds": seeds, "run_id": run_id, **changes})


@pytest.fixture
def runs() -> list[records.Record]:
    """Two methods, three seeds each."""
    return [run(method, seed) for method in ("l2p", "_odd$x") for seed in range(3)]


@pytest.fixture
def folder(tmp_path: Path, runs: list[records.Record]) -> Path:
    for one in runs:
        records.write(tmp_path / "runs" / f"{one.run_id}.json", one)
    return tmp_path / "runs"


def test_a_line_a_row_with_a_band_over_seeds(runs: list[records.Record]) -> None:
    (axis,) = accuracy.draw(runs).axes
    labels = [text.get_text().strip() for text in axis.get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["_odd$x", "l2p"]
    assert all(label.endswith("(n=3)") for label in labels)
    assert len(axis.collections) == 2
    curve = TEMPLATE["metrics"]["avg_acc"]
    assert list(axis.lines[0].get_xdata()) == list(range(1, len(curve) + 1))
    assert list(axis.lines[0].get_ydata()) == pytest.approx([100 * value for value in curve])


def test_one_seed_has_no_band(runs: list[records.Record]) -> None:
    (axis,) = accuracy.draw(runs[:1]).axes
    assert not axis.collections


def test_tables_are_panels(runs: list[records.Record]) -> None:
    assert len(accuracy.draw([*runs, run("l2p", 0, track="mini")]).axes) == 2
    more = [run("l2p", 0, track=track) for track in ("mini", "paper")]
    assert len(accuracy.draw([*runs, *more]).axes) == 3  # the fourth place is empty


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_records_give_the_same_bytes(suffix: str, folder: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.{suffix}"
        assert main(["plot", "accuracy", "--results", str(folder), "-o", str(file)]) == EXIT_OK
        found.append(file.read_bytes())
    assert found[0] == found[1]
    assert found[0][:5] in (b"\x89PNG\r", b"%PDF-", b"<?xml")


def test_what_cannot_be_drawn_is_said_in_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["acuracy", "-o", "x.png"], "did you mean `accuracy`"),
        (["accuracy", "-o", "x.gif"], "no format of figures"),
        (["accuracy", "-o", "x.png", "--method", "l3p"], "did you mean `l2p`"),
        (["accuracy", "-o", "x.png", "--track", "nono"], "unknown track"),
    ):
        assert main(["plot", *words, "--results", str(folder)]) == EXIT_USAGE
        assert said in capsys.readouterr().err


def test_records_without_a_stream_cannot_be_drawn() -> None:
    short = {**TEMPLATE["metrics"], "avg_acc": [0.5]}
    with pytest.raises(ValueError, match="no completed run of a stream"):
        accuracy.draw([run("l2p", 0, status="interrupted"), run("l2p", 1, metrics=short)])


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 3", EXIT_PLUGIN, "`draw` returned 3"),
        ("raise KeyError('x')", EXIT_PLUGIN, "`draw` failed: KeyError"),
        ("raise ValueError('no losses')", EXIT_USAGE, "bench plot mine: no losses"),
    ],
)
@pytest.mark.usefixtures("registry_as_it_was")
def test_a_figure_of_a_plugin_that_fails_is_named(
    body: str, code: int, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "figures.py"
    plugin.write_text(
        f"from benchmark import PlotSpec, hookimpl\ndef draw(records):\n    {body}\n"
        "@hookimpl\ndef bench_register_plots():\n    return [PlotSpec(name='mine', draw=draw, summary='')]\n",
        encoding="utf-8",
    )
    registry.add_file(plugin)
    assert main(["plot", "mine", "--results", str(folder), "-o", str(tmp_path / "x.png")]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
