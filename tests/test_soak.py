"""Generated sources and tables through the merge against the oracle: many, as most of them need no Spark.

`make soak` tries 10,000 for half an hour at most; `make test` a few hundred. A pair is made of its seed alone, and a
failure prints the command that tries it again.
"""

from __future__ import annotations

import gzip
import itertools
import json
import operator
import os
import random
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

import glue_job
from glue_job import (
    SUMMARY_UNIT,
    BlockRow,
    CsvFormat,
    OverlayTask,
    Piece,
    SourceObject,
    SourceTask,
    TableKeys,
    Upload,
    UploadTask,
    csv_lines,
    cut_parts,
    encode_lines,
    follow_each_other,
    key_filter,
    ordered_lines,
    split_blocks,
)
from tests import figures, oracle
from tests.test_source import Store

PAIRS = int(os.environ.get("SOAK_PAIRS", "300"))
SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
# Who asks for a number of pairs searches; a test of the suite must not fail by chance.
SEED = os.environ.get("SOAK_SEED") or (
    str(random.SystemRandom().randrange(10**9)) if "SOAK_PAIRS" in os.environ else "0"
)
FIRST = int(os.environ.get("SOAK_FIRST", "0"))
SPARK_EVERY = 150  # pairs; each takes seconds

NAMES = ["name", "note", "k", "c0", "match", "position", "列", 'a"b', "a,b", "a`b", "x\ny", "=1"]
WORDS = [
    "",
    "a",
    "A",
    "a ",
    "1.10",
    "007",
    'x,"y"',
    "line\nbreak",
    "\r",
    "列😀",
    "=1+1",
    "NULL",
    " ",
    "false",
    "'",
    "\\",
    "\x00",
]
INTEGERS = ["0", "1", "2", "3", "7", "-4", "99", "2147483647", "9223372036854775807", "-9223372036854775808"]
SPELLINGS = ["007", "7.0", "70e-1", "+7", " 7", "7.5", "-0", "1e400", "x", "18446744073709551615", ""]


@dataclass
class Pair:
    """A source and a table, with all that decides how they are read.

    Attributes:
        objects: The source objects, in order.
        columns, rows: The table, its values as the database prints them. The key is among the columns.
        cut: Bytes of a piece, where an object is cut; 0: none is.
    """

    objects: list[bytes]
    columns: list[str]
    rows: list[tuple[str | None, ...]]
    integer_key: bool
    unique: bool
    options: dict[str, Any]
    cut: int
    block: int
    targets: int
    partitions: int
    seed: str = field(default="")


def value_of(chance: random.Random, depth: int = 0) -> Any:
    """A JSON value."""
    kind = chance.randrange(10)
    if kind < 5:
        return chance.choice(WORDS)
    if kind < 6:
        return None
    if kind < 8 or depth > 2:
        return chance.choice([True, False, 0, -1, 1.5, 10**20, 1e-7])
    if kind < 9:
        if chance.random() < 0.5:  # in an array that is cut they look like records
            return [{"id": chance.choice(INTEGERS)} for _ in range(chance.randrange(12))]
        return [value_of(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {chance.choice(WORDS): value_of(chance, depth + 1) for _ in range(chance.randrange(3))}


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


def make_pair(seed: str) -> Pair:
    """The pair of a seed."""
    chance = random.Random(seed)
    integer_key, plain = chance.random() < 0.5, chance.random() < 0.3
    columns = ["id", *chance.sample(NAMES, chance.randrange(5))]
    chance.shuffle(columns)
    keys = INTEGERS if integer_key else WORDS[1:] + INTEGERS[:4]
    unique = chance.random() < 0.5
    size = chance.choice([0, 1, 3, 10, 40])
    chosen: list[str | None] = list(chance.sample(keys, min(size, len(keys))))
    if not unique:
        chosen = [chance.choice([*keys, None]) for _ in range(size)]
    at = columns.index("id")
    rows = []
    for key in chosen:
        row: list[str | None] = [chance.choice([*WORDS, None]) for _ in columns]
        row[at] = key
        rows.append(tuple(row))
    ids: list[Any] = [*keys, *SPELLINGS, None, *(int(key) for key in INTEGERS[:6]), 7.0, True, []]
    fields = ["id", *chance.sample([*NAMES, "ID", "Name", "extra", "追加", "", " "], chance.randrange(6))]
    objects = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        records = []
        for _ in range(chance.choice([1, 2, 5, 30])):
            present = fields if plain else chance.sample(fields, chance.randrange(len(fields) + 1))
            record = {name: chance.choice([*WORDS, None]) if plain else value_of(chance) for name in present}
            if "id" in record or (plain and chance.random() < 0.9):
                record["id"] = chance.choice([key for key in ids if isinstance(key, str)] if plain else ids)
            records.append(record)
        objects.append(object_of(chance, records))
    if not any("id" in record for data in objects for record in oracle.records_of(data)):
        objects.append(b'{"id":"1"}')
    options = {
        "delimiter": chance.choice([",", ",", "\t", ";", "|"]),
        "line_ending": chance.choice(["lf", "crlf"]),
        "quote": chance.choice(["minimal", "all"]),
        "null": chance.choice(["", "", "NULL"]),
        "escape_formulas": chance.random() < 0.3,
    }
    return Pair(
        objects=objects,
        columns=columns,
        rows=rows,
        integer_key=integer_key,
        unique=unique,
        options=options,
        cut=chance.choice([0, 0, 20, 64, 500]),
        block=chance.choice([50, 1000, 4 * 1024 * 1024]),
        targets=chance.choice([1, 2, 7]),
        partitions=chance.choice([1, 2]),
        seed=seed,
    )


def expectation(pair: Pair) -> oracle.Expected:
    """What the oracle says of a pair."""
    csv = oracle.Csv(**pair.options)
    return oracle.overlay(pair.objects, pair.columns, pair.rows, integer_key=pair.integer_key, csv=csv)


def pieces(pair: Pair, *, cut: bool) -> Iterator[list[Piece]]:
    """The splits of the objects, as `plan_splits` makes them of big ones."""
    for number, data in enumerate(pair.objects):
        item = SourceObject("lake", str(number), len(data), "e")
        body = data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
        step = pair.cut + len(data) - len(body)
        if cut and pair.cut and body[:1] in {b"{", b"["}:
            starts = range(0, len(data), step)
            yield from ([Piece(item, at, min(at + step, len(data)), body[:1] == b"[")] for at in starts)
        else:
            yield [Piece(item, 0, None)]


def source_of(pair: Pair) -> tuple[list[BlockRow], list[dict[str, Any]]]:
    """The blocks of the source and the summaries of its splits, read as executors read them."""
    store = Store(**{str(number): data for number, data in enumerate(pair.objects)})
    for cut in (True, False):
        splits = list(pieces(pair, cut=cut))
        task = SourceTask(splits, "id", pair.integer_key, "\x00nonce:", pair.targets, None)
        blocks: list[BlockRow] = []
        summaries = [drained(split_blocks(store, n, task), blocks) for n in range(len(splits))]
        if follow_each_other(splits, summaries):
            break
    return blocks, summaries


def drained(generator: Generator[BlockRow, None, dict[str, Any]], into: list[BlockRow]) -> dict[str, Any]:
    """What a generator returns, after all it yields."""
    while True:
        try:
            into.append(next(generator))
        except StopIteration as end:
            return end.value


def table_of(pair: Pair, keys: TableKeys, summaries: list[dict[str, Any]]) -> list[BlockRow]:
    """The blocks of the table, without the rows that no record can have where keys are unique."""
    if not pair.rows:
        return []
    cells = [pa.array(column, pa.string()) for column in zip(*pair.rows, strict=True)]
    batch = pa.RecordBatch.from_arrays(cells, names=[f"c{i}" for i in range(len(cells))])
    half = batch.num_rows // 2
    parts = [batch.slice(0, half), batch.slice(half)]
    wanted = SimpleNamespace(value=key_filter(summary["key_bits"] for summary in summaries)) if pair.unique else None
    packer = glue_job._row_packer(keys, pair.targets, wanted)
    return [tuple(row.values()) for part in parts for made in packer([part]) for row in made.to_pylist()]


def merged(pair: Pair) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the counts of a pair by the functions that executors run, put together as Spark would."""
    form = CsvFormat(**pair.options)
    blocks, summaries = source_of(pair)
    counts = [summary["records"] for summary in summaries]
    records = sum(counts)
    headers = tuple(tuple(summary["columns"]) for summary in summaries)
    columns = tuple(dict.fromkeys([*itertools.chain.from_iterable(headers), *pair.columns]))
    keys = TableKeys(len(pair.columns), pair.columns.index("id"), pair.unique, False, pair.integer_key)
    unit_rows = 3
    task = OverlayTask(
        columns=columns,
        headers=headers,
        starts=[0, *itertools.accumulate(counts)],
        table_columns=tuple(pair.columns),
        keys=keys,
        form=form,
        unit_rows=unit_rows,
    )
    blocks += table_of(pair, keys, summaries)
    units, found = [], []
    for partition in range(pair.partitions):
        here = [block for block in blocks if block[0] % pair.partitions == partition]
        here.sort(key=operator.itemgetter(1))
        batches = [glue_job.block_batch([block]) for block in here]
        for batch in glue_job._overlayer(task)(iter(batches)):
            for row in batch.to_pylist():
                (found if row["unit"] == SUMMARY_UNIT else units).append(row)
    told = [json.loads(row["data"]) for row in found]
    units.sort(key=lambda row: int(row["unit"]))
    lines = ordered_lines(glue_job.unit_batch([(row["unit"], row["data"])]) for row in units)
    header = encode_lines(csv_lines([pa.array([name]) for name in columns], form)[0].as_py().encode(), form, columns, 0)
    upload = Upload("lake", "out", "u", 64, form, columns, header, None)
    parts = cut_parts(upload, UploadTask(0, records, 1, 10_000), lines)
    missing = np.sum([summary["missing"] for summary in told], axis=0).tolist()
    sums = {name: sum(summary[name] for summary in told) for name in glue_job.COUNTS}
    return b"".join(parts), {
        "source_records": records,
        "matched": sums["matched"],
        "source_only": records - sums["matched"],
        "filled_cells": sum(lacks - empty for lacks, empty in missing),
        "coverage": [[records - lacks, lacks - empty, empty] for lacks, empty in missing],
        "unmatched": sums["table_rows"] - sums["matched_rows"],
        "unmatched_ids": glue_job.merged_ids((each["unmatched_ids"] for each in told), integer=pair.integer_key),
        "source_duplicates": sums["source_duplicates"],
        "missing_ids": sum(summary["missing_ids"] for summary in summaries),
        "table_rows": sums["table_rows"],
        "table_duplicates": sums["table_duplicates"],
        "columns": list(columns),
    }


def run_on_spark(pipeline, pair: Pair, expected: oracle.Expected) -> None:
    """The same pair through the whole job: Spark, MariaDB, S3."""
    kinds = {"id": "BIGINT" if pair.integer_key else "VARCHAR(40) COLLATE utf8mb4_nopad_bin"}
    listed = [f"{glue_job.MySQL().quote_name(name)} {kinds.get(name, 'TEXT')}" for name in pair.columns]
    index = ", UNIQUE (id)" if pair.unique else ""
    pipeline.sql(f"CREATE OR REPLACE TABLE {pipeline.name} ({', '.join(listed)}{index})")
    if pair.rows:
        with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            marks = ", ".join(["%s"] * len(pair.columns))
            cursor.executemany(f"INSERT INTO {pipeline.name} VALUES ({marks})", pair.rows)
    client = pipeline.aws.client("s3")
    folder = f"soak/{pipeline.name}/"
    for item in client.list_objects_v2(Bucket="lake", Prefix=folder).get("Contents", []):
        client.delete_object(Bucket="lake", Key=item["Key"])
    for number, data in enumerate(pair.objects):
        pipeline.put(data, f"{folder}{number}.json")
    options = {name: str(value).lower() if value in (True, False) else value for name, value in pair.options.items()}
    result = pipeline.run(source_key=folder, **{f"csv_{name}": value for name, value in options.items() if value != ""})
    assert pipeline.output() == expected.csv
    assert {name: getattr(result, name) for name in expected.counts} == expected.counts


def test_generated_pairs_agree_with_the_oracle(pipeline, monkeypatch):
    began = time.monotonic()
    tried = on_spark = 0
    for number in range(FIRST, FIRST + PAIRS):
        if time.monotonic() - began > SECONDS:
            break
        pair = make_pair(f"{SEED}:{number}")
        again = f"to try it again: SOAK_SEED={SEED} SOAK_FIRST={number} SOAK_PAIRS=1 make soak"
        expected = expectation(pair)
        with monkeypatch.context() as patch:
            patch.setattr(glue_job, "BLOCK_BYTES", pair.block)
            patch.setattr(glue_job, "SNIFF_BYTES", min(pair.block, glue_job.SNIFF_BYTES))
            patch.setattr(glue_job, "MIN_PART_BYTES", 32)
            found, counts = merged(pair)
        assert found == expected.csv, again
        assert counts == expected.counts, again
        tried += 1
        if number % SPARK_EVERY == 0:
            run_on_spark(pipeline, pair, expected)
            on_spark += 1
    seconds = time.monotonic() - began
    figures.record("soak", f"seed {SEED}", pairs=tried, on_spark=on_spark, seconds=round(seconds, 1))
    assert tried == PAIRS or seconds > SECONDS
