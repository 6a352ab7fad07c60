"""What `test_ranks.py` starts twice, as ``torchrun`` would: one run, whole, then stopped by one process and resumed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import registry
from benchmark.api import Batch, Context, ExperienceView
from benchmark.errors import UsageError
from benchmark.run import engine, ranks
from benchmark.run.interruption import Interrupted, Stop
from benchmark.testing.toys import ToyMethod, ToyMethodConfig, prepare_toy

SETTINGS = {"engine.save_logits": "true", "engine.checkpoint_seconds": "3600", "epochs": "2", "batch_size": "8"}
PLAIN = {**SETTINGS, "batch_size": "5"}  # the last batch of 16 samples has one: nothing is left for the other process
STEPS_BEFORE_STOP = 3


class Dropping(ToyMethod):
    """A network with dropout and momentum; only some of its weights have a gradient in every part."""

    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.body = nn.Sequential(nn.Linear(192, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
        self.extra = nn.Parameter(torch.zeros(4))
        nn.init.zeros_(self.head)

    def begin_experience(self, experience: ExperienceView) -> None:
        """A fresh optimiser."""
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def logits(self, images: Tensor) -> Tensor:
        """Of all classes."""
        found: Tensor = self.body(self._features(images))
        return found

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy; ``extra`` takes part where a sample of class 0 is there."""
        logits = self.logits(batch.images)
        zero = batch.labels == 0
        if zero.any():
            logits = logits + zero[:, None] * self.extra
        loss = F.cross_entropy(logits, batch.labels)
        self.descend(loss, clip=1.0)
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes."""
        return self.logits(images)


class Spread(Dropping):
    """Compares the samples of a batch, and says so."""

    @property
    def coupled(self) -> str | None:
        """The reason."""
        return "the loss has a variance of the batch"


class StopsOne(Stop):
    """Asks for a stop in one process after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def deferring(self) -> Any:
        """Asked around every step."""
        self._left -= 1
        self.requested = self._left == 0
        return super().deferring()


def main(out: Path) -> None:
    """Makes the run in ``whole`` and in ``pieces``."""
    with ranks.joined("cpu") as processes:

        def execute(
            folder: str, build: Any = Dropping, stop: Stop | None = None, settings: Mapping[str, str] = SETTINGS
        ) -> Path:
            prepared = prepare_toy(build=build, uses=frozenset({"boundaries", "num_classes"}), settings=settings)
            prepared = dataclasses.replace(prepared, ranks=processes)
            return engine.execute(prepared, out / folder, hooks=registry.without_life_cycle(), quiet=True, stop=stop)

        execute("plain", ToyMethod, settings=PLAIN)
        execute("whole")
        try:
            execute("pieces", stop=StopsOne(STEPS_BEFORE_STOP) if processes.number == 1 else None)
        except Interrupted:
            processes.wait()
            execute("pieces")
            print("resumed")
        try:
            execute("refused", Spread)
        except UsageError as error:
            print(error.message)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
