"""The sieve: of the rows that stream out of a table it keeps those that records have.

In: batches of rows and, once the source is parsed, its matches. Out: what each statement brought (`RowsRead`). Rows
that come before the matches wait, in bounded memory; beyond that the database does.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from overlay import keys
from overlay.engines.memory import Memory
from overlay.limits import Limits
from overlay.merge import rows_with_id
from overlay.table.describe import Table

# Looked at exactly at a time, or as many as there are records: a set of their ids is made for each.
SIFTED_ROWS = 65_536


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


class Sieve:
    """Keeps the rows of the matches of a source; several threads may use it."""

    def __init__(self, table: Table, limits: Limits, memory: Memory) -> None:
        self._table, self._limits, self._memory = table, limits, memory
        self._key_at = table.names.index(table.key.name)
        self._ready: Future[None] = Future()

    def set_matches(self, matches: Any) -> None:
        """Lets rows through from now on: those of these matches of records, some null."""
        self.matches = matches
        self._filter = keys.KeyFilter.of_hashes([keys.hashes(matches.drop_null())])
        self._ready.set_result(None)

    def cancel(self) -> None:
        """Ends the threads that wait for the matches, as there will be none."""
        self._ready.cancel()

    def comparable(self, ids: Any) -> Any:
        """Ids of rows in the form of the source's matches: as integers, or as text."""
        texts = ids if pa.types.is_integer(ids.type) else ids.cast(pa.string())
        matches = keys.row_matches(texts, zerofill=self._table.has_zerofill_key)
        return matches if matches.type == self.matches.type else matches.cast(self.matches.type)

    def keep(self, batches: Iterable[pa.RecordBatch]) -> RowsRead:
        """Keeps of the rows of a statement those that a record has.

        Raises:
            MemoryShortError: they are more than fit.
        """
        rows, likely = RowsRead(), 0
        for batch in self._awaited(batches):
            rows.count += batch.num_rows
            named = rows_with_id(batch, self._key_at)
            mask = pa.array(self._filter.may_have(keys.hashes(self.comparable(named.column(self._key_at)))))
            self._sort_out(named, mask, rows, rows.likely)
            likely += mask.true_count
            if likely >= max(SIFTED_ROWS, len(self.matches)):
                likely = 0
                self._sift(rows)
        self._sift(rows)
        return rows

    def _awaited(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, from when the matches are there."""
        waiting: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            waiting.append(batch)
            size += batch.nbytes
            if self._ready.done() or size > self._limits.waiting_bytes:
                self._ready.result()
                yield from waiting
                waiting.clear()
        self._ready.result()
        yield from waiting

    def _sift(self, rows: RowsRead) -> None:
        """Keeps of the likely rows those that a record has."""
        if rows.likely:
            ids = pa.chunked_array([batch.column(self._key_at) for batch in rows.likely]).combine_chunks()
            mask, start = pc.is_in(self.comparable(ids), value_set=self.matches), 0
            for batch in rows.likely:
                self._memory.release(batch.nbytes)
                self._sort_out(batch, mask.slice(start, batch.num_rows), rows, rows.matched)
                start += batch.num_rows
            rows.likely = []

    def _sort_out(self, batch: pa.RecordBatch, mask: pa.Array, rows: RowsRead, kept: list[pa.RecordBatch]) -> None:
        """Adds the rows of a mask to those that are kept, and notes the first ids of the others."""
        if mask.true_count:
            kept.append(batch if mask.true_count == len(mask) else batch.filter(mask))
            self._memory.hold(kept[-1].nbytes)
        if mask.true_count < len(mask):
            ids = batch.column(self._key_at).filter(pc.invert(mask))
            limit, integer = self._limits.unmatched_ids, self._table.key.is_integer
            firsts = keys.first_ids(ids, self.comparable(ids), limit, integer=integer)
            rows.unmatched_ids = keys.merged_ids([*rows.unmatched_ids, *firsts], limit, integer=integer)
