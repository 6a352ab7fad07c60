"""What the parts of one execution work with: training, and the answers to a stream of test batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmark.guard import Guard
from benchmark.run.examination import Examiner
from benchmark.run.interruption import Stop
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress


@dataclass(frozen=True)
class Execution:
    """One execution of a run, from its start or from a checkpoint to its end or the next stop.

    Attributes:
        prepared: The run.
        done: What it has behind it; is told of costs and times.
        work: Folder of its checkpoints.
        stop: Ctrl-C.
        guard: Stands around the method's functions.
        examiner: Predicts test and selection images.
        wall: Seconds that the run has taken so far, in all processes.
        still_ours: Is called before a checkpoint is written; raises where another process has taken the run over.
        quiet: No progress bars.
    """

    prepared: Prepared
    done: Progress
    work: Path
    stop: Stop
    guard: Guard
    examiner: Examiner
    wall: Callable[[], float]
    still_ours: Callable[[], None]
    quiet: bool

    def bar(self, what: str, *, total: int, initial: int = 0, unit: str) -> Any:
        """A progress bar, on a terminal only.

        Args:
            what: Of the method's work, e.g. ``1/10``.
            total: How many units there are.
            initial: How many of them are behind it.
            unit: What is counted.
        """
        name = f"{self.prepared.plan.method_label} {what}"
        disable = True if self.quiet else None  # None: only on a terminal
        return tqdm(total=total, initial=initial, desc=name, disable=disable, leave=False, unit=unit)
