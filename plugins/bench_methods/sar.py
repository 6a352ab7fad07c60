"""SAR: sharpness-aware descent of the entropy of reliable answers, and a way back to the source.

Paper: Niu, Wu, Zhang, Wen, Chen, Zhao, Tan. Towards Stable Test-Time Adaptation in Dynamic Wild World, ICLR 2023,
arXiv 2302.12400.
Official code: mr-eggplant/SAR at 20f6e24b (``sar.py``, ``sam.py``, ``main.py``).

R are the images whose entropy is below E0 = `margin` ln C. From theta a step of length `rho` up the mean entropy of R;
there a second forward pass, of whose images in R those below E0 give the gradient of a step of SGD at theta. A moving
mean of that second loss that falls below a threshold brings the source back. The answer is that of the first pass.
Where nothing is reliable, gradients are zero and the step is that of the momentum alone, as in the code.

Differences from the official code:
- The threshold is ``recovery`` ln C / ln 1000: 0.2 for 1000 classes, as the code has it for any number; after a
  recovery the moving mean and the momentum begin anew. The code writes the old mean back and keeps the momentum: recipe
  ``official``.
- Left out of adaptation are the last quarter of a transformer's blocks and its last norm, in other networks the last
  quarter of the layers and ``layer4``. The code leaves out names: ``layers=official``.
- Losses are scaled in no precision: ``engine.precision=fp16`` is not for it (its README says so, too).

Expected (ImageNet-C severity 5, imbalanced label shifts, ViT-B/16): accuracy 58.0. Not yet reproduced here on the paper
track.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from bench_methods._test_time import ADAPTING, SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.normalization import affine_parameters, norms
from benchmark.config import Range
from benchmark.learners.test_time import EntropyModel, StepConfig, entropy
from benchmark.specs import MethodSpec

OFFICIAL = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SarConfig(StepConfig):
    """Options of SAR.

    Attributes:
        margin: E0 relative to the largest entropy, ln C.
        rho: Length of the step up.
        recovery: Threshold of the moving mean of the loss, for 1000 classes; 0: never.
        layers: Which layers are left out of adaptation, see above; ``all`` leaves none out.
        released: A recovery keeps the moving mean and the momentum, and the threshold is the same for any number
            of classes.
    """

    adapt_optimizer: Literal["adam", "sgd"] = "sgd"
    adapt_lr: Annotated[float, Range(above=0, log=True, search=(1e-5, 1e-1))] = 2.5e-4
    margin: Annotated[float, Range(above=0, max=1)] = 0.4
    rho: Annotated[float, Range(above=0, log=True)] = 0.05
    recovery: Annotated[float, Range(min=0)] = 0.2
    layers: Literal["last-quarter", "official", "all"] = "last-quarter"
    released: bool = False


def left_out(model: nn.Module, rule: str) -> list[str]:
    """Names of the normalisation layers that do not adapt.

    Args:
        model: The backbone.
        rule: `SarConfig.layers`.
    """
    names = list(norms(model))
    if rule == "all":
        return []
    if rule == "official":
        return [name for name in names if name == "norm" or any(part in name for part in OFFICIAL)]
    blocks = {int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))}
    if blocks:
        first = len(blocks) - len(blocks) // 4
        kept = [name for name in names if (found := re.match(r"blocks\.(\d+)\.", name)) and int(found[1]) < first]
    else:
        kept = [name for name in names[: len(names) - len(names) // 4] if "layer4" not in name]
    return [name for name in names if name not in kept]


class Sar(EntropyModel):
    """See above."""

    config: SarConfig

    def __init__(self, config: SarConfig, context: Context) -> None:
        super().__init__(config, context)
        self.average: float | None = None  # of the second loss
        self.recovered = 0

    def adapted(self) -> dict[str, nn.Parameter]:
        """Scales and shifts of all but the last layers."""
        return affine_parameters(self.backbone, without=left_out(self.backbone, self.config.layers))

    def begin_stream(self) -> None:
        """Knows no loss yet."""
        super().begin_stream()
        self.average = None

    def reset_stream(self) -> None:
        """Puts back parameters and optimiser, and forgets the moving mean."""
        super().reset_stream()
        self.average = None

    def adapt(self, images: Tensor) -> Tensor:
        """Answers, goes up, and then down from where it was."""
        if self.config.reset_batch:
            self.reset_stream()
        for _ in range(self.config.steps):
            logits = self._step(images)
        return logits

    def _step(self, images: Tensor) -> Tensor:
        margin, optimizer = self.config.margin, self.active_optimizer
        parameters = list(self.adapted().values())
        logits = self.stream_logits(images)
        margin *= math.log(logits.shape[1])
        entropies = entropy(logits)
        reliable = entropies.detach() < margin
        optimizer.zero_grad(set_to_none=True)
        entropies[reliable].mean().backward()  # of nothing: not a number, but its gradients are zeros
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        length = torch.stack([gradient.norm() for gradient in gradients]).norm()
        before = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient * (self.config.rho / (length + 1e-12)))
        optimizer.zero_grad(set_to_none=True)
        again = entropy(self.stream_logits(images))[reliable]
        loss = again[again.detach() < margin].mean()
        loss.backward()
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
        optimizer.step()
        self._recover(float(loss.detach()), logits.shape[1])
        return logits.detach()

    def _recover(self, loss: float, classes: int) -> None:
        """Brings the source back where the moving mean of the loss is too small."""
        config = self.config
        if not math.isnan(loss):
            self.average = loss if self.average is None else 0.9 * self.average + 0.1 * loss
        threshold = config.recovery * (1.0 if config.released else math.log(classes) / math.log(1000))
        if self.average is None or self.average >= threshold:
            return
        self.recovered += 1
        if not config.released:
            self.reset_stream()
            return
        with torch.no_grad():
            for name, parameter in self.adapted().items():
                parameter.copy_(self._start[name])

    def extra_state(self) -> Mapping[str, Any]:
        """The moving mean, and how often the source was brought back."""
        return {"average": self.average, "recovered": self.recovered}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self.average, self.recovered = state["average"], int(state["recovered"])


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``sar``."""
    code = "mr-eggplant/SAR at 20f6e24b"
    nano: dict[str, object] = {"adapt_lr": 1e-3}
    return [
        MethodSpec(
            name="sar",
            build=Sar,
            config=SarConfig,
            summary="sharpness-aware entropy minimisation on reliable images, with recovery of the source",
            uses=frozenset({"boundaries", "test_batch", "test_stream"}),
            recipes={"official": {"layers": "official", "released": True}},
            tracks={track: {**values, **nano} for track, values in SOURCE.items()},
            rule=ADAPTING,
            waits=16,  # which images are reliable, twice, and whether the moving mean is too small
            toy={"epochs": 1},
            sources={
                "adapt_lr": f"{code}, main.py: SGD 2.5e-4 for ResNets in batches of 32 or more, 1e-3/64 B for ViT-B",
                "margin": f"{code}, main.py: 0.4 ln 1000",
                "rho": f"{code}, main.py",
                "recovery": f"{code}, sar.py: written in the function",
                "official": f"{code}, sar.py",
            },
            paper="arXiv:2302.12400",
            display="SAR",
            reference=code,
            adapts=True,
            published="sar",
        )
    ]
