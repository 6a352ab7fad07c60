"""Low-rank changes of the projections in the attentions of any transformer, and their merge.

Which layer makes queries, keys and values has another name in every model of transformers, and some make them all at
once. They are found by asking: a layer inside an attention makes queries if the queries depend on its output, and the
columns of its output that they depend on are those that make them. So BERT, ModernBERT (one layer for all three), GPT-2
(one transposed layer), Llama (fewer keys than queries, rotated), T5 and BART are the same here.

Source: Hu et al., LoRA, ICLR 2022, arXiv 2106.09685; microsoft/LoRA at 0771c1e, ``loralib/layers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.language import attention
from benchmark.backbones.language.model import LanguageModel, Site
from benchmark.backbones.language.templates import Tokens
from benchmark.errors import UsageError

LoRAInit = Literal["kaiming", "gaussian"]
PARTS = "qkv"


@dataclass(frozen=True, slots=True)
class Projection:
    """Where a model makes its queries, keys or values.

    Attributes:
        layer: Name of the layer in the model.
        part: ``q``, ``k`` or ``v``.
        first: First of the layer's outputs that are this part.
        count: How many are.
        inputs: Width of the layer's input.
        transposed: Whether its weight is (inputs, outputs): `Conv1D` of GPT-2.
    """

    layer: str
    part: str
    first: int
    count: int
    inputs: int
    transposed: bool


def projections(language: LanguageModel, sites: Iterable[Site] = ()) -> list[Projection]:
    """The projections of a model, in the order of its attentions; see the module for how they are found.

    Args:
        language: The model; it is left as it was.
        sites: The attentions that are wanted; default: all.

    Raises:
        UsageError: The outputs of a layer that make queries, say, do not stand together.
    """
    model = language.module
    known = language.sites.modules
    wanted = [module for site in sites or known for module in known[site]]
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[nn.Module, dict[nn.Module, Tensor]] = {module: {} for module in wanted}
    found: list[Projection] = []

    def keep(attention_module: nn.Module) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            kept = output.detach().requires_grad_(True)
            outputs[attention_module][layer] = kept
            return kept

        return hook

    def see(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        for part, tensor in zip(PARTS, (query, key, value), strict=True):
            for layer, output in outputs.get(module, {}).items():
                found.extend(_columns(names[layer], layer, part, output, tensor))

    generator = torch.Generator().manual_seed(0)
    device = language.embedding.weight.device
    ids = torch.randint(len(language.embedding.weight), (1, 3), generator=generator).to(device)
    tokens = Tokens(ids, torch.ones_like(ids), torch.zeros_like(ids))
    was, random = model.training, torch.get_rng_state()
    model.eval()
    with ExitStack() as stack, torch.enable_grad():
        for module in wanted:
            for layer in module.modules():
                if _weight(layer) is not None:
                    handle = layer.register_forward_hook(keep(module))
                    stack.callback(handle.remove)
        stack.enter_context(attention.observed(see))
        if language.architecture == "encoder-decoder":
            language.target_logits(tokens, ids[:, :2])
        else:
            language.hidden(tokens)
    model.train(was)
    torch.set_rng_state(random)
    return found


def _weight(layer: nn.Module) -> Tensor | None:
    """The weight of a layer that is linear, whatever its class."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(layer, nn.Embedding) else None


def _columns(name: str, layer: nn.Module, part: str, output: Tensor, made: Tensor) -> Iterator[Projection]:
    """The outputs of a layer that a tensor depends on."""
    if not made.requires_grad:
        return
    # A fixed direction without symmetry, so that no gradient cancels.
    direction = torch.linspace(1, 2, made.numel(), dtype=made.dtype, device=made.device).view(made.shape).cos()
    (gradient,) = torch.autograd.grad(made, output, direction, retain_graph=True, allow_unused=True)
    if gradient is None:
        return
    places = gradient.flatten(0, -2).ne(0).any(dim=0).nonzero().flatten().tolist()
    if not places:
        return
    first, count = places[0], len(places)
    if places != list(range(first, first + count)):
        raise UsageError(
            f"layer `{name}` makes the {part} of its heads in turn, not in one block",
            hint="low-rank changes of such a model are not supported; use lm-bias or p-tuning-v2",
        )
    weight = _weight(layer)
    assert weight is not None
    transposed = not isinstance(layer, nn.Linear)
    yield Projection(name, part, first, count, weight.shape[0 if transposed else 1], transposed)


class LowRank(nn.Module):
    """``W x + b`` becomes ``(W + alpha / r * B A) x + b`` in some projections of a model.

    The model itself is not changed: the changes are in force within `applied`, and `merge` adds them for good.

    Args:
        language: The model.
        rank: r.
        alpha: The change is scaled by ``alpha / rank``.
        targets: Letters of ``qkv``.
        init: How A is drawn: ``kaiming`` (uniform, a = sqrt 5: the official code) or ``gaussian`` (the paper's word;
            standard deviation 1 / r). B starts at 0, so the model starts unchanged.
        dropout: Of the input of A, in training.
        sites: The attentions that change; default: all.
    """

    def __init__(
        self,
        language: LanguageModel,
        *,
        rank: int,
        alpha: float,
        targets: str = "qv",
        init: LoRAInit = "kaiming",
        dropout: float = 0.0,
        sites: Iterable[Site] = (),
    ) -> None:
        super().__init__()
        self.scale, self.dropout = alpha / rank, dropout
        self.places = [place for place in projections(language, sites) if place.part in targets]
        self.down = nn.ParameterList([torch.empty(rank, place.inputs) for place in self.places])
        self.up = nn.ParameterList([torch.zeros(place.count, rank) for place in self.places])
        for part in self.down:
            if init == "kaiming":
                nn.init.kaiming_uniform_(part, a=math.sqrt(5))
            else:
                nn.init.normal_(part, std=1 / rank)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within it, the changes are in force.

        Args:
            model: That for which they were made, or a copy of it.
        """
        with ExitStack() as stack:
            for number, place in enumerate(self.places):
                handle = model.get_submodule(place.layer).register_forward_hook(self._hook(number))
                stack.callback(handle.remove)
            yield

    def _hook(self, number: int) -> Any:
        place, down, up = self.places[number], self.down[number], self.up[number]

        def change(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            read = F.dropout(inputs[0], self.dropout, self.training)
            added = F.linear(F.linear(read, down), up * self.scale)
            behind = output.shape[-1] - place.first - place.count
            return output + (F.pad(added, (place.first, behind)) if place.first or behind else added)

        return change

    @torch.no_grad()
    def merge(self, model: nn.Module, *, sign: int = 1) -> None:
        """Adds the changes to the model's own weights, in place: no cost is left, and they must not be applied again.

        Args:
            model: That for which they were made, or a copy of it.
            sign: -1 takes them out again, to rounding.
        """
        for place, down, up in zip(self.places, self.down, self.up, strict=True):
            weight = _weight(model.get_submodule(place.layer))
            assert weight is not None
            delta = sign * self.scale * (up @ down)
            rows = slice(place.first, place.first + place.count)
            if place.transposed:
                weight[:, rows] += delta.T
            else:
                weight[rows] += delta
