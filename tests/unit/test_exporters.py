from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_exporters import to_csv, to_html, to_json, to_latex, to_markdown
from benchmark import registry
from benchmark.specs import ExporterSpec
from benchmark.tables import Cell, Column, Row, Table, one_line, render_text, starts_formula
from benchmark.testing import CheckFailed
from benchmark.testing.exporter_checks import UNSEEN, ExporterSubject, escapes

GOLDEN = Path(__file__).parents[1] / "golden" / "exporters"
MODULES = {"csv": to_csv, "html": to_html, "json": to_json, "latex": to_latex, "markdown": to_markdown}
NASTY = 'a_b & 50 % #1 é ~x^2 {y} $z \\n |w| <i>`q`</i> *s* [l](m) --opt "quoted" 中 ß'


def table(*rows: Row, title: str = "Table one", runs: tuple[dict[str, object], ...] = ()) -> Table:
    columns = (Column("method", "Method", "left"), Column("acc", "Final avg. acc. (%)"), Column("seeds", "Seeds"))
    notes = (("a", "uses memory: keeps images"), ("", "Data: layout: native."))
    return Table(title, "Mean ± sd, 95 % interval.", columns, rows, notes, runs)  # type: ignore[arg-type]


def example() -> list[Table]:
    rows = (
        Row((Cell("joint", "joint"), Cell("91.00 ± 1.00", 0.91), Cell("3", 3)), "upper bound"),
        Row(
            (Cell("l2p@paper_v1", "l2p@paper_v1", marks=("a",)), Cell("81.00 ± 1.00", 0.81, bold=True), Cell("3", 3)),
            "m",
        ),
        Row((Cell(NASTY, NASTY), Cell("–"), Cell("missing", 0)), "m"),
    )
    runs = (
        {"method": "l2p", "seed": 0, "control": False, "final_avg_acc": 0.1 + 0.2, "bwt": -0.25, "fwt": None},
        {"method": '=HYPERLINK("x")', "seed": 1, "control": True, "final_avg_acc": 1 / 3, "extra": '-1, or "so"\nmore'},
    )
    return [
        table(*rows, runs=runs),
        table(title="Empty"),
        table(Row((Cell("one"), Cell("1.00"), Cell("1"))), title=NASTY),
    ]


@pytest.mark.parametrize("name", MODULES)
def test_golden(name: str, update_golden: bool) -> None:
    (spec,) = MODULES[name].bench_register_exporters()
    text = spec.export(example())
    path = GOLDEN / f"example{spec.suffix}"
    if update_golden:
        path.write_text(text, newline="")
    assert text == path.read_bytes().decode()
    assert text.endswith("\n")


@pytest.mark.parametrize("name", MODULES)
def test_registered(name: str) -> None:
    spec = registry.load_exporter(name)
    assert isinstance(spec, ExporterSpec)
    assert spec.name == name
    assert spec.summary
    assert spec.export([]) == MODULES[name].export([])


# --- Any content survives ---------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "_",
        "&",
        "%",
        "#",
        "é",
        "$",
        "{",
        "}",
        "~",
        "^",
        "\\",
        "|",
        "=1+1",
        "-x",
        "",
        "\n",
        "--",
        "[",
        "*",
        "–",
        "±",
        NASTY,
    ]
)
SCALARS = TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()


@st.composite
def any_tables(draw: st.DrawFn) -> list[Table]:
    tables = []
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 3))
        columns = tuple(Column(f"c{i}", draw(TEXTS), draw(st.sampled_from(["left", "right"]))) for i in range(width))
        cell = st.builds(Cell, TEXTS, SCALARS, st.booleans(), st.just(()) | st.just(("a", "b")))
        row = st.builds(Row, st.tuples(*[cell] * width), st.sampled_from(["", "x"]))
        runs = st.lists(st.dictionaries(TEXTS, SCALARS, max_size=3), max_size=3)
        notes = draw(st.lists(st.tuples(st.sampled_from(["", "a"]), TEXTS), max_size=2))
        rows = draw(st.lists(row, max_size=3))  # empty and one-row tables included
        tables.append(Table(draw(TEXTS), draw(TEXTS), columns, tuple(rows), tuple(notes), tuple(draw(runs))))
    return tables


@settings(max_examples=60, deadline=None)
@given(any_tables())
def test_every_exporter_survives(tables: list[Table]) -> None:
    for module in MODULES.values():
        assert module.export(tables) == module.export(tables)
    render_text(tables)


@settings(max_examples=60, deadline=None)
@given(any_tables())
def test_json_is_complete(tables: list[Table]) -> None:
    document = json.loads(to_json.export(tables))
    assert [item["title"] for item in document["tables"]] == [table.title for table in tables]
    for item, original in zip(document["tables"], tables, strict=True):
        assert [[cell["value"] for cell in row["cells"]] for row in item["rows"]] == [
            [cell.value for cell in row.cells] for row in original.rows
        ]
        assert item["runs"] == [dict(run) for run in original.runs]


@settings(max_examples=60, deadline=None)
@given(any_tables())
def test_csv_can_be_read_and_starts_no_formula(tables: list[Table]) -> None:
    text = to_csv.export(tables)
    runs = [run for item in tables for run in item.runs]
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = list(csv.reader(io.StringIO(text, newline="")))
    if not names:
        assert text == ""
        return
    assert len(lines) == 1 + len(runs)
    for run, line in zip(runs, lines[1:], strict=True):
        assert len(line) == max(len(names), 0) or (len(names) == 1 and not line)
        for name, field in zip(names, line, strict=False):
            value = run.get(name)
            if isinstance(value, bool) or value is None:
                assert field == {True: "true", False: "false", None: ""}[value]
            elif isinstance(value, (int, float)):
                assert type(value)(field) == value  # numbers stay numbers, at full precision
            else:
                assert not starts_formula(field)
                assert field.removeprefix("'") == one_line(value).removeprefix("'")


def test_csv_keeps_negative_numbers() -> None:
    lines = to_csv.export(example()).splitlines()
    assert lines[1] == "l2p,0,false,0.30000000000000004,-0.25,,"
    assert lines[2].startswith('"\'=HYPERLINK(""x"")",1,true,0.3333333333333333,,,"\'-1, or ')


class _Collector(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "section",
            "h2",
            "div",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "p",
            "sup",
            "strong",
            "br",
        }
        self.cells += tag == "td"
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@settings(max_examples=60, deadline=None)
@given(any_tables())
def test_html_is_balanced_and_escaped(tables: list[Table]) -> None:
    page = _Collector()
    page.feed(to_html.export(tables))
    page.close()
    assert page.open == []
    assert page.cells == sum(len(row.cells) for item in tables for row in item.rows)


def test_html_shows_what_was_given() -> None:
    page = _Collector()
    page.feed(to_html.export(example()))
    assert NASTY in page.text
    assert "http" not in to_html.export(example())


@settings(max_examples=60, deadline=None)
@given(any_tables())
def test_markdown_has_as_many_cells_as_columns(tables: list[Table]) -> None:
    lines = [line for line in to_markdown.export(tables).split("\n") if line.startswith("| ")]
    expected = [len(item.columns) for item in tables for _ in range(2 + len(item.rows))]
    assert [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines] == expected


@given(TEXTS)
def test_latex_is_ascii_without_open_groups(text: str) -> None:
    escaped = to_latex.escape(text)
    assert escaped.isascii()
    bare = escaped.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"(?<!\\)[%&#_]", escaped)


def test_latex_escapes() -> None:
    assert to_latex.escape("l2p_x & 50 % #1 é") == r"l2p\_x \& 50 \% \#1 \'{e}"
    assert to_latex.escape("--set a\\b") == r"-{}-set a\textbackslash{}b"
    assert to_latex.escape("81.0 ± 1 – 中") == r"81.0 $\pm$ 1 -- [U+4E2D]"
    assert to_latex.escape(unicodedata.normalize("NFD", "é")) == r"\'{e}"
    assert to_latex.export(example()).count(r"\midrule") == 3 + 1  # one below each heading, one between groups


def latex_log(tables: list[Table] | str, options: str = "") -> str:
    """What pdflatex says while it compiles an article; must end with a page."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base, texlive-latex-recommended)")
    document = "\n".join(
        [
            rf"\documentclass[{options}]{{article}}",
            r"\usepackage{booktabs,graphicx}",
            r"\begin{document}",
            "x",
            tables if isinstance(tables, str) else to_latex.export(tables),
            r"\end{document}",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "t.tex").write_text(document)
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False
        )
        if re.search(r"(booktabs|graphicx)\.sty' not found", done.stdout):
            pytest.skip("LaTeX has no booktabs or graphicx (Debian: texlive-latex-recommended)")
        assert done.returncode == 0, done.stdout[-2000:]
        assert Path(folder, "t.pdf").exists()
        return done.stdout


def test_latex_compiles() -> None:
    latex_log(example())


def test_wide_tables_go_over_both_columns_of_a_page() -> None:
    columns = tuple(Column(f"c{i}", f"Heading {i} (%)") for i in range(9))
    broad = Table("Wide", "Caption.", columns, (Row(tuple(Cell("81.00 ± 1.00", 0.81) for _ in columns)),))
    assert r"\begin{table*}" in to_latex.export([broad])
    assert r"\begin{table}" in to_latex.export(example())
    assert "Overfull" not in latex_log([broad, *example()[:2]], "twocolumn")


@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_the_committed_leaderboards_compile(options: str) -> None:
    for track in ("nano", "mini"):
        text = (Path(__file__).parents[2] / "results" / "leaderboards" / f"{track}.tex").read_text(encoding="ascii")
        assert max(line.count(" & ") for line in text.splitlines()) <= 12, "wide tables are split"
        assert "Overfull" not in latex_log(text, options)


def test_latex_fits_the_page() -> None:
    """Ten columns with the headings of a leaderboard: longer than the text of an article is wide."""
    columns = tuple(Column(f"c{i}", f"A long heading, number {i} (%)") for i in range(10))
    row = Row(tuple(Cell("81.00 ± 1.00", 0.81) for _ in columns))
    assert "Overfull" not in latex_log([Table("Wide", "Caption.", columns, (row,))])


def test_latex_wraps_long_labels() -> None:
    label = "linear-probe (" + ", ".join(f"option_{i}=value-{i}" for i in range(8)) + ")"
    item = table(Row((Cell(label, bold=True, marks=("a",)), Cell("1.00"), Cell("1"))))
    (line,) = [line for line in to_latex.export([item]).splitlines() if "linear-probe" in line]
    assert line.startswith(r"\begin{tabular}[t]{@{}l@{}}\textbf{linear-probe (option\_0=value-0,} \\ \textbf{")
    assert r"\end{tabular}\textsuperscript{a} & 1.00 & 1 \\" in line
    latex_log([item])


@settings(max_examples=5, deadline=None)
@given(any_tables())
def test_latex_compiles_whatever_it_is_given(tables: list[Table]) -> None:
    latex_log(tables)


# --- What nobody sees, and what becomes active ------------------------------------------------

FORMULAS = (
    "=1+1",
    " =1+1",
    "\xa0=1+1",
    "\ufeff=1+1",
    "\u200b+1",
    "\r\n-1",
    "\t@A1",
    "＝1+1",
    "＋1",
    "－1",
    "＠A1",
    "−1",
)


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_no_text_starts_a_formula(text: str) -> None:
    item = table(runs=({"method": text, text: 1},))
    for line in csv.reader(io.StringIO(to_csv.export([item]), newline="")):
        for field in line:
            assert field == "1" or field == "method" or field.startswith("'"), field


def test_no_format_writes_what_nobody_sees() -> None:
    item = table(Row((Cell(f"a{UNSEEN}b"), Cell("1"), Cell("1"))), title=UNSEEN, runs=({f"k{UNSEEN}": f"a{UNSEEN}b"},))
    texts = {name: module.export([item]) for name, module in MODULES.items()} | {"terminal": render_text([item])}
    for name, text in texts.items():
        assert not {char for char in text if not char.isprintable()} - {"\n"}, name


@pytest.mark.parametrize(
    "text",
    ["https://a.example/x", "see http://a.example", "www.a.example", "ftp://a.example", "me@a.example", "me.x@a_b.c.d"],
)
def test_markdown_makes_no_links(text: str) -> None:
    """GitHub links bare addresses, also escaped ones; a comment inside ends the address."""
    escaped = to_markdown.escape(text)
    assert "<!-- -->" in escaped
    assert not re.search(r"(https?|ftp)://|www\.|\w@\w", escaped)
    assert to_markdown.escape("l2p@pilot") == "l2p@pilot"


@pytest.mark.parametrize("suffix", [".html", ".svg", ".md", ".tex", ".csv", ".tsv", ".txt"])
def test_an_exporter_that_escapes_nothing_fails_the_contract(suffix: str) -> None:
    def careless(tables: list[Table]) -> str:
        return "\n".join(cell.text for item in tables for row in item.rows for cell in row.cells)

    def half(tables: list[Table]) -> str:
        return "\n".join(one_line(cell.text) for item in tables for row in item.rows for cell in row.cells)

    with pytest.raises(CheckFailed, match="nobody sees"):
        escapes(ExporterSubject(ExporterSpec(name="mine", export=careless, summary="", suffix=suffix)))
    subject = ExporterSubject(ExporterSpec(name="mine", export=half, summary="", suffix=suffix))
    if suffix == ".txt":
        escapes(subject)
        return
    with pytest.raises(CheckFailed, match=r"become|formula"):
        escapes(subject)
