"""A small network whose outputs stand at the learned positions of a text, instead of free vectors (P-tuning).

Source: Liu et al., GPT Understands, Too, arXiv 2103.10385; THUDM/P-tuning at f4225d4d, ``LAMA/p_tuning/
prompt_encoder.py`` (``half-lstm``) and ``PT-Fewshot/pet/wrapper.py`` (``lstm``, ``mlp``).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from benchmark.errors import UsageError

EncoderKind = Literal["lstm", "half-lstm", "mlp"]


class PromptEncoder(nn.Module):
    """A table of N vectors, a bidirectional LSTM over them in their order, and two layers at every position.

    Args:
        length: N, learned positions of an example.
        width: D, of the embeddings of the language model.
        kind: Each direction of the two layers of the LSTM has D units (``lstm``, as in the few-shot code) or D / 2
            (``half-lstm``, as in that for facts); ``mlp`` has no LSTM.

    Raises:
        UsageError: ``half-lstm`` with an odd width.
    """

    def __init__(self, length: int, width: int, kind: EncoderKind = "lstm") -> None:
        super().__init__()
        if kind == "half-lstm" and width % 2:
            raise UsageError(
                f"encoder: half-lstm halves the width of the embeddings, which is {width}", hint="use encoder=lstm"
            )
        self.table = nn.Embedding(length, width)  # N(0, 1), as torch draws it
        units = width // 2 if kind == "half-lstm" else width
        self.lstm = None if kind == "mlp" else nn.LSTM(width, units, num_layers=2, bidirectional=True, batch_first=True)
        read = width if self.lstm is None else 2 * units
        self.mlp = nn.Sequential(nn.Linear(read, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> Tensor:
        """The vectors at the learned positions, ``(N, D)``."""
        states: Tensor = self.table.weight
        if self.lstm is not None:
            states = self.lstm(states.unsqueeze(0))[0].squeeze(0)
        found: Tensor = self.mlp(states)
        return found

    def __len__(self) -> int:
        return self.table.num_embeddings
