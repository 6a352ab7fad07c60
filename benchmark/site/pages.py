"""Templates to files: one environment that escapes everything, and the files of a site by their paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from benchmark.tables import one_line

STATIC = ("site.css", "site.js", "compare.js")
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
"""What a page may load: files of the site, and nothing that is written into the page itself."""


class Pages:
    """Renders pages.

    Args:
        title: Of the site.
        version: Of adaptbench.
    """

    def __init__(self, title: str, version: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("benchmark.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalize=_plain,
        )
        self._environment.filters["lines"] = lines
        self._environment.globals.update(site=title, version=version, policy=POLICY)

    def render(self, template: str, path: str, values: Mapping[str, Any]) -> bytes:
        """One page.

        Args:
            template: Name of its file.
            path: Of the page in the site, from which its links are counted.
            values: What the template needs; a value that is missing is an error.
        """
        root = "../" * path.count("/")
        return self._environment.get_template(template).render(root=root, **values).encode()


def static() -> dict[str, bytes]:
    """Files that are the same in every site, by path."""
    folder = files("benchmark.site") / "static"
    return {f"assets/{name}": (folder / name).read_bytes() for name in STATIC}


def data(value: Any) -> bytes:
    """A file of data for `compare.js`: JSON in a call, and nothing in it could end a script or begin a tag."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f"adaptbench.receive({text});\n".encode()


def lines(text: str) -> Markup:
    """A text of several lines: each without what could steer a terminal or turn the direction of writing."""
    return Markup("\n").join(
        escape("".join(char if char.isprintable() else " " for char in line)) for line in text.splitlines()
    )


def _plain(value: Any) -> Any:
    """Texts on one line, without characters that are not seen; what is markup already stays as it is."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
