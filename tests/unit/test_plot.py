"""`bench plot`: a file of the right kind, equal bytes from equal records, and one line for what cannot be drawn."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_plots import (
    _predicted,
    _style,
    accuracy,
    class_accuracy,
    confusion,
    domains,
    forgetting,
    matrix,
    pareto,
    prompt_observatory,
    reliability,
    shots,
)
from benchmark import families, figures, records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_PLUGIN, EXIT_USAGE
from benchmark.metrics import continual, single
from benchmark.metrics.recorded import continual_metrics
from benchmark.records import predictions

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
    figure = accuracy.draw(runs)
    (axis,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split()[0] for label in labels] == ["_odd$x", "l2p"]
    assert axis.get_title(loc="left").endswith("n=3")
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
        (["accuracy", "-o", "x.png", "--width", "wide"], "--width wide: no width of a figure"),
        (["accuracy", "-o", "x.png", "--width", "100"], "use single, double, or 4 to 60 (cm)"),
        (["accuracy", "-o", "x.png", "--rows", "l3p"], "unknown row in these tables `l3p`"),
        (["accuracy", "-o", "x.png", "--set", "off=avg_acc"], "did you mean `accuracy.of`"),
        (["pareto", "-o", "x.png", "--set", "cost=money"], "use one of parameters, flops"),
        (["critical-difference", "-o", "x.png", "--set", "a=b"], "has no option `a`"),
        (["accuracy", "-o", "x.png", "--method", "l3p"], "did you mean `l2p`"),
        (["accuracy", "-o", "x.png", "--track", "nono"], "unknown track"),
    ):
        assert main(["plot", *words, "--results", str(folder)]) == EXIT_USAGE
        assert said in capsys.readouterr().err


def test_records_without_a_stream_cannot_be_drawn() -> None:
    short = {**TEMPLATE["metrics"], "avg_acc": [0.5]}
    with pytest.raises(ValueError, match="no completed run of a stream"):
        accuracy.draw([run("l2p", 0, status="interrupted"), run("l2p", 1, metrics=short)])


def stream(method: str, seed: int, rows: list[list[float | None]], **changes: Any) -> records.Record:
    """A record of a stream with this accuracy matrix."""
    scenario = {
        **TEMPLATE["scenario"],
        "experiences": [TEMPLATE["scenario"]["experiences"][0]] * len(rows),
        "tests": [{"name": str(place), "further": False} for place in range(len(rows))],
    }
    values = continual_metrics(rows, [10] * len(rows), family=families.get("class-il"))
    return run(
        method,
        seed,
        scenario=scenario,
        accuracy=rows,
        counts=[10] * len(rows),
        baseline=None,
        metrics=values,
        **changes,
    )


MATRIX: list[list[float | None]] = [[0.9, None, None], [0.7, 0.8, None], [0.8, 0.5, 0.6]]


def test_the_forgetting_of_a_cell_is_its_best_time_before_minus_now() -> None:
    lost = continual.forgetting_matrix(continual.as_matrix(MATRIX))
    assert lost[1, 0] == pytest.approx(0.2)
    assert lost[2, :2] == pytest.approx([0.1, 0.3])
    assert np.isnan(lost[np.triu_indices(3)]).all()
    assert lost[2, :2].mean() == pytest.approx(continual.forgetting(continual.as_matrix(MATRIX)))


def test_heat_maps_have_the_mean_over_seeds_in_their_cells() -> None:
    other = [[0.7, None, None], *MATRIX[1:]]
    figure = matrix.draw([stream("l2p", 0, MATRIX), stream("l2p", 1, other)])
    axis, bar = figure.axes
    assert axis.get_title(loc="left").split() == ["l2p", "(lr=0.01)", "(n=2)"]
    assert [text.get_text() for text in axis.texts] == ["80", "70", "80", "80", "50", "60"]
    assert bar.get_xlabel() == "accuracy (%)"
    lost = matrix.draw([stream("l2p", 0, MATRIX)], figures.PlotRequest(options=matrix.MatrixOptions(of="forgetting")))
    assert [text.get_text() for text in lost.axes[0].texts] == ["20", "10", "30"]


def test_forgetting_over_time_and_of_each_experience() -> None:
    runs = [stream("l2p", 0, MATRIX)]
    (axis,) = forgetting.draw(runs).axes
    assert list(axis.lines[0].get_ydata())[1:] == pytest.approx([20, 20])
    options = forgetting.ForgettingOptions(by="experience")
    (axis,) = forgetting.draw(runs, figures.PlotRequest(options=options)).axes
    assert list(axis.lines[0].get_ydata()) == pytest.approx([10, 30])
    with pytest.raises(ValueError, match="no completed run of a stream"):
        forgetting.draw([stream("l2p", 0, [[0.5]])])


def test_only_what_no_row_beats_in_both_is_on_the_front() -> None:
    def costing(method: str, trained: int, accuracy: float) -> records.Record:
        return stream(method, 0, [[accuracy]], cost={**TEMPLATE["cost"], "params_trainable": trained})

    runs = [costing("cheap", 0, 0.5), costing("good", 100, 0.9), costing("worse", 200, 0.8), costing("poor", 100, 0.4)]
    axis, *_ = pareto.draw(runs).axes
    colours = {tuple(line.get_xydata()[0]): line.get_color() for line in axis.lines if line.get_marker() != "None"}
    grey = {place for place, colour in colours.items() if colour in _style.GREYS}
    assert grey == {(200.0, 80.0), (100.0, 40.0)}
    assert len(colours) == 4
    assert axis.get_xscale() == "symlog"  # a cost of zero has a place
    assert pareto.draw(runs[1:]).axes[0].get_xscale() == "linear"
    assert pareto.draw([*runs[1:], costing("big", 4000, 0.1)]).axes[0].get_xscale() == "log"
    with pytest.raises(ValueError, match="no table has two rows with trainable parameters"):
        pareto.draw([runs[0]])


def predicting(seed: int, order: list[int], rights: list[list[int]], **changes: Any) -> tuple[records.Record, Any]:
    """A run of two experiences of two classes each, and what it predicts after each of them."""
    parts = [
        predictions.table(
            time,
            test_set=[0, 0, 0, 1, 1][: 3 + 2 * time],
            sample_id=list(range(3 + 2 * time)),
            label=[0, 0, 1, 2, 3][: 3 + 2 * time],
            prediction=guesses,
            top5=[[guess] for guess in guesses],
            confidence=[0.9] * len(guesses),
        )
        for time, guesses in enumerate(rights)
    ]
    shape: list[list[float | None]] = [[1.0, None], [1.0, 1.0]]
    record = stream("l2p", seed, shape, **changes)
    experiences = [{**TEMPLATE["scenario"]["experiences"][0], "classes": order[at : at + 2]} for at in (0, 2)]
    scenario = {
        **records.plain(record)["scenario"],
        "family": "class-il",
        "class_order": order,
        "num_classes": 4,
        "experiences": experiences,
    }
    return records.parse({**records.plain(record), "scenario": scenario}), predictions.concat(parts)


def request(pairs: list[tuple[records.Record, Any]], options: Any = None) -> figures.PlotRequest:
    kept = {run.run_id: made for run, made in pairs}
    return figures.PlotRequest(options=options, predictions=lambda run: kept.get(run.run_id))


@pytest.fixture
def predicted() -> list[tuple[records.Record, Any]]:
    """Two seeds that learn the classes in different orders."""
    return [
        predicting(0, [7, 5, 6, 4], [[0, 1, 1], [0, 0, 1, 2, 2]]),
        predicting(1, [4, 5, 6, 7], [[0, 0, 0], [3, 3, 1, 2, 3]]),
    ]


def test_a_confusion_matrix_has_the_labels_of_the_data_set(predicted: list[tuple[records.Record, Any]]) -> None:
    counts = confusion.confusion([0, 0, 1, -1], [0, -1, 0, 1], 2)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0]]
    runs = [run for run, _ in predicted]
    axis, _ = confusion.draw(runs, request(predicted)).axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["4", "5", "6", "7"]
    shares = axis.collections[0].get_array().reshape(4, 4)
    # Class 4 is the last of one seed, taken for 6, and the first of the other, taken for 7.
    assert shares[0].tolist() == pytest.approx([0, 0, 100 / 3, 200 / 3])
    alone, _ = confusion.draw(runs[:1], request(predicted)).axes
    assert [text.get_text() for text in alone.get_xticklabels()] == ["7", "5", "6", "4"]  # as they were learnt
    assert len(alone.lines) == 2  # where the second experience begins


def test_predictions_after_an_earlier_experience_are_on_its_test_sets(
    predicted: list[tuple[records.Record, Any]],
) -> None:
    runs = [run for run, _ in predicted]
    options = _predicted.PredictedOptions(experience=1)
    (axis,) = class_accuracy.draw(runs[:1], request(predicted, options)).axes
    values = axis.lines[0].get_ydata()
    assert list(values[:2]) == pytest.approx([50, 100])
    assert np.isnan(values[2:]).all()
    with pytest.raises(ValueError, match=r"experience=3: l2p.* has 2"):
        class_accuracy.draw(runs, request(predicted, _predicted.PredictedOptions(experience=3)))
    with pytest.raises(ValueError, match=r"predictions of l2p.*, seed 1 do not lie beside its record"):
        class_accuracy.draw(runs, request(predicted[:1]))


def test_reliability_bins_hold_the_calibration_error(predicted: list[tuple[records.Record, Any]]) -> None:
    confidence, right = [0.1, 0.2, 0.9, 0.95], [0, 1, 1, 0]
    bins = single.reliability(confidence, right, bins=2)
    assert bins.size.tolist() == [2, 2]
    assert bins.right.tolist() == [1, 1]
    gap = np.abs(bins.confidence - bins.right) / bins.size
    assert (gap * bins.size / 4).sum() == pytest.approx(single.calibration_error(confidence, right, bins=2))
    runs = [run for run, _ in predicted]
    (axis,) = reliability.draw(runs, request(predicted)).axes
    assert axis.patches[0].get_height() == pytest.approx(70)  # 7 of 10 are right
    assert "ECE=20.0" in axis.get_title(loc="left").replace("\n", " ")  # |0.9 - 0.8| and |0.9 - 0.6|


def test_the_observatory_counts_the_choices_of_each_test_set(predicted: list[tuple[records.Record, Any]]) -> None:
    (first, made), (second, other) = predicted
    after_first = [[0, 1], [0, 1], [2, -1]]
    after_both = [[0, 1], [0, 2], [0, 2], [3, 0], [3, 2]]
    chosen = dataclasses.replace(made, choices=np.array(after_first + after_both, dtype=np.int32))
    none = dataclasses.replace(other, choices=np.empty((len(other), 0), dtype=np.int32))
    sets, shares = prompt_observatory.shares_of(chosen.after(1))
    assert sets == [0, 1]
    assert shares == pytest.approx(np.array([[100, 100 / 3, 200 / 3, 0], [50, 0, 50, 100]]))
    # A run that chooses nothing has no panel.
    axis, _ = prompt_observatory.draw([first, second], request([(first, chosen), (second, none)])).axes
    assert axis.get_title(loc="left").endswith("seed 0")
    assert [text.get_text() for text in axis.get_yticklabels()] == [test.name for test in first.scenario.tests]
    assert [text.get_text() for text in axis.texts] == ["100", "33", "67", "0", "50", "0", "50", "100"]
    asked = request([(first, chosen)], _predicted.PredictedOptions(experience=1))
    axis, _ = prompt_observatory.draw([first], asked).axes
    assert [text.get_text() for text in axis.texts] == ["67", "67", "33"]
    with pytest.raises(ValueError, match="none of these methods chooses"):
        prompt_observatory.draw([second], request([(second, none)]))
    plain = records.plain(second)
    control = records.parse({**plain, "method": {**plain["method"], "control": True, "name": "yardstick"}})
    axis, _ = prompt_observatory.draw([first, control], request([(first, chosen), (control, other)])).axes
    assert axis.get_title(loc="left").endswith("seed 0")
    with pytest.raises(ValueError, match=r"seed 1, chooses was not kept; .*--set engine.save_choices=true"):
        prompt_observatory.draw([second], request([(second, other)]))


def few(shots: int, seed: int, accuracy: float) -> records.Record:
    scenario = {
        **TEMPLATE["scenario"],
        "family": "few-shot",
        "name": f"few/{shots}",
        "variant_option": "shots",
        "experiences": TEMPLATE["scenario"]["experiences"][:1],
        "tests": [{"name": "test", "further": False}],
    }
    values = continual_metrics([[accuracy]], [10], family=families.get("few-shot"))
    return run("l2p", seed, scenario=scenario, accuracy=[[accuracy]], counts=[10], baseline=None, metrics=values)


def test_curves_over_shots() -> None:
    runs = [few(shots, seed, 0.1 * shots + 0.1 * seed) for shots in (1, 4) for seed in (0, 1)]
    (axis,) = shots.draw(runs).axes
    assert list(axis.lines[0].get_xdata()) == [1, 4]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([15, 45])
    assert axis.get_xlabel() == "number of shots"
    with pytest.raises(ValueError, match="no completed run of a scenario with a number of shots"):
        shots.draw([run("l2p", 0)])


def test_bars_of_domains_are_test_sets_of_a_stream() -> None:
    scenario_of = records.plain(stream("l2p", 0, MATRIX))["scenario"]
    rows: list[list[float | None]] = [[0.9, 0.1, 0.1], [0.9, 0.8, 0.1], [0.9, 0.5, 0.7]]
    runs = []
    for seed in (0, 1):
        made = records.plain(stream("l2p", seed, rows))
        runs.append(records.parse({**made, "scenario": {**scenario_of, "family": "domain-il"}}))
    (axis,) = domains.draw(runs).axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([90, 50, 70])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="no completed run of a scenario of domains"):
        domains.draw([stream("l2p", 0, MATRIX)])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex measures the letters of .pgf")
def test_heat_maps_are_no_pictures_of_dots() -> None:
    figure = matrix.draw([stream("l2p", 0, MATRIX)])
    assert b"includegraphics" not in figures.encode(figure, ".pgf")


def test_predictions_beside_the_records_are_found(
    predicted: list[tuple[records.Record, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record, made in predicted:
        content = predictions.encoded(made)
        file = tmp_path / f"{record.run_id}.parquet"
        file.write_bytes(content)
        about = {"file": file.name, "rows": len(made), "sha256": hashlib.sha256(content).hexdigest()}
        records.write(
            tmp_path / f"{record.run_id}.json", records.parse({**records.plain(record), "predictions": about})
        )
    words = ["plot", "confusion", "--results", str(tmp_path), "--set", "experience=1", "-o", str(tmp_path / "x.svg")]
    assert main(words) == EXIT_OK
    file.unlink()
    assert main(words) == EXIT_USAGE
    assert "do not lie beside its record" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "wide"), [("single", 8.4), ("double", 17.4), ("12", 12.0)])
def test_a_figure_is_as_wide_as_on_paper(asked: str, wide: float, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    assert main(["plot", "accuracy", "--results", str(folder), "--width", asked, "-o", str(file)]) == EXIT_OK
    found = re.search(r'width="([\d.]+)pt"', file.read_text(encoding="utf-8"))
    assert found is not None
    assert float(found[1]) == pytest.approx(72 * wide / 2.54, abs=0.01)


def test_rows_are_chosen_by_pattern(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    assert main(["plot", "accuracy", "--results", str(folder), "--rows", "l2*", "-o", str(file)]) == EXIT_OK
    text = file.read_text(encoding="utf-8")
    assert "l2p" in text
    assert "odd" not in text


@pytest.mark.usefixtures("registry_as_it_was")
def test_a_plot_is_given_its_options_and_width_if_it_asks(folder: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "figures.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom matplotlib.figure import Figure\n"
        "from benchmark import PlotSpec, hookimpl\n@dataclass(frozen=True)\nclass Options:\n    word: str = 'none'\n"
        "def draw(records, request):\n    figure = Figure(figsize=(request.width, 1))\n"
        "    figure.text(0.1, 0.5, request.options.word)\n    return figure\n"
        "@hookimpl\ndef bench_register_plots():\n"
        "    return [PlotSpec(name='mine', draw=draw, summary='', config=Options)]\n",
        encoding="utf-8",
    )
    registry.add_file(plugin)
    found = list(records.read_all(folder)[0])
    figure = figures.draw("mine", found, options={"word": "told"}, width=10)
    assert figure.texts[0].get_text() == "told"
    assert figure.get_figwidth() == pytest.approx(10 / 2.54)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex measures the letters of .pgf")
def test_letters_that_mean_something_to_latex_are_written_as_they_are(folder: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.pgf"
        assert main(["plot", "accuracy", "--results", str(folder), "-o", str(file)]) == EXIT_OK
        found.append(file.read_text(encoding="utf-8"))
    assert found[0] == found[1]
    assert r"\_odd\$x" in found[0]


def test_without_latex_a_pgf_file_is_refused_in_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.backends import backend_pgf

    backend_pgf.LatexManager._get_cached_or_new_impl.cache_clear()  # one may be running since another test
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "x.pgf"
    assert main(["plot", "accuracy", "--results", str(folder), "-o", str(file)]) == EXIT_USAGE
    assert "install pdflatex" in capsys.readouterr().err
    assert not file.exists()


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
