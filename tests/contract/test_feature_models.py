"""Methods that read one feature vector per image, through the contract on a residual network with BatchNorm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.errors import UsageError
from benchmark.testing import checks, toys

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

METHODS = ("nearest-mean", "finetune", "dann", "avalanche-lwf")
CHECKS = ("same-seed", "weights", "batch", "resume", "batch-of-one", "costs")

_subjects: dict[str, checks.MethodSubject] = {}


def subject(method: str) -> checks.MethodSubject:
    if method not in _subjects:
        _subjects[method] = checks.method_subject(method)
        _subjects[method].model = toys.tiny_resnet
    return _subjects[method]


def statistics(module: nn.Module) -> list[torch.Tensor]:
    return [tensor for name, tensor in module.named_buffers() if name.endswith(("running_mean", "running_var"))]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_on_features_keeps_the_contract(method: str, check: str) -> None:
    checks.METHOD_CHECKS[check](subject(method))


@pytest.mark.parametrize(
    ("method", "moves"), [("nearest-mean", False), ("linear-probe", False), ("finetune", True), ("dann", True)]
)
def test_statistics_move_where_the_backbone_trains_and_nowhere_else(method: str, moves: bool) -> None:
    found = statistics(subject(method).baseline.prepared.pretrained.module)
    before = statistics(toys.tiny_resnet().module)
    assert len(found) == 6
    assert [not torch.equal(one, two) for one, two in zip(found, before, strict=True)] == [moves] * 6


@pytest.mark.parametrize("method", ["l2p", "vpt-deep", "adapter", "lora", "ranpac", "partial-k"])
def test_a_method_on_tokens_says_why_it_does_not_run(method: str) -> None:
    asked = subject(method)
    with pytest.raises(
        UsageError, match=f"method `{method}` needs a vision transformer's tokens; tiny-resnet has none"
    ):
        asked.run(asked.brief())
    assert subject("ranpac@no-phase1").run(asked.brief()).record.status == "completed"
