"""The driver's own JDBC connections: SQL in, rows as text or as Arrow batches out, failures as JobErrors.

The only module that knows py4j, and, but for how `engines.spark` ends its jobs, the internals of Spark (read from Spark
3.5.4, 3.5.6 and 4.1.1: Glue 5.0, 5.1 and 6.0). They are used because no Spark job has to be planned for a table that
one process can read. Where a call is missing, `database_errors` says so.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self, TypeVar

import pyarrow as pa
from py4j.java_gateway import is_instance_of
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext, __version__, rdd
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.serializers import NoOpSerializer

from overlay.connection import Database
from overlay.dialects.base import Failure
from overlay.errors import JobError, TableError, TransientTableError, Verbatim, phrase

LOG = logging.getLogger(__name__)
T = TypeVar("T")
ARROW_ROWS = 5_000  # of a batch: more is no faster (measured with 2 M rows of 12 columns)
SPARK_TYPES = {pa.int64(): "LongType", pa.string(): "StringType", pa.binary(): "BinaryType"}
_HANDSHAKE = {"javax.net.ssl.SSLHandshakeException", "javax.net.ssl.SSLProtocolException"}
MAX_CAUSES = 20  # of a chain of exceptions, which might be a ring

# What has no SQLSTATE: Spark's and java.sql.DriverManager's own words, Java's of a chain that ends at no known CA or
# has expired, Connector/J's of a certificate for another host.
_NO_DRIVER = re.compile("ClassNotFoundException|did not specify a JDBC driver|Did not find registered driver")
_URL_REFUSED = re.compile("No suitable driver|The driver could not open a JDBC connection")
_CERTIFICATE = re.compile(
    r"(PKIX path [^\n]+|Path does not chain [^\n]+|\w+ host \"[^\"\n]+\" doesn't correspond to certificate [^\n]+)"
)
_QUOTED = re.compile("`([^`]+)`")
# What py4j and Python say of a method, a class or a function that there is not.
_MISSING = re.compile(r"Py4JException: .+ does not exist|'JavaPackage'.+ not callable|module 'pyspark.+ has no .+'")
_NETWORK = {
    *("UnknownHostException", "ConnectException", "NoRouteToHostException", "SocketTimeoutException"),
    *("SocketException", "EOFException"),
}


class Cause(NamedTuple):
    """One exception of a chain, the outermost first.

    Attributes:
        type: The class, with its package.
        state, code: SQLSTATE and vendor code of a java.sql.SQLException; empty and 0 of others.
        text: Its message.
        frame: The class of the method that threw it.
    """

    type: str
    text: str
    state: str = ""
    code: int = 0
    frame: str = ""
    of_sql: bool = False


def java() -> Any:
    """The JVM beside this process, where Spark's classes and the drivers are.

    A run whose engine is the driver starts no session in it: that takes seconds, and nothing here needs one.
    """
    SparkContext._ensure_initialized()
    return SparkContext._jvm


class Connection:
    """One connection of the driver, read only.

    Left by an exception it is aborted, as closing waits for the server, which may be what broke.

    Raises:
        TableError: login, network, driver or a statement failed.
    """

    def __init__(self, database: Database) -> None:
        self.database, self.dialect = database, database.dialect
        self._jvm, self._is_spark_4 = java(), __version__.startswith("4.")
        jdbc = self._jvm.org.apache.spark.sql.execution.datasources.jdbc
        options = {"url": database.url, "dbtable": "-", **database.options}
        with database_errors(database, connecting=True):
            self._spark_dialect = self._jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(database.url)
            parsed = jdbc.JDBCOptions(self._jvm.PythonUtils.toScalaMap(options))
            self._connection = self._spark_dialect.createConnectionFactory(parsed).apply(-1)
        try:
            self.ask(database.options["sessionInitStatement"])
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the connection at once, whatever it is waiting for; may be called by another thread."""
        with suppress(Exception):
            self._connection.abort(self._jvm.java.util.concurrent.ForkJoinPool.commonPool())

    def _statement(self) -> Any:
        statement = self._connection.createStatement()
        statement.setEscapeProcessing(False)  # `{fn now()}` may be the name of a column
        return statement

    @property
    def driver(self) -> str:
        """Name and version of the driver, as it gives them itself: `MariaDB Connector/J 2.7.6`."""
        about = self._connection.getMetaData()
        return f"{about.getDriverName()} {about.getDriverVersion()}"

    def ask(self, sql: str) -> list[dict[str, str | None]]:
        """The rows of a small answer, by the labels of its columns: each cell is a call of the JVM of 0.1 ms."""
        with database_errors(self.database):
            statement = self._statement()
            if not statement.execute(sql):
                statement.close()
                return []
            answer = statement.getResultSet()
            about = answer.getMetaData()
            labels = [about.getColumnLabel(number + 1) for number in range(about.getColumnCount())]
            rows = []
            while answer.next():
                rows.append({label: answer.getString(number) for number, label in enumerate(labels, 1)})
            statement.close()
            return rows

    def ask_number(self, sql: str) -> int:
        """The only cell of an answer; 0 where it is NULL."""
        [[number]] = [row.values() for row in self.ask(sql)]
        return int(number or 0)

    def batches(self, sql: str, schema: pa.Schema, fetch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of an answer of any size as Arrow batches, while the server still sends.

        The JVM reads rows, makes Arrow batches and writes them to a local socket in a thread of its own; nothing is
        held but a batch and what the driver fetches at a time.

        Args:
            sql: A query.
            schema: The columns of the answer, each int64, string or binary.
            fetch_rows: How many rows the driver holds.
        """
        spark = self._jvm.org.apache.spark
        with database_errors(self.database):
            self._connection.setAutoCommit(False)  # or the driver of PostgreSQL loads the whole answer
            statement = self._statement()
            statement.setFetchSize(fetch_rows)
            answer = statement.executeQuery(sql)
            # Not `fromDDL`: its parser takes a cold JVM 0.13 s.
            types = spark.sql.types.StructType()
            for number, kind in enumerate(schema.types):
                types = types.add(f"c{number}", getattr(spark.sql.types.DataTypes, SPARK_TYPES[kind]))
            metrics = _scala_object(spark.executor, "TaskMetrics").empty().inputMetrics()
            utilities = _scala_object(spark.sql.execution.datasources.jdbc, "JdbcUtils")
            # Spark 4 can also time the fetching, and make texts whose lengths have 64 bits.
            timing = [getattr(utilities, "resultSetToSparkInternalRows$default$5")()] if self._is_spark_4 else []
            large_texts = [False] if self._is_spark_4 else []
            rows = utilities.resultSetToSparkInternalRows(answer, self._spark_dialect, types, metrics, *timing)
            converter = _scala_object(spark.sql.execution.arrow, "ArrowConverters")
            size = min(fetch_rows, ARROW_ROWS)
            arrow = converter.toBatchIterator(rows, types, size, "UTC", False, *large_texts, None)
            port, password, server = _scala_object(spark.api.python, "PythonRDD").serveIterator(arrow, "table")
            for data in rdd._load_from_socket((port, password), NoOpSerializer()):
                yield pa.ipc.read_record_batch(pa.py_buffer(data), schema)
            server.getResult()  # raises what ended the thread before the answer did
            statement.close()


def _scala_object(package: Any, name: str) -> Any:
    # These have no static forwarders, so the object itself is taken.
    return getattr(getattr(package, f"{name}$"), "MODULE$")


@contextmanager
def database_errors(database: Database, *, connecting: bool = False) -> Iterator[None]:
    """Turns what the database and its driver throw, and calls that this Spark lacks, into a TableError.

    Other failures of Spark go on as they are.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if missing := _MISSING.search(str(error.args)):
            raise TableError("spark_unsupported", problem=Verbatim(missing.group())) from error
        failure = table_error(causes(error), database, connecting=connecting)
        if failure is None:
            raise
        raise failure from error


def causes(error: BaseException) -> list[Cause]:
    """The chain of Java exceptions behind one of Python, the outermost first; empty where there is none."""
    java: Any = None
    if isinstance(error, Py4JJavaError):
        java = error.java_exception
    elif isinstance(error, CapturedException):
        java = error._origin
    chain: list[Cause] = []
    while java is not None and len(chain) < MAX_CAUSES:
        chain.append(_cause(java))
        java = java.getCause()
    return chain


def _cause(java: Any) -> Cause:
    name, text = java.getClass().getName(), java.getMessage() or ""
    frames = java.getStackTrace()
    frame = frames[0].getClassName() if len(frames) else ""
    if is_instance_of(SparkContext._gateway, java, "java.sql.SQLException"):
        return Cause(name, text, java.getSQLState() or "", java.getErrorCode(), frame, of_sql=True)
    return Cause(name, text, frame=frame)


def table_error(chain: Sequence[Cause], database: Database, *, connecting: bool = False) -> TableError | None:
    """The TableError that a chain of exceptions stands for, or None where no database had a part in it.

    By SQLSTATE and vendor code (`Dialect.failure`); by words only where there is no code.
    """
    host = Verbatim(database.host)
    if failure := _setup_error(chain, database):
        return failure
    of_sql = [cause for cause in chain if cause.of_sql]
    meaning_of = database.dialect.failure
    meanings = ((meaning_of(cause.state, cause.code, cause.text), cause.text) for cause in reversed(of_sql))
    meaning, text = next((pair for pair in meanings if pair[0]), (None, ""))
    network = {cause.type.rpartition(".")[2] for cause in chain} & _NETWORK
    if connecting and network and meaning in {None, Failure.UNREACHABLE, Failure.TRANSIENT}:
        # Which driver says so how, and with which SQLSTATE, differs; that nobody spoke to us does not.
        permanent = "UnknownHostException" in network
        return (TableError if permanent else TransientTableError)("database_unreachable", host=host)
    if meaning:
        return _sql_error(meaning, text, database)
    if any("NullPointer" in cause.type and cause.frame.startswith("org.mariadb.jdbc.") for cause in chain):
        # What MariaDB Connector/J 2.7 makes of a connection that is lost, or timed out, before a result set is there.
        return TransientTableError("database_failed", host=host, problem=phrase("connection_lost"))
    if not of_sql:
        return None
    # MySQL Connector/J gives a connection that is lost inside a result set the state of any failure, S1000.
    return _sql_error(Failure.TRANSIENT if network else Failure.FAILED, of_sql[-1].text, database)


def _setup_error(chain: Sequence[Cause], database: Database) -> TableError | None:
    """What is wrong before a server is asked: driver class, URL, certificate."""
    driver, texts = Verbatim(database.driver), "\n".join(f"{cause.type}: {cause.text}" for cause in chain)
    if _NO_DRIVER.search(texts):
        return TableError("driver_missing", driver=driver)
    if _URL_REFUSED.search(texts):
        return TableError("driver_refuses_url", driver=driver, url=Verbatim(database.url.partition("?")[0]))
    if refusal := _CERTIFICATE.search(texts):  # which Connector/J tells as not being able to connect
        host, problem = Verbatim(database.host), Verbatim(refusal.group()[:300])
        return TableError("certificate_refused", host=host, url=Verbatim(database.ca_uri), problem=problem)
    handshakes = [cause for cause in chain if cause.type in _HANDSHAKE]
    if handshakes and not {cause.type.rpartition(".")[2] for cause in chain} & _NETWORK:
        return _sql_error(Failure.TLS_REFUSED, handshakes[-1].text, database)
    return None


def _sql_error(meaning: Failure, text: str, database: Database) -> TableError:
    host, user, secret = Verbatim(database.host), Verbatim(database.secret.username), Verbatim(database.secret.name)
    problem = Verbatim(text.strip()[:500])
    table = Verbatim(database.dialect.readable(database.table))
    [*_, column] = _QUOTED.findall(text) or [problem]
    errors: dict[Failure, TableError] = {
        Failure.LOGIN_REFUSED: TableError("login_refused", host=host, user=user, secret=secret),
        Failure.ACCOUNT_REFUSED: TableError("account_refused", host=host, user=user, problem=problem),
        Failure.ADDRESS_REFUSED: TableError("address_refused", host=host, problem=problem),
        Failure.TLS_REFUSED: TableError("tls_refused", host=host, problem=problem),
        Failure.AUTHENTICATION_UNSUPPORTED: TableError("authentication_unsupported", host=host, problem=problem),
        Failure.NO_CONNECTION_LEFT: TransientTableError("no_connection_left", host=host, problem=problem),
        Failure.TABLE_REFUSED: TableError("table_missing", table=table, user=user, near=Verbatim("")),
        Failure.VALUE_TOO_LARGE: TableError("value_too_large", table=table, column=Verbatim(column)),
        Failure.TRANSIENT: TransientTableError("database_failed", host=host, problem=problem),
    }
    return errors.get(meaning) or TableError("database_failed", host=host, problem=problem)


def heap_bytes() -> int:
    """The bytes that the heap of the driver's JVM may take."""
    return int(java().java.lang.Runtime.getRuntime().maxMemory())


def retried(do: Callable[[], T], waits: Sequence[float], patience_seconds: float) -> T:
    """What `do` returns, which is tried again after each of `waits` (seconds) while the database may get over it.

    Raises:
        TableError: the database did not get over it, or never would (a refused login).
    """
    until = math.inf
    for wait in waits:
        try:
            return do()
        except TransientTableError as error:
            if time.monotonic() > until:
                raise
            until = min(until, time.monotonic() + patience_seconds)
            LOG.warning("%s It is tried again in %g s.", error, wait)
        time.sleep(wait)
    return do()
