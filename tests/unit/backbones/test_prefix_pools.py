"""Pools of key/value prefixes: what is gathered, for whom, and where it goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmark.backbones.blocks import run_blocks
from benchmark.backbones.prefix_pools import PrefixPool, by_layer, check_layers, draw, merge
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.backbones.prompts import top_k
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone


@pytest.mark.parametrize(("rule", "low", "high"), [("uniform", -1, 1), ("flax_uniform", 0, 0.01), ("unit", 0, 1)])
def test_initial_ranges(rule: Any, low: float, high: float) -> None:
    torch.manual_seed(0)
    values = draw(torch.empty(10_000), rule)
    assert low <= float(values.min()) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < float(values.max()) <= high


def test_every_image_gets_the_rows_of_its_slots_in_order() -> None:
    pool = PrefixPool((1, 4), size=5, length=3, width=8)
    index = torch.tensor([[2, 0], [1, 1], [4, 3]])
    got = by_layer(pool.layers, pool.gather(index))
    assert list(got) == [1, 4]
    for place, layer in enumerate((1, 4)):
        for kind in range(2):  # keys, values
            for image, slots in enumerate(index.tolist()):
                rows = torch.cat([pool.prefixes[place, kind, slot] for slot in slots])
                assert torch.equal(got[layer][kind][image], rows)


def test_with_keys_per_layer_every_layer_chooses_for_itself() -> None:
    pool = PrefixPool((0, 1), size=4, length=2, width=8, shared_keys=False)
    assert pool.keys.shape == (2, 4, 8)
    assert pool.size == 4
    query = torch.randn(3, 8)
    wanted = torch.stack([F.cosine_similarity(query[:, None], keys[None], dim=-1) for keys in pool.keys])
    similarity = pool.similarity(query)
    torch.testing.assert_close(similarity, wanted)
    index = top_k(similarity, 2)
    got = pool.gather(index)
    assert got.shape == (2, 2, 3, 4, 8)
    for layer, image in ((0, 0), (1, 2)):
        rows = torch.cat([pool.prefixes[layer, 1, slot] for slot in index[layer, image]])
        assert torch.equal(got[layer, 1, image], rows)


@pytest.mark.parametrize("shared", [True, False])
def test_one_row_for_all_images_is_the_same_as_a_row_for_each(shared: bool) -> None:
    """Features and gradients: what is shared is not copied."""
    torch.manual_seed(0)
    vit = tiny_backbone().model
    pool = PrefixPool((0, 1), size=3, length=2, width=32, shared_keys=shared)
    tokens = embed(vit, torch.randn(4, 3, 32, 32)).detach()
    weight, one = torch.randn(4, 1, 32), torch.tensor([[2]])
    if not shared:
        one = one.expand(2, 1, 1)
    found = []
    for index in (one, one.expand(*one.shape[:-2], 4, 1)):
        pool.zero_grad()
        features = run_blocks(vit, tokens, read=CLS, prefixes=by_layer(pool.layers, pool.gather(index)))
        (weight * features).sum().backward()
        assert pool.prefixes.grad is not None
        found.append((features.detach(), pool.prefixes.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert found[0][1][:, :, :2].count_nonzero() == 0
    assert found[0][1][:, :, 2].count_nonzero() > 0


def test_copied_slots_hold_both_keys_and_values_and_leave_selection_keys() -> None:
    pool = PrefixPool((0, 1), size=4, length=2, width=8)
    before, keys = pool.prefixes.detach().clone(), pool.keys.detach().clone()
    pool.copy_slots(range(0, 2), range(2, 4))
    assert torch.equal(pool.prefixes[:, :, 2:], before[:, :, :2])
    assert torch.equal(pool.prefixes[:, :, :2], before[:, :, :2])
    assert torch.equal(pool.keys, keys)


def test_prefixes_of_one_block_from_two_groups_stand_one_after_the_other() -> None:
    general, expert = (torch.randn(1, 2, 8), torch.randn(1, 2, 8)), (torch.randn(5, 3, 8), torch.randn(5, 3, 8))
    got = merge({0: general, 1: general}, {1: expert, 2: expert})
    assert list(got) == [0, 1, 2]
    assert got[0] is general
    assert got[2] is expert
    for kind in range(2):
        assert torch.equal(got[1][kind], torch.cat([general[kind].expand(5, -1, -1), expert[kind]], dim=1))


@pytest.mark.parametrize(
    ("layers", "message"),
    [((0, 6), "e_layers: this backbone has no block 6"), ((-1,), "no block -1"), ((1, 2, 1), "named twice: 1, 2, 1")],
)
def test_blocks_that_are_not_there_are_refused(layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_layers("e_layers", layers, 6)
    check_layers("e_layers", (0, 5), 6)
