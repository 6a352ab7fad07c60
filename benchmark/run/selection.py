"""Model selection: which epoch of an experience is kept (``--set engine.select=...``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmark.api import ImageSet, Method
from benchmark.run import checkpoint


class Selection:
    """Keeps the best epoch of one experience; the first of equals.

    Args:
        images: What epochs are compared on, or None: the last epoch is taken.

    Attributes:
        chosen: The epoch that was put back, or None when there was nothing to choose.
        scores: Accuracy after each epoch.
    """

    def __init__(self, images: ImageSet | None) -> None:
        self.images = images
        self.chosen: int | None = None
        self.scores: list[float] = []
        self._kept: Any = None

    def consider(self, method: Method, epoch: int, score: float, *, candidate: bool = True) -> None:
        """Keeps the method's state when it scores higher than every candidate before.

        Args:
            method: As it is after the epoch.
            epoch: From 0; every epoch is considered.
            score: Its accuracy.
            candidate: Whether it may be kept.
        """
        if candidate and (self.chosen is None or score > self.scores[self.chosen]):
            self.chosen = epoch
            self._kept = _copy(checkpoint.snapshot(method))
        self.scores.append(score)

    def put_back(self, method: Method) -> None:
        """Gives the method the state of the chosen epoch, if that is not the last one anyway."""
        if self.chosen is not None and self.chosen < len(self.scores) - 1:
            checkpoint.restore(method, self._kept)
        self._kept = None

    def state(self) -> dict[str, Any]:
        """For the checkpoint in the middle of an experience."""
        return {"chosen": self.chosen, "scores": list(self.scores), "kept": self._kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        self.chosen, self.scores, self._kept = state["chosen"], list(state["scores"]), state["kept"]


def _copy(tree: Any) -> Any:
    """A copy of nested mappings and lists whose tensors do not change any more."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {key: _copy(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_copy(value) for value in tree)
    return copy.deepcopy(tree)
