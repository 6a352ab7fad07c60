"""What a method of test-time adaptation implements (promised, beside `benchmark.api`).

A source model meets a stream of unlabelled batches (`benchmark.scenario.TestStream`). Each is answered once, then the
model may change; it may never change an answer. The engine owns the loop (`benchmark.run.adapting`), with gradients on:
it trains the source as in every run, looks at how good that model is on all images (`Method.predict`, the figures that
gains are measured from), calls `TestTimeMethod.begin_stream`, then for every segment `reset_stream` where the scenario
says so and `adapt` for batch after batch; in the end `predict` is asked about test images of the source.

Names of domains, boundaries between them and labels are not told. What `adapt` draws at random follows from the run's
seed and the place in the stream: the global generators are seeded before every batch, so a method keeps no generator.

Shapes: B images of a batch, C classes, S side of the input in pixels.
"""

from __future__ import annotations

import abc
from typing import Literal

from torch import Tensor

from benchmark.api import Method

Answers = Literal["before", "after"]
"""Whether the answer to a batch is that of the model before or after it has adapted to that very batch."""


class TestTimeMethod(Method):
    """A method that answers a stream of test batches, and may adapt to each; its `MethodSpec` says ``adapts``.

    It declares ``test_batch`` where an answer may depend on the other images of its batch, and ``test_stream`` where it
    may depend on earlier batches. A property ``answers`` of its configuration (`Answers`) tells tables the order.
    """

    __test__ = False  # not a test of pytest's

    @abc.abstractmethod
    def begin_stream(self) -> None:
        """Called once, in eval mode, between the end of training and the first batch.

        Freeze what does not adapt, make the optimiser of the stream, keep what `reset_stream` puts back. On resume it
        is called again, from the state at the end of training, before the state in the middle of the stream is put
        back.
        """

    @abc.abstractmethod
    def adapt(self, images: Tensor, /) -> Tensor:
        """Answers a batch, and may change the state.

        Args:
            images: Normalised, ``(B, 3, S, S)``; the last batch of a segment may be smaller, down to one image.

        Returns:
            Logits ``(B, C)``. Probabilities are given as their logarithms.
        """

    @abc.abstractmethod
    def reset_stream(self) -> None:
        """Puts the state back to that after `begin_stream`, optimiser and averages included."""
