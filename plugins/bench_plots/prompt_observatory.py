"""Which prompts the samples of each experience choose: of every test set (rows) the share that chooses each prompt.

A panel is a run: prompts of different seeds have nothing in common but their numbers. Prompts are those of a pool, or
whatever else a method picks for each sample, e.g. the prompt of a domain; where every layer has a pool of its own, they
are numbered through. A row adds up to as many times 100 % as a sample chooses prompts. Numbers behind the last one that
any sample of the run chooses are not known, and not drawn. Choices lie beside the records, in the predictions of runs
with ``engine.save_choices=true``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench_plots import _predicted, _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Score
from benchmark.records import Record
from benchmark.records.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

MOST = 16  # panels
LEAST = 2.4  # inches of a panel
NUMBERS = 12  # prompts up to which cells have room for numbers
NAMES = 12  # test sets up to which all are named


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Unfinished runs, runs on validation data and runs of methods that choose nothing are left out,
            and so are controls whose choices were not kept: most have none.
        request: Options, width, and what finds the predictions.

    Raises:
        ValueError: Nothing is left, choices of a run were not kept, or it is too much for one figure.
    """
    asked = request or PlotRequest()
    options = asked.options or _predicted.PredictedOptions()
    rows = _predicted.rows(records, most=MOST)
    found = [
        (title, row, run, made)
        for title, row in rows
        for run, made in _predicted.of_row(row, asked, options.experience)
        if _chooses(row, run, made)
    ]
    lacking = "none of these methods chooses prompts, or other parts, for each sample"
    _style.fit(found, most=MOST, what="runs", lacking=lacking)
    several = len({title for title, *_ in found}) > 1
    names = [f"{row.label}, seed {run.seeds.seed}" + (f"; {title}" if several else "") for title, row, run, _ in found]
    figure, axes = _style.squares(asked.width, names, least=LEAST, below=_style.SCALE)
    each = figure.get_figwidth() / _style.across(asked.width, len(found), least=LEAST)
    for axis, (_, _, run, made) in zip(axes, found, strict=True):
        sets, shares = shares_of(made)
        mesh = _panel(axis, shares, [run.scenario.tests[place].name for place in sets])
        if shares.shape[1] <= NUMBERS:
            room = (min(each, _style.SIDE) - 0.7) / max(shares.shape)
            _style.numbers(axis, shares, mesh, room, first=0)
    _style.scale(figure, axes, mesh, "samples of the test set that choose the prompt (%)")
    return figure


def _chooses(row: Score, run: Record, made: Predictions) -> bool:
    """Whether the choices of a run are there; where a method makes none, they are empty, or a control kept none.

    Raises:
        ValueError: They were not kept.
    """
    if made.choices is None and _style.is_control(row):
        return False
    told = f"what {row.label}, seed {run.seeds.seed}, chooses"
    again = "run it again with --set engine.save_choices=true"
    if made.choices is None:
        raise ValueError(f"{told} was not kept; {again}")
    return bool((made.choices >= 0).any())


def shares_of(made: Predictions) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Test sets, and of each the percent of its samples that choose each prompt, ``(test sets, prompts)``."""
    choices = made.choices if made.choices is not None else np.empty((len(made), 0), dtype=np.int32)
    sets = sorted(set(made.test_set.tolist()))
    shares = np.zeros((len(sets), int(choices.max(initial=-1)) + 1))
    for line, place in enumerate(sets):
        own = choices[made.test_set == place]
        shares[line] = 100 * np.bincount(own[own >= 0], minlength=shares.shape[1]) / len(own)
    return sets, shares


def _panel(axis: Axes, shares: npt.NDArray[np.float64], names: Sequence[str]) -> QuadMesh:
    from matplotlib.ticker import MaxNLocator

    sets, prompts = shares.shape
    right, below = (np.arange(count + 1) - 0.5 for count in (prompts, sets))
    # Not `imshow`: a picture of dots cannot be put into .pgf.
    look: dict[str, Any] = {"vmin": 0, "vmax": 100, "cmap": "cividis", "linewidth": 0.1, "edgecolors": "face"}
    mesh = axis.pcolormesh(right, below, shares, **look)
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10]))
    places = range(0, sets, -(-sets // NAMES))
    axis.set_yticks(list(places), labels=[names[place] for place in places], parse_math=False)
    axis.tick_params(length=2)
    axis.set_xlabel("prompt")
    axis.set_ylabel("test set")
    return mesh


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``prompt-observatory``."""
    return [
        PlotSpec(
            name="prompt-observatory",
            draw=draw,
            config=_predicted.PredictedOptions,
            summary="which prompts the samples of each experience choose, from choices beside the records",
        )
    ]
