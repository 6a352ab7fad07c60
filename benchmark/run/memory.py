"""A full memory: how it shows, and by how much to lower what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.errors import RunFailed
from benchmark.guard import memory_is_full

GIB = 2**30
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(bytes|KiB|MiB|GiB|TiB)?")
_UNITS = {"": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

__all__ = ["Room", "explained", "memory_is_full", "release", "room"]


@dataclass(frozen=True)
class Room:
    """What a device has for a pass over samples.

    Attributes:
        held: Bytes that stay held between two passes: weights, optimiser, features; 0 where unknown.
        total: Bytes that this process may have; 0 where unknown.
    """

    held: int = 0
    total: int = 0


def room(device: torch.device) -> Room:
    """As it is now."""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)  # not in old versions
        share = fraction(device)  # `--jobs` divides a GPU
        total = min(free + torch.cuda.memory_reserved(device), int(share * whole))
        return Room(torch.cuda.memory_allocated(device), total)
    try:
        told = dict(re.findall(r"^(\w+):\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
        own = dict(re.findall(r"^(\w+):\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE))
        held = int(own["VmRSS"]) * 1024
        return Room(held, int(told["MemAvailable"]) * 1024 + held)
    except (OSError, KeyError):
        return Room()


def asked_for(error: BaseException) -> int:
    """Bytes that could not be had, as the message of an exception tells; 0 where it does not."""
    found = _ASKED.search(str(error))
    return int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0


def fits(rows: int, before: Room, asked: int) -> int:
    """How many samples of a pass may fit: at most half of those that did not, and fewer where sizes say so.

    Args:
        rows: Samples of the pass that failed, at least 2.
        before: The room before it.
        asked: Bytes that could not be had when memory was full; what the pass needs is at least that much too much.
    """
    most = rows // 2
    space = before.total - before.held
    if before.total and asked > 0 and space > 0:
        most = min(most, rows * space // (space + asked))
    return max(1, most)


def explained(
    error: BaseException, *, label: str, doing: str, rows: int, option: str, before: Room, kept: str
) -> RunFailed:
    """One message that says by how much to lower what.

    Args:
        error: What torch or Python raised.
        label: The run.
        doing: What did not fit, e.g. ``a training step``.
        rows: Samples of it.
        option: The option that says how many samples it is, or how many are to be at once.
        before: The room before it.
        kept: What is left of the run.
    """
    asked = asked_for(error)
    sizes = f", {_said(asked)} more were asked for" if asked else ""
    if before.total:
        sizes += f" of {_said(before.total)} that there are, {_said(before.held)} of them held before it"
    if rows < 2:
        advice = "use a smaller backbone or image size, engine.activation_checkpointing=true or engine.precision=bf16"
    else:
        advice = f"--set {option}={fits(rows, before, asked)} or lower (it was {rows})"
        if option == "engine.micro_batch":
            advice += ": the same batches in parts, or engine.batch_fallback=true, which finds the size"
            advice += "; engine.activation_checkpointing=true and engine.precision=bf16 take less memory as well"
    return RunFailed(f"{label}: out of memory in {doing} of {rows} samples{sizes}", hint=f"{advice}; {kept}")


def _said(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"


def release(device: torch.device) -> None:
    """Gives back what nobody holds any more, so that smaller pieces find a place."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
