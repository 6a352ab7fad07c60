"""Figures of records by plugins: what a plot is given, how it looks on paper, and its file.

Every figure is drawn at the width it has on paper, with letters that can be read there, whatever the user's settings
of matplotlib are; the same records give the same bytes. Nothing here needs a display.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark import config as configs
from benchmark import registry
from benchmark.errors import UsageError, shorten
from benchmark.guard import Guard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmark.records.predictions import Predictions
    from benchmark.records.schema import Record

__all__ = ["FORMATS", "WIDTHS", "PlotRequest", "draw", "encode", "width_of"]

INCH = 2.54  # cm
WIDTHS: Mapping[str, float] = {"single": 8.4, "double": 17.4}
"""Usual widths of figures in cm: one column of a page with two, and the whole page."""
LEAST, MOST = 4.0, 60.0  # cm

# What would put the time of drawing into the file.
FORMATS: Mapping[str, Mapping[str, Any] | None] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".pgf": None,
}
"""Endings of files, with the metadata that make equal figures equal bytes."""

_STYLE: Mapping[str, object] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "patch.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters stay letters: many venues refuse Type 3 fonts
    "svg.hashsalt": "adaptbench",
    "pgf.texsystem": "pdflatex",
    "pgf.rcfonts": False,  # those of the document
}
_DOTS = 300  # per inch, of .png
_SPECIAL = {**{letter: "\\" + letter for letter in "{}$#&_"}, "\\": "\\textbackslash{}", "~": "\\textasciitilde{}"}


def _nothing(record: Record) -> Predictions | None:
    """No predictions are at hand."""
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotRequest:
    """What a plot is given beside records, if its ``draw`` has a parameter ``request``.

    Attributes:
        options: An object of `benchmark.PlotSpec.config`; None where there is none.
        width: Of the figure, inches.
        predictions: The predictions of a run, or None where they do not lie beside its record.
    """

    options: Any = None
    width: float = WIDTHS["double"] / INCH
    predictions: Callable[[Record], Predictions | None] = _nothing


def draw(
    name: str,
    records: Sequence[Record],
    *,
    options: Mapping[str, object] | None = None,
    origin: str = "options",
    width: float = WIDTHS["double"],
    predictions: Callable[[Record], Predictions | None] = _nothing,
) -> Figure:
    """Draws a figure.

    Args:
        name: Of the plot, e.g. ``accuracy``.
        records: What is drawn.
        options: Of the plot; texts are parsed.
        origin: Where the options come from, for messages.
        width: On paper, cm.
        predictions: Finds the predictions of a run; None where there are none.

    Raises:
        UsageError: There is no such plot or option, or these records cannot be drawn so.
        PluginError: The plugin fails.
    """
    from matplotlib.figure import Figure

    loaded = registry.load("plots", name)
    spec = registry.load_plot(name)
    guard = Guard(f"plot `{name}` of `{loaded.entry.distribution}`", hint="-v shows where")
    given = options or {}
    chosen: Any = None
    if spec.config is not None:
        chosen = configs.resolve(spec.config, [configs.Layer(origin, given)], key=name)[0]
    elif given:
        raise UsageError(f"plot `{name}` has no option `{next(iter(given))}`: it has none", hint="leave it out")
    request = PlotRequest(options=chosen, width=width / INCH, predictions=predictions)
    with guard("draw"), _style(request.width):
        try:
            figure = spec.draw(records, request=request) if spec.asks else spec.draw(records)
        except ValueError as error:
            hint = "choose other records, e.g. --scenario"
            raise UsageError(f"bench plot {name}: {error}", hint=hint) from error
    if not isinstance(figure, Figure):
        raise guard.refuse("draw", figure, hint="return a matplotlib.figure.Figure")
    if not spec.asks:
        wide, high = figure.get_size_inches()
        figure.set_size_inches(request.width, request.width * high / wide)
    return figure


def width_of(given: str | float, *, where: str = "width") -> float:
    """A width in cm.

    Args:
        given: ``single``, ``double`` or a number of cm.
        where: What messages call it.

    Raises:
        UsageError: It is something else.
    """
    try:
        width = WIDTHS[given] if isinstance(given, str) and given in WIDTHS else float(given)
    except ValueError:
        width = 0.0
    if not LEAST <= width <= MOST:
        raise UsageError(
            f"{where} {shorten(str(given), 40)}: no width of a figure",
            hint=f"use {', '.join(WIDTHS)}, or {LEAST:g} to {MOST:g} (cm)",
        )
    return width


def encode(figure: Figure, suffix: str) -> bytes:
    """The file of a figure; of equal figures the same bytes.

    Args:
        figure: Of `draw`.
        suffix: One of `FORMATS`.

    Raises:
        UsageError: No such format, or LaTeX is needed and is not there or fails.
    """
    check_format(suffix)
    buffer = io.BytesIO()
    about: dict[str, Any] = {} if FORMATS[suffix] is None else {"metadata": FORMATS[suffix]}
    with _style(figure.get_figwidth()), _escaped(figure) if suffix == ".pgf" else contextlib.nullcontext():
        try:
            figure.savefig(buffer, format=suffix.removeprefix("."), dpi=_DOTS, **about)
        except Exception as error:
            if suffix != ".pgf":
                raise
            said = str(error).strip().splitlines()
            raise UsageError(
                f".pgf: LaTeX measures its letters, and it failed: {said[0] if said else type(error).__name__}",
                hint="install pdflatex with the packages pgf and underscore, or write .pdf",
            ) from error
    return buffer.getvalue()


def check_format(suffix: str) -> None:
    """Makes sure that figures can be written with an ending.

    Raises:
        UsageError: They cannot.
    """
    if suffix not in FORMATS:
        raise UsageError(f"{suffix or 'no ending'}: no format of figures", hint=f"use one of {', '.join(FORMATS)}")


@contextlib.contextmanager
def _style(width: float) -> Iterator[None]:
    """One look, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "figure.figsize": (width, 0.62 * width)})
        yield


@contextlib.contextmanager
def _escaped(figure: Figure) -> Iterator[None]:
    """Texts that are no formulas as LaTeX has to be told them."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_parse_math()]
    kept = [text.get_text() for text in texts]
    for text, plain in zip(texts, kept, strict=True):
        text.set_text(re.sub(r"[\\{}$#&_~]", lambda found: _SPECIAL[found[0]], plain))
    try:
        yield
    finally:
        for text, plain in zip(texts, kept, strict=True):
            text.set_text(plain)
