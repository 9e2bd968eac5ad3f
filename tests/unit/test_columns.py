"""source.columns: every value is the text that the source has, in columns in the order they first appear."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import SourceError
from overlay.source.columns import record_batches
from tests.sources import LIMITS, RECORDS, expected_records, in_chunks, json_lines, present, read_records, reader


@given(st.lists(RECORDS, min_size=1, max_size=3), st.integers(16, 60) | st.just(4096))
def test_batches_of_several_ranges_have_ever_more_columns_in_order(files, chunk_bytes):
    limits = in_chunks(chunk_bytes)
    files = [[{}], *files]  # a record without a key
    batches = list(record_batches([reader(json_lines(records), limits=limits) for records in files]))
    names: list[str] = []
    for batch in batches:
        assert batch.num_rows
        assert batch.schema.names[: len(names)] == names
        assert set(batch.schema.types) <= {pa.string()}
        names = batch.schema.names
    assert names == list(dict.fromkeys(name for records in files for record in records for name in record))
    rows = [present(row) for batch in batches for row in batch.to_pylist()]
    assert rows == [row for records in files for row in expected_records(json_lines(records))]


def test_records_without_a_key_are_counted():
    [batch] = record_batches([reader(b"[{},{},{}]")])
    assert (batch.num_rows, batch.num_columns) == (3, 0)
    assert list(record_batches([reader(b"[]"), reader(b"\n\n")])) == []


def test_number_literals_are_kept():
    data = b'{"id":1.10,"a":12345678901234567890,"b":1e400,"c":-0.0,"d":[1.10,{"e":1E5}]}'
    assert read_records(data) == [
        {"id": "1.10", "a": "12345678901234567890", "b": "1e400", "c": "-0.0", "d": '[1.10,{"e":1E5}]'}
    ]


def test_nested_values_are_compact_and_readable():
    data = b'{"id":1,"a":{ "b" : [ 1, null, true, "\\u3042\\n\\"" ] },"c":[],"d":{}}'
    assert read_records(data) == [{"id": "1", "a": '{"b":[1,null,true,"あ\\n\\""]}', "c": "[]", "d": "{}"}]


def test_present_is_not_missing():
    assert read_records(b'{"id":"","a":0,"b":false,"c":[],"d":null}') == [{"id": "", "a": "0", "b": "false", "c": "[]"}]


def test_numbers_in_nested_values_stay_unquoted_from_the_first_nested_value_on():
    """Numbers are strings until one lies in a nested value: the chunk is parsed again, the next ones are marked."""
    records = [{"id": 1, "a": "1"}, {"id": 2, "a": {"n": 1.10, "s": "1.10"}}, {"id": 3, "a": [2, "2"]}]
    data = json_lines(records * 30).replace(b"1.1,", b"1.10,")
    texts = ["1", '{"n":1.10,"s":"1.10"}', '[2,"2"]'] * 30
    for chunk_bytes in (60, LIMITS.chunk_bytes):
        assert [row["a"] for row in read_records(data, limits=in_chunks(chunk_bytes))] == texts


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"id": "\ud800"}, "half a surrogate pair in 'id'"),
        ({"id": ["\udfff"]}, "half a surrogate pair in 'id'"),
        ({"id": 1, "a\udc00": 2}, "half a surrogate pair in the name 'a\\udc00'"),
    ],
)
def test_what_no_encoding_can_write_is_refused_with_its_record(record, problem):
    data = ("\n".join(['{"id":"あ"}'] * 3) + "\n" + json.dumps(record)).encode()
    with pytest.raises(SourceError) as caught:
        read_records(data)
    assert (caught.value.details["record"], caught.value.details["offset"]) == (4, 3 * 13)
    assert problem in caught.value.message("en").cause
