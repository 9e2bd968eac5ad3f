"""What the Spark engine does on executors: functions of Arrow batches to Arrow batches, without Spark in them.

The last column of each frame is its message, null but in the rows by which a worker tells the driver something, as
JSON: what it counted, or the error it met. An exception would be tried four times, and reach the driver as text.
"""

import itertools
import json
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from overlay import aws, keys
from overlay.csv_text import csv_lines, encoded, text_bytes
from overlay.differences import find_differences
from overlay.errors import JobError
from overlay.limits import Limits
from overlay.merge import Counts, overlay, rows_with_id
from overlay.settings import CsvFormat
from overlay.source.columns import record_batches
from overlay.source.json_reader import RecordReader
from overlay.source.objects import ByteRange
from overlay.upload import UploadTarget, cut_parts, send_parts

Batches = Iterable[pa.RecordBatch]
FACTS = pa.schema([("hashes", pa.binary()), ("message", pa.string())])
LINES = pa.schema([("bin", pa.int32()), ("ordinal", pa.int64()), ("line", pa.string()), ("message", pa.string())])
PARTS = pa.schema(
    [
        *(("number", pa.int32()), ("etag", pa.string()), ("bytes", pa.int64()), ("fingerprint", pa.string())),
        *(("rows", pa.int64()), ("message", pa.string())),
    ]
)


def message_row(schema: pa.Schema, message: Any, **cells: Any) -> pa.RecordBatch:
    """One row that is null but for its message and some cells."""
    row = dict.fromkeys(schema.names) | cells | {schema.names[-1]: json.dumps(message)}
    return pa.RecordBatch.from_pylist([row], schema)


def error_row(schema: pa.Schema, error: JobError) -> pa.RecordBatch:
    """The row by which an error travels."""
    return message_row(schema, {"error": error.to_data()})


# The source.


class Reading(NamedTuple):
    """How workers read both sides.

    Attributes:
        byte_ranges: What each of them parses.
        table_columns: The names of the columns of the table that are read.
        key, row_key: The key columns of source and table.
        integer_key: Whether ids are compared by their value.
        zerofill: Whether the database prints ids with leading zeros.
        nonce: What the match of a record without an id begins with, so that it matches nothing.
        hashes_max: Records of a range up to which the driver is told the hashes of their ids.
    """

    byte_ranges: Sequence[Sequence[ByteRange]]
    table_columns: Sequence[str]
    key: str
    row_key: str
    integer_key: bool
    zerofill: bool
    nonce: str
    hashes_max: int
    region: str
    limits: Limits

    @property
    def key_at(self) -> int:
        """Which column of the table has the ids."""
        return self.table_columns.index(self.row_key)

    def batches(self, number: int) -> Iterator[pa.RecordBatch]:
        """The records of a byte range."""
        client = aws.client("s3", self.limits.aws, self.region)
        return record_batches([RecordReader(client, item, self.limits) for item in self.byte_ranges[number]])

    def ids(self, batch: pa.RecordBatch) -> pa.Array:
        """The ids of records as written."""
        at = batch.schema.get_field_index(self.key)
        return pa.nulls(batch.num_rows, pa.string()) if at < 0 else batch.column(at)


def gather_facts(reading: Reading, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Numbers of byte ranges in; of each its columns, records, and the hashes of the ids."""
    for number in itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches):
        columns: Sequence[str] = ()
        records = 0
        hashes = [np.empty(0, np.uint32)]
        try:
            for batch in reading.batches(number):
                columns, records = batch.schema.names, records + batch.num_rows
                ids = reading.ids(batch)
                if records <= reading.hashes_max:
                    matches = keys.source_matches(ids.drop_null(), integer=reading.integer_key)
                    hashes.append((keys.hashes(matches) >> np.uint64(32)).astype(np.uint32))
        except JobError as error:
            yield message_row(FACTS, {"range": number, "error": error.to_data()})
            continue
        facts = {"range": number, "columns": list(columns), "records": records}
        few = records <= reading.hashes_max
        yield message_row(FACTS, facts, hashes=np.concatenate(hashes).tobytes() if few else None)


def record_schema(width: int) -> pa.Schema:
    """Records: where they stand in the source, what they are compared with, their values."""
    cells = [(f"s{number}", pa.string()) for number in range(width)]
    return pa.schema([("ordinal", pa.int64()), ("match", pa.string()), *cells, ("source_message", pa.string())])


def parse_records(
    reading: Reading, columns: Sequence[str], starts: Sequence[int], batches: Batches
) -> Iterator[pa.RecordBatch]:
    """Numbers of byte ranges in, their records out (`record_schema`); `starts` are their first ordinals."""
    schema = record_schema(len(columns))
    for number in itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches):
        ordinal = starts[number]
        try:
            for batch in reading.batches(number):
                ordinals = pa.array(np.arange(ordinal, ordinal + batch.num_rows))
                matches = keys.source_matches(reading.ids(batch), integer=reading.integer_key)
                if matches.null_count:
                    own = pc.binary_join_element_wise(reading.nonce, ordinals.cast(pa.string()), "")
                    matches = pc.coalesce(matches, own)
                cells = dict(zip(batch.schema.names, batch.columns, strict=True))
                nulls = pa.nulls(batch.num_rows, pa.string())
                values = [cells.get(name, nulls) for name in columns]
                yield pa.RecordBatch.from_arrays([ordinals, matches, *values, nulls], schema=schema)
                ordinal += batch.num_rows
        except JobError as error:
            yield error_row(schema, error)


# The table.


def row_schema(width: int) -> pa.Schema:
    """Rows: what they are compared with, their values."""
    cells = [(f"c{number}", pa.string()) for number in range(width)]
    return pa.schema([("match", pa.string()), *cells, ("table_message", pa.string())])


def match_rows(reading: Reading, key_filter: Any, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Rows as text in, those that a record may have out (`row_schema`), and a message about the others.

    Most rows of a large table are dropped here, where they are read, and need not be shuffled: 1 M records on 20 M rows
    take 75 core-seconds, and 170 without the filter (2026-11-26, two cores).

    Args:
        reading: Its `table_columns` are those of the rows.
        key_filter: A broadcast KeyFilter; None to keep all rows with an id.
        batches: The rows.
    """
    schema = row_schema(len(reading.table_columns))
    limit, integer = reading.limits.unmatched_ids, reading.integer_key
    dropped, unmatched_ids = 0, list[str]()
    for batch in batches:
        named = rows_with_id(batch, reading.key_at)
        ids = named.column(reading.key_at)
        matches = keys.row_matches(ids, zerofill=reading.zerofill)
        if key_filter is not None:
            mask = pa.array(key_filter.value.may_have(keys.hashes(matches)))
            alone = pc.invert(mask)
            firsts = keys.first_ids(ids.filter(alone), matches.filter(alone), limit, integer=integer)
            unmatched_ids = keys.merged_ids([*unmatched_ids, *firsts], limit, integer=integer)
            named, matches = named.filter(mask), matches.filter(mask)
        dropped += batch.num_rows - named.num_rows
        if named.num_rows:
            nulls = pa.nulls(named.num_rows, pa.string())
            yield pa.RecordBatch.from_arrays([matches, *named.columns, nulls], schema=schema)
    yield message_row(schema, {"table_rows": dropped, "unmatched_ids": unmatched_ids})


# Both sides.


class PartitionCounts:
    """What a partition counts; it holds all rows and records of its ids.

    Attributes:
        counts: So far, but for what `message` adds.
    """

    def __init__(self, reading: Reading) -> None:
        self._nonce, self._id_column = reading.nonce, f"c{reading.key_at}"
        self._limit, self._integer = reading.limits.unmatched_ids, reading.integer_key
        self.counts = Counts()
        self._matches: list[pa.Array] = []  # of records
        self._hits: list[pa.Table] = []  # match and copies of rows that records have, once a record

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts joined rows: records, rows, or both."""
        is_record = batch.column("ordinal").is_valid()
        is_row = batch.column(self._id_column).is_valid()
        hit = pc.and_(is_record, is_row)
        matches = batch.column("match").filter(is_record)
        named = pc.invert(pc.starts_with(matches, self._nonce))
        self._matches.append(pc.unique(matches.filter(named)))
        self._hits.append(pa.table([batch.column("match").filter(hit), batch.column("copies").filter(hit)], ["m", "n"]))
        alone = batch.filter(pc.and_(is_row, pc.invert(is_record)))
        ids, row_matches = alone.column(self._id_column), alone.column("match")
        copies = pc.sum(alone.column("copies")).as_py() or 0
        self.counts += Counts(
            source_records=is_record.true_count,
            missing_ids=len(matches) - named.true_count,
            matched=hit.true_count,
            source_duplicates=named.true_count,  # less the distinct ones, in `message`
            table_rows=copies,
            table_duplicates=copies - alone.num_rows,
            unmatched_ids=keys.first_ids(ids, row_matches, self._limit, integer=self._integer),
        )

    def message(self) -> dict[str, Any]:
        """All counts as data."""
        counts = self.counts
        distinct = len(pc.unique(pa.chunked_array(self._matches, pa.string())))
        hits = pa.concat_tables(self._hits).group_by("m").aggregate([("n", "min")]) if self._hits else None
        rows, copies = (hits.num_rows, pc.sum(hits.column("n_min")).as_py() or 0) if hits else (0, 0)
        counts += Counts(
            source_duplicates=-distinct, table_rows=copies, matched_rows=copies, table_duplicates=copies - rows
        )
        counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, self._limit, integer=self._integer)
        return counts.to_data()


class Making(NamedTuple):
    """How workers make lines.

    Attributes:
        source_columns: The names of the columns that records come with.
        columns: The names of those that go into the output, in its order.
        bin_rows: The lines of a bin: the grain in which the size of the output is known before it is cut into parts.
        compared: The names of those in which both sides may differ.
        differences: How many of the cells that the source overrides are listed; None where they are not looked for.
    """

    source_columns: Sequence[str]
    columns: Sequence[str]
    form: CsvFormat
    bin_rows: int
    compared: Sequence[str] = ()
    differences: int | None = None


def overlay_joined(reading: Reading, making: Making, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Records beside rows in, LINES out, and a message with the counts.

    Lines of bin -1 are of cells that the source overrides: the first ones of each batch, as no more can be listed.
    """
    partition = PartitionCounts(reading)
    for batch in batches:
        is_message = batch.column("message").is_valid()
        for row in batch.filter(is_message).select(["message", "copies"]).to_pylist():
            message = json.loads(row["message"])
            if "error" in message:
                yield message_row(LINES, message)
            else:  # grouping rows by id made one row of all workers that say the same
                partition.counts += sum([Counts(**message)] * row["copies"], Counts())
        joined = batch.filter(pc.invert(is_message))
        partition.add(joined)
        records = joined.filter(joined.column("ordinal").is_valid())
        if not records.num_rows:
            continue
        ours = {name: records.column(f"s{number}") for number, name in enumerate(making.source_columns)}
        theirs = {name: records.column(f"c{number}") for number, name in enumerate(reading.table_columns)}
        overlaid = overlay(ours, theirs, making.columns, records.num_rows)
        partition.counts += Counts(coverage=overlaid.coverage)
        ordinals = records.column("ordinal")
        bins = pc.divide(ordinals, making.bin_rows).cast(pa.int32())
        lines = csv_lines(overlaid.values, making.form)
        yield pa.RecordBatch.from_arrays([bins, ordinals, lines, pa.nulls(records.num_rows, pa.string())], schema=LINES)
        if making.differences is not None:
            ids = ours[reading.key]
            differing = find_differences(ordinals, ids, (ours, theirs), making.compared, making.differences)
            partition.counts += Counts(overridden=differing.counts)
            lines = csv_lines(differing.cells, making.form)
            bins, nulls = pa.array([-1] * len(lines), pa.int32()), pa.nulls(len(lines), pa.string())
            yield pa.RecordBatch.from_arrays([bins, differing.positions, lines, nulls], schema=LINES)
    yield message_row(LINES, partition.message())


def list_lines(form: CsvFormat, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Bins and ids in order in, LINES out, their ordinals counted in the partition."""
    ordinal = 0
    for batch in batches:
        ordinals = pa.array(np.arange(ordinal, ordinal + batch.num_rows))
        lines = csv_lines([batch.column(1)], form)
        nulls = pa.nulls(batch.num_rows, pa.string())
        yield pa.RecordBatch.from_arrays([batch.column(0), ordinals, lines, nulls], schema=LINES)
        ordinal += batch.num_rows


# The output.


class Uploading(NamedTuple):
    """How workers upload parts."""

    target: UploadTarget
    form: CsvFormat
    columns: Sequence[str]
    header: bytes
    part_bytes: int  # lines that were dealt out to one part may take several
    region: str
    limits: Limits


def upload_lines(uploading: Uploading, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Lines (part, row, line) in the order of parts and rows in, the uploaded parts out (PARTS)."""
    rows: Counter[int] = Counter()
    parts = _numbered_parts(uploading, _encoded_lines(uploading, batches, rows))
    try:
        client = aws.client("s3", uploading.limits.aws, uploading.region)
        sent = send_parts(client, uploading.target, parts, uploading.limits)
    except JobError as error:
        yield error_row(PARTS, error)
        return
    cells = [part._asdict() | {"rows": rows[part.number], "message": None} for part in sent]
    yield pa.RecordBatch.from_pylist(cells, PARTS)


def _numbered_parts(uploading: Uploading, chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytearray]]:
    """What each part has; of lines that were dealt out to one part, the next numbers may have some."""
    for first, group in itertools.groupby(chunks, operator.itemgetter(0)):
        parts = cut_parts((data for _, data in group), uploading.part_bytes, uploading.limits)
        for number, data in enumerate(parts, first):
            yield number, bytearray(uploading.header) + data if number == 1 else data


def _encoded_lines(uploading: Uploading, batches: Batches, rows: Counter[int]) -> Iterator[tuple[int, bytes]]:
    """Lines in the encoding of the output with their part; counts those of each part."""
    for batch in batches:
        parts, texts = batch.column(0).to_numpy(), batch.column(2)
        edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for start, end in itertools.pairwise(edges if len(parts) else ()):
            part, row = int(parts[start]), batch.column(1)[start].as_py()
            rows[part] += end - start
            yield part, encoded(text_bytes(texts.slice(start, end - start)), uploading.form, uploading.columns, row)
