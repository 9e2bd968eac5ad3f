"""Generated sources and tables through both engines against the oracle: many, as most of them need no Spark.

`make soak` tries 10,000 for half an hour at most; `make test` a few hundred. A pair is made of its seed alone, and a
failure prints the command that tries it again. Each goes through the functions that executors run, put together here
as Spark would; every few through the driver engine and a real database; every 150th through Spark itself.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import random
import time
import zlib
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from overlay import aws as job_aws
from overlay import keys
from overlay.csv_text import header
from overlay.engines import workers
from overlay.merge import Counts, counts_from_data, merged_columns
from overlay.settings import csv_format
from overlay.source.objects import cut_ranges
from overlay.upload import UploadTarget, plan_parts
from reference import oracle
from tests import figures
from tests.engines.pairs import Pair, expectation, fill_table, make_pair
from tests.engines.test_same_bytes import check_driver_engine, run_spark_engine
from tests.memory_s3 import MemoryS3

pytestmark = pytest.mark.long

PAIRS = int(os.environ.get("SOAK_PAIRS", "300"))
SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
# Who asks for a number of pairs searches; a test of the suite must not fail by chance.
SEED = os.environ.get("SOAK_SEED") or (
    str(random.SystemRandom().randrange(10**9)) if "SOAK_PAIRS" in os.environ else "0"
)
FIRST = int(os.environ.get("SOAK_FIRST", "0"))
DRIVER_EVERY = 5  # pairs; each takes a tenth of a second or more
SPARK_EVERY = 150  # pairs; each takes seconds
BATCH_ROWS = 4
PARTITIONS = 2
Rows = list[dict[str, Any]]


def batches_of(rows: Rows, schema: pa.Schema) -> Iterable[pa.RecordBatch]:
    """Rows as Spark hands them to a worker."""
    for start in range(0, len(rows), BATCH_ROWS):
        yield pa.RecordBatch.from_pylist(rows[start : start + BATCH_ROWS], schema)


def rows_in(batches: Iterable[pa.RecordBatch]) -> Rows:
    """All rows of some batches."""
    return [row for batch in batches for row in batch.to_pylist()]


class ByHand:
    """The Spark engine without Spark: its workers' functions, with Python's own join, grouping and sorting between."""

    def __init__(self, pair: Pair, s3: MemoryS3) -> None:
        self.pair, self.s3, self.form = pair, s3, csv_format(pair.arguments)
        self.reading = workers.Reading(
            byte_ranges=cut_ranges(s3, s3.sources(), PARTITIONS, pair.limits),
            table_columns=pair.columns,
            key="id",
            row_key=pair.table_key,
            integer_key=pair.integer_key,
            zerofill=False,
            nonce="\0nonce:",
            hashes_max=10**6,
            region=s3.region_name,
            limits=pair.limits,
        )

    def numbers(self) -> list[pa.RecordBatch]:
        """The numbers of the byte ranges."""
        return [pa.RecordBatch.from_arrays([pa.array(range(len(self.reading.byte_ranges)))], ["id"])]

    def records(self) -> Rows:
        """Reads every record, after columns and filter were learnt from all."""
        facts = rows_in(workers.gather_facts(self.reading, self.numbers()))
        messages = [json.loads(row["message"]) for row in facts]
        hashes = [np.frombuffer(row["hashes"], np.uint32).astype(np.uint64) << np.uint64(32) for row in facts]
        self.filter = keys.KeyFilter.of_hashes(hashes)
        self.source_columns = tuple(dict.fromkeys(name for message in messages for name in message["columns"]))
        theirs = [name for name in self.pair.columns if name != self.pair.table_key]
        pairs = [
            (column, column) if isinstance(column, str) else (column["from"], column["as"])
            for column in self.pair.chosen_columns or merged_columns(self.source_columns, theirs)
        ]
        self.names, self.columns = zip(*pairs, strict=True)
        starts = list(itertools.accumulate((message["records"] for message in messages), initial=0))
        return rows_in(workers.parse_records(self.reading, self.source_columns, starts, self.numbers()))

    def rows(self) -> Rows:
        """Reads the table by two workers: one row an id and how many have it, with messages among them."""
        pair, width = self.pair, len(self.pair.columns)
        schema = pa.schema([(f"c{number}", pa.string()) for number in range(width)])
        table = [dict(zip(schema.names, row, strict=True)) for row in pair.rows_there]
        broadcast = SimpleNamespace(value=self.filter) if pair.unique else None
        half = len(table) // 2
        matched_rows = [
            row
            for partition in (table[:half], table[half:])
            for row in rows_in(workers.match_rows(self.reading, broadcast, batches_of(partition, schema)))
        ]
        groups: dict[tuple[Any, ...], Rows] = {}
        for row in matched_rows:
            groups.setdefault((row["match"], row["table_message"]), []).append(row)
        order = operator.itemgetter(*schema.names) if width > 1 else lambda row: (row["c0"],)
        first = [
            min(group, key=lambda row: [(cell is not None, (cell or "").encode()) for cell in order(row)])
            for group in groups.values()
        ]
        return [row | {"copies": len(group)} for row, group in zip(first, groups.values(), strict=True)]

    def joined(self) -> tuple[Rows, pa.Schema]:
        """Joins the records with the rows of their ids, and keeps what has no other side."""
        records, rows = self.records(), self.rows()
        by_match = {row["match"]: row for row in rows if row["match"] is not None}
        record_schema = workers.record_schema(len(self.source_columns))
        row_schema = workers.row_schema(len(self.pair.columns))
        fields = {**{f.name: f.type for f in record_schema}, **{f.name: f.type for f in row_schema}}
        schema = pa.schema([*fields.items(), ("copies", pa.int64()), ("message", pa.string())])
        nothing = dict.fromkeys(schema.names)
        matches = {record["match"] for record in records}
        both = [nothing | by_match.get(record["match"], {}) | record for record in records]
        both += [nothing | row for row in rows if row["match"] is None or row["match"] not in matches]
        for row in both:
            row["message"] = row["source_message"] or row["table_message"]
        return both, schema

    def lines(self) -> tuple[Rows, Counts]:
        """Makes the lines of all partitions and their counts."""
        joined, schema = self.joined()
        records = sum(row["ordinal"] is not None for row in joined)
        bin_rows = max(records // 3, 1)
        making = workers.Making(self.source_columns, self.names, self.form, bin_rows)
        overlay = partial(workers.overlay_joined, self.reading, making)
        partitions: list[Rows] = [[] for _ in range(PARTITIONS)]
        for row in joined:
            partitions[zlib.crc32((row["match"] or "").encode()) % PARTITIONS].append(row)
        overlaid_rows = [row for partition in partitions for row in rows_in(overlay(batches_of(partition, schema)))]
        counts = sum(
            (counts_from_data(json.loads(row["message"])) for row in overlaid_rows if row["message"]), Counts()
        )
        counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, 10, integer=self.pair.integer_key)
        return [row for row in overlaid_rows if row["line"] is not None], counts

    def publish(self) -> tuple[bytes, dict[str, Any]]:
        """Uploads the lines as workers do; returns the bytes of the output and the counts."""
        lines, counts = self.lines()
        lines.sort(key=operator.itemgetter("bin", "ordinal"))
        bins = [
            (number, len(group), sum(len(row["line"].encode()) for row in group))
            for number, rows in itertools.groupby(lines, operator.itemgetter("bin"))
            for group in [list(rows)]
        ]
        size = max(self.pair.limits.part_bytes, self.pair.limits.part_bytes_min * 3)
        plan = {number: (part, start) for number, part, start in plan_parts(bins, size, self.pair.limits, running=True)}
        schema = pa.schema([("part", pa.int32()), ("row", pa.int64()), ("line", pa.string())])
        numbered = [
            {"part": plan[row["bin"]][0], "row": plan[row["bin"]][1] + row["ordinal"] + 1, "line": row["line"]}
            for row in lines
        ]
        target = UploadTarget("lake", "out", self.s3.create_multipart_upload("lake", "out", "")["UploadId"])
        first = header(self.columns, self.form)
        uploading = workers.Uploading(target, self.form, self.columns, first, size, "", self.pair.limits)
        sent_parts = []
        for remainder in range(PARTITIONS):
            part = [row for row in numbered if row["part"] % PARTITIONS == remainder]
            if part:
                sent_parts += rows_in(workers.upload_lines(uploading, batches_of(part, schema)))
        sent_parts.sort(key=operator.itemgetter("number"))
        assert sum(row["rows"] for row in sent_parts) == len(lines)
        parts = [{"PartNumber": row["number"], "ETag": row["etag"]} for row in sent_parts]
        self.s3.complete_multipart_upload("lake", "out", target.upload_id, {"Parts": parts})
        return self.s3.objects["out"], {**counts.as_dict(), "columns": list(self.columns)}


def check_by_hand(pair: Pair, expected: oracle.Expected | None, monkeypatch) -> None:
    """Compares what the functions of the Spark engine make of a pair with the oracle's bytes and counts."""
    if expected is None:
        return
    s3 = MemoryS3(pair.limits, **{str(number): data for number, data in enumerate(pair.objects)})
    with monkeypatch.context() as patch:
        patch.setattr(job_aws, "client", lambda *_: s3)
        data, counts = ByHand(pair, s3).publish()
    assert data == expected.csv
    assert {name: counts[name] for name in expected.counts} == expected.counts


def test_generated_pairs_agree_with_the_oracle(pipeline, by_connector_j, on_postgresql, monkeypatch):
    servers = (pipeline, by_connector_j, on_postgresql)
    began = time.monotonic()
    tried = on_driver = on_spark = 0
    for number in range(FIRST, FIRST + PAIRS):
        if time.monotonic() - began > SECONDS:
            break
        server = servers[number % 3]
        pair = make_pair(f"{SEED}:{number}", nul=not server.on_postgresql)
        try:
            check_by_hand(pair, expectation(pair), monkeypatch)
            if number % DRIVER_EVERY == 0:
                fill_table(server, pair)
                on_driver += check_driver_engine(server, pair, monkeypatch, ("lookup", "scan")[number // 5 % 2])
            if number % SPARK_EVERY == 0:
                server.engine = "spark"
                on_spark += run_spark_engine(server, pair, any_size=True)
        except Exception as error:
            error.add_note(f"to try it again: SOAK_SEED={SEED} SOAK_FIRST={number} SOAK_PAIRS=1 make soak")
            raise
        tried += 1
    seconds = time.monotonic() - began
    figures.record("soak", f"seed {SEED}", pairs=tried, on_spark=on_spark, seconds=round(seconds, 1))
    assert tried == PAIRS or seconds > SECONDS
    assert on_driver or PAIRS < DRIVER_EVERY
    assert on_spark or PAIRS < SPARK_EVERY
