"""Optimisers and learning-rate schedules that torch does not have in the form that published code uses.

The protocol of KMnP/vpt at 4410440 (Jia et al., ECCV 2022, arXiv 2203.12119; ``src/solver``), which the
tuning baselines and visual prompts of that paper share::

    optimizer = protocol_optimizer(model.named_parameters(), kind="adamw", lr=1e-3, weight_decay=0.01)
    factor = warmup_cosine(epoch, warmup=10, epochs=100)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor

The schedule that CoOp, CoCoOp and DAPL share (KaiyangZhou/Dassl.pytorch at c61a1b57, ``dassl/optim/lr_scheduler.py``)::

    rate = delayed_cosine(epoch, lr=0.002, period=200)          # CoOp: per epoch, never quite 0
    rate = delayed_cosine(iteration, lr=0.003, period=25)       # DAPL: per iteration, up and down again
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, nn

Kind = Literal["sgd", "adamw"]

HARD_CODED_DECAY = 0.01  # KMnP/vpt, src/solver/optimizer.py: the configured value never reaches AdamW


def warmup_cosine(epoch: int, *, warmup: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch: ``e / W``, then ``(1 + cos(pi (e - W) / (E - W))) / 2``.

    Epoch 0 of a warm-up has factor 0: a whole epoch without updates, as in the official code.

    Args:
        epoch: e, from 0.
        warmup: W, epochs of the warm-up; 0 starts at factor 1. With W >= E the warm-up never ends.
        epochs: E.
    """
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(1, epochs - warmup)))


def delayed_cosine(place: int, *, lr: float, period: int, warmup: int = 1, warmup_lr: float = 1e-5) -> float:
    """Learning rate that is constant for a while, then ``lr (1 + cos(pi (e - W) / T)) / 2``.

    The cosine counts from the end of the warm-up but its period does not get shorter: over T epochs it ends above 0,
    and behind T it rises again.

    Args:
        place: e, number of the epoch (or of the iteration), from 0.
        lr: Where the cosine starts.
        period: T, from its top to its bottom.
        warmup: W, how many epochs (or iterations) are constant; 0 starts with the cosine.
        warmup_lr: Learning rate in these.
    """
    if place < warmup:
        return warmup_lr
    return 0.5 * lr * (1 + math.cos(math.pi * (place - warmup) / period))


class _Stepwise(torch.optim.Optimizer):
    """An optimiser that moves one parameter after the other."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step.

        Args:
            closure: Computes the loss anew, with gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Moves a parameter along its gradient, with the options of its group."""
        raise NotImplementedError


class DecayLastAdamW(_Stepwise):
    """AdamW as early Hugging Face code had it.

    Two differences from `torch.optim.AdamW`: ``eps`` is added before bias correction,
    ``w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``, and decay comes after that step,
    ``w -= lr * weight_decay * w``.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Of the first and second moment.
        eps: Added to the root of the uncorrected second moment.
        weight_decay: Decoupled decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = group["lr"] * math.sqrt(1 - second ** state["step"]) / (1 - first ** state["step"])
        parameter.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-size)
        if group["weight_decay"] > 0:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


class Adafactor(_Stepwise):
    """Adafactor of t5x as prompt tuning configures it: not factored, no momentum, no scaling by the parameter.

    With ``t = first_step + 1, first_step + 2, ...`` and ``beta = 1 - t ** -decay_rate``::

        v = beta v + (1 - beta) (g^2 + eps1)
        u = g / sqrt(v);  u = u / max(1, RMS(u) / clipping)
        p = (1 - weight_decay) p - lr u

    Source: google-research/t5x at 0eb60a64, ``t5x/adafactor.py``, under the configuration of google-research/
    prompt-tuning at 72285eea. Decay is decoupled and **not** multiplied by the learning rate. t5x factors second
    moments of large matrices, which a prompt of fewer than 128 rows is not. t5x computes beta in float32, here it is
    float64.

    Args:
        params: Parameters or groups.
        lr: Learning rate: the RMS of an update that is clipped.
        first_step: Steps before the first one. t5x counts those of pre-training: 1,100,000 in the paper's runs, whose
            v hardly decays and whose updates therefore all have an RMS of ``lr``; 0 is a run of its own, whose first
            update is the sign of the gradient.
        decay_rate: Exponent of beta.
        clipping: Largest RMS of an update, as a multiple of ``lr``.
        eps1: Added to squared gradients.
        weight_decay: Share that a parameter loses in each step.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.3,
        *,
        first_step: int = 0,
        decay_rate: float = 0.8,
        clipping: float = 1.0,
        eps1: float = 1e-30,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"first_step": first_step, "decay_rate": decay_rate, "clipping": clipping, "eps1": eps1}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **defaults})

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = group["first_step"]
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta = 1 - state["step"] ** -group["decay_rate"]
        squares: Tensor = state["exp_avg_sq"]
        squares.mul_(beta).add_(gradient.square().add_(group["eps1"]), alpha=1 - beta)
        update = gradient * squares.rsqrt()
        size = update.square().mean().sqrt()
        parameter.mul_(1 - group["weight_decay"])
        if size.device.type == "cpu":
            parameter.add_(update, alpha=-group["lr"] / max(1.0, float(size) / group["clipping"]))
        else:  # the host does not wait for the number
            scale = (size / group["clipping"]).clamp_(min=1.0).reciprocal_()
            parameter.addcmul_(update, scale, value=-group["lr"])


def protocol_optimizer(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    kind: Kind,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    last_bias: str = "last_layer.bias",
    bias_multiplier: float = 1.0,
    quirks: bool = False,
    rate: Callable[[str], float] | None = None,
) -> torch.optim.Optimizer:
    """SGD or AdamW as KMnP/vpt makes them; names decide which parameters decay.

    ``sgd``: coupled decay on everything but the last layer's bias. ``adamw`` (`DecayLastAdamW`): no decay
    on biases, nor on what has one dimension (weights of LayerNorm and BatchNorm).

    Args:
        named: Names and parameters; those without ``requires_grad`` are left out.
        kind: Which of the two.
        lr: Learning rate.
        weight_decay: Decay of what decays.
        momentum: Of SGD.
        last_bias: Part of the name of the head's last bias.
        bias_multiplier: In ``sgd``, factor on the learning rate of all other biases.
        quirks: As the official code behaves: ``adamw`` decays by 0.01 whatever ``weight_decay`` says, and the
            weights of norms too; and with ``weight_decay`` 0 it is SGD with momentum.
        rate: Further factor on the learning rate by name, e.g. for the backbone.

    Returns:
        The optimiser; each group has its ``base_lr``, from which a schedule starts.
    """
    if kind == "adamw" and quirks:
        kind, weight_decay = ("sgd", 0.0) if weight_decay == 0 else ("adamw", HARD_CODED_DECAY)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        bias, last = "bias" in name, last_bias in name
        decays = not last if kind == "sgd" else not bias and (quirks or parameter.ndim > 1)
        own = lr * (1.0 if rate is None else rate(name))
        if kind == "sgd" and bias and not last:
            own *= bias_multiplier
        groups.setdefault((own, weight_decay if decays else 0.0), []).append(parameter)
    made: list[dict[str, Any]] = [
        {"params": parameters, "lr": own, "base_lr": own, "weight_decay": decay}
        for (own, decay), parameters in groups.items()
    ]
    if kind == "sgd":
        return torch.optim.SGD(made, lr=lr, momentum=momentum)
    return DecayLastAdamW(cast("Iterable[dict[str, Any]]", made), lr=lr)
