"""The table for the driver engine: the rows that records have, read by lookup or scan, one for each record.

In: the matches of a source. Out: the row of each record, as columns of text, and what was counted of all rows. Memory
is bounded by the rows that records have: what the filter of keys lets through by mistake is dropped soon after.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from overlay import keys
from overlay.engines.cost import stream_count
from overlay.engines.engine import Inputs, Plan
from overlay.engines.memory import Memory
from overlay.engines.sieve import RowsRead, Sieve
from overlay.merge import Counts, first_rows
from overlay.table import lookup, ranges
from overlay.table.describe import Table
from overlay.table.jdbc import Connection
from overlay.table.pool import ConnectionPool, results

OFFSETS_MAX = 2**31 - 1


@dataclass(frozen=True)
class JoinedRows:
    """The table beside the source.

    Attributes:
        columns: Rows that records have, one an id, as text by name of the column.
        numbers: For each record the number of its row, null where there is none.
        counts: Of the table, and of records that it has.
        plan: How it was read.
    """

    columns: dict[str, Any]
    numbers: Any
    counts: Counts
    plan: Plan


class RowReader:
    """Reads the rows that records have.

    A scan begins as soon as it is certain, while the source is still parsed.

    Attributes:
        sieve: What keeps the rows.
    """

    def __init__(self, inputs: Inputs, cores: int, memory: Memory) -> None:
        self._inputs, self._table, self._limits = inputs, inputs.table, inputs.settings.limits
        self._cores, self._memory = cores, memory
        self.sieve = Sieve(self._table, self._limits, memory)
        self._key_at = self._table.names.index(self._table.key.name)
        self._records, self._lock = 0, threading.Lock()
        self._held_before = 0  # bytes, of the source alone
        self._scan: Scan | None = None

    def count_records(self, records: int) -> None:
        """Takes that so many more records were parsed: from some number on the table is scanned, whatever follows."""
        with self._lock:
            self._records += records
            if not self._scan:
                reason = lookup.lookup_reason(self._table, self._records, self._limits)
                if reason != "few_ids":
                    self._begin_scan(reason)

    def set_matches(self, matches: Any) -> None:
        """Takes the matches of all records, some null; rows are kept from now on."""
        self._held_before = self._memory.held
        self.sieve.set_matches(matches)

    def read(self) -> JoinedRows:
        """Reads the table once, or finishes the scan that is on.

        Raises:
            TableError: the database fails.
            MemoryShortError: the rows do not fit.
        """
        try:
            predicates = [] if self._scan else self._choose_plan()
            self._plan.log(len(self.sieve.matches), self._table.rows)
            reads, counts = self._scan.finish() if self._scan else self._look_up(predicates)
        except BaseException:
            self._memory.release(self._memory.held - self._held_before)
            raise
        finally:
            self._scan = None
        return self._join(reads, counts)

    def close(self) -> None:
        """Ends a scan that nobody will finish."""
        self.sieve.cancel()
        if self._scan:
            self._scan.abort()
            self._scan = None

    def _choose_plan(self) -> list[str]:
        """The predicates of a lookup; none where the table is scanned, which then begins."""
        table = self._table
        reason = lookup.lookup_reason(table, len(self.sieve.matches), self._limits)
        if reason == "few_ids":
            predicates = lookup.lookup_predicates(table, self._distinct_ids(), self._cores, self._limits)
            if not predicates or self._is_by_index(statement(table, predicates[0])):
                self._plan = Plan("lookup", reason)
                return predicates
            reason = "index_unused"
        self._begin_scan(reason)
        return []

    def _is_by_index(self, sql: str) -> bool:
        with Connection(self._table.database) as connection:
            return self._table.dialect.uses_index(connection.ask, sql)

    def _begin_scan(self, reason: str) -> None:
        self._plan = Plan("scan", reason)
        self._scan = Scan(self._inputs, self.sieve, self._cores)

    def _distinct_ids(self) -> list[str]:
        return pc.unique(self.sieve.matches.drop_null()).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def _look_up(self, predicates: list[str]) -> tuple[list[RowsRead], Counts]:
        # Counting reads a whole index, as does the search for unmatched ids of text: beside the lookup, not after it.
        size = min(self._table.connections, 2 * self._cores + 1)
        with ConnectionPool(self._table.database, size) as pool:
            cutting = pool.submit(lookup.count_predicates, self._table, self._cores, self._limits)
            counting = [pool.submit(lookup.count_rows, self._table, predicate) for predicate in cutting.result()]
            searching = pool.submit(lookup.first_unmatched, self._table, set(self._distinct_ids()), self._limits)
            reads = results([pool.submit(stream, self._inputs, self.sieve, predicate) for predicate in predicates])
            counts = sum(results(counting), Counts())
            counts.unmatched_ids = searching.result()
        return reads, counts

    def _join(self, reads: list[RowsRead], counts: Counts) -> JoinedRows:
        """Finds the row of each record, and completes the counts."""
        batches = [batch for read in reads for batch in read.matched]
        counts.matched_rows = sum(batch.num_rows for batch in batches)
        limit, integer = self._limits.unmatched_ids, self._table.key.is_integer
        counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, limit, integer=integer)
        if not batches:
            return JoinedRows({}, pa.nulls(len(self.sieve.matches), pa.int32()), counts, self._plan)
        table = _with_wide_offsets(pa.Table.from_batches(batches))
        for read in reads:
            read.matched = []
        matches = self.sieve.comparable(table.column(self._key_at).combine_chunks())
        firsts = None if self._table.unique else first_rows(table, matches)
        if firsts is not None:
            table, matches = table.take(firsts), matches.take(firsts)
        numbers = pc.index_in(self.sieve.matches, value_set=matches, skip_nulls=True)
        counts.matched = len(numbers) - numbers.null_count
        needed = self._inputs.settings.needed(self._table.names, self._table.key.name)
        columns = {name: table.column(number) for number, name in enumerate(self._table.names) if name in needed}
        texts = {name: column.cast(_text_type(column.type)).combine_chunks() for name, column in columns.items()}
        return JoinedRows(texts, numbers, counts, self._plan)


class Scan:
    """Reads every row of a table, in threads, from its making on."""

    def __init__(self, inputs: Inputs, sieve: Sieve, cores: int) -> None:
        self._inputs, self._table, self._sieve = inputs, inputs.table, sieve
        streams = stream_count(cores, self._table.connections)
        count = min(ranges.range_count(self._table.rows, streams, inputs.settings.limits), streams)
        self._pool = ConnectionPool(self._table.database, self._table.connections)
        self._reads = self._pool.submit(self._cut, count) if count > 1 else self._begin([ranges.ALL_ROWS])
        self._repeats = None if self._table.unique else self._pool.submit(lookup.count_rows, self._table)

    def _cut(self, connection: Connection, count: int) -> list[Future[RowsRead]]:
        """Cuts the table into ranges, and begins to read them."""
        table = self._table
        return self._begin(ranges.cut_table(connection, table, count, self._inputs.settings.limits).on(table))

    def _begin(self, predicates: Sequence[str]) -> list[Future[RowsRead]]:
        return [self._pool.submit(stream, self._inputs, self._sieve, predicate) for predicate in predicates]

    def finish(self) -> tuple[list[RowsRead], Counts]:
        """What each range brought, and the counts of the table, once all is read."""
        with self._pool:
            reads = results(self._reads if isinstance(self._reads, list) else self._reads.result())
            counts = self._repeats.result() if self._repeats else Counts()
        counts.table_rows = sum(read.count for read in reads)
        counts.unmatched_ids = [id_ for read in reads for id_ in read.unmatched_ids]
        return reads, counts

    def abort(self) -> None:
        """Ends it at once."""
        self._pool.abort()


def stream(connection: Connection, inputs: Inputs, sieve: Sieve, predicate: str) -> RowsRead:
    """Reads the rows of a predicate through a sieve."""
    table = inputs.table
    types = [pa.int64() if _is_number(table, name) else pa.binary() for name in table.names]
    schema = pa.schema([(f"c{number}", kind) for number, kind in enumerate(types)])
    return sieve.keep(connection.batches(statement(table, predicate), schema, table.fetch_rows(inputs.settings.limits)))


def statement(table: Table, predicate: str) -> str:
    """The query for all columns of the rows of a predicate."""
    name = table.dialect.quote_name
    texts = [
        name(column.name) if _is_number(table, column.name) else table.dialect.wire_expression(column, table.driver)
        for column in table.columns
    ]
    cells = ", ".join(f"{text} AS c{number}" for number, text in enumerate(texts))
    return f"SELECT {cells} {table.from_where(predicate)}"


def _is_number(table: Table, name: str) -> bool:
    return table.fetches_numbers and name == table.key.name


def _with_wide_offsets(table: pa.Table) -> pa.Table:
    # A column of more than 2 GiB could not be one array with 32-bit offsets.
    kinds = [
        pa.large_binary() if column.nbytes > OFFSETS_MAX and pa.types.is_binary(column.type) else column.type
        for column in table.columns
    ]
    return table.cast(pa.schema(list(zip(table.schema.names, kinds, strict=True))))


def _text_type(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_large_binary(kind) else pa.string()
