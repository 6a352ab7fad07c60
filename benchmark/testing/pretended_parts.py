"""Parts of the pretended device (`benchmark.testing.pretended_device`) that know nothing of its tensors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).with_name("pretended_")))


class MixedDevices(RuntimeError):
    """An operation that a GPU refuses: host and device are mixed."""


@dataclass
class Traffic:
    """What went between host and device.

    Attributes:
        to_device: Copies from the host.
        to_host: Copies to the host.
        waits: Where the host waited for the device, in order: what for, and the line of code.
    """

    to_device: int = 0
    to_host: int = 0
    waits: list[str] = field(default_factory=list)

    @property
    def copies(self) -> int:
        """In both directions."""
        return self.to_device + self.to_host

    def wait(self, what: str) -> None:
        """The host waits; the innermost line outside of torch is to blame."""
        self.waits.append(f"{what} at {place()}")


def place() -> str:
    """The innermost line of code that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno}"


class Module:
    """What torch asks of ``torch.gpu``."""

    def is_initialized(self) -> bool:
        """As of a device that was used before."""
        return True

    def is_available(self) -> bool:
        """It is."""
        return True

    def device_count(self) -> int:
        """One."""
        return 1

    def current_device(self) -> int:
        """That one."""
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers come from the host's generator, which is seeded with it."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Types that autocast may be asked for."""
        return [torch.bfloat16, torch.float16]


def lstm(
    inputs: Tensor,
    states: Any,
    weights: Any,
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.nn.LSTM` as the CPU computes it: for a device torch would ask for a fused cell."""
    found = inputs.transpose(0, 1) if batch_first else inputs
    size, ends = 4 if has_biases else 2, []
    directions = 2 if bidirectional else 1
    for layer in range(layers):
        sides = []
        for side in range(directions):
            place = layer * directions + side
            w_in, w_state, *bias = weights[place * size : (place + 1) * size]
            b_in, b_state = bias or (None, None)
            state, cell = states[0][place], states[1][place]
            gated = torch.nn.functional.linear(found, w_in, b_in)
            steps = list(gated.unbind(0))
            outs = []
            for one in reversed(steps) if side else steps:
                gates = torch.nn.functional.linear(state, w_state, b_state) + one
                into, forget, new, out = gates.chunk(4, dim=1)
                cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
                state = out.sigmoid() * cell.tanh()
                outs.append(state)
            sides.append(torch.stack(outs[::-1] if side else outs))
            ends.append((state, cell))
        found = torch.cat(sides, dim=-1)
        if dropout and train and layer < layers - 1:
            found = torch.nn.functional.dropout(found, dropout)
    found = found.transpose(0, 1) if batch_first else found
    return found, torch.stack([state for state, _ in ends]), torch.stack([cell for _, cell in ends])
