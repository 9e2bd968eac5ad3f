"""The literals of `dialects` in the statements of a lookup: the database uses the index of every kind of key."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from overlay.table.jdbc import Connection
from overlay.table.lookup import lookup_predicates
from tests.key_types import MYSQL_KEYS, POSTGRESQL_KEYS


def assert_index_is_used(pipeline, lists: list[list[str]], statements: int, *, unique: bool = True) -> None:
    """Lists of ids make so many statements, none of which reads more than it asks for, with a condition or without."""
    table = pipeline.describe()
    assert table.indexed
    assert table.unique is unique
    some = replace(table, where="v LIKE 'x%' OR v IS NULL")
    name = table.dialect.quote_name("id")
    with Connection(table.database) as connection:
        for ids in lists:
            predicates = lookup_predicates(table, ids, 1, pipeline.limits)
            assert len(predicates) == statements
            for predicate in predicates:
                assert predicate.startswith(f"({name} IN (")
                for rows in (table.from_where(predicate), some.from_where(predicate)):
                    assert table.dialect.uses_index(connection.ask, f"SELECT v {rows}")
        assert not table.dialect.uses_index(connection.ask, "SELECT v " + table.from_where("v = 'x'"))


@pytest.mark.parametrize("kind", MYSQL_KEYS)
def test_literals_let_mysql_use_the_index(pipeline, kind):
    ddl, keys, other_ids = MYSQL_KEYS[kind]
    number = "seq" if re.match("BIGINT|INT|DEC", ddl) else "UNHEX(HEX(seq))" if kind == "binary" else "CONCAT('k', seq)"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {ddl} PRIMARY KEY, v VARCHAR(200)) CHARACTER SET utf8mb4",
        f"INSERT INTO {pipeline.name} SELECT {number}, REPEAT('x', 200) FROM seq_1000_to_9000",
    )
    statements = 1 + (kind == "unsigned integer")  # signed and unsigned numbers apart
    assert_index_is_used(pipeline, [keys, keys + other_ids], statements, unique=kind != "decimal")


@pytest.mark.parametrize("kind", POSTGRESQL_KEYS)
def test_literals_let_postgresql_use_the_index(on_postgresql, kind):
    pipeline, (ddl, keys, other_ids) = on_postgresql, POSTGRESQL_KEYS[kind]
    numbers = re.match("BIGINT|SMALLINT|whole|most|NUMERIC", ddl)
    bytes_of = "decode(md5(seq::text), 'hex')"
    key_expressions = {
        "BYTEA": bytes_of,
        "bytes_below": bytes_of,
        "UUID": "md5(seq::text)::uuid",
        "CHAR(20)": "'k' || seq",
    }
    number = "seq" if numbers else key_expressions.get(ddl, "'k' || seq || repeat('x', 9)")
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {ddl} PRIMARY KEY, v VARCHAR(200))",
        f"INSERT INTO {pipeline.name} SELECT {number}, repeat('x', 200) FROM {pipeline.series(30_000)}",
        f"ANALYZE {pipeline.name}",
    )
    assert_index_is_used(pipeline, [keys, keys + other_ids], 1)
