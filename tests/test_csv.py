"""Section `csv`: cells, lines and encodings, against the oracle and Python's csv module."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glue_job import CsvFormat, OutputError, csv_line, encode_lines
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
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=TABLES)
def test_lines_agree_with_the_oracle_and_read_back(spark, form, table):
    from pyspark.sql import functions as F

    frame = spark.createDataFrame([(i, *row) for i, row in enumerate(table)], "i int, a string, b string, c string")
    lines = frame.select("i", csv_line([F.col("a"), F.col("b"), F.col("c")], form).alias("line")).collect()
    text = "".join(row.line for row in sorted(lines))
    assert text == "".join(oracle.Csv(**vars(form)).line(row) for row in table)
    if not form.escape_formulas:
        read = list(csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter, strict=True))
        assert read == [[form.null if cell is None else cell for cell in row] for row in table]


def test_missing_and_empty_stay_distinguishable(spark):
    from pyspark.sql import functions as F

    row = spark.range(1).select(csv_line([F.lit(None).cast("string"), F.lit("")], CsvFormat()).alias("line")).collect()
    assert row[0].line == ',""\n'


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
