"""The table for the driver engine: the rows that records want, read by lookup or scan, dropped or kept as they arrive.

In: the matches of a source. Out: the row of each record, as columns of text, and what was counted of all rows. Memory
is bounded by the rows that records want: what the filter of keys lets through by mistake is dropped soon after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from overlay import keys
from overlay.engines.engine import Inputs, log_plan
from overlay.merge import Counts, first_rows
from overlay.table import lookup, ranges
from overlay.table.jdbc import Connection
from overlay.table.pool import ConnectionPool, results

SIFTED_ROWS = (
    65_536  # looked at exactly at a time, or as many as there are records: a set of their ids is made for each
)


@dataclass
class RowsRead:
    """What one statement brought.

    Attributes:
        matched: Rows that a record has.
        likely: Rows that the filter let through.
        count: All rows that were read.
        unmatched_ids: The first ids among the rows that no record has.
    """

    matched: list[pa.RecordBatch] = field(default_factory=list)
    likely: list[pa.RecordBatch] = field(default_factory=list)
    count: int = 0
    unmatched_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class JoinedRows:
    """The table beside the source.

    Attributes:
        columns: Rows that records have, one an id, as text by name of the column.
        numbers: For each record the number of its row, null where there is none.
        counts: Of the table, and of records that it has.
    """

    columns: dict[str, Any]
    numbers: Any
    counts: Counts


class RowReader:
    """Reads the rows for the matches of a source.

    Attributes:
        plan, plan_reason: How, and why so (a name of TEXTS).
    """

    def __init__(self, inputs: Inputs, matches: Any, cores: int) -> None:
        self._inputs, self._table, self._limits = inputs, inputs.table, inputs.settings.limits
        self._matches, self._cores = matches, cores
        self._filter = keys.KeyFilter.of_hashes([keys.hashes(matches.drop_null())])
        self._key_at = self._table.names.index(self._table.key.name)
        self.plan = self.plan_reason = ""

    def read(self) -> JoinedRows:
        """Reads the table once.

        Raises:
            TableError: the database fails.
        """
        predicates = self._choose_plan()
        reads, counts = self._look_up(predicates) if self.plan == "lookup" else self._scan(predicates)
        return self._join(reads, counts)

    def comparable(self, ids: Any) -> Any:
        """Ids of rows in the form of the source's matches: as integers, or as text."""
        texts = ids if pa.types.is_integer(ids.type) else ids.cast(pa.string())
        matches = keys.row_matches(texts, zerofill=self._table.has_zerofill_key)
        return matches if matches.type == self._matches.type else matches.cast(self._matches.type)

    def _choose_plan(self) -> list[str]:
        """The predicates of the statements by which the table is read."""
        table = self._table
        self.plan_reason = lookup.lookup_reason(table, len(self._matches), self._limits)
        with Connection(self._inputs.spark, table.database) as connection:
            if self.plan_reason == "few_ids":
                predicates = lookup.lookup_predicates(table, self._distinct_ids(), self._cores, self._limits)
                if not predicates or lookup.uses_index(connection, table, self._statement(predicates[0])):
                    self._set_plan("lookup")
                    return predicates
                self.plan_reason = "index_unused"
            self._set_plan("scan")
            streams = min(table.connections, max(self._cores // 2, 1))
            count = min(ranges.range_count(table.rows, streams, self._limits), streams)
            scan = ranges.cut_table(connection, table, count, self._limits)
            return scan.predicates(table.dialect.quote_name(scan.column.name) if scan.column else "")

    def _set_plan(self, plan: str) -> None:
        self.plan = plan
        log_plan(plan, self.plan_reason, len(self._matches), self._table.rows)

    def _distinct_ids(self) -> list[str]:
        return pc.unique(self._matches.drop_null()).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def _look_up(self, predicates: list[str]) -> tuple[list[RowsRead], Counts]:
        # Counting reads a whole index, as does the search for unmatched ids of text: beside the lookup, not after it.
        size = min(self._table.connections, self._cores + 2)
        with ConnectionPool(self._inputs.spark, self._table.database, size) as pool:
            counting = pool.submit(lookup.count_rows, self._table)
            searching = pool.submit(lookup.first_unmatched, self._table, set(self._distinct_ids()), self._limits)
            reads = results([pool.submit(self._stream, predicate) for predicate in predicates])
            counts = counting.result()
            counts.unmatched_ids = searching.result()
        return reads, counts

    def _scan(self, predicates: list[str]) -> tuple[list[RowsRead], Counts]:
        with ConnectionPool(self._inputs.spark, self._table.database, self._table.connections) as pool:
            futures = [pool.submit(self._stream, predicate) for predicate in predicates]
            repeats = None if self._table.unique else pool.submit(lookup.count_rows, self._table)
            reads = results(futures)
            counts = repeats.result() if repeats else Counts()
        counts.table_rows = sum(read.count for read in reads)
        counts.unmatched_ids = [id_ for read in reads for id_ in read.unmatched_ids]
        return reads, counts

    def _statement(self, predicate: str) -> str:
        table, driver = self._table, self._table.database.driver
        texts = [table.dialect.wire_expression(column, driver) for column in table.columns]
        if table.fetches_numbers:
            texts[self._key_at] = table.dialect.quote_name(table.key.name)
        cells = ", ".join(f"{text} AS c{number}" for number, text in enumerate(texts))
        return f"SELECT {cells} FROM {table.qualified} WHERE {predicate}"

    def _stream(self, connection: Connection, predicate: str) -> RowsRead:
        """Reads the rows of a predicate; keeps those that a record has."""
        types = [pa.binary()] * len(self._table.columns)
        if self._table.fetches_numbers:
            types[self._key_at] = pa.int64()
        schema = pa.schema([(f"c{number}", kind) for number, kind in enumerate(types)])
        rows, likely = RowsRead(), 0
        for batch in connection.batches(self._statement(predicate), schema, self._table.fetch_rows(self._limits)):
            rows.count += batch.num_rows
            named = batch.filter(batch.column(self._key_at).is_valid())
            mask = pa.array(self._filter.may_have(keys.hashes(self.comparable(named.column(self._key_at)))))
            self._sort_out(named, mask, rows, rows.likely)
            likely += mask.true_count
            if likely >= max(SIFTED_ROWS, len(self._matches)):
                likely = 0
                self._sift(rows)
        self._sift(rows)
        return rows

    def _sift(self, rows: RowsRead) -> None:
        """Keeps of the likely rows those that a record has."""
        if rows.likely:
            ids = pa.chunked_array([batch.column(self._key_at) for batch in rows.likely]).combine_chunks()
            mask, start = pc.is_in(self.comparable(ids), value_set=self._matches), 0
            for batch in rows.likely:
                self._sort_out(batch, mask.slice(start, batch.num_rows), rows, rows.matched)
                start += batch.num_rows
            rows.likely = []

    def _sort_out(self, batch: pa.RecordBatch, mask: pa.Array, rows: RowsRead, kept: list[pa.RecordBatch]) -> None:
        """Adds the rows of a mask to those that are kept, and notes the first ids of the others."""
        if mask.true_count:
            kept.append(batch if mask.true_count == len(mask) else batch.filter(mask))
        if mask.true_count < len(mask):
            ids = batch.column(self._key_at).filter(pc.invert(mask))
            limit, integer = self._limits.unmatched_ids, self._table.has_integer_key
            firsts = keys.first_ids(ids, self.comparable(ids), limit, integer=integer)
            rows.unmatched_ids = keys.merged_ids([*rows.unmatched_ids, *firsts], limit, integer=integer)

    def _join(self, reads: list[RowsRead], counts: Counts) -> JoinedRows:
        """Finds the row of each record, and completes the counts."""
        batches = [batch for read in reads for batch in read.matched]
        counts.matched_rows = sum(batch.num_rows for batch in batches)
        limit, integer = self._limits.unmatched_ids, self._table.has_integer_key
        counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, limit, integer=integer)
        if not batches:
            return JoinedRows({}, pa.nulls(len(self._matches), pa.int32()), counts)
        table = _with_large_offsets(pa.Table.from_batches(batches))
        for read in reads:
            read.matched = []
        matches = self.comparable(table.column(self._key_at).combine_chunks())
        firsts = None if self._table.unique else first_rows(table, matches)
        if firsts is not None:
            table, matches = table.take(firsts), matches.take(firsts)
        numbers = pc.index_in(self._matches, value_set=matches, skip_nulls=True)
        counts.matched = len(numbers) - numbers.null_count
        texts = [column.cast(pa.large_string()).combine_chunks() for column in table.columns]
        return JoinedRows(dict(zip(self._table.names, texts, strict=True)), numbers, counts)


def _with_large_offsets(table: pa.Table) -> pa.Table:
    # Bytes of which one column may have more than 2 GiB: with 32-bit offsets it could not be one array.
    types = [kind if pa.types.is_integer(kind) else pa.large_binary() for kind in table.schema.types]
    return table.cast(pa.schema(list(zip(table.schema.names, types, strict=True))))
