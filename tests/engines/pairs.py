"""Generated pairs of a source and a table, each made of its seed alone, and what a run must publish of them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from overlay.limits import MIB, Limits
from reference import oracle
from tests.agreement import csv_options

NAMES = ["name", "note", "k", "c0", "match", "message", "列", 'a"b', "a,b", "a`b", "x\ny", "=1"]
WORDS = [
    *("", "a", "A", "a ", "1.10", "007", 'x,"y"', "line\nbreak", "\r", "列😀", "=1+1", "NULL", "--", " ", "false"),
    *("'", "\\", "\x00", "@", "\t", "髙橋①"),
]
INTEGERS = ["0", "1", "2", "3", "7", "-4", "99", "2147483647", "9223372036854775807", "-9223372036854775808"]
ALIKE = ["á", "Á", "b", "B", "B ", "c", "C", "ç"]  # to a collation
SPELLINGS = ["007", "7.0", "70e-1", "+7", " 7", "7.5", "-0", "1e400", "x", "18446744073709551615", ""]
FIELDS = ["ID", "Name", "extra", "追加", "", " "]


@dataclass(frozen=True)
class Pair:
    """A source and a table, with all that decides how they are read and written.

    Attributes:
        objects: The source objects, in order.
        columns, rows: The table, its values as the database prints them. The key is among the columns.
        table_key: What the table calls the key, which is `id` in the source.
        chosen_columns: Those of the output, as `columns` of an entry has them; or none.
        where_columns: Rows count as there where the first of these is NULL or the second is not; or none: all do.
        unique: Whether a unique index proves the ids to be so.
        arguments: Those of the CSV.
        limits: Small ones, so that little data is cut in many places.
        cores: Of the driver.
    """

    objects: list[bytes]
    columns: list[str]
    rows: list[tuple[str | None, ...]]
    integer_key: bool
    unique: bool
    arguments: dict[str, str]
    limits: Limits
    cores: int
    table_key: str = "id"
    chosen_columns: list[str | dict[str, str]] = field(default_factory=list)
    where_columns: tuple[str, ...] = ()

    @property
    def key_at(self) -> int:
        """Which column of the table is the key."""
        return self.columns.index(self.table_key)

    @property
    def rows_there(self) -> list[tuple[str | None, ...]]:
        """The rows that count as there."""
        if not self.where_columns:
            return self.rows
        null, valid = map(self.columns.index, self.where_columns)
        return [row for row in self.rows if row[null] is None or row[valid] is not None]

    def all_arguments(self, quote_name: Callable[[str], str]) -> dict[str, str]:
        """The job arguments, those of the CSV among them."""
        more = {"table_key": self.table_key} if self.table_key != "id" else {}
        if self.chosen_columns:
            more["columns"] = json.dumps(self.chosen_columns)
        if self.where_columns:
            null, valid = map(quote_name, self.where_columns)
            more["table_where"] = f"{null} IS NULL OR {valid} IS NOT NULL -- it's ) ("
        return self.arguments | more


def value_of(chance: random.Random, words: Sequence[str], depth: int = 0) -> Any:
    """A JSON value."""
    kind = chance.randrange(10)
    if kind < 5:
        return chance.choice(words)
    if kind < 6:
        return None
    if kind < 8 or depth > 2:
        return chance.choice([True, False, 0, -1, 1.5, 10**20, 1e-7])
    if kind < 9:
        if chance.random() < 0.5:  # in an array they look like records
            return [{"id": chance.choice(INTEGERS)} for _ in range(chance.randrange(12))]
        return [value_of(chance, words, depth + 1) for _ in range(chance.randrange(3))]
    return {chance.choice(words): value_of(chance, words, depth + 1) for _ in range(chance.randrange(3))}


def object_of(chance: random.Random, records: list[dict[str, Any]]) -> bytes:
    """Records as an object, in one of the forms that a program may write."""
    options = {"ensure_ascii": chance.random() < 0.3, "separators": chance.choice([None, (",", ":")])}
    if chance.random() < 0.5:
        text = json.dumps(records, indent=chance.choice([None, None, 1]), **options)
    else:
        text = chance.choice(["\n", "\r\n", "\n\n"]).join(json.dumps(record, **options) for record in records)
        text += chance.choice(["", "\n"])
    data = text.encode("utf-8-sig" if chance.random() < 0.2 else "utf-8")
    return gzip.compress(data) if chance.random() < 0.2 else data


def objects_of(chance: random.Random, keys: Sequence[str], words: Sequence[str]) -> list[bytes]:
    """Source objects, with at least one id among them. Plain ones are what Arrow's own reader parses."""
    plain = chance.random() < 0.3
    ids: list[Any] = [*keys, *SPELLINGS, None, *(int(key) for key in INTEGERS[:6]), 7.0, True, []]
    fields = ["id", *chance.sample([*NAMES, *FIELDS], chance.randrange(6))]
    objects = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        records = []
        for _ in range(chance.choice([1, 2, 5, 30])):
            present = fields if plain else chance.sample(fields, chance.randrange(len(fields) + 1))
            record = {name: chance.choice([*words, None]) if plain else value_of(chance, words) for name in present}
            if "id" in record or (plain and chance.random() < 0.9):
                record["id"] = chance.choice([key for key in ids if isinstance(key, str)] if plain else ids)
            records.append(record)
        objects.append(object_of(chance, records))
    if not any("id" in record for data in objects for record in oracle.records_of(data)):
        objects.append(b'{"id":"1"}')
    return objects


def rows_of(
    chance: random.Random, columns: Sequence[str], keys: Sequence[str], words: Sequence[str], *, unique: bool
) -> list[tuple[str | None, ...]]:
    """Rows of a table."""
    size = chance.choice([0, 1, 3, 10, 40])
    chosen: list[str | None] = list(chance.sample(keys, min(size, len(keys))))
    if not unique:
        chosen = [chance.choice([*keys, None]) for _ in range(size)]
    rows = []
    for key in chosen:
        row: list[str | None] = [chance.choice([*words, None]) for _ in columns]
        row[columns.index("id")] = key
        rows.append(tuple(row))
    return rows


def arguments_of(chance: random.Random) -> dict[str, str]:
    """CSV options: each value of each."""
    drawn = {
        "csv_encoding": chance.choice(["utf-8", "utf-8", "utf-8-sig", "cp932"]),
        "csv_delimiter": chance.choice([",", ",", "\t", ";", "|", "a", "列"]),
        "csv_line_ending": chance.choice(["lf", "crlf"]),
        "csv_quote": chance.choice(["minimal", "all"]),
        "csv_null": chance.choice(["", "", "NULL", "--", "A"]),
        "csv_escape_formulas": chance.choice(["true", "false", "false"]),
    }
    return {name: value for name, value in drawn.items() if value}


def limits_of(chance: random.Random) -> Limits:
    """Limits that cut source, table, lookups and output in many places."""
    chunk = chance.choice([50, 1000, 4 * MIB])
    cut = chance.choice([20, 64, 500, 4 * MIB])
    part = chance.choice([40, 300, 8 * MIB])
    return replace(
        Limits(),
        chunk_bytes=chunk,
        sniff_bytes=min(chunk, Limits().sniff_bytes),
        range_bytes_min=cut,
        range_bytes_max=cut,
        fetch_rows=chance.choice([1, 3, 10_000]),
        range_rows_min=chance.choice([3, 100_000]),
        range_rows_max=chance.choice([5, 2_000_000]),
        lookup_list=chance.choice([1, 1, 3, 900]),
        first_ids=chance.choice([1, 12, 1_000]),
        part_bytes=part,
        part_bytes_min=min(part, 5 * MIB) // 2 + 1,
    )


def make_pair(seed: str, *, nul: bool = True) -> Pair:
    """The pair of a seed; without `nul` for a database whose texts cannot have that character."""
    chance = random.Random(seed)
    integer_key, unique = chance.random() < 0.5, chance.random() < 0.5
    columns = ["id", *chance.sample(NAMES, chance.randrange(5))]
    chance.shuffle(columns)
    arguments = arguments_of(chance)
    narrow = arguments["csv_encoding"] == "cp932" and chance.random() < 0.7
    words = [word for word in WORDS if not (narrow and "😀" in word)]
    in_table = [word for word in words if nul or "\0" not in word]
    keys = INTEGERS if integer_key else in_table[1:] + INTEGERS[:4] + ([] if narrow else ALIKE)
    pair = Pair(
        objects=objects_of(chance, keys, words),
        columns=columns,
        rows=rows_of(chance, columns, keys, in_table, unique=unique),
        integer_key=integer_key,
        unique=unique,
        arguments=arguments,
        limits=limits_of(chance),
        cores=chance.choice([1, 2, 8]),
    )
    return with_choices(chance, pair)


def with_choices(chance: random.Random, pair: Pair) -> Pair:
    """The pair with a key of another name in the table, chosen columns and a condition; each in half of the pairs."""
    columns, rows = list(pair.columns), pair.rows
    chosen, where = list[str | dict[str, str]](), tuple[str, ...]()
    key = chance.choice(["id", "id", "extra", 'k`e"y'])
    columns[columns.index("id")] = key
    if key != "id" and len(columns) > 2 and chance.random() < 0.5:  # a number of its own beside it
        columns[chance.choice([number for number, name in enumerate(columns) if name != key])] = "id"
    if chance.random() < 0.5:
        source = [name for data in pair.objects for record in oracle.records_of(data) for name in record]
        names = list(dict.fromkeys([*source, *columns]))
        titles = chance.sample([*names, "new", "新,1"], chance.randint(1, len(names)))
        chosen = [
            title if title in names and chance.random() < 0.7 else {"from": chance.choice(names), "as": title}
            for title in titles
        ]
        # An empty name is one that a source may have, and nobody can ask for.
        chosen = [column for column in chosen if column and (isinstance(column, str) or all(column.values()))]
    if len(columns) > 1 and chance.random() < 0.6:
        often_null = chance.choice([name for name in columns if name != key])
        where = chance.choice([name for name in columns if name != often_null]), often_null
        at = columns.index(often_null)
        rows = [(*row[:at], None, *row[at + 1 :]) if chance.random() < 0.5 else row for row in rows]
    return replace(pair, columns=columns, rows=rows, table_key=key, chosen_columns=chosen, where_columns=where)


def expectation(pair: Pair) -> oracle.Expected | None:
    """What the oracle says of a pair; None where a character does not exist in the encoding."""
    csv = csv_options(pair.arguments)
    try:
        return oracle.overlay(
            pair.objects,
            pair.columns,
            pair.rows_there,
            table_key=pair.table_key,
            chosen_columns=pair.chosen_columns,
            integer_key=pair.integer_key,
            csv=csv,
        )
    except UnicodeEncodeError:
        return None


def unmatched_list(pair: Pair) -> bytes | None:
    """The list of the ids that no record has, as the oracle reads and writes; None as of `expectation`."""
    csv, same = csv_options(pair.arguments), oracle.canonical if pair.integer_key else str
    records = [record for data in pair.objects for record in oracle.records_of(data)]
    texts = [oracle.text_of(record.get("id")) for record in records]
    in_source = {same(text) for text in texts if text is not None}
    ids = {row[pair.key_at] for row in pair.rows_there} - {None}
    alone = sorted((i for i in ids if same(i) not in in_source), key=int if pair.integer_key else str.encode)
    try:
        return "".join(csv.line([text]) for text in ["id", *alone]).encode(csv.encoding)
    except UnicodeEncodeError:
        return None


def fill_table(pipeline: Any, pair: Pair) -> None:
    """Makes the table of a pair anew. Where no index says that ids are unique, texts that differ may be equal to it."""
    quote_name = pipeline.dialect.quote_name
    if pair.integer_key:
        key = "BIGINT"
    elif pipeline.on_postgresql:
        key = "VARCHAR(40) COLLATE " + ('"C"' if pair.unique else "no_case")
    else:
        key = "VARCHAR(40) COLLATE " + ("utf8mb4_nopad_bin" if pair.unique else "utf8mb4_general_ci")
    listed = [f"{quote_name(name)} {key if name == pair.table_key else 'TEXT'}" for name in pair.columns]
    kind, indexed = "UNIQUE" if pair.unique else "", quote_name(pair.table_key)
    index = f"CREATE {kind} INDEX i{pipeline.name} ON {pipeline.name} ({indexed})"
    pipeline.sql(
        f"DROP TABLE IF EXISTS {pipeline.name}",
        f"CREATE TABLE {pipeline.name} ({', '.join(listed)})",
        index,
    )
    if pair.rows:
        with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            marks = ", ".join(["%s"] * len(pair.columns))
            cursor.executemany(f"INSERT INTO {pipeline.name} VALUES ({marks})", pair.rows)
