"""tensorboard: event files in a folder per run, ``tensorboard --logdir tracking/tensorboard`` (extra ``tensorboard``).

Losses over the passes of the run, accuracies over its experiences; what the run is under *Text*; when it is finished,
options and final metrics under *HParams*, to compare runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import TrackerSpec, hookimpl
from benchmark.events import RunFailed, RunFinished, RunStarted
from benchmark.files import user_path
from benchmark.tracking import Kind, Point, Tracker, final, flat


@dataclass(frozen=True)
class TensorBoardOptions:
    """Options of the tracker, ``--tracker-set tensorboard.KEY=VALUE``.

    Attributes:
        dir: Folder of all runs; each has ``SCENARIO/METHOD/RUN-ID`` in it.
    """

    dir: str = "tracking/tensorboard"


class TensorBoard(Tracker):
    """Event files of one run."""

    def __init__(self, options: TensorBoardOptions) -> None:
        self._root = user_path(options.dir)

    def begin(self, event: RunStarted) -> Collection[tuple[Kind, int]]:
        """Opens one more event file in the run's folder; TensorBoard shows all of them as one run."""
        from torch.utils.tensorboard import SummaryWriter

        self._facts = flat(event)
        folder = self._root / re.sub("[/:]", "-", event.scenario) / event.method / event.run_id
        known = _known(folder) if folder.is_dir() else set()
        self._writer: Any = SummaryWriter(str(folder))
        if not known:
            self._writer.add_text("run", f"```json\n{json.dumps(self._facts, indent=2)}\n```")
        return known

    def write(self, point: Point) -> None:
        """One number for each value; flushed, so that a killed process loses nothing."""
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.index)
        self._writer.flush()

    def finish(self, event: RunFinished) -> None:
        """Options and final metrics for the tab HParams."""
        metrics = {f"final/{name}": value for name, value in final(event.record).items()}
        self._writer.add_hparams(self._facts, metrics, run_name=".")
        self._writer.close()

    def fail(self, event: RunFailed) -> None:
        """Says why."""
        self._writer.add_text("end", f"{event.status}: {event.error}")
        self._writer.close()


def _known(folder: Path) -> set[tuple[Kind, int]]:
    """Points that event files of earlier processes hold; one that a kill has cut short holds those before the cut."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    known: set[tuple[Kind, int]] = set()
    for tag in found.Tags()["scalars"]:
        kind: Kind | None = "epoch" if tag.startswith("loss/") else "experience" if tag == "average_accuracy" else None
        if kind is not None:
            known |= {(kind, scalar.step) for scalar in found.Scalars(tag)}
    return known


@hookimpl
def bench_register_trackers() -> list[TrackerSpec]:
    """Returns the tracker."""
    return [
        TrackerSpec(
            name="tensorboard",
            open=TensorBoard,
            summary="event files for TensorBoard: losses, accuracies, options and final metrics",
            config=TensorBoardOptions,
            needs="tensorboard",
            install="pip install adaptbench[tensorboard]",
        )
    ]
