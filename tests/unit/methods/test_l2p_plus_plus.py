"""L2P++ against a plain restatement of its description, written without the services it is built on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods.l2p_plus_plus import L2PPlusPlus, L2PPlusPlusConfig, bench_register_methods, key_loss
from benchmark.api import Batch, Scenario
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.testing.by_hand import batch_of, context_of, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

(SPEC,) = bench_register_methods()
SMALL = {"pool_size": 7, "prompt_length": 6, "top_k": 3, "batch_size": 8}
DTYPES = pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)


def make(scenario: Scenario, depth: int = 3, dtype: torch.dtype = torch.float32, **changes: Any) -> L2PPlusPlus:
    config = L2PPlusPlusConfig(**{**SMALL, **changes})
    method = L2PPlusPlus(config, context_of(SPEC, config, scenario, backbone=tiny_backbone(depth=depth))).to(dtype)
    with torch.no_grad():  # queries of an untrained backbone are alike: spread the keys around them
        images = torch.cat([batch_of(method, scenario, 0, 0).images, batch_of(method, scenario, 1, 0).images]).to(dtype)
        query = cls_feature(method.backbone, images)
        for layer, keys in enumerate(method.pool.keys):
            keys.copy_((query - query.mean(0)).roll(layer, dims=0)[: len(keys)])
    return method


class Restated:
    """The description in loops: prompts (M, Lp, D) and keys (M, D) per layer, one image and layer at a time."""

    def __init__(self, method: L2PPlusPlus) -> None:
        self.vit, self.k = method.backbone, method.config.top_k
        # Rows of a prompt: first half keys, second half values.
        self.prompts = [
            torch.cat([prefix[0], prefix[1]], dim=1).detach().clone().requires_grad_(True)
            for prefix in method.pool.prefixes
        ]
        self.keys = [keys.detach().clone().requires_grad_(True) for keys in method.pool.keys]
        self.weight = method.head.weight.detach().clone().requires_grad_(True)
        self.bias = method.head.bias.detach().clone().requires_grad_(True)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.prompts, *self.keys, self.weight, self.bias]

    def query(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            feature: Tensor = self.vit.forward_features(images)[:, 0]
        return feature

    def choice(self, cosines: Tensor) -> list[int]:
        return sorted(range(len(cosines)), key=lambda slot: -float(cosines[slot]))[: self.k]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the key loss."""
        query, loss = self.query(images), torch.zeros((), dtype=images.dtype)
        chosen = []
        for keys in self.keys:
            cosines = [F.cosine_similarity(one[None], keys, dim=1) for one in query]
            chosen.append([self.choice(row.detach()) for row in cosines])
            for row in cosines:  # every image with the choices of every image
                for others in chosen[-1]:
                    for slot in others:
                        loss = loss + (1 - row[slot])
        logits = []
        for image in range(len(images)):
            tokens = self.vit.patch_embed(images[image : image + 1])
            tokens = torch.cat([self.vit.cls_token, tokens], dim=1) + self.vit.pos_embed
            for index, block in enumerate(self.vit.blocks):
                slots = chosen[index][image] if index < len(self.keys) else []
                prompts = [self.prompts[index][slot] for slot in slots]
                tokens = self.block(block, tokens, prompts)
            logits.append(self.vit.norm(tokens)[:, 0] @ self.weight.T + self.bias)
        return torch.cat(logits), loss

    def block(self, block: Any, tokens: Tensor, prompts: list[Tensor]) -> Tensor:
        heads, width = block.attn.num_heads, tokens.shape[-1]
        query, key, value = block.attn.qkv(block.norm1(tokens))[0].split(width, dim=-1)  # (N, D)
        for prompt in prompts:
            half = len(prompt) // 2
            key, value = torch.cat([prompt[:half], key]), torch.cat([prompt[half:], value])
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = query[:, part] @ key[:, part].T / math.sqrt(width // heads)
            mixed.append(scores.softmax(dim=-1) @ value[:, part])
        tokens = tokens + block.attn.proj(torch.cat(mixed, dim=-1))[None]
        result: Tensor = tokens + block.mlp(block.norm2(tokens))
        return result

    def step(self, optimizer: torch.optim.Optimizer, batch: Batch, classes: range) -> tuple[Tensor, Tensor]:
        logits, key_loss = self.forward(batch.images)
        cross_entropy = F.cross_entropy(logits[:, classes.start : classes.stop], batch.labels - classes.start)
        optimizer.zero_grad()
        (cross_entropy + key_loss).backward()
        optimizer.step()
        return cross_entropy.detach(), key_loss.detach()


def ours(method: L2PPlusPlus, *, grad: bool = False) -> list[Tensor]:
    """The method's tensors in the order and shapes of the restatement."""
    found = []
    for parameter in (method.pool.prefixes, method.pool.keys, method.head.weight, method.head.bias):
        value = parameter.grad if grad else parameter.detach()
        assert value is not None
        found.append(value)
    prompts = [torch.cat([prefix[0], prefix[1]], dim=1) for prefix in found[0]]
    return [*prompts, *found[1], *found[2:]]


def deviation(mine: Tensor, wanted: Tensor) -> float:
    return float((mine - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


@DTYPES
@pytest.mark.parametrize("depth", [1, 5])
def test_forward_losses_gradients_and_steps_equal_the_restatement(depth: int, dtype: torch.dtype, limit: float) -> None:
    torch.manual_seed(0)
    scenario = toy_scenario()
    method = make(scenario, dtype=dtype, prompt_depth=depth)
    frozen = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    for task in range(2):
        method.begin_experience(view_of(method, scenario, task))
        method.train()
        plain = Restated(method)
        assert len(plain.keys) == min(depth, 3)
        raw = batch_of(method, scenario, task)
        batch = Batch(raw.images[:5].to(dtype), raw.labels[:5])
        with torch.no_grad():
            wanted, wanted_loss = plain.forward(batch.images)
            result = method.run(batch.images, training=True)
        assert result.chosen is not None
        assert deviation(result.query, plain.query(batch.images)) < limit
        assert deviation(result.logits, wanted) < limit
        assert deviation(result.chosen.penalty, wanted_loss) < limit
        optimizer = torch.optim.Adam(plain.parameters, lr=0.001)
        for step in range(3):
            cross_entropy, loss = plain.step(optimizer, batch, range(2 * task, 2 * task + 2))
            terms = method.train_step(batch)
            assert deviation(torch.as_tensor(terms["loss_ce"]), cross_entropy) < 10 * limit
            assert deviation(torch.as_tensor(terms["key_loss"]), loss) < 10 * limit
            if step == 0:
                for mine, theirs in zip(ours(method, grad=True), plain.parameters, strict=True):
                    assert theirs.grad is not None
                    assert deviation(mine, theirs.grad) < limit
        if dtype == torch.float64:  # Adam turns a gradient of 1e-8 into a step of either sign in float32
            for mine, theirs in zip(ours(method), plain.parameters, strict=True):
                assert deviation(mine, theirs.detach()) < limit
    assert all(torch.equal(value, frozen[name]) for name, value in method.backbone.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())


def test_the_key_loss_runs_over_all_pairs_of_images() -> None:
    torch.manual_seed(0)
    similarity, index = torch.rand(2, 4, 6), torch.randint(6, (2, 4, 3))
    all_pairs = torch.stack([cosines[:, chosen] for cosines, chosen in zip(similarity, index, strict=True)])
    assert all_pairs.shape == (2, 4, 4, 3)
    torch.testing.assert_close(key_loss(similarity, index), (1 - all_pairs).sum())
    own = similarity.gather(2, index)
    assert abs(float(key_loss(similarity, index) - (1 - own).sum())) > 1  # not only its own choices
    assert float(key_loss(similarity[:, :1], index[:, :1])) == pytest.approx(float((1 - own[:, :1]).sum()))


def test_every_image_and_layer_chooses_for_itself() -> None:
    scenario = toy_scenario(experiences=2, classes=4)
    method = make(scenario, prompt_depth=2)
    method.begin_experience(view_of(method, scenario, 0))
    images = torch.cat([batch_of(method, scenario, task).images for task in range(2)])
    with torch.no_grad():
        together = method.eval().run(images)
        alone = [method.run(image.unsqueeze(0)) for image in images]
    assert together.chosen is not None
    selection = together.chosen.selection
    assert selection is not None
    assert len({tuple(row) for row in selection[0].tolist()}) > 1
    assert not torch.equal(selection[0], selection[1])
    for place, one in enumerate(alone):
        assert one.chosen is not None
        assert one.chosen.selection is not None
        assert torch.equal(one.chosen.selection[:, 0], selection[:, place])
        torch.testing.assert_close(one.logits[0], together.logits[place], rtol=1e-5, atol=1e-5)
    assert method.context.uses == {"boundaries"}


def test_trainable_parameters_follow_the_formula() -> None:
    scenario = toy_scenario()
    for depth, layers in ((1, 1), (5, 3)):
        method = make(scenario, prompt_depth=depth)
        method.begin_experience(view_of(method, scenario, 0))
        assert method.optimizer is not None
        held = sum(p.numel() for group in method.optimizer.param_groups for p in group["params"])
        assert held == layers * (7 * 6 * 32 + 7 * 32) + 32 * 2 + 2


def test_recipes_are_the_two_of_the_paper() -> None:
    depths = {name: L2PPlusPlusConfig(**values).prompt_depth for name, values in SPEC.recipes.items()}  # type: ignore[arg-type]
    assert depths == {"shallow": 1, "deep": 5, "shallow-imagenet-r": 1, "deep-imagenet-r": 5}
    for values in SPEC.recipes.values():
        config = L2PPlusPlusConfig(**values)  # type: ignore[arg-type]
        assert (config.pool_size, config.prompt_length, config.top_k, config.lr) == (30, 20, 5, 0.001)
