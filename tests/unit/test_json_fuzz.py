"""Hostile files: whatever is in the source, the rows are right or the error names record and byte, as `json` judges."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay.errors import SourceError, phrase
from overlay.limits import Limits
from reference import oracle
from tests import figures
from tests.sources import FLAT, LIMITS, RECORDS, URL, Records, in_chunks, json_lines, present, read_records

BLANKS = b" \t\r\n"
TOKENS = [
    *(character.encode() for character in '{}[],:"\\\n\r\t -0\x00\x0b\xa0\u2028\ufeff'),
    *(b"\r\n", b"NaN", b"-Infinity", b"null", b"true", b"1e5", b".5", b'"id":1', b"\\ud800", b"\\u00"),
    *(b"},{", b"}\n{", b'{"id":2}', b"//", b"'", b"\xff", b"\xed\xa0\x80", b"\x1f\x8b"),
]
KINDS = ["cut", "end", "flip", "insert", "replace", "repeat", "double"]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.floats(0, 1), st.integers(1, 20), st.sampled_from(TOKENS), st.integers(1, 255)
    ),
    max_size=4,
)
FORMS = ["lines", "array", "indented", "gzip of lines", "gzip of an array"]


def edited(data: bytes, edits: Sequence[tuple[str, float, int, bytes, int]]) -> bytes:
    """The bytes after some mishaps."""
    for kind, share, length, token, number in edits:
        offset = int(share * len(data))
        before, edited_bytes, after = data[:offset], data[offset : offset + length], data[offset + length :]
        data = {
            "cut": before + after,
            "end": before,
            "flip": before + bytes(byte ^ number for byte in edited_bytes[:1]) + edited_bytes[1:] + after,
            "insert": before + token + edited_bytes + after,
            "replace": before + token + after,
            "repeat": before + edited_bytes + edited_bytes + after,
            "double": data + data,
        }[kind]
    return data


def written(records: Sequence[dict[str, Any]], form: str) -> bytes:
    """Writes records as an object in one of the forms."""
    if "array" in form or form == "indented":
        return json.dumps(records, ensure_ascii=False, indent=1 if form == "indented" else None).encode()
    return json_lines(records)


def refuse(constant: str) -> None:
    raise ValueError(constant)


def standard_reading(data: bytes) -> Records | None:
    """What the standard library makes of an object as a whole; None where it is malformed."""
    numbers: dict[str, Any] = {"parse_int": oracle.Number, "parse_float": oracle.Number, "parse_constant": refuse}
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode().removeprefix("\ufeff")
        body = text.strip(" \t\r\n")
        if body[:1] == "[":
            records = json.loads(body, **numbers)
        elif body[:1] in {"{", ""}:
            lines = (line.strip(" \t\r\n") for line in text.split("\n"))
            records = [json.loads(line, **numbers) for line in lines if line]
        else:
            return None
        if not all(isinstance(record, dict) for record in records):
            return None
        texts = [{name: oracle.text_of(value) for name, value in record.items()} for record in records]
        json.dumps(texts, ensure_ascii=False).encode()  # half a surrogate pair
    except (ValueError, EOFError, OSError, zlib.error):
        return None
    return [present(record) for record in texts]


def reading(data: bytes, range_bytes: int | None = None, limits: Limits = LIMITS) -> Records | dict[str, Any]:
    """What the job makes of an object, whole or cut: rows, or the details of its error. Nothing else passes."""
    try:
        return read_records(data, range_bytes, limits)
    except SourceError as error:
        assert {"url", "record", "offset"} <= error.details.keys()
        assert error.message("ja").cause != error.message("en").cause
        return error.details


def wrong_lines(data: bytes) -> set[int]:
    """The lines that are no records, from 0."""
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    # Behind a line break a line is neither gzip nor does it begin with a byte order mark.
    return {
        n
        for n, line in lines
        if line.strip(BLANKS) and (line.lstrip(BLANKS)[:1] != b"{" or not standard_reading(b"\n" + line))
    }


def records_before(data: bytes, offset: int) -> int:
    """The lines with something on them before the line of an offset."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    lines = text[: offset - len(data) + len(text)].split(b"\n")[:-1]
    return sum(1 for line in lines if line.strip(BLANKS))


OUTCOMES: list[str] = []


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(
    RECORDS | FLAT, st.sampled_from(FORMS), EDITS, st.booleans(), st.integers(1, 60), st.sampled_from([16, 50, 4096])
)
def test_what_is_read_is_right_or_refused_whole_or_cut(records, form, edits, inside, range_bytes, chunk_bytes):
    data = written(records, form)
    if form.startswith("gzip"):
        data = gzip.compress(edited(data, edits)) if inside else edited(gzip.compress(data, mtime=0), edits)
    else:
        data = edited(data, edits)
    expected = standard_reading(data)
    OUTCOMES.append("malformed" if expected is None else "rows")
    limits = in_chunks(chunk_bytes, arrow_misses_max=1_000)
    whole = reading(data, limits=limits)
    if expected is None:
        assert isinstance(whole, dict), "malformed, but read"
        assert data[:2] == b"\x1f\x8b" or 0 <= whole["offset"] <= len(data)
    else:
        assert whole == expected
    body = data.removeprefix(b"\xef\xbb\xbf").lstrip(BLANKS)
    if body[:1] == b"{":
        # What is cut has its first byte in the first range (objects.cut_ranges).
        cut = reading(data, range_bytes + len(data) - len(body), limits)
        wrong = wrong_lines(data)
        assert cut == whole or len(wrong) > 1  # of several errors either may be raised
        for details in (whole, cut):
            if isinstance(details, dict):
                assert data[: details["offset"]].count(b"\n") in wrong
                assert details["record"] == records_before(data, details["offset"]) + 1


def test_figures_of_the_fuzzing():
    """Both outcomes were seen; runs after the fuzzing."""
    assert OUTCOMES.count("malformed") > 50
    assert OUTCOMES.count("rows") > 50
    right, malformed = OUTCOMES.count("rows"), OUTCOMES.count("malformed")
    figures.record("hostile", "mutated JSON, JSON Lines and gzip: right rows", outcome="rows", inputs=right)
    figures.record(
        "hostile",
        "mutated JSON, JSON Lines and gzip: malformed",
        outcome="error with record and byte offset",
        inputs=malformed,
    )


DEEP = 10_000


@pytest.mark.parametrize(
    ("data", "record", "offset"),
    [
        (b"[" * DEEP + b"]" * DEEP, 1, 1),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 1, 0),
        (b'[{"a":' * DEEP + b"1" + b"}]" * DEEP, 1, 1),
        (b'{"id":1}\n{"id":2,"a":' + b"[" * DEEP + b"]" * DEEP + b"}", 2, 9),
        (b'[{"id":1},{"id":2,"a":' + b'{"b":' * DEEP + b"0" + b"}" * (DEEP + 1) + b"]", 2, 10),
    ],
)
def test_what_nests_too_deeply_is_refused(data, record, offset):
    details = reading(data)
    assert (details["record"], details["offset"], details["problem"]) == (record, offset, phrase("nested"))


@pytest.mark.parametrize("depth", [10, 100, 300])
def test_what_nests_less_is_read(depth):
    value = "[" * depth + "]" * depth
    assert read_records(f'{{"id":1,"a":{value}}}'.encode()) == [{"id": "1", "a": value}]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"id":1,"id":2,"a":"x","a":null}', [{"id": "2"}]),  # as JSON's parsers do: the last one counts
        ('{"id":1}\r\n{"id":2}\n\r\n{"id":3}\r\n', [{"id": "1"}, {"id": "2"}, {"id": "3"}]),
        ('{"id":"a\u2028b\u2029c\x85d"}\n{"id":2}', [{"id": "a\u2028b\u2029c\x85d"}, {"id": "2"}]),
        ('{"id":"\\u0000"}', [{"id": "\x00"}]),
        ('{"":1," ":2,"id ":3,"\\u0000":4}', [{"": "1", " ": "2", "id ": "3", "\x00": "4"}]),
        ('{"id":"\\ud83d\\ude00"}', [{"id": "😀"}]),
        ('{"id":' + "9" * 5_000 + "}", [{"id": "9" * 5_000}]),  # int() of Python refuses so many digits
        ('{"id":-0,"a":-0.0e-0}', [{"id": "-0", "a": "-0.0e-0"}]),
    ],
)
def test_unusual_but_right(data, expected):
    assert read_records(data.encode()) == expected


@pytest.mark.parametrize(
    ("data", "record", "offset", "problem"),
    [
        (b'{"id":1}\r{"id":2}', 1, 0, "more than one value on the line"),  # line endings of old Macs
        (b'[{"id":Infinity}]', 1, 1, "Infinity is not JSON"),
        (b'[{"id":1}][{"id":2}]', 2, 10, "something follows the end of the array"),
        (b'{"id":1}{"id":2}\n', 1, 0, "more than one value on the line"),
        (b'{"id":1}\n{"\\ud800":2}', 2, 9, "half a surrogate pair in the name '\\ud800'"),
        (b'{"id":["\\udfff"]}', 1, 0, "half a surrogate pair in 'id'"),
        (b'{"id":"\x00"}', 1, 7, "Invalid control character"),
        (b'{"id":1}\n\x00', 2, 9, "expected a value"),
        ('{"id":1}'.encode("utf-16"), 1, 0, "it begins with b'\\xff\\xfe{"),
        ('[{"id":1}]'.encode("utf-16-be"), 1, 0, "it begins with b'\\x00["),
        (b"PAR1\x15\x04\x15\x10", 1, 0, "it begins with b'PAR1"),
        (b"PK\x03\x04", 1, 0, "it begins with b'PK"),
        (b"<!DOCTYPE html><html>", 1, 0, "it begins with b'<!DOCTYPE html>"),
        (b"id,name\n1,a\n", 1, 0, "it begins with b'id,name"),
        (gzip.compress(b'{"id":1}\n', mtime=0) + b"trailing", 1, 37, "broken gzip file"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 1, 0, "it begins with b'\\x1f\\x8b"),
    ],
)
def test_malformed_is_named_with_record_and_offset(data, record, offset, problem):
    details = reading(data)
    assert (details["url"], details["record"], details["offset"]) == (URL, record, offset)
    assert details["problem"].text("en").startswith(problem)
