"""What is kept of a run: its record, its predictions, and the schema of both."""

from __future__ import annotations

from benchmark.records.store import (
    IDENTITY,
    SCHEMA,
    TABLES_FORMAT,
    Problem,
    Record,
    comparable,
    find,
    read,
    read_all,
    write,
)

__all__ = [
    "IDENTITY",
    "SCHEMA",
    "TABLES_FORMAT",
    "Problem",
    "Record",
    "comparable",
    "find",
    "read",
    "read_all",
    "write",
]
