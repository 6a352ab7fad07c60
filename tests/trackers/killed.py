"""A toy run with trackers in a process of its own, which kills itself before one of its steps.

Called with the results folder, the trackers as JSON, and the step (-1: it lives).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmark.run import engine, tracking
from benchmark.run.interruption import Stop
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import prepare_toy


class Kill(Stop):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        with super().deferring():
            yield


if __name__ == "__main__":
    out, trackers, step = sys.argv[1:]
    prepared = prepare_toy(settings={"epochs": "2", "engine.checkpoint_seconds": "1000"}, experiences=2)
    hooks = tracking.joined(manager([]), json.loads(trackers))
    print(engine.execute(prepared, Path(out), hooks=hooks, quiet=True, stop=Kill(int(step))))
