"""BibTeX of the methods in a table, from what is known without a network; nothing is made up.

An entry is what the method's plugin brings (`benchmark.specs.MethodSpec.bibtex`); or made of ``published/papers.csv``,
with authors by surname; or, where only the id of the paper is known, ``@misc`` with that id alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from benchmark.leaderboard import published
from benchmark.records.schema import Record

_SMALL = frozenset({"a", "an", "the", "on", "in", "do", "of", "for"})


def papers_of(records: Iterable[Record]) -> dict[str, str]:
    """The paper of every method of some records, by its name; empty where it has none."""
    return {run.method.name: run.method.paper for run in sorted(records, key=lambda run: run.provenance.date)}


def bibtex(papers: Mapping[str, str], brought: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Renders entries, one per paper, each behind a comment with the methods that it is cited for.

    Args:
        papers: Ids (``arXiv:2112.08654`` or a DOI) by the names of methods, see `papers_of`.
        brought: Whole entries that plugins bring, by the names of methods; they win.

    Returns:
        The text of a ``.bib`` file in ASCII, and the methods that name no paper.
    """
    brought = brought or {}
    cited: dict[str, list[str]] = {}
    without = []
    for method, paper in sorted(papers.items()):
        if brought.get(method):
            cited.setdefault(brought[method].strip(), []).append(method)
        elif paper:
            cited.setdefault(paper, []).append(method)
        else:
            without.append(method)
    taken: set[str] = set()
    parts = []
    for source, methods in sorted(cited.items()):
        entry = source if source.startswith("@") else _entry(source, taken)
        parts.append(f"% {', '.join(methods)}\n{entry}\n")
    return "\n".join(parts), without


def _entry(paper: str, taken: set[str]) -> str:
    about = published.paper(paper)
    arxiv = paper.lower().startswith("arxiv:")
    number = paper.partition(":")[2] if arxiv else paper.removeprefix("doi:")
    fields = {
        "author": _text(about.get("author", "")),
        "title": f"{{{_text(about['title'])}}}" if about else "",
        "year": about.get("year", ""),
        "note": _text(about.get("venue", "")),
        **({"eprint": number, "archivePrefix": "arXiv"} if arxiv else {"doi": number}),
    }
    key = _key(about, paper)
    while key in taken:
        key += "x"
    taken.add(key)
    lines = [f"  {name:<13} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _key(about: Mapping[str, str], paper: str) -> str:
    """``wang2022learning``, or the id of the paper."""
    if not about:
        return re.sub("[^0-9A-Za-z]+", "", paper).lower()
    first = about["author"].partition(" and ")[0]
    word = next(word for word in re.findall("[A-Za-z0-9]+", about["title"]) if word.lower() not in _SMALL)
    plain = unicodedata.normalize("NFD", first).encode("ascii", "ignore").decode()
    return re.sub("[^0-9A-Za-z]+", "", f"{plain}{about['year']}{word}").lower()


def _text(text: str) -> str:
    """A text as BibTeX hands it to LaTeX."""
    return re.sub(r"([&%#$_{}])", r"\\\1", text)
