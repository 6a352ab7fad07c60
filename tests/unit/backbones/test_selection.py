"""Which weights train, and dropout rates of a backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmark.backbones.prompted_vit import set_dropout
from benchmark.backbones.selection import biases, last_blocks
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone


def names_of(vit: Any, chosen: list[nn.Parameter]) -> set[str]:
    known = {id(parameter): name for name, parameter in vit.named_parameters()}
    return {known[id(parameter)] for parameter in chosen}


def test_blocks_are_chosen_by_position() -> None:
    vit = tiny_backbone(depth=11).model
    names = names_of(vit, last_blocks(vit, 1))
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"10"}
    assert {name for name in names if not name.startswith("blocks.")} == {"norm.weight", "norm.bias"}
    names = names_of(vit, last_blocks(vit, 10, norm=False))
    assert {name.split(".")[1] for name in names} == {str(index) for index in range(1, 11)}
    assert last_blocks(vit, 0, norm=False) == []
    with pytest.raises(UsageError, match=r"k: 12 is more than this backbone has blocks \(11\)"):
        last_blocks(vit, 12)


def test_every_bias_and_nothing_else() -> None:
    vit = tiny_backbone(depth=1).model
    assert names_of(vit, biases(vit)) == {
        "patch_embed.proj.bias",
        "norm.bias",
        *(f"blocks.0.{part}.bias" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    }
    # 12 vectors' worth per block: two norms, query, key, value, projection, fc1 of four, fc2.
    assert sum(parameter.numel() for parameter in biases(vit)) == 32 * (2 + 2 + 4 + 4 + 1)


def test_dropout_is_set_where_it_is_said_and_acts_in_training_only() -> None:
    vit = tiny_backbone().model
    set_dropout(vit, 0.25)
    rates = {name: module.p for name, module in vit.named_modules() if isinstance(module, nn.Dropout)}
    active = {name for name, rate in rates.items() if rate > 0}
    assert active == {"pos_drop", *(f"blocks.{index}.mlp.drop{k}" for index in range(2) for k in (1, 2))}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(vit.eval()(images), vit(images))
        assert not torch.equal(vit.train()(images), vit(images))
    vit.blocks[1].mlp.drop2 = nn.Identity()
    with pytest.raises(UsageError, match="block 1 of this backbone has an MLP without dropout"):
        set_dropout(vit, 0.1)
