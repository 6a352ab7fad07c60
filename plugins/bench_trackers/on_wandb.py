"""wandb: runs of Weights & Biases, on its server or offline (extra ``wandb``).

Losses over ``epoch``, accuracies over ``experience``; what the run is in its configuration, the final metrics in its
summary. A run keeps its id, the run id: what an interrupted one has logged offline in several folders, ``wandb sync``
puts together.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Collection, Iterator
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
        """Opens the run under its id; the server knows what is there, and offline the local files do."""
        import wandb

        folder = user_path(self._options.dir)
        folder.mkdir(parents=True, exist_ok=True)
        known = _known(folder / "wandb", event.run_id)
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
        return known

    def write(self, point: Point) -> None:
        """One row of the history, by W&B's own process; what a kill takes away is written when the run is resumed."""
        if point.step >= self._next:
            self._run.log({**point.values, point.kind: point.index}, step=point.step, commit=True)

    def finish(self, event: RunFinished) -> None:
        """Final metrics in the summary."""
        self._run.summary.update({f"final/{name}": value for name, value in final(event.record).items()})
        self._run.finish()

    def fail(self, event: RunFailed) -> None:
        """Says why in the summary; the run counts as failed until it is taken up again."""
        self._run.summary.update({"end": f"{event.status}: {event.error}"})
        self._run.finish(exit_code=1)


def _known(folder: Path, run_id: str) -> set[tuple[Kind, int]]:
    """Points in the local files of earlier processes that were offline; one that a kill has cut short ends there."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    known: set[tuple[Kind, int]] = set()
    kinds: tuple[Kind, ...] = ("epoch", "experience")
    for file in folder.glob(f"offline-run-*-{run_id}/*.wandb"):
        with contextlib.suppress(DecodeError):
            for content in parts_of(file.read_bytes()):
                for item in Record.FromString(content).history.item:
                    name = item.key or "".join(item.nested_key[:1])
                    known |= {(kind, int(json.loads(item.value_json))) for kind in kinds if name == kind}
    return known


def parts_of(content: bytes) -> Iterator[bytes]:
    """The records of a file of W&B, a log as LevelDB writes it.

    Blocks of 32 KiB hold fragments: a checksum, a length, and whether a record begins, goes on or ends (LevelDB,
    doc/log_format.md).

    Args:
        content: Of the file; seven bytes are W&B's own.
    """
    place, kept = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        if kind == 0:  # nothing was written from here on
            return
        kept += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield kept
            kept = b""


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
