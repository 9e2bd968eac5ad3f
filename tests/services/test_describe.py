"""`table.describe` and the catalogues of `dialects` on real servers: columns, indexes, sizes, rights, ranges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.arguments import read_settings
from overlay.connection import make_database
from overlay.dialects.base import Failure, Index
from overlay.dialects.mysql import MySQL
from overlay.errors import TableError, TransientTableError
from overlay.table.describe import describe_table, estimate_rows, read_indexes
from overlay.table.jdbc import Connection, table_error
from overlay.table.lookup import count_rows, first_unmatched
from overlay.table.ranges import cut_table
from tests.conftest import CLOSED_PORT
from tests.unit.test_jdbc_errors import DATABASES, STATEMENTS


def test_a_table_is_described(on_each):
    pipeline = on_each
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (v VARCHAR(9), id INT NOT NULL, w INT, PRIMARY KEY (v, w), UNIQUE (id))",
        f"INSERT INTO {pipeline.name} SELECT CONCAT('v', seq), seq, seq FROM {pipeline.series(1_000)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )
    table = pipeline.describe()
    assert table.names == ("v", "id", "w")
    assert (table.key.name, table.key.is_integer, table.has_zerofill_key) == ("id", True, False)
    assert (table.unique, table.indexed) == (True, True)
    assert [column.name for column in table.ordered] == ["v", "id"]  # that of the primary key is the best
    assert 900 <= table.rows <= 1_100
    assert 20 < table.row_bytes < 200
    assert pipeline.database.password not in repr(table)
    by_text = pipeline.describe(key="v")
    assert (by_text.unique, by_text.indexed, by_text.key.is_integer) == (False, True, False)
    assert [column.name for column in by_text.ordered] == ["v"]
    third = pipeline.describe(key="w")
    assert (third.unique, third.indexed, [column.name for column in third.ordered]) == (False, False, ["v"])


def test_the_share_of_the_connections_is_of_those_that_the_server_has_left(on_each):
    pipeline = on_each
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT)")
    free = "current_setting('max_connections')::int - 3" if pipeline.on_postgresql else "@@max_connections"
    with Connection(pipeline.target()) as connection:
        [server] = connection.ask(f"SELECT {free} AS most")
    assert pipeline.describe().connections == int(server["most"]) // pipeline.limits.connection_share
    pipeline.limits = replace(pipeline.limits, connection_share=10**9)
    assert pipeline.describe().connections == 1
    assert pipeline.describe(max_connections=2).connections == 2


def test_a_missing_table_is_told_with_its_neighbours(on_each):
    pipeline = on_each
    pipeline.sql(f"CREATE TABLE {pipeline.name}_customer (id INT)")
    with pytest.raises(TableError, match=f"{pipeline.name}_custmer does not exist.*mean '{pipeline.name}_customer'"):
        pipeline.describe(table_name=f"{pipeline.name}_custmer")


def test_a_missing_key_is_told_with_the_columns(on_each):
    pipeline = on_each
    pipeline.sql(f"CREATE TABLE {pipeline.name} (customer_id INT, name INT)")
    with pytest.raises(TableError, match=r"customerid.*customer_id.*customer_id, name") as caught:
        pipeline.describe(key="customerid")
    assert caught.value.code == "key_missing_in_table"


def test_columns_that_nobody_wants_are_not_read_where_each_id_is_alone(on_each):
    on_each.sql(f"CREATE TABLE {on_each.name} (a INT, id INT PRIMARY KEY, v INT, w INT)")
    chosen = {"columns": '["w", "elsewhere"]'}
    table = on_each.describe(arguments=chosen)
    assert (table.names, table.all_names) == (("id", "w"), ("a", "id", "v", "w"))
    assert on_each.describe(arguments=chosen | {"table_key": "v"}).names == table.all_names


# What is no condition on the table (id, v), and words of the server that the message has then.
NO_CONDITIONS = {
    "nothing there": ("deleted_at IS NULL", "deleted_at"),
    "ends the parentheses": ("v = 1) OR (v = 2", "syntax"),
    "ends the statement": ("v = 1) ORDER BY (v", "syntax"),
    "too few": ("(v = 1", "syntax"),
    "too many": ("v = 1)", "syntax"),
    "an open quote": ("v = 'a", ""),
    "a comment that stays open": ("v = 1 /* a", ""),
    "an order": ("v = 1 ORDER BY v", "syntax"),
    "a limit": ("v = 1 LIMIT 1", "syntax"),
    "two": ("v = 1 UNION SELECT 1", ""),
    "blanks": (" ", "syntax"),
    "no column that the user may read": ("hidden = 1", "denied"),
}


@pytest.mark.parametrize("name", NO_CONDITIONS)
def test_what_is_no_condition_is_refused_in_the_words_of_the_server(on_each, name):
    condition, words = NO_CONDITIONS[name]
    user = f"{on_each.name}_r"
    login = (
        f"CREATE ROLE {user} LOGIN PASSWORD 'pw'" if on_each.on_postgresql else f"CREATE USER {user} IDENTIFIED BY 'pw'"
    )
    on_each.sql(
        f"CREATE TABLE {on_each.name} (id INT PRIMARY KEY, v INT, hidden INT)",
        login,
        f"GRANT SELECT (id, v) ON {on_each.name} TO {user}",
    )
    with pytest.raises(TableError) as caught:
        on_each.describe(arguments={"table_where": condition}, username=user, password="pw")
    assert caught.value.code == "where_refused"
    assert str(caught.value).startswith(f"The database refuses the condition {condition!r} on table ")
    assert words in caught.value.details["problem"]


def test_rows_that_do_not_meet_the_condition_count_as_not_there(on_each):
    pipeline, comment = on_each, "" if on_each.on_postgresql else " # it's"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} SELECT seq, seq % 4 FROM {pipeline.series(8_000)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )
    whole = pipeline.describe()
    table = pipeline.describe(arguments={"table_where": f"v = 1 OR v = 2{comment} -- it's ) all"})
    assert table.row_bytes == whole.row_bytes  # though there are fewer
    with Connection(table.database) as connection:
        scan = cut_table(connection, table, 4, pipeline.limits)
        counts = [count_rows(connection, table, predicate).table_rows for predicate in scan.on(table)]
        assert len(counts) > 1
        assert sum(counts) == count_rows(connection, table).table_rows == 4_000
        assert first_unmatched(connection, table, {"2", "5"}, pipeline.limits)[:3] == ["1", "6", "9"]


def test_a_view_takes_a_condition_without_a_right_to_its_plan(on_each):
    name, user = on_each.name, f"{on_each.name}_r"
    login = (
        f"CREATE ROLE {user} LOGIN PASSWORD 'pw'" if on_each.on_postgresql else f"CREATE USER {user} IDENTIFIED BY 'pw'"
    )
    on_each.sql(
        f"CREATE TABLE {name}_t (id INT PRIMARY KEY, v INT)",
        f"INSERT INTO {name}_t VALUES (1, 1), (2, NULL)",
        f"CREATE VIEW {name} AS SELECT * FROM {name}_t",
        login,
        f"GRANT SELECT ON {name} TO {user}",
    )
    table = on_each.describe(arguments={"table_where": "v IS NULL"}, username=user, password="pw")
    with Connection(table.database) as connection:
        assert count_rows(connection, table).table_rows == 1


def test_a_view_is_described_by_what_the_optimizer_says(on_each):
    pipeline = on_each
    pipeline.sql(
        f"CREATE TABLE {pipeline.name}_t (id INT PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name}_t SELECT seq, seq FROM {pipeline.series(1_000)}",
        f"CREATE VIEW {pipeline.name} AS SELECT id, v FROM {pipeline.name}_t",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}_t",
    )
    table = pipeline.describe()
    assert (table.names, table.row_bytes) == (("id", "v"), 0)
    assert 900 <= table.rows <= 1_100
    assert (table.unique, table.indexed, table.ordered) == (False, False, ())


def test_a_view_that_may_not_be_explained_is_counted(by_each_driver, caplog):
    """Without SHOW VIEW the optimizer gives no estimate, and a table of no rows would be read by one connection."""
    pipeline, name = by_each_driver, by_each_driver.name
    pipeline.sql(
        f"CREATE TABLE {name}_t (id INT PRIMARY KEY)",
        f"INSERT INTO {name}_t SELECT seq FROM seq_1_to_1234",
        f"CREATE VIEW {name} AS SELECT id FROM {name}_t",
        f"CREATE USER {name} IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {name} TO {name}",
    )
    with caplog.at_level("INFO"):
        assert pipeline.describe(username=name, password="pw").rows == 1234
    assert "the rows are counted, as there is no estimate" in caplog.text
    assert pipeline.dialect.failure("HY000", 1345) is Failure.FAILED


def test_an_estimate_that_a_lost_connection_took_is_asked_for_again():
    class Lost:
        dialect = MySQL()

        def ask(self, _sql: str) -> list[dict[str, str | None]]:
            *_, chain, _ = STATEMENTS["KILL M"]
            raise table_error(chain, DATABASES["M"])

    with pytest.raises(TransientTableError):
        estimate_rows(Lost(), "id", "t")


def test_a_database_that_is_not_reached_at_first_is_asked_again(pipeline, caplog):
    """As at the end of a failover; who never answers is told as unreachable."""
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY)")
    pipeline.limits = replace(pipeline.limits, first_waits=(0.01, 0.04))
    settings, database = read_settings(pipeline.arguments(), pipeline.limits), pipeline.target()
    with caplog.at_level("WARNING"):
        assert describe_table(database, settings).names == ("id",)
        assert caplog.messages == []
        closed = make_database("c", pipeline.properties(port=CLOSED_PORT), database.secret, pipeline.limits)
        with pytest.raises(TransientTableError) as caught:
            describe_table(closed, settings)
    assert caught.value.code == "database_unreachable"
    assert [line.split("It is ")[1] for line in caplog.messages] == ["tried again in 0.01 s.", "tried again in 0.04 s."]


@pytest.mark.parametrize(
    ("zerofill", "expected"), [("INT(6) ZEROFILL", True), ("BIGINT UNSIGNED", False), ("TINYINT(1)", False)]
)
def test_only_zerofill_prints_ids_with_leading_zeros(by_each_driver, zerofill, expected):
    by_each_driver.sql(f"CREATE TABLE {by_each_driver.name} (id {zerofill} PRIMARY KEY)")
    table = by_each_driver.describe()
    assert (table.key.is_integer, table.has_zerofill_key) == (True, expected)


# What the user may do on the table `{0} (id, a, b)`, on its view `{0}_v (id, a)` -> columns of either
MYSQL_GRANTS = {
    "all": (["SELECT ON *.* TO {1}"], "id a b", "id a"),
    "the database": (["SELECT ON demo.* TO {1}"], "id a b", "id a"),
    "a pattern": (["SELECT ON `de%`.* TO {1}"], "id a b", "id a"),
    "the table": (["SELECT ON {0} TO {1}", "SELECT ON {0}_v TO {1}"], "id a b", "id a"),
    "columns": (["SELECT (id, a), UPDATE (b) ON {0} TO {1}", "SELECT (id) ON {0}_v TO {1}"], "id a", "id"),
    "columns and the table": (["UPDATE ON {0} TO {1}", "SELECT (id, a) ON {0} TO {1}"], "id a", ""),
    "a role": (["SELECT (id, b), INSERT (a) ON {0} TO {1}_role", "{1}_role TO {1}"], "id b", ""),
    "writing alone": (["DELETE, UPDATE ON {0} TO {1}", "UPDATE (a) ON {0}_v TO {1}"], "", ""),
}


@pytest.mark.parametrize("case", MYSQL_GRANTS)
def test_columns_that_the_user_of_mysql_may_not_read_are_not_there(pipeline, case):
    """Also by a grant for some columns beside others that may be written alone (`GRANT SELECT (id), UPDATE (b)`)."""
    grants, of_table, of_view = MYSQL_GRANTS[case]
    name = pipeline.name
    pipeline.sql(
        f"CREATE TABLE {name} (id INT PRIMARY KEY, a INT, b INT)",
        f"INSERT INTO {name} VALUES (1, 2, 3)",
        f"CREATE VIEW {name}_v AS SELECT id, a FROM {name}",
        f"CREATE USER {name} IDENTIFIED BY 'pw'",
        f"CREATE ROLE {name}_role",
        *(f"GRANT {grant.format(name, name)}" for grant in grants),
        *([f"SET DEFAULT ROLE {name}_role FOR {name}"] if case == "a role" else []),
    )
    login = {"username": name, "password": "pw"}
    values = {"id": "1", "a": "2", "b": "3"}
    for table_name, columns in ((name, of_table), (f"{name}_v", of_view)):
        if not columns:
            told = (
                f"exists, but user '{name}'" if case == "writing alone" else f"does not exist, or '{name}' may not read"
            )
            with pytest.raises(TableError, match=f"demo.{table_name} {told}"):
                pipeline.describe(table_name=table_name, **login)
            continue
        table = pipeline.describe(table_name=table_name, **login)
        assert table.names == tuple(columns.split())
        with Connection(table.database) as connection:
            texts = ", ".join(table.dialect.text_expression(column) + f" AS {column.name}" for column in table.columns)
            [row] = connection.ask(f"SELECT {texts} FROM {table.qualified}")
        assert row == {column: values[column] for column in columns.split()}


def test_a_view_whose_table_is_gone_is_told(by_each_driver):
    pipeline, name = by_each_driver, by_each_driver.name
    pipeline.sql(
        f"CREATE TABLE {name} (id INT)", f"CREATE VIEW {name}_v AS SELECT id FROM {name}", f"DROP TABLE {name}"
    )
    with pytest.raises(TableError) as caught:
        pipeline.describe(table_name=f"{name}_v")
    assert f"demo.{name}_v" in str(caught.value)
    assert "view" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_columns_that_the_user_of_postgresql_may_not_read_are_not_there(on_postgresql):
    pipeline, name = on_postgresql, on_postgresql.name
    pipeline.sql(
        f"CREATE ROLE {name} LOGIN PASSWORD 'reader'",
        f"CREATE TABLE {name} AS SELECT 1 AS id, 2 AS a, 3 AS b",
    )
    login = {"username": name, "password": "reader"}
    with pytest.raises(TableError, match=f"{name} exists, but user '{name}' may not read any of its columns"):
        pipeline.describe(**login)
    pipeline.sql(f"GRANT SELECT (id, b), UPDATE (a) ON {name} TO {name}")
    assert pipeline.describe(**login).names == ("id", "b")


def test_the_table_may_be_in_another_schema_and_another_database_than_that_of_the_url(on_postgresql):
    pipeline = on_postgresql
    pipeline.sql(f'CREATE DATABASE "{pipeline.name} ?&"')
    with pipeline.database.connect(autocommit=True, dbname=f"{pipeline.name} ?&") as client:
        client.execute("""CREATE SCHEMA "App"; CREATE TABLE "App"."Orders" AS SELECT 1 AS id, 'x' AS v""")
    names = {"db_name": f"{pipeline.name} ?&", "table_name": "Orders"}
    with pytest.raises(TableError, match=r"public.Orders does not exist.*did you mean 'App.Orders'"):
        pipeline.describe(**names)
    table = pipeline.describe(schema_name="App", **names)
    assert table.names == ("id", "v")
    with Connection(table.database) as connection:
        assert connection.ask(f"SELECT * FROM {table.qualified}") == [{"id": "1", "v": "x"}]


# What follows the table `{0} (id TEXT COLLATE no_case, v INT)` -> first column, unique, alone, primary of its indexes
POSTGRESQL_INDEXES = {
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
# The same of `{0} (id VARCHAR(20), v INT)`
MYSQL_INDEXES = {
    "CREATE UNIQUE INDEX i ON {0} (id)": [("id", True, True, False)],
    "CREATE UNIQUE INDEX i ON {0} (id, v)": [("id", True, False, False)],
    "CREATE INDEX i ON {0} (id)": [("id", False, True, False)],
    "CREATE INDEX i ON {0} (v, id)": [("v", False, False, False)],
    "ALTER TABLE {0} ADD PRIMARY KEY (v, id)": [("v", True, False, True)],
    "CREATE UNIQUE INDEX i ON {0} (id(5))": [],
    "CREATE UNIQUE INDEX i ON {0} (id, v); CREATE INDEX j ON {0} (v)": [
        ("id", True, False, False),
        ("v", False, True, False),
    ],
    "CREATE UNIQUE INDEX i ON {0} (v, id(5))": [("v", False, False, False)],
    "CREATE FULLTEXT INDEX i ON {0} (id)": [],
}


def indexes_of(pipeline, statements: str) -> list[Index]:
    """The indexes of the table that a case makes."""
    for statement in statements.format(pipeline.name).split("; "):
        pipeline.sql(statement)
    target = pipeline.target()
    with Connection(target) as connection:
        return sorted(read_indexes(connection))


@pytest.mark.parametrize("statements", POSTGRESQL_INDEXES)
def test_only_indexes_of_postgresql_that_find_any_row_by_its_key_count(on_postgresql, statements):
    collation = "" if "pattern" in statements else " COLLATE no_case"
    on_postgresql.sql(f"CREATE TABLE {on_postgresql.name} (id TEXT{collation}, v INT)")
    assert indexes_of(on_postgresql, statements) == POSTGRESQL_INDEXES[statements]


@pytest.mark.parametrize("statements", MYSQL_INDEXES)
def test_only_indexes_of_mysql_that_find_any_row_by_its_key_count(pipeline, statements):
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id VARCHAR(20), v INT)")
    assert indexes_of(pipeline, statements) == MYSQL_INDEXES[statements]


# name -> statements that make the table, its columns in SQL by number, the column of the ranges
MYSQL_RANGES = {
    "skewed primary key": (
        "CREATE TABLE {0} (id BIGINT PRIMARY KEY, v INT)",
        "CAST(seq AS SIGNED) - 400000 + (seq = 800000) * 1e15, seq",
        "id",
    ),
    "text primary key": (
        "CREATE TABLE {0} (id VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)",
        "CONCAT('K''', seq), seq",
        "id",
    ),
    "binary key, other primary key": (
        "CREATE TABLE {0} (v INT PRIMARY KEY, id BINARY(4))",
        "seq, UNHEX(LPAD(HEX(seq), 8, '0'))",
        "v",
    ),
    "few values before the key": (
        "CREATE TABLE {0} (t INT, id INT, v INT, PRIMARY KEY (t, id), KEY (id))",
        "seq % 2, seq, seq",
        "id",
    ),
    "no key in some rows": (
        "CREATE TABLE {0} (id INT, v INT, KEY (id))",
        "NULLIF(seq % 1000, 0) * 1000 + seq, seq",
        "id",
    ),
    "no index": ("CREATE TABLE {0} (id DATE, v INT)", "'2000-01-01' + INTERVAL seq DAY, seq", None),
    "an index of no order that is known": (
        "CREATE TABLE {0} (id DATE, v INT, KEY (id))",
        "'2000-01-01' + INTERVAL seq DAY, seq",
        None,
    ),
}
PARTITION = "CREATE TABLE {{0}}_{0} PARTITION OF {{0}} FOR VALUES WITH (MODULUS 2, REMAINDER {0}); "
POSTGRESQL_RANGES = {
    "skewed primary key": (
        "CREATE TABLE {0} (id BIGINT PRIMARY KEY, v INT)",
        "seq - 30000 + CASE seq WHEN 60000 THEN 1000000000000000 ELSE 0 END, seq",
        "id",
    ),
    "partitions": (
        "CREATE TABLE {0} (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id); "
        + PARTITION.format(0)
        + PARTITION.format(1),
        "seq, seq",
        "id",
    ),
    "text primary key": (
        "CREATE TABLE {0} (id TEXT COLLATE no_case PRIMARY KEY, v INT)",
        "CASE seq % 2 WHEN 0 THEN 'k' ELSE 'K' END || chr(39) || seq, seq",
        "id",
    ),
    "binary key, other primary key": (
        "CREATE TABLE {0} (v INT PRIMARY KEY, id BYTEA)",
        "seq, decode(lpad(to_hex(seq), 8, '0'), 'hex')",
        "v",
    ),
    "deep domain": ("CREATE TABLE {0} (id most PRIMARY KEY, v INT)", "seq, seq", "id"),
    "view": (
        "CREATE TABLE {0}_t (id INTERVAL, v INT); CREATE VIEW {0} AS SELECT * FROM {0}_t",
        "INTERVAL '1 day' * seq, seq",
        None,
    ),
}


@pytest.mark.parametrize(
    ("server", "case"),
    [
        *(("pipeline", case) for case in MYSQL_RANGES),
        ("by_connector_j", "text primary key"),
        *(("on_postgresql", case) for case in POSTGRESQL_RANGES),
    ],
)
def test_a_large_table_is_cut_into_even_ranges_that_hold_every_row_once(request, server, case, caplog):
    pipeline = request.getfixturevalue(server)
    create, values, column = (POSTGRESQL_RANGES if pipeline.on_postgresql else MYSQL_RANGES)[case]
    rows, count = 60_000, 10
    stored = pipeline.name + ("_t" if case == "view" else "")
    pipeline.sql(
        *create.format(pipeline.name).removesuffix("; ").split("; "),
        f"INSERT INTO {stored} SELECT {values} FROM {pipeline.series(rows)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {stored}",
    )
    table = pipeline.describe()
    with caplog.at_level("INFO"), Connection(table.database) as connection:
        scan = cut_table(connection, table, count, pipeline.limits)
        assert (scan.column.name if scan.column else None) == column
        predicates = scan.predicates(table.dialect.quote_name(column or ""))
        sums = ", ".join(
            f"SUM(CASE WHEN {predicate} THEN 1 ELSE 0 END) AS n{n}" for n, predicate in enumerate(predicates)
        )
        [answer] = connection.ask(f"SELECT {sums} FROM {table.qualified}")
        sizes = [int(size) for size in answer.values()]
    assert sum(sizes) == rows
    if column is None:
        assert len(sizes) == 1
        assert "no index helps to read the table in ranges" in caplog.text
    else:
        assert 6 <= len(sizes) <= 2 * count
        assert max(sizes) <= 2.5 * rows / count
        assert f"the table is cut into {len(sizes)} ranges of column {column!r}" in caplog.text


def test_a_range_that_is_asked_for_alone_needs_no_question(on_each):
    on_each.sql(f"CREATE TABLE {on_each.name} (id INT PRIMARY KEY)")
    table = on_each.describe()
    assert cut_table(None, table, 1, on_each.limits).predicates("id") == ["1 = 1"]


def test_an_empty_table_is_one_range(on_each):
    on_each.sql(f"CREATE TABLE {on_each.name} (id INT PRIMARY KEY)")
    table = replace(on_each.describe(), rows=10**6)  # emptied after it was described
    with Connection(table.database) as connection:
        assert cut_table(connection, table, 8, on_each.limits).predicates("id") == ["1 = 1"]
