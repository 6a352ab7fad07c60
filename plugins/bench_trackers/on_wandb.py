"""wandb: runs of Weights & Biases, on its server or offline (extra ``wandb``).

Losses over ``epoch``, accuracies over ``experience``; what the run is in its configuration, the final metrics in its
summary. A run keeps its id, the run id: what an interrupted one has logged offline in several folders, ``wandb sync``
puts together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmark import TrackerSpec, hookimpl
from benchmark.events import RunFailed, RunFinished, RunStarted
from benchmark.files import user_path
from benchmark.tracking import Kind, Point, Tracker, final, flat


@dataclass(frozen=True)
class WandbOptions:
    """Options of the tracker, ``--tracker-set wandb.KEY=VALUE``.

    Attributes:
        project: Name of the project.
        entity: User or team; empty: your own.
        mode: ``online`` or ``offline``; empty: ``WANDB_MODE``, else online.
        dir: Folder in which ``wandb`` with the local files is.
    """

    project: str = "adaptbench"
    entity: str = ""
    mode: Literal["", "online", "offline"] = ""
    dir: str = "tracking"


class Wandb(Tracker):
    """One run of W&B."""

    def __init__(self, options: WandbOptions) -> None:
        self._options = options

    def begin(self, event: RunStarted) -> Collection[tuple[Kind, int]]:
        """Opens the run under its id; which points are there stands in a file, since offline nobody else knows."""
        import wandb

        folder = user_path(self._options.dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._told = folder / "wandb" / f"adaptbench-{event.run_id}.jsonl"
        self._told.parent.mkdir(exist_ok=True)
        self._run: Any = wandb.init(
            project=self._options.project,
            entity=self._options.entity or None,
            id=event.run_id,
            resume="allow",
            name=f"{event.method} on {event.scenario}, seed {event.seed}",
            group=f"{event.method} on {event.scenario}",
            config=flat(event),
            dir=str(folder),
            mode=self._options.mode or None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("experience", hidden=True)
        for name, over in (("loss/*", "epoch"), ("seconds/train", "epoch"), ("accuracy/*", "experience")):
            self._run.define_metric(name, step_metric=over)
        for name in ("average_accuracy", "seconds/experience"):
            self._run.define_metric(name, step_metric="experience")
        self._next = self._run.step if self._run.resumed else 0
        return _known(self._told)

    def write(self, point: Point) -> None:
        """One row of the history; W&B's own process keeps it also if this one is killed."""
        if point.step >= self._next:  # the server has what another machine has told it
            self._run.log({**point.values, point.kind: point.index}, step=point.step, commit=True)
        with self._told.open("a", encoding="utf-8") as file:
            file.write(json.dumps([point.kind, point.index]) + "\n")

    def finish(self, event: RunFinished) -> None:
        """Final metrics in the summary."""
        self._run.summary.update({f"final/{name}": value for name, value in final(event.record).items()})
        self._run.finish()

    def fail(self, event: RunFailed) -> None:
        """Says why in the summary; the run counts as failed until it is taken up again."""
        self._run.summary.update({"end": f"{event.status}: {event.error}"})
        self._run.finish(exit_code=1)


def _known(file: Path) -> set[tuple[Kind, int]]:
    known: set[tuple[Kind, int]] = set()
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill has cut short
                kind, index = json.loads(line)
                known.add((kind, index))
    return known


@hookimpl
def bench_register_trackers() -> list[TrackerSpec]:
    """Returns the tracker."""
    return [
        TrackerSpec(
            name="wandb",
            open=Wandb,
            summary="runs of Weights & Biases, online or offline",
            config=WandbOptions,
            needs="wandb",
            install="pip install adaptbench[wandb]",
        )
    ]
