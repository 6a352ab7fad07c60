"""Trained vectors in front of a text, or wherever a pattern has its soft positions, and what they start from.

Source of the initialisations: Lester et al., EMNLP 2021, arXiv 2104.08691; google-research/prompt-tuning at 72285eea,
``prompt_tuning/prompts.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmark.backbones.language.model import LanguageModel
from benchmark.backbones.language.templates import Tokens
from benchmark.errors import DataMissing, UsageError
from benchmark.files import user_path

SoftInit = Literal["uniform", "vocabulary", "labels", "string", "file"]
COMMON = 5000
"""Of so many first entries of the table of embeddings rows are sampled: T5's most frequent pieces."""


def initial(
    language: LanguageModel,
    length: int,
    init: SoftInit,
    *,
    labels: Sequence[str] = (),
    text: str = "",
    file: str = "",
) -> Tensor:
    """Vectors ``(P, D)`` to start from.

    Args:
        language: Its table of embeddings.
        length: P.
        init: ``uniform`` in [0, 0.5), one-sided as the initialiser of Flax is. ``vocabulary``: P different rows of the
            first 5,000 of the table. ``labels``: vector i is the mean of the pieces of label i, ``string``: of the i-th
            piece of a text; those that are left over come from the vocabulary. ``file``: an array.
        labels: One text for each class; those behind P are left out.
        text: For ``string``; pieces behind P are left out.
        file: For ``file``, of numpy (``.npy``).

    Raises:
        UsageError: The table has fewer rows than P, a text has no pieces, or the array another shape.
        DataMissing: There is no such file, or it holds no array.
    """
    table = language.embedding.weight.detach()
    if init == "uniform":
        return torch.rand(length, language.width).to(table) * 0.5
    if init == "file":
        return _read(file, (length, language.width)).to(table)
    common = min(COMMON, len(table))
    if common < length:
        raise UsageError(
            f"length: {language.name} has {common} embeddings for a prompt of {length} vectors",
            hint=f"use at most {common}, or init=uniform",
        )
    found = table[torch.randperm(common)[:length].to(table.device)].clone()
    if init == "vocabulary":
        return found
    parts = [language.layout.ids(label) for label in labels] if init == "labels" else _pieces(language, text)
    if not parts or not all(parts):
        raise UsageError(
            f"init={init}: there is nothing to start from",
            hint="give a text (option `init_text`)" if init == "string" else "the classes have no names",
        )
    for row, part in enumerate(parts[:length]):
        found[row] = table[list(part)].mean(dim=0)
    return found


def _pieces(language: LanguageModel, text: str) -> list[tuple[int, ...]]:
    return [(number,) for number in language.layout.ids(text)]


def _read(file: str, shape: tuple[int, int]) -> Tensor:
    path = user_path(file)
    if not file or not path.is_file():
        raise DataMissing(f"init_file: no file {file!r}", hint="give the path of an array written by numpy.save")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataMissing(f"init_file: {file!r} holds no array", hint="write it with numpy.save") from error
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "f":
        said = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UsageError(f"init_file: {file!r} is {said}", hint=f"give real numbers of shape {shape}")
    return torch.from_numpy(array)


def placed(language: LanguageModel, tokens: Tokens, prompt: Tensor) -> Tensor:
    """Embeddings ``(B, n, D)`` of tokens, those at soft positions replaced by a prompt.

    Args:
        language: Its table of embeddings.
        tokens: B examples with P soft positions each.
        prompt: ``(P, D)``.

    Raises:
        UsageError: They have another number of soft positions.
    """
    at = tokens.marks.get("soft")
    if at is None or at.shape[1] != len(prompt):
        found = 0 if at is None else at.shape[1]
        raise UsageError(
            f"the pattern has {found} soft positions for a prompt of {len(prompt)} vectors",
            hint="write {soft} once where the prompt is to stand, or leave it out: it then stands in front",
        )
    rows, width = tokens.ids.shape[0], prompt.shape[1]
    index = at.unsqueeze(-1).expand(-1, -1, width)
    words = language.embed(tokens.ids)
    return words.scatter(1, index, prompt.to(words.dtype).expand(rows, -1, -1))
