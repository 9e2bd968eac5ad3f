"""Section `table`: the database's own text for every type, ranges, keys, and names that need quoting."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import (
    Session,
    TableColumn,
    TableError,
    hash_ranges,
    integer_cuts,
    make_database,
    range_predicates,
    table_error,
)
from tests.test_secret import SECRET

DATABASE = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET)
# SQL type, value as SQL, the text in the CSV
TYPES = [
    ("TINYINT(1)", "1", "1"),
    ("BOOLEAN", "FALSE", "0"),
    ("TINYINT", "-128", "-128"),
    ("SMALLINT UNSIGNED", "65535", "65535"),
    ("MEDIUMINT", "-8388608", "-8388608"),
    ("INT(5) ZEROFILL", "42", "00042"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("DECIMAL(12,4)", "1.5", "1.5000"),
    ("DECIMAL(65,30)", "0.1", "0.100000000000000000000000000000"),
    ("FLOAT", "1.1", "1.1"),
    ("DOUBLE", "0.1", "0.1"),
    ("BIT(1)", "b'1'", "1"),
    ("BIT(64)", "b'1111111111111111111111111111111111111111111111111111111111111111'", str(2**64 - 1)),
    ("DATE", "'2026-01-02'", "2026-01-02"),
    ("DATE", "'0000-00-00'", "0000-00-00"),
    ("DATETIME", "'2026-01-02 03:04:05'", "2026-01-02 03:04:05"),
    ("DATETIME(6)", "'2026-01-02 03:04:05.000100'", "2026-01-02 03:04:05.000100"),
    ("DATETIME", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
    ("TIMESTAMP(3) NULL", "'2026-01-02 03:04:05.120'", "2026-01-02 03:04:05.120"),
    ("TIME", "'-838:59:59'", "-838:59:59"),
    ("TIME(3)", "'25:00:00.5'", "25:00:00.500"),
    ("YEAR", "2026", "2026"),
    ("CHAR(5)", "'007'", "007"),
    ("VARCHAR(20)", "'  髙橋 😀 '", "  髙橋 😀 "),
    ("VARCHAR(20)", "''", ""),
    ("TEXT", "'line\n\"two\",'", 'line\n"two",'),
    ("LONGTEXT CHARACTER SET cp932", "'①髙'", "①髙"),
    ("VARCHAR(20) CHARACTER SET latin1", "'é'", "é"),
    ("VARCHAR(20) CHARACTER SET ujis", "'日本'", "日本"),
    ("ENUM('a','日')", "'日'", "日"),
    ("SET('a','b')", "'a,b'", "a,b"),
    ("JSON", "'{\"a\": [1, 1.10]}'", '{"a": [1, 1.10]}'),
    ("BINARY(3)", "x'00ff0a'", "00ff0a"),
    ("VARBINARY(10)", "x'DEADBEEF'", "deadbeef"),
    ("BLOB", "x''", ""),
    ("LONGBLOB", "x'ff'", "ff"),
    ("POINT", "POINT(1, 2.5)", "POINT(1 2.5)"),
    ("INET6", "'::1'", "::1"),
    ("UUID", "'123e4567-e89b-12d3-a456-426655440000'", "123e4567-e89b-12d3-a456-426655440000"),
    ("INT AS (1 + 1) STORED", "DEFAULT", "2"),
]


def test_every_type_is_the_databases_own_text(by_each_driver):
    pipeline = by_each_driver
    columns = ", ".join(f"c{i} {kind}" for i, (kind, _, _) in enumerate(TYPES))
    values = ", ".join(value for _, value, _ in TYPES)
    nulls = ", ".join("DEFAULT" if value == "DEFAULT" else "NULL" for _, value, _ in TYPES)
    pipeline.sql(
        "SET sql_mode = ''",
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4",
    )
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute(f"INSERT INTO {pipeline.name} VALUES (1, {values}), (2, {nulls})")
    pipeline.put(b'{"id":1}\n{"id":2}')
    pipeline.run()
    _, first, second = csv.reader(io.StringIO(pipeline.output().decode(), newline=""))
    assert dict(zip(TYPES, first[1:], strict=True)) == {kind: kind[2] for kind in TYPES}
    assert dict(zip(TYPES, second[1:], strict=True)) == {k: "2" if k[1] == "DEFAULT" else "" for k in TYPES}
    assert b',"",' in pipeline.output().split(b"\n")[1]  # an empty string is present


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        *(("pipeline", kind) for kind in ("INT(6) ZEROFILL", "BIGINT UNSIGNED", "TINYINT(1)", "VARCHAR(9)")),
        *(("by_connector_j", kind) for kind in ("INT(6) ZEROFILL", "TINYINT(1)")),
        *(("on_postgresql", kind) for kind in ("BIGINT", "SMALLINT", "whole", "VARCHAR(9)")),
    ],
)
def test_key_spellings_match_integers_only(request, server, kind):
    pipeline = request.getfixturevalue(server)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {kind} PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} VALUES (7, 70), (8, 80)",
    )
    pipeline.put(b'{"id":7}\n{"id":"7"}\n{"id":"007"}\n{"id":7.0}\n{"id":" 7"}')
    result = pipeline.run()
    lines = pipeline.output().decode().splitlines()[1:]
    if kind == "VARCHAR(9)":
        assert lines == ["7,70", "7,70", "007,", "7.0,", " 7,"]
    else:
        assert lines == ["7,70", "7,70", "007,70", "7.0,70", " 7,"]
    assert result.unmatched_ids == ["000008" if "ZEROFILL" in kind else "8"]


def test_text_keys_compare_byte_for_byte_whatever_the_collation(on_each):
    pipeline = on_each
    collation = "no_case" if pipeline.on_postgresql else "utf8mb4_general_ci"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id VARCHAR(9) COLLATE {collation} PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} VALUES ('a', 1), ('É', 2)",
    )
    pipeline.put('{"id":"A"}\n{"id":"a"}\n{"id":"E"}\n{"id":"É"}\n{"id":"a "}'.encode())
    pipeline.run()
    assert pipeline.output().decode().splitlines()[1:] == ["A,", "a,1", "E,", "É,2", "a ,"]


HOSTILE = ["a`b", 'a"b', "a'b", "a,b", "a.b", "a b", "列", "a\\b", "a?b", "{a}", "$1", "--", "x" * 63]
HOSTILE += ["select", "match", "pos", "line", "c0", "k"]


def test_names_need_no_care(on_each):
    pipeline, quote_name = on_each, on_each.engine.quote_name
    columns = ", ".join(f"{quote_name(name)} INT" for name in HOSTILE)
    table = f't`"?{pipeline.name}'
    pipeline.sql(
        f"CREATE TABLE {quote_name(table)} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {quote_name(table)} VALUES (1, {', '.join(map(str, range(len(HOSTILE))))})",
    )
    pipeline.secret(table_name=table)
    pipeline.put(b'{"id":1,"line":null}')
    pipeline.run()
    header, row = csv.reader(io.StringIO(pipeline.output().decode(), newline=""))
    assert dict(zip(header, row, strict=True)) == {"id": "1"} | {name: str(i) for i, name in enumerate(HOSTILE)}


def test_duplicate_keys_use_the_row_that_sorts_first(on_each):
    pipeline = on_each
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT, v VARCHAR(9))",
        f"INSERT INTO {pipeline.name} VALUES (1,'b'),(1,'a'),(1,'B'),(2,NULL),(2,'x'),(3,'y'),(3,'y')",
        f"INSERT INTO {pipeline.name} VALUES (NULL,'n'),(NULL,'m')",
    )
    pipeline.put(b'{"id":1}\n{"id":2}\n{"id":null}')
    result = pipeline.run()
    assert pipeline.output().decode() == "id,v\n1,B\n2,\n,\n"
    assert (result.table_rows, result.table_duplicates, result.unmatched, result.unmatched_ids) == (9, 4, 4, ["3"])


def test_five_hundred_columns(pipeline):
    columns = ", ".join(f"c{i} INT" for i in range(500))
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {pipeline.name} VALUES (1, {', '.join(map(str, range(500)))})",
    )
    pipeline.put(b'{"id":1,"c7":null,"c8":"x"}\n{"id":2}')
    result = pipeline.run()
    header, first, second = pipeline.output().decode().splitlines()
    assert header.split(",") == ["id", "c7", "c8", *(f"c{i}" for i in range(500) if i not in {7, 8})]
    assert first.split(",") == ["1", "7", "x", *(str(i) for i in range(500) if i not in {7, 8})]
    assert second == "2" + "," * 500
    assert result.filled_cells == 499


def test_empty_table(on_each):
    pipeline = on_each
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, v INT)")
    pipeline.put(b'[{"id":1}]')
    result = pipeline.run()
    assert pipeline.output() == b"id,v\n1,\n"
    assert (result.table_rows, result.unmatched, result.source_only) == (0, 0, 1)


RANGES = {
    "skewed primary key": ("id BIGINT PRIMARY KEY, v INT", "CAST(seq AS SIGNED) - 400000 + (seq = 800000) * 1e15, seq"),
    "text primary key": ("id VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT", "CONCAT('K''', seq), seq"),
    "binary key, other primary key": ("v INT PRIMARY KEY, id BINARY(4)", "seq, UNHEX(LPAD(HEX(seq), 8, '0'))"),
    "few values before the key": ("t INT, id INT, v INT, PRIMARY KEY (t, id), KEY (id)", "seq % 2, seq, seq"),
    "no index": ("id DATE, v INT", "'2000-01-01' + INTERVAL seq DAY, seq"),
}


@pytest.mark.parametrize(
    ("server", "case"),
    [*(("pipeline", case) for case in RANGES), ("by_connector_j", "text primary key")],
)
def test_a_large_table_is_read_in_ranges(request, server, case, monkeypatch, caplog):
    pipeline, (columns, values) = request.getfixturevalue(server), RANGES[case]
    monkeypatch.setattr(glue_job, "choose_plan", lambda *_: ("scan", "many_ids"))
    monkeypatch.setattr(glue_job, "MAX_RANGE_ROWS", 20_000)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} ({columns})",
        f"INSERT INTO {pipeline.name} SELECT {values} FROM seq_1_to_200000",
        f"ANALYZE TABLE {pipeline.name}",
    )
    rows = pipeline.table_texts(["LOWER(HEX(id))" if "BINARY" in columns else "CAST(id AS CHAR)", "v"])
    ids = {v: key for key, v in rows}
    pipeline.put("\n".join(json.dumps({"id": ids.get(v, "x"), "v": None}) for v in (0, 1, 77_777, 200_000)).encode())
    with caplog.at_level("INFO"):
        result = pipeline.run()
    cells = [line.split(",")[:2] for line in pipeline.output().decode().splitlines()[1:]]
    assert cells == [["x", ""], [ids[1], "1"], [ids[77_777], "77777"], [ids[200_000], "200000"]]
    assert (result.table_rows, result.unmatched, result.table_duplicates) == (200_000, 199_997, 0)
    ranges = re.search(r"read in (\d+) ranges of column '(\w+)'", caplog.text)
    assert ranges is None if case == "no index" else 8 <= int(ranges[1]) <= 20
    if ranges:
        assert ranges[2] == ("v" if "other" in case else "id")


def test_a_view_that_may_not_be_explained_is_counted(pipeline):
    """Without SHOW VIEW the optimizer gives no estimate, and a table of no rows would be read by one task."""
    name = pipeline.name
    pipeline.sql(
        f"CREATE TABLE {name}_t (id INT PRIMARY KEY)",
        f"INSERT INTO {name}_t SELECT seq FROM seq_1_to_1234",
        f"CREATE VIEW {name} AS SELECT id FROM {name}_t",
        f"CREATE USER {name} IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {name} TO {name}",
    )
    database = pipeline.target(username=name, password="pw")
    with Session(pipeline.spark, database) as session:
        assert glue_job.describe_table(session, database, "id").rows == 1234


def test_an_estimate_that_a_lost_connection_took_is_asked_for_again():
    class Lost:
        engine = glue_job.MySQL()

        def ask(self, _sql: str) -> list[dict[str, str | None]]:
            raise table_error("java.sql.SQLNonTransientConnectionException: connection closed", DATABASE)

    with pytest.raises(TableError) as caught:
        glue_job.estimate_rows(Lost(), "id", "t")
    assert caught.value.passing


@pytest.mark.parametrize(
    ("row_bytes", "rows"), [(0, 10_000), (150, 10_000), (16_384, 1_024), (400_000, 41), (2**30, 1)]
)
def test_the_rows_that_a_driver_holds_are_bounded_by_their_bytes(row_bytes, rows):
    key = TableColumn("id", "bigint", "bigint(20)")
    table = glue_job.Table(DATABASE, (key,), key, True, True, (), 10**6, row_bytes, 9)
    assert table.rows_within(glue_job.CHUNK_BYTES, glue_job.FETCH_ROWS) == rows


def test_hashed_ranges_cover_every_key_once(on_each):
    pipeline = on_each
    kind, times = ("DATETIME", "INTERVAL seq SECOND")
    if pipeline.on_postgresql:
        kind, times = ("TIMESTAMP", "INTERVAL '1 second' * seq")
    pipeline.sql(f"CREATE TABLE {pipeline.name} (k {kind}(3))")
    pipeline.sql(f"INSERT INTO {pipeline.name} SELECT NOW() + {times} FROM {pipeline.series(100)}")
    pipeline.sql(f"INSERT INTO {pipeline.name} VALUES (NULL), ('2026-01-01')")
    predicates = hash_ranges(pipeline.engine, 7)
    [counts] = pipeline.table_texts([f"COUNT(CASE WHEN {predicate} THEN 1 END)" for predicate in predicates])
    assert sum(counts) == 102
    assert min(counts) > 0


@given(
    st.integers(-(2**63), 2**64),
    st.integers(0, 2**64),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(0, 2**64), st.integers(1, 10**9)), max_size=5),
)
def test_ranges_cover_every_key_once(low, span, most, rows, heaps):
    def rows_between(start: int, end: int) -> int:
        return sum(rows for offset, rows in heaps if start <= low + offset % (span + 1) < end)

    cuts = integer_cuts(low, low + span, most, rows, rows_between)
    assert cuts == sorted(set(cuts))
    predicates = range_predicates([str(cut) for cut in cuts])
    assert len(predicates) == len(cuts) + 1
    keys = {low, low + span, low - 5, low + span + 5, *cuts, *(cut - 1 for cut in cuts)}
    for key in keys:
        python = [p.replace("1 = 1", "True").replace("OR k IS NULL", "").replace("AND", "and") for p in predicates]
        assert sum(eval(text, {"k": key}) for text in python) == 1


@pytest.mark.parametrize(
    "ids",
    [
        range(1, 1_000_001),
        [*range(1, 1_000_000), 10**15],
        [i * 10**12 for i in range(-500_000, 500_000)],
        [*range(500_000), *range(2**60, 2**60 + 500_000)],
    ],
    ids=["dense", "one far away", "sparse", "two heaps"],
)
@pytest.mark.parametrize("doubled", [1, 2])
def test_ranges_of_skewed_and_sparse_ids_are_even(ids, doubled):
    def rows_between(start: int, end: int) -> int:
        return doubled * (bisect_left(ids, end) - bisect_left(ids, start))

    cuts = integer_cuts(ids[0], ids[-1], len(ids) // 40, len(ids), rows_between)
    ends = [0, *(bisect_left(ids, cut) for cut in cuts), len(ids)]
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    assert max(sizes) <= len(ids) // 40
    assert 40 <= len(sizes) <= 64


def test_unknown_failures_keep_the_databases_words():
    error = table_error("boom\nCaused by: java.sql.SQLException: Table is marked as crashed\n\tat x", DATABASE)
    assert isinstance(error, TableError)
    assert error.details["problem"] == "java.sql.SQLException: Table is marked as crashed"


POSTGRESQL = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:postgresql://db:5432/shop"}, SECRET)
FATAL = "org.postgresql.util.PSQLException: FATAL: "


@pytest.mark.parametrize(
    ("database", "text", "code"),
    [
        (DATABASE, "java.sql.SQLException: Access denied for user 'etl'@'%' (using password: YES)", "login_refused"),
        (DATABASE, "java.sql.SQLException: Access denied for user 'etl'@'%' to database 'shop'", "table_missing"),
        (DATABASE, "java.sql.SQLSyntaxErrorException: Unknown database 'shop'", "table_missing"),
        (
            DATABASE,
            "java.sql.SQLNonTransientConnectionException: Socket fail to connect to host:address=(host=db)(port=3306)",
            "database_unreachable",
        ),
        (
            DATABASE,
            "com.mysql.cj.jdbc.exceptions.MySQLTransactionRollbackException: Lock wait timeout",
            "database_failed",
        ),
        (POSTGRESQL, f'{FATAL}password authentication failed for user "etl"', "login_refused"),
        (POSTGRESQL, f'{FATAL}PAM authentication failed for user "etl"', "login_refused"),
        (POSTGRESQL, f'{FATAL}role "etl" is not permitted to log in', "login_refused"),
        (POSTGRESQL, f'{FATAL}database "shop" does not exist', "table_missing"),
        (POSTGRESQL, f'{FATAL}permission denied for database "shop"', "table_missing"),
        (POSTGRESQL, f'{FATAL}no pg_hba.conf entry for host "::1", user "etl", no encryption', "database_failed"),
        (POSTGRESQL, f"{FATAL}sorry, too many clients already", "database_failed"),
        (POSTGRESQL, "org.postgresql.util.PSQLException: The connection attempt failed.", "database_unreachable"),
    ],
)
def test_failures_have_the_same_names_whichever_database_tells(database, text, code):
    error = table_error(f"boom\n\tat x\nCaused by: {text}\n\tat y", database)
    assert error.code == code
    assert code != "database_failed" or error.details["problem"] == text


def test_failures_of_spark_itself_are_not_blamed_on_the_database():
    assert table_error("Job aborted: java.lang.OutOfMemoryError: Java heap space", DATABASE) is None
