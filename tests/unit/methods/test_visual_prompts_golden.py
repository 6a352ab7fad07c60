"""Visual prompts and prefixes against numbers recorded from the official code, through the `train_step` of runs.

``tests/golden/vpt`` (KMnP/vpt 4410440) and ``tests/golden/prefix_tuning`` (CODA-Prompt 6417d4f, PrefixTuning 6519d30);
see the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods import prefix_tuning, vpt
from bench_methods.vpt import VPT
from benchmark.api import Batch
from benchmark.backbones import visual_prompts
from benchmark.inputs.images import NORMALIZATIONS
from benchmark.learners.classifier import Classifier
from benchmark.specs import MethodSpec
from benchmark.testing.by_hand import backbone_of, begin, context_of, on_meta
from benchmark.testing.closed_form import fill, image_batch, tiny_vit, vit_weight
from benchmark.testing.recorded import LIMITS, Recorded
from benchmark.testing.toys import toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden"
SPECS: dict[str, MethodSpec] = {
    spec.name: spec for module in (vpt, prefix_tuning) for spec in module.bench_register_methods()
}


def make(name: str, model: VisionTransformer, classes: int, dtype: Any, **options: Any) -> Classifier:
    """The plugin's own class on a given model, at the start of a task with all classes."""
    spec = SPECS[name]
    config = spec.config(**options)
    scenario = toy_scenario(experiences=1, classes=classes, train=1, test=1)
    mean, std = NORMALIZATIONS["imagenet"]
    backbone = backbone_of(model, mean=mean, std=std)
    method = spec.build(config, context_of(spec, config, scenario, backbone=backbone)).to(dtype)
    assert isinstance(method, Classifier)
    begin(method, scenario, 0)
    return method


def pick(method: Classifier, name: str, *, gradient: bool = False) -> Tensor | None:
    """A parameter of ours, or its gradient, by its name and in its shape in the official code."""

    def of(ours: str) -> Tensor | None:
        parameter = method.get_parameter(ours)
        return parameter.grad if gradient else parameter

    layers = of("visual.rows") if name in ("prompt_embeddings", "deep_prompt_embeddings") else None
    if name == "prompt_embeddings":
        return None if layers is None else layers[:1]
    if name == "deep_prompt_embeddings":
        return None if layers is None else layers[1:]
    theirs = {
        "prompt_proj.": "visual.project.",
        "head.last_layer.": "head.",
        "wte.weight": "prefixes.table",
        "control_trans.": "prefixes.mlp.",
    }
    if name == "prefix":
        return of("prefixes.rows")
    for old, new in theirs.items():
        name = name.replace(old, new)
    return of(name)


def put(method: Classifier, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            target = pick(method, name)
            assert target is not None
            target.copy_(value)


def train_and_compare(case: Recorded, method: Classifier) -> None:
    """Features, logits, three steps, and that nothing moves but what was promised."""
    start = {key: value.clone() for key, value in method.state_dict().items()}
    images, labels = case.tensor("input.images"), case.tensor("input.labels")
    others = case.tensor("input.eval_images")
    with torch.no_grad():
        method.eval()
        case.compare("eval.features", method.features(others))
        together = method.predict(others)
        case.compare("eval.logits", together)
        for index in range(len(others)):  # no image depends on its batch
            alone = method.predict(others[index : index + 1])
            torch.testing.assert_close(alone[0], together[index], atol=LIMITS[case.dtype], rtol=1e-5)
        method.train()
        case.compare("train.features", method.features(images))
        case.compare("train.logits", method.logits(images))
    losses = []
    for step in range(3):
        losses.append(torch.as_tensor(method.train_step(Batch(images, labels))["loss"]))
        if step == 0:
            case.compare("train.loss_total", losses[0])
            for key in case.computed("grad."):
                case.compare(key, pick(method, key.removeprefix("grad."), gradient=True))
    case.compare("steps.loss_total", torch.stack(losses))
    for key in case.computed("after3."):
        case.compare(key, pick(method, key.removeprefix("after3.")))
    if "f64.eval_after3.logits" in case.arrays:
        with torch.no_grad():
            method.eval()
            case.compare("eval_after3.features", method.features(others))
            case.compare("eval_after3.logits", method.predict(others))
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, start[key])}
    trained = {id(p) for group in cast("Any", method.optimizer).param_groups for p in group["params"]}
    assert moved == {key for key, parameter in method.named_parameters() if id(parameter) in trained}
    assert not any(key.startswith("backbone.") for key in moved)
    case.report()


CASES = {
    "shallow": ("vpt-shallow", {}),
    "deep": ("vpt-deep", {}),
    "deep_project": ("vpt-deep", {"project": 16}),
    "add_deep": ("vpt-deep", {"location": "add"}),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_three_steps_equal_the_official_vpt(name: str, dtype: Any) -> None:
    case = Recorded(GOLDEN / "vpt", name, dtype)
    solver, prompt = case.meta["config"]["solver"], case.meta["config"]["prompt"]
    assert solver["OPTIMIZER"] == "sgd"
    plugin, options = CASES[name]
    method = make(
        plugin,
        case.vit(),
        case.meta["config"]["num_classes"],
        dtype,
        prompt_length=prompt["NUM_TOKENS"],
        prompt_dropout=prompt["DROPOUT"],
        optimizer="vpt-sgd",
        lr=solver["BASE_LR"],
        weight_decay=solver["WEIGHT_DECAY"],
        **cast("dict[str, Any]", options),
    )
    put(method, case.part("method."))
    train_and_compare(case, method)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["vit_direct", "vit_mlp"])
def test_three_steps_equal_the_official_prefixes(name: str, dtype: Any) -> None:
    case = Recorded(GOLDEN / "prefix_tuning", name, dtype)
    config = case.meta["config"]
    method = make(
        "prefix-tuning",
        case.vit(),
        config["num_classes"],
        dtype,
        prefix_length=config["P"],
        reparam="none" if config["variant"] == "direct" else "mlp",
        hidden=config["m"],
        optimizer="sgd",
        momentum=case.meta["optimizer"]["momentum"],
        lr=config["lr"],
    )
    put(method, case.part("method."))
    off = make("prefix-tuning", case.vit(), 2, dtype, prompts="off")
    with torch.no_grad():
        case.compare("eval.features_without_prefix", off.eval().features(case.tensor("input.eval_images")))
    train_and_compare(case, method)


SWITCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "num_deep_layers_2": ("vpt-deep", {"depth": 2}),
    "noexpand_2": ("vpt-deep", {"depth": 2, "expand": False}),
    "reverse_deep_2": ("vpt-deep", {"depth": 2, "direction": "last", "lost_patches": True}),
    "deep_shared": ("vpt-deep", {"shared": True}),
    "add_shallow": ("vpt-shallow", {"location": "add"}),
    "add-1_deep": ("vpt-deep", {"location": "add-1"}),
    "img_pool": ("vpt-deep", {"readout": "image"}),
    "prompt_pool": ("vpt-deep", {"readout": "prompt"}),
    "imgprompt_pool": ("vpt-shallow", {"readout": "global"}),
    "prepend-pixel": ("vpt-shallow", {"location": "prepend-pixel"}),
    "prepend-pixel-imgnettransform": ("vpt-shallow", {"location": "prepend-pixel-imgnettransform"}),
    "pad": ("vpt-shallow", {"location": "pad"}),
    "below": ("vpt-shallow", {"location": "below"}),
}


def fill_prompts(method: Classifier, values: dict[str, Tensor]) -> None:
    """Copies the official prompt tensors into ours."""
    assert isinstance(method, VPT)
    visual = method.visual
    with torch.no_grad():
        if isinstance(visual, visual_prompts.TokenPrompts):
            first, deep = values.get("prompt_embeddings"), values.get("deep_prompt_embeddings")
            if visual.shared or deep is None:
                deep = None
            parts = [part for part in (first, deep) if part is not None]
            visual.rows.copy_(torch.cat(parts))
            if isinstance(visual.project, torch.nn.Linear):
                visual.project.weight.copy_(values["prompt_proj.weight"])
                visual.project.bias.copy_(values["prompt_proj.bias"])
        elif isinstance(visual, visual_prompts.PixelPrompts):
            visual.pixels.copy_(values["prompt_embeddings"])
        elif isinstance(visual, visual_prompts.BorderPrompts):
            visual.rows.copy_(values["prompt_embeddings_tb"])
            visual.columns.copy_(values["prompt_embeddings_lr"])
        else:
            assert isinstance(visual, visual_prompts.ChannelPrompts)
            visual.channels.copy_(values["prompt_embeddings"])
            visual.kernels.copy_(values["patch_embeddings_extra"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_ablation_gives_the_official_features(switch: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Recorded(GOLDEN / "vpt", "ablations_forward", dtype)
    assert set(case.meta["config"]["ablations"]) == set(SWITCHES)
    official = case.meta["config"]["ablations"][switch]
    plugin, options = SWITCHES[switch]
    method = make(plugin, case.vit(), 2, dtype, prompt_length=official["NUM_TOKENS"], **options)
    fill_prompts(method, case.part(f"method.{switch}."))
    if switch == "pad":  # the official table was rounded to float32 after it was resampled
        table = visual_prompts.resampled_table(method.backbone, (5, 5)).float().to(dtype)
        torch.testing.assert_close(table, case.tensor("f64.pad.pos_embed_resized"), atol=1e-6, rtol=0)
        official_table = case.tensor("f64.pad.pos_embed_resized")
        monkeypatch.setattr(visual_prompts, "resampled_table", lambda vit, grid: official_table)
    with torch.no_grad():
        case.compare(f"{switch}.eval.features", method.eval().features(case.tensor("input.eval_images")))
    assert any(p.requires_grad for p in method.visual.parameters())  # type: ignore[union-attr]
    trains = {name for name, p in method.backbone.named_parameters() if p.requires_grad}
    assert trains == {name for name in official["trainable"] if name.startswith("patch_embed")}
    case.report()


# Counts on the full-size model, without a single weight being drawn.


def full_size(name: str, classes: int, **options: Any) -> Classifier:
    """A method on ViT-B/16 with a head of ``classes`` rows."""
    method = on_meta(SPECS[name], **options)
    assert isinstance(method, Classifier)
    with torch.device("meta"):
        method.head.grow(classes)
    return method


HEAD = 100 * 769
COUNTS: list[tuple[str, str, int, dict[str, Any], int, float | None]] = [
    # KMnP/vpt, demo.ipynb
    ("demo DMLab", "vpt-deep", 6, {"prompt_length": 100}, 926_214, None),
    ("demo EuroSAT", "vpt-deep", 10, {"prompt_length": 100}, 929_290, None),
    ("demo Sun397", "vpt-deep", 397, {"prompt_length": 5}, 351_373, None),
    # VPT paper, Table 12, percent of the whole model
    ("shallow 1", "vpt-shallow", 100, {"prompt_length": 1}, 768 + HEAD, 0.09),
    ("deep 1", "vpt-deep", 100, {"prompt_length": 1}, 9_216 + HEAD, 0.10),
    ("shallow 200", "vpt-shallow", 100, {"prompt_length": 200}, 153_600 + HEAD, 0.27),
    ("deep 200", "vpt-deep", 100, {"prompt_length": 200}, 1_843_200 + HEAD, 2.19),
    # Formulas
    ("project", "vpt-deep", 100, {"project": 64}, 12 * 10 * 64 + 64 * 768 + 768 + HEAD, None),
    ("add", "vpt-shallow", 100, {"location": "add"}, 151_296 + HEAD, None),
    ("add-1, 3 blocks", "vpt-deep", 100, {"location": "add-1", "depth": 3}, 3 * 768 + HEAD, None),
    ("shared", "vpt-deep", 100, {"shared": True}, 7_680 + HEAD, None),
    ("last 4", "vpt-deep", 100, {"depth": 4, "direction": "last"}, 4 * 7_680 + HEAD, None),
    ("pixel", "vpt-shallow", 100, {"location": "prepend-pixel"}, 3 * 256 * 10 + HEAD, None),
    ("pad", "vpt-shallow", 100, {"location": "pad", "prompt_length": 8}, 12 * 8 * 232 + HEAD, None),
    (
        "below",
        "vpt-shallow",
        100,
        {"location": "below", "prompt_length": 2},
        2 * 224 * 224 + 5 * 256 * 768 + 768 + HEAD,
        None,
    ),
    ("cls", "vpt-shallow", 100, {"transfer": "cls"}, 768 + HEAD, None),
    ("cls and prompt", "vpt-shallow", 100, {"transfer": "cls-reinit+prompt"}, 11 * 768 + HEAD, None),
    ("bias and prompt", "vpt-deep", 100, {"transfer": "prompt+bias"}, 12 * 7_680 + 102_912 + HEAD, None),
    ("noupdate", "vpt-deep", 100, {"transfer": "prompt-noupdate"}, HEAD, None),
    ("off", "vpt-deep", 100, {"prompts": "off"}, HEAD, None),
    ("prefixes", "prefix-tuning", 100, {}, 184_320 + HEAD, None),
    ("prefixes, 3 blocks", "prefix-tuning", 100, {"layers": (0, 5, 11), "prefix_length": 4}, 24 * 768 + HEAD, None),
    (
        "prefixes, MLP",
        "prefix-tuning",
        100,
        {"reparam": "mlp"},
        10 * 768 + 769 * 512 + 513 * 24 * 768 + HEAD,
        None,
    ),
    ("prefixes off", "prefix-tuning", 100, {"prompts": "off"}, HEAD, None),
]


@pytest.mark.parametrize(
    ("plugin", "classes", "options", "count", "percent"), [r[1:] for r in COUNTS], ids=[r[0] for r in COUNTS]
)
def test_published_parameter_counts(
    plugin: str, classes: int, options: dict[str, Any], count: int, percent: float | None
) -> None:
    method = full_size(plugin, classes, **options)
    found = sum(p.numel() for p in method.parameters() if p.requires_grad)
    total = sum(p.numel() for p in method.parameters())
    assert found == count
    if percent is not None:
        assert 100 * found / total == pytest.approx(percent, abs=0.0051)
    if classes != 100:  # the demo prints the whole model too
        assert total == 85_798_656 + count


# Closed-form figures of the vision parity fixtures, section 2.


IMAGES, LABELS = image_batch(count=4), torch.tensor([3, 4, 5, 4])
TWO = {"prompt_embeddings": (1, 2, 32), "deep_prompt_embeddings": (2, 2, 32)}
# Variant: plugin, options, official tensors, feature[0, :3], loss, and of each official tensor the norm of its gradient
# with the first entries, where given.
Row = tuple[str, dict[str, Any], dict[str, tuple[int, ...]], list[float], float, list[Any]]
ROWS: dict[str, Row] = {
    "shallow": (
        "vpt-shallow",
        {},
        {"prompt_embeddings": (1, 2, 32)},
        [0.7046406, -0.5270537, 1.5769422],
        1.7107342,
        [(0.0977317, 0.0102028, -0.0234842, -0.0036807)],
    ),
    "deep": (
        "vpt-deep",
        {},
        TWO,
        [0.0883001, 0.2721584, 1.1147777],
        1.7463427,
        [(0.0537426, 0.0031432, -0.0151533, 0.0020057), (0.4956126, 0.0097225, 0.0023296, -0.0028662)],
    ),
    "deep, project 8": (
        "vpt-deep",
        {"project": 8},
        {
            "prompt_embeddings": (1, 2, 8),
            "deep_prompt_embeddings": (2, 2, 8),
            "prompt_proj.weight": (32, 8),
            "prompt_proj.bias": (32,),
        },
        [0.7252963, -0.5145930, 1.5423598],
        1.7225239,
        [(0.0017954, 0.0001769, -0.0010329, 0.0001801), (0.0098923,), (0.0129350,), (0.0320847,)],
    ),
    "add": (
        "vpt-shallow",
        {"location": "add"},
        {"prompt_embeddings": (1, 17, 32)},
        [0.6640599, -0.7268413, 1.6108031],
        1.6566451,
        [(0.4170357, 0.0341580, -0.0770875, 0.0391988)],
    ),
    "add, deep": (
        "vpt-deep",
        {"location": "add"},
        {"prompt_embeddings": (1, 17, 32), "deep_prompt_embeddings": (2, 17, 32)},
        [0.6919926, -0.8296879, 1.7265096],
        1.7607999,
        [(0.4113197, 0.0447045, -0.0928032, 0.0503395), (0.2861132, 0.0501308, -0.0467495, 0.0161188)],
    ),
    "add-1, deep": (
        "vpt-deep",
        {"location": "add-1"},
        {"prompt_embeddings": (1, 1, 32), "deep_prompt_embeddings": (2, 1, 32)},
        [0.6865103, -0.8594993, 1.5939717],
        1.6153897,
        [(0.1874025, 0.0192769, -0.0532750, 0.0217407), (0.1919490, 0.0326620, -0.0290956, 0.0130309)],
    ),
    "prepend-pixel": (
        "vpt-shallow",
        {"location": "prepend-pixel"},
        {"prompt_embeddings": (1, 3, 8, 16)},
        [0.6949997, -0.5201818, 1.5266023],
        1.7213407,
        [(0.0770257, -0.0075858, 0.0035508, -0.0063423)],
    ),
    "prepend-pixel-imgnettransform": (
        "vpt-shallow",
        {"location": "prepend-pixel-imgnettransform"},
        {"prompt_embeddings": (1, 3, 8, 16)},
        [0.6903742, -0.5188789, 1.5267963],
        1.7220235,
        [(0.0039223, -0.0001224, 0.0002625, -0.0002429)],
    ),
    "below": (
        "vpt-shallow",
        {"location": "below"},
        {"prompt_embeddings": (1, 2, 32, 32)},
        [0.6835821, -0.5221572, 1.5170128],
        1.7323217,
        [(0.0568003, -0.0011815, -0.0014924, -0.0000329)],
    ),
    "pad": (
        "vpt-shallow",
        {"location": "pad", "prompt_length": 4},
        {"prompt_embeddings_tb": (1, 3, 8, 40), "prompt_embeddings_lr": (1, 3, 32, 8)},
        [0.5214695, -0.2468745, 0.0183939],
        2.0412164,
        [(0.4905563, -0.0243268, -0.0105903, 0.0148147), (0.1745222, 0.0011872, -0.0121167, -0.0104337)],
    ),
    "first 2, expand": (
        "vpt-deep",
        {"depth": 2},
        {"prompt_embeddings": (1, 2, 32), "deep_prompt_embeddings": (1, 2, 32)},
        [0.1197612, -0.0624165, 1.2093710],
        1.7642378,
        [(0.0630187,), (0.2925363,)],
    ),
    "first 2, no expand": (
        "vpt-deep",
        {"depth": 2, "expand": False},
        {"prompt_embeddings": (1, 2, 32), "deep_prompt_embeddings": (1, 2, 32)},
        [0.1098691, -0.0612658, 1.1982269],
        1.7681043,
        [(0.0621286,), (0.2850681,)],
    ),
    "last 2, official": (
        "vpt-deep",
        {"depth": 2, "direction": "last", "lost_patches": True},
        {"deep_prompt_embeddings": (2, 2, 32)},
        [0.0644322, 0.3406590, 1.0433441],
        1.7465385,
        [(0.5350935, 0.0117948, 0.0021601, -0.0033050)],
    ),
    "shared": (
        "vpt-deep",
        {"shared": True},
        {"prompt_embeddings": (1, 2, 32)},
        [0.7482409, -0.4721990, 1.4784153],
        1.7425549,
        [(0.0968938, -0.0226260, -0.0095981, 0.0012264)],
    ),
    "image pool": (
        "vpt-deep",
        {"readout": "image"},
        TWO,
        [-0.2155323, 0.4108469, -0.3875988],
        1.6359442,
        [(0.2253020,), (0.1330282,)],
    ),
    "prompt pool": (
        "vpt-deep",
        {"readout": "prompt"},
        TWO,
        [-0.8536019, 1.3328238, -0.7376403],
        1.8748890,
        [(0.0001448,), (2.1773360,)],
    ),
    "global pool": (
        "vpt-deep",
        {"readout": "global"},
        TWO,
        [-0.2864289, 0.5132887, -0.4264923],
        1.6542346,
        [(0.1908416,), (0.1902219,)],
    ),
}


def official_gradients(method: VPT, names: dict[str, tuple[int, ...]]) -> list[Tensor]:
    """Gradients of ours, cut as the official tensors are."""
    visual = method.visual
    grads = {name: p.grad for name, p in visual.named_parameters() if p.grad is not None}
    if isinstance(visual, visual_prompts.TokenPrompts):
        rows = grads["rows"]
        whole = len(names) == 1 or "deep_prompt_embeddings" not in names
        found = {
            "prompt_embeddings": rows if whole else rows[:1],
            "deep_prompt_embeddings": rows if whole else rows[1:],
            "prompt_proj.weight": grads.get("project.weight", rows),
            "prompt_proj.bias": grads.get("project.bias", rows),
        }
    elif isinstance(visual, visual_prompts.BorderPrompts):
        found = {"prompt_embeddings_tb": grads["rows"], "prompt_embeddings_lr": grads["columns"]}
    else:
        found = {"prompt_embeddings": grads["pixels" if "pixels" in grads else "channels"]}
    return [found[name] for name in names]


@pytest.mark.parametrize("variant", ROWS)
def test_the_published_figures(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, options, shapes, feature, loss, gradients = ROWS[variant]
    if variant == "pad":  # the published row has a table of its own, not a resampled one
        table = fill("pos_embed_pad", (1, 26, 32), scale=0.5).float()
        monkeypatch.setattr(visual_prompts, "resampled_table", lambda vit, grid: table)
    dropout = {"prompt_dropout": 0.0}
    method = make(plugin, tiny_vit(), 6, torch.float32, **{"prompt_length": 2, **dropout, **options})
    assert isinstance(method, VPT)
    values = {name: fill(name, shape, scale=0.2) for name, shape in shapes.items()}
    fill_prompts(method, {**values, "patch_embeddings_extra": fill("patch_extra", (32, 2, 8, 8), scale=0.05)})
    with torch.no_grad():
        for name, parameter in method.head.named_parameters():
            parameter.copy_(vit_weight(f"head.{name}", parameter.shape))
        got = method.features(IMAGES)[0, :3]
    torch.testing.assert_close(got, torch.tensor(feature), atol=1e-5, rtol=0)
    assert float(torch.as_tensor(method.train_step(Batch(IMAGES, LABELS))["loss"])) == pytest.approx(loss, abs=1e-5)
    for mine, (norm, *first) in zip(official_gradients(method, shapes), gradients, strict=True):
        assert float(mine.norm()) == pytest.approx(norm, rel=1e-4, abs=1e-7)
        torch.testing.assert_close(mine.flatten()[: len(first)], torch.tensor(first), atol=1e-6, rtol=1e-4)


def test_the_published_prefix_mlp() -> None:
    """Section 7 of the fixtures; the official tensors are cut into heads, ours are not."""
    prefixes = prefix_tuning.MLPPrefixes(2, 2, 4, 5, deep=False)
    with torch.no_grad():
        prefixes.table.copy_(fill("pt.wte", (2, 4)))
        for name, values in {
            "0.weight": fill("pt.w1", (5, 4)),
            "0.bias": fill("pt.b1", (5,)),
            "2.weight": fill("pt.w2", (16, 5)),
            "2.bias": fill("pt.b2", (16,)),
        }.items():
            prefixes.mlp.get_parameter(name).copy_(values)
        made = prefixes().unflatten(3, (2, 2))  # heads, head width
    key = torch.tensor([[-0.9613799, 0.1594405], [-0.4533530, 0.7998295]])
    value = torch.tensor([[-1.6266652, -1.2436209], [1.7778480, -0.6535980]])
    torch.testing.assert_close(made[0, 0, :, 0], key, atol=1e-6, rtol=0)
    torch.testing.assert_close(made[1, 1, :, 1], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("length", "count"), [(5, 25_744_896), (10, 25_750_016)])
def test_the_mlp_of_the_paper_has_the_stated_size(length: int, count: int) -> None:
    with torch.device("meta"):
        prefixes = prefix_tuning.MLPPrefixes(24, length, 1024, 512, deep=False)
    assert sum(p.numel() for p in prefixes.parameters()) == count
    assert prefixes().numel() == 49_152 * length
