"""Learning without forgetting: the model before the experience teaches its successor its old outputs.

Paper: Li and Hoiem, Learning without Forgetting, ECCV 2016, arXiv 1606.09282.
Official code: lizhitwo/LearningWithoutForgetting (Matlab); compared with ContinualAI/avalanche 0.6.0,
``avalanche/training/plugins/lwf.py``.

Differences from the paper: one head for all classes instead of a head per task, no warm-up of the new
rows; the distillation term is the KL divergence at temperature 2 over the classes seen before, all of them together.
Teacher and student see the same augmented batch. By default all classes seen compete in the loss for the labels, as in
Avalanche, which pushes old outputs down while the other term holds them; ``avalanche-lwf@masked`` lets only the
classes of the experience compete, as with the paper's own head for the new task.
Loss and three experiences equal the formula written out (tests/unit/methods/test_avalanche_restated.py).
Expected: no published figure with a pretrained ViT is reproduced here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from torch import Tensor

from benchmark import hookimpl
from benchmark.api import ExperienceView
from benchmark.avalanche.strategies import AvalancheConfig, AvalancheMethod
from benchmark.backbones.heads import mask_logits
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LwfConfig(AvalancheConfig):
    """Options of learning without forgetting.

    Attributes:
        alpha: Weight of the distillation term.
        temperature: Of its softmax.
        mask: Classes that compete in the loss for the labels: ``none`` lets all classes seen compete, ``current``
            only those of the experience (without effect in domain-incremental streams).
    """

    alpha: Annotated[float, Range(min=0, log=True, search=(0.1, 100.0))] = 1.0
    temperature: Annotated[float, Range(above=0)] = 2.0
    mask: Literal["none", "current"] = "none"


class AvalancheLwf(AvalancheMethod):
    """Naive training with an LwF plugin."""

    config: LwfConfig

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes; remembers which ones compete."""
        super().begin_experience(experience)
        masked = self.config.mask == "current" and not self.context.family.domains
        self._allowed = experience.classes if masked else None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy among the classes that compete."""
        return F.cross_entropy(mask_logits(logits, self._allowed), labels)

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        """A plain strategy with ``LwFPlugin``."""
        from avalanche.training.plugins import LwFPlugin
        from avalanche.training.templates import SupervisedTemplate

        lwf = LwFPlugin(alpha=self.config.alpha, temperature=self.config.temperature)
        common["criterion"] = self.loss
        return SupervisedTemplate(model=model, optimizer=optimizer, plugins=[lwf], **common)

    def remember(self, strategy: Any) -> Mapping[str, Any]:
        """The teacher's weights and the classes it knows."""
        lwf = strategy.plugins[0].lwf
        return {
            "teacher": {name: tensor.detach().clone() for name, tensor in lwf.prev_model.state_dict().items()},
            "classes": sorted(int(label) for label in lwf.prev_classes_by_task[0]),
            "count": lwf.expcount,
        }

    def recall(self, strategy: Any, kept: Mapping[str, Any]) -> None:
        """Makes the teacher from the model and its old weights."""
        lwf = strategy.plugins[0].lwf
        lwf.prev_model = copy.deepcopy(strategy.model)
        lwf.prev_model.load_state_dict(kept["teacher"])
        lwf.prev_classes_by_task[0] = set(kept["classes"])
        lwf.expcount = kept["count"]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``avalanche-lwf``."""
    return [
        MethodSpec(
            name="avalanche-lwf",
            build=AvalancheLwf,
            config=LwfConfig,
            summary="learning without forgetting with Avalanche's plugin",
            uses=frozenset({"boundaries"}),
            recipes={"masked": {"mask": "current"}},
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.003, "alpha": 100.0},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003, "alpha": 1.0},
            },
            rule="results/search.py: best on held-out training images",
            sources={"mask": "Avalanche; masked: paper, section 3, with one head per task"},
            paper="arXiv:1606.09282",
            reference="ContinualAI/avalanche@0.6.0",
        )
    ]
