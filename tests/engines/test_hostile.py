"""Hostile input on both engines: names, ids, types and tables of any kind, and files that are made to be too large."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from overlay.arguments import parse_arguments
from overlay.connection import load_database
from overlay.dialects.mysql import MySQL
from overlay.engines.rows import RowReader
from overlay.errors import TableError
from overlay.limits import MIB, Limits
from overlay.report.result import Result
from overlay.secret import load_secret
from overlay.settings import make_settings
from overlay.table import lookup
from overlay.table.jdbc import Connection
from reference import oracle
from tests import figures
from tests.agreement import assert_agrees
from tests.conftest import NUMBERS, ROOT, Pipeline

LIMITS = Limits()
quote_name = MySQL().quote_name


@pytest.fixture(params=["lookup", "scan", "spark"])
def way(request: pytest.FixtureRequest, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sets how the runs of `pipeline` get their rows: by one of the two plans of the driver, or by Spark."""
    pipeline.engine = "spark" if request.param == "spark" else "driver"
    reason = "few_ids" if request.param == "lookup" else "many_ids"
    monkeypatch.setattr(lookup, "lookup_reason", lambda *_: reason)
    monkeypatch.setattr(RowReader, "_is_by_index", lambda *_: True)  # the optimizer scans a table of a few rows
    return request.param


# What is huge, read in a child of its own process each, so that its memory can be measured. Name -> the object's bytes
# as (text, times), gzip or not, and what comes of it.
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
from overlay.errors import SourceError
from overlay.limits import Limits
from overlay.source.columns import record_batches
from overlay.source.json_reader import RecordReader
from overlay.source.objects import ByteRange, SourceObject

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
        try:
            reader = RecordReader(Store(), ByteRange(item, 0, None), Limits())
            outcome = sum(batch.num_rows for batch in record_batches([reader]))
        except SourceError as error:
            outcome = error.details["problem"].text("en")
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([outcome, kib // 1024]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.long
def test_memory_is_bounded_whatever_the_size(tmp_path):
    paths = []
    for number, (texts, zipped, _) in enumerate(HUGE.values()):
        paths.append(str(tmp_path / str(number)))
        with gzip.open(paths[-1], "wb", compresslevel=1) if zipped else open(paths[-1], "wb") as file:  # noqa: PTH123
            for text, times in texts:
                step = max(MIB // len(text), 1)
                for start in range(0, times, step):
                    file.write(text.encode() * min(step, times - start))
    command = [sys.executable, "-c", CHILD, *paths]
    # 300 million blank lines one by one would take longer.
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=200)
    outcomes = dict(zip(HUGE, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, (outcome, mebibytes) in outcomes.items():
        expected = HUGE[name][2]
        assert outcome == expected if isinstance(expected, int) else expected in outcome, name
        text = f"right rows ({outcome})" if isinstance(outcome, int) else outcome
        figures.record("hostile", name, outcome=text, inputs=1, memory_mib=mebibytes)
        # The bytes of one record, its text, its value and their copies: no matter how much follows.
        assert mebibytes < 6 * LIMITS.record_bytes_max // MIB, outcomes


# Names, ids and tables: end to end on the real server.


def published(
    pipeline: Pipeline,
    source: bytes,
    columns: Sequence[str],
    *,
    table: str = "",
    key: str = "id",
    integer_key: bool = True,
    way: str = "",
) -> Result:
    """Runs the job; its bytes and counts must be the oracle's, and its engine and plan those of the way."""
    table = table or quote_name(pipeline.name)
    casts = [f"CAST({quote_name(name)} AS CHAR CHARACTER SET utf8mb4)" for name in columns]
    with pipeline.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(casts)} FROM {table}")
        stored = list(cursor.fetchall())
    pipeline.put(source)
    expected = oracle.overlay([source], columns, stored, key=key, integer_key=integer_key)
    result = pipeline.run(key=key)
    assert_agrees(pipeline, result, expected)
    assert not way or (result.engine, result.plan) == {"spark": ("spark", "scan")}.get(way, ("driver", way))
    return result


# Names that the job itself gives to columns on the way.
OURS = [
    *("k", "c0", "c1", "s0", "ordinal", "match", "copies", "first", "message", "source_message", "table_message"),
    *("bin", "part", "row", "rows", "start", "line", "bytes", "etag", "position", "data"),
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


def test_names_may_be_anything(pipeline, way):
    """Each name in the table, in the source, in both; and names that differ in case, which are others."""
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
    published(pipeline, "\n".join(map(json.dumps, records)).encode(), columns, way=way)


@pytest.mark.parametrize("key", ["k", "キー a`b'c\"d e.f\\"])
def test_the_key_may_have_any_name(pipeline, way, key):
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (v INT, {quote_name(key)} VARCHAR(20), KEY ({quote_name(key)}))",
        f"INSERT INTO {pipeline.name} VALUES (1, 'a'), (2, 'b'), (3, 'b')",
    )
    source = json.dumps([{key: "a"}, {key: "b"}, {key: "c"}]).encode()
    published(pipeline, source, ["v", key], key=key, integer_key=False, way=way)


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


@pytest.mark.parametrize("integer", [True, False])
def test_ids_are_never_sql(pipeline, way, integer):
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
    result = published(pipeline, source, ["id", "v"], integer_key=integer, way=way)
    assert result.counts.matched == (1 if integer else len(INJECTIONS[::2]))
    pipeline.sql("SELECT * FROM victims")


TABLE_NAMES = ["x`; DROP TABLE victims; -- x", "a'b\"c b.c", "表", "%s {0} ?"]


@pytest.mark.parametrize(
    ("engine", "name"), [*(("driver", name) for name in TABLE_NAMES), ("spark", "x`; 表%s'\" {0}.? ;-- x")]
)
def test_tables_and_databases_may_have_any_name(pipeline, engine, name):
    schema, table = f"d {next(NUMBERS)}{name}"[:64], name
    qualified = f"{quote_name(schema)}.{quote_name(table)}"
    pipeline.sql(
        "CREATE TABLE IF NOT EXISTS victims (id INT)",
        f"CREATE DATABASE {quote_name(schema)}",
        f"CREATE TABLE {qualified} (id INT PRIMARY KEY, v INT)",
        f"INSERT INTO {qualified} VALUES (1, 2), (3, 4)",
    )
    pipeline.secret(db_name=schema, table_name=table)
    pipeline.engine = engine
    published(pipeline, b'{"id":1}', ["id", "v"], table=qualified)
    pipeline.sql("SELECT * FROM victims", f"DROP DATABASE {quote_name(schema)}")


@pytest.mark.parametrize("text", ["x' OR '1'='1", "x` UNION SELECT 1 -- ", "x\\", "x\n"])
def test_a_table_that_is_missing_under_a_hostile_name_is_only_missing(pipeline, text):
    pipeline.secret(table_name=text)
    pipeline.put(b'{"id":1}')
    with pytest.raises(TableError, match="does not exist") as caught:
        pipeline.run(key=text)
    assert caught.value.details["table"] == f"demo.{text.strip()}"


# SQL type, a value as SQL, its text. What tests/services/test_types.py has is not repeated.
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


def test_every_further_type_is_the_databases_own_text(pipeline, engine):
    columns = ", ".join(f"c{i} {kind}" for i, (kind, _, _) in enumerate(TYPES))
    values = ", ".join(value for _, value, _ in TYPES)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4",
        f"INSERT INTO {pipeline.name} VALUES (1, {values})",
    )
    pipeline.put(b'{"id":1}')
    pipeline.engine = engine
    pipeline.run(csv_quote="all")
    cells = ['"' + text.replace('"', '""') + '"' for _, _, text in TYPES]
    assert pipeline.output().decode().partition("\n")[2].rstrip("\n").split(",", 1)[1] == ",".join(cells)
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


LEFT_OUT = {
    "lookup": {"no index at all", "cp932", "sjis", "ujis", "ucs2"},  # the job never looks these up (can_look_up)
    "scan": set(),
    "spark": {"latin1", "utf8mb3", "sjis", "ujis", "MyISAM"},  # seconds each, for the statement of the scan
}


def test_kinds_of_tables(pipeline, way):
    kinds = {kind: table for kind, table in TABLES.items() if kind not in LEFT_OUT[way]}
    for ddl, columns, values in kinds.values():
        pipeline.sql(f"CREATE OR REPLACE TABLE {pipeline.name} {ddl}", f"INSERT INTO {pipeline.name} VALUES {values}")
        source = '[{"id":1},{"id":"é"},{"id":"ソ"},{"id":"😀"}]'.encode()
        published(pipeline, source, columns, integer_key="id INT" in ddl, way=way)
    figures.record("hostile", f"kinds of tables, {way}", outcome="rows", inputs=len(kinds))


def test_a_view_is_a_table(pipeline, engine):
    pipeline.sql(
        f"CREATE TABLE base{pipeline.name} (`order` INT PRIMARY KEY, v INT)",
        f"INSERT INTO base{pipeline.name} VALUES (1, 2), (2, 3)",
        f"CREATE VIEW {pipeline.name} AS "
        f"SELECT `order` AS id, v * 10 AS `group`, NOW() IS NULL AS n FROM base{pipeline.name}",
    )
    pipeline.engine = engine
    published(pipeline, b'{"id":1}', ["id", "group", "n"])


def test_an_empty_table_without_an_index(pipeline, engine):
    pipeline.engine = engine
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id VARCHAR(9))")
    published(pipeline, b'{"id":1}', ["id"], integer_key=False)


def test_the_server_gets_no_file_of_the_job(pipeline):
    """Which a false server may ask for in the place of any answer."""
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id TEXT)")
    settings = make_settings(parse_arguments(pipeline.arguments()))
    database = load_database(settings, load_secret(settings))
    with Connection(database) as connection:
        connection.ask("SET SESSION TRANSACTION READ WRITE")
        with pytest.raises(TableError, match=r"(?i)local infile( is disabled| capability)"):
            connection.ask(f"LOAD DATA LOCAL INFILE '{__file__}' INTO TABLE {pipeline.name}")
