"""PostgreSQL: names, literals and types into SQL, and what its catalogue and its errors mean."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from overlay.dialects.base import Ask, Dialect, Failure, TableColumn, TableName, by_code, is_integer_text
from overlay.limits import Limits

SMALL_COST = 1_000  # of a plan: that of reading as many pages (8 kB) in a row
# What a value of a type may look like: anything else is no literal of that type.
_KEY_TEXTS: Mapping[str, str] = {
    "numeric": r"-?[0-9]{1,131072}(\.[0-9]{1,16383})?|NaN|-?Infinity",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "bytea": "([0-9a-f]{2})*",
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), "[^\0]*"),
}
_IS_TABLE = "c.relkind IN ('r', 'p', 'v', 'm', 'f')"
# The type below the domains of an attribute `a`, however many there are above each other.
_BASE_TYPE = (
    "(WITH RECURSIVE below (oid, base) AS (SELECT oid, typbasetype FROM pg_type WHERE oid = a.atttypid UNION ALL "
    "SELECT d.oid, d.typbasetype FROM below JOIN pg_type d ON d.oid = below.base) SELECT oid FROM below WHERE base = 0)"
)

# What a SQLSTATE means, or the two characters of its class (Appendix A of the manual; PSQLState of pgJDBC: 08001 and
# 08006 of the network, 08004 of a server that it refuses); there are no codes. 3D000: no such database; 08000 also of
# RDS Proxy that has no connection left; 57014 by a person or by statement_timeout.
_STATES = by_code(
    {
        Failure.LOGIN_REFUSED: "28P01 invalid_password, 28000 invalid_authorization_specification",
        Failure.TABLE_REFUSED: """
            3D000 invalid_catalog_name, 3F000 invalid_schema_name, 42P01 undefined_table,
            42501 insufficient_privilege""",
        Failure.UNREACHABLE: "08001 sqlclient_unable_to_establish_sqlconnection",
        Failure.AUTHENTICATION_UNSUPPORTED: "08004 sqlserver_rejected_establishment_of_sqlconnection",
        Failure.NO_CONNECTION_LEFT: "53300 too_many_connections",
        Failure.TRANSIENT: """
            08 connection_exception, 25P03 idle_in_transaction_session_timeout, 25P04 transaction_timeout,
            40 transaction_rollback, 55P03 lock_not_available, 57014 query_canceled, 57P01 admin_shutdown,
            57P02 crash_shutdown, 57P03 cannot_connect_now, 57P05 idle_session_timeout, 72000 snapshot_too_old""",
    }
)


class PostgreSQL(Dialect):
    """PostgreSQL 12 and newer."""

    scheme = "jdbc:postgresql://"
    driver = "org.postgresql.Driver"
    quote = '"'  # https://www.postgresql.org/docs/current/sql-syntax-lexical.html
    default_schema = "public"
    exact_types = frozenset({"smallint", "integer", "bigint", *_KEY_TEXTS})

    def address(self, url: str, database: str) -> str:
        """With another database: a session is bound to that of its URL."""
        return f"{self.scheme}{urlsplit(url.removeprefix('jdbc:')).netloc}/{quote(database, safe='')}"

    def parameters(self, driver: str, *, tls: bool, verified: bool, limits: Limits) -> dict[str, str]:
        """Those of pgJDBC are in whole seconds, and it is never given certificates (see `connection`)."""
        parameters = {
            "connectTimeout": str(math.ceil(limits.connect_seconds)),
            "socketTimeout": str(math.ceil(limits.socket_seconds)),
            "tcpKeepAlive": "true",
        }
        if tls:
            parameters["sslmode"] = "require"
        return parameters

    def session(self, limits: Limits) -> str:
        """Spark's reader opens its transaction before this statement, so that one is made read only as well.

        The driver asks for the time zone of the machine it runs on and for three further digits. What is PostgreSQL's
        own goes before functions, operators, types and tables of the same name in any schema of the user's path; a
        function that takes what it is given only after a conversion (`concat`) is called by its full name.
        """
        settings = (
            "default_transaction_read_only = on",
            "transaction_read_only = on",
            "TimeZone = 'UTC'",
            "DateStyle = 'ISO, YMD'",
            "IntervalStyle = 'postgres'",
            "extra_float_digits = 1",
            "bytea_output = 'hex'",
            "quote_all_identifiers = off",
            f"idle_in_transaction_session_timeout = '{math.ceil(limits.client_seconds)}s'",
            f"lock_timeout = '{math.ceil(limits.lock_seconds)}s'",
        )
        path = "pg_catalog.concat('pg_catalog, ', pg_catalog.current_setting('search_path'), ', pg_temp')"
        own_first = f"SELECT pg_catalog.set_config('search_path', {path}, false)"
        return "; ".join([*(f"SET {setting}" for setting in settings), own_first])

    def failure(self, state: str, code: int, text: str = "") -> Failure | None:
        """A server that has no entry in pg_hba.conf for a connection (for lack of TLS, or of the address) says 28000.

        It says the same of a wrong role: the name of the file, which no language of its messages translates, tells.
        Whether TLS was lacking is read in English (`SSL off` until PostgreSQL 13), as is what pgJDBC has no code for.
        """
        if state == "28000" and "pg_hba.conf" in text:
            return Failure.TLS_REFUSED if re.search("no encryption|SSL off", text) else Failure.ADDRESS_REFUSED
        if state == "08004" and "SSL" in text:
            return Failure.TLS_REFUSED
        return _STATES.get(state) or _STATES.get(state[:2])

    def text_literal(self, text: str) -> str:
        """Only what has no meaning to the server, to the driver (`?` is a parameter) or to Spark stands as it is."""
        escaped = re.sub("[^A-Za-z0-9 _.-]", lambda match: f"\\U{ord(match[0]):08x}", text)
        return f"E'{escaped}'"

    def text_expression(self, column: TableColumn) -> str:
        """Cast to text, an address has a prefix length that is not printed otherwise.

        By full names, as Spark asks for the types of a query in a session that `session` has not prepared.
        """
        name = self.quote_name(column.name)
        functions = {"bytea": f"pg_catalog.encode({name}, 'hex')", "inet": f"pg_catalog.abbrev({name})"}
        return functions.get(column.type, f"{name}::pg_catalog.text")

    def text(self, sql: str) -> str:
        return f"({sql})::text"

    def by_bytes(self, sql: str) -> str:
        return f'({sql}) COLLATE "C"'

    def can_look_up(self, column: TableColumn) -> bool:
        """Not where the encoding of the database lacks characters: a text with one would be an error of the server."""
        return column.is_integer or (column.type in _KEY_TEXTS and column.charset == "UTF8")

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        """Quoted, a number takes the type of the column: -9223372036854775808 is a numeric otherwise."""
        if column.is_integer:
            return f"'{text}'" if is_integer_text(text, column.type, signed=True) else None
        if not re.fullmatch(_KEY_TEXTS[column.type], text):
            return None
        return self.text_literal(f"\\x{text}" if column.type == "bytea" else text)

    def columns(self, name: TableName, key: str) -> str:
        return (
            "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS full_type, "
            "CASE t.typname WHEN 'int2' THEN 'smallint' WHEN 'int4' THEN 'integer' WHEN 'int8' THEN 'bigint' "
            "ELSE t.typname END AS type, current_setting('server_encoding') AS charset "
            f"FROM pg_attribute a JOIN pg_type t ON t.oid = {_BASE_TYPE} "
            f"WHERE a.attrelid = ({self._oid(name)}) AND a.attnum > 0 AND NOT a.attisdropped "
            "AND has_column_privilege(a.attrelid, a.attnum, 'SELECT') ORDER BY a.attnum"
        )

    def tables(self, name: TableName) -> str:
        """Those in other schemas as `schema.table`."""
        schema, table = self.text_literal(name.schema), self.text_literal(name.table)
        return (
            f"SELECT CASE nspname WHEN {schema} THEN relname ELSE pg_catalog.concat(nspname, '.', relname) END AS name "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            f"WHERE {_IS_TABLE} AND (nspname = {schema} OR relname = {table})"
        )

    def indexes(self, name: TableName) -> str:
        """The B-trees that hold every row in the order of its column.

        Not those of some rows, of expressions, of another order than the column's, nor those of a parent table that
        lack the rows of its children (a partitioned table has all rows in its index).
        """
        return (
            "SELECT a.attname AS first_column, i.indisunique::int AS is_unique, (i.indnkeyatts = 1)::int AS is_alone, "
            "i.indisprimary::int AS is_primary FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am m ON m.oid = c.relam JOIN pg_class owner ON owner.oid = i.indrelid "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            "JOIN pg_opclass o ON o.oid = i.indclass[0] "
            f"WHERE i.indrelid = ({self._oid(name)}) AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL "
            "AND o.opcdefault AND i.indcollation[0] = a.attcollation "
            "AND NOT (owner.relkind = 'r' AND owner.relhassubclass)"
        )

    def row_bytes(self, name: TableName, rows: int) -> str:
        """Of a partitioned table over all partitions."""
        return (
            f"WITH RECURSIVE tree (oid) AS ({self._oid(name)} UNION SELECT inhrelid FROM pg_inherits "
            f"JOIN tree ON inhparent = tree.oid) SELECT SUM(pg_table_size(oid))::bigint / {max(rows, 1)} FROM tree"
        )

    def max_connections(self) -> str:
        """Without those that the server reserves."""
        reserved = ("superuser_reserved_connections", "reserved_connections", "rds.rds_superuser_reserved_connections")
        names = ", ".join(map(self.text_literal, reserved))
        return (
            "SELECT current_setting('max_connections')::int "
            f"- (SELECT COALESCE(SUM(setting::int), 0) FROM pg_settings WHERE name IN ({names}))"
        )

    def estimate(self, ask: Ask, sql: str) -> int:
        return int(self._plan(ask, sql)["Plan Rows"])

    def uses_index(self, ask: Ask, sql: str) -> bool:
        """Each leaf of the plan looks into an index or costs little."""
        return _reads_little(self._plan(ask, sql))

    def _plan(self, ask: Ask, sql: str) -> dict[str, Any]:
        [row] = ask(f"EXPLAIN (FORMAT JSON) {sql}")
        return dict(json.loads(str(row["QUERY PLAN"]))[0]["Plan"])

    def _oid(self, name: TableName) -> str:
        schema, table = self.text_literal(name.schema), self.text_literal(name.table)
        return (
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = {schema} AND c.relname = {table} AND {_IS_TABLE}"
        )


def _reads_little(plan: Mapping[str, Any]) -> bool:
    # A partition may be so small that an index would be a detour.
    nodes = plan.get("Plans", ())
    return all(map(_reads_little, nodes)) if nodes else "Index Cond" in plan or plan["Total Cost"] < SMALL_COST
