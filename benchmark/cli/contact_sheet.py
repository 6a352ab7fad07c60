"""A picture of a scenario: some training and test images of every experience."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import torch

from benchmark.api import ImageSet, Scenario
from benchmark.errors import UsageError
from benchmark.files import replace_file

COLUMNS = 12
MOST_ROWS = 12
CHARACTERS = 15


def draw(scenario: Scenario, path: Path) -> None:
    """Writes a PNG: one row an experience, training images left, test images right of the line.

    Args:
        scenario: One of images.
        path: Where to write it; must end in ``.png``.

    Raises:
        UsageError: Another suffix.
        RunFailed: The file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--show {path}: only PNG files are drawn", hint="end the name in .png")
    replace_file(path, png(scenario))


def png(scenario: Scenario, *, colours: int | None = None) -> bytes:
    """The picture as a PNG file; of equal scenarios the same bytes.

    Args:
        scenario: One of images.
        colours: At most so many, 256 or fewer, which makes a file a third as large; None: all.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    rows = scenario.experiences[:MOST_ROWS]
    # In inches at 100 dots: cells of one inch, a line of two words above each, a gap between training and test.
    left, top, gap, cell, height = 0.5, 0.75, 0.5, 1.0, 1.3
    width, total = left + 2 * COLUMNS * cell + gap + 0.1, top + len(rows) * height + 0.1
    figure = Figure(figsize=(width, total), dpi=100)
    canvas = FigureCanvasAgg(figure)
    more = f" (the first {len(rows)} are shown)" if len(rows) < len(scenario.experiences) else ""
    figure.text(
        left / width,
        1 - 0.25 / total,
        f"{scenario.name}, version {scenario.version}: {len(scenario.experiences)} experiences{more}, "
        f"{scenario.num_classes} classes; training images left, test images right",
        fontsize=14,
        va="center",
    )
    for index, experience in enumerate(rows):
        bottom = total - top - (index + 1) * height + height - cell
        row = experience.domain or f"experience {index}"
        figure.text(left / 2 / width, (bottom + cell / 2) / total, row, rotation=90, ha="center", va="center")
        for side, data in enumerate((experience.train, experience.test)):
            for column, place in enumerate(spread(data, COLUMNS)):
                start = left + column * cell + side * (COLUMNS * cell + gap)
                axis = figure.add_axes(
                    (start / width, bottom / total, 0.94 * cell / width, 0.94 * cell / total), xticks=[], yticks=[]
                )
                axis.imshow(data.images(torch.tensor([place]))[0].permute(1, 2, 0).numpy())
                axis.set_frame_on(False)
                name = shorten(scenario.class_names[int(data.labels[place])])
                axis.set_title(name, fontsize=7, pad=2, linespacing=0.9)
    buffer = io.BytesIO()
    if colours is None:
        canvas.print_png(buffer, metadata={"Software": None})
    else:
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        picture.quantize(colours, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def spread(data: ImageSet, count: int) -> list[int]:
    """Positions of up to ``count`` images, from as many classes as possible, in label order."""
    order = torch.argsort(data.labels, stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(place) for place in order[places]]


def shorten(name: str) -> str:
    """A class name on two lines at most, of `CHARACTERS` each; of a longer one the end, which tells it from others."""
    lines = textwrap.wrap(name.replace("_", " "), CHARACTERS)
    if len(lines) > 2:
        lines = ["…" + line for line in lines[-2:-1]] + lines[-1:]
    return "\n".join(line if len(line) <= CHARACTERS + 1 else line[:CHARACTERS] for line in lines)
