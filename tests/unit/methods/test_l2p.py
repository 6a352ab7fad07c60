"""L2P's options: what they change, what they refuse, what they need to know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods.l2p import L2P, L2PConfig, bench_register_methods, uses
from benchmark.api import Scenario
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.testing.by_hand import batch_of, context_of, learn, view_of
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
SMALL = {"pool_size": 6, "prompt_length": 2, "top_k": 2, "batch_size": 8}


def make(scenario: Scenario, **changes: Any) -> L2P:
    config = L2PConfig(**{**SMALL, **changes})
    return L2P(config, context_of(SPEC, config, scenario))


def test_trainable_parameters_follow_the_formula() -> None:
    scenario = toy_scenario(experiences=2, classes=3)
    for changes, pool, length in (({}, 6, 2), ({"pool_size": 4, "prompt_length": 3}, 4, 3)):
        method = make(scenario, **changes)
        method.begin_experience(view_of(method, scenario, 0))
        assert method.optimizer is not None
        held = sum(p.numel() for group in method.optimizer.param_groups for p in group["params"])
        assert held == pool * length * 32 + pool * 32 + 32 * 3 + 3
    wide = L2PConfig()
    assert wide.pool_size * wide.prompt_length * 768 + wide.pool_size * 768 + 768 * 100 + 100 == 122_980


@pytest.mark.parametrize(("rule", "alone"), [("per-sample", True), ("batchwise", False)])
def test_only_batchwise_selection_depends_on_the_test_batch(rule: str, alone: bool) -> None:
    torch.manual_seed(0)
    scenario = toy_scenario(experiences=2, classes=8, train=4, test=4)
    method = make(scenario, selection_eval=rule, top_k=1, prompt_init="uniform")
    learn(method, scenario, 0)
    with torch.no_grad():  # queries of an untrained backbone are alike: spread the keys around them
        test = scenario.experiences[0].test
        images = method.context.pipeline.eval(test.images(slice(None)))
        query = cls_feature(method.backbone, images)
        method.pool.keys.copy_(query[:: len(query) // 6][:6] - query.mean(0))
        together = method.predict(images)
        one_by_one = torch.cat([method.predict(image.unsqueeze(0)) for image in images])
    assert torch.allclose(together, one_by_one, atol=1e-5) == alone


def selection(method: L2P, images: Tensor) -> Tensor:
    chosen = method.run(images).chosen
    assert chosen is not None
    assert chosen.selection is not None
    return chosen.selection


def test_groups_vote_for_themselves() -> None:
    scenario = toy_scenario(experiences=2, classes=8, train=4, test=4)
    method = make(scenario, selection_eval="batchwise", selection_group=4)
    method.begin_experience(view_of(method, scenario, 0))
    images = method.context.pipeline.eval(scenario.experiences[0].test.images(slice(None)))
    with torch.no_grad():
        together = selection(method.eval(), images)
        apart = torch.cat([selection(method, part) for part in torch.split(images, 4)])
    assert torch.equal(together, apart)


def test_without_prompts_nothing_is_chosen() -> None:
    scenario = toy_scenario()
    method = make(scenario, prompts="off")
    learn(method, scenario, 0)
    learn(method, scenario, 1)
    assert method.histograms == [[0] * 6, [0] * 6]


def test_domain_incremental_streams_have_no_mask() -> None:
    scenario = toy_scenario(family="domain-il", classes=3)
    method = make(scenario)
    for index in range(2):
        learn(method, scenario, index)
    with torch.no_grad():
        assert method.predict(batch_of(method, scenario, 0).images).shape == (8, 3)


def test_prompt_mask_trains_only_the_tasks_own_slots() -> None:
    scenario = toy_scenario()
    method = make(scenario, prompt_mask=True)
    before = method.pool.prompts.detach().clone()
    learn(method, scenario, 1)
    changed = (method.pool.prompts != before).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, True, False, False]
    assert method.histograms[0][:2] == [0, 0]


def test_a_pool_too_small_for_the_task_falls_back_to_selection() -> None:
    scenario = toy_scenario(experiences=4)
    method = make(scenario, prompt_mask=True, shared_prompt_pool=True)  # slots for tasks 0, 1 and 2
    learn(method, scenario, 3)
    assert sum(method.histograms[0]) == 2 * 8 * 2


def test_frequency_penalty_prefers_prompts_that_earlier_tasks_left_alone() -> None:
    scenario = toy_scenario()
    method = make(scenario, frequency_penalty=True, selection_train="per-sample", top_k=1)
    learn(method, scenario, 0)
    used = torch.tensor(method.histograms[0]) > 0
    assert used.any()
    assert not used.all()
    learn(method, scenario, 1)
    assert not (torch.tensor(method.histograms[1])[used]).any()


def test_histograms_count_every_choice_and_survive_a_checkpoint() -> None:
    scenario = toy_scenario()
    method = make(scenario)
    learn(method, scenario, 0)
    assert sum(method.histograms[0]) == 2 * 8 * 2
    assert not method.selected.any()
    again = make(scenario)
    again.load_state_dict(method.state_dict())
    again.load_extra_state(method.extra_state())
    assert again.histograms == method.histograms
    assert torch.equal(again.past, torch.tensor(method.histograms[0]))


def test_evaluation_over_all_classes_has_a_row_for_each_from_the_start() -> None:
    scenario = toy_scenario(experiences=3, classes=2)
    method = make(scenario, eval_logits="all")
    learn(method, scenario, 0)
    with torch.no_grad():
        assert method.predict(batch_of(method, scenario, 0).images).shape == (8, 6)
    seen = make(scenario)
    learn(seen, scenario, 0)
    with torch.no_grad():
        assert seen.predict(batch_of(seen, scenario, 0).images).shape == (8, 2)


def test_what_each_recipe_uses() -> None:

    def used(recipe: str) -> frozenset[str]:
        return SPEC.uses_of(L2PConfig(**SPEC.recipes.get(recipe, {})))  # type: ignore[arg-type]

    assert used("honest") == {"boundaries"}
    assert used("pilot") == used("mammoth") == {"boundaries", "test_batch"}
    assert used("paper-v1-jax") == used("l2p-pytorch") == {"boundaries", "test_batch", "num_classes"}
    assert uses(L2PConfig(prompt_mask=True)) == {"boundaries", "task_id"}
    assert uses(L2PConfig(selection_eval="batchwise", prompts="off")) == {"boundaries"}


def test_learning_rates_that_reach_adam() -> None:
    rates = {name: L2PConfig(**values).effective_lr for name, values in SPEC.recipes.items()}  # type: ignore[arg-type]
    assert rates == {
        "paper-v1-jax": 0.015,
        "v2-jax": 0.015,
        "l2p-pytorch": 0.001875,
        "pilot": 0.001875,
        "mammoth": 0.015,
    }
    method = make(toy_scenario(), lr=0.5)
    method.begin_experience(view_of(method, toy_scenario(), 0))
    assert method.optimizer is not None
    assert method.optimizer.param_groups[0]["lr"] == 0.5 * 8 / 256
