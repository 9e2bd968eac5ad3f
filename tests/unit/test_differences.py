"""Module `differences`: cells that the source overrides, against a plain comparison."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.differences import DifferenceList, find_differences
from overlay.errors import OutputError
from overlay.limits import LIMITS
from overlay.settings import CsvFormat

CELLS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "1", "1.0"]))
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=8)


def texts(values) -> pa.Array:
    """A column of text."""
    return pa.array(list(values), pa.string())


@given(ROWS, st.integers(0, 5), st.integers(0, 10**12))
def test_cells_of_both_sides_are_compared(rows, most, start):
    ids = [f"id {number}" for number in range(len(rows))]
    ours = {"id": texts(ids), "a": texts(row[0] for row in rows), "b": texts(row[1] for row in rows)}
    theirs = {"id": texts(ids), "b": texts(row[2] for row in rows), "a": texts(row[3] for row in rows)}
    expected = []
    for number, (a, b, their_b, their_a) in enumerate(rows):
        for place, (name, our, their) in enumerate((("b", b, their_b), ("only ours", 1, None), ("a", a, their_a))):
            if our is not None and their is not None and our != their:
                expected.append(((start + number) * 3 + place, (ids[number], name, our, their)))
    ordinals = pa.array(range(start, start + len(rows)), pa.int64())
    found = find_differences(ordinals, ours["id"], (ours, theirs), ["b", "only ours", "a"], most)
    names = [cells[1] for _, cells in expected]
    assert found.counts == {name: names.count(name) for name in ("b", "a") if name in names}
    listed = list(zip(*(column.to_pylist() for column in found.cells), strict=True))
    assert list(zip(found.positions.to_pylist(), listed, strict=True)) == expected[:most]


def test_a_list_ends_where_the_next_line_would_be_too_much():
    kept = DifferenceList(CsvFormat(), replace(LIMITS, differences_max=2))
    for lines in (["a\n"], ["b\n", "c\n"], ["d\n"]):
        kept.add(lines)
    assert kept.lines == [b"a\n", b"b\n"]
    kept = DifferenceList(CsvFormat(), replace(LIMITS, differences_bytes_max=5))
    for lines in (["aa\n"], ["bbb\n", "c\n"], ["\n"]):
        kept.add(lines)
    assert kept.lines == [b"aa\n"]


def test_a_character_that_the_encoding_lacks_is_an_error_that_names_row_and_column():
    kept = DifferenceList(CsvFormat(encoding="cp932"), LIMITS)
    with pytest.raises(OutputError, match=r"row 2, column 'table'"):
        kept.add(["1,a,x,y\n", "2,a,x,😀\n"])
