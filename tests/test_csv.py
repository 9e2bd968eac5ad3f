"""Section `csv`: cells, lines and encodings, against the oracle and Python's csv module."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glue_job import CsvFormat, OutputError, csv_lines, encode_lines
from tests import oracle

FORMATS = [
    CsvFormat(),
    CsvFormat(delimiter="\t", line_ending="crlf"),
    CsvFormat(quote="all"),
    CsvFormat(null="NULL", delimiter=";"),
    CsvFormat(escape_formulas=True),
]
CELL = st.none() | st.text(st.sampled_from("a,;\"\n\r\t'=+-@ NUL\x00あ😀"), max_size=6) | st.just("NULL")
TABLES = st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=20)


@pytest.mark.parametrize("form", FORMATS, ids=repr)
@settings(max_examples=200)
@given(table=TABLES)
def test_lines_agree_with_the_oracle_and_read_back(form, table):
    columns = [pa.array(column, pa.string()) for column in zip(*table, strict=True)]
    text = "".join(csv_lines(columns, form).to_pylist())
    assert text == "".join(oracle.Csv(**vars(form)).line(row) for row in table)
    if not form.escape_formulas:
        read = list(csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter, strict=True))
        assert read == [[form.null if cell is None else cell for cell in row] for row in table]


def test_missing_and_empty_stay_distinguishable():
    assert csv_lines([pa.nulls(1, pa.string()), pa.array([""])], CsvFormat()).to_pylist() == [',""\n']


@pytest.mark.parametrize("delimiter", list("|^$.*\\[]-あ \t'"))
def test_any_delimiter_is_quoted(delimiter):
    values = [f"a{delimiter}b", "a", delimiter]
    [line] = csv_lines([pa.array([value]) for value in values], CsvFormat(delimiter=delimiter)).to_pylist()
    assert line == delimiter.join([f'"a{delimiter}b"', "a", f'"{delimiter}"']) + "\n"


def test_cp932_writes_what_it_has():
    assert encode_lines("髙橋,①\n".encode(), CsvFormat(encoding="cp932"), ["a", "b"], 1).decode("cp932") == "髙橋,①\n"


@pytest.mark.parametrize(
    ("text", "first_row", "place", "column"),
    [
        ("a,b\n1,x☃\n", 5, "row 6", "b"),
        ("☃,b\n", 1, "row 1", "a"),
        ('"x\n\n""y""",☃\n', 1, "row 1", "b"),
        ("a,☃\n", 0, "header", "b"),
    ],
)
def test_character_the_encoding_lacks_is_named(text, first_row, place, column):
    with pytest.raises(OutputError) as caught:
        encode_lines(text.encode(), CsvFormat(encoding="cp932"), ["a", "b"], first_row)
    assert str(caught.value) == (
        f"{place}, column {column!r}: cp932 has no character '☃' (U+2603). "
        "Replace the character at its origin, or set --csv_encoding to utf-8 or utf-8-sig."
    )
