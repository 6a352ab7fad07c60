"""iCaRL against an independent restatement of its paper: herding, loss, three steps, means, exemplar sets."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods.icarl import ICaRL, ICaRLConfig, bench_register_methods, herd, supports
from benchmark.api import Batch
from benchmark.backbones.heads import ClassHead
from benchmark.errors import UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.testing.by_hand import at, context_of, place, view_of
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
SCENARIO = toy_scenario(experiences=3, classes=2, train=6, test=2)
PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def make(dtype: torch.dtype = torch.float64, **options: Any) -> ICaRL:
    config = ICaRLConfig(**{"batch_size": 5, "epochs": 2, "lr": 0.05, "schedule": "constant", "memory": 9, **options})
    return ICaRL(config, context_of(SPEC, config, SCENARIO)).to(dtype)


def batches(index: int, dtype: torch.dtype = torch.float64) -> list[Batch]:
    train = SCENARIO.experiences[index].train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(index))
    images = PIPELINE.eval(train.images(order)).to(dtype)
    return [Batch(*pair) for pair in zip(torch.split(images, 5), torch.split(train.labels[order], 5), strict=True)]


def run(method: ICaRL, index: int) -> None:
    method.train()
    method.begin_experience(view_of(method, SCENARIO, index))
    some, epochs = batches(index), method.config.epochs
    for step in range(epochs * len(some)):
        method.train_step(at(some[step % len(some)], step, each=len(some), epochs=epochs))
    method.end_experience(view_of(method, SCENARIO, index))


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_algorithm_4(seed: int) -> None:
    """Each exemplar brings the mean of those chosen closest to the class mean, looked up among all that are left."""
    features = unit(torch.randn(9, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5)
    mean = features.mean(0)
    chosen: list[int] = []
    for k in range(1, 10):
        rest = [place for place in range(9) if place not in chosen]
        gaps = [float((mean - features[[*chosen, place]].sum(0) / k).norm()) for place in rest]
        chosen.append(rest[gaps.index(min(gaps))])
    assert herd(features, 5).tolist() == chosen[:5]
    assert herd(features, 50).tolist() == chosen
    assert herd(features, 0).tolist() == []


def test_the_first_exemplars_are_the_best_set_to_begin_with() -> None:
    features = unit(torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    gaps = (features - features.mean(0)).norm(dim=1)
    assert int(herd(features, 1)) == int(gaps.argmin())


def restated_loss(logits: Tensor, labels: Tensor, old: Tensor | None) -> Tensor:
    """Algorithm 3: cross-entropy of one sigmoid per class; for old classes towards the former outputs."""
    total = logits.new_zeros(())
    for row, label in enumerate(labels.tolist()):
        for column in range(logits.shape[1]):
            wanted = logits.new_tensor(float(column == label))
            if old is not None and column < old.shape[1]:
                wanted = 1 / (1 + torch.exp(-old[row, column]))
            output = 1 / (1 + torch.exp(-logits[row, column]))
            total = total - wanted * torch.log(output) - (1 - wanted) * torch.log(1 - output)
    return total / len(labels)


@pytest.mark.parametrize("distillation", [True, False])
def test_three_steps_of_the_second_experience_equal_the_restatement(distillation: bool) -> None:
    method = make(distillation=distillation)
    run(method, 0)
    assert [len(images) for images in method.exemplars.values()] == [4, 4]
    vit, head = copy.deepcopy(method.backbone), copy.deepcopy(method.head)
    old_vit, old_head = copy.deepcopy(vit), copy.deepcopy(head)
    method.train()
    method.begin_experience(view_of(method, SCENARIO, 1))
    assert isinstance(head, ClassHead)
    assert isinstance(method.head, ClassHead)
    head.weight, head.bias = (torch.nn.Parameter(p.detach().clone()) for p in (method.head.weight, method.head.bias))
    optimizer = torch.optim.SGD([*vit.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    torch.manual_seed(3)
    order = torch.randperm(8)
    stored = [(label, place) for label, images in method.exemplars.items() for place in range(len(images))]
    torch.manual_seed(3)
    seen: list[int] = []
    for step, batch in enumerate(batches(1)):  # 12 images: 3 batches, with 2, 3 and 3 of the 8 exemplars
        part = order[8 * step // 3 : 8 * (step + 1) // 3].tolist()
        seen += part
        raw = torch.stack([method.exemplars[stored[place][0]][stored[place][1]] for place in part])
        images = torch.cat([batch.images, PIPELINE.eval(raw).double()])
        labels = torch.cat([batch.labels, torch.tensor([stored[place][0] for place in part])])
        with torch.no_grad():
            old = old_head(old_vit(images)) if distillation else None
        loss = restated_loss(head(vit(images)), labels, old)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert float(method.train_step(at(batch, step, each=3, epochs=2))["loss"]) == pytest.approx(
            float(loss.detach()), abs=1e-9
        )
    assert sorted(seen) == list(range(8))
    for mine, theirs in ((method.backbone, vit), (method.head, head)):
        for name, value in mine.named_parameters():
            torch.testing.assert_close(value, theirs.get_parameter(name), atol=1e-9, rtol=0)


def test_exemplars_means_and_logits_after_two_experiences_equal_the_restatement() -> None:
    method = make()
    run(method, 0)
    first = {label: images.clone() for label, images in method.exemplars.items()}
    run(method, 1)
    method.eval()
    train = SCENARIO.experiences[1].train

    def features(raw: Tensor) -> Tensor:
        with torch.no_grad():
            return unit(method.backbone(PIPELINE.eval(raw).double()))

    assert list(method.exemplars) == [0, 1, 2, 3]
    for label in (0, 1):  # 9 // 4 of the 9 // 2
        assert torch.equal(method.exemplars[label], first[label][:2])
    for label in (2, 3):
        images = train.images(torch.nonzero(train.labels == label).flatten())
        rows = features(images)
        best = min(range(6), key=lambda place: float((rows.mean(0) - rows[place]).norm()))
        second = min(
            (place for place in range(6) if place != best),
            key=lambda place: float((rows.mean(0) - (rows[best] + rows[place]) / 2).norm()),
        )
        assert torch.equal(method.exemplars[label], images[[best, second]])
    means = unit(torch.stack([features(images).mean(0) for images in method.exemplars.values()]))
    tests = SCENARIO.experiences[0].test.images(slice(None))
    found = method.predict(PIPELINE.eval(tests).double())
    torch.testing.assert_close(found, features(tests) @ means.T, atol=1e-9, rtol=0)
    gaps = torch.cdist(features(tests), means)
    assert torch.equal(found.argsort(dim=1, descending=True), gaps.argsort(dim=1))  # algorithm 1


def test_the_head_classifies_in_hybrid1() -> None:
    method = make(classifier="head")
    run(method, 0)
    images = batches(0)[0].images
    assert torch.equal(method.predict(images), method.logits(images))


def test_learning_rate_drops_of_the_paper() -> None:
    method = make(drops=True, epochs=70)
    method.begin_experience(view_of(method, SCENARIO, 0))
    factors = [method.factor(place(3 * epoch, each=3, epochs=70)) for epoch in range(70)]
    assert [len(list(run_)) for _, run_ in itertools.groupby(factors)] == [49, 14, 7]
    assert sorted(set(factors)) == pytest.approx([0.04, 0.2, 1.0])


def test_streams_with_returning_classes_and_too_small_memories_are_refused() -> None:
    assert supports(SCENARIO) is None
    assert "classes come again" in str(supports(toy_scenario(family="domain-il")))
    method = make(memory=3)
    run(method, 0)
    with pytest.raises(UsageError, match="3 exemplars are fewer than the 4 classes seen"):
        method.begin_experience(view_of(method, SCENARIO, 1))


def test_bad_values_and_what_it_uses() -> None:
    assert SPEC.uses_of(ICaRLConfig()) == {"boundaries", "memory"}
    for options, message in (
        ({"memory": 0}, "memory: 0 is too small"),
        ({"backbone_lr_scale": -1.0}, "backbone_lr_scale: -1.0 is negative"),
        ({"mask": "current"}, "mask: current has no meaning"),
    ):
        with pytest.raises(ValueError, match=message):
            ICaRLConfig(**options)  # type: ignore[arg-type]
