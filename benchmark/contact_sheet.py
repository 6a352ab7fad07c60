"""A picture of a scenario: some training and test images of every experience."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark.api import ImageSet, Scenario
from benchmark.errors import UsageError
from benchmark.files import replace_file

COLUMNS = 12
MOST_ROWS = 12


def draw(scenario: Scenario, path: Path) -> None:
    """Writes a PNG: one row an experience, training images left, test images right of the line.

    Args:
        scenario: Any scenario.
        path: Where to write it; must end in ``.png``.

    Raises:
        UsageError: Another suffix.
        RunFailed: The file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--show-images {path}: only PNG files are drawn", hint="end the name in .png")
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = scenario.experiences[:MOST_ROWS]
    figure = Figure(figsize=(1.0 * (2 * COLUMNS + 1) + 2, 1.25 * len(rows) + 0.8), dpi=72)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(
        f"{scenario.name}, version {scenario.version}: {len(scenario.experiences)} experiences, "
        f"{scenario.num_classes} classes; left training, right test images"
    )
    grid = figure.subplots(len(rows), 2 * COLUMNS + 1, squeeze=False)
    for index, experience in enumerate(rows):
        for side, data in enumerate((experience.train, experience.test)):
            for column, place in enumerate(spread(data, COLUMNS)):
                axis = grid[index][side * (COLUMNS + 1) + column]
                axis.imshow(data.images(torch.tensor([place]))[0].permute(1, 2, 0).numpy())
                name = scenario.class_names[int(data.labels[place])]
                axis.set_title(name if len(name) <= 14 else name[:6] + "…" + name[-7:], fontsize=5, pad=1)
        grid[index][0].set_ylabel(experience.domain or f"experience {index}", fontsize=8)
    for row in grid:
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    replace_file(path, buffer.getvalue())


def spread(data: ImageSet, count: int) -> list[int]:
    """Positions of up to ``count`` images, from as many classes as possible, in label order."""
    order = torch.argsort(data.labels, stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(place) for place in order[places]]
