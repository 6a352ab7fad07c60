"""From records to tables."""

from __future__ import annotations

from benchmark.leaderboard.tabulate import HEADLINE, leaderboard
from benchmark.tables import Cell, Column, Row, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "leaderboard", "render_text"]
