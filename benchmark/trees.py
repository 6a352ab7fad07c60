"""Tensors in nested state: what a method keeps, of whatever mappings and sequences it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor


def tensors_in(tree: object) -> Iterator[Tensor]:
    """Yields every tensor in nested mappings, lists and tuples, arrays as tensors."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, np.ndarray):
        yield torch.from_numpy(tree)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from tensors_in(value)
