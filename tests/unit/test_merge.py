"""Module `merge`: source value, else table value, else missing, and what is counted; against dicts and loops."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.merge import (
    Counts,
    counts_from_data,
    counts_of_source,
    first_rows,
    merged_columns,
    overlay,
    slices,
)

CELL = st.none() | st.sampled_from(["", "a", "b", "é", "😀", "null"])
NAMES = ("id", "name", "city", "x")
COLUMNS = st.lists(st.sampled_from(NAMES), unique=True)


def texts(values) -> pa.Array:
    """A column of texts."""
    return pa.array(values, pa.string())


@st.composite
def sides(draw) -> tuple[dict[str, list], dict[str, list], int]:
    """Columns of records, columns of the rows beside them, and how many there are."""
    length = draw(st.integers(0, 8))
    column = st.lists(CELL, min_size=length, max_size=length)
    records, rows = ({name: draw(column) for name in draw(COLUMNS)} for _ in range(2))
    return records, rows, length


def overlaid(records: dict[str, list], rows: dict[str, list], columns: tuple[str, ...], length: int):
    """What the job makes of two sides."""
    ours, theirs = ({name: texts(cells) for name, cells in side.items()} for side in (records, rows))
    return overlay(ours, theirs, columns, length)


@given(sides())
def test_a_cell_is_the_sources_else_the_tables_else_missing(both):
    records, rows, length = both
    columns = merged_columns(records, rows)
    expected, coverage = [], []
    for name in columns:
        ours, theirs = records.get(name, [None] * length), rows.get(name, [None] * length)
        cells = [our if our is not None else their for our, their in zip(ours, theirs, strict=True)]
        of_source = sum(our is not None for our in ours)
        empty = sum(cell is None for cell in cells)
        expected.append(cells)
        coverage.append([of_source, length - of_source - empty, empty])
    values, counted = overlaid(records, rows, columns, length)
    assert [value.to_pylist() for value in values] == expected
    assert all(value.type == pa.string() for value in values)
    assert counted.tolist() == coverage


def test_what_is_there_and_empty_is_no_gap():
    values, coverage = overlaid({"v": ["", None]}, {"v": ["table", "table"]}, ("v",), 2)
    assert values[0].to_pylist() == ["", "table"]
    assert coverage.tolist() == [[1, 1, 0]]


@given(COLUMNS, COLUMNS)
def test_columns_of_the_source_come_first_then_those_of_the_table_alone(source, table):
    assert merged_columns(source, table) == (*source, *(name for name in table if name not in source))


# Slices of records, by the bytes of what becomes of them.

TEXT = st.none() | st.text("aé", max_size=9)


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=20),
    st.lists(st.tuples(TEXT), max_size=4),
    st.integers(1, 60),
    st.data(),
)
def test_slices_take_so_many_bytes_of_records_and_their_rows(records, rows, size, data):
    numbers = [data.draw(st.none() | st.integers(0, len(rows) - 1)) if rows else None for _ in records]
    ours = pa.table([texts(column) for column in zip(*records, strict=True)], ["id", "v"])
    ours = pa.concat_tables([ours.slice(0, 3), ours.slice(3)])  # in chunks, as ranges of the source are parsed
    theirs = [texts(column) for column in zip(*rows, strict=True)]
    cut = list(slices(ours.columns, theirs, pa.array(numbers, pa.int32()), size))
    assert list(itertools.chain.from_iterable(range(start, end) for start, end in cut)) == list(range(len(records)))
    bytes_of = [
        sum(len((cell or "").encode()) + 1 for cell in (*record, *(rows[number] if number is not None else ())))
        for record, number in zip(records, numbers, strict=True)
    ]
    for start, end in cut:
        assert end > start
        assert sum(bytes_of[start : end - 1]) < size  # the last record of a slice may be any size
    assert len(cut) <= sum(bytes_of) // size + 1


def test_slices_are_cut_by_bytes_not_by_records():
    """A thousand records that all take one large row of the table."""
    records = [pa.chunked_array([texts(["1"] * 1_000)])]
    cut = list(slices(records, [texts(["1"]), texts(["x" * 100_000])], pa.array([0] * 1_000, pa.int32()), 1_000_000))
    assert 99 <= len(cut) <= 101
    assert max(end - start for start, end in cut) <= 11


# Of rows with one id, one.


def order(row: tuple) -> list[tuple[bool, bytes]]:
    """What a row is sorted by: nulls first, then the bytes of the text."""
    return [(cell is not None, (cell or "").encode()) for cell in row]


@given(st.lists(st.tuples(st.sampled_from("abc"), CELL, CELL), max_size=20), st.integers(1, 7))
def test_of_rows_with_one_id_the_one_that_sorts_first_by_its_texts_stays(rows, batch):
    table = pa.table([texts(column) for column in zip(*rows, strict=True)] or [texts([])] * 3, names=list(NAMES[:3]))
    table = pa.Table.from_batches(table.to_batches(max_chunksize=batch), table.schema)  # as the database sends it
    firsts = first_rows(table, table.column(0).combine_chunks())
    alike = Counter(row[0] for row in rows)
    if not rows or max(alike.values()) == 1:
        assert firsts is None
        return
    expected = {min((row for row in rows if row[0] == key), key=order) for key in alike}
    kept_rows = [tuple(row.values()) for row in table.take(firsts).to_pylist()]
    assert len(kept_rows) == len(expected)
    assert set(kept_rows) == expected
    assert firsts.to_pylist() == sorted(firsts.to_pylist())


def test_ids_that_are_spelt_otherwise_are_one_where_their_matches_are():
    """The texts of the row decide, the match alone says which rows are alike."""
    table = pa.table({"id": ["07", "7", "8"], "v": ["a", "b", "c"]})
    assert first_rows(table, texts(["7", "7", "8"])).to_pylist() == [0, 2]
    assert first_rows(table, pa.array([7, 7, 8])).to_pylist() == [0, 2]


# Counts.

NUMBERS = st.integers(0, 10**12)
COUNTS = st.builds(
    lambda numbers, ids, coverage: Counts(*numbers, ids, np.array(coverage, np.int64).reshape(-1, 3)),
    st.lists(NUMBERS, min_size=7, max_size=7),
    st.lists(st.text(max_size=3), max_size=3),
    st.sampled_from([0, 2]).flatmap(lambda width: st.lists(NUMBERS, min_size=3 * width, max_size=3 * width)),
)


@given(COUNTS)
def test_counts_travel_as_data(counts):
    assert counts_from_data(json.loads(json.dumps(counts.to_data()))).to_data() == counts.to_data()
    assert counts_from_data(counts.to_data()).coverage.shape == counts.coverage.shape


@given(COUNTS, COUNTS, COUNTS)
def test_counts_may_be_added_in_any_groups_and_to_nothing(one, two, three):
    assert ((one + two) + three).to_data() == (one + (two + three)).to_data()
    assert (one + Counts()).to_data() == (Counts() + one).to_data() == one.to_data()


@given(COUNTS)
def test_counts_have_what_follows_from_them(counts):
    facts = counts.as_dict()
    assert facts["source_only"] == counts.source_records - counts.matched
    assert facts["unmatched"] == max(counts.table_rows - counts.matched_rows, 0)
    assert facts["filled_cells"] == sum(from_table for _, from_table, _ in facts["coverage"])
    assert json.loads(json.dumps(facts)) == facts


def test_a_table_that_shrinks_while_it_is_read_has_no_rows_less_than_none():
    assert Counts(table_rows=3, matched_rows=5).unmatched == 0


IDS = st.lists(st.none() | st.sampled_from(["1", "01", "2", "3", "x"]), max_size=20)


def counted(ids: list[str | None]) -> Counts:
    """What the job counts of ids of records, `01` being `1`."""
    matches = texts([text and text.lstrip("0") for text in ids])
    return counts_of_source(texts(ids), matches)


@given(IDS)
def test_the_source_is_counted_by_its_ids(ids):
    named = [text.lstrip("0") for text in ids if text is not None]
    counts = counted(ids)
    assert (counts.source_records, counts.missing_ids) == (len(ids), ids.count(None))
    assert counts.source_duplicates == len(named) - len(set(named))


@given(IDS, st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_counts_of_the_source_add_up_over_any_deal_of_its_ids(ids, deal):
    """All records of an id go to one worker; those without one go to any."""
    worker = dict(zip([None, "1", "2", "3", "x"], deal, strict=True))
    parts = [[text for text in ids if worker[text and text.lstrip("0")] == number] for number in range(3)]
    assert sum(map(counted, parts), Counts()).to_data() == counted(ids).to_data()


@given(sides(), st.lists(st.integers(0, 8), max_size=3))
def test_coverage_adds_up_over_any_cut_of_the_records(both, cuts):
    records, rows, length = both
    columns = merged_columns(records, rows)
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    total, lines = Counts(), []
    for start, end in itertools.pairwise(edges):
        part = [{name: cells[start:end] for name, cells in side.items()} for side in (records, rows)]
        values, coverage = overlaid(*part, columns, end - start)
        total += Counts(coverage=coverage)
        lines += zip(*(value.to_pylist() for value in values), strict=True)
    values, coverage = overlaid(records, rows, columns, length)
    assert lines == list(zip(*(value.to_pylist() for value in values), strict=True))
    if length:
        assert total.coverage.tolist() == coverage.tolist()


@pytest.mark.parametrize("split", [1, 3, 7])
def test_columns_may_be_slices_of_larger_ones(split):
    """Engines cut what they hold into slices, whose memory begins elsewhere."""
    cells = [None, "a", "", None, "b", None, "c", "d"]
    ours, theirs = texts(cells).slice(split), texts(cells[::-1]).slice(split)
    [value], coverage = overlay({"v": ours}, {"v": theirs}, ("v",), len(cells) - split)
    expected = [our if our is not None else their for our, their in zip(cells, cells[::-1], strict=True)][split:]
    assert value.to_pylist() == expected
    assert coverage.sum() == len(cells) - split
