"""``bench plot KIND``: a figure of all records below a folder."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING, Any

from benchmark.cli import leaderboard, terminal
from benchmark.errors import EXIT_OK, UsageError
from benchmark.files import check_file, replace_file, user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmark.records import Record

# What would put the time of drawing into the file: the same records give the same bytes.
UNDATED: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("kind", help="what to draw: `bench list plots`")
    leaderboard.add_filters(parser)
    parser.add_argument(
        "-o", "--output", type=user_path, required=True, metavar="FILE", help="ends in .png, .pdf or .svg"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the figure; no display is needed.

    Raises:
        UsageError: Unknown kind, format, folder or filter; or these records cannot be drawn so.
        PluginError: The plugin fails.
    """
    from benchmark import registry
    from benchmark.guard import Guard

    suffix = args.output.suffix.lower()
    if suffix not in UNDATED:
        raise UsageError(f"-o {args.output}: no format of figures", hint=f"end the name in {', '.join(UNDATED)}")
    check_file(args.output, "--output")
    loaded = registry.load("plots", args.kind)
    spec = registry.load_plot(args.kind)
    records, methods = leaderboard.read(args)
    if methods:
        records = [run for run in records if run.method.control or _names(run) & set(methods)]
    from matplotlib.figure import Figure

    guard = Guard(f"plot `{args.kind}` of `{loaded.entry.distribution}`", hint="-v shows where")
    with guard("draw"):
        try:
            figure = spec.draw(records)
        except ValueError as error:
            raise UsageError(
                f"bench plot {args.kind}: {error}", hint="choose other records, e.g. --scenario"
            ) from error
    if not isinstance(figure, Figure):
        raise guard.refuse("draw", figure, hint="return a matplotlib.figure.Figure")
    with guard("draw"):
        content = _bytes(figure, suffix)
    replace_file(args.output, content)
    terminal.say(f"wrote {args.output}")
    return EXIT_OK


def _names(run: Record) -> set[str]:
    """What ``--method`` may call the method of a run."""
    return {run.method.name, f"{run.method.name}@{run.method.recipe}"}


def _bytes(figure: Figure, suffix: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "adaptbench"}):
        figure.savefig(buffer, format=suffix.removeprefix("."), dpi=150, metadata=UNDATED[suffix])
    return buffer.getvalue()
