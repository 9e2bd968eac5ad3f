"""Hostile input: whatever is in the source, the rows are right or the error names the place, in bounded memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import glue_job
from glue_job import MIB, CsvFormat, MySQL, SourceError, csv_lines, phrase
from tests import figures, oracle
from tests.conftest import NUMBERS, ROOT, Pipeline
from tests.test_plan import force
from tests.test_source import FLAT, PLACE, RECORDS, cut_array_rows, rows

BLANKS = b" \t\r\n"

# ---------------------------------------------------------------------------------------------------------------------
# the source reader, fuzzed
# ---------------------------------------------------------------------------------------------------------------------

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

quote_name = MySQL().quote_name


def edited(data: bytes, edits: Sequence[tuple[str, float, int, bytes, int]]) -> bytes:
    """The bytes after some mishaps."""
    for kind, where, length, token, number in edits:
        at = int(where * len(data))
        before, some, after = data[:at], data[at : at + length], data[at + length :]
        data = {
            "cut": before + after,
            "end": before,
            "flip": before + bytes(byte ^ number for byte in some[:1]) + some[1:] + after,
            "insert": before + token + some + after,
            "replace": before + token + after,
            "repeat": before + some + some + after,
            "double": data + data,
        }[kind]
    return data


def written(records: Sequence[dict[str, Any]], form: str) -> bytes:
    """Records as an object before anything happens to it."""
    if "array" in form or form == "indented":
        return json.dumps(records, ensure_ascii=False, indent=1 if form == "indented" else None).encode()
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


def refuse(constant: str) -> None:
    raise ValueError(constant)


def slow_reading(data: bytes) -> list[dict[str, str]] | None:
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
    return [{name: text for name, text in record.items() if text is not None} for record in texts]


def reading(data: bytes, step: int | None = None) -> list[dict[str, str | None]] | dict[str, Any]:
    """What the job makes of an object, whole or cut: rows, or the details of its error. Nothing else passes."""
    try:
        return rows(data, step)
    except SourceError as error:
        assert {"place", "record", "offset"} <= error.details.keys()
        assert error.message("ja").cause != error.message("en").cause
        return error.details


def wrong_lines(data: bytes) -> set[int]:
    """The lines that are no records, from 0."""
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    # Behind a line break a line is neither gzip nor does it begin with a byte order mark.
    return {
        n
        for n, line in lines
        if line.strip(BLANKS) and (line.lstrip(BLANKS)[:1] != b"{" or not slow_reading(b"\n" + line))
    }


TRIED: list[bool] = []


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(
    RECORDS | FLAT, st.sampled_from(FORMS), EDITS, st.booleans(), st.integers(1, 60), st.sampled_from([16, 50, 4 * MIB])
)
def test_what_is_read_is_right_or_refused_whole_or_cut(records, form, edits, inside, step, block):
    data = written(records, form)
    if form.startswith("gzip"):
        data = gzip.compress(edited(data, edits)) if inside else edited(gzip.compress(data, mtime=0), edits)
    else:
        data = edited(data, edits)
    expected = slow_reading(data)
    TRIED.append(expected is None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glue_job, "BLOCK_BYTES", block)
        patch.setattr(glue_job, "SNIFF_BYTES", min(block, glue_job.SNIFF_BYTES))
        patch.setattr(glue_job, "MAX_MISSES", 1_000)
        found = reading(data)
        if expected is None:
            assert isinstance(found, dict), "malformed, but read"
            assert data[:2] == b"\x1f\x8b" or 0 <= found["offset"] <= len(data)
        else:
            assert found == expected
        body = data.removeprefix(b"\xef\xbb\xbf").lstrip(BLANKS)
        step += len(data) - len(body)  # what is cut has its first byte in the first piece (plan_splits)
        if body[:1] == b"{":
            cut = reading(data, step)
            wrong = wrong_lines(data)
            assert cut == found or len(wrong) > 1  # of several errors either may be told
            for told in (found, cut):
                if isinstance(told, dict):
                    assert data[: told["offset"]].count(b"\n") in wrong
        elif body[:1] == b"[":
            cut = cut_array_rows(data, step)
            assert cut is None or cut == expected


def test_figures_of_the_fuzzing():
    """Both outcomes were seen; runs after the fuzzing."""
    assert TRIED.count(True) > 50
    assert TRIED.count(False) > 50
    figures.record(
        "hostile", "mutated JSON, JSON Lines and gzip: right rows", outcome="rows", inputs=TRIED.count(False)
    )
    figures.record(
        "hostile",
        "mutated JSON, JSON Lines and gzip: malformed",
        outcome="error with record and byte offset",
        inputs=TRIED.count(True),
    )


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
@pytest.mark.parametrize("step", range(1, 20))
def test_an_array_that_ends_after_a_comma_is_never_complete(data, step):
    assert cut_array_rows(data, step) is None
    assert isinstance(reading(data), dict)


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
    found = reading(data)
    assert (found["record"], found["offset"], found["problem"]) == (record, offset, phrase("nested"))


@pytest.mark.parametrize("depth", [10, 100, 300])
def test_what_nests_less_is_read(depth):
    value = "[" * depth + "]" * depth
    assert rows(f'{{"id":1,"a":{value}}}'.encode()) == [{"id": "1", "a": value}]


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
    assert rows(data.encode()) == expected


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
def test_malformed_is_named_with_its_place(data, record, offset, problem):
    found = reading(data)
    assert (found["place"], found["record"], found["offset"]) == (PLACE, record, offset)
    assert found["problem"]["en"].startswith(problem)


# What is huge, read in a child of its own process each, so that its memory can be measured. Name -> the object's bytes
# as (unit, times), gzip or not, and what comes of it.
HUGE = {
    "a text of 50 MB in a line": ([('{"id":"', 1), ("x", 50 * 10**6), ('"}\n{"id":2}', 1)], False, 2),
    "a text of 50 MB in an array": ([('[{"id":"', 1), ("x", 50 * 10**6), ('"},{"id":2}]', 1)], False, 2),
    "a record of 200 MB in a line": ([('{"id":"', 1), ("x", 200 * 10**6), ('"}', 1)], False, "larger than 64 MiB"),
    "a record of 200 MB in an array": ([('[{"id":"', 1), ("x", 200 * 10**6), ('"}]', 1)], False, "larger than 64 MiB"),
    "a gzip bomb of one record": ([('{"id":"', 1), ("x", 500 * 10**6), ('"}', 1)], True, "larger than 64 MiB"),
    "a gzip bomb of blanks": ([(" ", 500 * 10**6), ('{"id":1}', 1)], True, 1),
    "a gzip bomb of blank lines": ([('{"id":1}', 1), ("\n", 300 * 10**6)], True, 1),
    "a gzip bomb of records": ([('{"id":1,"note":"' + "x" * 10**6 + '"}\n', 300)], True, 300),
}
CHILD = """
import io, json, os, resource, sys
from glue_job import Piece, PieceReader, SourceError, SourceObject, SourceTask, read_split

class Store:
    def get_object(self, Bucket, Key, Range, IfMatch):
        start, end = map(int, Range.removeprefix("bytes=").split("-"))
        with open(Key, "rb") as file:
            file.seek(start)
            return {"Body": io.BytesIO(file.read(end + 1 - start))}

for path in sys.argv[1:]:
    if not os.fork():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        item = SourceObject("lake", path, os.path.getsize(path), "etag")
        task = SourceTask([], "id", False, "nonce", 1, None)
        try:
            reader = PieceReader(Store(), Piece(item, 0, None))
            outcome = sum(batch.num_rows for batch in read_split([reader], 0, task, {}))
        except SourceError as error:
            outcome = error.details["problem"]["en"]
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([outcome, kib // 1024]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_memory_is_bounded_whatever_the_size(tmp_path):
    paths = []
    for number, (units, zipped, _) in enumerate(HUGE.values()):
        paths.append(str(tmp_path / str(number)))
        with gzip.open(paths[-1], "wb", compresslevel=1) if zipped else open(paths[-1], "wb") as file:  # noqa: PTH123
            for unit, times in units:
                step = max(MIB // len(unit), 1)
                for start in range(0, times, step):
                    file.write(unit.encode() * min(step, times - start))
    command = [sys.executable, "-c", CHILD, *paths]
    # 300 million blank lines one by one would take longer.
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=200)
    found = dict(zip(HUGE, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, (outcome, mebibytes) in found.items():
        expected = HUGE[name][2]
        assert outcome == expected if isinstance(expected, int) else expected in outcome, name
        told = f"right rows ({outcome})" if isinstance(outcome, int) else outcome
        figures.record("hostile", name, outcome=told, inputs=1, memory_mib=mebibytes)
        # The bytes of one record, its text, its value and their copies: no matter how much follows.
        assert mebibytes < 6 * glue_job.MAX_RECORD_BYTES // MIB, found


# ---------------------------------------------------------------------------------------------------------------------
# names, types, tables: end to end on the real server
# ---------------------------------------------------------------------------------------------------------------------


def published(
    pipeline: Pipeline,
    source: bytes,
    columns: Sequence[str],
    *,
    table: str = "",
    texts: Sequence[str] = (),
    key: str = "id",
    integer_key: bool = True,
    **arguments: str,
) -> glue_job.Result:
    """Runs the job; its bytes and counts must be the oracle's. `texts` is SQL where a cast does not do."""
    table = table or quote_name(pipeline.name)
    casts = texts or [f"CAST({quote_name(name)} AS CHAR CHARACTER SET utf8mb4)" for name in columns]
    with pipeline.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(casts)} FROM {table}")
        stored = list(cursor.fetchall())
    pipeline.put(source)
    expected = oracle.overlay([source], columns, stored, key=key, integer_key=integer_key)
    result = pipeline.run(key=key, **arguments)
    assert pipeline.output() == expected.csv
    assert {name: getattr(result, name) for name in expected.counts} == expected.counts
    return result


OURS = [
    "k",
    "c0",
    "c1",
    "s0",
    "position",
    "match",
    "copies",
    "target",
    "kind",
    "split",
    "width",
    "data",
    "unit",
    "line",
]
NAMES = [
    *OURS,
    *(
        'a"b',
        "a'b",
        "a,b",
        "a.b",
        "a b",
        " a",
        "a`b",
        "a\nb",
        "a\r\nb",
        "a\\",
        "%s",
        "--",
        "=1+1",
        "#",
        "/*",
        "?",
    ),
    *("select", "table", "null", "あ", "列 名", "ｱ", "é", "x" * 64, "あ" * 64, "NAME", "$1", "`", "``"),
]


@pytest.mark.parametrize("plan", ["lookup", "scan"])
def test_names_may_be_anything(pipeline, monkeypatch, plan):
    """Each name in the table, in the source, in both; and names that differ in case, which are others."""
    force(monkeypatch, plan)
    columns = ["id", *NAMES]
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {', '.join(f'{quote_name(n)} VARCHAR(99)' for n in NAMES)})"
    )
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        marks = ", ".join(["%s"] * len(columns))
        for row in range(1, 4):
            cursor.execute(f"INSERT INTO {pipeline.name} VALUES ({marks})", [row, *(f"{n}/{row}" for n in NAMES)])
    records = [
        {"id": 1, "ID": "other", **dict.fromkeys(NAMES[::2])},
        {"id": 2, "Id": "other", **{name: f"source {name}" for name in NAMES[::3]}, "name": "not NAME"},
        {"id": 9, "": "", "😀": 1, "\x00": 2, "K": 3, "C0": 4, "x" * 300: 5},
    ]
    published(pipeline, "\n".join(map(json.dumps, records)).encode(), columns)


@pytest.mark.parametrize("key", ["k", "キー a`b'c\"d e.f\\"])
@pytest.mark.parametrize("plan", ["lookup", "scan"])
def test_the_key_may_have_any_name(pipeline, monkeypatch, plan, key):
    force(monkeypatch, plan)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (v INT, {quote_name(key)} VARCHAR(20), KEY ({quote_name(key)}))",
        f"INSERT INTO {pipeline.name} VALUES (1, 'a'), (2, 'b'), (3, 'b')",
    )
    source = json.dumps([{key: "a"}, {key: "b"}, {key: "c"}]).encode()
    published(pipeline, source, ["v", key], key=key, integer_key=False)


INJECTIONS = [
    "'; DROP TABLE victims; -- ",
    "1) OR (1=1",
    "1 OR 1=1",
    "\\' OR 1=1 -- ",
    '" OR ""="',
    "` OR 1=1 -- ",
    "x' UNION SELECT password FROM mysql.user -- ",
    "*/ OR 1=1 /*",
    "%27 OR 1=1",
    "\x00' OR 1=1",
    "0x27",
    "${jndi:ldap://127.0.0.1/a}",
    "?",
    ":id",
    "{fn user()}",
]


@pytest.mark.parametrize("plan", ["lookup", "scan"])
@pytest.mark.parametrize("integer", [True, False])
def test_ids_are_never_sql(pipeline, monkeypatch, plan, integer):
    force(monkeypatch, plan)
    kind = "INT" if integer else "VARCHAR(99)"
    pipeline.sql(
        "CREATE TABLE IF NOT EXISTS victims (id INT)",
        f"CREATE TABLE {pipeline.name} (id {kind} PRIMARY KEY, v VARCHAR(99))",
    )
    ids = [(str(number), "secret") for number in range(3)] if integer else [("0", "secret"), ("q", "secret")]
    ids += [] if integer else [(text, text) for text in INJECTIONS[::2]]
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {pipeline.name} VALUES (%s, %s)", ids)
    source = json.dumps([{"id": text} for text in [*INJECTIONS, "1"]]).encode()
    result = published(pipeline, source, ["id", "v"], integer_key=integer)
    assert result.matched == (1 if integer else len(INJECTIONS[::2]))
    pipeline.sql("SELECT * FROM victims")


@pytest.mark.parametrize("name", ["x`; DROP TABLE victims; -- x", "a'b\"c b.c", "表", "%s {0} ?"])
def test_tables_and_databases_may_have_any_name(pipeline, name):
    schema, table = f"d {next(NUMBERS)}{name}"[:64], name
    place = f"{quote_name(schema)}.{quote_name(table)}"
    pipeline.sql(
        "CREATE TABLE IF NOT EXISTS victims (id INT)",
        f"CREATE DATABASE {quote_name(schema)}",
        f"CREATE TABLE {place} (id INT PRIMARY KEY, v INT)",
        f"INSERT INTO {place} VALUES (1, 2), (3, 4)",
    )
    pipeline.secret(db_name=schema, table_name=table)
    published(pipeline, b'{"id":1}', ["id", "v"], table=place)
    pipeline.sql("SELECT * FROM victims", f"DROP DATABASE {quote_name(schema)}")


@pytest.mark.parametrize("text", ["x' OR '1'='1", "x` UNION SELECT 1 -- ", "x\\", "x\n"])
def test_a_table_that_is_missing_under_a_hostile_name_is_only_missing(pipeline, text):
    pipeline.secret(table_name=text)
    pipeline.put(b'{"id":1}')
    with pytest.raises(glue_job.TableError, match="does not exist") as caught:
        pipeline.run(key=text)
    assert caught.value.details["table"] == f"demo.{text}"


# SQL type, a value as SQL, its text. What tests/test_table.py has is not repeated.
TYPES = [
    ("INET6", "'2001:db8::ff00:42:8329'", "2001:db8::ff00:42:8329"),
    ("INET4", "'192.0.2.1'", "192.0.2.1"),
    ("GEOMETRY", "POINT(1, 2)", "POINT(1 2)"),
    ("LINESTRING", "ST_GeomFromText('LINESTRING(0 0,1 1.5)')", "LINESTRING(0 0,1 1.5)"),
    ("POLYGON", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')", "POLYGON((0 0,1 0,1 1,0 0))"),
    ("MULTIPOINT", "ST_GeomFromText('MULTIPOINT(0 0,1 1)')", "MULTIPOINT(0 0,1 1)"),
    ("MULTILINESTRING", "ST_GeomFromText('MULTILINESTRING((0 0,1 1))')", "MULTILINESTRING((0 0,1 1))"),
    ("MULTIPOLYGON", "ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))')", "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))"),
    ("GEOMETRYCOLLECTION", "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')", "GEOMETRYCOLLECTION(POINT(1 1))"),
    ("TINYTEXT", "'a\\0b'", "a\0b"),
    ("MEDIUMTEXT", "REPEAT('あ', 5)", "あああああ"),
    ("TINYBLOB", "x'00'", "00"),
    ("MEDIUMBLOB", "x'0aff'", "0aff"),
    ("NCHAR(3)", "'é'", "é"),
    ("VARCHAR(9) CHARACTER SET utf8mb3", "'日本語'", "日本語"),
    ("VARCHAR(9) CHARACTER SET sjis", "'ソ表'", "ソ表"),
    ("VARCHAR(9) CHARACTER SET cp932", "'①髙～'", "①髙～"),
    ("VARCHAR(9) CHARACTER SET ujis", "'ソ表'", "ソ表"),
    ("VARCHAR(9) CHARACTER SET eucjpms", "'①'", "①"),
    ("VARCHAR(9) CHARACTER SET ucs2", "'日本'", "日本"),
    ("VARCHAR(9) CHARACTER SET utf16", "'日😀'", "日😀"),
    ("VARCHAR(9) CHARACTER SET utf32", "'日😀'", "日😀"),
    ("VARCHAR(9) CHARACTER SET latin1", "'€é'", "€é"),
    ("VARCHAR(9) CHARACTER SET koi8r", "'Жд'", "Жд"),
    ("VARCHAR(9) CHARACTER SET gbk", "'汉'", "汉"),
    ("VARCHAR(9) CHARACTER SET big5", "'漢'", "漢"),
    ("VARCHAR(9) COLLATE utf8mb4_bin", "'\\\\\\''", "\\'"),
    ("ENUM('')", "''", ""),
    ("FLOAT(7,3)", "1.5", "1.500"),
    ("DOUBLE", "1e300", "1e300"),
    ("DECIMAL(5,0) ZEROFILL", "42", "00042"),
    ("YEAR(4)", "0", "0000"),
    ("TIME(6)", "'-00:00:00.000001'", "-00:00:00.000001"),
    ("VARCHAR(9) AS (CONCAT('v', id)) VIRTUAL", "DEFAULT", "v1"),
    ("VARCHAR(9) AS (CONCAT('s', id)) STORED", "DEFAULT", "s1"),
]


def test_every_further_type_is_the_databases_own_text(pipeline):
    columns = ", ".join(f"c{i} {kind}" for i, (kind, _, _) in enumerate(TYPES))
    values = ", ".join(value for _, value, _ in TYPES)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4",
        f"INSERT INTO {pipeline.name} VALUES (1, {values})",
    )
    pipeline.put(b'{"id":1}')
    pipeline.run(csv_quote="all")
    cells = ['"' + text.replace('"', '""') + '"' for _, _, text in TYPES]
    found = pipeline.output().decode().partition("\n")[2].rstrip("\n").split(",", 1)[1]
    assert found == ",".join(cells)
    figures.record("hostile", "column types of MariaDB", outcome="the text of the database", inputs=len(TYPES))


def test_invisible_columns_are_left_out_as_by_select_star(pipeline):
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, hidden INT INVISIBLE DEFAULT 7, v INT)",
        f"INSERT INTO {pipeline.name} (id, v) VALUES (1, 2)",
    )
    pipeline.put(b'{"id":1}')
    pipeline.run()
    assert pipeline.output() == b"id,v\n1,2\n"


def test_the_key_may_be_invisible(pipeline):
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT INVISIBLE AUTO_INCREMENT PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} (v) VALUES (2)",
    )
    published(pipeline, b'{"id":1}', ["id", "v"])


TABLES = {
    "only a key": ("(id INT PRIMARY KEY)", ["id"], "(1), (2)"),
    "no index at all": ("(id INT, v INT)", ["id", "v"], "(1, 2), (1, 3), (NULL, 4)"),
    "latin1": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET latin1", ["id", "v"], "('é', '€')"),
    "utf8mb3": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET utf8mb3", ["id", "v"], "('é', '表')"),
    "cp932": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET cp932", ["id", "v"], "('ソ', '①')"),
    "sjis": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET sjis", ["id", "v"], "('ソ', '表')"),
    "ujis": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET ujis", ["id", "v"], "('é', '表')"),
    "ucs2": ("(id VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARACTER SET ucs2", ["id", "v"], "('é', '表')"),
    "MyISAM": ("(id VARCHAR(9) PRIMARY KEY, v INT) ENGINE=MyISAM", ["id", "v"], "('é', 1)"),
    "partitioned": ("(id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 3", ["id", "v"], "(1, 1), (2, 2)"),
    "system versioned": ("(id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING", ["id", "v"], "(1, 1)"),
}


@pytest.mark.parametrize("plan", ["lookup", "scan"])
def test_kinds_of_tables(pipeline, monkeypatch, plan):
    for kind, (ddl, columns, values) in TABLES.items():
        if plan == "lookup" and kind in {"no index at all", "cp932", "sjis", "ujis", "ucs2"}:
            continue  # the job never looks these up (can_look_up)
        pipeline.sql(f"CREATE OR REPLACE TABLE {pipeline.name} {ddl}", f"INSERT INTO {pipeline.name} VALUES {values}")
        force(monkeypatch, plan)
        source = '[{"id":1},{"id":"é"},{"id":"ソ"},{"id":"😀"}]'.encode()
        published(pipeline, source, columns, integer_key="id INT" in ddl)
    figures.record("hostile", f"kinds of tables, {plan}", outcome="rows", inputs=len(TABLES))


def test_a_view_is_a_table(pipeline):
    pipeline.sql(
        f"CREATE TABLE base{pipeline.name} (`order` INT PRIMARY KEY, v INT)",
        f"INSERT INTO base{pipeline.name} VALUES (1, 2), (2, 3)",
        f"CREATE VIEW {pipeline.name} AS "
        f"SELECT `order` AS id, v * 10 AS `group`, NOW() IS NULL AS n FROM base{pipeline.name}",
    )
    published(pipeline, b'{"id":1}', ["id", "group", "n"])


def test_an_empty_table_without_an_index(pipeline):
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id VARCHAR(9))")
    published(pipeline, b'{"id":1}', ["id"], integer_key=False)


def test_the_server_gets_no_file_of_a_worker(pipeline):
    """Which a false server may ask for in the place of any answer."""
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id TEXT)")
    glue, s3 = pipeline.aws.client("glue"), pipeline.aws.client("s3")
    secret = glue_job.load_secret(
        pipeline.aws.client("secretsmanager"), glue_job.make_settings(glue_job.read_arguments(pipeline.arguments()))
    )
    database = glue_job.load_database(glue, s3, pipeline.connection_name, secret)
    with glue_job.Session(pipeline.spark, database) as session:
        session.ask("SET SESSION TRANSACTION READ WRITE")
        with pytest.raises(glue_job.TableError, match="disabled the local infile capability"):
            session.ask(f"LOAD DATA LOCAL INFILE '{__file__}' INTO TABLE {pipeline.name}")


@pytest.mark.parametrize("quote", ["minimal", "all"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_escaped_at_each_quote_setting(start, quote):
    form = CsvFormat(escape_formulas=True, quote=quote)
    reference = oracle.Csv(escape_formulas=True, quote=quote)
    cells = [f"{start}cmd|' /C calc'!A0", start, f'{start}a"b,c\nd', f"a{start}", "", None]
    [line] = csv_lines([pa.array([cell], pa.string()) for cell in cells], form).to_pylist()
    assert line == reference.line(cells)
    assert line.startswith(("'", "\"'"))
