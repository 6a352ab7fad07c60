"""Precision, algorithms, compiled and recomputed blocks: what they change, and what they must not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import records, registry
from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones import blocks
from benchmark.backbones.backbone import Nothing
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.errors import PluginError, UsageError
from benchmark.leaderboard import rows
from benchmark.leaderboard.footnotes import row_facts
from benchmark.records import predictions
from benchmark.run import computing, engine, training
from benchmark.run.interruption import Interrupted
from benchmark.run.options import LATER, UNSEEN, EngineConfig
from benchmark.testing.laboratory import StopAtStep
from benchmark.testing.toys import ToyMethod, ToyMethodConfig, prepare_toy, tiny_backbone

OPEN = frozenset({"boundaries", "num_classes"})


class Tuned(ToyMethod):
    """Trains a whole ViT and a head, and notes in which numbers it computed."""

    seen: dict[str, list[Any]]

    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model.requires_grad_(True)
        self.out = ClassHead(context.backbone.width, 4, init="zeros")
        self.seen = {"train": [], "predict": [], "scales": []}

    def begin_experience(self, experience: ExperienceView) -> None:
        """A fresh optimiser."""
        moved = [*self.backbone.parameters(), *self.out.parameters()]
        self.optimizer = torch.optim.AdamW(moved, lr=1e-3)

    def logits(self, images: Tensor, place: str) -> Tensor:
        """Of all classes."""
        found: Tensor = self.out(cls_feature(self.backbone, images))
        self.seen[place].append(found.dtype)
        return found

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy."""
        loss = F.cross_entropy(self.logits(batch.images, "train"), batch.labels)
        self.seen["scales"].append(self.stepper.state().get("scale"))
        self.descend(loss)
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in self.backbone.parameters())
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes."""
        return self.logits(images, "predict")


class StepsItself(Tuned):
    """As methods did before there was a service."""

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Cross-entropy, and a step of its own."""
        loss = F.cross_entropy(self.logits(batch.images, "train"), batch.labels)
        self.active_optimizer.zero_grad()
        loss.backward()
        self.active_optimizer.step()
        return {"loss": loss.detach()}


class ClosedForm(ToyMethod):
    """Adds up what a closed form needs."""

    seen: list[torch.dtype]

    def begin_experience(self, experience: ExperienceView) -> None:
        """No optimiser."""
        self.seen = []

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A Gram matrix."""
        rows = self._features(batch.images)
        self.seen.append((rows.T @ rows).dtype)
        return {"loss": 0.0}

    def predict(self, images: Tensor) -> Tensor:
        """Nothing that was learnt."""
        return self._features(images)[:, :4]


def execute(out: Path, build: Any = Tuned, *, stop: Any = None, **options: Any) -> Path:
    settings = {"engine.save_logits": "true", "epochs": "2", **{f"engine.{k}": str(v) for k, v in options.items()}}
    prepared = prepare_toy(build=build, uses=OPEN, settings=settings, experiences=1)
    return engine.execute(prepared, out, hooks=registry.without_life_cycle(), quiet=True, stop=stop)


def logits(path: Path) -> Tensor:
    found = predictions.read(path.with_suffix(".parquet")).logits
    return torch.as_tensor(found)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(tmp_path_factory.mktemp("usual"))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Hands out the method that a run has built last."""
    built: list[Any] = []
    start = ToyMethod.__init__

    def noting(self: Any, *args: Any) -> None:
        start(self, *args)
        built.append(self)

    monkeypatch.setattr(ToyMethod, "__init__", noting)
    return lambda: built[-1]


def test_options_that_came_later_are_seen_where_they_are_not_as_by_default(usual: Path) -> None:
    assert set(LATER) | set(UNSEEN) <= set(EngineConfig.__dataclass_fields__)
    assert not set(LATER) & set(records.read(usual)["config"]["effective"]["engine"])
    given = prepare_toy(settings={"engine.precision": "bf16", "engine.deterministic": "false"}).plan
    told = {name: value for name, value in given.effective()["engine"].items() if name in LATER}
    assert told == {"precision": "bf16", "deterministic": False}


def test_the_identity_of_a_run_without_them_is_what_it_was() -> None:
    assert prepare_toy().run_id == "901b0b253dd191d3"
    others = [{"engine.precision": "bf16"}, {"engine.deterministic": "false"}, {"engine.micro_batch": "2"}]
    others += [{"engine.batch_fallback": "true"}]
    ids = [prepare_toy(settings=settings).run_id for settings in others]
    assert len({"901b0b253dd191d3", *ids}) == 1 + len(others)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_networks_compute_in_half_precision_and_weights_stay(
    usual: Path, tmp_path: Path, watched: Callable[[], Any], precision: str, dtype: torch.dtype
) -> None:
    path = execute(tmp_path, precision=precision)
    method = watched()
    assert set(method.seen["train"]) == set(method.seen["predict"]) == {dtype}
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    gap = (logits(path) - logits(usual)).abs().max()
    assert 0 < gap < 0.2
    record = records.read(path)
    assert record["config"]["effective"]["engine"]["precision"] == precision
    (entry,) = rows.entries_of([record])
    assert f"engine.precision={precision}" in entry.label


def test_a_closed_form_stays_in_full_precision(tmp_path: Path, watched: Callable[[], Any]) -> None:
    execute(tmp_path, ClosedForm, precision="bf16")
    assert set(watched().seen) == {torch.float32}


def test_losses_of_fp16_are_scaled_and_the_scale_survives_a_stop(tmp_path: Path, watched: Callable[[], Any]) -> None:
    whole = execute(tmp_path / "whole", precision="fp16")
    scales = watched().seen["scales"]
    assert scales[0] >= 2.0**10
    with pytest.raises(Interrupted):
        execute(tmp_path / "pieces", stop=StopAtStep(2), precision="fp16", checkpoint_seconds=0)
    pieces = execute(tmp_path / "pieces", precision="fp16", checkpoint_seconds=0)
    assert watched().seen["scales"] == scales[2:]
    assert torch.equal(logits(whole), logits(pieces))


def test_a_step_whose_gradients_overflow_is_left_out() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    stepper = computing.Computing(precision="fp16").stepper()
    for factor, expected in ((float("inf"), 1.0), (1.0, 0.0)):
        stepper.part()
        stepper.backward(optimizer, weight.sum() * factor)
        assert stepper.whole(optimizer)
        stepper.step(optimizer)
        assert weight.item() == expected
    assert stepper.state()["scale"] == 2.0**15


def test_methods_that_step_themselves_are_refused_where_losses_are_scaled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine.precision=fp16: .*it steps its optimiser itself") as refused:
        execute(tmp_path, StepsItself, precision="fp16")
    assert "bf16" in str(refused.value.hint)
    assert execute(tmp_path, StepsItself, precision="bf16").exists()


def test_a_precision_that_a_device_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tf32: TensorFloat-32 is a format of CUDA devices, not of `cpu`"):
        prepare_toy(settings={"engine.precision": "tf32"})
    with pytest.raises(UsageError, match="precision"):
        prepare_toy(settings={"engine.precision": "half"})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for precision in ("tf32", "bf16"):
        config = EngineConfig(precision=precision)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"`Tesla T4` has compute capability 7.5, this needs 8.0"):
            computing.Computing.of(config, torch.device("cuda"), tiny_backbone())


def test_without_deterministic_algorithms_the_record_and_its_table_say_so(tmp_path: Path) -> None:
    modes = []

    class Looks(Tuned):
        def train_step(self, batch: Batch) -> Any:
            modes.append(torch.are_deterministic_algorithms_enabled())
            return super().train_step(batch)

    fast = records.read(execute(tmp_path, Looks, deterministic=False))
    slow = records.read(execute(tmp_path, Looks))
    assert set(modes) == {False, True}
    assert not torch.are_deterministic_algorithms_enabled()
    assert fast["provenance"]["deterministic"] is False
    assert "made without deterministic algorithms" in row_facts([fast])
    assert "made without deterministic algorithms" not in row_facts([slow])


def test_blocks_that_are_computed_again_give_the_same_run(usual: Path, tmp_path: Path) -> None:
    path = execute(tmp_path, activation_checkpointing=True)
    assert path.stem == usual.stem
    first, second = (json.dumps(records.comparable(records.read(one)), sort_keys=True) for one in (path, usual))
    assert json.loads(first)["config"]["effective"] == json.loads(second)["config"]["effective"]
    assert json.loads(first)["cost"] == json.loads(second)["cost"]
    assert torch.equal(logits(path), logits(usual))


def saved_bytes(model: torch.nn.Module, work: Callable[[], Tensor]) -> int:
    """Bytes that a pass keeps for its gradients, each tensor once, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(kept.values())


def test_blocks_that_are_computed_again_keep_a_fraction() -> None:
    vit = tiny_backbone(depth=12, embed_dim=48, num_heads=3, img_size=64).model.requires_grad_(True)
    images = torch.randn(4, 3, 64, 64)
    usual = saved_bytes(vit, lambda: cls_feature(vit, images))
    with blocks.computed(again=True):
        again = saved_bytes(vit, lambda: cls_feature(vit, images))
    assert again < 0.15 * usual


def test_a_batch_that_is_made_ahead_is_the_batch(usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the next batch is on its way while a step is computed; here it is merely early."""
    start, made = training._Ahead.__init__, []

    def beside(self: Any, device: torch.device) -> None:
        start(self, torch.device("cuda"))
        make = self.make
        self.make = lambda epoch, step, batch: (made.append((epoch, step)), make(epoch, step, batch))

    monkeypatch.setattr(training._Ahead, "__init__", beside)
    path = execute(tmp_path / "whole")
    assert made == [(0, 1), (1, 1)]  # two steps an epoch: an epoch is not begun ahead
    assert torch.equal(logits(path), logits(usual))
    with pytest.raises(Interrupted):
        execute(tmp_path / "pieces", stop=StopAtStep(1), checkpoint_seconds=0)
    assert torch.equal(logits(execute(tmp_path / "pieces", checkpoint_seconds=0)), logits(usual))


@pytest.mark.slow
def test_what_a_vit_b_keeps_is_what_the_documentation_says() -> None:
    """MiB per image of 224 px; two images less one, as copies of weights in half precision do not count twice."""
    import timm

    vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    found = {}
    for precision in ("float32", "bf16"):
        for again in (False, True):
            way = computing.Computing(precision=precision, again=again)  # type: ignore[arg-type]
            with way.installed(), way.forward():
                one, two = (
                    saved_bytes(vit, partial(cls_feature, vit, torch.randn(count, 3, 224, 224))) for count in (1, 2)
                )
            found[precision, again] = (two - one) / 2**20
    told = {("float32", False): 104.5, ("bf16", False): 58.9, ("float32", True): 7.5, ("bf16", True): 7.2}
    assert found == pytest.approx(told, rel=0.005)


def replaced(function: Any) -> Any:
    """What stands for a compiled function."""
    return function


def traced(function: Any) -> Any:
    """Traces and guards as every backend, and makes no machine code."""
    return torch.compile(function, backend="eager")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, while it traces
@pytest.mark.parametrize("by", [replaced, pytest.param(traced, marks=pytest.mark.slow)])
def test_compiled_blocks_are_used(usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Any) -> None:
    monkeypatch.setattr(computing, "_no_compiler", lambda device, backend: None)
    asked = []

    def compiled(function: Any) -> Any:
        asked.append(function.__name__)
        return by(function)

    monkeypatch.setattr(computing, "_compiled", compiled)
    path = execute(tmp_path, compile=True)
    assert set(asked) == {"_whole", "_in_parts"}
    assert torch.allclose(logits(path), logits(usual), atol=1e-4)
    assert records.read(path)["config"]["effective"]["engine"]["compile"] is True


def test_what_cannot_be_compiled_or_computed_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler is there\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    computing._no_compiler.cache_clear()
    with pytest.raises(UsageError, match=r"torch\.compile does not work here: RuntimeError: no compiler is there"):
        prepare_toy(settings={"engine.compile": "true"})
    computing._no_compiler.cache_clear()
    for option in ("compile", "activation_checkpointing"):
        with pytest.raises(UsageError, match=f"engine.{option}=true: `none` has no blocks of a ViT"):
            computing.Computing.of(EngineConfig(**{option: True}), torch.device("cpu"), Nothing())


def test_a_leak_is_found_in_half_precision_too(tmp_path: Path) -> None:
    class Leaks(Tuned):
        def predict(self, images: Tensor) -> Tensor:
            found = super().predict(images)
            return found + 10 * len(images) * torch.eye(4)[0]

    with pytest.raises(PluginError, match="depends on the others of its batch"):
        execute(tmp_path, Leaks, precision="bf16")
