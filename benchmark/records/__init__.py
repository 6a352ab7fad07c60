"""What is kept of a run: its record, its predictions, and the schema of both."""

from __future__ import annotations

from benchmark.records.schema import SCHEMA, Record, parse, plain
from benchmark.records.store import TABLES_FORMAT, Problem, comparable, find, locate, named, read, read_all, write

__all__ = [
    "SCHEMA",
    "TABLES_FORMAT",
    "Problem",
    "Record",
    "comparable",
    "find",
    "locate",
    "named",
    "parse",
    "plain",
    "read",
    "read_all",
    "write",
]
