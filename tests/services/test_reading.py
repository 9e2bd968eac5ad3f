"""`table.jdbc`, `table.pool` and `table.lookup` on real servers by each driver: SQL in, rows out, failures named."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError

from overlay.connection import make_database
from overlay.errors import TableError, TransientTableError
from overlay.table import jdbc
from overlay.table.jdbc import Connection, causes, database_errors, retried
from overlay.table.lookup import count_rows, first_unmatched, ids_in_order
from overlay.table.pool import ConnectionPool, results

NUMBER = pa.schema([("n", pa.int64())])


def connect(pipeline, **secret: str) -> Connection:
    """A connection of the job."""
    return Connection(pipeline.target(**secret))


def sleep_sql(pipeline, seconds: float) -> str:
    """SQL that takes its time."""
    return f"SELECT pg_sleep({seconds})" if pipeline.on_postgresql else f"SELECT SLEEP({seconds})"


def numbers(pipeline, count: int, sql: str = "seq") -> str:
    """SQL for that many rows."""
    return f"SELECT {sql} AS n FROM {pipeline.series(count)}"


@contextmanager
def small_account(pipeline, connections: int = 1) -> Iterator[dict[str, str]]:
    """The login of a user who may have so many connections at a time."""
    name = f"{pipeline.name}_small"
    if pipeline.on_postgresql:
        pipeline.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'pw' CONNECTION LIMIT {connections}")
    else:
        limit = f"WITH MAX_USER_CONNECTIONS {connections}"
        pipeline.sql(f"CREATE USER {name} IDENTIFIED BY 'pw' {limit}", f"GRANT SELECT ON *.* TO {name}")
    yield {"username": name, "password": "pw"}


# One connection.


def test_an_answer_has_the_labels_of_its_columns(on_each):
    with connect(on_each) as connection:
        assert connection.ask("SELECT 1 AS a, NULL AS b, 'x' AS c, '' AS d") == [
            {"a": "1", "b": None, "c": "x", "d": ""}
        ]
        assert connection.ask("SELECT 1 AS a WHERE 1 = 0" if on_each.on_postgresql else "SELECT 1 AS a LIMIT 0") == []
        assert connection.ask("SET @x = 1" if not on_each.on_postgresql else "SET search_path = public") == []


def test_batches_are_numbers_texts_and_bytes(on_each):
    union = "SELECT {0} AS a, 'x' AS b, {1} AS c UNION ALL SELECT NULL, NULL, NULL UNION ALL SELECT 7, '', {1}"
    literals = (
        ("-9223372036854775808", "'\\x00ff'::bytea") if on_each.on_postgresql else ("-9223372036854775808", "x'00ff'")
    )
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.binary())])
    with connect(on_each) as connection:
        batches = list(connection.batches(union.format(*literals), schema, 100))
        assert [batch.schema for batch in batches] == [schema]
        assert pa.Table.from_batches(batches).to_pylist() == [
            {"a": -(2**63), "b": "x", "c": b"\0\xff"},
            {"a": None, "b": None, "c": None},
            {"a": 7, "b": "", "c": b"\0\xff"},
        ]


def test_an_answer_without_rows_is_no_batch_and_the_connection_goes_on(on_each):
    with connect(on_each) as connection:
        for _ in range(2):
            assert list(connection.batches(numbers(on_each, 3) + " WHERE 1 = 0", NUMBER, 100)) == []
            [batch] = connection.batches(numbers(on_each, 3), NUMBER, 100)
            assert batch.column(0).to_pylist() == [1, 2, 3]
            assert connection.ask("SELECT 5 AS n") == [{"n": "5"}]


def test_many_rows_come_in_batches_of_a_bounded_size(on_each):
    with connect(on_each) as connection:
        sizes, total = [], 0
        for batch in connection.batches(numbers(on_each, 23_000), NUMBER, 10_000):
            sizes.append(batch.num_rows)
            total += sum(batch.column(0).to_pylist())
        assert total == 23_000 * 23_001 // 2
        assert max(sizes) == 5_000
        assert max(batch.num_rows for batch in connection.batches(numbers(on_each, 1_000), NUMBER, 10)) == 10


def test_rows_are_fetched_while_the_server_still_sends(on_each):
    """What is read is not held: the first batch is here long before the last row is made."""
    slow = "CASE WHEN seq > 20000 THEN {} ELSE 0 END".format(
        "length(pg_sleep(1)::text)" if on_each.on_postgresql else "SLEEP(1)"
    )
    with connect(on_each) as connection:
        began = time.monotonic()
        batches = connection.batches(numbers(on_each, 20_002, slow), NUMBER, 1_000)
        first = next(batches)
        if not on_each.driver:  # MySQL Connector/J reads by a cursor, for which the server makes all rows before
            assert time.monotonic() - began < 1
        assert first.num_rows + sum(batch.num_rows for batch in batches) == 20_002
        assert time.monotonic() - began > 2


def test_rows_of_postgresql_are_fetched_in_pieces(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(f"ALTER ROLE {pipeline.database.user} SET log_statement = 'all'")
    try:
        with connect(pipeline) as connection:
            sql = numbers(pipeline, 25_000) + f" -- {pipeline.name}"
            assert sum(batch.num_rows for batch in connection.batches(sql, NUMBER, 10_000)) == 25_000
    finally:
        pipeline.sql(f"ALTER ROLE {pipeline.database.user} RESET log_statement")
    log = pipeline.database.log.read_text()
    assert len(re.findall(f"execute fetch from [^\n]*-- {pipeline.name}", log)) == 2


def test_a_session_can_only_read(on_each):
    pipeline = on_each
    pipeline.sql(f"CREATE TABLE {pipeline.name} (n INT)", f"INSERT INTO {pipeline.name} VALUES (1)")
    words = "cannot execute DELETE in a read-only transaction" if pipeline.on_postgresql else "READ ONLY transaction"
    for begin in ([], [numbers(pipeline, 1)]):  # in a transaction of its own, and in that of batches
        with pytest.raises(TableError, match=words) as caught, connect(pipeline) as connection:
            for sql in begin:
                list(connection.batches(sql, NUMBER, 10))
            connection.ask(f"DELETE FROM {pipeline.name}")
        assert type(caught.value) is TableError
    assert pipeline.table_texts(["n"]) == [(1,)]


def test_what_a_view_of_postgresql_does_can_only_read_too(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(
        f"CREATE TABLE {pipeline.name}_log (n INT)",
        f"CREATE FUNCTION {pipeline.name}_f() RETURNS INT VOLATILE LANGUAGE SQL AS "
        f"'INSERT INTO {pipeline.name}_log VALUES (1) RETURNING n'",
        f"CREATE VIEW {pipeline.name} AS SELECT seq AS id, {pipeline.name}_f() AS n FROM {pipeline.series(3)}",
    )
    with pytest.raises(TableError, match="cannot execute INSERT in a read-only transaction"):
        with connect(pipeline) as connection:
            list(connection.batches(f"SELECT n FROM {pipeline.name}", NUMBER, 10))


def test_enforced_tls_encrypts(on_each):
    if on_each.on_postgresql:
        sql, plain = (
            "SELECT CASE WHEN ssl THEN 'yes' END AS v FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            "sslmode=disable",
        )
    else:
        sql, plain = "SHOW STATUS LIKE 'Ssl_cipher'", "sslMode=DISABLED&useSSL=false"
    properties, secret = on_each.properties(), on_each.target().secret
    url = properties["JDBC_CONNECTION_URL"]
    for enforced, added in (("true", ""), ("false", ("&" if "?" in url else "?") + plain)):
        changes = {"JDBC_ENFORCE_SSL": enforced, "JDBC_CONNECTION_URL": url + added}
        with Connection(make_database("c", properties | changes, secret)) as connection:
            [answer] = connection.ask(sql)
        assert bool(list(answer.values())[-1]) == (enforced == "true")


# Failures.


def test_failures_are_named_by_what_the_driver_itself_says(on_each):
    pipeline = on_each
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT)",
        *([f"CREATE ROLE {pipeline.name} LOGIN PASSWORD 'pw'"] if pipeline.on_postgresql else []),
        *(
            []
            if pipeline.on_postgresql
            else [f"CREATE USER {pipeline.name} IDENTIFIED BY 'pw'", f"GRANT SELECT ON other.* TO {pipeline.name}"]
        ),
    )
    cases: list[tuple[dict[str, str], str, str, str]] = [
        ({"password": "wrong"}, "", "login_refused", "refused the login of 'etl'"),
        ({"db_name": "nope"}, "", "table_missing", f"{pipeline.name} does not exist"),
        (
            {"username": pipeline.name, "password": "pw"},
            f"SELECT id FROM {pipeline.name}",
            "table_missing",
            "may not read it",
        ),
        ({}, f"SELECT id FROM {pipeline.name}_gone", "table_missing", f"{pipeline.name} does not exist"),
        ({}, "SELEC 1", "database_failed", "(?i)syntax"),
        ({}, "SELECT (SELECT 1 UNION SELECT 2)", "database_failed", "(?i)more than (one|1) row"),
    ]
    if not pipeline.on_postgresql:
        cases[1] = ({"db_name": "nope"}, "SELECT 1 FROM nope.t", *cases[1][2:])  # a session reads any database
    for secret, sql, code, words in cases:
        with pytest.raises(TableError, match=words) as caught, connect(pipeline, **secret) as connection:
            connection.ask(sql or "SELECT 1")
        assert (type(caught.value), caught.value.code) == (TableError, code)
        assert pipeline.database.password not in str(caught.value)


def test_a_failure_amid_an_answer_of_any_size_is_not_its_end(on_each):
    """Rows were read before; the thread of the JVM that wrote them tells."""
    if on_each.on_postgresql:
        sql = numbers(on_each, 20_000, "1 / (19000 - seq)")
    else:
        sql = numbers(on_each, 20_000, "IF(seq < 19000, seq, (SELECT 1 UNION SELECT seq))")
    rows = 0
    with (
        pytest.raises(TableError, match=r"(?i)division by zero|more than 1 row") as caught,
        connect(on_each) as connection,
    ):
        for batch in connection.batches(sql, NUMBER, 1_000):
            rows += batch.num_rows
    assert caught.value.code == "database_failed"
    assert type(caught.value) is TableError
    assert on_each.driver or rows > 1_000


def test_a_connection_that_the_server_ends_may_come_back(on_each):
    kill = "SELECT pg_terminate_backend({0})" if on_each.on_postgresql else "KILL {0}"
    me = "SELECT pg_backend_pid() AS id" if on_each.on_postgresql else "SELECT CONNECTION_ID() AS id"
    for way in ("ask", "batches"):
        with pytest.raises(TransientTableError) as caught, connect(on_each) as connection:
            [answer] = connection.ask(me)
            timer = threading.Timer(0.3, on_each.sql, [kill.format(answer["id"])])
            timer.start()
            try:
                if way == "ask":
                    connection.ask(sleep_sql(on_each, 30))
                else:
                    list(connection.batches(numbers(on_each, 100, "seq") + slow_where(on_each), NUMBER, 10))
            finally:
                timer.join()
        assert caught.value.code == "database_failed"


def slow_where(pipeline) -> str:
    """A condition that takes 30 s for 100 rows, and lets each through."""
    return " WHERE pg_sleep(0.3) IS NOT NULL" if pipeline.on_postgresql else " WHERE SLEEP(0.3) = 0"


def test_nobody_waits_longer_than_the_limit_for_a_silent_server(on_each):
    on_each.limits = replace(on_each.limits, socket_seconds=1)
    began = time.monotonic()
    with pytest.raises(TransientTableError) as caught, connect(on_each) as connection:
        connection.ask(sleep_sql(on_each, 30))
    assert caught.value.code == "database_failed"
    assert time.monotonic() - began < 10


def test_nobody_waits_longer_than_the_limit_for_a_locked_table(on_each):
    on_each.limits = replace(on_each.limits, lock_seconds=1)
    on_each.sql(f"CREATE TABLE {on_each.name} (id INT)")
    began = time.monotonic()
    with on_each.database.connect() as client, client.cursor() as cursor:
        mode = "IN ACCESS EXCLUSIVE MODE" if on_each.on_postgresql else "WRITE"
        cursor.execute(f"LOCK {'TABLE' if on_each.on_postgresql else 'TABLES'} {on_each.name} {mode}")
        with pytest.raises(TransientTableError, match=r"(?i)lock.*timeout") as caught, connect(on_each) as connection:
            connection.ask(f"SELECT id FROM {on_each.name}")
    assert caught.value.code == "database_failed"
    assert time.monotonic() - began < 10


def test_the_causes_behind_an_exception_have_their_codes(on_each):
    with connect(on_each) as connection:
        statement = connection._connection.createStatement()
        with pytest.raises(Py4JJavaError) as caught:
            statement.execute("SELECT * FROM nope")
    chain = causes(caught.value)
    assert all(cause.type.count(".") > 1 for cause in chain)
    assert all(cause.of_sql and cause.frame for cause in chain)
    expected = ("42P01", 0) if on_each.on_postgresql else ("42S02", 1146)
    assert {(cause.state, cause.code) for cause in chain} == {expected}
    assert "nope" in chain[0].text
    assert causes(ValueError("x")) == []


@pytest.mark.parametrize("missing", ["_load_from_socket", "resultSetToSparkInternalRows", "JavaPackage"])
def test_a_call_that_this_spark_lacks_is_named(pipeline, monkeypatch, missing):
    if missing == "_load_from_socket":
        monkeypatch.delattr(jdbc.rdd, missing)
    with connect(pipeline) as connection, pytest.raises(TableError, match=missing) as caught:
        if missing == "resultSetToSparkInternalRows":  # called as the other Spark's would be
            connection._is_spark_4 = not connection._is_spark_4
        if missing == "JavaPackage":
            with database_errors(connection.database):
                pipeline.spark.sparkContext._jvm.org.apache.spark.sql.Gone()
        list(connection.batches("SELECT 1 AS n", NUMBER, 10))
    assert caught.value.code == "spark_unsupported"


def test_an_exception_aborts_at_once_what_a_connection_waits_for(on_each):
    """Closing would wait for the end of the statement."""
    connection = connect(on_each)
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        with pytest.raises(ZeroDivisionError), connection:
            waiting = threads.submit(connection.ask, sleep_sql(on_each, 30))
            time.sleep(0.5)
            raise ZeroDivisionError
        with pytest.raises(TableError):
            waiting.result()
        assert time.monotonic() - began < 10


# Again.


def test_a_database_that_had_no_connection_left_is_asked_again(on_each, caplog):
    with small_account(on_each) as login:
        first = connect(on_each, **login)
        tries = []

        def ask_once() -> list[dict[str, str | None]]:
            tries.append(1)
            if len(tries) == 3:
                first.abort()
                time.sleep(0.5)
            with connect(on_each, **login) as connection:
                return connection.ask("SELECT 1 AS n")

        with caplog.at_level("WARNING"):
            assert retried(ask_once, (0.01, 0.02, 0.5, 0.5), 600) == [{"n": "1"}]
    assert 3 <= len(tries) <= 5
    assert re.search("(?i)too many connections|max_user_connections", caplog.messages[0])


def test_a_refused_login_is_not_tried_again(on_each):
    tries = []

    def ask_once() -> None:
        tries.append(1)
        connect(on_each, password="wrong")

    with pytest.raises(TableError) as caught:
        retried(ask_once, (60, 60), 600)
    assert (caught.value.code, len(tries)) == ("login_refused", 1)


# Several connections.


def test_a_pool_has_no_more_connections_than_it_may(on_each):
    on_each.sql(f"CREATE TABLE {on_each.name} (id INT)")
    with small_account(on_each, connections=2) as login:
        lock, counts = threading.Lock(), [0, 0]  # now, at most

        def ask_number(connection: Connection, number: int) -> int:
            with lock:
                counts[0] += 1
                counts[1] = max(counts)
            [row] = connection.ask(f"SELECT {number} AS n")
            time.sleep(0.1)
            with lock:
                counts[0] -= 1
            return int(row["n"] or 0)

        def all_numbers() -> list[int]:
            with ConnectionPool(on_each.target(**login), 2) as pool:
                return results([pool.submit(ask_number, number) for number in range(6)])

        # A server counts a connection for a moment after it was closed.
        assert retried(all_numbers, (0.2, 0.5, 1), 600) == list(range(6))
    assert counts[1] == 2


@pytest.mark.parametrize("failure", ["of a read", "of the block"])
def test_a_pool_that_fails_aborts_what_is_open_and_begins_nothing(on_each, failure):
    begun: list[int] = []

    def wait(connection: Connection, number: int) -> None:
        begun.append(number)
        connection.ask(sleep_sql(on_each, 30))

    def fail(connection: Connection) -> None:
        while len(begun) < 1:
            time.sleep(0.01)
        connection.ask("SELEC 1")

    began = time.monotonic()
    expected: type[Exception] = TableError if failure == "of a read" else ZeroDivisionError
    with pytest.raises(expected), ConnectionPool(on_each.target(), 2) as pool:
        first = pool.submit(wait, 1)
        if failure == "of a read":
            futures = [first, pool.submit(fail), *(pool.submit(wait, number) for number in (2, 3, 4))]
            results(futures)
        while not begun:
            time.sleep(0.01)
        raise ZeroDivisionError
    with pytest.raises(TableError):
        first.result(timeout=10)
    assert time.monotonic() - began < 15
    time.sleep(0.2)
    assert len(begun) <= 2  # a thread may have begun the next before it was told


# What a lookup asks beside the rows.


@pytest.fixture
def keyed(on_each):
    """Makes a table of some keys, described."""

    def make(ddl: str, keys: list[str | None], *, unique: bool = False):
        name = on_each.name
        on_each.sql(f"CREATE TABLE {name} (id {ddl}{' PRIMARY KEY' if unique else ''})")
        with on_each.database.connect(autocommit=True) as client, client.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {name} VALUES (%s)", [(key,) for key in keys])
        return on_each.describe()

    return make


def text_type(pipeline) -> str:
    """A type of texts of which the server takes some that differ for equal."""
    return "TEXT COLLATE no_accent" if pipeline.on_postgresql else "TEXT COLLATE utf8mb4_general_ci"


def test_duplicates_are_counted_by_their_bytes(on_each, keyed):
    long = "x" * 70_000  # texts that differ behind what a sort takes of them
    keys = ["a", "A", "á", "a", "a", "", "", None, None, "😀", "😁", f"{long}1", f"{long}2", f"{long}1"]
    table = keyed("LONG" * (not on_each.on_postgresql) + text_type(on_each), keys)
    with Connection(table.database) as connection:
        counts = count_rows(connection, table)
    assert (counts.table_rows, counts.table_duplicates) == (14, 4)


def test_duplicates_of_integers_are_counted_by_their_value(on_each, keyed):
    table = keyed("BIGINT", ["1", "1", "-1", "9223372036854775807", None, None, "1"])
    with Connection(table.database) as connection:
        counts = count_rows(connection, table)
    assert (counts.table_rows, counts.table_duplicates) == (7, 2)


def test_rows_of_a_unique_key_are_counted_alone(on_each, keyed):
    table = keyed("INT", ["1", "2", "3"], unique=True)
    assert table.unique
    with Connection(table.database) as connection:
        counts = count_rows(connection, table)
    assert (counts.table_rows, counts.table_duplicates) == (3, 0)


def test_ids_come_in_order_and_each_once(on_each, keyed):
    texts = ["b", "B", "a", "á", "a", None, "", "😀", "ｱ", "10", "9", "a "]
    table = keyed(text_type(on_each), texts)
    with Connection(table.database) as connection:
        ids = [id_ for array in ids_in_order(connection, table, on_each.limits) for id_ in array.to_pylist()]
        first = [id_ for array in ids_in_order(connection, table, on_each.limits, 3) for id_ in array.to_pylist()]
    assert ids == sorted({text for text in texts if text is not None}, key=str.encode)
    assert first == ids[:3]


def test_integers_come_in_the_order_of_their_values(on_each, keyed):
    table = keyed("BIGINT", ["10", "9", "-1", "9", "9223372036854775807", None])
    with Connection(table.database) as connection:
        ids = [id_ for array in ids_in_order(connection, table, on_each.limits) for id_ in array.to_pylist()]
    assert ids == ["-1", "9", "10", "9223372036854775807"]


def test_the_first_unmatched_ids_are_found_behind_many_matched_ones(on_each, keyed):
    limits = replace(on_each.limits, first_ids=50)
    table = keyed("INT", [str(3 * number) for number in range(1, 600)], unique=True)
    matches = {str(3 * number) for number in range(1, 501) if number not in {480, 490}}
    with Connection(table.database) as connection:
        assert first_unmatched(connection, table, matches, limits) == [
            *("1440", "1470"),
            *(str(3 * number) for number in range(501, 509)),
        ]
        everything = {str(3 * number) for number in range(1, 600)}
        assert first_unmatched(connection, table, everything - {"1797"}, limits) == ["1797"]
        assert first_unmatched(connection, table, everything, limits) == []
        assert first_unmatched(connection, table, set(), limits) == [str(3 * number) for number in range(1, 11)]


def test_the_first_unmatched_texts_are_found_by_their_bytes(on_each, keyed):
    table = keyed(text_type(on_each), ["b", "B", "a", "á", "a", None, "", "A"])
    with Connection(table.database) as connection:
        assert first_unmatched(connection, table, {"a", "B", "x"}, on_each.limits) == ["", "A", "b", "á"]
