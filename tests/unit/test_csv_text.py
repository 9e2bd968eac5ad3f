"""Module `csv_text`: cells, lines and encodings, against the oracle and Python's csv module."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay import csv_text
from overlay.csv_text import content_type, csv_lines, encoded, header, text_bytes
from overlay.errors import OutputError
from overlay.settings import CHOICES, LINE_ENDINGS, CsvFormat, csv_format
from reference import oracle
from tests.texts import english_in

SPECIAL = "a,;\"\n\r\t'=+-@ NUL\x00あ😀"
CHARACTER = st.sampled_from(SPECIAL) | st.characters(exclude_categories=["Cs"])
CELL = st.none() | st.text(st.sampled_from(SPECIAL), max_size=6) | st.text(CHARACTER, max_size=4) | st.just("NULL")
PLAIN = st.none() | st.sampled_from(["0", "12.50", "2026-11-26", "AB-7", "東京"])
ROWS = st.one_of(
    st.lists(st.tuples(CELL, PLAIN, CELL), min_size=1, max_size=12),
    st.lists(st.tuples(PLAIN, PLAIN, PLAIN), min_size=1, max_size=12),
)
DELIMITERS = st.one_of(
    st.sampled_from(",;\t|^$.*\\[]-あ '"), st.characters(exclude_characters='"\r\n\0', exclude_categories=["Cs"])
)


@st.composite
def forms(draw) -> CsvFormat:
    """Any format that the settings allow."""
    delimiter = draw(DELIMITERS)
    null = draw(st.sampled_from(["", "", "NULL", "-", "\\N", "^", "a", "0"]) | st.text(CHARACTER, max_size=3))
    form = CsvFormat(
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig"])),
        delimiter=delimiter,
        line_ending=draw(st.sampled_from(list(LINE_ENDINGS))),
        quote=draw(st.sampled_from(CHOICES["csv_quote"])),
        null="" if set(null) & {delimiter, '"', "\r", "\n"} else null,
        escape_formulas=draw(st.booleans()),
    )
    options = {f"csv_{name}": str(value) for name, value in vars(form).items()}
    assert csv_format(options | {"csv_escape_formulas": str(form.escape_formulas).lower()}) == form
    return form


def columns_of(rows) -> list[pa.Array]:
    """Rows as columns of texts."""
    return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]


def text_of(columns: list[pa.Array], form: CsvFormat) -> str:
    """Columns as CSV text."""
    return "".join(csv_lines(columns, form).to_pylist())


def test_lines_agree_with_the_oracle_and_read_back(monkeypatch):
    """Both ways to write a column are tried: most have nothing to quote, which one look at all its bytes shows."""
    ways, is_plain = set(), csv_text._is_plain

    def spy(values: pa.Array, form: CsvFormat) -> bool:
        ways.add((is_plain(values, form), bool(form.null), bool(values.null_count)))
        return is_plain(values, form)

    monkeypatch.setattr(csv_text, "_is_plain", spy)

    @settings(max_examples=200)
    @given(rows=ROWS, form=forms(), offset=st.integers(0, 2))
    def agrees(rows, form, offset):
        columns = columns_of(rows[:offset] + rows)
        text = text_of([column.slice(len(column) - len(rows)) for column in columns], form)
        assert text == "".join(oracle.Csv(**vars(form)).line(row) for row in rows)
        if not form.escape_formulas:
            rows_read = list(csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter, strict=True))
            assert rows_read == [[form.null if cell is None else cell for cell in row] for row in rows]

    agrees()
    assert len(ways) == 8


@pytest.mark.parametrize(
    ("cells", "null", "plain"),
    [
        (["1", "x y", "東京"], "", True),
        (["1", None, "2"], "", True),
        (["1", None, "2"], "NULL", True),
        (["1", "", "2"], "", False),
        (["1", "", "2"], "NULL", False),
        (["1", "NULL"], "NULL", False),
        (["1", "NULLS"], "NULL", True),
        (["1", "a,b"], "", False),
        (["1", 'a"b'], "", False),
        (["1", "a\rb"], "", False),
        (["1", "a\nb"], "", False),
        ([None, None], "", True),
        ([], "", True),
    ],
)
def test_a_column_is_plain_where_no_cell_needs_quotes(cells, null, plain):
    column = pa.array(["a,b", *cells, ""], pa.string()).slice(1, len(cells))
    assert csv_text._is_plain(column, CsvFormat(null=null)) is plain


def test_missing_and_empty_stay_distinguishable():
    assert csv_lines([pa.nulls(1, pa.string()), pa.array([""])], CsvFormat()).to_pylist() == [',""\n']


@pytest.mark.parametrize("quote", ["minimal", "all"])
def test_no_line_is_blank(quote):
    """Readers skip such a line: of three records two would be read."""
    column = pa.array(["1", None, ""], pa.string())
    text = text_of([column], CsvFormat(quote=quote))
    assert text == "".join(oracle.Csv(quote=quote).line([cell]) for cell in column.to_pylist())
    assert list(csv.reader(io.StringIO(text))) == [["1"], [""], [""]]
    assert text_of([column], CsvFormat(null="-")).splitlines() == ["1", "-", '""']


@pytest.mark.parametrize("delimiter", list("|^$.*\\[]-あ \t'"))
def test_any_delimiter_is_quoted(delimiter):
    values = [f"a{delimiter}b", "a", delimiter]
    [line] = csv_lines([pa.array([value]) for value in values], CsvFormat(delimiter=delimiter)).to_pylist()
    assert line == delimiter.join([f'"a{delimiter}b"', "a", f'"{delimiter}"']) + "\n"


@given(st.lists(st.none() | st.text(CHARACTER, max_size=4)), st.integers(0, 3), st.integers(0, 3))
def test_the_bytes_of_texts_lie_back_to_back(texts, start, behind):
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(texts, kind).slice(start, max(len(texts) - start - behind, 0))
        assert bytes(text_bytes(array)) == "".join(filter(None, array.to_pylist())).encode()


@pytest.mark.parametrize("quote", ["minimal", "all"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_escaped_at_each_quote_setting(start, quote):
    form = CsvFormat(escape_formulas=True, quote=quote)
    reference = oracle.Csv(escape_formulas=True, quote=quote)
    cells = [f"{start}cmd|' /C calc'!A0", start, f'{start}a"b,c\nd', f"a{start}", "", None]
    [line] = csv_lines([pa.array([cell], pa.string()) for cell in cells], form).to_pylist()
    assert line == reference.line(cells)
    assert line.startswith(("'", "\"'"))


# The header, and encodings.


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-8", 'id,"a,b",名\n'.encode()),
        ("utf-8-sig", b"\xef\xbb\xbf" + 'id,"a,b",名\n'.encode()),
        ("cp932", 'id,"a,b",名\n'.encode("cp932")),
    ],
)
def test_the_header_has_the_byte_order_mark_and_the_encoding_of_the_output(encoding, data):
    assert header(["id", "a,b", "名"], CsvFormat(encoding=encoding)) == data


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lines_behind_the_header_have_no_byte_order_mark(encoding):
    assert encoded("髙橋,①\n".encode(), CsvFormat(encoding=encoding), ["a", "b"], 1) == "髙橋,①\n".encode()


def test_cp932_writes_what_it_has():
    assert encoded("髙橋,①\n".encode(), CsvFormat(encoding="cp932"), ["a", "b"], 1).decode("cp932") == "髙橋,①\n"


def test_the_media_type_names_the_charset_as_iana_does():
    assert content_type(CsvFormat()) == content_type(CsvFormat(encoding="utf-8-sig")) == "text/csv; charset=utf-8"
    assert content_type(CsvFormat(encoding="cp932")) == "text/csv; charset=windows-31j"


@pytest.mark.parametrize(
    ("text", "first_row", "row", "column"),
    [
        ("a,b\n1,x☃\n", 5, "row 6", "b"),
        ("☃,b\n", 1, "row 1", "a"),
        ('"x\n\n""y""",☃\n', 1, "row 1", "b"),
        ("a,☃\n", 0, "header", "b"),
    ],
)
def test_character_the_encoding_lacks_is_named(text, first_row, row, column):
    with pytest.raises(OutputError) as caught:
        encoded(text.encode(), CsvFormat(encoding="cp932"), ["a", "b"], first_row)
    assert str(caught.value) == (
        f"{row}, column {column!r}: cp932 has no character '☃' (U+2603). "
        "Replace the character at its origin, or set csv.encoding in configs.json (--csv_encoding) to utf-8-sig."
    )
    assert not english_in(caught.value)


def test_a_name_of_a_column_that_the_encoding_lacks_is_named():
    with pytest.raises(OutputError) as caught:
        header(["id", "☃"], CsvFormat(encoding="cp932"))
    assert str(caught.value).startswith("header, column '☃': cp932 has no character '☃' (U+2603).")


def is_in_cp932(text: str) -> bool:
    """Whether a text can be written in cp932."""
    try:
        text.encode("cp932")
    except UnicodeEncodeError:
        return False
    return True


@settings(max_examples=150)
@given(ROWS, forms(), st.integers(1, 10**9))
def test_the_first_character_the_encoding_lacks_is_named_by_row_and_column(rows, form, first_row):
    """The characters of the source stand in cells of any kind: quoted, with line breaks, beside missing ones."""
    if not is_in_cp932(form.delimiter + form.null):
        return
    form = CsvFormat(**{**vars(form), "encoding": "cp932"})
    lacking = [
        (first_row + number, name, character)
        for number, row in enumerate(rows)
        for name, cell in zip("abc", row, strict=True)
        for character in cell or ""
        if not is_in_cp932(character)
    ]
    text = text_of(columns_of(rows), form)
    if not lacking:
        assert encoded(text.encode(), form, ["a", "b", "c"], first_row) == text.encode("cp932")
        return
    with pytest.raises(OutputError) as caught:
        encoded(memoryview(text.encode()), form, ["a", "b", "c"], first_row)
    row, name, character = lacking[0]
    assert str(caught.value).startswith(
        f"row {row}, column {name!r}: cp932 has no character {character!r} (U+{ord(character):04X})."
    )
