"""source.json_reader: records, positions, and errors that name record and byte, whatever the size of a chunk."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import SourceError
from overlay.limits import MIB
from tests.sources import LIMITS, RECORDS, URL, expected_records, in_chunks, json_lines, read_records, reader
from tests.texts import english_in

CHUNKS = st.integers(16, 60) | st.just(4096)  # bytes: most cut records, tokens and characters


@given(RECORDS, st.integers(1, 60), st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n "]), CHUNKS)
def test_lines_are_read_the_same_however_they_are_cut(records, range_bytes, separator, chunk_bytes):
    data = json_lines(records, separator)
    assert read_records(data) == expected_records(data)
    assert read_records(data, range_bytes, in_chunks(chunk_bytes)) == expected_records(data)


@given(RECORDS, st.sampled_from([None, 1, "\t"]), st.sampled_from(["", "\ufeff", "\ufeff\n "]), st.booleans(), CHUNKS)
def test_arrays_are_read_whatever_the_size_of_a_chunk(records, indent, beginning, zipped, chunk_bytes):
    data = (beginning + json.dumps(records, ensure_ascii=False, indent=indent)).encode()
    stored = gzip.compress(data) if zipped else data
    assert read_records(stored, limits=in_chunks(chunk_bytes)) == expected_records(data)


# Texts that look like boundaries between records, and records that are no objects of their own.
LOOKALIKES = {
    "records in a text": json.dumps([{"id": i, "note": '{"a":1},{"id":2}' * 9} for i in range(50)]),
    "boundaries in a text": json.dumps([{"id": i, "note": "},{" * 30} for i in range(50)]),
    "records in a record": json.dumps([{"id": i, "parts": [{"a": 1}, {"b": 2}, {"c": 3}]} for i in range(50)]),
    "an end that is missing": json.dumps([{"id": i} for i in range(50)])[:-9],
    "something behind the end": json.dumps([{"id": i} for i in range(50)]) + "x",
    "a comma before the end": json.dumps([{"id": i} for i in range(50)])[:-1] + ",]",
    "a number among the records": json.dumps([*({"id": i} for i in range(50)), 5]),
    "more arrays": "[" + ",".join(['{"id":1}'] * 50) + '] [{"id":2},{"id":3}]' * 50,
}


@pytest.mark.parametrize("case", LOOKALIKES)
@pytest.mark.parametrize("chunk_bytes", [20, 64, 300])
def test_what_looks_like_a_boundary_is_none(case, chunk_bytes):
    data = LOOKALIKES[case].encode()
    limits = in_chunks(chunk_bytes, arrow_misses_max=1_000)
    if data.endswith(b"}]") and case != "more arrays":
        assert read_records(data, limits=limits) == expected_records(data)
    else:
        with pytest.raises(SourceError):
            read_records(data, limits=limits)


@pytest.mark.parametrize(
    "data",
    [
        b'[{"id":1},\n\n\n\n',
        b'[{"id":1},{"id":2},   ]',
        b'[{"id":1},{"id":2},\n   x',
        b"[      \n",
        b"[{},       5]",
    ],
)
@pytest.mark.parametrize("chunk_bytes", range(1, 20))
def test_an_array_that_ends_after_a_comma_is_never_complete(data, chunk_bytes):
    with pytest.raises(SourceError) as caught:
        read_records(data, limits=in_chunks(chunk_bytes))
    with pytest.raises(SourceError) as whole:
        read_records(data)
    assert caught.value.details == whole.value.details


def test_a_key_of_the_last_record_is_read():
    data = json_lines([{"id": 1}] * 5000 + [{"late": 1, "id": 2}])
    assert read_records(data)[-1] == {"id": "2", "late": "1"}


def test_concatenated_gzip_members_are_one_file():
    assert len(read_records(gzip.compress(b'{"id":1}\n') + gzip.compress(b'{"id":2}\n'))) == 2


INDENTED = "an object over several lines; if it holds an array of records, S3.records_at (--records_at) reads it"


@pytest.mark.parametrize("range_bytes", [None, 5])
@pytest.mark.parametrize(
    ("data", "record", "offset", "problem"),
    [
        (b'{"id":1}\n{"id":tru}\n', 2, 15, "expected a value"),
        (b'{"id":1}\n\n{"id":2', 2, 17, "the line ends inside the record"),
        (b'{"id":1}\n{"id":NaN}', 2, 9, "NaN is not JSON"),
        (b'{"id":1}\n{"id":-Infinity}', 2, 9, "-Infinity is not JSON"),
        (b'{\n"id":1}', 1, 1, INDENTED),
        (b'{\r\n  "records": [\r\n    {"id": 1}\r\n  ]\r\n}', 1, 2, INDENTED),  # the envelope of an export
        (b'{"id":1} {"id":2}', 1, 0, "more than one value on the line"),
        (b'{"id":1}\n{"id":"\xff"}', 2, 16, "not UTF-8 (invalid start byte)"),
        (b'{"id":1}\n{"id":"\\ud800"}', 2, 9, "half a surrogate pair in 'id'"),
        (b'{"id":1}\n{"id":"a\tb"}', 2, 17, "Invalid control character at"),
        (b'{"id":1,}', 1, 8, "Expecting property name enclosed in double quotes"),
    ],
)
def test_malformed_lines_name_record_and_offset(data, record, offset, problem, range_bytes):
    with pytest.raises(SourceError) as caught:
        read_records(data, range_bytes)
    assert str(caught.value) == (
        f"Malformed JSON in {URL}, record {record}, byte offset {offset}: {problem}. "
        "Correct the file (an array of objects, or one object per line) and run the job again."
    )
    assert not english_in(caught.value)


@pytest.mark.parametrize("chunk_bytes", [16, LIMITS.chunk_bytes])
@pytest.mark.parametrize(
    ("data", "record", "offset", "problem"),
    [
        (b'[{"id":1},]', 2, 10, "expected a value"),
        (b'[{"id":1} {"id":2}]', 2, 10, "expected ',' or ']' after a record"),
        (b'[{"id":1},{"id":2', 2, 17, "the file ends inside an array or object"),
        (b'[{"id":1}', 2, 9, "the file ends inside an array or object"),
        (b'[{"id":1}] {"id":2}', 2, 11, "something follows the end of the array"),
        ('[{"id":"あ"},{"id":"'.encode() + b'\xff"}]', 2, 21, "not UTF-8 (invalid start byte)"),
        (b'[{"id":1}]\xff', 2, 10, "not UTF-8 (invalid start byte)"),
        (b'[{"id":' + b"[" * 5000 + b"]" * 5000 + b"}]", 1, 1, "nested too deeply"),
        (b"<html></html>", 1, 0, "it begins with b'<html></html>', expected '[' or '{'"),
        (b"PAR1", 1, 0, "it begins with b'PAR1', expected '[' or '{'"),
    ],
)
def test_malformed_arrays_name_record_and_offset(data, record, offset, problem, chunk_bytes):
    with pytest.raises(SourceError) as caught:
        read_records(data, limits=in_chunks(chunk_bytes))
    assert f"Malformed JSON in {URL}, record {record}, byte offset {offset}: {problem}." in str(caught.value)
    assert not english_in(caught.value)


def test_broken_gzip_is_named():
    with pytest.raises(SourceError, match="broken gzip file") as caught:
        read_records(gzip.compress(json_lines([{"id": i} for i in range(100)]))[:-9])
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    ("data", "record", "offset", "kind"),
    [
        (b'{"id":1}\n[1]', 2, 9, "an array"),
        (b'{"id":1}\n"x"', 2, 9, "a string or number"),
        (b'[{"id":1},null]', 2, 10, "null"),
        (b"[[1]]", 1, 1, "an array"),
        (b"[{},true]", 2, 4, "a boolean"),
    ],
)
def test_record_that_is_not_an_object_is_named(data, record, offset, kind):
    with pytest.raises(SourceError) as caught:
        read_records(data)
    assert str(caught.value) == (
        f"Record {record} of {URL} (byte offset {offset}) is {kind}, not an object. Every record must be a JSON object."
    )


@pytest.mark.parametrize("beginning", [b'{"id":"', b'[{"id":"'])
def test_a_record_larger_than_the_bound_is_refused(beginning):
    with pytest.raises(SourceError, match="a record is larger than 1 MiB"):
        read_records(beginning + b"x" * 12 * MIB, limits=replace(LIMITS, record_bytes_max=MIB))


@pytest.mark.parametrize("form", ["lines", "array", "indented array"])
def test_a_chunk_is_in_memory_at_a_time(form):
    records = [{"id": i, "note": "x" * 90} for i in range(5_000)]
    array = json.dumps(records, indent=None if form == "array" else 1).encode()
    data = json_lines(records) if form == "lines" else array
    chunks = reader(data, limits=in_chunks(4_000)).chunks()
    sizes = [chunk.size for chunk in chunks]
    assert sum(sizes) == 5_000
    assert max(sizes) <= 4_000 * 2 // 100
