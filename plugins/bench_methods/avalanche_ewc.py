"""Elastic weight consolidation: a quadratic penalty on weights that mattered before.

Paper: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 2017,
arXiv 1612.00796. Official code: none; ContinualAI/avalanche 0.6.0, ``avalanche/training/plugins/ewc.py``.

Differences from the paper (Avalanche's): importances are the mean over *batches* of squared gradients
of the batch loss for the true labels, which is smaller than the Fisher information by up to the
batch size; a suitable ``penalty`` is larger by the same factor.
``separate`` keeps weights and importances of every experience: 2 copies of the model each, and as
many in the checkpoint. Importances, penalty and three experiences equal the formula written out
(tests/unit/methods/test_avalanche_restated.py).
Expected: no published figure with a pretrained ViT is reproduced here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from benchmark import hookimpl
from benchmark.avalanche.strategies import AvalancheConfig, AvalancheMethod
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class EwcConfig(AvalancheConfig):
    """Options of elastic weight consolidation.

    Attributes:
        penalty: Weight of the quadratic term (lambda of the paper, without its factor 1/2).
        mode: ``separate`` penalties per experience, or one ``online`` sum.
        decay: In ``online`` mode, factor on the old importances.
    """

    penalty: Annotated[float, Range(min=0, log=True, search=(0.1, 1e4))] = 100.0
    mode: Literal["separate", "online"] = "separate"
    decay: Annotated[float, Range(min=0, max=1)] = 1.0


class AvalancheEwc(AvalancheMethod):
    """Naive training with an EWC plugin."""

    config: EwcConfig

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        """A plain strategy with ``EWCPlugin``."""
        from avalanche.training.plugins import EWCPlugin
        from avalanche.training.templates import SupervisedTemplate

        config = self.config
        decay = config.decay if config.mode == "online" else None
        ewc = EWCPlugin(ewc_lambda=config.penalty, mode=config.mode, decay_factor=decay)
        return SupervisedTemplate(model=model, optimizer=optimizer, plugins=[ewc], **common)

    def remember(self, strategy: Any) -> Mapping[str, Any]:
        """Weights and importances by experience."""
        ewc = strategy.plugins[0]
        return {name: _tensors(getattr(ewc, name)) for name in ("saved_params", "importances")}

    def recall(self, strategy: Any, kept: Mapping[str, Any]) -> None:
        """Puts weights and importances back, with importance 0 for rows of new classes."""
        from avalanche.training.utils import ParamData

        ewc, device = strategy.plugins[0], self.context.device
        shapes = {key: parameter.shape for key, parameter in strategy.model.named_parameters()}
        for name, experiences in kept.items():
            for experience, tensors in experiences.items():
                # Padded here: Avalanche's own padding indexes with a list, which torch is about to reinterpret.
                getattr(ewc, name)[int(experience)] = {
                    key: ParamData(key, init_tensor=_padded(tensor.to(device), shapes[key]), device=device)
                    for key, tensor in tensors.items()
                }


def _padded(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The tensor with zero rows below, up to ``shape``."""
    if tensor.shape == shape:
        return tensor
    rows = tensor.new_zeros(shape[0] - len(tensor), *shape[1:])
    return torch.cat([tensor, rows])


def _tensors(by_experience: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        str(experience): {key: param.data.detach().clone() for key, param in params.items()}
        for experience, params in by_experience.items()
        if params
    }


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``avalanche-ewc``."""
    return [
        MethodSpec(
            name="avalanche-ewc",
            build=AvalancheEwc,
            config=EwcConfig,
            summary="elastic weight consolidation with Avalanche's plugin",
            uses=frozenset({"boundaries"}),
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.003, "penalty": 100.0},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.001, "penalty": 1000.0},
            },
            rule="results/search.py: best on held-out training images",
            paper="arXiv:1612.00796",
            reference="ContinualAI/avalanche@0.6.0",
        )
    ]
