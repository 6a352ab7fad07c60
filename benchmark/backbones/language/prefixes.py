"""Trained keys and values in front of those of every layer: as they are, or the output of a small network.

P-tuning v2 (Liu et al., ACL 2022, arXiv 2110.07602; THUDM/P-tuning-v2 at b1520c9a, ``model/prefix_encoder.py``) and
prefix-tuning (Li and Liang, ACL 2021, arXiv 2101.00190; XiangLi1999/PrefixTuning at 6519d30e, ``train_control.py``)
share them. Both lay a row out as key of layer 0, value of layer 0, key of layer 1, ...: channel j of head h is column
``(2 l) g d + h d + j`` of the key and ``(2 l + 1) g d + h d + j`` of the value of layer l. Where heads share keys
(grouped queries) a prefix has one of g, not of all heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.language.model import LanguageModel, Prefix, Site

Form = Literal["direct", "mlp", "deep-mlp"]
PrefixInit = Literal["library", "torch"]

LIBRARY_STD = 0.02  # `initializer_range` of BERT, RoBERTa and GPT-2 in transformers


class PrefixEncoder(nn.Module):
    """P keys and P values for each of L attentions, drawn from one table.

    Args:
        layers: L.
        heads: Number g of heads that have keys of their own.
        width: Width d of a head.
        length: P.
        form: ``direct``: the table itself, ``(P, 2 L g d)``. ``mlp``: a table ``(P, D)`` behind which stand a layer to
            ``hidden`` units, tanh and a layer to ``2 L g d``. ``deep-mlp``: with a second hidden layer and tanh.
        embedding: D.
        hidden: Units of the hidden layers.
        init: ``library``: as transformers draws what a checkpoint lacks, N(0, 0.02), biases 0 (P-tuning v2).
            ``torch``: as torch draws tables, N(0, 1), and layers (prefix-tuning).
        dropout: Of the keys and values, of each example by itself, in training.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        width: int,
        length: int,
        *,
        form: Form = "direct",
        embedding: int = 0,
        hidden: int = 512,
        init: PrefixInit = "library",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.dropout = (length, layers, 2, heads, width), dropout
        numbers = 2 * layers * heads * width
        self.table = nn.Embedding(length, numbers if form == "direct" else embedding)
        widths = {"direct": [], "mlp": [embedding, hidden], "deep-mlp": [embedding, hidden, hidden]}[form]
        parts: list[nn.Module] = []
        for before, behind in zip(widths, [*widths[1:], numbers], strict=False):
            parts += [nn.Tanh(), nn.Linear(before, behind)]
        self.network = nn.Sequential(*parts[1:])
        if init == "library":
            for name, parameter in self.named_parameters():
                nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=LIBRARY_STD)

    def forward(self, batch: int = 1) -> Tensor:
        """Keys and values ``(L, 2, 1, g, P, d)``; ``(L, 2, B, g, P, d)`` where dropout differs between B examples."""
        found: Tensor = self.network(self.table.weight)
        found = found.view(self.shape).permute(1, 2, 3, 0, 4).unsqueeze(2)
        if self.training and self.dropout > 0:
            found = F.dropout(found.expand(-1, -1, batch, -1, -1, -1), self.dropout)
        return found

    @torch.no_grad()
    def set(self, prefix: Tensor) -> None:
        """Starts from given keys and values, e.g. those of real words (``form=direct`` only).

        Args:
            prefix: ``(L, 2, 1, g, P, d)``.
        """
        if len(self.network):
            raise TypeError("the keys and values of this prefix are outputs of a network: train it towards them")
        self.table.weight.copy_(prefix.squeeze(2).permute(3, 0, 1, 2, 4).reshape(self.table.weight.shape))


class Prefixes(nn.Module):
    """One `PrefixEncoder` for each kind of attention that a model has: its own, an encoder's, that between the two.

    Args:
        language: The model.
        length: P.
        form: See `PrefixEncoder`.
        hidden: See `PrefixEncoder`.
        init: See `PrefixEncoder`.
        dropout: See `PrefixEncoder`.
        sites: The attentions that get one; default: all.
    """

    def __init__(
        self,
        language: LanguageModel,
        length: int,
        *,
        form: Form = "direct",
        hidden: int = 512,
        init: PrefixInit = "library",
        dropout: float = 0.0,
        sites: tuple[Site, ...] = (),
    ) -> None:
        super().__init__()
        known = language.sites
        self.encoders = nn.ModuleDict(
            {
                site: PrefixEncoder(
                    len(known.modules[site]),
                    known.heads,
                    known.width,
                    length,
                    form=form,
                    embedding=language.width,
                    hidden=hidden,
                    init=init,
                    dropout=dropout,
                )
                for site in sites or known.modules
            }
        )

    def forward(self, batch: int = 1) -> Prefix:
        """Keys and values for each site, see `PrefixEncoder.forward`."""
        return {site: encoder(batch) for site, encoder in self.encoders.items()}  # type: ignore[misc]
