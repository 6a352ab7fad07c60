r"""LaTeX with booktabs: one ``table`` environment per table, to be ``\input`` into a paper.

Needs only ``\usepackage{booktabs,graphicx}``. A table of more than `COLUMN` columns goes over both columns of a page
that has two (``table*``); one that is wider than its place is scaled down to it (``bench leaderboard --split`` and
``--transpose`` make less of it). The output is ASCII: special characters are escaped, accents become commands (é is
``\'{e}``), and what plain LaTeX cannot print is shown as its code point, so that the file always compiles with
pdflatex, xelatex and lualatex.
"""

from __future__ import annotations

import textwrap
import unicodedata

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Cell, Column, Table, one_line

HEADING = 13  # characters on a line of a column's heading, about as wide as `[95.02, 97.51]`
COLUMN = 5  # columns of a table that still fits one of the two columns of a page
LABEL = 40  # characters on a line of a cell: options may make the label of a row long

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "µ": r"$\mu$",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def export(tables: list[Table]) -> str:
    """Returns the environments, separated by blank lines."""
    head = "% Made by `bench leaderboard --format latex`; needs \\usepackage{booktabs,graphicx}.\n"
    return head + "\n".join(_table(table) for table in tables)


def escape(text: str) -> str:
    """Escapes a text for paragraphs, captions and cells."""
    parts: list[str] = []
    previous = ""
    for char in unicodedata.normalize("NFC", one_line(text)):
        # "--" would become a dash, "''" and "``" a quotation mark, "?`" and "!`" others that stand on their heads.
        joined = (char == previous and char in "-'`") or (char == "`" and previous in ("?", "!"))
        parts.append(("{}" if joined else "") + _char(char))
        previous = char
    return "".join(parts)


def _char(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char.isascii():
        return char
    base, *marks = list(unicodedata.normalize("NFD", char))
    if len(marks) == 1 and base.isascii() and base.isalpha() and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"[U+{ord(char):04X}]"


def _table(table: Table) -> str:
    sides = "".join("l" if column.align == "left" else "r" for column in table.columns)
    float_ = "table*" if len(table.columns) > COLUMN else "table"
    lines = [
        rf"\begin{{{float_}}}",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
        _line([_heading(column) for column in table.columns]),
        r"\midrule",
    ]
    previous = table.rows[0].group if table.rows else ""
    for row in table.rows:
        if row.group != previous:
            lines.append(r"\midrule")
        previous = row.group
        lines.append(_line([_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]))
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if table.footnotes:
        notes = [
            rf"\textsuperscript{{{escape(mark)}}}~{escape(text)}" if mark else escape(text)
            for mark, text in table.footnotes
        ]
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}", r"\raggedright", " \\par\n".join(notes)]
        lines += [r"\end{minipage}"]
    return "\n".join([*lines, rf"\end{{{float_}}}", ""])


def _heading(column: Column) -> str:
    """On as many lines as it takes to be no wider than a number."""
    return _wrapped(column.title, HEADING, "l" if column.align == "left" else "r", place="b")


def _wrapped(text: str, width: int, side: str, place: str, before: str = "") -> str:
    """A text on as many lines as it takes, each escaped, with a command in front of it."""
    parts = textwrap.wrap(one_line(text), width, break_long_words=False, break_on_hyphens=False)
    if len(parts) < 2:
        return f"{before}{{{escape(text)}}}" if before else escape(text)
    lines = r" \\ ".join(f"{before}{{{escape(part)}}}" for part in parts)
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{lines}\end{{tabular}}"


def _line(cells: list[str]) -> str:
    # The braces keep a cell that begins with a bracket from becoming an argument of the \\ before it.
    return " & ".join(f"{{{cell}}}" if cell.startswith(("[", "*")) else cell for cell in cells) + r" \\"


def _cell(cell: Cell, column: Column) -> str:
    side = "l" if column.align == "left" else "r"
    text = _wrapped(cell.text, LABEL, side, place="t", before=r"\textbf" if cell.bold else "")
    return text + (rf"\textsuperscript{{{escape(','.join(cell.marks))}}}" if cell.marks else "")


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    """Registers the format."""
    return [ExporterSpec(name="latex", export=export, summary="booktabs, for papers", suffix=".tex")]
