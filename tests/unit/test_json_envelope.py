"""source.json_array: the records of an array within an object, and errors where there is none."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import SourceError
from overlay.source.objects import SourceObject, cut_ranges
from tests.sources import FLAT, JSON, LIMITS, RECORDS, Store, expected_records, in_chunks, read_records
from tests.texts import english_in

CHUNKS = st.integers(16, 60) | st.just(4096)
OTHERS = st.dictionaries(st.sampled_from(["total", "次", "a.b", ""]), JSON, max_size=3)


@given(RECORDS | FLAT, OTHERS, OTHERS, st.integers(1, 3), st.sampled_from([None, 1]), st.booleans(), CHUNKS)
def test_the_records_of_an_envelope_are_those_of_its_array(records, before, behind, depth, indent, zipped, chunk_bytes):
    names = ["data", "items", "records"][:depth]
    value = records
    for name in reversed(names):
        value = {**before, name: value, **{f"{other}_": inner for other, inner in behind.items()}}
    data = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    stored = gzip.compress(data) if zipped else b"\xef\xbb\xbf \n" + data
    expected = expected_records(json.dumps(records).encode())
    assert read_records(stored, limits=in_chunks(chunk_bytes), records_at=".".join(names)) == expected


MISSING = {
    "another name": ('{"data": [{"id": 1}], "n": 1}', "records", "no 'records' among its names: data, n"),
    "an empty object": ("{}", "records", "no 'records' among its names: "),
    "null": ('{"records": null}', "records", "'records' is null"),
    "an object": ('{"records": {"id": 1}}', "records", "'records' is an object"),
    "a text": ('{"records": "x"}', "records", "'records' is a string or number"),
    "a name within": ('{"data": {"items": []}}', "data.records", "no 'records' among its names: items"),
    "an array on the way": ('{"data": [{"items": []}]}', "data.items", "'data' is an array, not an object"),
}


@pytest.mark.parametrize("case", MISSING)
@pytest.mark.parametrize("chunk_bytes", [1, 4096])
def test_a_path_without_an_array(case, chunk_bytes):
    data, path, problem = MISSING[case]
    with pytest.raises(SourceError) as caught:
        read_records(data.encode(), limits=in_chunks(chunk_bytes), records_at=path)
    assert str(caught.value) == (
        f"No array of records at '{path}' in s3://lake/a: {problem}. "
        "Correct S3.records_at in configs.json (--records_at): names from the outside in, joined by dots."
    )
    assert not english_in(caught.value)


MALFORMED = {
    "an array alone": ('[{"id": 1}]', 1, 0, "expected { in the object around the records (S3.records_at)"),
    "lines": ('{"records": [{"id": 1}]}\n{"records": []}', 2, 25, "something follows the end of the array"),
    "no comma": ('{"records": [{"id": 1}] "n": 1}', 2, 24, "expected , } in the object around the records"),
    "no colon": ('{"records" [{"id": 1}]}', 1, 11, "expected : in the object around the records"),
    "a bare name": ('{records: [{"id": 1}]}', 1, 1, 'expected " in the object around the records'),
    "the array twice": ('{"records": [{"id": 1}], "records": []}', 2, 25, "'records' is there twice"),
    "an end in the array": ('{"records": [{"id": 1},', 2, 23, "the file ends inside an array or object"),
    "an end behind the array": ('{"records": [{"id": 1}]', 2, 23, "the file ends inside an array or object"),
    "an end before the array": ('{"n": [1, ', 1, 10, "the file ends inside an array or object"),
    "a comma too many": ('{"records": [{"id": 1},]}', 2, 23, "xpect"),
    "a value that is none": ('{"n": nul, "records": []}', 1, 6, "expected a value"),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("chunk_bytes", [1, 4096])
def test_malformed_envelopes_name_the_byte(case, chunk_bytes):
    data, record, offset, problem = MALFORMED[case]
    with pytest.raises(SourceError) as caught:
        read_records(data.encode(), limits=in_chunks(chunk_bytes), records_at="records")
    message = str(caught.value)
    assert message.startswith(f"Malformed JSON in s3://lake/a, record {record}, byte offset {offset}: ")
    assert problem in message
    assert not english_in(caught.value)


def test_an_envelope_is_one_range():
    data = json.dumps({"records": [{"id": number} for number in range(100)]}).encode()
    item = SourceObject("lake", "a", len(data), "etag", "records")
    limits = in_chunks(64, range_bytes_min=10, range_bytes_max=10)
    assert [[item.end for item in group] for group in cut_ranges(Store(a=data), [item], 2, limits)] == [[None]]
    assert len(cut_ranges(Store(a=data), [item._replace(records_at="")], 2, limits)) > 1


def test_large_members_around_the_records_are_no_records():
    data = json.dumps({"n": "x" * 10_000, "records": [{"id": 1}], "m": list(range(5_000))}).encode()
    assert read_records(data, limits=in_chunks(100), records_at="records") == [{"id": "1"}]
    assert read_records(data, limits=LIMITS, records_at="records") == [{"id": "1"}]
