"""Checks that every exporter must pass: no text of a record may become markup, a formula or a command of a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser

from benchmark.tables import Cell, Column, Row, Scalar, Table, starts_formula
from benchmark.testing.observation import CheckFailed, CheckSkipped
from benchmark.testing.subjects import ExporterSubject

STRANGE = "_ & % # $ { } ~ ^ \\ < > \" ' | é – ∞ =1+1\n second line"


def nothing(subject: ExporterSubject) -> None:
    """No table, and a table without rows, give text."""
    column = Column("method", "Method", "left")
    for tables in ([], [Table("t", "c", (column,), ())]):
        if not isinstance(found := subject.spec.export(tables), str):
            raise CheckFailed(f"`export` returned a {type(found).__name__}", hint="return text")


def strange(subject: ExporterSubject) -> None:
    """Characters that mean something to the format, empty cells and missing numbers do no harm."""
    found = subject.spec.export([_strange_table()])
    if not isinstance(found, str) or not found.strip():
        raise CheckFailed("nothing was written")


UNSEEN = "\x00\x1b[31m\x07\x85\u200b\u202e\u2066\ufeff"
ACTIVE = {
    "markup": ("<script>",),
    "Markdown": ("<script>", "[x](javascript:", "a | b"),
    "LaTeX": ("\\input{", "$\\write"),
}
"""What must not reach a file of that format as it stands."""
SIGNS = "`*_|<>&\\#$%{}[]~^"
SUFFIXES = {
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xml", ".svg"), "markup"),
    **dict.fromkeys((".md", ".markdown"), "Markdown"),
    **dict.fromkeys((".tex", ".ltx"), "LaTeX"),
    **dict.fromkeys((".csv", ".tsv"), "fields"),
    **dict.fromkeys((".json", ".jsonl"), "JSON"),
}


def escapes(subject: ExporterSubject) -> None:
    """No text becomes markup, a formula or a command; what nobody sees is left out or shown as a code."""
    form = _form(subject)
    active = ACTIVE.get(form, ())
    texts = [
        f"{before}{text} x" for text in (*active, "=1+1", "＝1+1", "@SUM(1)") for before in ("", " ", "\xa0\ufeff")
    ]
    found = subject.spec.export([_filled(f"{text}{UNSEEN}") for text in texts])
    if raw := sorted({char for char in UNSEEN if not char.isprintable() and char in found}):
        shown = ", ".join(f"U+{ord(char):04X}" for char in raw)
        raise CheckFailed(
            f"characters that nobody sees, or that steer a terminal, are written as they are: {shown}",
            hint="take texts through `benchmark.tables.one_line` first",
        )
    if raw := [text for text in active if text in found]:
        raise CheckFailed(f"texts become {form}: {', '.join(raw)}", hint="escape what means something to the format")
    if form == "fields":
        for line in _fields(subject, found):
            if bad := [field for field in line if starts_formula(field)]:
                raise CheckFailed(
                    f"a spreadsheet takes {bad[0]!r} for a formula",
                    hint="see `benchmark.tables.starts_formula`; an apostrophe in front helps",
                )


def structure(subject: ExporterSubject) -> None:
    """A text with signs that mean something to the format changes nothing of what is around it."""
    form = _form(subject)

    def export(text: str) -> str:
        return subject.spec.export([_filled(text)])

    plain = export("word")
    if form == "other":
        if subject.spec.suffix == ".txt":
            raise CheckSkipped("it writes plain text: every sign stands for itself")
        if f"word {SIGNS} word" in export(f"word {SIGNS} word"):
            raise CheckFailed(
                f"nothing is escaped: {SIGNS} stands in the file as it is",
                hint="put an escape before what means something to the format; plain text has the suffix `.txt`",
            )
    elif form == "markup":
        for text in ("word <b>word</b>", 'word" word="', "word' word='", "word &lt; word", "word <!-- word"):
            if _tags(export(text)) != _tags(plain) or (text.startswith("word &") and "&amp;lt;" not in export(text)):
                raise CheckFailed(f"the text {text!r} becomes markup", hint="xml.sax.saxutils and html have `escape`")
    elif form == "JSON":
        for line in [export('word" word\\ word')] if subject.spec.suffix == ".json" else export('w" \\').splitlines():
            json.loads(line)
    elif form == "fields":
        for text in ("word, word", 'word" word', "word\tword", "word; word"):
            if [len(line) for line in _fields(subject, export(text))] != [
                len(line) for line in _fields(subject, plain)
            ]:
                raise CheckFailed(f"the text {text!r} makes other fields", hint="write with Python's `csv`")
    elif form == "Markdown":
        for sign in "|*`_":
            text = f"word {sign}word{sign} word"
            if _bare(export(text), sign) > _bare(plain, sign):
                raise CheckFailed(f"`{sign}` of a text is Markdown's own", hint=f"write `\\{sign}`")
    else:
        for sign in "&%#_^":
            if _bare(export(f"word {sign} word"), sign) > _bare(plain, sign):
                raise CheckFailed(
                    f"`{sign}` of a text is LaTeX's own", hint="escape it, e.g. `\\&`, `\\textbackslash{}`"
                )
        for sign, closing in ("{}", "}{", "$$"):
            found = export(f"word {sign} word")
            if _bare(found, sign) % 2 if sign == closing else _bare(found, sign) != _bare(found, closing):
                raise CheckFailed(f"`{sign}` of a text is LaTeX's own", hint=f"write `\\{sign}`")


def _form(subject: ExporterSubject) -> str:
    """The format that a file has, by its suffix, or by the look of it where that says nothing."""
    if subject.spec.suffix in SUFFIXES:
        return SUFFIXES[subject.spec.suffix]
    found = subject.spec.export([_filled("word")])
    if found.lstrip().startswith("<"):
        return "markup"
    if "\\begin{" in found or "\\\\" in found:
        return "LaTeX"
    return "Markdown" if re.search(r"^\s*\|?[ :]*-{3,}[-: |]*\|", found, re.MULTILINE) else "other"


def _bare(text: str, sign: str) -> int:
    """How often a sign stands there without a backslash before it, or as a command's own."""
    text = re.sub(r"\\[A-Za-z]+\{[^{}]*\}", "", text) if sign in "_^" else text
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(sign)}", text))


def _fields(subject: ExporterSubject, text: str) -> list[list[str]]:
    between = "\t" if subject.spec.suffix == ".tsv" else ","
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=between))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(tag)

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")


def _tags(text: str) -> list[object]:
    """Tags of a page with the names of their attributes."""
    parser = _Tags()
    parser.feed(text)
    return parser.found


def _filled(text: str) -> Table:
    """A table with a text wherever there is one."""
    columns = (Column("method", text, "left"), Column("acc", text))
    rows = (Row((Cell(text, text), Cell("1.00", 0.01))),)
    runs: tuple[Mapping[str, Scalar], ...] = ({"method": text, "final": 0.01},)
    return Table(text, text, columns, rows, footnotes=(("a", text), ("", text)), runs=runs, short=text)


def pure(subject: ExporterSubject) -> None:
    """The same tables give the same text."""
    if subject.spec.export([_strange_table()]) != subject.spec.export([_strange_table()]):
        raise CheckFailed("two exports of one table differ", hint="write no date and no random names")


def _strange_table() -> Table:
    columns = (Column("method", "Method", "left"), Column("acc", f"Accuracy [%] {STRANGE}"))
    rows = (
        Row((Cell(STRANGE, STRANGE), Cell("12.34", 0.1234, bold=True, marks=("a",)))),
        Row((Cell(""), Cell("–", None)), group="controls"),
    )
    runs: tuple[Mapping[str, Scalar], ...] = ({"method": STRANGE, "final": 0.1234}, {"method": "", "final": None})
    return Table("a table", STRANGE, columns, rows, footnotes=(("a", STRANGE), ("", STRANGE)), runs=runs)


EXPORTER_CHECKS: dict[str, Callable[[ExporterSubject], None]] = {
    "nothing": nothing,
    "strange": strange,
    "escapes": escapes,
    "structure": structure,
    "pure": pure,
}
