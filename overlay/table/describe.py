"""What is known of the table before it is read. In: a connection. Out: columns, key, indexes, size (`Table`)."""

import logging
from dataclasses import dataclass, field

from overlay.connection import Database
from overlay.dialects.base import Dialect, Index, TableColumn
from overlay.errors import TableError, TransientTableError, Verbatim, listed_names, near_miss
from overlay.limits import Limits
from overlay.settings import Settings
from overlay.table.jdbc import Connection, Spark, retried

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """The table as the catalogue describes it.

    Attributes:
        columns: In table order.
        key: The key column; ids of integers are compared by their value.
        unique: Whether no two rows have the same key text.
        indexed: Whether an index begins with the key.
        ordered: Columns to cut the rows into ranges by, the best first: that which the primary key begins with (the
            rows lie in its order), then the key where an index begins with it.
        rows: The estimate of the optimizer, or their count where it gives none.
        row_bytes: Of a row as it is stored, on average; 0 where the catalogue does not know (views).
        connections: How many may be open at a time.
        driver: As `Connection.driver` says it.
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

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
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

    @property
    def dialect(self) -> Dialect:
        """The dialect of its database."""
        return self.database.dialect

    def fetch_rows(self, limits: Limits) -> int:
        """How many rows to fetch at a time: few where they are large."""
        return min(max(limits.fetch_bytes // max(self.row_bytes, 1), 1), limits.fetch_rows)


def describe_table(spark: Spark, database: Database, settings: Settings) -> Table:
    """Asks the catalogue; asks again a database that may get over what it says.

    Raises:
        TableError: the table is missing, has no key column, or the database fails.
    """

    def describe() -> Table:
        with Connection(spark, database) as connection:
            return describe_with(connection, settings.key, settings.max_connections, settings.limits)

    table = retried(describe, settings.limits.first_waits, settings.limits.patience_seconds)
    numbers = len(table.columns), table.rows, table.connections
    LOG.info("table has %d columns, about %d rows; at most %d connections", *numbers)
    return table


def describe_with(connection: Connection, key: str, max_connections: int, limits: Limits) -> Table:
    """The table by one connection.

    Raises:
        TableError: the table is missing, has no key column, or the database fails.
    """
    database, dialect, name = connection.database, connection.dialect, connection.database.table
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
    rows = estimate_rows(connection, dialect.quote_name(key), dialect.qualified(name))
    share = max(connection.ask_number(dialect.max_connections()) // limits.connection_share, 1)
    return Table(
        database=database,
        columns=tuple(columns.values()),
        key=columns[key],
        unique=any(index.is_unique and index.is_alone for index in of_key) and columns[key].type in dialect.exact_types,
        indexed=bool(of_key),
        ordered=tuple(columns[first] for first in dict.fromkeys(firsts) if first in columns),
        rows=rows,
        row_bytes=connection.ask_number(dialect.row_bytes(name, rows)),
        connections=max_connections or share,
        driver=connection.driver,
    )


def estimate_rows(connection: Connection, column: str, table: str) -> int:
    """How many rows the optimizer expects in a table, or there are where the user may not ask it (views)."""
    try:
        return connection.dialect.estimate(connection.ask, f"SELECT {column} FROM {table}")
    except TransientTableError:
        raise
    except TableError as error:
        LOG.info("the rows are counted, as there is no estimate: %s", error)
        return connection.ask_number(f"SELECT COUNT(*) FROM {table}")


def read_indexes(connection: Connection) -> list[Index]:
    """The indexes of the table, as `Dialect.indexes` describes them."""
    rows = connection.ask(connection.dialect.indexes(connection.database.table))
    flags = ("is_unique", "is_alone", "is_primary")
    return [Index(str(row["first_column"]), *(row[flag] == "1" for flag in flags)) for row in rows]
