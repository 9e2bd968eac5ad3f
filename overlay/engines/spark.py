"""The engine of big data: Spark's own reader, join and shuffle; rows never pass through the driver.

The source is parsed twice: once to learn its columns, its counts and what is wrong with it, then as named columns.
Keeping parsed records in between would cost more than parsing them again. What runs on executors is `engines.workers`.
"""

import itertools
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import SparkContext, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from overlay import aws, keys
from overlay.csv_text import header
from overlay.differences import DifferenceList
from overlay.engines import workers
from overlay.engines.engine import (
    Inputs,
    Output,
    Plan,
    SourceFacts,
    check_source,
    columns_of_output,
    compared_columns,
    unmatched_columns,
)
from overlay.errors import OutputError, error_from_data
from overlay.limits import MIB
from overlay.merge import Counts, counts_from_data, merged_columns
from overlay.source.objects import cut_ranges
from overlay.table import ranges
from overlay.table.describe import Table
from overlay.table.jdbc import Connection, database_errors, retried
from overlay.upload import Part, Published, begin_upload, part_size, plan_parts, send_differences, send_part

LOG = logging.getLogger(__name__)
PARTITION_BYTES = 64 * MIB  # of both sides: what a worker sorts, and holds a few times over in Arrow
PARTITION_BYTES_MIN = 4 * MIB
PARTITIONS_MAX = 4_000
CELL_BYTES = 16  # of a short value with its part of a row
BATCH_BYTES = 16 * MIB  # handed to Python at a time
BATCH_ROWS = 10_000
BINS_MAX = 4_096
BIN_BYTES = MIB
LISTED_IDS = 200_000  # of a partition of the list of table-only ids
FILTER_RECORDS_MAX = 10_000_000  # the driver gets 4 bytes for each
ENCODED_SHARE = 3  # an encoding writes at least a third of the UTF-8 bytes (half-width katakana in cp932)


class Lines(NamedTuple):
    """Formatted lines on executors.

    Attributes:
        frame: workers.LINES, kept.
        bins: In order: number, lines, bytes in UTF-8.
        running: Whether ordinals count through all bins, or begin anew in each.
    """

    frame: DataFrame
    columns: Sequence[str]
    bins: Sequence[tuple[int, int, int]]
    running: bool


class SparkEngine:
    """See `engines.engine.Engine`. A lookup is the driver's job, so the table is always scanned."""

    plan = Plan("scan", "always_scans")

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._settings, self._table = inputs, inputs.settings, inputs.table
        self._spark = SparkSession.builder.getOrCreate()
        self._limits = inputs.settings.limits
        self._s3 = aws.client("s3", self._limits.aws)
        self._parallelism = executor_cores()
        self._row_bytes = max(len(self._table.columns) * CELL_BYTES, self._table.row_bytes)
        self._frames: list[DataFrame] = []

    # The source.

    def read_source(self) -> SourceFacts:
        """Learns from every byte range its columns and counts, and the first error."""
        byte_ranges = cut_ranges(self._s3, self._inputs.objects, self._parallelism, self._limits)
        self._reading = workers.Reading(
            byte_ranges=byte_ranges,
            table_columns=self._table.names,
            key=self._settings.key,
            row_key=self._settings.row_key,
            integer_key=self._table.key.is_integer,
            zerofill=self._table.has_zerofill_key,
            nonce=f"\0{secrets.token_hex(16)}:",
            hashes_max=FILTER_RECORDS_MAX // max(len(byte_ranges), 1),
            region=self._s3.meta.region_name,
            limits=self._limits,
        )
        rows = _mapped(self._over_ranges(), workers.FACTS, workers.gather_facts, self._reading).collect()
        facts = sorted(((json.loads(row.message), row.hashes) for row in rows), key=lambda pair: pair[0]["range"])
        messages = _checked(message for message, _ in facts)
        records = [message["records"] for message in messages]
        self._starts = list(itertools.accumulate(records, initial=0))
        self._facts = SourceFacts(sum(records), merged_columns(*(message["columns"] for message in messages)))
        self._filter = None
        if all(hashes is not None for _, hashes in facts):
            hashes = [np.frombuffer(hashes, np.uint32).astype(np.uint64) << np.uint64(32) for _, hashes in facts]
            self._filter = keys.KeyFilter.of_hashes(hashes)
        check_source(self._facts, self._settings, self._table)
        self._source_columns = self._settings.needed(self._facts.columns, self._settings.key)
        self._columns = columns_of_output(self._settings, self._facts.columns, self._table)
        self.columns = tuple(column.title for column in self._columns)
        return self._facts

    def _over_ranges(self) -> DataFrame:
        """The numbers of the byte ranges, each in a partition of its own."""
        count = len(self._reading.byte_ranges)
        return self._spark.range(0, count, 1, max(count, 1))

    def _records(self) -> DataFrame:
        columns = self._source_columns
        schema = workers.record_schema(len(columns))
        return _mapped(self._over_ranges(), schema, workers.parse_records, self._reading, columns, self._starts)

    # The table.

    def overlay(self) -> Counts:
        """Joins both sides and formats every line; the lines stay on the executors' disks."""
        return retried(self._overlay, self._limits.later_waits, self._limits.patience_seconds)

    def _overlay(self) -> Counts:
        source, table = self._facts, self._table
        self.plan.log(source.records, table.rows)
        key_filter = self._filter if table.unique else None
        rows = table.rows if key_filter is None else min(source.records, table.rows)
        size = self._inputs.source_bytes + rows * self._row_bytes
        parallel = min(2 * self._parallelism, size // PARTITION_BYTES_MIN)
        partitions = min(max(size // PARTITION_BYTES, parallel, 1), PARTITIONS_MAX)
        self._spark.conf.set("spark.sql.shuffle.partitions", partitions)
        batch_rows = min(max(BATCH_BYTES // self._row_bytes, 1), BATCH_ROWS)
        self._spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", batch_rows)
        bin_rows = -(-source.records // min(max(size // BIN_BYTES, 1), BINS_MAX))
        # Rows have one an id and are cut to PARTITION_BYTES: sorting both sides would cost 5 of 47 core-seconds more.
        joined = self._records().join(self._rows(table, key_filter).hint("shuffle_hash"), "match", "full")
        joined = joined.withColumn("message", F.coalesce("source_message", "table_message"))
        names = [column.name for column in self._columns]
        compared = compared_columns(self._settings, self._columns)
        most = self._settings.listed_differences
        making = workers.Making(self._source_columns, names, self._settings.csv, bin_rows, compared, most)
        lines = _mapped(joined, workers.LINES, workers.overlay_joined, self._reading, making)
        self._lines = self._kept(lines, self.columns, running=True)
        rows = self._lines.frame.where("message IS NOT NULL").select("message").collect()
        counts = sum(map(counts_from_data, _checked(json.loads(row.message) for row in rows)), Counts())
        limit, integer = self._limits.unmatched_ids, table.key.is_integer
        counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, limit, integer=integer)
        lines_made = sum(rows for _, rows, _ in self._lines.bins)
        if lines_made != source.records:
            raise OutputError("rows_lost", expected=source.records, written=lines_made)
        self._counts = counts
        return counts

    def _rows(self, table: Table, key_filter: keys.KeyFilter | None) -> DataFrame:
        """The rows with an id as text (`workers.row_schema`), one an id, and `copies`: how many rows have it."""
        with Connection(table.database) as connection:
            count = ranges.range_count(table.rows, self._parallelism, self._limits)
            scan = ranges.cut_table(connection, table, count, self._limits)
        predicates = scan.predicates("k")
        texts = [f"{table.dialect.text_expression(column)} AS c{number}" for number, column in enumerate(table.columns)]
        texts += [f"{table.dialect.quote_name(scan.column.name)} AS k"] if scan.column else []
        with database_errors(table.database):
            frame = self._spark.read.jdbc(
                table.database.url,
                f"(SELECT {', '.join(texts)} {table.from_where()}) AS source",
                predicates=predicates,
                properties=table.database.options | {"fetchsize": str(table.fetch_rows(self._limits))},
            )
        cells = [f"c{number}" for number in range(len(table.columns))]
        frame = frame.select(*(F.col(name).cast("string") for name in cells))
        if len(predicates) > table.connections:
            frame = frame.coalesce(table.connections)  # a worker then opens its connections one after the other
        reading = self._reading._replace(table_columns=table.names)
        broadcast = None if key_filter is None else self._spark.sparkContext.broadcast(key_filter)
        rows = _mapped(frame, workers.row_schema(len(cells)), workers.match_rows, reading, broadcast)
        if table.unique:
            return rows.withColumn("copies", F.lit(1).cast("bigint"))
        # The row that sorts first by its own texts; nulls come first, as everywhere in Spark.
        grouped = rows.groupBy("match", "table_message")
        first = grouped.agg(F.min(F.struct(*cells)).alias("first"), F.count("*").alias("copies"))
        return first.select("match", "table_message", "first.*", "copies")

    # Lines.

    def _kept(self, frame: DataFrame, columns: Sequence[str], *, running: bool) -> Lines:
        """Computes lines and keeps them, as their sizes must be known before they are cut into parts."""
        self._spark.conf.set("spark.sql.inMemoryColumnarStorage.compressed", "false")
        frame = frame.persist(StorageLevel.DISK_ONLY)
        self._frames.append(frame)
        sizes = frame.groupBy("bin").agg(F.count("*").alias("rows"), F.sum(F.octet_length("line")).alias("bytes"))
        with database_errors(self._table.database):
            bins = [(row.bin, row.rows, row.bytes) for row in sizes.where("bin >= 0").collect()]
        return Lines(frame, columns, sorted(bins), running)

    def _unmatched_lines(self) -> Lines:
        """The ids of the table that no record has, once each; integers by value, others by their bytes."""
        by_key_first = tuple(sorted(self._table.ordered, key=lambda column: column != self._table.key))
        rows = self._rows(replace(self._table, columns=(self._table.key,), ordered=by_key_first), None)
        ids = rows.where("table_message IS NULL").join(self._records().select("match"), "match", "left_anti")
        order = F.col("match").cast("decimal(20)") if self._table.key.is_integer else F.col("match")
        count = min(max(self._table.rows // LISTED_IDS, 1), BINS_MAX)
        in_order = ids.repartitionByRange(count, order).sortWithinPartitions(order)
        in_bins = in_order.select(F.spark_partition_id().alias("bin"), "c0")
        lines = _mapped(in_bins, workers.LINES, workers.list_lines, self._settings.csv)
        return self._kept(lines, unmatched_columns(self._settings), running=False)

    # The output.

    def publish(self) -> Output:
        """Lets executors upload the parts of both objects, and makes them visible."""
        settings = self._settings
        with ExitStack() as stack:
            complete = self._upload(stack, settings.destination_file, self._lines)
            lists: dict[str, Callable[[], Published]] = {}
            if settings.unmatched_file:
                lines = retried(self._unmatched_lines, self._limits.later_waits, self._limits.patience_seconds)
                lists["unmatched"] = self._upload(stack, settings.unmatched_file, lines, (settings.key,))
            if settings.differences_file:
                lists["differences"] = send_differences(stack, self._s3, settings, self._difference_lines())
            published = {name: complete_list() for name, complete_list in lists.items()}
            return Output(self._counts, tuple(self._lines.columns), complete(), **published)

    def _difference_lines(self) -> list[bytes]:
        """The lines of the first cells that the source overrides, which the driver can hold."""
        listed = DifferenceList(self._settings.csv, self._limits)
        rows = self._lines.frame.where("bin < 0").orderBy("ordinal").limit(self._limits.differences_max).select("line")
        listed.add(row.line for row in rows.toLocalIterator())
        return listed.lines

    def _upload(
        self, stack: ExitStack, key: str, lines: Lines, names: Sequence[str] | None = None
    ) -> Callable[[], Published]:
        """Uploads the parts of one object, but for what makes it visible; the stack aborts what is not completed."""
        form, limits = self._settings.csv, self._limits
        first = header(names or lines.columns, form)
        upload = begin_upload(stack, self._s3, self._settings, key)
        least = limits.part_bytes_min * (1 if form.codec == "utf-8" else ENCODED_SHARE)
        size = max(part_size(sum(size for _, _, size in lines.bins), limits), least)
        plan = plan_parts(lines.bins, size, limits, running=lines.running)
        uploading = workers.Uploading(upload.target, form, lines.columns, first, size, self._reading.region, limits)
        if not plan:
            return partial(upload.complete, [send_part(self._s3, upload.target, 1, first)], 0)
        count = min(plan[-1][1], 4 * self._parallelism)
        numbers = self._spark.createDataFrame(plan, "bin int, part int, start bigint")
        ordered = lines.frame.join(F.broadcast(numbers), "bin").repartition(count, "part")
        ordered = ordered.sortWithinPartitions("part", "bin", "ordinal")
        numbered = ordered.select("part", (F.col("start") + F.col("ordinal") + 1).alias("row"), "line")
        rows = _mapped(numbered, workers.PARTS, workers.upload_lines, uploading).collect()
        _checked(json.loads(row.message) for row in rows if row.message)
        expected, written = sum(rows for _, rows, _ in lines.bins), sum(row.rows for row in rows)
        if written != expected:
            raise OutputError("rows_lost", expected=expected, written=written)
        parts = sorted(Part(row.number, row.etag, row.bytes, row.fingerprint) for row in rows)
        return partial(upload.complete, parts, written)

    def close(self) -> None:
        """Frees what executors keep."""
        for frame in self._frames:
            frame.unpersist()


def _mapped(frame: DataFrame, schema: pa.Schema, function: Callable[..., Any], *arguments: Any) -> DataFrame:
    """What one of the functions in `workers`, with these arguments before its batches, makes of a frame."""
    return frame.mapInArrow(partial(function, *arguments), from_arrow_schema(schema))


def _checked(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What workers told; raises the JobError that the first of them met."""
    checked = list(messages)
    for message in checked:
        if "error" in message:
            raise error_from_data(message["error"])
    return checked


def executor_cores() -> int:
    """The cores of all executors, also of those that are not up yet, as in a session that has just begun.

    Starts one where there is none.
    """
    context = SparkSession.builder.getOrCreate().sparkContext
    instances, cores = (int(context.getConf().get(f"spark.executor.{name}", "0")) for name in ("instances", "cores"))
    return max(int(context.defaultParallelism), instances * cores)


def running_jobs() -> str:
    """How far Spark's jobs are, for the log; empty where there are none."""
    with suppress(Exception):  # there is no session, or it is about to end
        tracker = SparkContext._active_spark_context.statusTracker()
        active = [info for number in tracker.getActiveStageIds() if (info := tracker.getStageInfo(number))]
        if active:
            done, tasks = (sum(getattr(info, name) for info in active) for name in ("numCompletedTasks", "numTasks"))
            return f", {done} of {tasks} tasks done"
    return ""


def end_jobs(seconds: float) -> None:
    """Cancels all jobs and waits until no task runs any more (Spark ends a Python worker after 2 to 4 seconds).

    In a thread of its own, which has its own connection to the JVM; that may be about to end, too.
    """
    context: Any = SparkContext._active_spark_context  # Spark 3.5.4: the public ways to ask for one start it

    def cancel() -> None:
        try:
            context.cancelAllJobs()
            # Spark 3.5.4: the public status tracker of Python has no executors.
            while any(executor.numRunningTasks() for executor in context._jsc.sc().statusTracker().getExecutorInfos()):
                time.sleep(0.2)
        except Exception as error:
            LOG.warning("Spark was not told to stop: %s", type(error).__name__)

    if context:
        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(seconds)
    # py4j 0.10.9: the next call takes a new connection, or it would get the answer that this thread waits for.
    with suppress(AttributeError):  # there is no JVM yet
        SparkContext._gateway._gateway_client.thread_connection.connection = None
