"""Test-time adaptation against numbers recorded from official code (``tests/golden/test_time``).

The ``reference`` field of each json names repository and commit. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods import norm, tent
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.features import FeatureModel
from benchmark.backbones.heads import ClassHead
from benchmark.learners.test_time import SourceModel
from benchmark.testing.by_hand import context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[2] / "golden" / "test_time"
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}  # streams amplify rounding
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


class TinyCNN(nn.Module):
    """The network of the recorded cases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.avg_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        return F.relu(self.bn2(self.conv2(maps))).mean(dim=(2, 3))


class Stream:
    """A method with the weights of a case, at the beginning of its stream."""

    def __init__(self, plugin: Any, name: str, dtype: torch.dtype, *, part: int = 0, **options: Any) -> None:
        self.spec = plugin.bench_register_methods()[part]
        self.case = Recorded(GOLDEN, name, dtype)
        self.limit = LIMITS[dtype]
        if "vit" in self.case.meta["config"]:
            model: Any = self.case.vit()
            self.prefix = "backbone."
        else:
            net = TinyCNN()
            net.load_state_dict(self.case.part("backbone."), strict=False)  # but for the count of batches
            model = FeatureModel(net, name="tiny", width=12, image_size=8)
            self.prefix = "backbone.net."
        backbone = Backbone(name="given", model=model, mean=(0.0,) * 3, std=(1.0,) * 3, sha256="0" * 64)
        config = self.spec.config(**options)
        scenario = toy_scenario(family="tta", classes=5, train=1, test=2)
        self.method: SourceModel = self.spec.build(config, context_of(self.spec, config, scenario, backbone=backbone))
        head = self.method.head
        assert isinstance(head, ClassHead)
        head.grow(5)
        head.load_state_dict(self.case.part("method.head."))
        self.method.to(dtype).eval()
        self.prepare()
        self.method.begin_stream()
        self.images = self.case.tensor("input.images")

    def prepare(self) -> None:
        """Before the stream begins."""

    def parameter(self, key: str) -> Tensor:
        """A tensor of the method by its recorded name."""
        state = self.method.state_dict(keep_vars=True)
        return state[f"{self.prefix}{key}"] if f"{self.prefix}{key}" in state else state[key]

    def check_after(self, time: int, mark: str = "") -> None:
        """Compares what was recorded after a batch, counted from 1."""
        prefix = f"after{time}{mark}."
        for key in self.case.computed(prefix):
            self.case.compare(key, self.parameter(key.removeprefix(prefix)), limit=self.limit)

    def check_gradients(self) -> None:
        """Compares the gradients of the first step, which the parameters still hold."""
        for key in self.case.computed("grad1."):
            self.case.compare(key, self.parameter(key.removeprefix("grad1.")).grad, limit=self.limit)

    def run(self, *, resets: int = 0) -> None:
        """Answers the whole stream and compares; ``resets``: before every so many batches."""
        answers = []
        for time, batch in enumerate(self.images):
            if resets and time and time % resets == 0:
                self.method.reset_stream()
                self.check_after_reset(time)
            answers.append(self.method.adapt(batch))
            if time == 0:
                self.check_gradients()
            self.check_after(time + 1)
            self.also(time + 1)
        self.case.compare("stream.logits", torch.stack(answers), limit=self.limit)
        self.case.report()

    def check_after_reset(self, time: int) -> None:
        """Compares what was put back before a batch, counted from 0."""
        prefix = f"after_reset{time}."
        for key in self.case.computed(prefix):
            self.case.compare(key, self.parameter(key.removeprefix(prefix)), limit=self.limit)

    def also(self, time: int) -> None:
        """What else is compared after a batch."""


@both
@pytest.mark.parametrize(("name", "kind"), [("norm_batch_statistics", "batch"), ("norm_alpha", "alpha")])
def test_batch_statistics_equal_the_official_code(name: str, kind: str, dtype: torch.dtype) -> None:
    stream = Stream(norm, name, dtype, kind=kind)
    with torch.no_grad():
        source = torch.stack([stream.method.logits(batch) for batch in stream.images])
    stream.case.compare("source.logits", source, limit=stream.limit)
    answers = torch.stack([stream.method.adapt(batch) for batch in stream.images])
    stream.case.compare("stream.logits", answers, limit=stream.limit)


@both
@pytest.mark.parametrize(
    ("name", "options", "resets"),
    [
        ("tent_cnn_adam_continual", {}, 0),
        ("tent_cnn_sgd_reset_each_shift", {"adapt_optimizer": "sgd", "adapt_lr": 0.05}, 3),
        ("tent_vit_layernorm", {"adapt_optimizer": "sgd", "adapt_lr": 0.02, "nesterov": True}, 0),
    ],
)
def test_tent_equals_the_official_code(name: str, options: dict[str, Any], resets: int, dtype: torch.dtype) -> None:
    Stream(tent, name, dtype, **options).run(resets=resets)
