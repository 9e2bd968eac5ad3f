"""`table.jdbc`: what chains of exceptions mean. They are those of the real drivers, recorded in November 2026.

Servers: MariaDB 10.11 by MariaDB Connector/J 2.7 (M) and MySQL Connector/J 9 (C), PostgreSQL 15 by pgJDBC 42 (P).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.connection import make_database
from overlay.errors import Phrase, TableError, TransientTableError
from overlay.secret import make_secret
from overlay.table import jdbc
from overlay.table.jdbc import Cause, retried, table_error

PASSWORD = "correct horse"
SECRET = make_secret("s", {"username": "etl", "password": PASSWORD, "db_name": "demo", "table_name": "t"})
URLS = {
    "M": ("jdbc:mysql://db:3306/demo?permitMysqlScheme", "org.mariadb.jdbc.Driver"),
    "C": ("jdbc:mysql://db:3306/demo", "com.mysql.cj.jdbc.Driver"),
    "P": ("jdbc:postgresql://db:5432/demo", "org.postgresql.Driver"),
}
DATABASES = {
    driver: make_database("c", {"JDBC_CONNECTION_URL": url, "JDBC_DRIVER_CLASS_NAME": name}, SECRET)
    for driver, (url, name) in URLS.items()
}


def sql(name: str, state: str, code: int, text: str) -> Cause:
    """A java.sql.SQLException; `name` is one of java.sql unless it has a package."""
    return Cause(name if "." in name else f"java.sql.{name}", text, state, code, "x.Y", of_sql=True)


def plain(name: str, text: str = "", frame: str = "x.Y") -> Cause:
    """Makes an exception that is not of SQL."""
    return Cause(name, text, frame=frame)


def m_login(name: str, state: str, code: int, text: str, *causes: Cause) -> tuple[Cause, ...]:
    """What MariaDB Connector/J makes of a failed login."""
    address_text = f"Could not connect to address=(host=127.0.0.1)(port=36201)(type=master) : {text}"
    return (sql(name, state, code, address_text), sql(name, state, code, text), *causes)


def m_greeting(text: str) -> tuple[Cause, ...]:
    """What MariaDB Connector/J makes of an error that a server sends in place of its greeting: its code is lost."""
    return (
        sql(NON_TRANSIENT, "08000", -1, f"Could not connect to HostAddress{{host='127.0.0.1'}}. {text}"),
        sql("SQLException", "", 0, text),
    )


def m_statement(name: str, state: str, code: int, text: str, *causes: Cause) -> tuple[Cause, ...]:
    """What MariaDB Connector/J makes of a failed statement."""
    wrapped = sql("org.mariadb.jdbc.internal.util.exceptions.MariaDbSqlException", state, code, text)
    return (sql(name, state, code, f"(conn=19) {text}"), wrapped, *(causes or [sql("SQLException", state, code, text)]))


def c_link(cause: str, text: str) -> tuple[Cause, ...]:
    """What MySQL Connector/J makes of a failure of the network."""
    outer = sql("com.mysql.cj.jdbc.exceptions.CommunicationsException", "08S01", 0, LINK)
    return (outer, plain("com.mysql.cj.exceptions.CJCommunicationsException", LINK), plain(cause, text))


def c(name: str, state: str, code: int, text: str) -> tuple[Cause, ...]:
    """An exception of MySQL Connector/J."""
    return (sql(name, state, code, text),)


def p(state: str, text: str, *causes: Cause) -> tuple[Cause, ...]:
    """The one exception of pgJDBC."""
    return (sql("org.postgresql.util.PSQLException", state, 0, text), *causes)


# Exceptions of Java by their names.
EOF, RESET, TIMEOUT = "java.io.EOFException", "java.net.SocketException", "java.net.SocketTimeoutException"
REFUSED, NOWHERE, TLS = (
    "java.net.ConnectException",
    "java.net.UnknownHostException",
    "javax.net.ssl.SSLHandshakeException",
)
PATH_ERROR = "sun.security.validator.ValidatorException"
NON_TRANSIENT, TRANSIENT_LINK = "SQLNonTransientConnectionException", "SQLTransientConnectionException"
UNAUTHORIZED, SYNTAX = "SQLInvalidAuthorizationSpecException", "SQLSyntaxErrorException"
KILLED_C = "com.mysql.cj.jdbc.exceptions.MySQLQueryInterruptedException"
ROLLBACK_C = "com.mysql.cj.jdbc.exceptions.MySQLTransactionRollbackException"
PACKET_C = "com.mysql.cj.jdbc.exceptions.PacketTooBigException"
# What several say.
LINK = "Communications link failure  The last packet sent successfully to the server was 0 milliseconds ago."
LOST = "unexpected end of stream, read 0 bytes from 4 (socket was closed by server)"
CLOSED = "Server has closed the connection.  Please check net_read_timeout/net_write_timeout/wait_timeout"
UNREAD = "Can not read response from server. Expected to read 4 bytes, read 0 bytes"
DENIED = "Access denied for user 'etl'@'localhost' (using password: YES)"
NO_PASSWORD = "Access denied for user 'sock'@'localhost'"
DATABASE_DENIED = "Access denied for user 'r'@'%' to database 'other'"
LOCKED = "Access denied, this account is locked"
SET_PASSWORD = "You must SET PASSWORD before executing this statement"
EXCEEDED = "User 'one' has exceeded the 'max_user_connections' resource (current value: 1)"
LOCK_WAIT = "Lock wait timeout exceeded; try restarting transaction"
DEADLOCK = "Deadlock found when trying to get lock; try restarting transaction"
INTERRUPTED = "Query execution was interrupted"
EXPLAIN = "ANALYZE/EXPLAIN/SHOW can not be issued; lacking privileges for underlying table"
NO_TABLE = "Table 'demo.nope' doesn't exist"
TABLE_DENIED = "SELECT command denied to user 'r'@'localhost' for table `demo`.`t`"
COLUMN_DENIED = "SELECT command denied to user 'r'@'localhost' for column 'b' in table 'u'"
CRASHED = "Table './demo/t' is marked as crashed and should be repaired"
READ_ONLY = "Cannot execute statement in a READ ONLY transaction"
TOO_LARGE = "Could not send query: query size is >= to max_allowed_packet (16777216)"
NO_TLS = "SSL Connection required, but not provided by server."
PATH = "PKIX path building failed: sun.security.provider.certpath.SunCertPathBuilderException: unable to find valid"
NO_CHAIN = "Path does not chain with any of the trust anchors"
OTHER_HOST = 'DNS host "db" doesn\'t correspond to certificate CN "x" and SAN[{DNS:"x"}]'
IO = "An I/O error occurred while sending to the backend."
ATTEMPT = "The connection attempt failed."
ENDED = "FATAL: terminating connection due to administrator command"
HBA = 'FATAL: no pg_hba.conf entry for host "127.0.0.1", user "etl", database "demo", no encryption'
REJECTED = 'FATAL: pg_hba.conf rejects connection for host "127.0.0.1", user "r", database "demo", SSL encryption'
VERSION = "Received fatal alert: protocol_version"
NOT_ALLOWED = "Host '10.0.0.7' is not allowed to connect to this MariaDB server"
BLOCKED = "Host '10.0.0.7' is blocked because of many connection errors; unblock with 'mariadb-admin flush-hosts'"
NO_KEY = "RSA public key is not available client side (option serverRsaPublicKeyFile not set)"
SCRAM = "The server requested SCRAM-based authentication, but the password is an empty string."
REMOTE = "ERROR: could not establish connection   Detail: connection to server at port 1 failed: Connection refused"

# What happened, by which driver (the last letter) -> code, whether it is tried again, exceptions, what is told.
CONNECTING = {
    "wrong password M": ("login_refused", False, m_login(UNAUTHORIZED, "28000", 1045, f"(conn=6) {DENIED} Current")),
    "wrong password C": ("login_refused", False, c("SQLException", "28000", 1045, DENIED)),
    "wrong password P": ("login_refused", False, p("28P01", 'FATAL: password authentication failed for user "etl"')),
    "user of a socket M": ("login_refused", False, m_login(UNAUTHORIZED, "28000", 1698, f"(conn=9) {NO_PASSWORD}")),
    "user of a socket C": ("login_refused", False, c("SQLException", "28000", 1698, NO_PASSWORD)),
    "no login P": ("login_refused", False, p("28000", 'FATAL: role "nologin" is not permitted to log in')),
    "PAM P": ("login_refused", False, p("28000", 'FATAL: PAM authentication failed for user "one"')),
    "no password P": ("authentication_unsupported", False, p("08004", SCRAM), SCRAM),
    "no database M": ("table_missing", False, m_login(SYNTAX, "42000", 1049, "(conn=10) Unknown database 'nope'")),
    "no database C": ("table_missing", False, c(SYNTAX, "42000", 1049, "Unknown database 'nope'")),
    "no database P": ("table_missing", False, p("3D000", 'FATAL: database "nope" does not exist')),
    "database of others M": ("table_missing", False, m_login(SYNTAX, "42000", 1044, f"(conn=11) {DATABASE_DENIED}")),
    "database of others C": ("table_missing", False, c(SYNTAX, "42000", 1044, DATABASE_DENIED)),
    "database of others P": ("table_missing", False, p("42501", 'FATAL: permission denied for database "other"')),
    "locked account M": (
        "account_refused",
        False,
        m_login(TRANSIENT_LINK, "HY000", 4151, f"(conn=12) {LOCKED}"),
        LOCKED,
    ),
    "locked account C": ("account_refused", False, c("SQLException", "HY000", 4151, LOCKED), LOCKED),
    "expired password M": (
        "account_refused",
        False,
        m_login(NON_TRANSIENT, "08000", -1, "(conn=13) could not load system variables")
        + m_statement("SQLException", "HY000", 1820, SET_PASSWORD)[1:],
        SET_PASSWORD,
    ),
    "expired password C": (
        "account_refused",
        False,
        c("SQLException", "S1000", 1862, "Your password has expired. To log in you must change it"),
        "Your password has expired",
    ),
    "nobody listens M": (
        "database_unreachable",
        True,
        m_login(NON_TRANSIENT, "08000", -1, "Socket fail to connect to host:127.0.0.1", plain(REFUSED)),
    ),
    "nobody listens C": ("database_unreachable", True, c_link(REFUSED, "Connection refused")),
    "nobody listens P": (
        "database_unreachable",
        True,
        p("08001", "Connection to 127.0.0.1:1 refused.", plain(REFUSED)),
    ),
    "no such host M": (
        "database_unreachable",
        False,
        m_login(NON_TRANSIENT, "08000", -1, "Socket fail to connect to host:nowhere.invalid", plain(NOWHERE)),
    ),
    "no such host C": ("database_unreachable", False, c_link(NOWHERE, "nowhere.invalid: Name or service not known")),
    "no such host P": ("database_unreachable", False, p("08001", ATTEMPT, plain(NOWHERE, "nowhere.invalid"))),
    "no answer M": (
        "database_unreachable",
        True,
        m_login(NON_TRANSIENT, "08000", -1, "Could not connect to 127.0.0.1:1 : Read timed out", plain(TIMEOUT)),
    ),
    "no answer C": ("database_unreachable", True, c_link(TIMEOUT, "Read timed out")),
    "no answer P": ("database_unreachable", True, p("08001", ATTEMPT, plain(TIMEOUT, "Read timed out"))),
    "torn handshake M": (
        "database_unreachable",
        True,
        m_login(NON_TRANSIENT, "08000", -1, f"Could not connect to 127.0.0.1:1 : {LOST}", plain(EOF, LOST)),
    ),
    "torn handshake C": ("database_unreachable", True, c_link(RESET, "Broken pipe")),
    "torn handshake P": (
        "database_unreachable",
        True,
        p("08006", "SSL error: Broken pipe", plain(RESET, "Broken pipe")),
    ),
    "no connection left M": (
        "no_connection_left",
        True,
        m_greeting("Too many connections"),
        "Too many connections",
    ),
    "no connection left C": (
        "no_connection_left",
        True,
        c(NON_TRANSIENT, "08004", 1040, 'message from server: "Too many connections"'),
        "Too many connections",
    ),
    "no connection left P": (
        "no_connection_left",
        True,
        p("53300", "FATAL: sorry, too many clients already"),
        "too many clients",
    ),
    "no connection left for a user M": (
        "no_connection_left",
        True,
        m_login(SYNTAX, "42000", 1226, f"(conn=16) {EXCEEDED}"),
        EXCEEDED,
    ),
    "no connection left for a user C": ("no_connection_left", True, c(SYNTAX, "42000", 1226, EXCEEDED), EXCEEDED),
    "no connection left for a user P": (
        "no_connection_left",
        True,
        p("53300", 'FATAL: too many connections for role "one"'),
        "too many connections for role",
    ),
    "no TLS on the server C": (
        "tls_refused",
        False,
        (*c(NON_TRANSIENT, "08001", 0, NO_TLS), plain("com.mysql.cj.exceptions.UnableToConnectException", NO_TLS)),
        NO_TLS,
    ),
    "no TLS on the server P": (
        "tls_refused",
        False,
        p("08004", "The server does not support SSL."),
        "The server does not support SSL.",
    ),
    "TLS demanded by the server P": ("tls_refused", False, p("28000", HBA), HBA),
    "address not admitted P": ("address_refused", False, p("28000", REJECTED), REJECTED),
    "certificate of another CA M": (
        "certificate_refused",
        False,
        m_login(NON_TRANSIENT, "08000", -1, f"Could not connect to 127.0.0.1:1 : {PATH}", plain(TLS, PATH)),
        PATH,
    ),
    "certificate of another CA C": (
        "certificate_refused",
        False,
        (
            *c_link(TLS, f"java.security.cert.CertPathValidatorException: {NO_CHAIN}"),
            plain("java.security.cert.CertPathValidatorException", NO_CHAIN),
        ),
        NO_CHAIN,
    ),
    "certificate of another CA P": (
        "certificate_refused",
        False,
        p("08006", f"SSL error: {PATH}", plain(TLS, PATH), plain(PATH_ERROR, PATH)),
        PATH,
    ),
    "certificate for another host M": (
        "certificate_refused",
        False,
        m_login(NON_TRANSIENT, "08000", -1, f"Could not connect to db:1 : {OTHER_HOST}", plain(TLS, OTHER_HOST)),
        OTHER_HOST,
    ),
    "no TLS on the server M": (
        "tls_refused",
        False,
        m_login(NON_TRANSIENT, "08000", -1, "Trying to connect with ssl, but ssl not enabled in the server"),
        "ssl not enabled",
    ),
    "TLS of another version M": (
        "tls_refused",
        False,
        m_login(NON_TRANSIENT, "08000", -1, f"Could not connect to 127.0.0.1:1 : {VERSION}", plain(TLS, VERSION)),
        VERSION,
    ),
    "TLS of another version C": ("tls_refused", False, c_link(TLS, VERSION), VERSION),
    "TLS of another version P": (
        "tls_refused",
        False,
        p("08006", f"SSL error: {VERSION}", plain(TLS, VERSION)),
        VERSION,
    ),
    "TLS demanded by the server M": (
        "tls_refused",
        False,
        m_login(NON_TRANSIENT, "08004", 3159, "Connections using insecure transport are prohibited"),
        "insecure transport",
    ),
    "TLS demanded by the server C": (
        "tls_refused",
        False,
        c("SQLException", "HY000", 3159, "Connections using insecure transport are prohibited"),
        "insecure transport",
    ),
    "address not admitted M": ("address_refused", False, m_greeting(NOT_ALLOWED), NOT_ALLOWED),
    "address not admitted C": ("address_refused", False, c("SQLException", "HY000", 1130, NOT_ALLOWED), NOT_ALLOWED),
    "address blocked M": ("address_refused", False, m_greeting(BLOCKED), BLOCKED),
    "address blocked C": ("address_refused", False, c("SQLException", "HY000", 1129, BLOCKED), BLOCKED),
    "method without a key M": (
        "authentication_unsupported",
        False,
        m_login("SQLException", "S1009", -1, NO_KEY),
        NO_KEY,
    ),
    "method without a key C": (
        "authentication_unsupported",
        False,
        (*c(NON_TRANSIENT, "08001", 0, "Public Key Retrieval is not allowed"),),
        "Public Key Retrieval",
    ),
    "method that the driver lacks C": (
        "authentication_unsupported",
        False,
        c("SQLException", "08004", 2059, "Authentication plugin 'client_ed25519' cannot be loaded"),
        "client_ed25519",
    ),
    "a start P": (
        "database_failed",
        True,
        p("57P03", "FATAL: the database system is starting up"),
        "starting up",
    ),
    "an end P": (
        "database_failed",
        True,
        p("57P03", "FATAL: the database system is shutting down"),
        "shutting down",
    ),
    "no driver class M": (
        "driver_missing",
        False,
        (plain("java.lang.ClassNotFoundException", "org.mariadb.jdbc.Driver"),),
    ),
    "no driver registered M": (
        "driver_missing",
        False,
        (
            plain(
                "java.lang.IllegalStateException", "Did not find registered driver with class org.mariadb.jdbc.Driver"
            ),
        ),
    ),
    "URL of no driver M": ("driver_refuses_url", False, (sql("SQLException", "08001", 0, "No suitable driver"),)),
    "URL that the driver leaves M": (
        "driver_refuses_url",
        False,
        (
            plain(
                "java.lang.IllegalArgumentException", "requirement failed: The driver could not open a JDBC connection."
            ),
        ),
    ),
}
STATEMENTS = {
    "no table M": ("table_missing", False, m_statement(SYNTAX, "42S02", 1146, NO_TABLE)),
    "no table C": ("table_missing", False, c(SYNTAX, "42S02", 1146, NO_TABLE)),
    "no table P": ("table_missing", False, p("42P01", 'ERROR: relation "nope" does not exist   Position: 15')),
    "table of others M": ("table_missing", False, m_statement(SYNTAX, "42000", 1142, TABLE_DENIED)),
    "table of others C": ("table_missing", False, c(SYNTAX, "42000", 1142, TABLE_DENIED)),
    "table of others P": ("table_missing", False, p("42501", "ERROR: permission denied for table t")),
    "column of others M": ("table_missing", False, m_statement(SYNTAX, "42000", 1143, COLUMN_DENIED)),
    "column of others C": ("table_missing", False, c(SYNTAX, "42000", 1143, COLUMN_DENIED)),
    "schema of others P": ("table_missing", False, p("42501", "ERROR: permission denied for schema s")),
    "syntax M": (
        "database_failed",
        False,
        m_statement(SYNTAX, "42000", 1064, "You have an error"),
        "You have an error",
    ),
    "syntax C": ("database_failed", False, c(SYNTAX, "42000", 1064, "You have an error in your"), "You have an error"),
    "syntax P": ("database_failed", False, p("42601", 'ERROR: syntax error at or near "selec"'), "syntax error"),
    "plan M": ("database_failed", False, m_statement(TRANSIENT_LINK, "HY000", 1345, EXPLAIN), EXPLAIN),
    "plan C": ("database_failed", False, c("SQLException", "HY000", 1345, EXPLAIN), EXPLAIN),
    "crashed table M": ("database_failed", False, m_statement("SQLException", "HY000", 145, CRASHED), CRASHED),
    "lock M": ("database_failed", True, m_statement(TRANSIENT_LINK, "HY000", 1205, LOCK_WAIT), LOCK_WAIT),
    "lock C": ("database_failed", True, c(ROLLBACK_C, "40001", 1205, LOCK_WAIT), LOCK_WAIT),
    "lock P": ("database_failed", True, p("55P03", "ERROR: canceling statement due to lock timeout"), "lock timeout"),
    "deadlock M": (
        "database_failed",
        True,
        m_statement("SQLTransactionRollbackException", "40001", 1213, DEADLOCK),
        DEADLOCK,
    ),
    "deadlock C": ("database_failed", True, c(ROLLBACK_C, "40001", 1213, DEADLOCK), DEADLOCK),
    "deadlock P": ("database_failed", True, p("40P01", "ERROR: deadlock detected"), "deadlock detected"),
    "replica P": ("database_failed", True, p("40001", "ERROR: canceling statement due to conflict with"), "conflict"),
    "time is up M": ("database_failed", True, c("SQLTimeoutException", "70100", 1969, INTERRUPTED), INTERRUPTED),
    "time is up C": ("database_failed", True, c(KILLED_C, "70100", 1969, INTERRUPTED), INTERRUPTED),
    "time is up P": ("database_failed", True, p("57014", "canceling statement due to statement timeout"), "timeout"),
    "KILL QUERY M": ("database_failed", True, c("SQLTimeoutException", "70100", 1317, INTERRUPTED), INTERRUPTED),
    "KILL QUERY C": ("database_failed", True, c(KILLED_C, "70100", 1317, INTERRUPTED), INTERRUPTED),
    "pg_cancel_backend P": (
        "database_failed",
        True,
        p("57014", "ERROR: canceling statement due to user"),
        "due to user",
    ),
    "KILL M": (
        "database_failed",
        True,
        m_statement(NON_TRANSIENT, "08000", 0, LOST, sql(NON_TRANSIENT, "08000", 0, LOST), plain(EOF, LOST)),
        LOST,
    ),
    "KILL C": ("database_failed", True, c_link(EOF, UNREAD), LINK),
    "pg_terminate_backend P": ("database_failed", True, p("57P01", ENDED), ENDED),
    "torn answer M": ("database_failed", True, (sql(NON_TRANSIENT, "08000", -1, CLOSED), plain(RESET)), CLOSED),
    "torn answer C": ("database_failed", True, (sql("SQLException", "S1000", 0, "reset"), plain(RESET)), "reset"),
    "torn answer P": ("database_failed", True, p("08006", IO, plain(RESET, "Connection reset")), IO),
    "closed answer C": ("database_failed", True, (sql("SQLException", "S1000", 0, UNREAD), plain(EOF)), UNREAD),
    "closed answer P": ("database_failed", True, p("08006", IO, plain(EOF)), IO),
    "no answer M": (
        "database_failed",
        True,
        m_statement(
            NON_TRANSIENT, "08000", 0, "Connection timed out", sql(NON_TRANSIENT, "08000", 0, "Read timed out")
        ),
        "Read timed out",
    ),
    "no answer C": (
        "database_failed",
        True,
        (sql("SQLException", "S1000", 0, "timed out"), plain(TIMEOUT)),
        "timed out",
    ),
    "no answer P": ("database_failed", True, p("08006", IO, plain(TIMEOUT, "Read timed out")), IO),
    "idle P": (
        "database_failed",
        True,
        p("25P03", "terminating connection due to idle-in-transaction timeout"),
        "idle",
    ),
    "too large M": (
        "database_failed",
        False,
        m_statement(
            TRANSIENT_LINK,
            "HY000",
            0,
            TOO_LARGE,
            sql(TRANSIENT_LINK, "HY000", 0, TOO_LARGE),
            plain("org.mariadb.jdbc.internal.util.exceptions.MaxAllowedPacketException", "query size (17000018)"),
        ),
        TOO_LARGE,
    ),
    "too large C": ("database_failed", False, c(PACKET_C, "S1000", 0, "Packet for query is too large"), "too large"),
    "write M": ("database_failed", False, m_statement(UNAUTHORIZED, "25006", 1792, READ_ONLY), READ_ONLY),
    "write C": ("database_failed", False, c("SQLException", "25006", 1792, READ_ONLY), READ_ONLY),
    "write P": ("database_failed", False, p("25006", "cannot execute DELETE in a read-only transaction"), "DELETE"),
    "a server behind the server P": ("database_failed", False, p("08001", REMOTE), REMOTE),
}
CASES = {
    **{f"login, {name}": (True, *case) for name, case in CONNECTING.items()},
    **{f"statement, {name}": (False, *case) for name, case in STATEMENTS.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_failures_have_the_same_names_whichever_driver_tells(case):
    connecting, code, transient, chain, *problem = CASES[case]
    database = DATABASES[case[-1]]
    error = table_error(chain, database, connecting=connecting)
    assert (error.code, type(error)) == (code, TransientTableError if transient else TableError)
    assert [text for text in problem if text not in str(error.details["problem"])] == []
    assert problem or code != "database_failed"
    details = {
        "login_refused": {"host": database.host, "user": "etl", "secret": "s"},
        "table_missing": {"table": "demo.public.t" if case[-1] == "P" else "demo.t", "user": "etl", "near": ""},
        "database_unreachable": {"host": database.host},
        "driver_missing": {"driver": database.driver},
        "driver_refuses_url": {"driver": database.driver, "url": "jdbc:mysql://db:3306/demo"},
    }
    assert details.get(code, error.details) == error.details
    for language in ("en", "ja"):
        assert PASSWORD not in "".join(error.message(language))


@pytest.mark.parametrize("case", CASES)
def test_what_spark_wraps_around_a_failure_does_not_hide_it(case):
    """An executor's exception comes as the cause of one of Spark's, whose text quotes the trace."""
    connecting, code, transient, chain, *_ = CASES[case]
    text = f"Job aborted due to stage failure: Task 0 failed 4 times: {chain[0].type}: {chain[0].text}\n\tat x"
    wrapped = [plain("org.apache.spark.SparkException", text), *chain]
    error = table_error(wrapped, DATABASES[case[-1]], connecting=connecting)
    assert (error.code, type(error)) == (code, TransientTableError if transient else TableError)


def test_a_lost_connection_that_the_driver_of_mariadb_stumbles_over_is_one():
    """Within `Connection.ask`, before a result set is there."""
    text = 'Cannot invoke "java.util.Deque.peekFirst()" because "this.executionResults" is null'
    for frame in ("org.mariadb.jdbc.internal.com.read.dao.Results", "org.mariadb.jdbc.MariaDbStatement"):
        error = table_error([plain("java.lang.NullPointerException", text, frame)], DATABASES["M"])
        assert type(error) is TransientTableError
        assert error.code == "database_failed"
        assert isinstance(error.details["problem"], Phrase)
        assert "the connection was lost, or timed out" in str(error)
    assert table_error([plain("java.lang.NullPointerException", text, "org.apache.spark.X")], DATABASES["M"]) is None


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [
            plain("org.apache.spark.SparkException", "Job aborted"),
            plain("java.lang.OutOfMemoryError", "Java heap space"),
        ],
        [plain("java.io.IOException", "No space left on device")],
        [plain(RESET, "Connection reset")],  # between Spark and its workers, as no SQL was in it
    ],
)
def test_failures_of_spark_itself_are_not_blamed_on_the_database(chain):
    assert table_error(chain, DATABASES["M"]) is None


def test_unknown_failures_keep_the_databases_words():
    chain = [plain("x.Boom", "boom"), sql("SQLException", "HY000", 1030, "Got error 175 from storage engine Aria")]
    error = table_error(chain, DATABASES["M"])
    assert type(error) is TableError
    assert error.details["problem"] == "Got error 175 from storage engine Aria"


def test_words_of_any_length_are_told_in_part():
    error = table_error([sql("SQLException", "HY000", 1030, " " + "x" * 1_000)], DATABASES["M"])
    assert error.details["problem"] == "x" * 500


TRANSIENT = TransientTableError("database_unreachable", host="db")


@pytest.fixture
def clock(monkeypatch):
    """Time that only `retried` sees, and that passes while it sleeps: [now, *sleeps]."""
    times = [0.0]

    def sleep(seconds: float) -> None:
        times[0] += seconds
        times.append(seconds)

    monkeypatch.setattr(jdbc, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: times[0]))
    return times


def test_what_a_database_may_get_over_is_tried_again_after_each_wait(clock, caplog):
    answers = [TRANSIENT, TRANSIENT, 7]

    def do() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level("WARNING"):
        assert retried(do, (1, 4, 9), 600) == 7
    assert clock[1:] == [1, 4]
    assert [line.split(" It is")[1] for line in caplog.messages] == [" tried again in 1 s.", " tried again in 4 s."]


def test_what_it_would_never_get_over_is_not(clock):
    errors = [TRANSIENT, TableError("login_refused", host="db", user="etl", secret="s")]

    def do() -> None:
        raise errors.pop(0)

    with pytest.raises(TableError) as caught:
        retried(do, (1, 4), 600)
    assert caught.value.code == "login_refused"
    assert clock[1:] == [1]


@pytest.mark.parametrize(
    ("waits", "patience", "tries"), [((1, 4), 600, [0, 1, 5]), ((5, 30, 90), 20, [0, 5, 35]), ((), 600, [0])]
)
def test_after_the_last_wait_or_at_the_end_of_patience_the_failure_is_raised(clock, waits, patience, tries):
    times = []

    def do() -> None:
        times.append(clock[0])
        raise TRANSIENT

    with pytest.raises(TransientTableError):
        retried(do, waits, patience)
    assert times == tries
