"""The tuning baselines against numbers recorded from KMnP/vpt 4410440, through the `train_step` that runs train with.

``tests/golden/adapter`` and ``tests/golden/parameter_selection``; see the ``reference`` field of each json.
``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods import adapter, bias, finetune, linear_probe, lora, mlp_k, partial_k, side_tuning
from benchmark.api import Batch
from benchmark.learners.classifier import Classifier
from benchmark.specs import MethodSpec
from benchmark.testing.by_hand import backbone_of, begin, context_of, on_meta
from benchmark.testing.closed_form import fill, image_batch, tiny_vit, vit_weight
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden"


def spec_of(module: ModuleType) -> MethodSpec:
    (spec,) = module.bench_register_methods()
    return cast("MethodSpec", spec)


def make(module: ModuleType, model: VisionTransformer, classes: int, dtype: Any, **options: Any) -> Classifier:
    """The plugin's own class on a given model, at the start of a task with all classes."""
    spec = spec_of(module)
    config = spec.config(**options)
    scenario = toy_scenario(experiences=1, classes=classes, train=1, test=1)
    method = spec.build(config, context_of(spec, config, scenario, backbone=backbone_of(model))).to(dtype)
    assert isinstance(method, Classifier)
    begin(method, scenario, 0)
    return method


def ours(name: str) -> str:
    """Our name of a parameter of the official code."""
    for theirs, mine in {
        "adapter_downsample": "bottleneck.down",
        "adapter_upsample": "bottleneck.up",
        "head.projection": "head.hidden",
    }.items():
        name = name.replace(theirs, mine)
    if "bottleneck" in name:
        return name.replace("blocks.", "adapters.")
    return name if name.startswith("head.") else f"backbone.{name}"


class Case(Recorded):
    """A recorded case, and the method as it was there."""

    def method(self, module: ModuleType, **options: Any) -> Classifier:
        solver = self.meta["config"]["solver"]
        adamw = solver["OPTIMIZER"] == "adamw"
        method = make(
            module,
            self.vit(),
            self.meta["config"]["num_classes"],
            self.dtype,
            optimizer="vpt-adamw" if adamw else "vpt-sgd",
            official_quirks=adamw,
            lr=solver["BASE_LR"],
            weight_decay=solver["WEIGHT_DECAY"],
            **options,
        )
        with torch.no_grad():
            for name, value in self.part("method.").items():
                parameter_of(method, name).copy_(value)
        return method


def parameter_of(method: Classifier, name: str) -> Tensor:
    """A parameter by its official name; ``:q`` and ``:v`` are parts of timm's fused bias."""
    name, _, part = name.partition(":")
    if name.startswith("head.last_layer"):
        name = name.replace("last_layer", "last") if hasattr(method.head, "last") else name.replace("last_layer.", "")
    value = method.get_parameter(ours(name))
    return value if not part else value[cut_of(value, part)]


def gradient_of(method: Classifier, name: str) -> Tensor | None:
    whole, _, part = name.partition(":")
    gradient = parameter_of(method, whole).grad
    return gradient if gradient is None or not part else gradient[cut_of(gradient, part)]


def cut_of(fused: Tensor, part: str) -> slice:
    width = len(fused) // 3
    first = "qkv".index(part) * width
    return slice(first, first + width)


CASES: list[tuple[str, str, ModuleType, dict[str, Any]]] = [
    ("adapter", "random", adapter, {}),
    ("adapter", "zeros_official", adapter, {"init": "zeros"}),
    ("parameter_selection", "linear", linear_probe, {}),
    ("parameter_selection", "partial1", partial_k, {"k": 1}),
    ("parameter_selection", "bias", bias, {}),
    ("parameter_selection", "mlp2_head", mlp_k, {"k": 2, "dropout": 0.0}),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("folder", "name", "module", "options"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_three_steps_equal_the_official_code(
    folder: str, name: str, module: ModuleType, options: dict[str, Any], dtype: Any
) -> None:
    case = Case(GOLDEN / folder, name, dtype)
    method = case.method(module, **options)
    start = {key: value.clone() for key, value in method.state_dict().items()}
    images, labels = case.tensor("input.images"), case.tensor("input.labels")
    others = case.tensor("input.eval_images")
    if name == "zeros_official":  # what cannot move has no gradient either, were it asked for
        method.get_submodule("adapters").requires_grad_(True)
        assert method.optimizer is not None
        assert sum(p.numel() for g in method.optimizer.param_groups for p in g["params"]) == 3 * 32 + 7 * 33
    with torch.no_grad():
        method.eval()
        case.compare("eval.features", method.features(others))
        case.compare("eval.logits", method.predict(others))
        for index in range(len(others)):  # no image depends on its batch
            alone = method.predict(others[index : index + 1])
            torch.testing.assert_close(alone[0], method.predict(others)[index], atol=1e-5, rtol=1e-5)
    method.train()
    with torch.no_grad():
        case.compare("train.features", method.features(images))
    losses = []
    for step in range(3):
        losses.append(torch.as_tensor(method.train_step(Batch(images, labels))["loss"]))
        if step == 0:
            case.compare("train.loss_total", losses[0])
            for key in case.computed("grad."):
                case.compare(key, gradient_of(method, key.removeprefix("grad.")))
    case.compare("steps.loss_total", torch.stack(losses))
    # Adam turns a gradient of 1e-8 into a step of either sign in float32.
    if dtype == torch.float64 or case.meta["config"]["solver"]["OPTIMIZER"] == "sgd":
        for key in case.computed("after3."):
            case.compare(key, parameter_of(method, key.removeprefix("after3.")))
        for key in case.computed("after3_buffers."):
            case.compare(key, method.get_buffer(ours(key.removeprefix("after3_buffers."))))
        with torch.no_grad():
            method.eval()
            case.compare("eval_after3.features", method.features(others))
            case.compare("eval_after3.logits", method.predict(others))
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, start[key])}
    trained = {id(p) for group in cast("Any", method.optimizer).param_groups for p in group["params"]}
    promised = {key for key, parameter in method.named_parameters() if id(parameter) in trained}
    assert {key for key in moved if "running" not in key and "tracked" not in key} == promised
    case.report()


def test_train_logits_of_the_official_code() -> None:
    for folder, name, module, options in CASES:
        case = Case(GOLDEN / folder, name, torch.float64)
        method = case.method(module, **options)
        with torch.no_grad():
            case.compare("train.logits", method.logits(case.tensor("input.images")))


# Names and counts on the full-size model, without a single weight being drawn.


def full_size(module: ModuleType, classes: int = 100, **options: Any) -> Classifier:
    """A method on ViT-B/16 with a head of ``classes`` rows."""
    method = on_meta(spec_of(module), **options)
    assert isinstance(method, Classifier)
    with torch.device("meta"):
        method.head.grow(classes)
    return method


def trainable(method: Classifier) -> dict[str, int]:
    return {name: p.numel() for name, p in method.named_parameters() if p.requires_grad}


SELECTIONS: list[tuple[str, ModuleType, dict[str, Any]]] = [
    ("end2end", finetune, {}),
    ("linear", linear_probe, {}),
    ("partial-1", partial_k, {"k": 1}),
    ("partial-2", partial_k, {"k": 2}),
    ("partial-4", partial_k, {"k": 4}),
    ("tinytl-bias", bias, {}),
    ("adapter", adapter, {}),
]


@pytest.mark.parametrize(("kind", "module", "options"), SELECTIONS, ids=[row[0] for row in SELECTIONS])
def test_names_and_counts_of_what_trains(kind: str, module: ModuleType, options: dict[str, Any]) -> None:
    case = Case(GOLDEN / "parameter_selection", "names", torch.float64)
    method = full_size(module, **options)
    names = {ours(name).replace("head.last_layer.", "head.") for name in case.meta["trainable"][kind]}
    assert set(trainable(method)) == names
    without_head, head, total = (int(number) for number in case.arrays[f"count.{kind}"])
    counts = trainable(method)
    assert sum(count for name, count in counts.items() if name.startswith("head.")) == head == 76_900
    assert sum(counts.values()) == without_head + head
    assert sum(p.numel() for p in method.parameters()) == total


# Trainable parameters without the head, by the formulas of the papers; percent of the whole model with 100 classes as
# in the VPT paper, Table 12.
COUNTS: list[tuple[str, ModuleType, dict[str, Any], int, float | None]] = [
    ("linear", linear_probe, {}, 0, 0.09),
    ("partial-1", partial_k, {"k": 1}, 7_089_408, 8.35),
    ("partial-1 without norm", partial_k, {"k": 1, "norm": False}, 7_087_872, None),
    ("bias", bias, {}, 102_912, 0.21),
    ("adapter, R 8", adapter, {"reduction": 8}, 1_779_840, 2.12),
    ("adapter, R 64", adapter, {"reduction": 64}, 230_544, None),
    ("adapter, R 256", adapter, {"reduction": 256}, 64_548, None),
    ("adapter, Houlsby", adapter, {"placement": "houlsby"}, 2 * 1_779_840, None),
    ("adapter, zeros", adapter, {"init": "zeros"}, 12 * 768, None),
    ("side-tuning", side_tuning, {"side": "alexnet"}, 9_547_585, 10.09),
    ("mlp-3", mlp_k, {"k": 3}, 1_184_256, None),
    ("lora", lora, {}, 294_912, None),
    ("lora, all three", lora, {"targets": "qkv", "rank": 4}, 12 * 3 * 4 * 2 * 768, None),
]


@pytest.mark.parametrize(("name", "module", "options", "count", "percent"), COUNTS, ids=[row[0] for row in COUNTS])
def test_published_parameter_counts(
    name: str, module: ModuleType, options: dict[str, Any], count: int, percent: float | None
) -> None:
    method = full_size(module, **options)
    found = sum(trainable(method).values())
    assert found == count + 76_900
    if percent is not None:
        total = sum(p.numel() for p in method.parameters())
        assert 100 * found / total == pytest.approx(percent, abs=0.0051)


# Closed-form figures of the vision parity fixtures, section 3.


IMAGES, LABELS = image_batch(count=4), torch.tensor([3, 4, 5, 4])


def test_the_published_adapter() -> None:
    method = make(adapter, tiny_vit(), 6, torch.float32)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("adapters."):
                theirs = name.removeprefix("adapters.").replace("bottleneck.down", "adapter_downsample")
                theirs = "adapter." + theirs.replace("bottleneck.up", "adapter_upsample")
                _, block, kind, part = theirs.split(".")
                parameter.copy_(fill(f"adapter.{block}.{kind}.{part}", parameter.shape, scale=0.3))
        for name, parameter in method.head.named_parameters():
            parameter.copy_(vit_weight(f"head.{name}", parameter.shape))
        feature = method.features(IMAGES)[0, :3]
    torch.testing.assert_close(feature, torch.tensor([0.5884314, -0.6303416, 1.6201736]), atol=1e-5, rtol=0)
    assert float(torch.as_tensor(method.train_step(Batch(IMAGES, LABELS))["loss"])) == pytest.approx(
        1.8207982, abs=1e-5
    )
    first = "adapters.0.bottleneck"
    norms = {"down.weight": 0.0213405, "down.bias": 0.0287596, "up.weight": 0.0419836, "up.bias": 0.1892901}
    for name, norm in norms.items():
        gradient = method.get_parameter(f"{first}.{name}").grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=1e-4)
    gradient = method.get_parameter(f"{first}.up.bias").grad
    assert gradient is not None
    torch.testing.assert_close(gradient[:3], torch.tensor([0.0419762, -0.0385365, 0.0227768]), atol=1e-6, rtol=1e-4)


def test_the_published_mlp_head() -> None:
    method = make(mlp_k, tiny_vit(), 6, torch.float32, k=3)
    with torch.no_grad():
        for name, parameter in method.head.named_parameters():
            layer, rest = name.split(".", 1)
            official = f"projection.{rest}" if layer == "hidden" else f"last_layer.{rest}"
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(fill(f"mlp.{official}", parameter.shape, scale=0.3, offset=1.0 if norm else 0.0))
        logits = method.eval().predict(IMAGES)[0]
    wanted = torch.tensor([-0.1762480, -0.6533952, 0.7075165, 0.0612837, -0.3302825, -0.6606830])
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)


def test_the_published_side_blend() -> None:
    blend = side_tuning.blended(fill("sb", (3,)).float(), fill("ss", (3,)).float(), torch.tensor(0.3))
    torch.testing.assert_close(blend, torch.tensor([-0.2616014, -0.1744185, 0.2105345]), atol=1e-6, rtol=0)
