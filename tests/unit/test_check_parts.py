"""The contracts of exporters, metrics, plots and trackers find what they are made to find."""

from __future__ import annotations

import html
import importlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import entry_points, registry
from benchmark.cli import main
from benchmark.errors import EXIT_FAILED, EXIT_OK
from benchmark.specs import ExporterSpec, MetricSpec
from benchmark.tables import Table, one_line
from benchmark.testing import checks
from benchmark.testing.example_runs import FAMILIES, ODD, example_runs

pytestmark = pytest.mark.usefixtures("one_thread")


def failures(subject: Any, only: str = "") -> dict[str, str]:
    found = checks.run_checks(subject, frozenset({only} if only else ()))
    return {result.check: result.message for result in found if result.result == "fail"}


def lines(write: Callable[[list[str]], str], before: str = "", after: str = "") -> Callable[[list[Table]], str]:
    """An exporter of rows: what a stranger writes first."""

    def export(tables: list[Table]) -> str:
        rows = [write([cell.text for cell in row.cells]) for table in tables for row in table.rows]
        return "\n".join([before, *rows, after])

    return export


def cleaned(row: Callable[[list[str]], str]) -> Callable[[list[str]], str]:
    return lambda cells: row([one_line(cell) for cell in cells])


RAW: dict[str, Callable[[list[str]], str]] = {
    ".html": lambda cells: "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>",
    ".tex": lambda cells: " & ".join(cells) + r" \\",
    ".md": lambda cells: "| " + " | ".join(cells) + " |",
    ".csv": lambda cells: ",".join(cells),
    ".json": lambda cells: '["' + '", "'.join(cells) + '"]',
    ".rst": lambda cells: "   * - " + "\n     - ".join(cells),
    ".typ": lambda cells: ", ".join(f"[{cell}]" for cell in cells),
}


@pytest.mark.parametrize("suffix", RAW)
@pytest.mark.parametrize("one_lined", [False, True])
def test_an_exporter_that_escapes_nothing_fails(suffix: str, one_lined: bool) -> None:
    write = cleaned(RAW[suffix]) if one_lined else RAW[suffix]
    spec = ExporterSpec(name="raw", export=lines(write), summary="as it is", suffix=suffix)
    assert {"escapes", "structure"} & failures(checks.exporter_subject(spec)).keys()


@pytest.mark.parametrize(
    ("before", "row"),
    [
        ("<table>", RAW[".html"]),
        (r"\begin{tabular}{lr}", RAW[".tex"]),
        ("| method | acc |\n|---|---|", RAW[".md"]),
    ],
)
def test_markup_is_known_by_its_look_where_the_suffix_says_nothing(before: str, row: Callable[..., str]) -> None:
    spec = ExporterSpec(name="raw", export=lines(cleaned(row), before), summary="as it is", suffix=".out")
    assert {"escapes", "structure"} & failures(checks.exporter_subject(spec)).keys()


def latex(special: str) -> Callable[[str], str]:
    return lambda text: re.sub(f"[{re.escape(special)}]", lambda found: "\\" + found.group(), text)


@pytest.mark.parametrize(
    ("suffix", "escape", "message"),
    [
        (".html", lambda text: text.replace("<", "&lt;").replace(">", "&gt;"), "&lt; word' becomes markup"),
        (".html", lambda text: text.replace("<script>", "&lt;script>"), "'word <b>word</b>' becomes markup"),
        (".tex", latex("&%#_{}$"), r"texts become LaTeX: \$\\write"),
        (".md", lambda text: text.replace("|", r"\|").replace("<", r"\<").replace("[", r"\["), "`\\*` of a text"),
    ],
)
def test_half_an_escape_fails(suffix: str, escape: Callable[[str], str], message: str) -> None:
    row = RAW[suffix]
    write = cleaned(lambda cells: row([escape(cell) for cell in cells]))
    found = failures(checks.exporter_subject(ExporterSpec(name="x", export=lines(write), summary="x", suffix=suffix)))
    assert re.search(message, " ".join(found.values())), found


def test_a_page_with_escapes_and_plain_text_pass() -> None:
    row = cleaned(lambda cells: RAW[".html"]([html.escape(cell) for cell in cells]))
    page = ExporterSpec(name="x", export=lines(row, "<table>", "</table>"), summary="x", suffix=".html")
    plain = ExporterSpec(name="x", export=lines(cleaned("  ".join)), summary="x")
    for spec in (page, plain):
        assert failures(checks.exporter_subject(spec)) == {}


def metric(compute: Callable[..., Any], **about: Any) -> MetricSpec:
    facts: dict[str, Any] = {"heading": "Mine (%)", "needs": ("accuracy",), **about}
    return MetricSpec(name="mine", compute=compute, summary="mine", **facts)


def test_a_metric_passes() -> None:
    assert failures(checks.metric_subject(metric(lambda accuracy: float(np.nanmean(accuracy[-1]))))) == {}


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (metric(lambda accuracy: None), "number", "None for every run"),
        (metric(lambda accuracy: accuracy), "number", "`compute`"),
        (metric(lambda accuracy: accuracy[1, 1]), "number", "IndexError"),
        (metric(lambda accuracy: 80.0), "unit", "80 is no fraction"),
        (metric(lambda accuracy: 0.5, heading="Mine"), "unit", "does not say"),
        (metric(lambda accuracy: random.random()), "pure", "and then"),
        (
            metric(lambda accuracy: float(np.add(accuracy, 0.1, out=accuracy)[0, 0]) and 0.5),
            "pure",
            "changes `accuracy`",
        ),
    ],
)
def test_metric_checks_find(spec: MetricSpec, check: str, message: str) -> None:
    assert message in failures(checks.metric_subject(spec), check)[check]


PLOT = """
from benchmark import PlotSpec, hookimpl
from matplotlib.figure import Figure
drawn = []

def draw(records):
    if not records:
        {nothing}
    figure = Figure()
    {body}
    return figure

@hookimpl
def bench_register_plots():
    return [PlotSpec(name="mine", draw=draw, summary="mine")]
"""
GOOD = "figure.subplots().plot([record.metrics.get('final_acc') or 0 for record in records])"


@pytest.mark.usefixtures("registry_as_it_was")
@pytest.mark.parametrize(
    ("nothing", "body", "check", "message"),
    [
        ("raise ValueError('there is no run')", GOOD, "", ""),
        ("raise ValueError", GOOD, "refuses", "without a reason"),
        ("return None", GOOD, "refuses", "returned"),
        ("raise ValueError('none')", "pass", "draws", "the figure is empty"),
        ("raise ValueError('none')", f"drawn.append(1); figure.suptitle(len(drawn)); {GOOD}", "repeats", "differ"),
        (
            "raise ValueError('none')",
            f"from matplotlib import pyplot; pyplot.figure(); {GOOD}",
            "surroundings",
            "state",
        ),
        (
            "raise ValueError('none')",
            f"figure.suptitle(records[0].method.name); {GOOD}",
            "names",
            "Error",
        ),
    ],
)
def test_plot_checks_find(nothing: str, body: str, check: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine_plot.py"
    path.write_text(PLOT.format(nothing=nothing, body=body), encoding="utf-8")
    registry.add_file(path)
    found = failures(checks.plot_subject("mine"))
    assert list(found) == [check] if check else found == {}
    assert message in found.get(check, "")


def test_example_runs_differ_in_what_is_drawn() -> None:
    runs = example_runs(FAMILIES[0])
    assert len({run.record.run_id for run in runs}) == 4
    assert {run.record.method.name for run in runs} == {"toy-linear", "toy-other"}
    assert all(len(run.predictions) for run in runs)
    assert "$" in ODD


TRACKER = """
import os
from pathlib import Path
from benchmark import hookimpl

seen = []

@hookimpl
def {hook}(event):
    {body}
"""


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a life-cycle plugin `mine` for one test."""

    def install(body: str, hook: str = "bench_experience_ended") -> None:
        info = tmp_path / "bench_mine-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-mine\nVersion: 0.1\n", encoding="utf-8")
        (info / "entry_points.txt").write_text("[bench]\nmine = bench_mine_tracker\n", encoding="utf-8")
        (tmp_path / "bench_mine_tracker.py").write_text(TRACKER.format(hook=hook, body=body), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("MINE", "0")
        importlib.invalidate_caches()
        entry_points.read.cache_clear()

    yield install
    monkeypatch.undo()
    entry_points.read.cache_clear()
    sys.modules.pop("bench_mine_tracker", None)


@pytest.mark.parametrize(
    ("body", "hook", "check", "message"),
    [
        ("Path('log.txt').write_text(str(event.accuracies))", "bench_experience_ended", "", ""),
        ("seen.append(1); os.environ['MINE'] = str(len(seen))", "bench_run_started", "surroundings", "the environment"),
        ("[p.data.add_(1e-3) for p in event.method.parameters()]", "bench_experience_ended", "run", "with it, "),
        ("seen.append(event.run_id); assert len(seen) < 5", "bench_run_started", "resume", "AssertionError"),
        ("seen[0]", "bench_run_failed", "failed", "IndexError"),
    ],
)
def test_tracker_checks_find(
    body: str, hook: str, check: str, message: str, tracker: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    tracker(body, hook)
    assert main(["check", "mine", "--json"]) == (EXIT_FAILED if check else EXIT_OK)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["kind"] == "life-cycle plugin"
    failed = {row["check"]: row["message"] for row in found["checks"] if row["result"] == "fail"}
    assert bool(failed) is bool(check)
    assert message in failed.get(check, "")


FORGETS = """
from benchmark import TrackerSpec, hookimpl
from benchmark.tracking import Tracker

class Forgets(Tracker):
    def begin(self, event): return set()
    def write(self, point): pass
    def finish(self, event): {finish}
    def fail(self, event): pass

@hookimpl
def bench_register_trackers():
    return [TrackerSpec(name="mine", open=lambda options: Forgets(), summary="x")]
"""


@pytest.mark.usefixtures("registry_as_it_was")
@pytest.mark.parametrize(("finish", "check", "message"), [("pass", "points", "it knows []"), ("1 / 0", "run", "Zero")])
def test_checks_of_a_tracker_find(finish: str, check: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine_tracker.py"
    path.write_text(FORGETS.format(finish=finish), encoding="utf-8")
    registry.add_file(path)
    assert message in failures(checks.tracker_subject("mine"), check)[check]


BROKEN = """
from benchmark import MethodSpec, hookimpl
from benchmark.testing.toys import ToyMethod, ToyMethodConfig

class Broken(ToyMethod):
    def begin_experience(self, experience):
        raise RuntimeError(f"another text each time: {id(experience)}")

@hookimpl
def bench_register_methods():
    recipes = {"other": {"epochs": 2}}
    return [MethodSpec(name="broken", build=Broken, config=ToyMethodConfig, summary="x", recipes=recipes)]
"""


@pytest.mark.usefixtures("registry_as_it_was")
def test_one_cause_is_one_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken_method.py"
    path.write_text(BROKEN, encoding="utf-8")
    assert main(["-p", str(path), "check", "broken"]) == EXIT_FAILED
    shown = capsys.readouterr().out
    assert shown.count("another text each time") == 1, shown
    assert shown.count("not answered: it ends as `options` does") == 1
    assert re.search(r" 1 failed, \d\d skipped", shown)
