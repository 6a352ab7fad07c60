"""toy-prototypes: learnable prototypes per class, compared by Euclidean distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.prompted_vit import cls_feature, freeze


@dataclass(frozen=True, kw_only=True, slots=True)
class PrototypesConfig(MethodConfig):
    """Options."""

    lr: float = 0.5
    epochs: int = 2
    batch_size: int = 16


class Prototypes(Method):
    """Rows of a growing head are prototypes."""

    def __init__(self, config: PrototypesConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = freeze(context.backbone.model)
        self.head = ClassHead(context.backbone.width)
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        self.head.grow(experience.seen)
        self.optimizer = torch.optim.SGD([self.head.weight], lr=self.config.lr)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        loss = F.cross_entropy(self.predict(batch.images), batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        features = F.normalize(cls_feature(self.backbone, images), dim=1)
        gaps = features.unsqueeze(1) - self.head.weight  # (B, C, D)
        return -gaps.pow(2).sum(dim=2)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    return [
        MethodSpec(
            name="toy-prototypes",
            build=Prototypes,
            config=PrototypesConfig,
            summary="learnable prototypes",
            uses=frozenset({"boundaries"}),
            recipes={"slow": {"lr": 0.05}},
        )
    ]
