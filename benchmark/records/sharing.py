"""Many records at once: parts that are the same bytes in many files are decoded, checked and held once.

The records of a board say most things many times over: the seeds of a row share the whole configuration, the rows of a
table the scenario. Parts are frozen, and what they hold is never changed, so that records can have them in common.
"""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from benchmark.records.schema import Record

_SHARED = ("scenario", "method", "identity", "backbone", "inputs", "config", "selection")
_TYPES = typing.get_type_hints(Record, include_extras=True)


def _with_raw(base: type[msgspec.Struct], names: tuple[str, ...]) -> type[msgspec.Struct]:
    """The layout of a struct, some fields of which stay as they are in the file."""
    types = typing.get_type_hints(base, include_extras=True)
    fields: list[Any] = []
    for field in msgspec.structs.fields(base):
        kind = msgspec.Raw if field.name in names else types[field.name]
        both = {"default": field.default, "default_factory": field.default_factory}
        default: Any = {name: value for name, value in both.items() if value is not msgspec.NODEFAULT}
        fields.append((field.name, kind, msgspec.field(**default)) if default else (field.name, kind))
    return msgspec.defstruct(f"Raw{base.__name__}", fields, kw_only=True, forbid_unknown_fields=True)


_Raw = _with_raw(Record, _SHARED)
_decode = msgspec.json.Decoder(_Raw).decode
_decoders = {name: msgspec.json.Decoder(_TYPES[name]).decode for name in _SHARED}
_NAMES = tuple(field.name for field in msgspec.structs.fields(Record))


class Shared:
    """Parts that were read before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Any] = {}

    def decode(self, text: bytes) -> Record:
        """A record of the current schema.

        Raises:
            msgspec.ValidationError: It does not follow the schema; where a part does not, without its name.
            ValueError: It is no JSON.
        """
        raw = _decode(text)
        parts = {name: self._part(raw, name) for name in _SHARED}
        return Record(**{name: getattr(raw, name) for name in _NAMES} | parts)

    def _part(self, raw: Any, name: str) -> Any:
        key = name, bytes(getattr(raw, name))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _decoders[name](key[1])
        return found
