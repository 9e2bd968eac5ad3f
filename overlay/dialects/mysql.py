"""MySQL and MariaDB: names, literals and types into SQL, and what their catalogue and their errors mean."""

import math
import re
from collections.abc import Callable, Mapping

from overlay.dialects.base import INTEGER_BITS, Ask, Dialect, Failure, TableColumn, TableName, by_code, is_integer_text
from overlay.limits import Limits

BINARY_TYPES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_SPATIAL = re.compile("geometry|(multi)?(point|linestring|polygon)|geom(etry)?collection")
TEXT_TYPES = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
# Whose texts may be larger than max_allowed_packet: a function makes NULL of them (warning 1301, which nobody reads).
LARGE_TYPES = {"blob", "mediumblob", "longblob", "text", "mediumtext", "longtext", "json"}
_WHOLE_CHARSETS = {"ascii", "utf8", "utf8mb3", "utf8mb4"}  # whose texts are not made larger to be sent
_OVERFLOW = f"{2**63 - 1} + "  # an error of the server where it is reached, which says what of: ER_DATA_OUT_OF_RANGE
# What the text protocol sends as CAST(... AS CHAR) prints it, by Connector/J of MariaDB: half the work of the server
# (tests/services/test_types.py compares each type). Not floats, whose digits differ, nor what needs an expression.
PRINTED_TYPES = TEXT_TYPES.union(
    INTEGER_BITS, ("decimal", "date", "datetime", "timestamp", "time", "year", "enum", "set", "json")
)
_BYTES_TYPES = TEXT_TYPES.union(("enum", "set"))  # of those whose bytes version 3 hands out
# The character sets a key may have to be looked up, and the characters each can hold: those whose codes and characters
# pair off. Elsewhere (cp932) two codes print as one character, and a lookup would find one of them.
_LATIN1 = frozenset(bytes(range(256)).decode("cp1252", "ignore")) | frozenset("\x81\x8d\x8f\x90\x9d")
KEY_CHARSETS: Mapping[str, Callable[[str], bool]] = {
    "ascii": str.isascii,
    "latin1": _LATIN1.issuperset,
    "utf8": lambda text: max(text, default="") <= "\uffff",
    "utf8mb3": lambda text: max(text, default="") <= "\uffff",
    "utf8mb4": lambda _text: True,
}
# What vendor codes mean, each before its name in the manual: the servers' (share/errmsg-utf8.txt of MariaDB 10.11,
# MysqlErrorNumbers of Connector/J 9.1), the libraries' (CR_...), RDS Proxy's. Of FAILED only those that the SQLSTATE
# explains wrongly, or that are met while logging in, where drivers like to call anything a lost connection.
MYSQL_CODES: Mapping[Failure, str] = {
    # 1045 also of a user REQUIREd to use TLS: the server says no more; 1698 of one without a password (unix_socket).
    Failure.LOGIN_REFUSED: "1045 ER_ACCESS_DENIED_ERROR, 1698 ER_ACCESS_DENIED_NO_PASSWORD_ERROR",
    Failure.TABLE_REFUSED: """
        1044 ER_DBACCESS_DENIED_ERROR, 1049 ER_BAD_DB_ERROR, 1142 ER_TABLEACCESS_DENIED_ERROR,
        1143 ER_COLUMNACCESS_DENIED_ERROR, 1146 ER_NO_SUCH_TABLE""",
    # The first ER_ACCOUNT_HAS_BEEN_LOCKED is that of MySQL, the second that of MariaDB.
    Failure.ACCOUNT_REFUSED: """
        1820 ER_MUST_CHANGE_PASSWORD, 1862 ER_MUST_CHANGE_PASSWORD_LOGIN, 3118 ER_ACCOUNT_HAS_BEEN_LOCKED,
        3955 ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK, 4150 ER_USER_IS_BLOCKED,
        4151 ER_ACCOUNT_HAS_BEEN_LOCKED""",
    Failure.ADDRESS_REFUSED: "1129 ER_HOST_IS_BLOCKED, 1130 ER_HOST_NOT_PRIVILEGED",
    Failure.TLS_REFUSED: "2026 CR_SSL_CONNECTION_ERROR, 3159 ER_SECURE_TRANSPORT_REQUIRED",
    Failure.AUTHENTICATION_UNSUPPORTED: """
        1251 ER_NOT_SUPPORTED_AUTH_MODE, 1275 ER_SERVER_IS_IN_SECURE_AUTH_MODE, 1524 ER_PLUGIN_IS_NOT_LOADED,
        2059 CR_AUTH_PLUGIN_CANNOT_LOAD, 2061 CR_AUTH_PLUGIN_ERR""",
    Failure.NO_CONNECTION_LEFT: """
        1040 ER_CON_COUNT_ERROR, 1041 ER_OUT_OF_RESOURCES, 1135 ER_CANT_CREATE_THREAD,
        1203 ER_TOO_MANY_USER_CONNECTIONS, 1226 ER_USER_LIMIT_REACHED,
        9501 RDS Proxy: Timed-out waiting to acquire database connection""",
    Failure.UNREACHABLE: "2002 CR_CONNECTION_ERROR, 2003 CR_CONN_HOST_ERROR, 2005 CR_UNKNOWN_HOST",
    # The server ends or is not ready (1047: a node of Galera that is not yet one of the cluster); the connection ended;
    # the statement did (1969: max_statement_time of MariaDB, 3024: max_execution_time of MySQL).
    Failure.TRANSIENT: """
        1047 ER_UNKNOWN_COM_ERROR, 1053 ER_SERVER_SHUTDOWN, 1077 ER_NORMAL_SHUTDOWN, 1079 ER_SHUTDOWN_COMPLETE,
        3032 ER_SERVER_OFFLINE_MODE, 3168 ER_SERVER_ISNT_AVAILABLE,

        1042 ER_BAD_HOST_ERROR, 1080 ER_FORCING_CLOSE, 1152 ER_ABORTING_CONNECTION, 1154 ER_NET_READ_ERROR_FROM_PIPE,
        1155 ER_NET_FCNTL_ERROR, 1156 ER_NET_PACKETS_OUT_OF_ORDER, 1157 ER_NET_UNCOMPRESS_ERROR,
        1158 ER_NET_READ_ERROR, 1159 ER_NET_READ_INTERRUPTED, 1160 ER_NET_ERROR_ON_WRITE,
        1161 ER_NET_WRITE_INTERRUPTED, 1184 ER_NEW_ABORTING_CONNECTION, 1927 ER_CONNECTION_KILLED,
        2006 CR_SERVER_GONE_ERROR, 2013 CR_SERVER_LOST, 2055 CR_SERVER_LOST_EXTENDED, 3169 ER_SESSION_WAS_KILLED,
        4031 ER_CLIENT_INTERACTION_TIMEOUT,

        1020 ER_CHECKREAD, 1028 ER_FILSORT_ABORT, 1205 ER_LOCK_WAIT_TIMEOUT, 1206 ER_LOCK_TABLE_FULL,
        1213 ER_LOCK_DEADLOCK, 1317 ER_QUERY_INTERRUPTED, 1412 ER_TABLE_DEF_CHANGED,
        1637 ER_TOO_MANY_CONCURRENT_TRXS, 1969 ER_STATEMENT_TIMEOUT, 3024 ER_QUERY_TIMEOUT, 3572 ER_LOCK_NOWAIT""",
    # 1345: the user may read a view and not ask for its plan, so there is no estimate.
    Failure.FAILED: """
        1153 ER_NET_PACKET_TOO_LARGE, 1345 ER_VIEW_NO_EXPLAIN, 1356 ER_VIEW_INVALID,
        1932 ER_NO_SUCH_TABLE_IN_ENGINE""",
}
# What has no code: what a server says in place of its greeting, by Connector/J of MariaDB, and the drivers' own words.
_WORDS = {
    "Too many connections": Failure.NO_CONNECTION_LEFT,
    "is not allowed to connect to this": Failure.ADDRESS_REFUSED,
    "is blocked because of many connection errors": Failure.ADDRESS_REFUSED,
    "ssl not enabled in the server": Failure.TLS_REFUSED,
    "SSL Connection required, but not": Failure.TLS_REFUSED,
    "RSA public key is not available": Failure.AUTHENTICATION_UNSUPPORTED,
    "Public Key Retrieval is not allowed": Failure.AUTHENTICATION_UNSUPPORTED,
    "authentication plugin": Failure.AUTHENTICATION_UNSUPPORTED,
}
_OUT_OF_RANGE = 1690  # ER_DATA_OUT_OF_RANGE
# Where there is no code, or one that is not above: a whole SQLSTATE, or the two characters of its class. Not 42 and HY,
# which hold anything. 08001: Connector/J got an answer that it refuses (no TLS, no public key).
MYSQL_STATES = {
    Failure.LOGIN_REFUSED: "28000 invalid authorization specification",
    Failure.TABLE_REFUSED: "42S02 base table or view not found",
    Failure.FAILED: "08001 unable to establish a connection",
    Failure.TRANSIENT: "08 connection exception, 40 transaction rollback, 70100 query interrupted",
}
_FAILURES = by_code(MYSQL_CODES) | by_code(MYSQL_STATES)


class MySQL(Dialect):
    """MySQL and MariaDB.

    Spark's MySQL dialect answers to `jdbc:mysql:` alone, so MariaDB has that URL too: the generic dialect quotes
    columns with `"`, which both read as string literals.
    """

    scheme = "jdbc:mysql://"
    driver = "com.mysql.cj.jdbc.Driver"
    quote = "`"  # https://dev.mysql.com/doc/refman/8.0/en/identifiers.html
    default_schema = ""
    exact_types = TEXT_TYPES.union(INTEGER_BITS, ("binary", "varbinary"))

    def parameters(self, driver: str, *, tls: bool, verified: bool, limits: Limits) -> dict[str, str]:
        """Those of Connector/J are in milliseconds, those of the server (sessionVariables) in whole seconds."""
        client, lock = math.ceil(limits.client_seconds), math.ceil(limits.lock_seconds)
        parameters = {
            "connectTimeout": str(int(limits.connect_seconds * 1000)),
            "socketTimeout": str(int(limits.socket_seconds * 1000)),
            # The server's time zone, no SQL mode (one pads CHAR) and all rows, whatever init_connect or the server's
            # variables make of a session: sql_select_limit leaves rows out without a word, max_join_size refuses them.
            "sessionVariables": f"net_write_timeout={client},lock_wait_timeout={lock},"
            f"time_zone=@@global.time_zone,sql_mode='',sql_select_limit={2**64 - 1},sql_big_selects=1",
        }
        if driver.startswith("com.mysql."):
            parameters["useCursorFetch"] = "true"  # without it Connector/J loads the whole result set
            # By prepared statements, which do not know what was asked of a statement: `{fn now()}` may be a name.
            parameters["processEscapeCodesForPrepStmts"] = "false"
            return parameters | ({"sslMode": "REQUIRED"} if tls else {})
        # Whatever the server, its init_connect or the user's account make of a session: Connector/J of MariaDB takes
        # the character set of the server for granted, and what that cannot hold arrives as `?`.
        for name in ("character_set_client", "character_set_connection", "character_set_results"):
            parameters["sessionVariables"] += f",{name}=utf8mb4"
        parameters["allowLocalInfile"] = "false"  # by the default of version 2.7 a server may ask for any file
        if tls:
            parameters["useSSL"] = "true"
            if not verified:  # with a CA, Connector/J verifies the chain and the host name
                parameters["trustServerCertificate"] = "true"
        return parameters

    def session(self, limits: Limits) -> str:
        return "SET SESSION TRANSACTION READ ONLY"  # its timeouts are parameters of the URL

    def sorts(self, limits: Limits) -> str:
        return "SET SESSION max_sort_length = 8192"  # as many bytes of a text as possible; the default is 1,024

    def failure(self, state: str, code: int, text: str = "") -> Failure | None:
        """The vendor code first: one SQLSTATE covers many (42000 a wrong syntax and a missing database).

        Drivers change the SQLSTATE (Connector/J makes 40001 of a lock wait), while all of them keep the code.
        """
        if code == _OUT_OF_RANGE and _OVERFLOW in text:
            return Failure.VALUE_TOO_LARGE
        by_words = (failure for words, failure in _WORDS.items() if words in text)
        return _FAILURES.get(str(code)) or next(by_words, None) or _FAILURES.get(state) or _FAILURES.get(state[:2])

    def text_literal(self, text: str) -> str:
        """As bytes of UTF-8, whatever character set and SQL mode the session has."""
        return f"_utf8mb4 x'{text.encode().hex()}'"

    def text_expression(self, column: TableColumn) -> str:
        """Shapes as WKT, bits as a number; an error where the server would send NULL for a value that is too large."""
        name = self.quote_name(column.name)
        if column.type in BINARY_TYPES:
            text = f"LOWER(HEX({name}))"
        elif _SPATIAL.fullmatch(column.type):
            text = f"ST_AsText({name})"
        else:
            text = f"CAST({name}{' + 0' if column.type == 'bit' else ''} AS CHAR CHARACTER SET utf8mb4)"
        if column.type not in LARGE_TYPES:
            return text
        return f"COALESCE({text}, IF({name} IS NULL, NULL, {_OVERFLOW}LENGTH({name})))"

    def wire_expression(self, column: TableColumn, driver: str) -> str:
        """The column itself where the protocol is text; Connector/J of MySQL streams by a cursor, which is binary."""
        whole = column.type not in LARGE_TYPES or column.charset in _WHOLE_CHARSETS
        types = PRINTED_TYPES if driver.startswith("MariaDB Connector/J 2.") else _BYTES_TYPES
        plain = whole and column.type in types and driver.startswith("MariaDB ")
        return self.quote_name(column.name) if plain else self.text_expression(column)

    def text(self, sql: str) -> str:
        return f"CONVERT({sql} USING utf8mb4)"

    def by_bytes(self, sql: str) -> str:
        return f"CAST({sql} AS BINARY)"

    def bytes_literal(self, text: str) -> str:
        return f"x'{text.encode().hex()}'"

    def can_look_up(self, column: TableColumn) -> bool:
        """Integers, decimals, bytes, texts of KEY_CHARSETS."""
        if column.type in {"char", "varchar"}:
            return column.charset in KEY_CHARSETS
        return column.is_integer or column.type in {"decimal", "binary", "varbinary"}

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        if column.is_integer:
            return text if is_integer_text(text, column.type, signed="unsigned" not in column.full_type) else None
        if column.type == "decimal":
            return text if re.fullmatch(r"-?[0-9]{1,65}(\.[0-9]{1,38})?", text) else None
        if column.type in {"binary", "varbinary"}:
            return f"x'{text}'" if re.fullmatch("([0-9a-f]{2})*", text) else None
        return self.text_literal(text) if KEY_CHARSETS[column.charset or ""](text) else None

    def columns(self, name: TableName, key: str) -> str:
        """The catalogue also lists a column that the user may only write (`GRANT SELECT (id), UPDATE (b)`).

        A key may be invisible (sql_generate_invisible_primary_key of MySQL).
        """
        return (
            "SELECT column_name AS name, LOWER(data_type) AS type, LOWER(column_type) AS full_type, "
            f"character_set_name AS charset FROM information_schema.columns WHERE {self._where(name)} "
            f"AND (extra NOT LIKE '%INVISIBLE%' OR column_name = {self.text_literal(key)}) "
            "AND privileges LIKE '%select%' ORDER BY ordinal_position"
        )

    def tables(self, name: TableName) -> str:
        schema = self.text_literal(name.database)
        return f"SELECT table_name AS name FROM information_schema.tables WHERE table_schema = {schema}"

    def indexes(self, name: TableName) -> str:
        """The B-trees whose first column is whole: one of a prefix has not the order of the values."""
        return (
            "SELECT MAX(IF(seq_in_index = 1 AND sub_part IS NULL, column_name, NULL)) AS first_column, "
            "MAX(non_unique) + COUNT(sub_part) = 0 AS is_unique, COUNT(*) = 1 AS is_alone, "
            "index_name = 'PRIMARY' AS is_primary FROM information_schema.statistics "
            f"WHERE {self._where(name)} AND index_type = 'BTREE' GROUP BY index_name HAVING first_column IS NOT NULL"
        )

    def row_bytes(self, name: TableName, rows: int) -> str:
        return f"SELECT avg_row_length FROM information_schema.tables WHERE {self._where(name)}"

    def max_connections(self) -> str:
        return "SELECT @@max_connections"

    def estimate(self, ask: Ask, sql: str) -> int:
        """The catalogue's own number is up to a day old on MySQL 8 (information_schema_stats_expiry)."""
        return max(int(row["rows"] or 0) for row in ask(f"EXPLAIN {sql}"))

    def uses_index(self, ask: Ask, sql: str) -> bool:
        """No step of the plan reads a whole table or a whole index."""
        return all(row["type"] not in {"ALL", "index"} for row in ask(f"EXPLAIN {sql}"))

    def _where(self, name: TableName) -> str:
        return f"table_schema = {self.text_literal(name.database)} AND table_name = {self.text_literal(name.table)}"
