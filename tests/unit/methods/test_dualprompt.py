"""DualPrompt's options: what they change, what they refuse, what they need to know."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench_methods.dualprompt import DualPrompt, DualPromptConfig, bench_register_methods, port_reshape, uses
from benchmark.api import Scenario
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.errors import UsageError
from benchmark.testing.by_hand import batch_of, context_of, learn, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

(SPEC,) = bench_register_methods()
SMALL = {"g_length": 2, "e_length": 3, "batch_size": 8}


def make(scenario: Scenario, depth: int = 2, **changes: Any) -> DualPrompt:
    config = DualPromptConfig(**{**SMALL, **changes})
    return DualPrompt(config, context_of(SPEC, config, scenario, backbone=tiny_backbone(depth=depth)))


def held(method: DualPrompt) -> int:
    assert method.optimizer is not None
    return sum(p.numel() for group in method.optimizer.param_groups for p in group["params"])


def test_trainable_parameters_follow_the_formula() -> None:
    scenario = toy_scenario(experiences=3, classes=2)
    method = make(scenario, depth=6)
    method.begin_experience(view_of(method, scenario, 0))
    assert held(method) == 2 * 2 * 2 * 32 + 3 * 2 * 3 * 3 * 32 + 3 * 32 + 32 * 2 + 2

    def full(config: DualPromptConfig, classes: int) -> int:
        general, expert = 2 * 2 * config.g_length * 768, 3 * 2 * 10 * config.e_length * 768
        return general + expert + 10 * 768 + 768 * classes + classes

    assert full(DualPromptConfig(), 100) == 330_340
    assert full(DualPromptConfig(e_length=20), 200) == 1_098_440


@pytest.mark.parametrize(
    ("changes", "alone"),
    [({}, True), ({"key_sets": "per-layer"}, True), ({"selection": "batchwise"}, False), ({"layout": "port"}, False)],
)
def test_only_votes_and_the_ports_layout_depend_on_the_test_batch(changes: dict[str, Any], alone: bool) -> None:
    torch.manual_seed(0)
    scenario = toy_scenario(experiences=6, classes=8, train=4, test=4)
    method = make(scenario, prompt_init="uniform", **changes)
    learn(method, scenario, 0)
    with torch.no_grad():  # queries of an untrained backbone are alike: spread the keys around them
        images = method.context.pipeline.eval(scenario.experiences[0].test.images(slice(None)))
        query = cls_feature(method.backbone, images)
        method.pool.keys.copy_(query[:: len(query) // 6][:6] - query.mean(0))
        together = method.predict(images)
        one_by_one = torch.cat([method.predict(image.unsqueeze(0)) for image in images])
    assert torch.allclose(together, one_by_one, atol=1e-5) == alone
    assert ("test_batch" in method.context.uses) != alone


def test_groups_vote_for_themselves() -> None:
    scenario = toy_scenario(experiences=6, classes=8, train=4, test=4)
    method = make(scenario, selection="batchwise", selection_group=4)
    method.begin_experience(view_of(method, scenario, 0))
    images = method.context.pipeline.eval(scenario.experiences[0].test.images(slice(None)))
    with torch.no_grad():
        chosen = [method.eval().run(part).chosen for part in (images, *torch.split(images, 4))]
    index = [part.selection for part in chosen if part is not None and part.selection is not None]
    assert torch.equal(index[0], torch.cat(index[1:]))


def test_a_task_trains_its_own_slot_and_starts_from_the_one_before() -> None:
    scenario = toy_scenario(experiences=3)
    method = make(scenario, prompt_init="uniform")
    learn(method, scenario, 0)
    after = method.pool.prefixes.detach().clone()
    keys = method.pool.keys.detach().clone()
    method.begin_experience(view_of(method, scenario, 1))
    assert torch.equal(method.pool.prefixes[:, :, 1], after[:, :, 0])
    assert torch.equal(method.pool.keys, keys)
    learn(method, scenario, 1)
    assert (method.pool.prefixes != after).flatten(3).any(3).any(0).any(0).tolist() == [False, True, False]
    assert (method.pool.keys != keys).any(1).tolist() == [False, True, False]
    still = make(scenario, copy_slots=False)
    before = still.pool.prefixes.detach().clone()
    still.begin_experience(view_of(still, scenario, 1))
    assert torch.equal(still.pool.prefixes, before)


def test_the_general_prompt_trains_in_every_task() -> None:
    scenario = toy_scenario()
    method = make(scenario, prompt_init="uniform")
    for task in range(2):
        before = method.g_prompt.detach().clone()
        learn(method, scenario, task)
        assert not torch.equal(method.g_prompt, before)
    without = make(scenario, g_length=0)
    assert "g_prompt" not in dict(without.named_parameters())
    learn(without, scenario, 0)


def test_tasks_without_a_slot_train_those_that_their_images_pick() -> None:
    scenario = toy_scenario(experiences=4)
    method = make(scenario, pool_size=3, prompt_init="uniform", key_init="uniform")
    assert "num_experiences" not in method.context.uses
    learn(method, scenario, 2)
    before = method.pool.prefixes.detach().clone()
    method.begin_experience(view_of(method, scenario, 3))
    assert torch.equal(method.pool.prefixes, before)  # nothing is copied
    method.train()
    batch = batch_of(method, scenario, 3)
    chosen = method.run(batch.images, training=True).chosen
    assert chosen is not None
    assert chosen.selection is not None
    assert chosen.similarity is not None
    assert torch.equal(chosen.selection[:, 0], chosen.similarity.argmax(1))
    method.train_step(batch)
    moved = (method.pool.prefixes != before).flatten(3).any(3).any(0).any(0)
    assert moved.nonzero().flatten().tolist() == sorted(set(chosen.selection.flatten().tolist()))


def test_slots_of_several_prompts() -> None:
    scenario = toy_scenario(experiences=3)
    method = make(scenario, top_k=2, prompt_init="uniform")
    assert method.pool.size == 6
    before = method.pool.prefixes.detach().clone()
    learn(method, scenario, 1)
    moved = (method.pool.prefixes != before).flatten(3).any(3).any(0).any(0)
    assert moved.tolist() == [False, False, True, True, False, False]


def test_domain_incremental_streams_have_no_mask_but_a_slot_per_domain() -> None:
    scenario = toy_scenario(family="domain-il", classes=3)
    method = make(scenario)
    for index in range(2):
        learn(method, scenario, index)
    assert method.pool.size == len(scenario.experiences)
    rows = method.head.weight.detach().clone()
    learn(method, scenario, 1)
    assert (method.head.weight != rows).any(1).all()
    with torch.no_grad():
        assert method.predict(batch_of(method, scenario, 0).images).shape == (8, 3)


@pytest.mark.parametrize(
    ("depth", "general", "expert"),
    [(1, (), (0,)), (2, (0,), (1,)), (3, (0,), (1, 2)), (4, (0, 1), (2, 3)), (6, (0, 1), (2, 3, 4))],
)
def test_layers_by_default(depth: int, general: tuple[int, ...], expert: tuple[int, ...]) -> None:
    method = make(toy_scenario(), depth=depth)
    assert method.g_layers == general
    assert method.pool.layers == expert


def test_layers_that_the_backbone_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="e_layers: this backbone has no block 2"):
        make(toy_scenario(), e_layers=(1, 2))
    with pytest.raises(UsageError, match="g_layers: this backbone has no block 5"):
        make(toy_scenario(), g_layers=(5,))


def test_a_block_with_both_prompts() -> None:
    """Correct: G-prompt, then E-prompt. Ports: the G-prompt alone, and the next block gets the wrong rows."""
    torch.manual_seed(0)
    scenario = toy_scenario()
    found = {}
    for layout in ("correct", "port"):
        method = make(scenario, depth=4, g_layers=(0, 1), e_layers=(1, 2), layout=layout, prompt_init="uniform")
        method.begin_experience(view_of(method, scenario, 0))
        with torch.no_grad():
            chosen = method.run(batch_of(method, scenario, 0).images, training=True).chosen
        assert chosen is not None
        found[layout] = (method, chosen.prefixes)
    method, prefixes = found["correct"]
    assert [prefixes[layer][0].shape[1] for layer in range(3)] == [2, 2 + 3, 3]
    for kind in range(2):
        rows = torch.cat([method.g_prompt[1, kind], method.pool.prefixes[0, kind, 0]])
        assert torch.equal(prefixes[1][kind][0], rows)
        assert torch.equal(prefixes[2][kind][0], method.pool.prefixes[1, kind, 0])
    method, prefixes = found["port"]
    assert [prefixes[layer][0].shape[1] for layer in range(3)] == [2, 2, 3]
    assert torch.equal(prefixes[1][0][0], method.g_prompt[1, 0])
    # Block 2 gets rows of block 1, and the first half of the batch keys for values.
    assert torch.equal(prefixes[2][1][0], method.pool.prefixes[0, 0, 0])
    assert torch.equal(prefixes[2][0][7], method.pool.prefixes[0, 1, 0])


def test_the_ports_reshape() -> None:
    """For B = 4, entries are 4 * (key 0 or value 1) + image."""
    entries = torch.arange(8).reshape(1, 2, 4, 1, 1)
    got = port_reshape(entries)[0, :, :, 0, 0].T  # per image: what stands for its key and its value
    assert got.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for images in (1, 3, 6):
        entries = torch.arange(2 * images).reshape(1, 2, images, 1, 1)
        wanted = [[2 * image, 2 * image + 1] for image in range(images)]
        assert port_reshape(entries)[0, :, :, 0, 0].T.tolist() == wanted
    alone = torch.randn(2, 2, 1, 3, 4)
    assert torch.equal(port_reshape(alone), alone)


def test_the_sum_of_the_coda_repository() -> None:
    scenario = toy_scenario()
    method = make(scenario, depth=4, key_sets="per-layer", pull_reduction="sum", pull=0.5)
    method.begin_experience(view_of(method, scenario, 1))
    batch = batch_of(method, scenario, 1)
    result = method.run(batch.images, training=True)
    keys = method.pool.keys[:, 1]  # of the task, per layer
    cosines = torch.stack([torch.cosine_similarity(result.query, key[None], dim=1) for key in keys])
    wanted = (1 - cosines).sum().detach()  # over two layers and eight images
    assert result.chosen is not None
    torch.testing.assert_close(result.chosen.terms["pull"].detach(), wanted)
    terms = method.train_step(batch)
    assert float(terms["loss"]) == pytest.approx(float(terms["loss_ce"]) + 0.5 * float(wanted), rel=1e-5)


def test_what_each_recipe_uses() -> None:

    def used(recipe: str) -> frozenset[str]:
        return SPEC.uses_of(DualPromptConfig(**SPEC.recipes.get(recipe, {})))  # type: ignore[arg-type]

    fair = {"boundaries", "task_id", "num_experiences"}
    assert used("honest") == used("coda-repo") == fair
    assert used("jax-imagenet-r") == {*fair, "num_classes"}
    assert used("batchwise") == used("port-bug") == used("pilot") == used("mammoth") == {*fair, "test_batch"}
    assert used("jax") == used("dualprompt-pytorch") == {*fair, "num_classes", "test_batch"}
    assert used("dualprompt-pytorch-imagenet-r") == used("jax")  # per sample, but with the bug
    assert uses(DualPromptConfig(layout="port", prompts="off")) == {"boundaries"}


def test_learning_rates_that_reach_adam() -> None:
    rates = {name: DualPromptConfig(**values).effective_lr for name, values in SPEC.recipes.items()}  # type: ignore[arg-type]
    assert rates == pytest.approx(
        {
            "batchwise": 0.015,
            "port-bug": 0.015,
            "jax": 0.0225,
            "jax-imagenet-r": 0.00375,
            "dualprompt-pytorch": 0.0028125,
            "dualprompt-pytorch-imagenet-r": 0.00046875,
            "pilot": 0.001,
            "mammoth": 0.015,
            "coda-repo": 0.001,
        }
    )
