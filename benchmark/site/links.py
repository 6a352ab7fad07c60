"""Links to other sites, from what plugins and records say: of known forms alone, anything else stays a text."""

from __future__ import annotations

import re

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(v\d+)?)", re.IGNORECASE)
_DOI = re.compile(r"(?:doi:|https://doi\.org/)?(10\.\d{4,9}/[A-Za-z0-9._()/-]+)", re.IGNORECASE)
_REPOSITORY = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_.-]+)@[0-9A-Za-z.]+")
_ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/%+-]*)?")


def paper(identifier: str) -> str | None:
    """The page of a paper.

    Args:
        identifier: As in `benchmark.specs.MethodSpec.paper`, e.g. ``arXiv:2112.08654`` or a DOI.
    """
    if found := _ARXIV.fullmatch(identifier.strip()):
        return f"https://arxiv.org/abs/{found[1]}"
    if found := _DOI.fullmatch(identifier.strip()):
        return f"https://doi.org/{found[1]}"
    return None


def reference(text: str) -> str | None:
    """The repository on GitHub of an official implementation, ``owner/name@8cfb210``, as specs name it."""
    found = _REPOSITORY.fullmatch(text.strip())
    return f"https://github.com/{found[1]}" if found else None


def address(text: str) -> str | None:
    """A text that is a plain address of ``https``, as it is."""
    return text.strip() if _ADDRESS.fullmatch(text.strip()) else None
