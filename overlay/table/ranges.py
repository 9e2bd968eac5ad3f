"""The scan: every row of the table, in ranges of its primary key or its key. In: a `Table`. Out: SQL predicates.

A table without a helpful index is one range: ranges by a hash would each read the whole table inside the database.
"""

import heapq
import itertools
import logging
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overlay.dialects.base import TableColumn
from overlay.limits import Limits
from overlay.table.describe import Table
from overlay.table.jdbc import Connection

LOG = logging.getLogger(__name__)
ALL_ROWS = "1 = 1"


def range_count(rows: int, parallelism: int, limits: Limits) -> int:
    """Into how many ranges a table is cut: enough for all cores, few enough that each is worth its connection."""
    even = min(rows // limits.range_rows_min, 2 * parallelism)
    return min(max(even, rows // limits.range_rows_max, 1), limits.ranges_max)


class Ranges(NamedTuple):
    """Ranges of the values of a column, cut at SQL literals in ascending order; one range where there are none."""

    column: TableColumn | None
    cuts: Sequence[str]

    def on(self, table: Table) -> list[str]:
        """A predicate for each range on the table itself."""
        return self.predicates(table.dialect.quote_name(self.column.name) if self.column else "")

    def predicates(self, name: str) -> list[str]:
        """A predicate for each range on the column under a name in SQL; each row meets one.

        The outer ranges are open and the first takes NULL, so that rows added meanwhile are not lost.
        """
        if not self.cuts:
            return [ALL_ROWS]
        inner = [f"{name} >= {start} AND {name} < {end}" for start, end in itertools.pairwise(self.cuts)]
        return [f"({name} < {self.cuts[0]} OR {name} IS NULL)", *inner, f"{name} >= {self.cuts[-1]}"]


def cut_table(connection: Connection, table: Table, count: int, limits: Limits) -> Ranges:
    """About `count` even ranges of the table."""
    for column in table.ordered if count > 1 else ():
        cuts = column_cuts(connection, table, column, -(-table.rows // count), limits)
        if cuts and len(cuts) >= count // 4:  # a primary key may begin with a column of few values
            LOG.info("the table is cut into %d ranges of column %r", len(cuts) + 1, column.name)
            return Ranges(column, cuts)
    if count > 1:
        LOG.info("no index helps to read the table in ranges")
    return Ranges(None, ())


def column_cuts(connection: Connection, table: Table, column: TableColumn, step: int, limits: Limits) -> list[str]:
    """Literals that cut an indexed column into ranges of about `step` rows; none for some types.

    Integers by the estimates of the optimizer, which cost milliseconds; what lies between two texts it could be asked
    as well, but only the database knows which texts do.
    """
    name = table.dialect.quote_name(column.name)
    if not column.is_integer:
        return index_cuts(connection, table, column, step, limits) if table.dialect.can_look_up(column) else []
    [bounds] = connection.ask(f"SELECT MIN({name}) AS low, MAX({name}) AS high {table.from_where()}")
    if bounds["low"] is None or bounds["high"] is None:
        return []

    def rows_between(start: int, end: int) -> int:
        between = table.from_where(f"{name} >= {start} AND {name} < {end}")
        return table.dialect.estimate(connection.ask, f"SELECT {name} {between}")

    low, high = int(bounds["low"]), int(bounds["high"])
    return [str(cut) for cut in integer_cuts(low, high, step, table.rows, rows_between, limits)]


def integer_cuts(
    low: int, high: int, step: int, rows: int, rows_between: Callable[[int, int], int], limits: Limits
) -> list[int]:
    """Where to cut the integers from `low` to `high`, which `rows` rows have, into ranges of about `step` rows.

    Ids may be sparse or skewed (MIN = 1, MAX = 10**15), so the range with the most rows is cut evenly again and again;
    the index tells at once about how many lie in a range (`rows_between`, its end exclusive).
    """
    heap, fine = [(-rows_between(low, high + 1), low, high + 1)], []
    estimates = 1
    while heap and estimates < limits.estimates_max:
        negative, start, end = heapq.heappop(heap)
        if -negative <= step or end - start == 1:
            fine.append((negative, start, end))
            continue
        fan = min(-(-4 * -negative // (3 * step)), limits.estimate_fan, end - start)  # of 3/4 of `step`, if even
        edges = [start + (end - start) * number // fan for number in range(fan + 1)]
        for inner in itertools.pairwise(edges):
            heapq.heappush(heap, (-rows_between(*inner), *inner))
        estimates += fan
    ranges = sorted(((start, -negative) for negative, start, _ in [*heap, *fine]), key=operator.itemgetter(0))
    return _joined(ranges, step, rows)


def _joined(ranges: Sequence[tuple[int, int]], step: int, rows: int) -> list[int]:
    """The starts of ranges that are left when small neighbours (start, estimate) are joined.

    By their shares in the sum, as InnoDB doubles its estimates for more than a few pages.
    """
    step = step * sum(estimate for _, estimate in ranges) // max(rows, 1)
    cuts, filled = [], 0
    for start, estimate in ranges:
        if filled and filled + estimate > step:
            cuts.append(start)
            filled = 0
        filled += estimate
    return cuts


def index_cuts(connection: Connection, table: Table, column: TableColumn, step: int, limits: Limits) -> list[str]:
    """Literals that cut an indexed column into ranges of `step` rows, by one pass over the index."""
    name, text = table.dialect.quote_name(column.name), table.dialect.text_expression(column)
    cuts: list[str] = []
    where = f"{name} IS NOT NULL"
    while len(cuts) < 2 * limits.ranges_max:  # the table may be larger than estimated, but hardly without end
        order = f"{table.from_where(where)} ORDER BY {name} LIMIT 1 OFFSET {step}"
        rows = connection.ask(f"SELECT {text} AS id {order}")
        cut = table.dialect.key_literal(column, str(rows[0]["id"])) if rows else None
        if cut is None:
            break
        cuts.append(cut)
        where = f"{name} > {cut}"
    return cuts
