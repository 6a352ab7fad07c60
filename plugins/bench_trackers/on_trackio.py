"""trackio: a local dashboard of Hugging Face, ``TRACKIO_DIR=tracking/trackio trackio show`` (extra ``trackio``).

One row for each point: losses beside ``epoch``, accuracies beside ``experience``; what the run is in its configuration;
the final metrics in a last row.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark import TrackerSpec, hookimpl
from benchmark.errors import RunFailed as NotKept
from benchmark.events import RunFailed, RunFinished, RunStarted
from benchmark.files import user_path
from benchmark.tracking import Kind, Point, Tracker, final, flat

PATIENCE = 30.0  # seconds in which trackio's thread must have written a row
LOOK = 0.02


@dataclass(frozen=True)
class TrackioOptions:
    """Options of the tracker, ``--tracker-set trackio.KEY=VALUE``.

    Attributes:
        project: Name of the project.
        dir: Folder of its databases, unless ``TRACKIO_DIR`` names one; the first run of a process decides.
    """

    project: str = "adaptbench"
    dir: str = "tracking/trackio"


class Trackio(Tracker):
    """One run of trackio."""

    def __init__(self, options: TrackioOptions) -> None:
        self._options = options

    def begin(self, event: RunStarted) -> Collection[tuple[Kind, int]]:
        """Opens the run by its name, which ends in the run id, and asks the database which rows it has."""
        os.environ.setdefault("TRACKIO_DIR", str(user_path(self._options.dir).resolve()))
        with contextlib.redirect_stdout(sys.stderr):  # it prints where to look
            import trackio

            self._name = f"{event.method} on {event.scenario}, seed {event.seed}, {event.run_id}"
            self._run: Any = trackio.init(
                self._options.project,
                name=self._name,
                group=f"{event.method} on {event.scenario}",
                config=flat(event),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        known: set[tuple[Kind, int]] = set()
        for row in self._rows():
            kind: Kind = "epoch" if "epoch" in row else "experience"
            if kind in row:
                known.add((kind, int(row[kind])))
        return known

    def write(self, point: Point) -> None:
        """One row; returns when it is in the database."""
        self._log({**point.values, point.kind: point.index}, point.step)

    def finish(self, event: RunFinished) -> None:
        """The final metrics in a row of their own."""
        self._log({f"final/{name}": value for name, value in final(event.record).items()}, None)
        self._close()

    def fail(self, event: RunFailed) -> None:
        """Closes the run for now."""
        self._close()

    def _rows(self) -> list[dict[str, Any]]:
        from trackio.sqlite_storage import SQLiteStorage

        found: list[dict[str, Any]] = SQLiteStorage.get_logs(self._options.project, self._name)
        return found

    def _log(self, values: Mapping[str, float], step: int | None) -> None:
        before = len(self._rows())
        self._run.log(dict(values), step=step)
        end = time.monotonic() + PATIENCE
        while len(self._rows()) <= before:  # a thread of trackio writes it, within half a second
            if time.monotonic() > end:
                raise NotKept(f"trackio has not written a row within {PATIENCE:g} s")
            time.sleep(LOOK)

    def _close(self) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()  # of the run of `begin`; else trackio would finish it once more when Python ends


@hookimpl
def bench_register_trackers() -> list[TrackerSpec]:
    """Returns the tracker."""
    return [
        TrackerSpec(
            name="trackio",
            open=Trackio,
            summary="a local dashboard: losses, accuracies, options and final metrics",
            config=TrackioOptions,
            needs="trackio",
            install="pip install adaptbench[trackio]",
        )
    ]
