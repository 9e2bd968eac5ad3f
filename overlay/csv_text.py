"""CSV text: columns of values in, lines in the encoding of the output out (RFC 4180; docs/merge-rules.en.md)."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from overlay.errors import OutputError, Verbatim, phrase
from overlay.settings import LINE_ENDINGS, CsvFormat

# What a spreadsheet takes as the beginning of a formula (OWASP, CSV injection).
_FORMULA = r"^[=+\-@\t\r]"
_CHARSETS = {"cp932": "windows-31j"}  # of the media type; IANA knows cp932 by this name


def content_type(form: CsvFormat) -> str:
    """The media type of the output."""
    return f"text/csv; charset={_CHARSETS.get(form.encoding, 'utf-8')}"


def csv_cells(values: pa.Array, form: CsvFormat) -> pa.Array:
    """Values as CSV cells: quoted only where needed, missing as `form.null`, present but empty as `""`."""
    if form.escape_formulas:
        risky = pc.fill_null(pc.match_substring_regex(values, _FORMULA), False)
        values = pc.if_else(risky, pc.binary_join_element_wise("'", values, ""), values)
    if form.quote == "all":
        needs_quotes = pc.is_valid(values)
    elif _is_plain(values, form):
        return pc.fill_null(values, form.null) if values.null_count else values
    else:
        special = f'["\r\n{re.escape(form.delimiter)}]|^$|^{re.escape(form.null)}$'
        needs_quotes = pc.fill_null(pc.match_substring_regex(values, special), False)
    if needs_quotes.true_count:
        quoted = pc.binary_join_element_wise('"', pc.replace_substring(values, '"', '""'), '"', "")
        values = pc.if_else(needs_quotes, quoted, values)
    return pc.fill_null(values, form.null)


def _is_plain(values: pa.Array, form: CsvFormat) -> bool:
    """Whether no value needs quotes, by a look at the bytes of all: most columns are numbers, dates, codes.

    A regular expression for each cell takes a third of the time of a run with a million records; one for all bytes
    takes twenty times as long as a search for each byte.
    """
    data = bytes(text_bytes(values))
    if any(special in data for special in (b'"', b"\r", b"\n", form.delimiter.encode())):
        return False
    if form.null and pc.any(pc.equal(values, form.null)).as_py():
        return False
    return not pc.any(pc.equal(pc.binary_length(values), 0)).as_py()


def text_bytes(texts: pa.Array) -> memoryview:
    """The texts of a string array back to back, as Arrow keeps them; a null has no bytes."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return memoryview(b"")
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(offsets, width)
    return memoryview(data)[ends[texts.offset] : ends[texts.offset + len(texts)]]


def csv_lines(columns: Sequence[pa.Array], form: CsvFormat) -> pa.Array:
    """Columns of values as CSV lines with their line endings.

    No line is blank, as readers skip those: a missing value that is all of a line is written as `""`.
    """
    cells = [csv_cells(values, form) for values in columns]
    if len(cells) == 1 and not form.null:
        cells = [pc.if_else(pc.is_valid(columns[0]), cells[0], '""')]
    cells[-1] = pc.binary_join_element_wise(cells[-1], LINE_ENDINGS[form.line_ending], "")
    return pc.binary_join_element_wise(*cells, form.delimiter)


def header(columns: Sequence[str], form: CsvFormat) -> bytes:
    """The header line as it stands in the output, behind a byte order mark where the encoding has one.

    Raises:
        OutputError: a character of a name does not exist in the encoding.
    """
    line = csv_lines([pa.array([name]) for name in columns], form)
    mark = codecs.BOM_UTF8 if form.encoding == "utf-8-sig" else b""
    return mark + encoded(text_bytes(line), form, columns, 0)


def encoded(data: Any, form: CsvFormat, columns: Sequence[str], first_row: int) -> bytes:
    """Whole CSV lines in UTF-8, the first of which has a number (0 is the header), in the encoding of the output.

    Raises:
        OutputError: a character does not exist there; names the row and the column.
    """
    if form.codec == "utf-8":
        return bytes(data)
    text = str(data, "utf-8")
    try:
        return text.encode(form.codec)
    except UnicodeEncodeError as error:
        raise _not_encodable(text, error.start, form, columns, first_row) from None


def _not_encodable(text: str, at: int, form: CsvFormat, columns: Sequence[str], first_row: int) -> OutputError:
    """The error for the character at a position of CSV lines: a reader of CSV tells its row and column."""
    csv.field_size_limit(sys.maxsize)
    rows = list(csv.reader(io.StringIO(text[: at + 1], newline=""), delimiter=form.delimiter))
    number = first_row + len(rows) - 1
    return OutputError(
        "not_encodable",
        row=phrase("row", number=number) if number else phrase("header"),
        column=Verbatim(columns[len(rows[-1]) - 1]),
        encoding=Verbatim(form.encoding),
        character=Verbatim(text[at]),
        codepoint=Verbatim(f"{ord(text[at]):04X}"),
    )
