"""CODA-Prompt's options: components per task, schedule, streams of unknown length, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench_methods.coda_prompt import (
    CodaPrompt,
    CodaPromptConfig,
    ComponentPool,
    attention_weights,
    bench_register_methods,
    gram_schmidt,
    uses,
)
from benchmark.api import Scenario
from benchmark.errors import UsageError
from benchmark.learners.prompting import late_cosine
from benchmark.run import checkpoint
from benchmark.testing.by_hand import batch_of, context_of, learn, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

(SPEC,) = bench_register_methods()
SMALL = {"pool_size": 6, "prompt_length": 4, "batch_size": 8}
SCHEDULES = Path(__file__).parents[2] / "golden" / "coda_prompt" / "schedules.npz"


def make(scenario: Scenario, depth: int = 2, **changes: Any) -> CodaPrompt:
    config = CodaPromptConfig(**{**SMALL, **changes})
    return CodaPrompt(config, context_of(SPEC, config, scenario, backbone=tiny_backbone(depth=depth)))


def test_trainable_parameters_follow_the_formula() -> None:
    scenario = toy_scenario(experiences=3, classes=2)
    method = make(scenario, depth=6)
    method.begin_experience(view_of(method, scenario, 0))
    assert method.optimizer is not None
    held = sum(p.numel() for group in method.optimizer.param_groups for p in group["params"])
    assert held == 5 * (2 * 6 * 32 + 6 * 4 * 32) + 32 * 2 + 2
    config = CodaPromptConfig()
    pool = config.prompt_depth * (2 * config.pool_size * 768 + config.pool_size * config.prompt_length * 768)
    assert (pool, pool + 768 * 100 + 100, pool + 768 * 200 + 200) == (3_840_000, 3_916_900, 3_993_800)


def test_prompts_go_into_the_first_blocks_or_all_there_are() -> None:
    scenario = toy_scenario()
    found = [list(make(scenario, depth=depth).layers) for depth in (2, 5, 7)]
    assert found == [[0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert list(make(scenario, depth=7, prompt_depth=6).layers) == [0, 1, 2, 3, 4, 5]


def test_weights_are_the_cosine_of_the_attended_query_with_the_key() -> None:
    torch.manual_seed(0)
    query, attention, keys = torch.randn(3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    attention[1, 2] = 0  # no direction
    attention.requires_grad_(True)
    found = attention_weights(query, attention, keys)
    for layer in range(2):
        attended = query[:, None] * attention[layer]  # (B, M, D)
        wanted = (F.normalize(attended, dim=-1) * F.normalize(keys[layer], dim=-1)).sum(-1)
        torch.testing.assert_close(found[layer], wanted, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert attention.grad is not None
    assert attention.grad.isfinite().all()


def test_an_experience_trains_its_own_components_and_reads_the_older_ones() -> None:
    scenario = toy_scenario(experiences=3)
    method = make(scenario)
    for task in range(3):
        old = {name: tensor.detach().clone() for name, tensor in method.pool.named_parameters()}
        method.begin_experience(view_of(method, scenario, task))
        start = {name: tensor.detach().clone() for name, tensor in method.pool.named_parameters()}
        for name, tensor in start.items():
            assert torch.equal(tensor[:, : 2 * task], old[name][:, : 2 * task])
            assert tensor[:, 2 * task + 2 :].count_nonzero() == 0
            new = tensor[:, 2 * task : 2 * task + 2].flatten(2)
            torch.testing.assert_close(new.norm(dim=-1), torch.ones(2, 2))
        for step in range(2):
            method.train_step(batch_of(method, scenario, task, step))
        for name, tensor in method.pool.named_parameters():
            moved = (tensor != start[name]).flatten(2).any(2).any(0)
            assert moved.nonzero().flatten().tolist() == [2 * task, 2 * task + 1]
    with torch.no_grad():
        images = batch_of(method, scenario, 0).images
        before = method.eval().predict(images)
        method.pool.prefixes[:, 0] += 1
        assert not torch.equal(method.predict(images), before)


def test_new_components_are_orthogonal_to_one_another() -> None:
    torch.manual_seed(0)
    rows = gram_schmidt(torch.zeros(6, 4, 8), 0, 4)
    flat = rows.flatten(1)
    torch.testing.assert_close(flat[:4] @ flat[:4].T, torch.eye(4), rtol=0, atol=1e-5)
    assert rows[4:].count_nonzero() == 0


def test_orthogonalisation_ends_where_no_direction_is_left() -> None:
    """Official code draws for ever when an old row is 0, or when rows outnumber dimensions."""
    torch.manual_seed(0)
    rows = gram_schmidt(torch.zeros(6, 3), 0, 6)  # six rows in three dimensions
    torch.testing.assert_close(rows[:3] @ rows[:3].T, torch.eye(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    after_zero = gram_schmidt(torch.zeros(3, 8), 1, 3)
    torch.testing.assert_close(after_zero.norm(dim=1), torch.tensor([0.0, 1.0, 1.0]))


def test_the_optimizer_is_made_after_the_components_and_new_for_each_experience() -> None:
    scenario = toy_scenario()
    for changes in ({}, {"components": 2}):
        method = make(scenario, **changes)
        for task in range(2):
            first = method.optimizer
            learn(method, scenario, task)
            assert method.optimizer is not first
            assert method.optimizer is not None
            held = {id(p) for group in method.optimizer.param_groups for p in group["params"]}
            assert held == {id(p) for part in (method.pool, method.head) for p in part.parameters()}


def test_the_schedule_is_the_official_one() -> None:
    with np.load(SCHEDULES) as recorded:
        for epochs in (20, 50):
            mine = [0.001 * late_cosine(epoch, epochs) for epoch in range(epochs)]
            np.testing.assert_allclose(mine, recorded[f"epochs{epochs}"], rtol=1e-12)
    assert [late_cosine(epoch, 3) for epoch in range(3)] == pytest.approx([1.0, 1.0, 0.7126], abs=1e-4)


@pytest.mark.parametrize("epochs", [1, 2])
def test_with_one_or_two_epochs_the_rate_stays(epochs: int) -> None:
    assert [late_cosine(epoch, epochs) for epoch in range(epochs + 2)] == [1.0] * (epochs + 2)


def test_the_rate_falls_from_epoch_to_epoch() -> None:
    scenario = toy_scenario()  # some steps an epoch
    method = make(scenario, epochs=4)
    method.begin_experience(view_of(method, scenario, 0))
    steps = -(-len(scenario.experiences[0].train) // 8)
    rates = []
    for step in range(4 * steps):
        method.train_step(batch_of(method, scenario, 0, step))
        assert method.optimizer is not None
        rates.append(method.optimizer.param_groups[0]["lr"])
    wanted = [0.001 * late_cosine(epoch, 4) for epoch in range(4) for _ in range(steps)]
    assert rates == pytest.approx(wanted, rel=1e-12)
    assert rates[-1] < rates[0]
    learn(method, scenario, 1, steps=1)
    assert method.optimizer is not None
    assert method.optimizer.param_groups[0]["lr"] == 0.001


def test_streams_of_unknown_length() -> None:
    scenario = toy_scenario(experiences=4)
    method = make(scenario, components=2, pool_size=1)
    assert method.context.uses == {"boundaries"}
    sizes = []
    for task in range(4):
        learn(method, scenario, task)
        sizes.append(method.pool.size)
    assert sizes == [2, 4, 6, 8]


def test_a_pool_that_has_grown_comes_back_from_a_checkpoint() -> None:
    scenario = toy_scenario(experiences=3)
    method = make(scenario, components=2)
    for task in range(2):
        learn(method, scenario, task)
    again = make(scenario, components=2)
    checkpoint.restore(again, {**checkpoint.snapshot(method), "optimizer": None})
    images = batch_of(method, scenario, 0).images
    with torch.no_grad():
        assert torch.equal(again.eval().predict(images), method.predict(images))
    for learner in (method, again):
        torch.manual_seed(1)
        learn(learner, scenario, 2)
    assert again.experiences == 3
    assert torch.equal(again.pool.prefixes, method.pool.prefixes)


def test_resizing_keeps_rows_and_frozen_state() -> None:
    pool = ComponentPool(2, size=3, length=2, width=4).requires_grad_(False)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    keys = pool.keys.clone()
    pool.resize(5)
    assert torch.equal(pool.keys[:, :3], keys)
    assert pool.keys[:, 3:].count_nonzero() == 0
    assert not pool.prefixes.requires_grad
    assert pool.prefixes.shape == (2, 5, 2, 4)


def test_more_experiences_than_components_are_refused() -> None:
    with pytest.raises(UsageError, match="pool_size: 2 components are too few for 3 experiences"):
        make(toy_scenario(experiences=3), pool_size=2)


def test_domain_incremental_streams_have_no_mask_but_components_per_domain() -> None:
    scenario = toy_scenario(family="domain-il", classes=3)
    method = make(scenario)
    learn(method, scenario, 0)
    rows = method.head.weight.detach().clone()
    learn(method, scenario, 1)
    assert method.rows() == (3, 6)
    assert (method.head.weight != rows).any(1).all()
    with torch.no_grad():
        assert method.predict(batch_of(method, scenario, 0).images).shape == (8, 3)


def test_the_penalty_is_on_only_when_asked_for() -> None:
    scenario = toy_scenario()
    for ortho, logged in ((0.0, False), (0.5, True)):
        method = make(scenario, ortho=ortho, lr=0.1)
        learn(method, scenario, 0)  # at the start the components are orthogonal
        terms = method.train_step(batch_of(method, scenario, 0))
        assert ("ortho" in terms) == logged
        assert (float(terms["loss"]) > float(terms["loss_ce"])) == logged


def test_what_each_recipe_uses() -> None:

    def used(recipe: str) -> frozenset[str]:
        return SPEC.uses_of(CodaPromptConfig(**SPEC.recipes.get(recipe, {})))  # type: ignore[arg-type]

    assert used("honest") == used("released") == used("paper-penalty") == {"boundaries", "num_experiences"}
    assert used("open-ended") == {"boundaries"}
    assert uses(CodaPromptConfig(eval_logits="all")) == {"boundaries", "num_experiences", "num_classes"}
