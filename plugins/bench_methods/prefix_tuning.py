"""Prefix-tuning of a ViT: trained keys and values in front of those of every block's attention.

Paper: Li, Liang. Prefix-Tuning: Optimizing Continuous Prompts for Generation, ACL 2021, arXiv 2101.00190 (for language
models); in a ViT: the "VPT-prefix" of Jia et al., ECCV 2022, arXiv 2203.12119, appendix.
Official code: XiangLi1999/PrefixTuning at 6519d30, ``gpt2/train_control.py`` (the MLP that makes the prefixes);
GT-RIPL/CODA-Prompt at 6417d4f, ``models/vit.py`` (prefixes in a ViT's attention). Features, losses, gradients and
three steps equal theirs to 1e-9 in float64 (tests/unit/methods/test_visual_prompts_golden.py). Written anew, no code
taken.

Differences from the papers and the official code:
- Nobody has published this recipe for a ViT; it is adaptbench's: all blocks, 10 rows, drawn like VPT's prompts, trained
  directly. The default trains with Adam, ``@vpt`` with the protocol of the VPT paper, in a stream one experience
  after the other.
- ``@mlp`` makes the prefixes by the MLP of the paper, which is its default there. After each experience they are
  computed once and kept for evaluation; the MLP itself is what goes on learning, so it is stored. ``direct-normal``
  is its ablation without MLP (``init_shallow``), ``deep-mlp`` its ``deep_param``.
- A ViT has no causal mask and no position shift; the number of tokens stays, and the feature is the class token.
- Not here: prefixes made from words, infixes, the low-data initialisation. They are for language.
- ``prompts=off`` is the control: the same head on the class token.

Trainable without the head: 2 P D L = 184,320 on ViT-B/16; with MLP P D + D m + m + 2 L D (m + 1), m = 512.
Expected: the VPT paper says that it is not better than VPT-Deep; V-PETL Bench has a row of its own recipe (ViT-B, FGVC
mean 86.38). No figure for streams is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._recipes import VPT_SGD, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context, ExperienceView
from benchmark.backbones.blocks import check_plain_blocks, run_blocks
from benchmark.backbones.prefix_pools import by_layer, check_layers
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.backbones.visual_prompts import bound
from benchmark.config import Range
from benchmark.learners.classifier import Classifier, ClassifierConfig, Optimizer
from benchmark.specs import MethodSpec

Reparam = Literal["none", "mlp", "deep-mlp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixTuningConfig(ClassifierConfig):
    """Options of prefix-tuning.

    Attributes:
        prompts: ``off`` is the control: the same head on the class token, without prefixes.
        prefix_length: P, rows in front of the keys, and as many in front of the values.
        layers: Blocks that get prefixes, from 0; ``none``: all of them.
        reparam: ``none``: the prefixes themselves train. ``mlp``: they are ``W2 tanh(W1 E)``, with one more layer in
            ``deep-mlp``, and E and the MLP train.
        hidden: Width m of the MLP.
        init: Of prefixes without MLP: ``uniform`` within ``sqrt(6 / (3 P^2 + D))``, P the patch, or ``normal``.
        prefix_dropout: Rate on prefixes, a mask for each image.
    """

    epochs: int = 5
    lr: float = 0.01
    optimizer: Optimizer = "adam"
    prompts: Literal["on", "off"] = "on"
    prefix_length: Annotated[int, Range(min=1)] = 10
    layers: tuple[int, ...] | None = None
    reparam: Reparam = "none"
    hidden: Annotated[int, Range(min=1)] = 512
    init: Literal["uniform", "normal"] = "uniform"
    prefix_dropout: Annotated[float, Range(min=0, below=1)] = 0.0

    def __post_init__(self) -> None:
        ClassifierConfig.__post_init__(self)
        if self.layers == ():
            raise ValueError("layers: is empty; use `none` for all blocks, and prompts `off` for no prefixes")
        if self.reparam != "none" and self.init != "uniform":
            raise ValueError(f"init: `{self.init}` is for prefixes without MLP; use reparam `none`")


class DirectPrefixes(nn.Module):
    """Prefixes ``(layers, 2, P, D)``, keys and values, as they are.

    Args:
        layers: Number of blocks with prefixes.
        length: P.
        width: D.
        limit: They are uniform within it; None draws them from a standard normal distribution.
    """

    def __init__(self, layers: int, length: int, width: int, limit: float | None) -> None:
        super().__init__()
        rows = torch.empty(layers, 2, length, width)
        self.rows = nn.Parameter(rows.normal_() if limit is None else rows.uniform_(-limit, limit))

    def forward(self) -> Tensor:
        """Returns ``(layers, 2, P, D)``."""
        return self.rows


class MLPPrefixes(nn.Module):
    """Prefixes made of P vectors by one MLP for all blocks.

    Args:
        layers: Number of blocks with prefixes.
        length: P.
        width: D.
        hidden: m.
        deep: One more layer m to m.
    """

    def __init__(self, layers: int, length: int, width: int, hidden: int, *, deep: bool) -> None:
        super().__init__()
        self.shape = (length, layers, 2, width)
        self.table = nn.Parameter(torch.randn(length, width))
        middle = [nn.Linear(hidden, hidden), nn.Tanh()] if deep else []
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), *middle, nn.Linear(hidden, 2 * layers * width))

    def forward(self) -> Tensor:
        """Returns ``(layers, 2, P, D)``."""
        made: Tensor = self.mlp(self.table)
        return made.view(self.shape).permute(1, 2, 0, 3)  # the columns are keys of block 0, values of block 0, ...


class PrefixTuning(Classifier):
    """Prefixes and head train."""

    config: PrefixTuningConfig

    def __init__(self, config: PrefixTuningConfig, context: Context) -> None:
        super().__init__(config, context)
        depth = len(self.backbone.blocks)
        self.layers = tuple(range(depth)) if config.layers is None else config.layers
        check_layers("layers", self.layers, depth)
        self.prefixes: DirectPrefixes | MLPPrefixes | None = None
        self._merged: Tensor | None = None  # what the MLP made, once an experience is over
        if config.prompts == "on":
            check_plain_blocks(self.backbone)
            sizes = (len(self.layers), config.prefix_length, context.backbone.width)
            if config.reparam == "none":
                limit = bound(self.backbone) if config.init == "uniform" else None
                self.prefixes = DirectPrefixes(*sizes, limit)
            else:
                self.prefixes = MLPPrefixes(*sizes, config.hidden, deep=config.reparam == "deep-mlp")
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes and makes the optimiser; the prefixes change again."""
        self._merged = None
        super().begin_experience(experience)

    def end_experience(self, experience: ExperienceView) -> None:
        """Computes the prefixes for all predictions until the next experience."""
        if self.prefixes is not None:
            self._merged = self.prefixes().detach()

    def features(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the pass with prefixes."""
        if self.prefixes is None:
            return super().features(images)
        made = self.prefixes() if self._merged is None else self._merged
        stacked = made.unsqueeze(2)  # (layers, 2, 1, P, D), one for all images
        if self.training and self.config.prefix_dropout > 0:
            stacked = F.dropout(stacked.expand(-1, -1, len(images), -1, -1), self.config.prefix_dropout)
        tokens = embed(self.backbone, images)
        return run_blocks(self.backbone, tokens, prefixes=by_layer(self.layers, stacked), read=CLS)[:, 0]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``prefix-tuning``."""
    return [
        MethodSpec(
            name="prefix-tuning",
            build=PrefixTuning,
            config=PrefixTuningConfig,
            summary="keys and values in front of every block's attention, and the head, train",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "masked": {"mask": "current"},
                "vpt": {**VPT_SGD, "batch_size": 128, "lr": 1.0, "weight_decay": 0.001, "prefix_length": 10},
                "mlp": {"reparam": "mlp", "hidden": 512},
                "deep-mlp": {"reparam": "deep-mlp", "hidden": 512},
                "direct-normal": {"reparam": "none", "init": "normal"},
            },
            tracks={
                "nano": {"batch_size": 32, "lr": 0.001, "epochs": 2},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                "masked": "adaptbench: as linear-probe@masked, only the current classes compete",
                "vpt": f"{VPT_SOURCE}; nobody has published this recipe for prefixes",
                "mlp": "XiangLi1999/PrefixTuning gpt2/train_control.py, defaults; hidden: table-to-text",
                "deep-mlp": "XiangLi1999/PrefixTuning gpt2/train_control.py, deep_param",
                "direct-normal": "XiangLi1999/PrefixTuning gpt2/train_control.py, init_shallow",
                "prefix_length": "adaptbench; PrefixTuning has 5 or 10 for table-to-text",
                "init": "adaptbench: as prompts of KMnP/vpt",
                "optimizer": "adaptbench",
            },
            paper="arXiv:2101.00190",
            reference="XiangLi1999/PrefixTuning@6519d30",
            published="prefix-tuning",
        )
    ]
