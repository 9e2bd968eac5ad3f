"""Section `source`: records, positions and errors with their place, without Spark."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import (
    Piece,
    PieceReader,
    SourceError,
    SourceObject,
    SourceTask,
    follow_each_other,
    is_source_key,
    parse_alike,
    plan_splits,
    read_split,
    same_integer,
)
from tests import oracle
from tests.test_errors import english_in

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abé"', max_size=3), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "a", "b", "列"]), JSON, max_size=4), min_size=1, max_size=12)


class Store:
    """The one call the reader makes, over bytes in memory."""

    def __init__(self, **objects: bytes):
        self.objects = objects
        self.read = 0  # bytes

    def get_object(self, Bucket: str, Key: str, Range: str, IfMatch: str) -> dict:
        start, end = map(int, Range.removeprefix("bytes=").split("-"))
        self.read += end + 1 - start
        return {"Body": io.BytesIO(self.objects[Key][start : end + 1])}


def item(data: bytes) -> SourceObject:
    """The object that `rows` reads."""
    return SourceObject("lake", "a", len(data), "etag")


def rows(data: bytes, split_bytes: int | None = None, *, integer: bool = False) -> list[dict[str, str | None]]:
    """The records of an object as the job reads them: column name to text."""
    pieces = pieces_of(data, split_bytes) if split_bytes else [Piece(item(data), 0, None)]
    return [record for piece in pieces for record in piece_rows(PieceReader(Store(a=data), piece), integer=integer)]


def pieces_of(data: bytes, step: int, *, of_array: bool = False) -> list[Piece]:
    """An object cut by bytes."""
    starts = range(0, len(data), step)
    return [Piece(item(data), start, min(start + step, len(data)), of_array) for start in starts]


def piece_rows(reader: PieceReader, *, integer: bool = False) -> list[dict[str, str]]:
    """The records of a piece: column name to text."""
    columns: dict[str, int] = {}
    found = []
    for batch in read_split([reader], 0, SourceTask([], "id", integer, "nonce", 1, None), columns):
        found += [dict(zip(columns, list(record.values())[2:], strict=False)) for record in batch.to_pylist()]
    return [{name: text for name, text in record.items() if text is not None} for record in found]


def cut_array_rows(data: bytes, step: int) -> list[dict[str, str]] | None:
    """The records of an array that is cut; None when it must be read in one piece."""
    pieces = pieces_of(data, step, of_array=True)
    found, summaries = [], []
    for piece in pieces:
        reader = PieceReader(Store(a=data), piece)
        try:
            found += piece_rows(reader)
        except SourceError:
            reader.span = None
        summaries.append({"span": reader.span})
    return found if follow_each_other([[piece] for piece in pieces], summaries) else None


def expected(data: bytes) -> list[dict[str, str]]:
    """The same by the oracle."""
    texts = ({name: oracle.text_of(value) for name, value in record.items()} for record in oracle.records_of(data))
    return [{name: text for name, text in record.items() if text is not None} for record in texts]


def lines(records: list[dict]) -> bytes:
    """Records as JSON Lines."""
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


@given(RECORDS, st.integers(1, 60), st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n "]))
def test_lines_are_read_the_same_however_they_are_split(records, split_bytes, separator):
    data = separator.join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    assert rows(data) == expected(data)
    assert rows(data, split_bytes) == expected(data)


@given(RECORDS, st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans(), st.integers(16, 60))
def test_arrays_are_read_whatever_the_block_size(records, indent, bom, zipped, block):
    data = json.dumps(records, ensure_ascii=False, indent=indent).encode("utf-8-sig" if bom else "utf-8")
    expect = expected(data)
    data = gzip.compress(data) if zipped else data
    before = glue_job.BLOCK_BYTES
    glue_job.BLOCK_BYTES = block
    try:
        assert rows(data) == expect
    finally:
        glue_job.BLOCK_BYTES = before


FLAT = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers(-(2**63), 2**63 - 1) | st.none(),
            "a": st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
            "列": st.integers(-9, 9) | st.sampled_from([2**63, 1.5, True, "1", [1], {"a": 0}]),
        },
    ),
    max_size=12,
)


@given(FLAT, FLAT, st.integers(1, 200), st.sampled_from([" ", ""]))
def test_arrow_parses_what_it_is_given_as_our_parser_does(first, others, block, space):
    given = [{"id": 0, "a": "", "列": 0}, *first, *others]
    data = "\n".join(json.dumps(r, ensure_ascii=False, separators=("," + space, ":" + space)) for r in given).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glue_job, "SNIFF_BYTES", 1)
        patch.setattr(glue_job, "BLOCK_BYTES", block)
        patch.setattr(glue_job, "MAX_MISSES", 1_000)
        assert rows(data) == expected(data)


SHAPE = pa.schema([("a", pa.string()), ("n", pa.int64())])


@pytest.mark.parametrize(
    ("data", "cells"),
    [
        ('{"a":"x","n":1}\n{"n":-2,"a":null}\n{}\n', [["x", None, None], ["1", "-2", None]]),
        ('{"a" : "\\ud83d\\ude00\\u0000\\n" , "n" :\t7 }\r\n{"n":3}\r\n', [["😀\0\n", None], ["7", "3"]]),
        ('{"n":-9223372036854775808}', [[None], ["-9223372036854775808"]]),
        ('{"a":"-01, -0 ]"}', [["-01, -0 ]"], [None]]),
        *(
            (text, None)
            for text in [
                '{"n":-0}\n',
                '{"n":-0\t}\n',
                '{"n":1e2}\n',
                '{"n":1.0}\n',
                '{"n":9223372036854775808}\n',
                '{"n":01}\n',
                '{"n":NaN}\n',
                '{"n":"5"}\n',
                '{"n":true}\n',
                '{"a":5}\n',
                '{"a":{}}\n',
                '{"a":' + "[" * 10_000,
                '{"a":"x","a":"y"}\n',
                '{"a":"x","b":1}\n',
                '{"a":"\\ud800"}\n',
                '{"a":"\\udc00"}\n',
                b'{"a":"\xff"}\n',
                b'{"a":"\xed\xa0\x80"}\n',
                '{"a":"x\ny"}\n',
                '{"a":"x",}\n',
                '{"a":"x"}{"a":"y"}\n',
                '{"a":"x"} null\n',
                '{"a":"x"}\nnull\n',
                '{"a":"x"}\n{"n":3}\nnull{}\n',
                "null\n",
                "5\n",
                '{"n":2}{"n":3}\n{"n":4\n}\n',
                '{"a":\n{"b":1}}{}\n',
                '{"a":"x"}\n\n{"a":"y"}\n',
                ' {"a":"x"}\n',
                '{"a":"x"',
                '[{"a":"x"}]\n',
                "{'a':'x'}\n",
                '{"a":"x"}\x00\n',
            ]
        ),
    ],
)
def test_arrow_leaves_to_our_parser_what_it_would_take_otherwise(data, cells):
    found = parse_alike(data if isinstance(data, bytes) else data.encode(), SHAPE)
    assert (found and [column.to_pylist() for column in found]) == cells


@given(RECORDS, st.integers(1, 200), st.sampled_from([None, 1]), st.integers(1, 50), st.sampled_from(["", "\ufeff\n "]))
def test_a_cut_array_is_read_as_a_whole_one_or_not_at_all(records, step, indent, block, before):
    data = (before + json.dumps(records, ensure_ascii=False, indent=indent)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glue_job, "BLOCK_BYTES", block)
        found = cut_array_rows(data, step)
    assert found is None or found == expected(data)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("step", [37, 100, 1000, 100_000])
def test_arrays_as_programs_write_them_can_be_cut(indent, step):
    records = [{"id": i, "name": "x" * (i % 50), "tags": [1, {"a": "あ"}]} for i in range(300)]
    data = json.dumps(records, ensure_ascii=False, indent=indent).encode()
    assert cut_array_rows(data, step) == expected(data)


@pytest.mark.parametrize(
    "data",
    [
        json.dumps([{"id": i, "note": '{"a":1},{"id":2}' * 9} for i in range(50)]),  # within a string, escaped
        json.dumps([{"id": i, "note": "},{" * 30} for i in range(50)]),
        json.dumps([{"id": i, "parts": [{"a": 1}, {"b": 2}, {"c": 3}]} for i in range(50)]),  # within a record
        json.dumps([{"id": i} for i in range(50)])[:-9],
        json.dumps([{"id": i} for i in range(50)]) + "x",
        json.dumps([{"id": i} for i in range(50)])[:-1] + ",]",
        json.dumps([*({"id": i} for i in range(50)), 5]),
        "[" + ",".join(['{"id":1}'] * 50) + '] [{"id":2},{"id":3}]' * 50,
    ],
)
@pytest.mark.parametrize("step", [20, 64])
def test_cuts_that_are_no_boundaries_are_noticed(data, step):
    found = cut_array_rows(data.encode(), step)
    assert found is None or found == expected(data.encode())
    if not data.endswith("}]"):
        assert found is None


def test_a_wrong_guess_where_a_record_begins_costs_no_more_than_its_piece(monkeypatch):
    """What its piece calls malformed is never told, so nobody counts the records before."""
    monkeypatch.setattr(glue_job, "BLOCK_BYTES", 1_000)
    data = json.dumps([{"id": i, "note": '[{"a":1},{"b":2}]' * 50} for i in range(1_000)]).encode()
    [*_, last] = pieces_of(data, len(data) // 2 + 1, of_array=True)
    store = Store(a=data)
    with pytest.raises(SourceError):
        piece_rows(PieceReader(store, last))
    assert store.read <= last.end - last.start + 2_000


def test_number_literals_are_kept():
    data = b'{"id":1.10,"a":12345678901234567890,"b":1e400,"c":-0.0,"d":[1.10,{"e":1E5}]}'
    assert rows(data) == [
        {"id": "1.10", "a": "12345678901234567890", "b": "1e400", "c": "-0.0", "d": '[1.10,{"e":1E5}]'}
    ]


def test_nested_values_are_compact_and_readable():
    data = b'{"id":1,"a":{ "b" : [ 1, null, true, "\\u3042\\n\\"" ] },"c":[],"d":{}}'
    assert rows(data) == [{"id": "1", "a": '{"b":[1,null,true,"あ\\n\\""]}', "c": "[]", "d": "{}"}]


def test_present_is_not_missing():
    assert rows(b'{"id":"","a":0,"b":false,"c":[],"d":null}') == [{"id": "", "a": "0", "b": "false", "c": "[]"}]


def test_a_key_of_the_last_record_is_found():
    data = lines([{"id": 1}] * 5000 + [{"late": 1, "id": 2}])
    assert rows(data)[-1] == {"id": "2", "late": "1"}


def test_concatenated_gzip_members_are_one_file():
    assert len(rows(gzip.compress(b'{"id":1}\n') + gzip.compress(b'{"id":2}\n'))) == 2


PLACE = "s3://lake/a"


@pytest.mark.parametrize("split_bytes", [None, 5])
@pytest.mark.parametrize(
    ("data", "record", "offset", "problem"),
    [
        (b'{"id":1}\n{"id":tru}\n', 2, 15, "expected a value"),
        (b'{"id":1}\n\n{"id":2', 2, 17, "the line ends inside the record"),
        (b'{"id":1}\n{"id":NaN}', 2, 9, "NaN is not JSON"),
        (b'{"id":1}\n{"id":-Infinity}', 2, 9, "-Infinity is not JSON"),
        (b'{\n"id":1}', 1, 1, "the line ends inside the record"),
        (b'{"id":1} {"id":2}', 1, 0, "more than one value on the line"),
        (b'{"id":1}\n{"id":"\xff"}', 2, 16, "not UTF-8 (invalid start byte)"),
        (b'{"id":1}\n{"id":"\\ud800"}', 2, 9, "half a surrogate pair in 'id'"),
        (b'{"id":1}\n{"id":"a\tb"}', 2, 17, "Invalid control character at"),
        (b'{"id":1,}', 1, 8, "Expecting property name enclosed in double quotes"),
    ],
)
def test_malformed_lines_name_record_and_offset(data, record, offset, problem, split_bytes):
    with pytest.raises(SourceError) as caught:
        rows(data, split_bytes)
    assert str(caught.value) == (
        f"Malformed JSON in {PLACE}, record {record}, byte offset {offset}: {problem}. "
        "Correct the file (an array of objects, or one object per line) and run the job again."
    )
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    ("data", "record", "offset", "problem"),
    [
        (b'[{"id":1},]', 2, 10, "expected a value"),
        (b'[{"id":1} {"id":2}]', 2, 10, "expected ',' or ']' after a record"),
        (b'[{"id":1},{"id":2', 2, 17, "the file ends inside the array"),
        (b'[{"id":1}', 2, 9, "the file ends inside the array"),
        (b'[{"id":1}] {"id":2}', 2, 11, "something follows the end of the array"),
        ('[{"id":"あ"},{"id":"'.encode() + b'\xff"}]', 2, 21, "not UTF-8 (invalid start byte)"),
        (b'[{"id":1}]\xff', 2, 10, "not UTF-8 (invalid start byte)"),
        (b'[{"id":' + b"[" * 5000 + b"]" * 5000 + b"}]", 1, 1, "nested too deeply"),
        (b"<html></html>", 1, 0, "it begins with b'<html></html>', expected '[' or '{'"),
        (b"PAR1", 1, 0, "it begins with b'PAR1', expected '[' or '{'"),
    ],
)
def test_malformed_arrays_name_record_and_offset(data, record, offset, problem):
    with pytest.raises(SourceError) as caught:
        rows(data)
    assert f"Malformed JSON in {PLACE}, record {record}, byte offset {offset}: {problem}." in str(caught.value)
    assert not english_in(caught.value)


def test_broken_gzip_is_named():
    with pytest.raises(SourceError, match="broken gzip file") as caught:
        rows(gzip.compress(lines([{"id": i} for i in range(100)]))[:-9])
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    ("data", "record", "offset", "found"),
    [
        (b'{"id":1}\n[1]', 2, 9, "an array"),
        (b'{"id":1}\n"x"', 2, 9, "a string or number"),
        (b'[{"id":1},null]', 2, 10, "null"),
        (b"[[1]]", 1, 1, "an array"),
        (b"[{},true]", 2, 4, "a boolean"),
    ],
)
def test_record_that_is_not_an_object_is_named(data, record, offset, found):
    with pytest.raises(SourceError) as caught:
        rows(data)
    assert str(caught.value) == (
        f"Record {record} of {PLACE} (byte offset {offset}) is {found}, not an object. "
        "Every record must be a JSON object."
    )


def test_a_record_larger_than_the_bound_is_refused(monkeypatch):
    monkeypatch.setattr(glue_job, "MAX_RECORD_BYTES", 1024 * 1024)
    for data in (b'{"id":"' + b"x" * 12 * 1024 * 1024, b'[{"id":"' + b"x" * 12 * 1024 * 1024):
        with pytest.raises(SourceError, match="a record is larger than 1 MiB"):
            rows(data)


@given(st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{0,3})?([eE][+-]?[0-9]{1,3})?", fullmatch=True) | st.text(max_size=5))
def test_same_integer_agrees_with_the_oracle(text):
    assert same_integer(text) == oracle.canonical(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("7", "7"),
        ("007", "7"),
        ("7.0", "7"),
        ("70e-1", "7"),
        ("-0", "0"),
        ("7.5", "7.5"),
        ("1e400", "1e400"),
        ("0E20", "0"),
        ("1E9999999999999999999", "1E9999999999999999999"),
        ("٧", "٧"),
    ],
)
def test_same_integer(text, same):
    assert same_integer(text) == same


def test_splits_cut_big_lines_and_gather_small_objects():
    big = lines([{"id": i, "x": "y" * 1000} for i in range(10_000)])
    small = b'{"id":1}'
    store = Store(big=big, s1=small, s2=small, array=b"[" + big.replace(b"\n", b",") + b"]")
    objects = [SourceObject("lake", key, len(data), "e") for key, data in store.objects.items()]
    objects.insert(1, SourceObject("lake", "empty", 0, "e"))
    splits = plan_splits(store, objects, parallelism=2)
    keys = [[piece.source.key for piece in split] for split in splits]
    assert keys == [["big"], ["big"], ["big"], ["s1", "s2"], ["array"], ["array"], ["array"]]
    assert [split[0].of_array for split in splits] == [False] * 4 + [True] * 3
    assert plan_splits(store, objects, parallelism=2, cut_arrays=False) == [*splits[:4], [Piece(objects[-1], 0, None)]]
    assert [(piece.start, piece.end) for split in splits[:3] for piece in split][1:] == [
        (splits[1][0].start, splits[1][0].end),
        (splits[1][0].end, len(big)),
    ]


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("in/a.json", "in/a.json", True),
        ("in/b.json", "in/a.json", False),
        ("in/a.json", "in/", True),
        ("in/x/a.json", "in/", True),
        ("in/a.json", "in/*.json", True),
        ("in/x/a.json", "in/*.json", False),
        ("in/x/a.json", "in/*/a.json", True),
        ("in/a1.json", "in/a[0-9].json", False),
        ("in/a[0-9].json", "in/a[0-9].json", True),
        ("in/ab.json", "in/a?.json", False),
    ],
)
def test_source_key_patterns(key, pattern, expected):
    assert is_source_key(key, pattern) is expected
