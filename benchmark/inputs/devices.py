"""What goes to a device without the host waiting for it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def moved(raw: Tensor, device: torch.device | None) -> Tensor:
    """Samples on a device; on the way to CUDA through page-locked memory, whose copy runs beside what is computed.

    The other way, from a device, the host would not wait for what it then reads.
    """
    host = raw.device.type == "cpu"
    if host and device is not None and device.type == "cuda":
        raw = raw.pin_memory()  # itself, if it is already
    return raw if device is None else raw.to(device, non_blocking=host)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers on a device; copied there once, since the host waits for each such copy."""
    with torch.inference_mode(False):  # whoever asks first must not decide what the others may do with them
        return torch.tensor(values, dtype=dtype, device=device)
