"""RanPAC against numbers recorded from RanPAC/RanPAC 012927f and LAMDA-PILOT 5240714 (``tests/golden/ranpac``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench_methods.ranpac import RanPAC, RanPACConfig, bench_register_methods
from benchmark.api import Batch, Scenario
from benchmark.backbones.adapters import AdaptFormer
from benchmark.backbones.prototypes import ClassMeans
from benchmark.backbones.ridge import RIDGES
from benchmark.backbones.scale_shift import ScaleShift, places
from benchmark.testing.by_hand import at, backbone_of, begin, context_of
from benchmark.testing.closed_form import fill
from benchmark.testing.recorded import LIMITS, Recorded
from benchmark.testing.toys import tiny_backbone, toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "ranpac"
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def stream(classes: int) -> Scenario:
    """One experience with all classes."""
    return toy_scenario(experiences=1, classes=classes, train=24 // classes, test=1)


def make(model: VisionTransformer, classes: int, **options: Any) -> RanPAC:
    """The plugin's own class, before an experience with all classes: 4 batches a pass, so lr stays for a while."""
    config = RanPACConfig(**{"batch_size": 6, "projection": 0, **options})
    return RanPAC(config, context_of(SPEC, config, stream(classes), backbone=backbone_of(model)))


# --- phase 2: sums, ridge parameter, solution ------------------------------------------------------


@both
@pytest.mark.parametrize("solver", ["double", "lu"])
@pytest.mark.parametrize("name", ["projection", "no_projection", "pilot_cosine_scoring"])
def test_two_tasks_from_given_features_equal_the_official_heads(name: str, solver: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN, name, dtype)
    scoring = "cosine" if name.startswith("pilot") else "linear"
    matrix = case.part("method.").get("W_rand")
    columns = 0 if matrix is None else matrix.shape[1]
    options = {"adaptation": "none", "solver": solver, "scoring": scoring, "projection": columns}
    method = make(tiny_backbone(embed_dim=16).model, 4, **options).to(dtype)
    if matrix is not None:
        method.ridge.matrix.copy_(matrix)
    total = 5
    for task, seen in enumerate((3, 5)):
        features, labels = case.tensor(f"input.task{task}.features"), case.tensor(f"input.task{task}.labels")
        losses = method.ridge.add(features, labels, seen)
        prefix = f"task{task}"
        if f"f64.{prefix}.ridge" in case.arrays:
            case.compare(f"{prefix}.h_first4", method.ridge.hidden(features[:4]))
            case.compare(f"{prefix}.G", method.ridge.gram)
            # The official sums have columns of zeros for classes to come.
            case.compare(f"{prefix}.Q", nn.functional.pad(method.ridge.cross, (0, total - seen)))
            assert float(method.ridge.ridge) == case.arrays[f"f64.{prefix}.ridge"]
            if dtype == torch.float64:  # nearly singular systems at tiny lambda
                mean = torch.tensor(losses, dtype=dtype) * seen / total
                case.compare(f"{prefix}.ridge_losses", mean, limit=1e-6)
        case.compare(f"{prefix}.W_o", method.ridge.weight)
        logits = method.ridge(case.tensor("input.eval_features"))
        assert logits.dtype == dtype
        case.compare(f"{prefix}.eval.logits", logits)
        if f"f64.{prefix}.eval.predictions" in case.arrays:
            assert np.array_equal(logits.argmax(1).numpy(), case.arrays[f"f64.{prefix}.eval.predictions"])
    case.report(solver)


@pytest.mark.parametrize("solver", ["double", "lu"])
def test_closed_form_ridge(solver: str) -> None:
    """Section 7 of the vision parity fixtures."""
    options = {"adaptation": "none", "solver": solver, "projection": 8}
    method = make(tiny_backbone(embed_dim=6).model, 4, **options).double()
    method.ridge.matrix.copy_(fill("ran.R", (6, 8), scale=2.0))
    features, labels = fill("ran.f", (20, 6)), torch.tensor([0, 1, 2] * 6 + [0, 1])
    losses = dict(zip(RIDGES, method.ridge.add(features, labels, 3), strict=True))
    assert float(method.ridge.ridge) == 1e-4
    wanted = {1e-8: 0.272526, 1e-4: 0.271429, 1e-2: 0.286930, 1.0: 0.291360, 1e2: 0.296471, 1e4: 0.332711}
    assert {ridge: losses[ridge] for ridge in wanted} == pytest.approx(wanted, abs=2e-6)
    logits = [[0.0941596, 0.3349079, 0.3495076], [0.5308300, -0.0019180, 0.1624483]]
    # These figures are of float32 sums; at this small a lambda it shows in the fifth digit.
    found, wanted_logits = method.ridge(fill("ran.test", (2, 6))), torch.tensor(logits, dtype=torch.float64)
    torch.testing.assert_close(found, wanted_logits, atol=1e-5, rtol=0)


def test_closed_form_class_means() -> None:
    means = ClassMeans(6)
    means.add(fill("ran.f", (20, 6)), torch.tensor([0, 1, 2] * 6 + [0, 1]))
    wanted = [[-0.7370636, 0.6030408, 0.5676817], [0.0434683, -0.2686916, 0.4059002]]
    torch.testing.assert_close(
        means(fill("ran.test", (2, 6))), torch.tensor(wanted, dtype=torch.float64), atol=1e-6, rtol=0
    )


# --- phase 1: three steps with each module ---------------------------------------------------------

KINDS = {"adaptformer": "adapter", "ssf": "ssf", "vpt_end": "vpt-deep"}


def ours(method: RanPAC, name: str) -> Tensor:
    """Our parameter of an official name."""
    if name.startswith("fc."):
        assert method.head is not None
        return method.head.get_parameter(name[3:])
    tuner = method.tuner
    if name == "Prompt_Tokens":
        assert tuner is not None
        return tuner.get_parameter("prompts")
    if isinstance(tuner, nn.ModuleList):  # blocks.0.adaptmlp.down_proj.weight
        _, block, _, layer, what = name.split(".")
        return tuner.get_parameter(f"{block}.{layer.removesuffix('_proj')}.{what}")
    assert isinstance(tuner, ScaleShift)
    stem, _, kind = name.rpartition("ssf_")
    what, place = kind.split("_")
    module = {
        "": ("norm",),
        "patch_embed": ("patch_embed",),
        "attn": ("attn.qkv", "attn.proj"),
        "mlp": ("mlp.fc1", "mlp.fc2"),
        "block": ("norm1", "norm2"),
    }
    parts = stem.rstrip(".").split(".")
    block = ".".join(parts[:2]) + "." if parts[0] == "blocks" else ""
    part = ("block" if len(parts) == 2 else parts[2]) if block else parts[0]
    index = tuner.places.index(block + module[part][int(place) - 1])
    return (tuner.scales if what == "scale" else tuner.shifts)[index]


@both
@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_of_the_first_session_equal_the_official_ones(kind: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN, f"phase1_{kind}", dtype)
    config, optimizer = case.meta["config"], case.meta["optimizer"]
    model = case.vit()
    sizes = {"bottleneck": config["bottleneck"], "prompts": config["prompt_tokens"]}
    method = make(
        model,
        config["num_classes"],
        adaptation=KINDS[kind],
        adapter_dropout=0.0,
        adapter_scale=config["adapter_scale"] or 0.1,
        lr=optimizer["lr"],
        momentum=optimizer["momentum"],
        weight_decay=optimizer["weight_decay"],
        **{name: value for name, value in sizes.items() if value is not None},
    ).to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    begin(method, stream(config["num_classes"]), 0)
    start = case.part("method.")
    trained = [p for group in method.optimizer.param_groups for p in group["params"]]  # type: ignore[union-attr]
    assert {id(ours(method, name)) for name in start} == {id(p) for p in trained}
    with torch.no_grad():
        for name, value in start.items():
            ours(method, name).copy_(value)

    def logits(images: Tensor) -> Tensor:
        assert method.head is not None
        found: Tensor = method.head(method.tuned(images))
        return found

    tests = case.tensor("input.eval_images")
    with torch.no_grad():
        case.compare("eval.features", method.eval().tuned(tests))
        case.compare("eval.logits", logits(tests))
        alone = torch.cat([method.tuned(image) for image in torch.split(tests, 1)])
    torch.testing.assert_close(alone, method.tuned(tests), atol=LIMITS[dtype], rtol=0)
    method.train()
    batch = Batch(case.tensor("input.images"), case.tensor("input.labels"))
    with torch.no_grad():
        case.compare("train.logits", logits(batch.images))
    losses = []
    for step in range(3):
        losses.append(torch.as_tensor(method.train_step(at(batch, step, each=3, epochs=4))["loss"]))
        if step == 0:
            case.compare("train.loss_total", losses[0])
            for name in start:
                case.compare(f"grad.{name}", ours(method, name).grad)
    case.compare("steps.loss_total", torch.stack(losses))
    for name in start:
        case.compare(f"after3.{name}", ours(method, name))
    with torch.no_grad():
        case.compare("eval_after3.logits", logits(tests))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    case.report()


# --- sizes ------------------------------------------------------------------------------------------


def test_trainable_counts_of_the_paper() -> None:
    adapters = nn.ModuleList(AdaptFormer(768, 64) for _ in range(12))
    assert sum(p.numel() for p in adapters.parameters()) == 1_189_632
    shallow = VisionTransformer(patch_size=16, depth=1, num_classes=0)  # ViT-B/16 with one block of twelve
    assert 2 * (sum(width for _, width in places(shallow)) + 11 * (7 * 768 + 3072)) == 205_824
