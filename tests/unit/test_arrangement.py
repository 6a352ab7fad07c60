from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import UsageError
from benchmark.leaderboard.arrangement import View, arranged, split, transposed
from benchmark.tables import Cell, Column, Row, Table

PAIRS = ("ink-chalk", "ink-photo", "chalk-ink", "chalk-photo", "photo-ink", "photo-chalk")


def wide() -> Table:
    columns = (
        Column("method", "Method", "left"),
        *(Column(f"variant {pair}", pair, group=pair.split("-")[0]) for pair in PAIRS),
        Column("mean", "Mean"),
        Column("seeds", "Seeds"),
    )

    def row(label: str, group: str, value: float, marks: tuple[str, ...] = (), bold: bool = False) -> Row:
        cells = [Cell(f"{value + place:.2f}", value + place) for place in range(len(PAIRS))]
        mean = Cell(f"{value:.2f}", value, bold=bold)
        return Row((Cell(label, label, marks=marks), *cells, mean, Cell("3", 3)), group)

    rows = (
        row("oracle", "upper bound", 90, ("a",)),
        row("mine", "method", 80, ("a", "b"), bold=True),
        row("mine (lr=0.1)", "method", 70, ("b",)),
        row("theirs@x (lr=0.1)", "method", 60, ("c",)),
    )
    notes = (("a", "uses a"), ("b", "uses b"), ("c", "uses c"), ("", "Best row: mine."))
    runs = tuple({"row": row.cells[0].text, "value": row.cells[-2].value} for row in rows)
    return Table("styles", "All that is to be known.", columns, rows, notes, runs, "The mean in %.")


def labels(table: Table) -> list[str]:
    return [row.cells[0].text for row in table.rows]


def keys(table: Table) -> list[str]:
    return [column.key for column in table.columns]


def only(view: View) -> Table:
    (table,) = arranged([wide()], view)
    return table


def test_the_default_changes_nothing() -> None:
    assert arranged([wide()], View()) == [wide()]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("mean", "seeds"), ["mean", "seeds"]),
        (("Seeds", "mean"), ["seeds", "mean"]),
        (("variant ink-*", "mean"), ["variant ink-chalk", "variant ink-photo", "mean"]),
        (("method",), []),
    ],
)
def test_columns_are_chosen_in_order_by_key_heading_or_pattern(wanted: tuple[str, ...], found: list[str]) -> None:
    table = only(View(columns=wanted))
    assert keys(table) == ["method", *found]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert table.runs == wide().runs  # machines are told everything


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("mine",), ["mine"]),
        (("mine*",), ["mine", "mine (lr=0.1)"]),
        (("theirs@x", "mine"), ["mine", "theirs@x (lr=0.1)"]),
        (("*lr=0.1)",), ["mine (lr=0.1)", "theirs@x (lr=0.1)"]),
    ],
)
def test_rows_are_chosen_by_label_method_or_pattern(wanted: tuple[str, ...], found: list[str]) -> None:
    table = only(View(rows=wanted))
    assert labels(table) == found
    assert [run["row"] for run in table.runs] == found
    assert table.caption.endswith(f"{len(found)} of 4 rows; bold and gain refer to all.")
    marks = {mark for row in table.rows for mark in row.cells[0].marks}
    assert {mark for mark, _ in table.footnotes} == {*marks, ""}


def test_what_is_in_no_table_is_an_error_and_what_is_in_some_is_not() -> None:
    other = replace(wide(), title="other", columns=tuple(replace(c, key=f"x{c.key}", title="") for c in wide().columns))
    assert [table.title for table in arranged([wide(), other], View(columns=("mean",)))] == ["styles"]
    for view in (View(columns=("meen",)), View(rows=("mien",)), View(headings={"meen": "M"})):
        with pytest.raises(UsageError) as error:
            arranged([wide(), other], view)
        assert "did you mean `m" in error.value.hint


def test_headings_and_short_captions() -> None:
    table = only(View(headings={"Mean": "Ø", "variant ink-chalk": "I→C"}, caption="short"))
    assert [column.title for column in table.columns[:2]] == ["Method", "I→C"]
    assert table.columns[-2].title == "Ø"
    assert table.caption == "The mean in %."
    assert [mark for mark, _ in table.footnotes] == ["a", "b", "c"]


def test_on_its_side_a_table_holds_the_same_cells() -> None:
    table, before = transposed(wide()), wide()
    assert [column.title for column in table.columns[1:]] == labels(before)
    for place, row in enumerate(table.rows[:-1], start=1):
        assert row.cells[0].text == before.columns[place].title
        assert row.cells[1:] == tuple(old.cells[place] for old in before.rows)
    assert [cell.marks for cell in table.rows[-1].cells[1:]] == [("a",), ("a", "b"), ("b",), ("c",)]
    assert table.footnotes == before.footnotes


def test_a_wide_table_is_split_between_groups_of_columns() -> None:
    first, second = split(wide(), 5)
    assert keys(first) == ["method", *(f"variant {pair}" for pair in PAIRS[:4])]
    assert keys(second) == ["method", *(f"variant {pair}" for pair in PAIRS[4:]), "mean", "seeds"]
    assert (first.title, second.title) == ("styles, part 1 of 2", "styles, part 2 of 2")
    assert first.caption == wide().caption
    assert second.caption == "Caption and notes: part 1."
    assert first.footnotes == wide().footnotes  # marks of all parts are explained once
    assert (first.runs, second.runs) == (wide().runs, ())
    with pytest.raises(UsageError, match="-1 columns"):
        split(wide(), -1)


@given(st.integers(1, 12), st.booleans())
def test_no_cell_is_lost_or_doubled(most: int, turned: bool) -> None:
    table = transposed(wide()) if turned else wide()
    parts = split(table, most)
    assert [column for part in parts for column in part.columns[1:]] == list(table.columns[1:])
    for place, row in enumerate(table.rows):
        assert [cell for part in parts for cell in part.rows[place].cells[1:]] == list(row.cells[1:])
        assert {part.rows[place].cells[0] for part in parts} == {row.cells[0]}
    assert all(1 < len(part.columns) <= most + 1 for part in parts)
