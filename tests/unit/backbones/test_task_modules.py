"""Sets of modules per experience, and what blocks make of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import run_block
from benchmark.backbones.lora import Branch, Branches, LoRA
from benchmark.backbones.prefixes import CompensatedPrefix
from benchmark.backbones.task_modules import TaskModules, average, blend
from benchmark.testing.closed_form import fill, tiny_vit

WIDTH = 32
TOKENS = fill("tokens", (2, 5, WIDTH))


def sets(count: int = 0) -> TaskModules:
    made = TaskModules(lambda: nn.Linear(3, 2)).double()
    for _ in range(count):
        made.open()
    return made


def test_only_the_last_set_trains() -> None:
    made = sets(3)
    assert [one.weight.requires_grad for one in made] == [False, False, True]
    assert made.current.weight.dtype == torch.float64
    copied = made.open(like=made.current)
    assert torch.equal(copied.weight, made[2].weight)
    assert copied.weight is not made[2].weight
    made.keep(copied)
    assert not made[4].weight.requires_grad


def test_no_set_is_no_current_one() -> None:
    with pytest.raises(IndexError, match="call `open`"):
        sets().current  # noqa: B018


def test_a_state_of_more_sets_is_loaded_and_draws_nothing() -> None:
    torch.manual_seed(0)
    trained, fresh = sets(3), sets(1)
    before = torch.get_rng_state()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(before, torch.get_rng_state())
    assert len(fresh) == 3
    assert torch.equal(fresh[2].bias, trained[2].bias)
    assert [one.bias.requires_grad for one in fresh] == [True, False, False]


def test_average_and_blend() -> None:
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    for module, value in ((one, 1.0), (two, 3.0)):
        nn.init.constant_(module.weight, value)
        nn.init.constant_(module.bias, -value)
    middle = average([one, two])
    assert {name: float(value) for name, value in middle.items()} == {"weight": 2.0, "bias": -2.0}
    blend(one, middle, 0.25)
    assert one.weight.item() == 1.25
    blend(one, two, 0.5)
    assert one.weight.item() == 2.125
    with pytest.raises(ValueError, match="no module"):
        average([])


def branch(name: str, *, shared: bool = False) -> Branch:
    made = Branch(WIDTH, rank=2, targets=2, shared=shared).double()
    with torch.no_grad():
        made.down.copy_(fill(f"{name}.a", tuple(made.down.shape)))
        made.up.copy_(fill(f"{name}.b", tuple(made.up.shape)))
    return made


def test_branches_are_the_sum_of_low_rank_changes() -> None:
    block = tiny_vit().double().blocks[0]
    parts = [branch("0"), branch("1")]
    changes = []
    for part in parts:
        change = LoRA(WIDTH, rank=2, targets="qv").double()
        with torch.no_grad():
            change.down.copy_(part.down.flatten(0, 1))
            change.up.copy_(part.up)
        changes.append(change)
    wanted = sum(change.delta() for change in changes)
    for read in (None, slice(0, 1)):
        found = run_block(block, TOKENS, adapter=Branches(parts, targets="qv"), read=read)
        block.attn.qkv.weight.data += wanted
        expected = run_block(block, TOKENS, read=read)
        block.attn.qkv.weight.data -= wanted
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_branches_share_and_scale() -> None:
    parts, magnitudes = [branch("0", shared=True), branch("1", shared=True)], torch.tensor([0.5, 2.0]).double()
    nothing = torch.zeros_like(TOKENS)
    adapter = Branches(parts, targets="kv", magnitudes=magnitudes, unit=True)
    query, key, value = adapter.project(TOKENS, TOKENS, nothing, nothing, nothing)
    assert torch.equal(query, nothing)

    def term(part: Branch, target: int, factor: Tensor | float) -> Tensor:
        return factor * TOKENS @ part.down[0].T @ part.up[target].T

    for target, found in enumerate((key, value)):
        first = magnitudes[0] / (parts[0].down[0].norm() * parts[0].up[target].norm())
        expected = term(parts[0], target, first) + term(parts[1], target, 2.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_compensated_prefix_gets_a_softmax_of_its_own() -> None:
    attention = tiny_vit().double().blocks[0].attn
    heads = attention.num_heads
    prefix = CompensatedPrefix(WIDTH, 3, heads=heads).double()
    with torch.no_grad():
        prefix.keys.copy_(fill("keys", (3, WIDTH)))
        prefix.values.copy_(fill("values", (3, WIDTH)))
        prefix.key_scale.fill_(2.0)
    query, key, value = (fill(name, (2, heads, 4, WIDTH // heads)) for name in ("q", "k", "v"))

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT).softmax(-1) @ value

    keys, values = (rows.view(3, heads, -1).transpose(0, 1) for rows in (2 * prefix.keys, prefix.values))
    weights = torch.cat([query @ keys.mT, query @ key.mT], dim=-1).softmax(-1)
    inside, rest = weights[..., :3], weights[..., 3:]
    expected = (inside / inside.sum(-1, keepdim=True)) @ values + rest @ value
    torch.testing.assert_close(prefix.mix(query, key, value, plain), expected, rtol=0, atol=1e-12)
