"""What is known of the table before it is read. In: a connection. Out: columns, key, indexes, size (`Table`)."""

import logging
from dataclasses import dataclass, field

from overlay.connection import Database
from overlay.dialects.base import Dialect, Index, TableColumn
from overlay.errors import TableError, TransientTableError, Verbatim, listed_names, near_miss
from overlay.limits import Limits
from overlay.settings import Settings
from overlay.table.jdbc import Connection, causes, retried

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """The table as the catalogue describes it.

    Attributes:
        columns: Those that are read, in table order.
        key: The key column; ids of integers are compared by their value.
        unique: Whether no two rows have the same key text.
        indexed: Whether an index begins with the key.
        ordered: Columns to cut the rows into ranges by, the best first: that which the primary key begins with (the
            rows lie in its order), then the key where an index begins with it.
        rows: The estimate of the optimizer, or their count where it gives none.
        row_bytes: Of a row as it is stored, on average; 0 where the catalogue does not know (views).
        connections: How many may be open at a time.
        driver: As `Connection.driver` says it.
        where: The condition of the rows that count as there; empty where all do.
        all_names: Of all columns that the user may read, in table order.
    """

    database: Database = field(repr=False)
    columns: tuple[TableColumn, ...]
    key: TableColumn
    unique: bool
    indexed: bool
    ordered: tuple[TableColumn, ...]
    rows: int
    row_bytes: int
    connections: int
    driver: str
    where: str = ""
    all_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns that are read."""
        return tuple(column.name for column in self.columns)

    @property
    def has_zerofill_key(self) -> bool:
        """Whether the database prints ids with leading zeros."""
        return "zerofill" in self.key.full_type

    @property
    def fetches_numbers(self) -> bool:
        """Whether ids may travel as 64-bit integers: they fit, and are printed without leading zeros."""
        unsigned = self.key.type == "bigint" and "unsigned" in self.key.full_type
        return self.key.is_integer and not unsigned and not self.has_zerofill_key

    @property
    def qualified(self) -> str:
        """The name of the table in SQL."""
        return self.dialect.qualified(self.database.table)

    def from_where(self, predicate: str = "") -> str:
        """SQL for the rows that count as there, or for those of them that a predicate takes."""
        return from_where(self.qualified, self.where, predicate)

    @property
    def dialect(self) -> Dialect:
        """The dialect of its database."""
        return self.database.dialect

    def fetch_rows(self, limits: Limits) -> int:
        """How many rows to fetch at a time: few where they are large."""
        return min(max(limits.fetch_bytes // max(self.row_bytes, 1), 1), limits.fetch_rows)


def describe_table(database: Database, settings: Settings) -> Table:
    """Asks the catalogue; asks again a database that may get over what it says.

    Raises:
        TableError: see `describe_with`.
    """

    def describe() -> Table:
        with Connection(database) as connection:
            return describe_with(connection, settings)

    table = retried(describe, settings.limits.first_waits, settings.limits.patience_seconds)
    numbers = len(table.columns), table.rows, table.connections
    LOG.info("table has %d columns, about %d rows; at most %d connections", *numbers)
    return table


def describe_with(connection: Connection, settings: Settings) -> Table:
    """The table by one connection.

    Where ids may repeat, all columns are read, whatever goes into the output: they decide which row of an id is used.

    Raises:
        TableError: the table is missing, has no key column, its condition is none, or the database fails.
    """
    database, dialect, name = connection.database, connection.dialect, connection.database.table
    key, where = settings.row_key, settings.table_where
    answer = connection.ask(dialect.columns(name, key))
    columns = {str(row["name"]): TableColumn(**row) for row in answer}  # type: ignore[arg-type]
    readable = Verbatim(dialect.readable(name))
    if not columns:
        user = Verbatim(database.secret.username)
        tables = [str(row["name"]) for row in connection.ask(dialect.tables(name))]
        if name.table in tables:
            raise TableError("table_unreadable", user=user, table=readable)
        raise TableError("table_missing", user=user, table=readable, near=near_miss(name.table, tables))
    if key not in columns:
        near, listed = near_miss(key, columns), listed_names(columns)
        raise TableError("key_missing_in_table", table=readable, key=Verbatim(key), near=near, columns=listed)
    indexes = read_indexes(connection)
    of_key = [index for index in indexes if index.first_column == key]
    firsts = [index.first_column for index in indexes if index.is_primary] + [key] * bool(of_key)
    unique = any(index.is_unique and index.is_alone for index in of_key) and columns[key].type in dialect.exact_types
    rows = estimate_rows(connection, dialect.quote_name(key), dialect.qualified(name))
    row_bytes = connection.ask_number(dialect.row_bytes(name, rows))
    if where:
        check_where(connection, where)
        rows = estimate_rows(connection, dialect.quote_name(key), dialect.qualified(name), where)
    share = max(connection.ask_number(dialect.max_connections()) // settings.limits.connection_share, 1)
    return Table(
        database=database,
        columns=tuple(columns[name] for name in (settings.needed(columns, key) if unique else columns)),
        key=columns[key],
        unique=unique,
        indexed=bool(of_key),
        ordered=tuple(columns[first] for first in dict.fromkeys(firsts) if first in columns),
        rows=rows,
        row_bytes=row_bytes,
        connections=settings.max_connections or share,
        driver=connection.driver,
        where=where,
        all_names=tuple(columns),
    )


def from_where(table: str, *conditions: str) -> str:
    """SQL for the rows of a table that meet all of some conditions, of which empty ones are none.

    A line ends each, so that a comment in it does, too.
    """
    where = " AND ".join(f"({condition}\n)" for condition in conditions if condition)
    return f"FROM {table} WHERE {where}" if where else f"FROM {table}"


def check_where(connection: Connection, where: str) -> None:
    """Lets the server refuse what is no condition on the table: in parentheses, and without, as it may end them.

    With LIMIT 0 it reads no row, and it needs no right on a view beside reading, which EXPLAIN does.

    Raises:
        TableError: it refuses, in its words.
    """
    dialect, name = connection.dialect, connection.database.table
    for condition in (f"({where}\n)", where):
        try:
            connection.ask(f"SELECT 1 FROM {dialect.qualified(name)} WHERE {condition}\nLIMIT 0")
        except TransientTableError:
            raise
        except TableError as error:
            words = [cause.text for cause in causes(error.__cause__ or error) if cause.of_sql] or [str(error)]
            problem, readable = Verbatim(words[-1].strip()[:500]), Verbatim(dialect.readable(name))
            raise TableError("where_refused", where=Verbatim(where), table=readable, problem=problem) from error


def estimate_rows(connection: Connection, column: str, table: str, where: str = "") -> int:
    """How many rows the optimizer expects in a table, or there are where the user may not ask it (views)."""
    try:
        return connection.dialect.estimate(connection.ask, f"SELECT {column} {from_where(table, where)}")
    except TransientTableError:
        raise
    except TableError as error:
        LOG.info("the rows are counted, as there is no estimate: %s", error)
        return connection.ask_number(f"SELECT COUNT(*) {from_where(table, where)}")


def read_indexes(connection: Connection) -> list[Index]:
    """The indexes of the table, as `Dialect.indexes` describes them."""
    rows = connection.ask(connection.dialect.indexes(connection.database.table))
    flags = ("is_unique", "is_alone", "is_primary")
    return [Index(str(row["first_column"]), *(row[flag] == "1" for flag in flags)) for row in rows]
