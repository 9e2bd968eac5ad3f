"""Every type of both databases: a value as SQL, and the text that the CSV must have of it."""

from __future__ import annotations

from typing import Any

# SQL type, value as SQL, the text in the CSV
MYSQL_TYPES = [
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
    ("TINYINT UNSIGNED ZEROFILL", "7", "007"),
    ("DECIMAL(8,2) ZEROFILL", "1.5", "000001.50"),
    ("DECIMAL(5,2)", "-0.00", "0.00"),
    ("DOUBLE", "1e300", "1e300"),
    ("FLOAT", "16777217", "16777200"),
    ("DATETIME(3)", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00.000"),
    ("TIMESTAMP NULL", "'2026-07-02 03:04:05'", "2026-07-02 03:04:05"),
    ("TIME(6)", "'-00:00:00.000001'", "-00:00:00.000001"),
    ("YEAR", "0", "0000"),
    ("ENUM('a','日') CHARACTER SET cp932", "'日'", "日"),
    ("SET('é','b') CHARACTER SET latin1", "'é,b'", "é,b"),
    ("CHAR(5) CHARACTER SET utf16", "'日😀'", "日😀"),
    ("TINYTEXT CHARACTER SET utf32", "'😀'", "😀"),
    ("MEDIUMTEXT CHARACTER SET utf8mb3", "'日'", "日"),
    ("VARCHAR(9) CHARACTER SET ascii", "'~'", "~"),
    ("VARCHAR(9) CHARACTER SET sjis COLLATE sjis_bin", "'ソ\\\\表'", "ソ\\表"),
    ("LONGTEXT COLLATE utf8mb4_bin", "'{\"a\":1}'", '{"a":1}'),
]
POSTGRESQL_TYPES = [
    ("BOOLEAN", "TRUE", "true"),
    ("SMALLINT", "-32768", "-32768"),
    ("BIGINT", "'-9223372036854775808'", "-9223372036854775808"),
    ("whole", "7", "7"),
    ("most", "7", "7"),
    ("more[]", "'{7,8}'", "{7,8}"),
    ("bytes_below", r"'\x00ff'", "00ff"),
    ("address_below", "'::1'", "::1"),
    ("mood_below", "'日'", "日"),
    ("list_below", "'{1,2}'", "{1,2}"),
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
Texts = dict[tuple[str, str, str], str | None]


def create_table_of_types(pipeline: Any) -> list[tuple[str, str, str]]:
    """Makes the table with a column of each type; row 1 has the values, row 2 none."""
    types = POSTGRESQL_TYPES if pipeline.on_postgresql else MYSQL_TYPES
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(types))
    nulls = ", ".join("DEFAULT" if value == "DEFAULT" else "NULL" for _, value, _ in types)
    pipeline.sql(
        *([] if pipeline.on_postgresql else ["SET sql_mode = ''"]),  # zero dates
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {pipeline.name} VALUES (1, {', '.join(value for _, value, _ in types)}), (2, {nulls})",
    )
    return types


def texts_of_types(types: list[tuple[str, str, str]], *, missing: str | None) -> tuple[Texts, Texts]:
    """What both rows must be, by type."""
    generated = ((kind, kind[2] if kind[1] == "DEFAULT" else missing) for kind in types)
    return {kind: kind[2] for kind in types}, dict(generated)
