"""Methods of domain generalisation against numbers recorded from their official code (``tests/golden/adaptation``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench_methods import erm, erm_plus_plus, group_dro, irm, miro, mixup, swad, vrex
from benchmark.api import Batch, Place
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden" / "adaptation"
LIMIT = {torch.float64: 1e-9, torch.float32: 1e-4}  # as the cases ask for
NET = {"0.": "backbone.net.", "1.": "head."}
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def make(case: Recorded, module: ModuleType, names: dict[str, str], prefix: str = "method.0.", **options: Any) -> Any:
    """The plugin's own class on the recorded network, with DomainBed's optimiser, before its first step."""
    (spec,) = module.bench_register_methods()
    recorded, adam = case.meta["config"], case.meta["optimizer"]
    given = {"batch_size": recorded["domains"] * recorded["batch_per_domain"], "optimizer": "adam"}
    given |= {"lr": adam["lr"], "weight_decay": adam["weight_decay"], "backbone_lr_scale": 1.0, "schedule": "constant"}
    config = spec.config(**given, **options)
    scenario = toy_scenario(family="dg", classes=recorded["classes"], train=4, test=1)
    backbone = backbone_of(case.cnn(prefix))  # type: ignore[arg-type]
    method = spec.build(config, context_of(spec, config, scenario, backbone=backbone)).to(case.dtype)
    begin(method, scenario, 0)
    method.to(case.dtype)
    method.domains = recorded["domains"]  # the toy scenario has two
    state = method.state_dict()
    for name, value in case.part("method.").items():
        if (ours := own_name(name, names)) is not None:
            assert state[ours].shape == value.shape, name
            state[ours] = value
    method.load_state_dict(state)
    return method


def own_name(name: str, names: dict[str, str]) -> str | None:
    """Our name of an official parameter; None of what has none here."""
    for theirs, ours in names.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return None


def batch_of(case: Recorded, step: int, *, steps: int = 10_000) -> Batch:
    """The images of all domains, one behind the other."""
    images, labels = (case.tensor(f"input.{name}")[step] for name in ("images", "labels"))
    domains = torch.arange(len(images)).repeat_interleave(images.shape[1])
    place = Place(step=step, steps=steps, epoch_step=step, epoch_steps=steps)
    return Batch(images.flatten(0, 1), labels.flatten(), domains=domains, place=place)


def follow(case: Recorded, method: Any, names: dict[str, str], terms: dict[str, str], steps: int) -> None:
    """Logits of the first batch, then some steps: terms, gradients of the first, weights after some."""
    limit, found = LIMIT[case.dtype], list[dict[str, Tensor]]()
    state = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        case.compare("train.logits", method.head(method.features(batch_of(case, 0).images)), limit=limit)
    method.load_state_dict(state)
    whole, gradients = method.stepper.whole, dict[str, Tensor | None]()

    def noting(optimizer: torch.optim.Optimizer) -> bool:
        """Keeps the first gradients, those of what then gets no step included."""
        if not gradients:
            gradients.update({name: one.grad for name, one in method.named_parameters()})
        return bool(whole(optimizer))

    method.stepper.whole = noting
    for step in range(steps):
        found.append(method.train_step(batch_of(case, step)))
        if step == 0:
            for key in case.computed("grad1."):
                ours = own_name(key.removeprefix("grad1."), names)
                assert ours is not None, key
                case.compare(key, gradients[ours], limit=limit)
        compare_state(case, method.state_dict(), f"after{step + 1}.", names)
    for theirs, ours in terms.items():
        case.compare(f"steps.{theirs}", torch.stack([torch.as_tensor(one[ours]) for one in found]), limit=limit)
    assert any(key.startswith(f"after{steps}.") for key in case.worst)


def compare_state(case: Recorded, state: dict[str, Tensor], prefix: str, names: dict[str, str]) -> None:
    """Everything that is recorded under a prefix."""
    for key in case.computed(prefix):
        ours = own_name(key.removeprefix(prefix), names)
        assert ours is not None, key
        case.compare(key, state[ours], limit=LIMIT[case.dtype])


@both
def test_erm(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "erm_dg", "erm", dtype)
    follow(case, make(case, erm, NET), NET, {"loss": "loss"}, 3)
    case.report()


@both
def test_irm_across_the_jump_of_its_penalty(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "irm", "irm_across_anneal", dtype)
    method = make(case, irm, NET, penalty=50.0, anneal=2)
    follow(case, method, NET, {"loss": "loss", "nll": "loss_ce", "penalty": "penalty"}, 4)
    case.report()


@both
def test_vrex_across_the_jump_of_its_penalty(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "vrex", "vrex_across_anneal", dtype)
    method = make(case, vrex, NET, penalty=10.0, anneal=1)
    follow(case, method, NET, {"loss": "loss", "penalty": "penalty"}, 3)  # their nll is that of the last domain
    case.report()


@both
def test_group_dro(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "groupdro", "groupdro", dtype)
    method = make(case, group_dro, NET, group_eta=0.01)
    method.q = torch.ones(3, dtype=dtype)
    weights, terms = [], method.terms

    def noting(batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = terms(batch)
        weights.append(method.q)
        return found

    method.terms = noting
    follow(case, method, NET, {"loss": "loss"}, 3)
    case.compare("steps.q", torch.stack(weights), limit=LIMIT[dtype])
    case.report()


@both
def test_mixup(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Recorded(GOLDEN / "mixup_dg", "mixup", dtype)
    method = make(case, mixup, NET, mixup_alpha=0.2)
    orders, shares = (iter(case.arrays[f"input.{name}"]) for name in ("permutation", "lambda"))
    monkeypatch.setattr(method, "draw", lambda domains: (next(orders).tolist(), next(shares).tolist()))
    follow(case, method, NET, {"loss": "loss"}, 3)
    case.report()


@both
def test_erm_plus_plus(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "ermpp", "ermpp", dtype)
    config = case.meta["config"]
    hparams = config["hparams"]
    method = make(
        case,
        erm_plus_plus,
        NET,
        linear_steps=hparams["linear_steps"],
        linear_lr=hparams["linear_lr"],
        average_from=config["average_from_step"],
    )
    step = method.train_step
    done = []

    def noting(batch: Batch) -> Any:
        terms = step(batch)
        done.append(batch)
        compare_state(case, method.average.tensors, f"after{len(done)}_average.", NET)
        return terms

    method.train_step = noting
    follow(case, method, NET, {"loss": "loss"}, 6)
    assert sum("_average." in key for key in case.worst) > 20
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        case.compare("predict", method.eval().predict(batch_of(case, 0).images), limit=LIMIT[dtype])
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    case.report()


@both
@pytest.mark.parametrize("name", ["never_dies", "valley_dies"])
def test_swad(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "swad", name, dtype)
    config, weights = case.meta["config"], case.tensor("input.parameters")
    losses = iter(case.arrays["input.validation_losses"].tolist())
    valley = swad.Valley(config["n_converge"], config["n_tolerance"], config["tolerance_ratio"])
    segment, stopped, every = None, -1, config["checkpoint_every"]
    for step, row in enumerate(weights):
        segment = segment or swad.Mean({"w": row})
        segment.add({"w": row})
        if step % every == 0:
            valley.close(swad.Segment(segment.weights, next(losses), step))
            segment = None
            again = swad.Valley(valley.converge, valley.tolerance, valley.ratio)
            again.load(valley.state())  # a stopped run goes on the same way
            valley = again
        if valley.dead:
            stopped = step
            break
    assert stopped == case.arrays["f64.stopped_at"]
    assert valley.begun == case.arrays["f64.converge_step"]
    case.compare("threshold", torch.tensor(valley.threshold, dtype=torch.float64))
    answer = valley.answer()
    assert answer is not None
    assert valley.final is not None
    assert valley.final.count == case.arrays["f64.n_averaged"]
    case.compare("average", answer["w"], limit=LIMIT[dtype])
    case.report()


def test_without_a_valley_the_last_segment_answers() -> None:
    valley = swad.Valley(3, 6, 0.3)
    for step in range(4):  # the loss only falls
        valley.close(swad.Segment({"w": torch.tensor([float(step)])}, 1.0 - 0.1 * step, step))
    assert valley.begun is None
    assert valley.answer() == {"w": torch.tensor([3.0])}


@both
def test_miro(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Recorded(GOLDEN / "miro", "two_layers", dtype)
    config = case.meta["config"]
    names = {"network.0.network.": "backbone.net.", "network.1.": "head."}
    monkeypatch.setattr(miro.MIRO, "layers", lambda self, model: [model.net.bn1, model.net.bn2])
    given = {"trade_off": config["ld"], "variance": 0.1, "variance_lr_scale": config["lr_mult"]}
    method = make(case, miro, names, "method.network.0.network.", **given)
    (pretrained,) = method._pretrained
    pretrained.to(dtype)
    for name, value in case.part("method.pre_featurizer.network.").items():
        assert torch.equal(pretrained.state_dict()[f"net.{name}"], value), name
    for raw in method.variances.raw:  # set in the run's precision there
        nn.init.constant_(raw, float(np.log(np.expm1(0.1 - 1e-5))))
    grads = {
        "featurizer.network.": "backbone.net.",
        "classifier.": "head.",
        "0.network.": "backbone.net.",
        "1.": "head.",
    }
    grads |= names | {f"var_encoders.{place}.b": f"variances.raw.{place}" for place in range(2)}
    follow(case, method, grads, {"loss": "loss", "reg_loss": "drift"}, 3)
    with torch.no_grad(), miro.recorded(method.layers(pretrained)) as outputs:
        pretrained(batch_of(case, 0).images)
    case.compare("train.feature0", outputs[0].mean(dim=(2, 3)), limit=LIMIT[dtype])
    case.report()
