"""source.json_arrow: Arrow's reader gives what the scanner gives, or leaves the bytes to it."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.source.json_arrow import ArrowParser, array_alike, lines_alike
from tests.sources import FLAT, expected_records, in_chunks, json_lines, read_records, reader

SHAPE = pa.schema([("a", pa.string()), ("n", pa.int64())])


@given(FLAT, FLAT, st.integers(1, 200), st.sampled_from([" ", ""]), st.sampled_from(["\n", ",", ",\n", " , "]))
def test_arrow_parses_what_it_is_given_as_the_scanner_does(first, further, chunk_bytes, space, separator):
    records = [{"id": 0, "a": "", "列": 0}, *first, *further]
    texts = [json.dumps(record, ensure_ascii=False, separators=("," + space, ":" + space)) for record in records]
    text = separator.join(texts)
    data = (text if separator == "\n" else f"[{text}]").encode()
    limits = in_chunks(chunk_bytes, sniff_bytes=1, arrow_misses_max=1_000)
    assert read_records(data, limits=limits) == expected_records(data)


@pytest.mark.parametrize("form", ["lines", "array", "indented array"])
@pytest.mark.parametrize("chunk_bytes", [200, 1000, 100_000])
def test_what_programs_write_is_left_to_arrow(form, chunk_bytes):
    records = [{"id": i, "name": "x" * (i % 50), "note": None, "列": "あ"} for i in range(900)]
    array = json.dumps(records, ensure_ascii=False, indent=None if form == "array" else 1).encode()
    data = json_lines(records) if form == "lines" else array
    limits = in_chunks(chunk_bytes, sniff_bytes=100)
    source = reader(data, limits=limits)
    scanned = parsed = 0
    for chunk in source.chunks():
        if chunk.columns is None:
            scanned += chunk.size
            source.state.arrow.learn(chunk.text, chunk.starts, records[0])
        else:
            parsed += chunk.size
    assert scanned + parsed == len(records)
    assert scanned < (3 if form == "lines" else 450)  # of each chunk of an array the last record is scanned
    assert read_records(data, limits=limits) == expected_records(data)


@pytest.mark.parametrize("form", ["lines", "array"])
def test_after_a_few_misses_arrow_is_left_alone(form):
    records = [{"id": i if i % 2 else f"x{i}", "v": "x" * 20} for i in range(300)]
    data = json_lines(records) if form == "lines" else json.dumps(records).encode()
    source = reader(data, limits=in_chunks(100))
    for chunk in source.chunks():
        if chunk.size:
            assert chunk.columns is None
            source.state.arrow.learn(chunk.text, chunk.starts, records[0])
    assert not source.state.arrow.is_ready


def test_the_bytes_that_arrow_parsed_of_an_array_end_before_its_last_record():
    data = '{"a":"},{"} ,\n {"n":7,"a":"あ"},{"a":'.encode()
    shape = pa.schema([("a", pa.string()), ("n", pa.int64())])
    assert array_alike(data, shape) is None  # what looks like a boundary lies in a text
    data = data.replace(b'"},{"', b'"x"', 1)
    columns, size = array_alike(data, shape)
    assert [column.to_pylist() for column in columns] == [["x", "あ"], [None, "7"]]
    assert data[size:] == b'{"a":'


# Text of the lines, and the columns that Arrow makes of them; None where they are left to the scanner.
LINES = [
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
]


@pytest.mark.parametrize(("data", "cells"), LINES)
def test_arrow_leaves_to_the_scanner_what_it_would_take_otherwise(data, cells):
    columns = lines_alike(data if isinstance(data, bytes) else data.encode(), SHAPE)
    assert (columns and [column.to_pylist() for column in columns]) == cells


# The same of what an array holds from a record on.
ELEMENTS = [
    ('{"a":"x","n":1},{"n":-2,"a":null},{},{', [["x", None, None], ["1", "-2", None]]),
    ('{"n":1}\n,\r\n{"n":2} ,{"n":3}]', [[None, None], ["1", "2"]]),
    ('{"a":"x","n":\n1},\n{"n":', [["x"], ["1"]]),  # indented
    *(
        (text, None)
        for text in [
            '{"n":1}',  # no boundary, so nobody knows whether it ends
            '{"n":-0},{"n":1}',
            '{"n":-0 },{"n":1}',
            '{"n":1e2},{"n":1}',
            '{"n":9223372036854775808},{}',
            '{"n":"5"},{}',
            '{"a":5},{}',
            '{"a":"x","a":"y"},{}',
            '{"a":"x","b":1},{}',
            '{"a":"\\ud800"},{}',
            b'{"a":"\xff"},{}',
            '{"a":"},{"},{"a":"y"},{}',
            '{"a":[{},{}]},{}',
            '{"n":1}{"n":2},{}',
            '{"n":1} {"n":2},{}',
            '{"n":1}\n{"n":2},{}',
            '{"n":1},5,{"n":2},{}',
            '{"n":1},null,{"n":2},{}',
            '{"n":1},,{"n":2},{}',
            '{"n":1}],[{"n":2},{}',
            '{"n":1}]\n[{"n":2},{"n":3},{}',
            ' {"n":1},{}',
            ',{"n":1},{}',
            '5,{"n":1},{}',
            'null{"n":1},{}',
            '{"n":1,},{}',
        ]
    ),
]


@pytest.mark.parametrize(("data", "cells"), ELEMENTS)
def test_arrow_leaves_to_the_scanner_what_it_would_take_otherwise_in_an_array(data, cells):
    data = data if isinstance(data, bytes) else data.encode()
    parser = ArrowParser(misses_max=1)
    parser.learn('{"a":"","n":0}', [0], SHAPE.names)
    beginning = parser.parse_array(data)
    assert (beginning and [column.to_pylist() for column in beginning[0]]) == cells


def test_what_was_learnt_of_a_column_holds_until_another_record_says_otherwise():
    """A column that is null throughout a chunk keeps its type."""
    parser = ArrowParser(misses_max=2)
    parser.learn('{"a":"","n":0}', [0], SHAPE.names)
    parser.learn('{"a":null}', [0], SHAPE.names)
    assert [column.to_pylist() for column in parser.parse_lines(b'{"n":7}\n')] == [[None], ["7"]]
    parser.learn('{"a":[]}', [0], SHAPE.names)
    assert not parser.is_ready
