"""Rows compared in words and as data: what `bench compare` and `benchmark.Records.compare` say."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmark.errors import UsageError, did_you_mean
from benchmark.leaderboard import comparison, scores
from benchmark.leaderboard.comparison import Pair, PathOf, Ranks
from benchmark.leaderboard.scores import Board, Score
from benchmark.metrics.pairs import POWER
from benchmark.metrics.statistics import SIGNIFICANCE, smallest_effect, summarize
from benchmark.records.schema import Record

By = Literal["experience", "class"]
MOST_CLASSES = 10  # shown, those that differ most
FEWEST = 5  # scenarios, for tests over them (Demšar, 2006)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Rows of one table.

    Attributes:
        board: The table.
        rows: Its rows that were asked for.
        pairs: Every two of them.
    """

    board: Board
    rows: Sequence[Score]
    pairs: Sequence[Pair]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows held against each other; printed, it says what the data show and what they cannot decide.

    Attributes:
        tables: For each table that has two of the rows or more.
        ranks: Over scenarios; None where fewer than two have all rows.
        by: What differences are also told by.
    """

    tables: Sequence[Compared]
    ranks: Ranks | None
    by: By | None = None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """For notebooks: the text."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def lines(self) -> list[str]:
        """What is said, line by line."""
        found = [line for one in self.tables for line in [*of_board(one.board, one.rows, one.pairs, self.by), ""]]
        if self.ranks is not None:
            found += of_ranks(self.ranks)
        elif len(self.tables) > 1:
            found.append("Over scenarios: nothing, as fewer than two of them have all rows that were asked for.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``bench compare --json`` prints them."""
        tables = [
            {
                "table": one.board.title,
                "of": one.board.of,
                "rows": {row.label: list(row.values.values()) for row in one.rows},
                "pairs": [_plain(asdict(pair)) for pair in one.pairs],
            }
            for one in self.tables
        ]
        return {"tables": tables, "scenarios": None if self.ranks is None else _plain(_named(self.ranks))}


def compared(records: Iterable[Record], asked: Sequence[str], path_of: PathOf, *, by: By | None = None) -> Comparison:
    """Holds rows of the tables of some records against each other.

    Args:
        records: Of any scenarios.
        asked: Names of rows: a method, ``method@recipe`` or the whole label.
        path_of: Where the predictions of a run lie, or None.
        by: Whether differences are also told by experience or by class.

    Raises:
        UsageError: Fewer than two rows, an unknown one, one that stands for several; or no table has two of them.
    """
    asked = list(dict.fromkeys(asked))
    if len(asked) < 2:
        raise UsageError(f"`{asked[0] if asked else ''}` alone cannot be compared", hint="name two rows or more")
    boards = scores.boards_of(records)
    known = {name for board in boards for row in board.rows for name in row.names}
    for name in asked:
        if name not in known:
            raise did_you_mean("row in these tables", name, known)
    try:
        chosen = [(board, comparison.choose(board, asked)) for board in boards]
    except ValueError as error:
        raise UsageError(str(error), hint="give the whole label, in quotes") from error
    shown = [(board, rows) for board, rows in chosen if len(rows) > 1]
    if not shown:
        raise UsageError("no table has two of these rows", hint="`bench leaderboard` shows what each table has")
    tables = [Compared(board=board, rows=rows, pairs=comparison.compare(rows, path_of)) for board, rows in shown]
    return Comparison(tables=tables, ranks=comparison.rank(shown, asked), by=by)


# --- text -----------------------------------------------------------------------------------------


def of_board(board: Board, rows: Sequence[Score], pairs: Sequence[Pair], by: By | None = None) -> list[str]:
    """Lines on one table: its rows, and every pair of them."""
    lines = [board.title, f"{board.of}, in %", ""]
    width = max(len(row.label) for row in rows)
    for row in rows:
        summary = summarize(list(row.values.values()))
        spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
        lines.append(f"  {row.label:<{width}}  {100 * (summary.mean or 0):6.2f}{spread}  (n = {summary.n})")
    for pair in pairs:
        lines += ["", *(f"  {line}" for line in [*told(pair), *_details(pair, by)])]
    return lines


def told(pair: Pair) -> list[str]:
    """What a comparison says, in words: the difference, its tests, and what cannot be decided."""
    lines = [f"{pair.x} - {pair.y}:"]
    if pair.difference is None:
        return [lines[0] + " no seed in common"]
    lines[0] += f" {points(pair.difference)} points over {pair.n} common seed{'s' if pair.n > 1 else ''}"
    if pair.test is None:
        lines.append("over seeds: nothing can be said with one; run more of them (--seed 0-4)")
    else:
        lines.append(_over_seeds(pair))
    if pair.samples is None:
        lines.append("over test samples: not compared, as predictions do not lie beside all of these records")
    else:
        found = pair.samples
        tests = ", ".join(f"{_p(test.p)} ({test.only_x}:{test.only_y})" for test in found.mcnemar.values())
        lines.append(
            f"over {found.samples:,} test samples after the last experience: {points(found.difference)} "
            f"[{points(found.low)}, {points(found.high)}] (bootstrap); McNemar by seed, p: {tests}"
        )
    return lines


def _over_seeds(pair: Pair) -> str:
    test = pair.test
    assert test is not None
    low, high = test.difference - test.ci95, test.difference + test.ci95
    text = f"over seeds: 95 % interval [{points(low)}, {points(high)}], paired t {_p_is(test.p)}"
    if pair.adjusted is not None and pair.adjusted != test.p:
        text += f" (Holm {_p(pair.adjusted)})"
    if pair.ranked is not None:
        text += f", Wilcoxon {_p_is(pair.ranked.p)}"
        if pair.ranked.smallest > SIGNIFICANCE:
            text += f" (with {test.n} seeds it cannot be below {pair.ranked.smallest:g})"
    if pair.effect is not None:
        text += f", d_z = {pair.effect:.2f}"
    if (pair.adjusted if pair.adjusted is not None else test.p) < SIGNIFICANCE:
        return text + ": a difference"
    if test.p < SIGNIFICANCE:
        return text + ": a difference by itself, but not among so many comparisons"
    if test.t == 0:
        return text + ": equal on every seed" if not test.ci95 else text + ": no difference on average"
    smallest = smallest_effect(test.n)
    text += f": undecided; {test.n} seeds can show differences from {points(test.ci95)[1:]} points ({smallest:.2f} d_z)"
    if pair.needed is None:
        return text + ", and no number of seeds up to 1000 would show this one"
    return text + f"; about {pair.needed} seeds would show this one (power {POWER:.0%})"


def _details(pair: Pair, by: By | None) -> list[str]:
    if by == "experience":
        return ["  by test set: " + ", ".join(f"{name} {points(gap)}" for name, gap in pair.experiences.items())]
    if by == "class" and pair.samples is not None:
        order = sorted(pair.samples.classes.items(), key=lambda item: (-abs(item[1]), item[0]))[:MOST_CLASSES]
        more = len(pair.samples.classes) - len(order)
        text = ", ".join(f"{label} {points(gap)}" for label, gap in order)
        return [f"  by class (original label): {text}" + (f"; {more} more differ less" if more else "")]
    return []


def of_ranks(found: Ranks) -> list[str]:
    """Lines on several scenarios."""
    lines = [f"Over {len(found.scenarios)} scenarios that have all rows: {', '.join(found.scenarios)}", ""]
    width = max(map(len, found.labels))
    lines.append(f"  {'':<{width}}  average rank   IQM over runs and scenarios (95 % over runs)")
    for place in sorted(range(len(found.labels)), key=lambda place: found.ranks[place]):
        value, low, high = (100 * number for number in found.iqm[place])
        spread = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""
        lines.append(f"  {found.labels[place]:<{width}}  {found.ranks[place]:12.2f}   {value:6.2f}{spread}")
    lines.append("")
    if len(found.scenarios) < FEWEST:
        lines.append(f"  fewer than {FEWEST} scenarios: tests over scenarios would say nothing")
    elif found.friedman is not None:
        test = found.friedman
        other = f"Iman-Davenport: F = {test.f:.2f}, {_p_is(test.p_f)}"
        lines.append(f"  Friedman: chi2 = {test.chi2:.2f}, {_p_is(test.p)}; {other}")
        pool = f"of these {len(found.labels)} rows"
        lines.append(f"  Nemenyi: average ranks {pool} differ from {found.difference:.2f} on (5 %)")
    for (i, j), duel in found.duels.items():
        x, y = found.labels[i], found.labels[j]
        text = f"  {x} : {y}  win/tie/loss {duel.wins}/{duel.ties}/{duel.losses}"
        if duel.p is not None and len(found.scenarios) >= FEWEST:
            text += f", Wilcoxon {_p_is(duel.p)} (Holm {_p(duel.adjusted or 0)})"
        lines.append(text + f", P({x} better) = {found.improvement[i, j]:.2f}")
    return lines


def points(difference: float) -> str:
    """A difference of fractions in points, with its sign; what rounds to nothing is +0.00."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}"


def _p_is(value: float) -> str:
    return f"p = {_p(value)}" if value >= 0.0001 else f"p {_p(value)}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else "< 0.0001"


# --- JSON -----------------------------------------------------------------------------------------


def _named(ranks: Ranks) -> dict[str, Any]:
    facts = asdict(ranks)
    for key in ("duels", "improvement"):
        facts[key] = [
            {"x": ranks.labels[i], "y": ranks.labels[j], **(value if isinstance(value, dict) else {"p": value})}
            for (i, j), value in facts[key].items()
        ]
    return facts


def _plain(value: Any) -> Any:
    """Without what JSON has no word for: arrays are lists, infinities null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
