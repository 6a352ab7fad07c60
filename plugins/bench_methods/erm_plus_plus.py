"""ERM++: fine-tuning with a warm-up of the head and the mean of the weights of all later steps.

Paper: Teterwak, Saito, Tsiligkaridis, Saenko, Plummer. ERM++: An Improved Baseline for Domain Generalization, arXiv
2304.01973.
Official code: facebookresearch/DomainBed at b93c22a1 (``ERMPlusPlus``, ``ErmPlusPlusMovingAvg``), compared on recorded
numbers; piotr-teterwak/erm_plusplus at 2535f5d2 was read.

For `linear_steps` steps and one more the head alone trains; then an optimiser begins anew for everything. The mean
of the weights (running statistics of BatchNorm included) is the network itself until step `average_from`, and the
uniform mean of the weights after that and all later steps from then on. The mean predicts.

Differences from the official code:
- Not here: the second training on the validation images, with the schedule that the first one found, and the choice of
  pretrained weights, which is the backbone's (``--backbone``).
- After a step DomainBed sends the batch through the mean once more in training mode, which moves its BatchNorm
  statistics, unless BatchNorm is frozen; here they are the mean of the network's. The authors' own repository
  differs in this, too. Plain vision transformers have no BatchNorm.
- Batches hold images of the domains in proportion to their numbers, passes are whole, the last epoch counts.

Expected (ResNet-50, ``erm++@domainbed``): not stated in the sources that were read for this file. Not yet run here on
the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from bench_methods._recipes import DOMAINBED, DOMAINBED_ADAM
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView
from benchmark.config import Range
from benchmark.learners.adaptation import Adaptation, PlainConfig
from benchmark.learners.averaging import WeightAverage
from benchmark.learners.generalisation import generalises
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ERMPlusPlusConfig(PlainConfig):
    """Options of ERM++.

    Attributes:
        linear_steps: Steps, and one more, in which the head alone trains; the schedule runs on.
        linear_lr: Learning rate of these.
        average_from: Finished steps from which the mean is one of several weights.
    """

    linear_steps: Annotated[int, Range(min=0, log=True)] = 500
    linear_lr: Annotated[float, Range(above=0, log=True)] = 5e-5
    average_from: Annotated[int, Range(min=1, log=True)] = 600


class ERMPlusPlus(Adaptation):
    """A classifier whose head is warmed up, and the mean of its weights."""

    config: ERMPlusPlusConfig

    def __init__(self, config: ERMPlusPlusConfig, context: Context) -> None:
        super().__init__(config, context)
        self.average = WeightAverage()

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows, makes the optimiser; the mean begins anew."""
        super().begin_experience(experience)
        self.average.clear()

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of the head or of everything, then of the mean."""
        config, place = self.config, batch.place
        terms = self.terms(batch)
        if place.step <= config.linear_steps:
            factor = self.factor(place) * config.linear_lr / config.lr
            self.descend(terms["loss"], factor=factor, still=[self.backbone, self.bottleneck])
        else:
            if place.step == config.linear_steps + 1:
                self.active_optimizer.state.clear()
            self.descend(terms["loss"], factor=self.factor(place))
        if place.step + 1 < config.average_from or not self.average.tensors:
            self.average.follow(self)
        else:
            self.average.add(self)
        return {name: term.detach() for name, term in terms.items()}

    def end_experience(self, experience: ExperienceView) -> None:
        """The mean takes the place of the network."""
        super().end_experience(experience)
        self.average.put_into(self)
        self.average.clear()

    def predict(self, images: Tensor) -> Tensor:
        """Logits of the mean, ``(B, C)``."""
        if not self.average.tensors:
            return super().predict(images)
        with self.average.inside(self):
            return super().predict(images)

    def embed(self, images: Tensor) -> Tensor:
        """Features of the mean, ``(B, d)``."""
        with self.average.inside(self):
            return super().embed(images)

    def extra_state(self) -> Mapping[str, Any]:
        """The mean."""
        return self.average.state()

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts it back."""
        self.average.load(state, self.context.device)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``erm++``."""
    return [
        MethodSpec(
            name="erm++",
            display="ERM++",
            build=ERMPlusPlus,
            config=ERMPlusPlusConfig,
            summary="fine-tuning with a warm-up of the head and the mean of later weights",
            uses=frozenset({"boundaries"}),
            recipes={
                "domainbed": {**DOMAINBED_ADAM, "linear_steps": 500, "linear_lr": 5e-5, "average_from": 600},
            },
            tracks={
                "nano": {
                    "batch_size": 32,
                    "epochs": 3,
                    "lr": 0.1,
                    "linear_steps": 14,
                    "linear_lr": 0.1,
                    "average_from": 90,
                },
                "mini": {
                    "batch_size": 32,
                    "epochs": 2,
                    "lr": 0.03,
                    "linear_steps": 14,
                    "linear_lr": 0.03,
                    "average_from": 90,
                },
            },
            rule="nano, lr: results/search.py, best on held-out source images; nano and mini: all else the values of "
            "source-only; a tenth of nano's steps warms up, the last third is averaged",
            toy={"iterations": 6, "linear_steps": 1, "average_from": 4},
            sources={
                "linear_steps": DOMAINBED + "; likewise linear_lr",
                "average_from": "facebookresearch/DomainBed at b93c22a1, lib/misc.py: sma_start_iter",
                "lr": "as source-only",
                "schedule": "as source-only",
                "domainbed": DOMAINBED,
            },
            paper="arXiv:2304.01973",
            reference="facebookresearch/DomainBed@b93c22a1",
            supports=generalises,
        )
    ]
