"""Cells that the source overrides: those in which record and row both have a value, and their texts differ.

In: columns of records and of the rows that belong to them. Out: how many a column has, and the first of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from overlay.csv_text import encoded
from overlay.limits import Limits
from overlay.settings import CsvFormat

HEADER = ("id", "column", "source", "table")  # of the list


class Differences(NamedTuple):
    """What differs.

    Attributes:
        counts: Cells, by name of the column; none where there are none.
        positions: Numbers of the first ones in the order of the output: record by record, column by column.
        cells: Of these, the columns of HEADER.
    """

    counts: dict[str, int]
    positions: pa.Array
    cells: list[pa.Array]


def find_differences(
    ordinals: pa.Array,
    ids: pa.Array,
    sides: tuple[Mapping[str, pa.Array], Mapping[str, pa.Array]],
    columns: Sequence[str],
    most: int,
) -> Differences:
    """Compares columns of text of records with those of their rows.

    Args:
        ordinals: The numbers of the records in the source.
        ids: Their ids.
        sides: The columns of the records and of the rows by name; those that only one side has are left out.
        columns: Those to compare, in order.
        most: How many cells to list.
    """
    records, rows = sides
    counts: dict[str, int] = {}
    names = ["position", *HEADER]
    tables = [pa.schema(dict.fromkeys(names, pa.string()) | {"position": pa.int64()}).empty_table()]
    for number, name in enumerate(columns):
        if name not in records or name not in rows:
            continue
        differs = pc.fill_null(pc.not_equal(records[name], rows[name]), False)
        if not (count := differs.true_count):
            continue
        counts[name] = count
        at = pa.array(np.flatnonzero(differs)[:most])
        positions = pc.add(pc.multiply(ordinals.take(at), len(columns)), number)
        cells = [ids.take(at), pa.array([name] * len(at), pa.string()), records[name].take(at), rows[name].take(at)]
        tables.append(pa.table([positions, *cells], names))
    first = pa.concat_tables(tables).sort_by("position").slice(0, most).combine_chunks()
    position, *cells = (column.combine_chunks() for column in first.columns)
    return Differences(counts, position, cells)


class DifferenceList:
    """The list of the first cells that the source overrides, as lines of a CSV, up to its limits.

    Attributes:
        lines: In the encoding of the output.
    """

    def __init__(self, form: CsvFormat, limits: Limits) -> None:
        self.lines: list[bytes] = []
        self._form, self._rows_left, self._bytes_left = form, limits.differences_max, limits.differences_bytes_max

    def add(self, lines: Iterable[str]) -> None:
        """Adds lines in order, as long as there is room.

        Raises:
            OutputError: the encoding lacks a character.
        """
        for line in lines:
            data = encoded(memoryview(line.encode()), self._form, HEADER, len(self.lines) + 1)
            self._bytes_left -= len(data)
            if self._bytes_left < 0 or len(self.lines) == self._rows_left:
                self._rows_left = len(self.lines)  # what follows is not first
                return
            self.lines.append(data)
