"""Model selection: which epoch of an experience is kept (``--set engine.select=...``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmark.api import Method
from benchmark.run import checkpoint
from benchmark.run.judging import Judge


class Selection:
    """Keeps the best epoch of one experience; the first of equals.

    Args:
        judge: Scores epochs, or None: the last epoch is taken.

    Attributes:
        chosen: The epoch that was put back, or None when there was nothing to choose.
        scores: After each epoch, more is better; None: the judge does not want it.
    """

    def __init__(self, judge: Judge | None) -> None:
        self.judge = judge
        self.chosen: int | None = None
        self.scores: list[float | None] = []
        self._best = 0.0
        self._kept: Any = None

    @property
    def facts(self) -> dict[str, Any]:
        """What must be known of the scores."""
        return {} if self.judge is None or not self.scores else dict(self.judge.facts)

    @property
    def undecided(self) -> bool:
        """Whether there were scores, and no epoch that may be kept."""
        return bool(self.scores) and self.chosen is None

    def consider(self, method: Method, epoch: int, score: float | None, *, candidate: bool = True) -> None:
        """Keeps the method's state when it scores higher than every candidate before.

        Args:
            method: As it is after the epoch.
            epoch: From 0; every epoch is considered.
            score: Its score; None: it may not be kept.
            candidate: Whether it may be kept.
        """
        if candidate and score is not None and (self.chosen is None or score > self._best):
            self.chosen, self._best = epoch, score
            self._kept = _copy(checkpoint.snapshot(method))
        self.scores.append(score)

    def put_back(self, method: Method) -> None:
        """Gives the method the state of the chosen epoch, if that is not the last one anyway."""
        if self.chosen is not None and self.chosen < len(self.scores) - 1:
            checkpoint.restore(method, self._kept)
        self._kept = None

    def state(self) -> dict[str, Any]:
        """For the checkpoint in the middle of an experience."""
        best = {"best": self._best, "facts": self.facts}
        return {"chosen": self.chosen, "scores": list(self.scores), "kept": self._kept, **best}

    def load(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        self.chosen, self.scores, self._kept = state["chosen"], list(state["scores"]), state["kept"]
        self._best = state["best"]
        if self.judge is not None:
            self.judge.facts |= state["facts"]


def _copy(tree: Any) -> Any:
    """A copy of nested mappings and lists whose tensors do not change any more."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {key: _copy(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_copy(value) for value in tree)
    return copy.deepcopy(tree)
