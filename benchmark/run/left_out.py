"""Source domains that are left out in turn, to choose options on (leave-one-domain-out)."""

from __future__ import annotations

import dataclasses

import torch

from benchmark.api import Experience, ImageSet
from benchmark.errors import UsageError


def without_domain(name: str, part: Experience, place: int) -> tuple[Experience, ImageSet]:
    """An experience without one of its source domains, and the training images of that one.

    Raises:
        UsageError: There is no such domain, or no other one.
    """
    train, names = part.train, part.source_domains
    if train.domains is None or not 0 <= place < len(names) or len(names) < 2:
        raise UsageError(
            f"`{name}` has {len(names)} source domain(s): number {place} cannot be left out",
            hint="leave-one-domain-out needs scenarios with several sources",
        )
    held, kept = train.subset((train.domains == place).nonzero().flatten()), train.domains != place
    rest = train.subset(kept.nonzero().flatten())
    left = rest.domains - (rest.domains > place).to(torch.int64) if rest.domains is not None else None
    sources = tuple(name for number, name in enumerate(names) if number != place)
    rest = ImageSet(rest.source, rest.rows, rest.labels, rest.ids, left if len(sources) > 1 else None, rest.references)
    return dataclasses.replace(part, train=rest, sources=sources), held.without_domains()
