"""Names of files and anchors from any text: lower case, no separator of any system, one text one name."""

from __future__ import annotations

import hashlib
import re

LONGEST = 60
_RESERVED = re.compile(r"(index|con|prn|aux|nul|com\d|lpt\d)")


def slug(text: str) -> str:
    """A name that can be part of a path and of an address as it is.

    Args:
        text: Anything.

    Returns:
        The text itself where it is safe; else what is left of it, with the first digits of its hash: ``l2p`` and
        ``l2p++`` are two names.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST].strip("-")
    if plain and plain == text and not _RESERVED.fullmatch(plain):
        return plain
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}-{digits}" if plain else digits
