"""Methods on dual encoders: which backbone they get, what counts as pretrained, and that the contract fits them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import loading, records
from benchmark.api import Batch, Context, ExperienceView, Method
from benchmark.backbones.dual import dual_of, unclear_names
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.errors import UsageError
from benchmark.jobs import Job
from benchmark.registry import Entry, Loaded
from benchmark.run import checkpoint, costs, engine, plan, preparation
from benchmark.scenario import TestSet
from benchmark.testing import MethodContract, toys
from benchmark.testing.closed_form import tiny_clip
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO, ToyMethod, ToyMethodConfig

pytestmark = pytest.mark.usefixtures("one_thread")


class Prompts(Method):
    """Three shared vectors between the start token and the class name."""

    config: ToyMethodConfig

    def __init__(self, config: ToyMethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone)
        self.ctx = nn.Parameter(torch.randn(3, self.dual.text_width) * 0.02)
        self.names: list[str] = []
        self.to(context.device)

    def train(self, mode: bool = True) -> Prompts:
        super().train(mode)
        self.dual.eval()
        return self

    def begin_experience(self, experience: ExperienceView) -> None:
        self.names = list(experience.class_names)
        self.optimizer = torch.optim.SGD([self.ctx], lr=0.1)

    def extra_state(self) -> dict[str, Any]:
        return {"names": self.names}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.names = list(state["names"])

    def logits(self, images: Tensor) -> Tensor:
        tokens = self.dual.tokenize([f"x x x {name}." for name in self.names])
        e = self.dual.embed(tokens.ids)
        rows = torch.cat([e[:, :1], self.ctx.expand(len(e), -1, -1), e[:, 4:]], dim=1)
        return self.dual.logits(self.dual.image_features(images), self.dual.encode_text(rows, tokens.ends))

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        assert self.optimizer is not None
        loss = F.cross_entropy(self.logits(batch.images), batch.labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        return self.logits(images)


SPEC = dataclasses.replace(
    TOY_METHOD, name="toy-prompts", build=Prompts, uses=frozenset({"boundaries", "class_names"}), text=True
)


class TestPrompts(MethodContract):
    method = SPEC


class TestUnclearNames:
    """Names that the tiny dual encoder of the toys reads alike, or not at all, are told once and kept."""

    @staticmethod
    def warnings(*names: str, tests: tuple[str, ...] = (), text: bool = True) -> list[str]:
        count = len(names) + len(tests)
        scenario = toys.toy_scenario(classes=len(names), experiences=1, train=1, test=1)
        labels = tuple(range(len(names), count))
        further = TestSet(name="new", images=scenario.experiences[0].test, classes=labels)
        scenario = dataclasses.replace(
            scenario, class_names=(*names, *tests), num_classes=count, tests=(further,) if tests else ()
        )
        return list(preparation.unclear(dataclasses.replace(SPEC, text=text), scenario, tiny_clip()))

    def test_names_of_the_same_tokens_are_one_warning(self) -> None:
        (said,) = self.warnings("sea_turtle", "dog", "Sea turtle", "DOG", "cat")
        assert said.endswith("these are the same text: sea_turtle, Sea turtle; these are the same text: dog, DOG")

    def test_empty_names_are_told(self) -> None:
        (said,) = self.warnings("", "dog", " ")
        assert said.endswith("no word of these is known: '', ' '")

    def test_names_that_differ_are_no_warning(self) -> None:
        assert self.warnings("dog", "cat", "sea_turtle") == []

    def test_sets_that_are_told_apart_by_themselves_may_share_names(self) -> None:
        assert self.warnings("dog", "cat", tests=("dog", "bird")) == []
        assert len(self.warnings("dog", "cat", tests=("bird", "Bird"))) == 1

    def test_methods_without_text_are_not_warned(self) -> None:
        assert self.warnings("dog", "DOG", text=False) == []

    def test_words_outside_a_small_vocabulary_are_told_where_there_are_two(self) -> None:
        dual = dual_of(loading.load("nano-clip"))
        assert unclear_names(dual, ["cat", "frog", "truck", "", "1 frog"]) == ((), ("frog", "truck", ""))
        assert unclear_names(dual, ["cat frog", "cat truck", "cat"]) == ((("cat frog", "cat truck"),), ())

    def test_the_record_keeps_the_warning(self, tmp_path: Path) -> None:
        made = prepared(settings={"epochs": "1"})
        names = ("same", *made.stream.scenario.class_names[1:-1], "SAME")
        scenario = dataclasses.replace(made.stream.scenario, class_names=names)
        again = preparation.prepare(made.plan, scenario, pretrained=toys.tiny_backbone(text=True))
        path = engine.execute(again, tmp_path, hooks=manager([]), quiet=True)
        (said,) = [text for text in records.read(path).warnings if "class names" in text]
        assert said == f"class names on `{again.pretrained.name}`: no word of these is known: same, SAME"


def prepared(**options: Any) -> Any:
    return toys.prepare_toy(build=Prompts, uses=SPEC.uses, text=True, **options)  # type: ignore[arg-type]


def test_what_is_pretrained_is_neither_stored_nor_counted_as_added(tmp_path: Path) -> None:
    ready = prepared()
    method = Prompts(ready.plan.method_config, ready.context)
    whole = sum(p.numel() for p in ready.pretrained.module.parameters())
    image = sum(p.numel() for p in ready.context.backbone.model.parameters())
    assert set(checkpoint.snapshot(method)["method"]) == {"ctx"}
    assert checkpoint.snapshot(method)["backbone"] == {}
    assert costs.total(method) == whole + 72
    assert costs.pretrained_rest(method) == whole - image
    assert costs.storage_bytes(method) == 4 * 72
    record = records.read(engine.execute(ready, tmp_path, hooks=manager([]), quiet=True))
    assert record["cost"]["params_added"] == 72
    assert record["cost"]["params_total"] == whole + 72


def test_methods_on_images_do_not_count_the_text_tower() -> None:
    class Linear(ToyMethod):
        def _features(self, images: Tensor) -> Tensor:
            return F.pad(cls_feature(self.context.backbone.model, images), (0, 160))

    ready = prepared()
    method = Linear(ready.plan.method_config, ready.context)
    image = sum(p.numel() for p in ready.context.backbone.model.parameters())
    assert costs.total(method) == image
    assert costs.pretrained_rest(method) == 0


def test_a_trained_text_tower_is_in_the_checkpoint() -> None:
    ready = prepared()
    method = Prompts(ready.plan.method_config, ready.context)
    method.dual.text.requires_grad_(True)
    state = checkpoint.snapshot(method)
    assert "text.positions" in state["backbone"]
    state = {**state, "backbone": {name: value + 1 for name, value in state["backbone"].items()}}
    before = method.dual.text.positions.detach().clone()  # type: ignore[union-attr, operator]
    checkpoint.restore(method, state)
    assert torch.equal(method.dual.text.positions, before + 1)  # type: ignore[union-attr]


def resolved(track: str, *, text: bool = True, backbone: str | None = None) -> plan.Plan:
    here = Entry("toy", __name__, "tests")
    scenario = dataclasses.replace(TOY_SCENARIO, tracks={"nano": "plain", "mini": "plain", "paper": "plain"})
    spec = dataclasses.replace(SPEC, text=text)
    request = Job(scenario="toy", method=spec.name, track=track, backbone=backbone)
    return plan.resolve_specs(request, Loaded(scenario, here, "0" * 64), Loaded(spec, here, "0" * 64))


def test_methods_with_text_get_the_dual_encoder_of_the_track() -> None:
    assert resolved("nano").backbone == "nano-clip"
    assert resolved("nano", text=False).backbone == "nano-vit"
    assert resolved("paper").backbone == "open_clip:ViT-B-16/openai"
    assert resolved("mini", backbone="nano-clip").backbone == "nano-clip"
    with pytest.raises(UsageError, match="needs a backbone with a text tower, and track mini names none") as caught:
        resolved("mini")
    assert "--backbone open_clip:" in str(caught.value.hint)


def test_a_backbone_without_text_is_refused_before_anything_is_built() -> None:
    chosen = resolved("nano", backbone="tiny")
    with pytest.raises(UsageError, match="backbone `tiny` has no text tower"):
        preparation.prepare(chosen, toys.toy_scenario(), pretrained=toys.tiny_backbone())
