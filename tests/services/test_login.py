"""What servers answer to a login, told by its own cause in the server's words, by each driver; tried again or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from local.services.databases import MariaDB, PostgreSQL
from overlay.errors import TableError, TransientTableError
from overlay.table.jdbc import Connection
from tests.conftest import CONNECTOR_J, NUMBERS, Pipeline

PASSWORD = "l0gin-p4ss"


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    """A server whose settings the tests change."""
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="module")
def without_tls() -> Iterator[MariaDB]:
    """A server that has no TLS."""
    with MariaDB(["--skip-ssl"]) as server:
        yield server


@pytest.fixture(params=["", CONNECTOR_J], ids=["mariadb", "connector_j"])
def on(request: pytest.FixtureRequest, make_pipeline: Callable[..., Pipeline]) -> Callable[..., Pipeline]:
    """Makes a pipeline on a server of MariaDB by each driver."""
    return lambda server: make_pipeline("", server, request.param)


@pytest.fixture
def user(mariadb: MariaDB) -> str:
    """A user of the server."""
    name = f"user{next(NUMBERS)}"
    execute(mariadb, f"CREATE USER {name} IDENTIFIED BY '{PASSWORD}'", f"GRANT SELECT ON demo.* TO {name}")
    return name


def execute(server: MariaDB | PostgreSQL, *statements: str) -> None:
    """Runs SQL as the owner of the database."""
    with server.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def refusal(pipeline: Pipeline, user: str = "", **properties: str) -> TableError:
    """The error of the first question of a user, by further properties of the Glue connection."""
    login = {"username": user, "password": PASSWORD} if user else {}
    original = pipeline.properties

    def changed(port: int = 0) -> dict[str, str]:
        return original(port) | properties

    pipeline.properties = changed  # type: ignore[method-assign]
    with pytest.raises(TableError) as caught, Connection(pipeline.target(**login)) as connection:
        connection.ask("SELECT 1")  # some drivers ask nothing before
    error = caught.value
    assert PASSWORD not in "".join(error.message("en") + error.message("ja"))
    return error


def told(error: TableError) -> tuple[str, bool]:
    """The code, and whether it is tried again."""
    return error.code, isinstance(error, TransientTableError)


def test_a_locked_account(on, mariadb, user):
    execute(mariadb, f"ALTER USER {user} ACCOUNT LOCK")
    error = refusal(on(mariadb), user)
    assert told(error) == ("account_refused", False)
    assert "account is locked" in str(error)


@pytest.mark.parametrize(("disconnects", "words"), [("OFF", "must SET PASSWORD"), ("ON", "password has expired")])
def test_an_expired_password(on, mariadb, user, disconnects, words):
    execute(mariadb, f"SET GLOBAL disconnect_on_expired_password = {disconnects}")
    execute(mariadb, f"ALTER USER {user} PASSWORD EXPIRE")
    error = refusal(on(mariadb), user)
    assert told(error) == ("account_refused", False)
    assert words in str(error) or "must change it" in str(error)


def test_no_connection_left_for_a_user(on, mariadb, user):
    execute(mariadb, f"GRANT USAGE ON *.* TO {user} WITH MAX_USER_CONNECTIONS 1")
    with mariadb.connect(user=user, password=PASSWORD):
        error = refusal(on(mariadb), user)
    assert told(error) == ("no_connection_left", True)
    assert "exceeded the 'max_user_connections' resource" in str(error)


def test_no_connection_left_on_the_server(on, mariadb, user):
    pipeline = on(mariadb)
    with ExitStack() as stack, mariadb.connect(autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL max_connections = 10")
        for _ in range(9):
            stack.enter_context(mariadb.connect())
        try:
            error = refusal(pipeline, user)
        finally:
            cursor.execute("SET GLOBAL max_connections = 151")
    assert told(error) == ("no_connection_left", True)
    assert "Too many connections" in str(error)


def test_a_server_without_tls(on, without_tls):
    """`enforce_ssl` is true unless the entry says otherwise."""
    error = refusal(on(without_tls), JDBC_ENFORCE_SSL="true")
    assert told(error) == ("tls_refused", False)
    assert "ssl" in str(error).lower()


def test_a_server_that_demands_tls(make_pipeline, mariadb, user):
    """MariaDB tells it as a wrong password, so the hint names both. The other drivers encrypt where the server can."""
    pipeline = make_pipeline("", mariadb)
    execute(mariadb, "SET GLOBAL require_secure_transport = ON")
    try:
        error = refusal(pipeline, user)
    finally:
        with mariadb.connect(ssl={"verify_mode": None, "check_hostname": False}, autocommit=True) as connection:
            connection.cursor().execute("SET GLOBAL require_secure_transport = OFF")
    assert told(error) == ("login_refused", False)
    assert "Database.enforce_ssl" in str(error)


def test_an_address_that_is_not_admitted(on):
    """The server says so in place of its greeting."""
    with MariaDB() as server:
        pipeline = on(server)
        execute(server, "DELETE FROM mysql.global_priv", "FLUSH PRIVILEGES")
        error = refusal(pipeline)
    assert told(error) == ("address_refused", False)
    assert "is not allowed to connect to this MariaDB server" in str(error)


@pytest.mark.parametrize(
    ("driver", "parameter"), [("", "&enabledSslProtocolSuites=TLSv1.2"), (CONNECTOR_J, "?tlsVersions=TLSv1.2")]
)
def test_no_version_of_tls_in_common(make_pipeline, driver, parameter):
    with MariaDB(["--tls-version=TLSv1.3"]) as server:
        pipeline = make_pipeline("", server, driver)
        url = pipeline.properties()["JDBC_CONNECTION_URL"] + parameter
        error = refusal(pipeline, JDBC_CONNECTION_URL=url, JDBC_ENFORCE_SSL="true")
    assert told(error) == ("tls_refused", False)
    assert "protocol_version" in str(error)


def test_a_method_that_the_driver_lacks(make_pipeline, mariadb):
    """Connector/J of MySQL has no ed25519."""
    user = f"user{next(NUMBERS)}"
    execute(mariadb, "INSTALL SONAME 'auth_ed25519'")
    execute(mariadb, f"CREATE USER {user} IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}')")
    error = refusal(make_pipeline("", mariadb, CONNECTOR_J), user)
    assert told(error) == ("authentication_unsupported", False)
    assert "ed25519" in str(error)


def test_a_wrong_password(on, mariadb, user):
    execute(mariadb, f"ALTER USER {user} IDENTIFIED BY 'another'")
    assert told(refusal(on(mariadb), user)) == ("login_refused", False)


def test_nobody_listens(on, mariadb):
    pipeline = on(mariadb)
    url = pipeline.properties(1)["JDBC_CONNECTION_URL"]
    assert told(refusal(pipeline, JDBC_CONNECTION_URL=url)) == ("database_unreachable", True)


@contextmanager
def first_rule(server: PostgreSQL, rule: str) -> Iterator[None]:
    """Puts a line before those of pg_hba.conf."""
    with server.connect(autocommit=True) as connection:
        path = Path(connection.execute("SHOW hba_file").fetchone()[0])
        before = path.read_text()
        path.write_text(f"{rule}\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            path.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def role(postgresql: PostgreSQL) -> str:
    """A role of PostgreSQL that may log in."""
    name = f"login{next(NUMBERS)}"
    execute(postgresql, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    return name


def test_no_connection_left_for_a_role(make_pipeline, postgresql, role):
    execute(postgresql, f"ALTER ROLE {role} CONNECTION LIMIT 0")
    error = refusal(make_pipeline("", postgresql), role)
    assert told(error) == ("no_connection_left", True)
    assert "too many connections for role" in str(error)


@pytest.mark.parametrize("tls", ["false", "true"])
def test_a_rejected_role(make_pipeline, postgresql, role, tls):
    """Its driver encrypts where the server can, so that TLS is never what lacks."""
    with first_rule(postgresql, f"host all {role} all reject"):
        error = refusal(make_pipeline("", postgresql), role, JDBC_ENFORCE_SSL=tls)
    assert told(error) == ("address_refused", False)
    assert "pg_hba.conf rejects connection" in str(error)


def test_a_postgresql_that_asks_for_what_the_driver_lacks(make_pipeline, postgresql, role):
    with first_rule(postgresql, f"host all {role} all ident"):
        error = refusal(make_pipeline("", postgresql), role)
    assert told(error) == ("login_refused", False)
