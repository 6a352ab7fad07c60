"""What a run costs: parameters, FLOPs, bytes kept, memory. See section 5 of the metrics text."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.api import Batch, ExperienceView, FeatureMethod, LoopMethod, Manifest, Method, Scenario
from benchmark.backbones import blocks
from benchmark.run import checkpoint

NAMES = (
    "params_total",
    "params_trainable",
    "params_trainable_per_experience",
    "params_added",
    "flops_forward",
    "macs_forward",
    "flops_train_step",
    "storage_bytes",
)
"""Of the costs of a run, as its record has them."""


def unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors without repetition, in order."""
    return list({id(tensor): tensor for tensor in tensors}.values())


def all_parameters(method: Method) -> list[nn.Parameter]:
    """Parameters of the method and its pretrained model, shared ones once."""
    tower = method.context.pretrained.tower
    return [p for p in unique([*tower.parameters(), *method.parameters()]) if isinstance(p, nn.Parameter)]


def trainable(method: Method) -> int:
    """Elements with ``requires_grad``; with an optimiser, those that it holds."""
    wanted = [p for p in all_parameters(method) if p.requires_grad]
    if method.optimizer is not None:
        held = {id(p) for group in method.optimizer.param_groups for p in group["params"]}
        wanted = [p for p in wanted if id(p) in held]
    return sum(p.numel() for p in wanted)


def total(method: Method) -> int:
    """Elements of all parameters used at test time; buffers are not counted."""
    return sum(p.numel() for p in all_parameters(method))


def pretrained_rest(method: Method) -> int:
    """Elements of what the pretrained model has besides its tower, as far as the method holds it."""
    pretrained = method.context.pretrained
    tower, held = ({id(p) for p in module.parameters()} for module in (pretrained.tower, method))
    return sum(p.numel() for p in pretrained.module.parameters() if id(p) in held - tower)


def storage_bytes(method: Method) -> int:
    """Bytes that must be kept until the next experience, besides the pretrained model."""
    trained = [p for p in method.context.pretrained.module.parameters() if p.requires_grad]
    kept = unique([*trained, *method.kept_between_experiences()])
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


class _Whole:
    """Stands for torch's `ModuleTracker`: all is one module.

    Following modules costs a third of the counting, and fails on views of parameters that ask for a gradient.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class _Counter(FlopCounterMode):
    """Counts the total alone."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _Whole()  # type: ignore[assignment]


def count_flops(method: Method, work: Callable[[Method], object]) -> int:
    """FLOP of ``work`` on a copy of the method; the method and the random state are not touched.

    One multiply-add counts 2. The plain attention path is used so that its products are seen, and blocks are computed
    as usual: what is computed again to save memory is not what the step costs.
    """
    twin, state = copy.deepcopy(method), checkpoint.random_state()
    with blocks.computed(), sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
        work(twin)
    checkpoint.set_random_state(state)
    return int(counter.get_total_flops())


def step_flops(method: Method, batch: Batch) -> int:
    """FLOP of one training step on a batch; features that the batch was encoded to count, those of a bank do not.

    The step runs on a copy of the batch: a method may change its batch in place, and trains on this very one next.
    """
    batch = copy.deepcopy(batch)
    encoded = [inputs for inputs in (batch.inputs, batch.target) if inputs is not None and len(inputs) > 0]

    def step(twin: Method) -> None:
        if isinstance(twin, FeatureMethod):
            with torch.no_grad():
                for inputs in encoded:
                    twin.encode(inputs)
        twin.train_step(batch)

    return count_flops(method, step)


def loop_step_flops(method: LoopMethod, scenario: Scenario, index: int, manifest: Manifest) -> int:
    """FLOP per training step of a method with its own loop, from a copy trained on one batch.

    Args:
        method: After `begin_experience` of the experience.
        scenario: What it is shown of.
        index: The experience.
        manifest: What it declares.
    """
    experience = scenario.experiences[index]
    rows = torch.arange(min(method.config.batch_size, len(experience.train)))
    short = dataclasses.replace(experience, train=experience.train.subset(rows))
    parts = (*scenario.experiences[:index], short)
    view = ExperienceView(dataclasses.replace(scenario, experiences=parts), index, manifest)

    def train(twin: Method) -> None:
        if isinstance(twin, LoopMethod):
            twin.train_experience(view)

    return count_flops(method, train) // max(1, int(method.config.epochs))


def reset_peak_memory(device: torch.device) -> None:
    """Starts `peak_memory_bytes` anew, so that a run is not charged for one before it in the same process.

    Only Linux can do this for the memory of a process; elsewhere its peak stays that of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """CUDA: most memory allocated; CPU: largest resident set of this process; in bytes, 0 where unknown (Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on other systems, bytes on macOS
