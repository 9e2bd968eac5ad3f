"""The overlay itself: source value, else table value, else missing.

In: records and the rows that belong to them, as Arrow columns of text. Out: the columns of the output, and counts.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Matrix = np.ndarray[Any, Any]


@dataclass
class Counts:
    """What a run counts. Counts of disjoint parts of the same source and table add up.

    Attributes:
        missing_ids: Records whose id is missing or null.
        matched: Records whose id the table has.
        source_duplicates: Records beyond the first of each id.
        table_rows: All of them.
        matched_rows: Rows whose id a record has.
        table_duplicates: Rows beyond the first of each id.
        unmatched_ids: Some ids that no record has, among them the first; the engine cuts them to those.
        coverage: Of each column of the output: cells from the source, from the table, and empty ones.
        overridden: Cells in which both sides have a value and the texts differ, by column; where they are looked for.
    """

    source_records: int = 0
    missing_ids: int = 0
    matched: int = 0
    source_duplicates: int = 0
    table_rows: int = 0
    matched_rows: int = 0
    table_duplicates: int = 0
    unmatched_ids: list[str] = field(default_factory=list)
    coverage: Matrix = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    overridden: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Self) -> Self:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        empty, full = sorted((self.coverage, other.coverage), key=len)
        names = merged_columns(self.overridden, other.overridden)
        overridden = {name: self.overridden.get(name, 0) + other.overridden.get(name, 0) for name in names}
        return type(self)(**sums, coverage=empty + full if len(empty) else full, overridden=overridden)

    @property
    def source_only(self) -> int:
        """Records whose id the table lacks."""
        return self.source_records - self.matched

    @property
    def filled_cells(self) -> int:
        """Cells that the table filled."""
        return int(self.coverage[:, 1].sum())

    @property
    def unmatched(self) -> int:
        """Rows whose id no record has; the table may shrink while it is read."""
        return max(self.table_rows - self.matched_rows, 0)

    def to_data(self) -> dict[str, Any]:
        """The counts as data that JSON can hold, for `counts_from_data`."""
        matrix = {"coverage": self.coverage.tolist(), "overridden": self.overridden}
        return {name: getattr(self, name) for name in _ADDED} | matrix

    def as_dict(self) -> dict[str, Any]:
        """The counts by their names in the run report."""
        names = ("source_records", "matched", "source_only", "filled_cells", "unmatched", "unmatched_ids")
        more = ("source_duplicates", "missing_ids", "table_rows", "table_duplicates")
        return {name: getattr(self, name) for name in (*names, *more)} | {"coverage": self.coverage.tolist()}


_ADDED = [item.name for item in fields(Counts) if item.name not in {"coverage", "overridden"}]


def counts_from_data(data: Mapping[str, Any]) -> Counts:
    """The counts that `Counts.to_data` made the data of."""
    coverage = np.array(data["coverage"], np.int64).reshape(-1, 3)
    return Counts(**{**data, "coverage": coverage})


def merged_columns(*headers: Iterable[str]) -> tuple[str, ...]:
    """The columns of several headers in the order they first appear: of ranges of the source; of source and table."""
    return tuple(dict.fromkeys(itertools.chain(*headers)))


class Overlaid(NamedTuple):
    """Columns of the output, and of each the cells from the source, from the table and empty ones (columns x 3)."""

    values: list[pa.Array]
    coverage: Matrix


def overlay(
    records: Mapping[str, pa.Array], rows: Mapping[str, pa.Array], columns: Sequence[str], length: int
) -> Overlaid:
    """Overlays columns of records on those of the rows that belong to them, cell by cell.

    Args:
        records: Text columns of records by name.
        rows: Text columns of the same length; a record without a row has null in each.
        columns: The columns of the output.
        length: The number of records.
    """
    values = []
    coverage = np.zeros((len(columns), 3), np.int64)
    for number, name in enumerate(columns):
        ours = records.get(name)
        theirs = rows.get(name)
        value = ours if ours is not None else pa.nulls(length, pa.string())
        lacking = value.null_count
        if theirs is not None and lacking:
            value = theirs if ours is None else pc.coalesce(value, theirs)
        values.append(value)
        coverage[number] = length - lacking, lacking - value.null_count, value.null_count
    return Overlaid(values, coverage)


def slices(
    records: Sequence[pa.ChunkedArray], rows: Iterable[pa.Array], row_numbers: pa.Array, size: int
) -> Iterator[tuple[int, int]]:
    """Cuts records into stretches (start, end) whose texts, with those of their rows, take about `size` bytes.

    By the length of each, as a narrow record may have a wide row and many records the same one: `take` overflows
    silently beyond 2 GiB (pyarrow 17).

    Args:
        records: The columns of the records; there is at least one of either.
        rows: The columns of the rows.
        row_numbers: The row of each record; null where it has none.
        size: In bytes; a single record may take more.
    """
    sizes = _sizes(records, len(row_numbers))
    numbers = row_numbers.drop_null().to_numpy()
    if len(numbers):
        row_sizes = _sizes(rows, int(numbers.max()) + 1)
        sizes[row_numbers.is_valid().to_numpy(zero_copy_only=False)] += row_sizes[numbers]
    filled = np.cumsum(sizes)
    edges = np.searchsorted(filled, np.arange(size, filled[-1], size)) + 1
    yield from itertools.pairwise(np.unique([0, *edges, len(sizes)]).tolist())


def _sizes(columns: Iterable[Any], length: int) -> Matrix:
    """The bytes of the first `length` rows of some columns, with a delimiter for each text."""
    sizes = np.zeros(length, np.int64)
    for texts in columns:
        sizes += pc.fill_null(pc.binary_length(texts), 0).to_numpy()[:length]
        sizes += 1
    return sizes


def rows_with_id(batch: pa.RecordBatch, key_at: int) -> pa.RecordBatch:
    """The rows whose id is not null; mostly all, which are not copied."""
    ids = batch.column(key_at)
    return batch.filter(ids.is_valid()) if ids.null_count else batch


def first_rows(rows: pa.Table, matches: pa.Array) -> pa.Array | None:
    """The places of one row of each match, the one that sorts first by its own texts; None where each is alone.

    Args:
        rows: All columns of the table, in its order.
        matches: What identifies each row; none is null.
    """
    codes = matches.dictionary_encode().indices.to_numpy()
    repeats = np.bincount(codes)
    if not len(codes) or repeats.max() == 1:
        return None
    several = np.flatnonzero(repeats[codes] > 1)
    texts = rows.take(pa.array(several))
    texts = pa.table([*texts.columns, pa.array(codes[several])], names=[*map(str, range(texts.num_columns)), "code"])
    order = [("code", "ascending"), *((str(number), "ascending") for number in range(rows.num_columns))]
    ordered = several[pc.sort_indices(texts, sort_keys=order, null_placement="at_start").to_numpy()]
    firsts = ordered[np.flatnonzero(np.diff(codes[ordered], prepend=-1))]
    return pa.array(np.sort(np.concatenate([np.flatnonzero(repeats[codes] == 1), firsts])))


def counts_of_source(ids: Any, matches: Any) -> Counts:
    """The counts that the ids of all records have.

    Args:
        ids: The ids as written.
        matches: What they are compared with.
    """
    named = len(ids) - ids.null_count
    if pa.types.is_integer(matches.type):  # sorting numbers takes an eighth of the time of hashing them
        distinct = len(np.unique(matches.drop_null().to_numpy()))
    else:
        distinct = pc.count_distinct(matches, mode="only_valid").as_py()
    return Counts(source_records=len(ids), missing_ids=ids.null_count, source_duplicates=named - distinct)
