"""The lookup: the rows that the source names, by an index, and what must be counted beside them.

In: ids as text. Out: SQL predicates, the counts of the whole table, the first ids that the source lacks.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa

from overlay.keys import canonical_integer
from overlay.limits import Limits
from overlay.merge import Counts
from overlay.table.describe import Table
from overlay.table.jdbc import Connection
from overlay.table.ranges import ALL_ROWS, cut_table


def lookup_reason(table: Table, records: int, limits: Limits) -> str:
    """Why the rows are looked up (`few_ids`) or the table is scanned instead, as a name of TEXTS."""
    if not table.indexed:
        return "no_index"
    if not table.dialect.can_look_up(table.key):
        return "key_type"
    if table.rows < limits.lookup_rows_min:
        return "small_table"
    if records > min(limits.lookup_ids_max, table.rows // limits.rows_per_lookup):
        return "many_ids"
    return "few_ids"


def lookup_predicates(table: Table, ids: Iterable[str], parallelism: int, limits: Limits) -> list[str]:
    """Lists of ids as predicates, in the order of the ids, as neighbours share pages; none where no row can match.

    What is equal to the database may differ as text (`a` and `A`, `1.5` and `1.50`) and be asked for by two lists, so
    each list takes only the texts between its first and its last: no row comes twice.
    """
    lists = list(_lists(table, ids, limits))
    together = min(max(-(-len(lists) // (2 * parallelism)), 1), limits.lists_per_lookup)
    return [
        " OR ".join(f"({predicate})" for predicate in lists[start : start + together])
        for start in range(0, len(lists), together)
    ]


def _lists(table: Table, ids: Iterable[str], limits: Limits) -> Iterator[str]:
    dialect, key = table.dialect, table.dialect.quote_name(table.key.name)
    literals = [(id_, literal) for id_ in ids if (literal := dialect.key_literal(table.key, id_)) is not None]
    literals.sort(key=lambda pair: int(pair[0]) if table.key.is_integer else pair[0])
    longest = max((len(literal) for _, literal in literals), default=1)
    size = min(limits.lookup_list, max(limits.lookup_list_bytes // longest, 1))
    text = dialect.by_bytes(dialect.text_expression(table.key))
    # A list that mixes signed and unsigned numbers is compared as decimals, and no index helps (MariaDB).
    halves = itertools.groupby(literals, lambda pair: table.key.is_integer and int(pair[0]) >= 2**63)
    for _, half in halves:
        while batch := list(itertools.islice(half, size)):
            predicate = f"{key} IN ({', '.join(literal for _, literal in batch)})"
            if not table.key.is_integer:
                first, last = (dialect.bytes_literal(id_) for id_ in (batch[0][0], batch[-1][0]))
                predicate += f" AND {text} BETWEEN {first} AND {last}"
            yield predicate


def _exact_key(table: Table) -> str:
    # SQL for the key that takes only equal ids for equal, whatever the collation.
    if table.key.is_integer:
        return table.dialect.quote_name(table.key.name)
    return table.dialect.by_bytes(table.dialect.text_expression(table.key))


def count_rows(connection: Connection, table: Table, predicate: str = ALL_ROWS) -> Counts:
    """The counts of the rows of a predicate: rows, and rows beyond the first of each id."""
    name = table.dialect.quote_name(table.key.name)
    repeats = "0" if table.unique else f"COUNT({name}) - COUNT(DISTINCT {_exact_key(table)})"
    counted = f"COUNT(*) AS table_rows, {repeats} AS table_duplicates"
    [row] = connection.ask(f"SELECT {counted} {table.from_where('' if predicate == ALL_ROWS else predicate)}")
    return Counts(table_rows=int(row["table_rows"] or 0), table_duplicates=int(row["table_duplicates"] or 0))


def count_predicates(connection: Connection, table: Table, parallelism: int, limits: Limits) -> list[str]:
    """The ranges in which a large table is counted side by side; one where repeated ids may lie in several."""
    if not table.unique or table.rows < limits.counted_rows_min:
        return [ALL_ROWS]
    return cut_table(connection, table, parallelism, limits).on(table)


def ids_in_order(connection: Connection, table: Table, limits: Limits, most: int | None = None) -> Iterator[pa.Array]:
    """The ids of the table as text, each once: integers by value, others by their bytes; the first `most` of them.

    Sorted by the database, which has integers in the order of an index, if there is one.
    """
    dialect, name = table.dialect, table.dialect.quote_name(table.key.name)
    distinct, first = "" if table.unique else "DISTINCT ", "" if most is None else f" ORDER BY k LIMIT {most}"
    ids = f"SELECT {distinct}{_exact_key(table)} AS k {table.from_where(f'{name} IS NOT NULL')}{first}"
    sql = f"SELECT {dialect.text('k')} AS id FROM ({ids}) AS ids ORDER BY k"
    connection.ask(dialect.sorts(limits))
    for batch in connection.batches(sql, pa.schema([("id", pa.string())]), limits.fetch_rows):
        yield batch.column(0)


def first_unmatched(connection: Connection, table: Table, matches: Collection[str], limits: Limits) -> list[str]:
    """The first ids of the table that are not among the matches of a source, from the index alone.

    Of the first ids of the table no more than `len(matches)` can be matched, so a few more are always enough. Integers
    are in the order of the index, and few are needed; the bytes of texts are not, and each reading takes all of it.
    """
    most = len(matches) + limits.unmatched_ids
    size = min(limits.first_ids, most) if table.key.is_integer else most
    while True:
        ids = [id_ for array in ids_in_order(connection, table, limits, size) for id_ in array.to_pylist()]
        alone = [id_ for id_ in ids if (canonical_integer(id_) if table.key.is_integer else id_) not in matches]
        if len(alone) >= limits.unmatched_ids or size == most or len(ids) < size:
            return alone[: limits.unmatched_ids]
        size = most
