"""From records to tables."""

from __future__ import annotations

from benchmark.leaderboard.commands import command_of
from benchmark.leaderboard.frames import frame
from benchmark.leaderboard.tabulate import HEADLINE, leaderboard
from benchmark.tables import Cell, Column, Row, Table, render_text

__all__ = ["HEADLINE", "Cell", "Column", "Row", "Table", "command_of", "frame", "leaderboard", "render_text"]
