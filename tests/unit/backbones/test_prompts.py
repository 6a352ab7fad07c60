"""Prompt pools: selection, votes, pull."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.backbones import prompts
from benchmark.backbones.prompts import PromptPool


def test_initial_ranges() -> None:
    torch.manual_seed(0)
    pool = PromptPool(10, 5, 64).requires_grad_(False)
    assert pool.size == 10
    assert -1 <= float(pool.prompts.min()) < -0.9 < 0.9 < float(pool.prompts.max()) <= 1
    flax = PromptPool(10, 5, 64, prompt_init="flax_uniform", key_init="flax_uniform").requires_grad_(False)
    assert 0 <= float(flax.prompts.min()) < float(flax.prompts.max()) < 0.01
    assert 0 <= float(flax.keys.min()) < float(flax.keys.max()) < 0.01


def test_similarity_is_the_cosine_and_survives_zero_vectors() -> None:
    pool = PromptPool(3, 1, 4)
    query = torch.randn(5, 4)
    wanted = torch.nn.functional.cosine_similarity(query[:, None], pool.keys[None], dim=-1)
    torch.testing.assert_close(pool.similarity(query), wanted)
    assert not pool.similarity(torch.zeros(1, 4)).any()


def test_ties_go_to_the_smaller_index() -> None:
    assert prompts.top_k(torch.tensor([[0.5, 0.9, 0.5, 0.9]]), 3).tolist() == [[1, 3, 0]]


def test_a_vote_takes_the_most_frequent_for_everyone() -> None:
    choices = torch.tensor([[0, 1], [1, 0], [2, 1], [3, 2]])  # 0 twice, 1 three times, 2 twice, 3 once
    assert prompts.count(choices, 5).tolist() == [2, 3, 2, 1, 0]
    assert prompts.vote(choices, 5, 2).tolist() == [[1, 0]] * 4
    assert prompts.vote(choices, 5, 2, group=2).tolist() == [[0, 1], [0, 1], [2, 1], [2, 1]]
    assert prompts.vote(choices, 5, 2, group=3).tolist() == [[1, 0]] * 3 + [[2, 3]]


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=8), st.integers(1, 5))
def test_selection_of_one_image_does_not_depend_on_the_others(rows: list[list[int]], k: int) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    together = prompts.top_k(scores, k)
    assert torch.equal(together, torch.cat([prompts.top_k(row.unsqueeze(0), k) for row in scores]))
    assert all(len(set(row)) == k for row in together.tolist())
    assert torch.equal(scores.gather(1, together), scores.topk(k, dim=1).values)


def test_gathered_prompts_are_in_the_order_of_the_indices() -> None:
    pool = PromptPool(4, 2, 3)
    got = pool.gather(torch.tensor([[2, 0], [1, 3]]))
    assert torch.equal(got[0], torch.cat([pool.prompts[2], pool.prompts[0]]))
    assert torch.equal(got[1], torch.cat([pool.prompts[1], pool.prompts[3]]))


def test_pull_is_a_mean_over_images_and_a_sum_over_choices() -> None:
    similarity = torch.tensor([[0.1, 0.2, 0.4], [0.5, 0.6, 0.7]])
    assert float(prompts.pull(similarity, torch.tensor([[0, 2], [1, 2]]))) == torch.tensor((0.5 + 1.3) / 2)


def test_slots_are_copied_in_place() -> None:
    pool = PromptPool(4, 2, 3)
    before = pool.prompts.detach().clone()
    storage = pool.prompts.data_ptr()
    pool.copy_slots(range(0, 2), range(2, 4))
    assert torch.equal(pool.prompts[2:], before[:2])
    assert torch.equal(pool.prompts[:2], before[:2])
    assert pool.prompts.data_ptr() == storage
