"""Section `engines`: what MySQL and MariaDB alone, and PostgreSQL alone, promise; tests/test_table.py has the rest."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import MySQL, PostgreSQL, TableColumn, TableError, TableName
from tests.conftest import NUMBERS

# SQL type, value as SQL, the text in the CSV
TYPES = [
    ("BOOLEAN", "TRUE", "true"),
    ("SMALLINT", "-32768", "-32768"),
    ("BIGINT", "'-9223372036854775808'", "-9223372036854775808"),
    ("whole", "7", "7"),
    ("NUMERIC(12,4)", "1.5", "1.5000"),
    ("NUMERIC", "1.10", "1.10"),
    ("NUMERIC", "12345678901234567890123456789012345678901", "12345678901234567890123456789012345678901"),
    ("NUMERIC", "'NaN'", "NaN"),
    ("REAL", "1.1", "1.1"),
    ("DOUBLE PRECISION", "0.1", "0.1"),
    ("DOUBLE PRECISION", "'-Infinity'", "-Infinity"),
    ("MONEY", "'1234.5'", "$1,234.50"),
    ("BIT(3)", "B'101'", "101"),
    ("BIT VARYING(9)", "B'01'", "01"),
    ("DATE", "'2026-01-02'", "2026-01-02"),
    ("DATE", "'0044-03-15 BC'", "0044-03-15 BC"),
    ("DATE", "'infinity'", "infinity"),
    ("TIMESTAMP", "'2026-01-02 03:04:05.000100'", "2026-01-02 03:04:05.0001"),
    ("TIMESTAMP WITH TIME ZONE", "'2026-01-02 03:04:05+09'", "2026-01-01 18:04:05+00"),
    ("TIMESTAMP WITH TIME ZONE", "'2026-07-02 03:04:05 America/New_York'", "2026-07-02 07:04:05+00"),
    ("TIME", "'24:00'", "24:00:00"),
    ("TIME WITH TIME ZONE", "'03:04:05.5+09'", "03:04:05.5+09"),
    ("INTERVAL", "'1 year -2 months 100:00:00.5'", "10 mons 100:00:00.5"),
    ("CHAR(5)", "'007'", "007"),
    ("VARCHAR(20)", "'  髙橋 😀 '", "  髙橋 😀 "),
    ("VARCHAR(20)", "''", ""),
    ("TEXT COLLATE no_case", r"""E'line\n"two",\\'""", 'line\n"two",\\'),
    ("CITEXT", "'aA'", "aA"),
    ("NAME", "'n'", "n"),
    ("mood", "'日'", "日"),
    ("pair", r"(1, 'a b', '\x00ff')", r'(1,"a b","\\x00ff")'),
    ("INTEGER[]", "'{1,NULL,3}'", "{1,NULL,3}"),
    ("TEXT[][]", """ARRAY[['a,b', '"']]""", r'{{"a,b","\""}}'),
    ("JSON", """'{"b": 1,  "a": [1, 1.10]}'""", '{"b": 1,  "a": [1, 1.10]}'),
    ("JSONB", """'{"b": 1,  "a": [1, 1.10]}'""", '{"a": [1, 1.10], "b": 1}'),
    ("BYTEA", r"'\x00FF0a'", "00ff0a"),
    ("BYTEA", "''", ""),
    ("UUID", "'123E4567-e89b-12d3-a456-426655440000'", "123e4567-e89b-12d3-a456-426655440000"),
    ("INET", "'::1'", "::1"),
    ("INET", "'192.0.2.1/24'", "192.0.2.1/24"),
    ("CIDR", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("MACADDR", "'08:00:2B:01:02:03'", "08:00:2b:01:02:03"),
    ("INT4RANGE", "'[1,4]'", "[1,5)"),
    ("TSTZRANGE", "'[2026-01-01 00:00+09,)'", '["2025-12-31 15:00:00+00",)'),
    ("TSVECTOR", "'a fat cat'", "'a' 'cat' 'fat'"),
    ("XML", "'<a>1</a>'", "<a>1</a>"),
    ("POINT", "'1,2.5'", "(1,2.5)"),
    ("INTEGER GENERATED ALWAYS AS (1 + 1) STORED", "DEFAULT", "2"),
]
OF_THE_USER = ("DateStyle = 'SQL, DMY'", "IntervalStyle = 'iso_8601'", "bytea_output = 'escape'", "TimeZone = 'Japan'")


@pytest.fixture
def connection(postgresql):
    """A client of PostgreSQL."""
    with postgresql.connect(autocommit=True) as client:
        yield client


@pytest.fixture
def settings_of_the_user(connection):
    """Sets what a session of the user begins with."""

    def change(*settings: str) -> None:
        for setting in settings:
            connection.execute(f"ALTER ROLE etl SET {setting}")

    yield change
    connection.execute("ALTER ROLE etl RESET ALL")


def test_every_type_of_postgresql_is_its_own_text_whatever_the_user_has_set(on_postgresql, settings_of_the_user):
    name = on_postgresql.name
    columns = ", ".join(f"c{i} {kind}" for i, (kind, _, _) in enumerate(TYPES))
    nulls = ", ".join("DEFAULT" if value == "DEFAULT" else "NULL" for _, value, _ in TYPES)
    on_postgresql.sql(
        "CREATE TYPE mood AS ENUM ('a', '日')",
        "CREATE TYPE pair AS (n INT, t TEXT, b BYTEA)",
        f"CREATE TABLE {name} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {name} VALUES (1, {', '.join(value for _, value, _ in TYPES)}), (2, {nulls})",
    )
    settings_of_the_user(*OF_THE_USER)
    on_postgresql.put(b'{"id":1}\n{"id":2}')
    on_postgresql.run()
    _, first, second = csv.reader(io.StringIO(on_postgresql.output().decode(), newline=""))
    assert dict(zip(TYPES, first[1:], strict=True)) == {kind: kind[2] for kind in TYPES}
    assert dict(zip(TYPES, second[1:], strict=True)) == {k: "2" if k[1] == "DEFAULT" else "" for k in TYPES}
    assert b',"",' in on_postgresql.output()  # an empty string is present


PARTED = "CREATE TABLE {0} (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id); "
PARTITION = "CREATE TABLE {{0}}_{0} PARTITION OF {{0}} FOR VALUES WITH (MODULUS 2, REMAINDER {0}); "
# name -> statements that make the table, its rows by number
RANGES = {
    "skewed primary key": (
        "CREATE TABLE {0} (id BIGINT PRIMARY KEY, v INT)",
        "seq - 30000 + CASE seq WHEN 60000 THEN 1000000000000000 ELSE 0 END, seq",
    ),
    "partitions": (
        PARTED + PARTITION.format(0) + PARTITION.format(1),
        "seq, seq",
    ),
    "text primary key": (
        "CREATE TABLE {0} (id TEXT COLLATE no_case PRIMARY KEY, v INT)",
        "CASE seq % 2 WHEN 0 THEN 'k' ELSE 'K' END || chr(39) || seq, seq",
    ),
    "binary key, other primary key": (
        "CREATE TABLE {0} (v INT PRIMARY KEY, id BYTEA)",
        "seq, decode(lpad(to_hex(seq), 8, '0'), 'hex')",
    ),
    "view": (
        "CREATE TABLE {0}_t (id INTERVAL, v INT); CREATE VIEW {0} AS SELECT * FROM {0}_t",
        "INTERVAL '1 day' * seq, seq",
    ),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_large_table_of_postgresql_is_read_in_ranges(on_postgresql, case, monkeypatch, caplog):
    pipeline, (create, values) = on_postgresql, RANGES[case]
    monkeypatch.setattr(glue_job, "choose_plan", lambda *_: ("scan", "many_ids"))
    monkeypatch.setattr(glue_job, "MAX_RANGE_ROWS", 6_000)
    table = pipeline.name + ("_t" if case == "view" else "")
    pipeline.sql(
        create.format(pipeline.name),
        f"INSERT INTO {table} SELECT {values} FROM {pipeline.series(60_000)}",
        f"ANALYZE {table}",
    )
    rows = pipeline.table_texts(["encode(id, 'hex')" if "BYTEA" in create else "id::text", "v"])
    ids = {v: key for key, v in rows}
    pipeline.put("\n".join(json.dumps({"id": ids.get(v, "x"), "v": None}) for v in (0, 1, 33_333, 60_000)).encode())
    with caplog.at_level("INFO"):
        result = pipeline.run()
    cells = [line.split(",")[:2] for line in pipeline.output().decode().splitlines()[1:]]
    assert cells == [["x", ""], [ids[1], "1"], [ids[33_333], "33333"], [ids[60_000], "60000"]]
    assert (result.table_rows, result.unmatched, result.table_duplicates) == (60_000, 59_997, 0)
    ranges = re.search(r"read in (\d+) ranges of column '(\w+)'", caplog.text)
    assert ranges is None if case == "view" else 6 <= int(ranges[1]) <= 20
    if ranges:
        assert ranges[2] == ("v" if "other" in case else "id")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_literals_hold_no_text_that_could_end_them(text):
    literal = MySQL().text_literal(text)
    assert re.fullmatch("_utf8mb4 x'[0-9a-f]*'", literal)
    literal = PostgreSQL().text_literal(text)
    assert re.fullmatch(r"E'([A-Za-z0-9 _.-]|\\U[0-9a-f]{8})*'", literal)


def test_literals_of_postgresql_are_the_text_itself(connection):
    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def check(text):
        assert connection.execute(f"SELECT {PostgreSQL().text_literal(text)}").fetchall() == [(text,)]

    check()


def test_text_expressions():
    mysql, postgresql = MySQL(), PostgreSQL()
    assert mysql.text_expression(TableColumn("a`b", "int", "int(11)")) == "CAST(`a``b` AS CHAR CHARACTER SET utf8mb4)"
    assert mysql.text_expression(TableColumn("a", "bit", "bit(8)")) == "CAST(`a` + 0 AS CHAR CHARACTER SET utf8mb4)"
    assert mysql.text_expression(TableColumn("a", "blob", "blob")) == "LOWER(HEX(`a`))"
    assert postgresql.text_expression(TableColumn('a"b', "integer", "integer")) == '"a""b"::text'
    assert postgresql.text_expression(TableColumn("a", "bytea", "bytea")) == "encode(\"a\", 'hex')"


@pytest.mark.parametrize(
    ("kind", "text", "literal"),
    [
        ("tinyint(4)", "-128", "-128"),
        ("tinyint(4)", "128", None),
        ("tinyint(3) unsigned", "255", "255"),
        ("tinyint(3) unsigned", "-1", None),
        ("bigint(20) unsigned", "18446744073709551615", "18446744073709551615"),
        ("bigint(20)", "9223372036854775808", None),
        ("int(11)", "1) OR (1=1", None),
        ("int(11)", "٣", None),
        ("int(11)", "7\n", None),
        ("decimal(9,2)", "1.50", "1.50"),
        ("decimal(9,2)", "1e5", None),
        ("binary(2)", "00ff", "x'00ff'"),
        ("binary(2)", "00FF", None),
        ("varbinary(9)", "0", None),
        ("varchar(9)", "'", "_utf8mb4 x'27'"),
    ],
)
def test_ids_that_no_row_can_have_are_not_asked_for(kind, text, literal):
    column = TableColumn("id", kind.partition("(")[0], kind, "utf8mb4" if "char" in kind else None)
    assert MySQL().key_literal(column, text) == literal


@pytest.mark.parametrize(
    ("kind", "text", "literal"),
    [
        ("smallint", "-32768", "'-32768'"),
        ("smallint", "32768", None),
        ("integer", "2147483648", None),
        ("bigint", "-9223372036854775808", "'-9223372036854775808'"),
        ("bigint", "9223372036854775808", None),
        ("integer", "1) OR (1=1", None),
        ("integer", "007", None),
        ("numeric", "1.50", "E'1.50'"),
        ("numeric", "NaN", "E'NaN'"),
        ("numeric", "1e5", None),
        ("uuid", "123e4567-e89b-12d3-a456-426655440000", "E'123e4567-e89b-12d3-a456-426655440000'"),
        ("uuid", "123E4567-e89b-12d3-a456-426655440000", None),
        ("bytea", "00ff", r"E'\U0000005cx00ff'"),
        ("bytea", "00FF", None),
        ("text", "'", r"E'\U00000027'"),
        ("text", "a\0", None),
    ],
)
def test_ids_that_no_row_of_postgresql_can_have_are_not_asked_for(kind, text, literal):
    assert PostgreSQL().key_literal(TableColumn("id", kind, kind, "UTF8"), text) == literal


@pytest.mark.parametrize(("charset", "expected"), [("UTF8", True), ("LATIN1", False), ("EUC_JP", False)])
def test_texts_are_looked_up_where_the_database_can_hold_any(charset, expected):
    assert PostgreSQL().can_look_up(TableColumn("id", "text", "text", charset)) is expected
    assert PostgreSQL().can_look_up(TableColumn("id", "bigint", "bigint", charset))


# What follows the table `{0} (id TEXT COLLATE no_case, v INT)` -> first column, unique, alone, primary of its indexes
INDEXES = {
    "CREATE UNIQUE INDEX ON {0} (id)": [("id", True, True, False)],
    "CREATE UNIQUE INDEX ON {0} (id) INCLUDE (v)": [("id", True, True, False)],
    "CREATE INDEX ON {0} (id, v)": [("id", False, False, False)],
    "ALTER TABLE {0} ADD PRIMARY KEY (v, id)": [("v", True, False, True)],
    "CREATE UNIQUE INDEX ON {0} (id) WHERE v > 0": [],
    "CREATE INDEX ON {0} (lower(id))": [],
    "CREATE INDEX ON {0} USING hash (id)": [],
    'CREATE INDEX ON {0} (id COLLATE "C")': [],
    "CREATE INDEX ON {0} (v); CREATE INDEX ON {0} (id text_pattern_ops)": [("v", False, True, False)],
    "CREATE UNIQUE INDEX ON {0} (id); CREATE TABLE {0}_child () INHERITS ({0})": [],
}


@pytest.mark.parametrize("statements", INDEXES)
def test_only_indexes_that_find_any_row_by_its_key_count(connection, statements):
    name = f"i{next(NUMBERS)}"
    connection.execute(f"CREATE TABLE {name} (id TEXT{'' if 'pattern' in statements else ' COLLATE no_case'}, v INT)")
    connection.execute(statements.format(name))

    def ask(sql: str) -> list[dict[str, str | None]]:
        answer = connection.execute(sql)
        labels = [column.name for column in answer.description]
        return [{k: {True: "t", False: "f"}.get(v, v) for k, v in zip(labels, row, strict=True)} for row in answer]

    assert PostgreSQL().indexes(ask, TableName("demo", "public", name)) == INDEXES[statements]


def test_a_session_can_only_read(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(
        f"CREATE TABLE {pipeline.name}_log (n INT)",
        f"CREATE FUNCTION {pipeline.name}_f() RETURNS INT VOLATILE LANGUAGE SQL AS "
        f"'INSERT INTO {pipeline.name}_log VALUES (1) RETURNING n'",
        f"CREATE VIEW {pipeline.name} AS SELECT seq AS id, {pipeline.name}_f() AS v FROM {pipeline.series(3)}",
    )
    pipeline.put(b'{"id":1}')
    with pytest.raises(TableError, match="cannot execute INSERT in a read-only transaction"):
        pipeline.run()


def test_rows_are_fetched_in_pieces(on_postgresql, settings_of_the_user):
    pipeline = on_postgresql
    pipeline.sql(f"CREATE TABLE {pipeline.name} AS SELECT seq AS id, seq AS v FROM {pipeline.series(25_000)}")
    settings_of_the_user("log_statement = 'all'")
    pipeline.put(b'{"id":1}')
    assert pipeline.run().table_rows == 25_000
    assert len(re.findall("execute fetch from", pipeline.database.log.read_text())) == 2


def test_the_table_may_be_in_another_schema_and_another_database_than_that_of_the_url(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(f'CREATE DATABASE "{pipeline.name} ?&"')
    with pipeline.database.connect(autocommit=True, dbname=f"{pipeline.name} ?&") as client:
        client.execute("""CREATE SCHEMA "App"; CREATE TABLE "App"."Orders" AS SELECT 1 AS id, 'x' AS v""")
    pipeline.secret(db_name=f"{pipeline.name} ?&", table_name="Orders")
    pipeline.put(b'{"id":1}')
    with pytest.raises(TableError, match=r"public.Orders does not exist.*did you mean 'App.Orders'"):
        pipeline.run()
    pipeline.run(schema_name="App")
    assert pipeline.output() == b"id,v\n1,x\n"


def test_columns_that_the_user_may_not_read_are_not_there(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(
        f"CREATE ROLE {pipeline.name} LOGIN PASSWORD 'reader'",
        f"CREATE TABLE {pipeline.name} AS SELECT 1 AS id, 2 AS a, 3 AS b",
    )
    pipeline.secret(username=pipeline.name, password="reader")
    pipeline.put(b'{"id":1}')
    with pytest.raises(TableError, match=f"{pipeline.name} does not exist, or '{pipeline.name}' may not read it"):
        pipeline.run()
    pipeline.sql(f"GRANT SELECT (id, b) ON {pipeline.name} TO {pipeline.name}")
    pipeline.run()
    assert pipeline.output() == b"id,b\n1,3\n"


def test_enforced_tls_encrypts(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(f"CREATE VIEW {pipeline.name} AS SELECT 1 AS id, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    pipeline.put(b'{"id":1}')
    for enforced, added, answer in (("true", "", b"true"), ("false", "?sslmode=disable", b"false")):
        pipeline.connection(JDBC_ENFORCE_SSL=enforced, JDBC_CONNECTION_URL=pipeline.database.jdbc_url + added)
        pipeline.run()
        assert pipeline.output() == b"id,ssl\n1," + answer + b"\n"
