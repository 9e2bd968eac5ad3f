"""The engine of small and medium data: everything in the driver's own process, without a Spark session.

The source is held as Arrow columns, the table streams through: rows that no record wants are dropped as they arrive.
Memory is bounded by the source and the rows it wants, never by the table.
"""

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from overlay import aws, keys
from overlay.csv_text import csv_lines, encoded, header, text_bytes
from overlay.differences import DifferenceList, find_differences
from overlay.engines.engine import (
    Inputs,
    Output,
    SourceFacts,
    check_source,
    columns_of_output,
    compared_columns,
    unmatched_columns,
)
from overlay.engines.memory import Memory
from overlay.engines.rows import RowReader
from overlay.limits import MIB
from overlay.merge import Counts, counts_of_source, merged_columns, overlay, slices
from overlay.source.objects import cut_ranges
from overlay.source.parallel import parse_groups
from overlay.table import lookup
from overlay.table.jdbc import Connection, retried
from overlay.threads import awaited, in_order
from overlay.upload import Published, cut_parts, part_size, send, send_differences

SLICE_BYTES = MIB  # of texts, formatted at a time: parts fill evenly, and two slices wait at most


class NoPandas:
    """Finds no pandas, first of the finders of `sys.meta_path`.

    Pyarrow would import it for its first array, and can do without: 0.35 s of the 2.5 of a small run.
    """

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Says of pandas that it is not there."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


class DriverEngine:
    """See `engines.engine.Engine`."""

    def __init__(self, inputs: Inputs, memory: Memory | None = None) -> None:
        """Takes what it works on, and what it may hold: all there is where nothing is said."""
        self._inputs, self._memory = inputs, memory or Memory(math.inf)
        self._table, self._settings = inputs.table, inputs.settings
        self._limits = inputs.settings.limits
        self._s3 = aws.client("s3", self._limits.aws)
        self._cores = len(os.sched_getaffinity(0))
        sys.meta_path.insert(0, NoPandas)
        self._reader = RowReader(inputs, self._cores, self._memory)

    def read_source(self) -> SourceFacts:
        """Parses the byte ranges of the source on all cores; a scan that is certain begins meanwhile."""
        self._reader.count_records(0)
        groups = cut_ranges(self._s3, self._inputs.objects, self._cores, self._limits)
        batches = list(parse_groups(self._s3, groups, self._cores, self._limits, self._keep))
        columns = merged_columns(*(names for names, _ in batches))
        facts = SourceFacts(sum(table.num_rows for _, table in batches), columns)
        check_source(facts, self._settings, self._table)
        self._columns = columns_of_output(self._settings, columns, self._table)
        self.columns = tuple(column.title for column in self._columns)
        self._source = pa.concat_tables((table for _, table in batches), promote_options="default")
        ids = self._source.column(self._settings.key).combine_chunks()
        self._matches = self._as_matches(ids)
        self._reader.set_matches(self._matches)
        self._counts = counts_of_source(ids, self._matches)
        return facts

    def _as_matches(self, ids: Any) -> Any:
        """What the ids are compared with; as numbers, where all are and rows come with numbers."""
        as_numbers = keys.as_numbers if self._table.fetches_numbers else lambda _matches: None
        if (numbers := as_numbers(ids)) is not None:  # mostly: then nothing has to be spelt anew
            return numbers
        matches = keys.source_matches(ids, integer=self._table.key.is_integer)
        numbers = as_numbers(matches)
        return matches if numbers is None else numbers

    def _keep(self, batch: pa.RecordBatch) -> tuple[list[str], pa.Table]:
        """The names of all columns of parsed records, and the columns that the run needs."""
        names = batch.schema.names
        table = pa.Table.from_batches([batch.select(list(self._settings.needed(names, self._settings.key)))])
        self._memory.hold(table.nbytes)
        self._reader.count_records(batch.num_rows)
        return names, table

    def overlay(self) -> Counts:
        """Reads the rows that records want and finds the row of each record; `publish` overlays their cells."""
        self._rows = retried(self._reader.read, self._limits.later_waits, self._limits.patience_seconds)
        self.plan = self._rows.plan
        self._counts += self._rows.counts
        return self._counts

    def publish(self) -> Output:
        """Formats and uploads slice by slice, while the next ones are formatted."""
        columns, settings, limits = self.columns, self._settings, self._limits
        with ExitStack() as stack:
            complete = self._send(stack, settings.destination_file, columns, self._lines(columns))
            lists: dict[str, Callable[[], Published]] = {}
            if settings.unmatched_file:
                send_list = partial(self._send_unmatched, stack)
                lists["unmatched"] = retried(send_list, limits.later_waits, limits.patience_seconds)
            if settings.differences_file:
                lists["differences"] = send_differences(stack, self._s3, settings, self._differences.lines)
            published = {name: complete_list() for name, complete_list in lists.items()}
            return Output(self._counts, columns, complete(self._source.num_rows), **published)

    def _send(
        self, stack: ExitStack, key: str, columns: tuple[str, ...], lines: Iterable[bytes]
    ) -> Callable[[int], Published]:
        """Uploads an object, but for what makes it visible; the stack aborts it where it is not completed."""
        chunks = itertools.chain([header(columns, self._settings.csv)], lines)
        size = part_size(2 * self._source.nbytes, self._limits)
        return send(stack, self._s3, self._settings, key, cut_parts(chunks, size, self._limits))

    def _lines(self, columns: tuple[str, ...]) -> Iterator[bytes]:
        """The lines of the output in order, in the encoding of the output."""
        names = [column.name for column in self._columns]
        most, compared = self._settings.listed_differences, compared_columns(self._settings, self._columns)
        self._differences = DifferenceList(self._settings.csv, self._limits)

        def lines(edges: tuple[int, int]) -> tuple[bytes, Counts, list[str]]:
            start, length = edges[0], edges[1] - edges[0]
            source = self._source.slice(start, length)
            ours = {name: source.column(name).combine_chunks() for name in source.column_names}
            numbers = self._rows.numbers.slice(start, length)
            theirs = {
                name: column.take(numbers).cast(pa.string())
                for name, column in self._rows.columns.items()
                if most is not None or (own := ours.get(name)) is None or own.null_count
            }
            overlaid = overlay(ours, theirs, names, length)
            counts, differences = Counts(coverage=overlaid.coverage), list[str]()
            if most is not None:
                ordinals = pa.array(np.arange(start, start + length))
                differing = find_differences(ordinals, ours[self._settings.key], (ours, theirs), compared, most)
                counts.overridden = differing.counts
                differences = csv_lines(differing.cells, self._settings.csv).to_pylist()
            text = text_bytes(csv_lines(overlaid.values, self._settings.csv))
            return encoded(text, self._settings.csv, columns, start + 1), counts, differences

        with awaited(ThreadPoolExecutor(self._cores, "format")) as pool:
            edges = slices(self._source.columns, self._rows.columns.values(), self._rows.numbers, SLICE_BYTES)
            for data, counts, differences in in_order(pool, lines, edges, self._cores + 1):
                self._counts += counts
                self._differences.add(differences)
                yield data

    def _send_unmatched(self, stack: ExitStack) -> Callable[[], Published]:
        """Uploads the list of the ids that no record has; integers by value, others by their bytes."""
        rows = 0
        columns = unmatched_columns(self._settings)

        def lines(connection: Connection) -> Iterator[bytes]:
            nonlocal rows
            for ids in _grouped(lookup.ids_in_order(connection, self._table, self._limits), len(self._matches)):
                alone = ids.filter(pc.invert(pc.is_in(self._reader.sieve.comparable(ids), value_set=self._matches)))
                if len(alone):
                    text = text_bytes(csv_lines([alone], self._settings.csv))
                    yield encoded(text, self._settings.csv, columns, rows + 1)
                rows += len(alone)

        with Connection(self._table.database) as connection:
            key = self._settings.unmatched_file
            complete = self._send(stack, key, (self._settings.key,), lines(connection))
        return lambda: complete(rows)

    def close(self) -> None:
        """Ends a scan that nobody finished, and lets pandas be found again."""
        self._reader.close()
        sys.meta_path.remove(NoPandas)


def _grouped(arrays: Iterable[pa.Array], least: int) -> Iterator[pa.Array]:
    """The same values in arrays of at least so many, as a set of the source's matches is made for each."""
    group: list[pa.Array] = []
    size = 0
    for array in arrays:
        group.append(array)
        size += len(array)
        if size >= least:
            yield pa.concat_arrays(group)
            group, size = [], 0
    if group:
        yield pa.concat_arrays(group)
