"""What `tpt` and `tda` share: a dual encoder that knows the names of classes, and trains nothing before the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView, Transform
from benchmark.backbones.dual import dual_of
from benchmark.inputs.augmented_views import Views
from benchmark.test_time import TestTimeMethod


class ClipStream(TestTimeMethod):
    """Zero-shot classification among the names of the source's classes; its images are not read.

    Args:
        config: Options.
        context: Backbone with a text tower.
    """

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone)
        self.views = Views(context.image_pipeline)
        self.names: tuple[str, ...] = ()
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes."""
        self.names = experience.class_names

    def passes(self) -> Sequence[Transform]:
        """None: training images are not read."""
        return ()

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Not called: there is no pass.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{type(self).__name__} trains nothing before the stream; the engine makes no pass")

    def begin_stream(self) -> None:
        """Nothing of the dual encoder adapts."""
        self.requires_grad_(False)

    def view(self, image: Tensor, count: int) -> Tensor:
        """Views ``(V, 3, S, S)`` of an image, the first one itself."""
        return self.views.cropped(image, count)

    def extra_state(self) -> Mapping[str, Any]:
        """Names of the classes."""
        return {"names": list(self.names)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the names back."""
        self.names = tuple(state["names"])
