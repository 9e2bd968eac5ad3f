"""Kinds of keys: what each database may hold in one, and what a source may say besides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from reference import oracle

WORDS = ["a", "A", "á", "a ", " a", "", "'", "\\", '"', "\\'", "x') OR ('1'='1", "%", "😀", "😁", "ｱ", "ア", "ß", "ss"]
LATIN = ["a", "A", "é", "É", "a ", "€", "\x81", "?", "'", "\\", "ÿ"]
INTEGERS = ["0", "1", "7", "-1", "-4", "42", "2147483647", "9223372036854775807", "-9223372036854775808"]
UNSIGNED = ["0", "7", "42", "100", "18446744073709551615", "9223372036854775808"]
# name -> (DDL of the key, what the table may hold, what the source may say besides)
Kind = tuple[str, list[str], list[str]]
MYSQL_KEYS: dict[str, Kind] = {
    "case-insensitive text": ("VARCHAR(40) COLLATE utf8mb4_general_ci", WORDS, ["ab"]),
    "accent-insensitive text": ("VARCHAR(40) COLLATE utf8mb4_unicode_520_ci", WORDS, ["ab"]),
    "text in three bytes": ("VARCHAR(40) CHARACTER SET utf8mb3", [w for w in WORDS if max([*w, ""]) < "\uffff"], WORDS),
    "text in latin1": ("VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci", LATIN, WORDS),
    "padded text": ("CHAR(9) COLLATE utf8mb4_bin", [w for w in WORDS if not w.endswith(" ")], ["a "]),
    "integer": ("BIGINT", INTEGERS, [*UNSIGNED, "007", "7.0", "-0", " 7", "x", "1e2", "99999999999999999999999"]),
    "unsigned integer": ("BIGINT UNSIGNED", UNSIGNED, [*INTEGERS, "007", "4.2e1"]),
    "padded integer": ("INT(6) ZEROFILL", ["000000", "000007", "000042", "1234567"], ["7", "0042", "-7", "7.0"]),
    "decimal": ("DECIMAL(12,2)", ["1.50", "-1.50", "0.00", "1234567890.12"], ["1.5", "1.500", "-0.00", "1e0"]),
    "binary": ("VARBINARY(9)", ["", "00", "0000", "61", "ff00"], ["0", "FF00", "zz"]),
}
POSTGRESQL_WORDS = [*WORDS, "$$", "E'", "?", "{d}"]
UUIDS = ["123e4567-e89b-12d3-a456-426655440000", "00000000-0000-0000-0000-000000000000"]
POSTGRESQL_KEYS: dict[str, Kind] = {
    "case-insensitive text": ("VARCHAR(40) COLLATE no_case", POSTGRESQL_WORDS, ["ab", "a\0b"]),
    "accent-insensitive text": ("TEXT COLLATE no_accent", POSTGRESQL_WORDS, ["ab"]),
    "citext": ("CITEXT", POSTGRESQL_WORDS, ["ab"]),
    "padded text": ("CHAR(20)", [word for word in POSTGRESQL_WORDS if not word.endswith(" ")], ["a ", "a" + " " * 19]),
    "integer": ("BIGINT", INTEGERS, [*UNSIGNED, "007", "7.0", "-0", " 7", "x", "1e2", "99999999999999999999999"]),
    "small integer": ("SMALLINT", ["0", "7", "-4", "32767"], ["32768", "007", "7.0", "x"]),
    "integer domain": ("whole", ["0", "7", "-4", "2147483647"], ["-100", "007", "2147483648"]),
    "integer domain of domains": ("most", ["0", "7", "-4", "2147483647"], ["-100", "007", "7.0", "2147483648"]),
    "binary domain of domains": ("bytes_below", ["", "00", "0000", "61", "ff00"], ["0", "FF00", "zz", "\\x00"]),
    "decimal": ("NUMERIC", ["1.50", "-1.50", "0.00", "1e70", "NaN"], ["1.5", "1.500", "-0.00", "1e0", "nan"]),
    "uuid": ("UUID", UUIDS, [UUIDS[0].upper(), "x"]),
    "binary": ("BYTEA", ["", "00", "0000", "61", "ff00"], ["0", "FF00", "zz", "\\x00"]),
}
FILLED = 20_000
INDEXES = ["UNIQUE (id)", "KEY (id)", "KEY (id, v)"]


def key_kind(pipeline: Any, kind: str) -> Kind:
    """The entry of the server's own kinds of keys."""
    return (POSTGRESQL_KEYS if pipeline.on_postgresql else MYSQL_KEYS)[kind]


def create(pipeline: Any, columns: str, index: str) -> None:
    """Makes the table anew; `index` is what MySQL takes inside CREATE TABLE."""
    pipeline.sql(f"DROP TABLE IF EXISTS {pipeline.name}")
    if pipeline.on_postgresql and index.startswith("KEY"):
        pipeline.sql(f"CREATE TABLE {pipeline.name} ({columns})")
        pipeline.sql(f"CREATE INDEX ON {pipeline.name} {index.removeprefix('KEY')}")
    else:
        charset = "" if pipeline.on_postgresql else "CHARACTER SET utf8mb4"
        pipeline.sql(f"CREATE TABLE {pipeline.name} ({columns}, {index}) {charset}")


def insert(pipeline: Any, rows: Iterable[tuple[str | None, str | None]], *, binary: bool) -> None:
    """Fills the table; rows that a unique index refuses are left out."""
    value = "%s"
    if binary:
        value = "decode(%s, 'hex')" if pipeline.on_postgresql else "UNHEX(%s)"
    ignore, conflict = ("", "ON CONFLICT DO NOTHING") if pipeline.on_postgresql else ("IGNORE", "")
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT {ignore} INTO {pipeline.name} VALUES ({value}, %s) {conflict}", list(rows))


def expectation(pipeline: Any, kind: str, source: bytes) -> oracle.Expected:
    """What the oracle says of a source and the table `(id, v)`, read as the server itself prints it."""
    if pipeline.on_postgresql:
        texts = ["encode(id, 'hex')" if "binary" in kind else "id::text", "v::text"]
    else:
        char = "CHAR CHARACTER SET utf8mb4"
        texts = ["LOWER(HEX(id))" if "binary" in kind else f"CAST(id AS {char})", f"CAST(v AS {char})"]
    return oracle.overlay([source], ("id", "v"), pipeline.table_texts(texts), integer_key="integer" in kind)


def fill(pipeline: Any, key: str, index: str = "PRIMARY KEY (id)") -> None:
    """Makes a table of FILLED rows, which the pipeline takes for large enough for a lookup."""
    pipeline.limits = replace(pipeline.limits, lookup_rows_min=FILLED // 2)  # InnoDB may estimate fewer
    day = "DATE '2000-01-01' + seq" if pipeline.on_postgresql else "'2000-01-01' + INTERVAL seq DAY"
    value = "CONCAT('k', seq)" if "CHAR" in key else day if key == "DATE" else "seq * 3"
    create(pipeline, f"id {key} NOT NULL, v INT", index)
    pipeline.sql(
        f"INSERT INTO {pipeline.name} SELECT {value}, seq FROM {pipeline.series(FILLED)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )
