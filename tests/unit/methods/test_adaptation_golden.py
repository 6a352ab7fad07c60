"""MCC, MDD, MCD, SDAT and self-training against numbers recorded from official code (``tests/golden/adaptation``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench_methods import mcc, mcd, mdd, sdat, self_training
from benchmark.api import Batch, Place
from benchmark.learners.adaptation import Adaptation, class_confusion
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden" / "adaptation"
LIMIT = {torch.float64: 1e-9, torch.float32: 1e-4}  # as the cases ask for
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def make(case: Recorded, module: ModuleType, prefix: str = "method.backbone.", **options: Any) -> Any:
    """The plugin's own class on the recorded network, at the start of its experience."""
    (spec,) = module.bench_register_methods()
    size, optimizer = case.meta["config"]["batch"], case.meta["optimizer"]
    values = {"batch_size": size, "schedule": "steps", **options}
    if "lr0" in optimizer:
        values |= {"lr": optimizer["lr0"], "lr_gamma": optimizer["gamma"], "lr_decay": optimizer["decay"]}
        values |= {"momentum": optimizer["momentum"], "weight_decay": optimizer["weight_decay"]}
    config = spec.config(**values)
    scenario = toy_scenario(family="uda", classes=case.meta["config"]["classes"], train=4, test=1)
    backbone = backbone_of(case.cnn(prefix))  # type: ignore[arg-type]
    method = spec.build(config, context_of(spec, config, scenario, backbone=backbone)).to(case.dtype)
    begin(method, scenario, 0)
    return method.to(case.dtype)


def own_name(name: str, names: dict[str, str]) -> str:
    """Our name of an official parameter: the longest prefix that is known is replaced."""
    for theirs, ours in sorted(names.items(), key=lambda pair: -len(pair[0])):
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return name


def load(case: Recorded, method: nn.Module, names: dict[str, str]) -> None:
    """Gives the method every recorded start value."""
    state = method.state_dict()
    for name, value in case.part("method.").items():
        ours = own_name(name, names)
        assert state[ours].shape == value.shape, name
        state[ours] = value
    method.load_state_dict(state)


def compare_state(case: Recorded, method: nn.Module, prefix: str, names: dict[str, str]) -> None:
    """All recorded parameters and statistics."""
    state, keys = method.state_dict(), case.computed(prefix)
    assert keys
    for key in keys:
        case.compare(key, state[own_name(key.removeprefix(prefix), names)], limit=LIMIT[case.dtype])


def compare_gradients(case: Recorded, method: nn.Module, names: dict[str, str]) -> None:
    """All recorded gradients."""
    parameters, keys = dict(method.named_parameters()), case.computed("grad1.")
    assert keys
    for key in keys:
        gradient = parameters[own_name(key.removeprefix("grad1."), names)].grad
        case.compare(key, gradient, limit=LIMIT[case.dtype])


def batch_of(case: Recorded, step: int, first: int = 0) -> Batch:
    """Source and target of a step; the clock may have run before."""
    parts = [case.tensor(f"input.{name}")[step] for name in ("source", "source_labels", "target")]
    place = Place(step=first + step, steps=10_000, epoch_step=step, epoch_steps=10_000)
    return Batch(*parts, target_index=torch.arange(len(parts[2])), place=place)


def forward(case: Recorded, method: Adaptation) -> tuple[Tensor, Tensor]:
    """Features and logits of the first batch in training mode; statistics stay as they are."""
    state = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        features = method.batch_features(batch_of(case, 0))
        logits: Tensor = method.head(features)
    method.load_state_dict(state)
    return features, logits


NET = {"backbone.": "backbone.net."}


@both
def test_class_confusion_equals_the_official_loss(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "mcc", "loss", dtype)
    logits = case.tensor("input.logits").requires_grad_()
    loss = class_confusion(logits, case.meta["config"]["temperature"])
    loss.backward()
    case.compare("loss", loss, limit=LIMIT[dtype])
    case.compare("grad.logits", logits.grad, limit=LIMIT[dtype])
    case.report()


@both
def test_mcc_in_three_steps(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "mcc", "three_steps", dtype)
    method = make(case, mcc, bottleneck=16, temperature=2.5, trade_off=1.0)
    load(case, method, NET)
    features, logits = forward(case, method)
    case.compare("train.features", features, limit=LIMIT[dtype])
    case.compare("train.logits", logits, limit=LIMIT[dtype])
    found: list[dict[str, Any]] = []
    for step in range(3):
        found.append(method.train_step(batch_of(case, step)))
        if step == 0:
            compare_gradients(case, method, NET)
    case.compare("steps.loss", torch.stack([terms["loss"] for terms in found]), limit=LIMIT[dtype])
    case.compare("steps.mcc", torch.stack([terms["alignment"] for terms in found]), limit=LIMIT[dtype])
    compare_state(case, method, "after3.", NET)
    case.report()


def test_mcc_one_domain_after_the_other() -> None:
    """``together=false``: BatchNorm normalises each domain by itself, as two passes do."""
    case = Recorded(GOLDEN / "mcc", "three_steps", torch.float64)
    method = make(case, mcc, bottleneck=16, together=False)
    load(case, method, NET)
    batch = batch_of(case, 0)
    features, _ = forward(case, method)
    alone = [method.features(images) for images in (batch.images, batch.target)]
    torch.testing.assert_close(features, torch.cat(alone))
    together = case.tensor("f64.train.features")
    assert not torch.allclose(features, together, atol=1e-3)


@both
@pytest.mark.parametrize("name", ["start", "warm"])
def test_mdd_in_three_steps(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "mdd", name, dtype)
    config = case.meta["config"]
    names = {**NET, "bottleneck.": "bottleneck.", "adv_head.": "adversary."}
    names |= {f"bottleneck.{place}.": f"bottleneck.{place - 1}." for place in (1, 2)}  # theirs begins with a pooling
    options = {"bottleneck": 14, "hidden": 10, "dropout": 0.0, "margin": config["margin"]}
    method = make(case, mdd, warmup_alpha=1.0, warmup_steps=1000, **options)
    load(case, method, names)
    features, logits = forward(case, method)
    case.compare("train.logits", logits, limit=LIMIT[dtype])
    case.compare("train.logits_adv", method.adversary(features), limit=LIMIT[dtype])
    assert method.strength(batch_of(case, 0, config["first_i"]).place) == pytest.approx(
        {"start": 0.0, "warm": 0.2 / (1 + 2.718281828459045**-0.7) - 0.1}[name]
    )
    found: list[dict[str, Any]] = []
    for step in range(3):
        batch = batch_of(case, step)
        strength = method.strength(batch_of(case, step, config["first_i"]).place)
        method.strength = lambda place, strength=strength: strength  # its own clock: the learning rate's starts at 0
        found.append(method.train_step(batch))
        del method.strength
        if step == 0:
            compare_gradients(case, method, names)
    case.compare("steps.loss", torch.stack([terms["loss"] for terms in found]), limit=LIMIT[dtype])
    case.compare("steps.transfer", torch.stack([terms["alignment"] for terms in found]), limit=LIMIT[dtype])
    compare_state(case, method, "after3.", names)
    case.report()


@both
@pytest.mark.parametrize("name", ["default", "trade_off"])
def test_mcd_in_three_iterations(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Recorded(GOLDEN / "mcd", name, dtype)
    config, heads = case.meta["config"], case.meta["optimizer"]["F"]
    names = {"G.": "backbone.net.", "F1.head.": "head.", "F2.head.": "other."}
    method = make(
        case,
        mcd,
        "method.G.",
        schedule="constant",
        hidden=10,
        dropout=0.0,
        lr=heads["lr"],
        momentum=heads["momentum"],
        weight_decay=heads["weight_decay"],
        trade_off=config["trade_off"],
        balance=config["trade_off_entropy"],
        generator_steps=config["num_k"],
    )
    load(case, method, names)
    features, logits = forward(case, method)
    case.compare("train.features", features, limit=LIMIT[dtype])
    case.compare("train.logits1", logits, limit=LIMIT[dtype])
    found = []
    gradients: dict[str, Tensor | None] = {}
    monkeypatch.setattr(method.stepper, "step", _noting(method, gradients))
    for step in range(3):
        found.append(torch.stack(method.phases(batch_of(case, step))))
    for key in case.computed("grad1."):
        case.compare(key, gradients[own_name(key.removeprefix("grad1."), names)], limit=LIMIT[dtype])
    case.compare("steps.losses", torch.stack(found), limit=LIMIT[dtype])
    compare_state(case, method, "after3.", names)
    case.report()


def _noting(method: Any, gradients: dict[str, Tensor | None]) -> Callable[[torch.optim.Optimizer], None]:
    """Steps that keep the gradients of the first one, which the phases behind it overwrite."""
    take = method.stepper.step

    def step(optimizer: torch.optim.Optimizer) -> None:
        if not gradients:
            for name, parameter in method.named_parameters():
                gradients[name] = None if parameter.grad is None else parameter.grad.clone()
        take(optimizer)

    return step


@both
@pytest.mark.parametrize("name", ["cdan_sdat", "cdan_mcc_sdat"])
def test_sdat_in_three_steps(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "sdat", name, dtype)
    config = case.meta["config"]
    method = make(
        case,
        sdat,
        bottleneck=8,
        hidden=10,
        hidden_norm="batch" if config["discriminator_batch_norm"] else "none",
        rho=config["rho"],
        confusion=0.0 if config["temperature"] is None else 1.0,
        temperature=config["temperature"] or 1.0,
        warmup_alpha=1.0,
        warmup_steps=1000,
        randomized="never",
    )
    names = dict(NET)
    if not config["discriminator_batch_norm"]:  # ReLU and dropout behind a layer there, ReLU here
        names |= {"discriminator.3.": "discriminator.2.", "discriminator.6.": "discriminator.4."}
    load(case, method, names)
    features, logits = forward(case, method)
    case.compare("train.features", features, limit=LIMIT[dtype])
    case.compare("train.logits", logits, limit=LIMIT[dtype])
    found: list[dict[str, Any]] = []
    for step in range(3):
        found.append(method.train_step(batch_of(case, step)))
        if step == 0:
            compare_gradients(case, method, names)
    losses = torch.stack([torch.stack([terms["loss_before"], terms["loss"]]) for terms in found])
    case.compare("steps.losses", losses, limit=LIMIT[dtype])
    transfer = torch.stack([terms["alignment"] + terms.get("confusion", 0.0) for terms in found])
    case.compare("steps.transfer", transfer, limit=LIMIT[dtype])
    compare_state(case, method, "after3.", names)
    case.report()


@both
def test_self_training_in_three_steps(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Recorded(GOLDEN / "self_training", "fixmatch_steps", dtype)
    method = make(case, self_training, bottleneck=9, threshold=0.5, trade_off=1.0)
    load(case, method, NET)
    found: list[dict[str, Any]] = []
    for step in range(3):
        strong = case.tensor("input.target_strong")[step]
        monkeypatch.setattr(method, "strong_view", lambda batch, strong=strong: strong)
        found.append(method.train_step(batch_of(case, step)))
        if step == 0:
            compare_gradients(case, method, NET)
    losses = torch.stack([torch.stack([terms["loss_ce"], terms["loss_pseudo"]]) for terms in found])
    case.compare("steps.backward", losses, limit=LIMIT[dtype])
    share = case.tensor("f64.steps.mask").double().mean(dim=1)
    torch.testing.assert_close(torch.stack([terms["confident"] for terms in found]).double(), share)
    compare_state(case, method, "after3.", NET)
    case.report()
