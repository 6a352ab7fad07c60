"""Some texts of a scenario to read: of every experience and class, and as a language model is asked about them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from benchmark.api import Samples, Scenario
from benchmark.errors import UsageError
from benchmark.files import replace_file

EACH = 2  # texts of a class, of training and of test each
MOST_EXPERIENCES, MOST_CLASSES = 20, 20
BLANK = "____"
_MARKDOWN = {"h1": "# {}", "h2": "## {}", "h3": "### {}", "p": "{}", "li": "- {}"}

Block = tuple[str, str]


def write(scenario: Scenario, path: Path) -> None:
    """Writes a page; its suffix tells how.

    Args:
        scenario: One of texts.
        path: ``.md`` or ``.txt`` for Markdown, ``.html`` for a page.

    Raises:
        UsageError: Another suffix.
        RunFailed: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".md", ".txt", ".html"):
        raise UsageError(
            f"--show {path}: `{scenario.name}` holds {scenario.kind}s, no images",
            hint="end the name in .md or .html, or give - to print them",
        )
    text = page(scenario) if suffix == ".html" else markdown(scenario)
    replace_file(path, text.encode())


def markdown(scenario: Scenario) -> str:
    """The page as Markdown."""
    lines: list[str] = []
    before = ""
    for tag, text in _blocks(scenario):
        if lines and not tag == before == "li":
            lines.append("")
        lines.append(_MARKDOWN[tag].format(" ".join(text.split())))
        before = tag
    return "\n".join(lines) + "\n"


def page(scenario: Scenario) -> str:
    """The page as HTML."""
    body = "\n".join(f"<{tag}>{html.escape(text)}</{tag}>" for tag, text in _blocks(scenario))
    title = html.escape(scenario.name)
    return f'<!doctype html>\n<meta charset="utf-8">\n<title>{title}</title>\n{body}\n'


def wording_facts(scenario: Scenario) -> dict[str, list[str]]:
    """Patterns and words, for ``bench info``; empty where there are none."""
    wording = scenario.wording
    if wording is None:
        return {}
    words = [f"{name}: {' or '.join(wording.words[name])}" for name in scenario.class_names if name in wording.words]
    found = {"patterns": [*wording.patterns], "words of the classes": words, "segments": [*wording.segments]}
    return {key: value for key, value in found.items() if value}


def _blocks(scenario: Scenario) -> Iterator[Block]:
    parts = scenario.experiences
    yield "h1", f"{scenario.name}, version {scenario.version}"
    yield "p", f"{scenario.family}: {len(parts)} experience(s), {scenario.num_classes} classes."
    for title, values in wording_facts(scenario).items():
        yield "h2", title.capitalize()
        for value in values:
            yield "li", value
    for index, part in enumerate(parts[:MOST_EXPERIENCES]):
        domain = "" if part.domain is None else f" ({part.domain})"
        target = "" if part.target is None else f", {len(part.target)} unlabelled"
        yield "h2", f"Experience {index}{domain}: {len(part.train)} training, {len(part.test)} test texts{target}"
        if index == 0:
            yield from _asked(scenario, part.train)
        for label in part.classes[:MOST_CLASSES]:
            yield "h3", scenario.class_names[label]
            for side, samples in (("train", part.train), ("test", part.test)):
                for place in (samples.labels == label).nonzero().flatten()[:EACH].tolist():
                    yield "li", f"{side}: {_read(samples, place)}"
        if len(part.classes) > MOST_CLASSES:
            yield "p", f"... and {len(part.classes) - MOST_CLASSES} more classes."
    if len(parts) > MOST_EXPERIENCES:
        yield "p", f"... and {len(parts) - MOST_EXPERIENCES} more experiences."


def _asked(scenario: Scenario, samples: Samples) -> Iterator[Block]:
    """The first training text in every pattern."""
    if scenario.wording is None or not scenario.wording.patterns:
        return
    yield "h3", "The first training text as a language model is asked"
    text = _fields(samples, 0)
    for pattern in scenario.wording.patterns:
        filled = pattern.replace("{mask}", BLANK)
        for field, value in text.items():
            filled = filled.replace("{" + field + "}", value)
        yield "li", filled


def _read(samples: Samples, place: int) -> str:
    text = _fields(samples, place)
    if len(text) == 1:
        return next(iter(text.values()))
    return "; ".join(f"{field}: {value}" for field, value in text.items())


def _fields(samples: Samples, place: int) -> Mapping[str, str]:
    return cast("Sequence[Mapping[str, str]]", samples.read(torch.tensor([place])))[0]
