"""What a method may tell besides its predictions: which of its parts each sample has chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Chooses(Protocol):
    """A `benchmark.api.Method` that gives every sample some of its parts: prompts of a pool, modules of a task.

    Nothing is inherited: a method has the function, or it has not.
    """

    def chosen_parts(self, inputs: Any, /) -> Tensor | None:
        """Which of its parts `Method.predict` uses for each of B inputs.

        Asked beside `predict`, for the same batch, where a run keeps choices (``engine.save_choices=true``); what holds
        for `predict` holds here. Nothing else of a method may ask it, as it is not in the identity of a run.

        Returns:
            Numbers of parts from 0, int64 ``(B, k)``, the first choice first; where several pools are chosen from,
            their parts are numbered through. None where this configuration chooses nothing.
        """
        ...
