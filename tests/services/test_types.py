"""`dialects` on real servers by each driver: values as the database prints them, literals, names."""

from __future__ import annotations

from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overlay.dialects.base import TableColumn
from overlay.errors import TableError
from overlay.table.jdbc import Connection
from tests.conftest import CONNECTOR_J
from tests.sql_types import create_table_of_types, texts_of_types
from tests.texts import english_in

OF_THE_USER = ("DateStyle = 'SQL, DMY'", "IntervalStyle = 'iso_8601'", "bytea_output = 'escape'", "TimeZone = 'Japan'")
HOSTILE = [
    "a`b",
    'a"b',
    "a'b",
    "a,b",
    "a.b",
    "a b",
    "列",
    "a\\b",
    "a?b",
    "{a}",
    "{fn now()}",
    "{d '2020-01-01'}",
    "$1",
    "--",
    "x" * 63,
]


@pytest.fixture
def settings_of_the_user(request):
    """Sets what a session of the user of PostgreSQL begins with."""
    server = request.getfixturevalue("postgresql")

    def change(*statements: str) -> None:
        with server.connect(autocommit=True) as client:
            for statement in statements:
                client.execute(f"ALTER ROLE etl SET {statement}")

    yield change
    with server.connect(autocommit=True) as client:
        client.execute("ALTER ROLE etl RESET ALL")


@contextmanager
def set_globally(pipeline, name: str, value: str):
    """Sets a variable of the server for the sessions to come."""
    pipeline.sql(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        pipeline.sql(f"SET GLOBAL {name} = DEFAULT")


def rows_of(pipeline, **secret: str) -> list[dict[str, str | None]]:
    """The rows in the order of their ids, as both engines ask for them: texts by the names of the columns."""
    table = pipeline.describe(**secret)
    dialect, columns = table.dialect, list(enumerate(table.columns))
    texts = [f"{dialect.text_expression(column)} AS t{number}" for number, column in columns]
    texts += [f"{dialect.wire_expression(column, table.driver)} AS w{number}" for number, column in columns]
    schema = pa.schema([(f"t{n}", pa.string()) for n, _ in columns] + [(f"w{n}", pa.binary()) for n, _ in columns])
    with Connection(table.database) as connection:
        sql = f"SELECT {', '.join(texts)} FROM {table.qualified} ORDER BY {dialect.quote_name('id')}"
        both = pa.Table.from_batches(connection.batches(sql, schema, 100), schema)
    text, wire = both.select(range(len(columns))), both.select(range(len(columns), 2 * len(columns)))
    names = list(table.names)
    types = pa.schema([(name, pa.string()) for name in names])
    received = wire.rename_columns(names).cast(types).to_pylist()
    assert received == text.rename_columns(names).to_pylist()
    return received


def test_every_type_is_the_databases_own_text_whatever_the_user_has_set(on_each, settings_of_the_user):
    types = create_table_of_types(on_each)
    if on_each.on_postgresql:
        settings_of_the_user(*OF_THE_USER)
    first, second = (list(row.values())[1:] for row in rows_of(on_each))
    assert (dict(zip(types, first, strict=True)), dict(zip(types, second, strict=True))) == texts_of_types(
        types, missing=None
    )


SHADOWS = (  # of what our statements say, each wrong where it is taken for PostgreSQL's own
    *(
        f"CREATE FUNCTION {{0}}.{function} LANGUAGE sql AS $$SELECT {value}$$"
        for function, value in {
            "encode(bytea, pg_catalog.text) RETURNS pg_catalog.text": "'shadow'",
            "abbrev(inet) RETURNS pg_catalog.text": "'shadow'",
            "current_setting(pg_catalog.text) RETURNS pg_catalog.text": "'1'",
            "set_config(pg_catalog.text, pg_catalog.text, boolean) RETURNS pg_catalog.text": "'shadow'",
            "concat(pg_catalog.text, pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.text": "'shadow'",
            "concat(name, pg_catalog.text, name) RETURNS pg_catalog.text": "'shadow'",
            "has_column_privilege(oid, smallint, pg_catalog.text) RETURNS boolean": "false",
            "format_type(oid, integer) RETURNS pg_catalog.text": "'shadow'",
            "div(numeric, integer) RETURNS numeric": "-1",
            "never(integer, integer) RETURNS boolean": "false",
        }.items()
    ),
    "CREATE OPERATOR {0}.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = {0}.never)",
    "CREATE AGGREGATE {0}.count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '1000')",
    "CREATE AGGREGATE {0}.sum(bigint) (SFUNC = int8pl, STYPE = int8, INITCOND = '1000')",
    "CREATE DOMAIN {0}.text AS integer",
    *(f"CREATE TABLE {{0}}.{table} ()" for table in ("pg_class", "pg_attribute", "pg_type", "pg_index", "pg_settings")),
    'CREATE COLLATION {0}."C" FROM pg_catalog."en-x-icu"',
    "GRANT USAGE ON SCHEMA {0} TO etl",
    "GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO etl",
)


@pytest.mark.parametrize("engine", ["driver", "spark"])
def test_a_search_path_changes_neither_names_nor_values(on_postgresql, settings_of_the_user, engine):
    """A schema of it may hold functions, operators, types, tables by the names of PostgreSQL's own."""
    pipeline, name = on_postgresql, on_postgresql.name
    pipeline.engine = engine
    pipeline.put(b'{"id":"b"}\n{"id":"Z","n":1}')
    pipeline.sql(
        f"CREATE TABLE {name} (id citext PRIMARY KEY, n INT, b BYTEA, a INET, t TEXT, u UUID, m MONEY)",
        f"INSERT INTO {name} VALUES ('b', 1, '\\x00ff', '::1', '日本', gen_random_uuid(), 1)",
        f"INSERT INTO {name} VALUES ('C'), ('a')",
        f"CREATE SCHEMA {name}_shadows",
        *(statement.format(f"{name}_shadows") for statement in SHADOWS),
    )

    def read() -> tuple[object, ...]:
        result = pipeline.run(unmatched_file=f"out/{name}.ids")
        table = pipeline.describe()
        described = table.names, table.unique, table.indexed, table.rows, table.row_bytes
        return described, rows_of(pipeline), result.counts.as_dict(), result.unmatched_file, pipeline.output()

    expected = read()
    assert b"00ff,::1,\xe6\x97\xa5" in pipeline.output()
    settings_of_the_user(f"search_path = {name}_shadows, public, pg_catalog", "quote_all_identifiers = on")
    assert read() == expected
    settings_of_the_user("search_path = ''")
    assert read() == expected


def test_types_behind_domains_of_any_depth_are_those_of_the_columns(on_postgresql):
    """Also of a column that is inherited or partitioned; an array of domains and a domain of arrays stay arrays."""
    pipeline, name = on_postgresql, on_postgresql.name
    pipeline.sql(
        f"CREATE TABLE {name}_parent (id most, b bytes_below, a address_below)",
        f"CREATE TABLE {name}_child (m mood_below, l list_below, n more[], t TEXT) INHERITS ({name}_parent)",
        f"INSERT INTO {name}_child VALUES (7, '\\x00ff', '::1', '日', '{{1,2}}', '{{3}}', 'x')",
        f"CREATE TABLE {name}_parts (id most, b bytes_below, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        f"CREATE TABLE {name}_part PARTITION OF {name}_parts FOR VALUES FROM (0) TO (100)",
        f"INSERT INTO {name}_parts VALUES (7, '\\x00ff')",
    )
    child = {"id": "7", "b": "00ff", "a": "::1", "m": "日", "l": "{1,2}", "n": "{3}", "t": "x"}
    types = {"id": "integer", "b": "bytea", "a": "inet", "m": "mood", "l": "_int4", "n": "_more", "t": "text"}
    for table, columns in (
        ("child", child),
        ("parent", dict(list(child.items())[:3])),
        ("parts", {"id": "7", "b": "00ff"}),
    ):
        described = pipeline.describe(table_name=f"{name}_{table}")
        assert {column.name: column.type for column in described.columns} == {n: types[n] for n in columns}
        assert described.key.is_integer
        assert rows_of(pipeline, table_name=f"{name}_{table}") == [columns]
    with Connection(pipeline.target()) as connection:
        for column, text in ((described.key, "7"), (described.columns[1], "00ff")):
            literal = described.dialect.key_literal(column, text)
            sql = f"SELECT COUNT(*) AS n FROM {described.qualified} WHERE {column.name} = {literal}"
            assert connection.ask(sql) == [{"n": "1"}]


@pytest.mark.parametrize("server", ["pipeline", "by_connector_j", "on_postgresql"])
def test_literals_are_the_text_itself(request, server):
    pipeline = request.getfixturevalue(server)
    nul = "\0" if pipeline.on_postgresql else ""  # which its texts cannot have
    dialect = pipeline.dialect
    with Connection(pipeline.target()) as connection:

        @settings(max_examples=60)
        @example("?")
        @example("{d '2026-01-02'}")
        @example("{fn now()}")
        @example("\\'; -- /* $$ ${x} %s")
        @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=nul)))
        def check(text):
            literal = dialect.text_literal(text)
            exact = f"{dialect.by_bytes(literal)} = {dialect.bytes_literal(text)}"
            [row] = connection.ask(f"SELECT {literal} AS text, CASE WHEN {exact} THEN 'same' END AS bytes")
            assert row == {"text": text, "bytes": "same"}

        check()


def test_names_need_no_care(on_each):
    quote_name = on_each.dialect.quote_name
    table = f't`"?{on_each.name}'
    columns = ", ".join(f"{quote_name(name)} INT" for name in HOSTILE)
    on_each.sql(
        f"CREATE TABLE {quote_name(table)} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {quote_name(table)} VALUES (1, {', '.join(map(str, range(len(HOSTILE))))})",
    )
    described = on_each.describe(table_name=table)
    assert described.names == ("id", *HOSTILE)
    assert rows_of(on_each, table_name=table) == [{"id": "1"} | {name: str(i) for i, name in enumerate(HOSTILE)}]


def test_a_key_may_be_invisible(pipeline):
    """As sql_generate_invisible_primary_key of MySQL makes one; other invisible columns are not there."""
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT AUTO_INCREMENT INVISIBLE PRIMARY KEY, a INT, b INT INVISIBLE)",
        f"INSERT INTO {pipeline.name} (id, a, b) VALUES (1, 2, 3)",
    )
    assert rows_of(pipeline) == [{"id": "1", "a": "2"}]
    assert pipeline.describe(key="a").names == ("a",)


def test_texts_compare_byte_for_byte_whatever_the_collation(by_each_driver):
    column = TableColumn("v", "varchar", "varchar(9)", "utf8mb4")
    by_each_driver.sql(
        f"CREATE TABLE {by_each_driver.name} (id INT PRIMARY KEY, v VARCHAR(9) COLLATE utf8mb4_general_ci)",
        f"INSERT INTO {by_each_driver.name} VALUES (1, 'a'), (2, 'A'), (3, '😀'), (4, '😁')",
    )
    dialect, text = by_each_driver.dialect, by_each_driver.dialect.text_expression(column)
    with Connection(by_each_driver.target()) as connection:
        for value, number in (("a", "1"), ("A", "2"), ("😀", "3"), ("😁", "4")):
            condition = f"{dialect.by_bytes(text)} = {dialect.bytes_literal(value)}"
            assert connection.ask(f"SELECT id FROM {by_each_driver.name} WHERE {condition}") == [{"id": number}]


def test_neither_time_zone_nor_sql_mode_of_a_session_changes_a_value(by_each_driver):
    """TIMESTAMP is printed in the server's zone; CHAR without the blanks that one SQL mode pads it with."""
    pipeline, name = by_each_driver, by_each_driver.name
    pipeline.sql(
        f'CREATE TABLE {name} (id CHAR(5) PRIMARY KEY, t TIMESTAMP NULL, `"` CHAR(9), f DOUBLE)',
        f"INSERT INTO {name} VALUES ('k', '2026-01-02 03:04:05', 'a', 0.1)",
        f"CREATE USER {name} IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {name} TO {name}",
    )
    login = {"username": name, "password": "pw"}
    expected = rows_of(pipeline, **login)
    assert expected == [{"id": "k", "t": "2026-01-02 03:04:05", '"': "a", "f": "0.1"}]
    modes = "PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE"
    session = f"SET time_zone = '+09:00', sql_mode = '{modes}'"
    with set_globally(pipeline, "init_connect", f'"{session}"'):
        assert rows_of(pipeline, **login) == expected


def test_a_function_of_the_users_by_the_name_of_one_of_the_database_is_not_called(by_each_driver):
    pipeline, name = by_each_driver, by_each_driver.name
    functions = "hex", "lower", "st_astext", "length"
    pipeline.sql(
        f"CREATE TABLE {name} (id INT PRIMARY KEY, b BLOB, p POINT)",
        f"INSERT INTO {name} VALUES (1, x'00ff', ST_GeomFromText('POINT(1 2)'))",
        *(f"CREATE FUNCTION {f} (v LONGTEXT) RETURNS TEXT DETERMINISTIC RETURN 'shadow'" for f in functions),
    )
    try:
        assert rows_of(pipeline) == [{"id": "1", "b": "00ff", "p": "POINT(1 2)"}]
    finally:
        pipeline.sql(*(f"DROP FUNCTION {function}" for function in functions))


LARGE_VALUES = {  # of a number of bytes, by type
    "LONGBLOB": "REPEAT('x', {0})",
    "MEDIUMBLOB": "REPEAT('x', {0})",
    "LONGTEXT CHARACTER SET latin1": "REPEAT('é', {0})",
    "LONGTEXT": "REPEAT('x', {0} + 400000)",
    "JSON": "CONCAT('\"', REPEAT('x', {0} + 400000), '\"')",
    "MULTIPOINT": "ST_GeomFromText(CONCAT('MULTIPOINT(', REPEAT('1.1 1.1,', {0} DIV 8), '1.1 1.1)'))",
}


@pytest.mark.parametrize(("engine", "kind"), [*(("driver", kind) for kind in LARGE_VALUES), ("spark", "LONGBLOB")])
def test_a_value_larger_than_the_server_sends_is_whole_or_an_error(by_each_driver, engine, kind):
    """A function makes NULL of what is beyond max_allowed_packet, with a warning that nobody reads."""
    pipeline, name, value = by_each_driver, by_each_driver.name, LARGE_VALUES[kind]
    whole = kind == "MULTIPOINT" or (kind in {"LONGTEXT", "JSON"} and pipeline.driver != CONNECTOR_J)
    pipeline.engine = engine
    pipeline.put(b'{"id":1}\n{"id":2}')
    pipeline.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v {kind}, w INT)")
    pipeline.sql(f"INSERT INTO {name} VALUES (1, {value.format(700_000)}, 5), (2, NULL, 6)")
    pipeline.run()
    expected = pipeline.output()
    assert len(expected) > 700_000
    assert expected.endswith(b",5\n2,,6\n")
    with set_globally(pipeline, "max_allowed_packet", "1048576"):
        if whole:
            pipeline.run()
            assert pipeline.output() == expected
            return
        with pytest.raises(TableError) as caught:
            pipeline.run(language="en")
    assert caught.value.code == "value_too_large"
    assert f"column 'v' in {pipeline.database.database}.{name}" in str(caught.value)
    assert not english_in(caught.value)


@pytest.mark.parametrize("names", ["cp932", "latin1", "utf8", "binary"])
def test_texts_are_whole_whatever_the_server_makes_of_the_session_of_a_user(by_each_driver, names):
    """A user without SUPER gets `init_connect`; texts travel as they are, also as column names and in statements."""
    pipeline, name = by_each_driver, by_each_driver.name
    text = "髙橋😀𠮷é"
    pipeline.sql(
        f"CREATE TABLE {name} (id VARCHAR(9) PRIMARY KEY, 名前 TEXT, e ENUM('a','日'), j JSON) CHARACTER SET utf8mb4",
        f"INSERT INTO {name} VALUES ('客😀', '{text}', '日', '[\"{text}\"]')",
        f"CREATE USER {name} IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {name} TO {name}",
    )
    with set_globally(pipeline, "init_connect", f"'SET NAMES {names}'"):
        login = {"username": name, "password": "pw"}
        row = {"id": "客😀", "名前": text, "e": "日", "j": f'["{text}"]'}
        assert rows_of(pipeline, **login) == [row]
        table = pipeline.describe(**login)
        with Connection(table.database) as connection:
            literal = table.dialect.key_literal(table.key, "客😀")
            assert connection.ask(f"SELECT COUNT(*) AS n FROM {name} WHERE id = {literal}") == [{"n": "1"}]
