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

from bench_methods import cotta, eata, lame, memo, norm, sar, tent
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
        self.losses: list[Tensor] = []
        self.note_losses()
        self.prepare()
        self.method.begin_stream()
        self.images = self.case.tensor("input.images")

    def note_losses(self) -> None:
        """Remembers every loss that the method goes down."""
        descend = self.method.descend

        def noting(loss: Tensor, **how: Any) -> None:
            self.losses.append(loss.detach())
            descend(loss, **how)

        self.method.descend = noting  # type: ignore[method-assign,assignment]

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
        if self.case.computed("stream.loss") == ["stream.loss"]:
            self.case.compare("stream.loss", torch.stack(self.losses), limit=self.limit)
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


class Eata(Stream):
    """What EATA counts, and its mean prediction."""

    def prepare(self) -> None:
        """Computes the Fisher matrix from the recorded source images."""
        self.counts: list[tuple[int, int]] = []
        self.means: list[Tensor] = []
        assert isinstance(self.method, eata.Eta)
        if not isinstance(self.method, eata.Eata):
            return
        self.method.fisher = self.method.fisher_matrix(list(self.case.tensor("input.fisher_images")))
        for name, found in zip(self.method.adapted(), self.method.fisher, strict=True):
            self.case.compare(f"fisher.{name.removeprefix('net.')}", found, limit=self.limit)

    def also(self, time: int) -> None:
        """Notes both."""
        assert isinstance(self.method, eata.Eta)
        self.counts.append((self.method.reliable, self.method.used))
        none = torch.full((5,), torch.nan, dtype=self.case.dtype)
        self.means.append(none if self.method.mean is None else self.method.mean)


@both
@pytest.mark.parametrize(
    ("name", "part", "options"),
    [("eata_eta", 0, {"redundancy": 0.6}), ("eata_eata_fisher", 1, {"redundancy": 0.9, "fisher_alpha": 50.0})],
)
def test_eta_and_eata_equal_the_official_code(
    name: str, part: int, options: dict[str, Any], dtype: torch.dtype
) -> None:
    stream = Eata(eata, name, dtype, part=part, adapt_optimizer="sgd", adapt_lr=0.05, **options)
    stream.run()
    reliable, used = (torch.tensor(found) for found in zip(*stream.counts, strict=True))
    for key, found in (("stream.reliable", reliable), ("stream.used", used)):
        assert found.tolist() == stream.case.arrays[f"f64.{key}"].astype(int).tolist()
    wanted = torch.from_numpy(stream.case.arrays["f64.stream.mean_probabilities"]).to(dtype)
    torch.testing.assert_close(torch.stack(stream.means), wanted, rtol=0, atol=stream.limit, equal_nan=True)


class Sar(Stream):
    """What SAR averages, and its momentum."""

    def prepare(self) -> None:
        """Nothing is averaged yet."""
        self.averages: list[float] = []
        self.back: list[int] = []

    def also(self, time: int) -> None:
        """Notes both, and compares the momentum."""
        assert isinstance(self.method, sar.Sar)
        self.averages.append(float("nan") if self.method.average is None else self.method.average)
        self.back.append(self.method.recovered)
        prefix = f"after{time}_momentum."
        for key in self.case.computed(prefix):
            held = self.method.active_optimizer.state[self.parameter(key.removeprefix(prefix))]  # type: ignore[index]
            self.case.compare(key, held["momentum_buffer"], limit=self.limit)


@both
@pytest.mark.parametrize(("name", "margin", "lr"), [("sar_cnn_recovery", 0.4, 0.02), ("sar_vit", 0.45, 0.05)])
def test_sar_equals_the_official_code(name: str, margin: float, lr: float, dtype: torch.dtype) -> None:
    stream = Sar(sar, name, dtype, margin=margin, adapt_lr=lr, layers="official", released=True)
    assert sorted(stream.method.adapted()) == sorted(
        f"{stream.prefix.removeprefix('backbone.')}{key}" for key in stream.case.meta["config"]["adapted"]
    )
    stream.run()
    wanted = torch.from_numpy(stream.case.arrays["f64.stream.ema"])
    found = torch.tensor(stream.averages, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=stream.limit, equal_nan=True)
    resets = torch.tensor([0, *stream.back]).diff().tolist()
    assert resets == stream.case.arrays["f64.stream.reset"].astype(int).tolist()


def rolled(images: Tensor, drawn: Tensor) -> Tensor:
    """A recorded view: a roll by rows and columns, and a mirror."""
    rows, columns, mirrored = (int(number) for number in drawn)
    found = images.roll((rows, columns), dims=(-2, -1))
    return found.flip(-1) if mirrored else found


class Cotta(Stream):
    """CoTTA with recorded views and masks."""

    def prepare(self) -> None:
        """Hands it what was drawn."""
        method = self.method
        assert isinstance(method, cotta.Cotta)
        self.time, self.drawn, self.certain = 0, 0, list[float]()

        def view(images: Tensor) -> Tensor:
            self.drawn += 1
            return rolled(images, self.case.arrays["input.views"][self.time][self.drawn - 1])

        def masks() -> dict[str, Tensor]:
            found = self.case.part(f"input.restore{self.time}.")
            names = {f"{self.prefix}{name}": mask for name, mask in found.items() if not name.startswith("head.")}
            return names | {name: mask for name, mask in found.items() if name.startswith("head.")}

        method.view, method.masks = view, masks  # type: ignore[method-assign]

    def also(self, time: int) -> None:
        """Compares the teacher."""
        method = self.method
        assert isinstance(method, cotta.Cotta)
        self.certain.append(method.confidence)
        teacher = {name.replace("backbone.net.", ""): value for name, value in method.teacher.named_parameters()}
        prefix = f"after{time}_teacher."
        for key in self.case.computed(prefix):
            self.case.compare(key, teacher[key.removeprefix(prefix)], limit=self.limit)
        self.time, self.drawn = time, 0


@both
@pytest.mark.parametrize(
    ("name", "momentum", "restore", "threshold", "lr", "resets"),
    [("cotta_cifar", 0.99, 0.02, 0.72, 0.001, 0), ("cotta_cifar_reset", 0.9, 0.1, 0.95, 0.002, 2)],
)
def test_cotta_equals_the_official_code(
    name: str, momentum: float, restore: float, threshold: float, lr: float, resets: int, dtype: torch.dtype
) -> None:
    options = {"teacher_momentum": momentum, "restore": restore, "threshold": threshold, "adapt_lr": lr}
    stream = Cotta(cotta, name, dtype, **options)
    stream.run(resets=resets)
    stream.case.compare("stream.anchor_confidence", torch.tensor(stream.certain, dtype=dtype), limit=stream.limit)


@both
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memo_eval_statistics", {"views": 8}),
        ("memo_alpha_bn", {"views": 6, "alpha": 0.1, "adapt_lr": 0.02, "adapt_momentum": 0.9, "nesterov": True}),
    ],
)
def test_memo_equals_the_official_code(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    stream = Stream(memo, name, dtype, **options)
    method, case = stream.method, stream.case
    assert isinstance(method, memo.Memo)
    number = iter(range(len(stream.images)))

    def view(image: Tensor) -> Tensor:
        return torch.stack([rolled(image, drawn) for drawn in case.arrays["input.views"][next(number)][0]])

    put_back = method.reset_stream

    def reset() -> None:
        if "after1.head.weight" not in case.worst:
            stream.check_gradients()
            stream.check_after(1)
        put_back()

    method.view, method.reset_stream = view, reset  # type: ignore[method-assign]
    case.compare("stream.logits", method.adapt(stream.images), limit=stream.limit)
    assert "after1.head.weight" in case.worst
    case.compare("stream.loss", torch.stack(stream.losses), limit=stream.limit)
    case.report()


@both
@pytest.mark.parametrize(("kind", "neighbours"), [("knn", 3), ("rbf", 4)])
def test_lame_equals_the_official_code(kind: str, neighbours: int, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN, f"lame_{kind}", dtype)
    limit = {torch.float64: 1e-9, torch.float32: 1e-6}[dtype]
    weights = lame.affinity(case.tensor("input.features"), kind=kind, neighbours=neighbours)
    unary = -(case.tensor("input.logits").softmax(dim=1) + 1e-10).log()
    found = lame.assignments(unary, weights)
    for key, mine in (("affinity", weights), ("unary", unary), ("assignments", found)):
        case.compare(key, mine, limit=limit)
    assert found.argmax(dim=1).tolist() == case.arrays["f64.prediction"].astype(int).tolist()
    case.report()
