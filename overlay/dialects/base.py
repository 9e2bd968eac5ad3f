"""What a dialect is: everything that differs between databases, each of which is one module beside this one.

In: names, columns and texts of Python. Out: SQL texts, and what the catalogue answers to them. A dialect holds no
connection: SQL is run by the `Ask` that it is given, so that the same code serves any driver and any test.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from overlay.limits import Limits

INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
Ask = Callable[[str], list[dict[str, str | None]]]  # runs SQL; the rows of the answer by the labels of its columns


class Failure(Enum):
    """What a SQLSTATE and a vendor code mean for a run."""

    LOGIN_REFUSED = auto()  # user name or password are wrong: nothing is tried again, nor after the next four
    ACCOUNT_REFUSED = auto()  # the account is locked, or its password has expired
    ADDRESS_REFUSED = auto()  # the server admits no connection from where the job runs
    TLS_REFUSED = auto()  # one side wants TLS, or a version of it, that the other has not
    AUTHENTICATION_UNSUPPORTED = auto()  # the driver cannot log in the way that the server asks for
    NO_CONNECTION_LEFT = auto()  # of the server or of the user: it is tried again
    TABLE_REFUSED = auto()  # the database or the table is missing, or the user may not read it: nothing is tried again
    # Nobody answered: it is tried again (but for an unknown host), as a failover looks the same. The drivers for MySQL
    # have one SQLSTATE for this and for a connection that is lost later, TRANSIENT: who connects can tell them apart.
    UNREACHABLE = auto()
    TRANSIENT = auto()  # the server or the connection gave up this time: all is tried again
    VALUE_TOO_LARGE = auto()  # the server cannot send a value as the text that was asked for
    FAILED = auto()  # it would fail each time, for a reason that only the server's own words tell


class TableName(NamedTuple):
    """Where a table is. `schema` is PostgreSQL's, in which alone a database has several; empty elsewhere."""

    database: str
    schema: str
    table: str


@dataclass(frozen=True)
class TableColumn:
    """A column as the catalogue describes it."""

    name: str
    type: str  # without length and the like; of a domain, the type below it
    full_type: str  # what DDL says (`int(5) unsigned zerofill`)
    charset: str | None = None  # of texts; of PostgreSQL, the encoding of the database

    @property
    def is_integer(self) -> bool:
        """Whether the values are whole numbers of a fixed size."""
        return self.type in INTEGER_BITS


class Index(NamedTuple):
    """An index. `is_alone`: it has one column."""

    first_column: str
    is_unique: bool
    is_alone: bool
    is_primary: bool


class Dialect(Protocol):
    """One kind of database: its JDBC URL, its SQL, its catalogue and the meaning of its errors.

    Attributes:
        scheme: What a URL begins with.
        driver: The JDBC driver that Glue brings.
        quote: What an identifier stands between; inside of it, it is doubled.
        default_schema: Where a table is unless the secret says otherwise; empty where a database has no schemas.
        exact_types: Types whose texts differ when their values do, so that a unique index proves the texts unique.
    """

    scheme: str
    driver: str
    quote: str
    default_schema: str
    exact_types: frozenset[str]

    def address(self, url: str, database: str) -> str:
        """The URL (without parameters) of the database that the table is in."""
        return url  # a session reads any database

    def parameters(self, driver: str, *, tls: bool, verified: bool, limits: Limits) -> dict[str, str]:
        """Parameters of the URL (timeouts, streaming, encryption) by the names that a JDBC driver has for them.

        `tls`: the connection has to be encrypted; `verified`: the driver is given certificates to verify the server by.
        """

    def session(self, limits: Limits) -> str:
        """SQL that makes a session read only, and its texts the same wherever the job runs."""

    def sorts(self, limits: Limits) -> str:
        """SQL that readies a session to sort texts by their bytes; it need not be one of `session`."""
        return self.session(limits)

    def failure(self, state: str, code: int, text: str = "") -> Failure | None:
        """What an error means by its SQLSTATE (may be empty) and vendor code (0 or less: none); None: nobody knows.

        The text, its message, is looked at only for what the codes do not tell.
        """

    def quote_name(self, name: str) -> str:
        """An identifier, quoted."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote

    def qualified(self, name: TableName) -> str:
        """The table in SQL, by its full name (of a session that sees one database alone, by schema and name)."""
        return f"{self.quote_name(name.schema or name.database)}.{self.quote_name(name.table)}"

    def readable(self, name: TableName) -> str:
        """The table for people."""
        return ".".join(filter(None, name))

    def text_literal(self, text: str) -> str:
        """A string that no setting of the server can misread."""

    def text_expression(self, column: TableColumn) -> str:
        """SQL for a value as the database prints it (docs/merge-rules.en.md); bytes as hex."""

    def wire_expression(self, column: TableColumn, driver: str) -> str:
        """SQL for the same value for who reads the bytes that a driver (`Connection.driver`) receives."""
        return self.text_expression(column)

    def text(self, sql: str) -> str:
        """SQL for a number or a `by_bytes` as text."""

    def by_bytes(self, sql: str) -> str:
        """SQL for a text that compares byte for byte."""

    def bytes_literal(self, text: str) -> str:
        """What a `by_bytes` can be compared with."""
        return self.text_literal(text)

    def can_look_up(self, column: TableColumn) -> bool:
        """Whether `key_literal` can write the values of a column."""

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        """The SQL literal that equals every value of a column that prints as `text`; None when no value can.

        It may equal more values than that (a collation takes `A` for `a`), never fewer: equality of SQL is reflexive.
        The literal has the type of the column or converts to it without loss, so that the index can be used.
        """

    def columns(self, name: TableName, key: str) -> str:
        """SQL for the columns that the user may read and `SELECT *` shows, and the key: the fields of TableColumn."""

    def tables(self, name: TableName) -> str:
        """SQL for the `name`s of tables that may be meant: beside this one, and of its name in other schemas."""

    def indexes(self, name: TableName) -> str:
        """SQL for the indexes whose order is that of whole values: the fields of Index, its flags as 1 and 0."""

    def row_bytes(self, name: TableName, rows: int) -> str:
        """SQL for the whole bytes of a row as it is stored, on average; NULL where nobody knows (views)."""

    def max_connections(self) -> str:
        """SQL for how many connections the server takes."""

    def estimate(self, ask: Ask, sql: str) -> int:
        """How many rows the optimizer expects a statement to read."""

    def uses_index(self, ask: Ask, sql: str) -> bool:
        """Whether the database reads no more than the rows that a statement asks for."""


def by_code(names: Mapping[Failure, str]) -> dict[str, Failure]:
    """What each code of a table means in which codes stand before their names."""
    return {code: failure for failure, text in names.items() for code in re.findall(r"\b\d\w+", text)}


def is_integer_text(text: str, kind: str, *, signed: bool) -> bool:
    """Whether a column of an integer type can hold what is written as its values are printed."""
    bits = INTEGER_BITS[kind]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return bool(re.fullmatch("0|-?[1-9][0-9]{0,19}", text)) and low <= int(text) < high
