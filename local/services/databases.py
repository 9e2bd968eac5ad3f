"""Debian's MariaDB and PostgreSQL, each a server of its own on loopback for the length of a `with` block."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
import pymysql

from local.services.certificates import CERTIFIED, make_certificates
from local.services.processes import LOOPBACK, ServiceError, free_port, program, start_process, stop_process

START_SECONDS = 60


class DatabaseServer:
    """A server of its own for the length of a block.

    Attributes:
        host, port: Where it listens.
        user, password: An account that may do everything.
        database: An empty database.
    """

    def __init__(self) -> None:
        self.host = LOOPBACK
        self.port = 0
        self.user = "etl"
        self.password = secrets.token_urlsafe(12)
        self.database = "demo"

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        raise NotImplementedError


class MariaDB(DatabaseServer):
    """Debian's MariaDB server on a data directory of its own.

    Args:
        server_options: Further options of mariadbd.
        names: What its certificate is for.

    Attributes:
        database: An empty database, utf8mb4.
        ca: The CA that signed its certificate, as PEM.
    """

    driver = "org.mariadb.jdbc.Driver"

    def __init__(self, server_options: Sequence[str] = (), names: str = CERTIFIED) -> None:
        super().__init__()
        self.ca = ""
        self._options = list(server_options)
        self._names = names

    @property
    def jdbc_url(self) -> str:
        """What Terraform puts into the Glue connection."""
        return f"jdbc:mysql://{self.host}:{self.port}/{self.database}?permitMysqlScheme"

    def connect(self, **options: Any) -> pymysql.Connection[Any]:
        """A client connection to the database."""
        target = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        # To load the system's certificates for TLS takes 50 ms a connection.
        options.setdefault("ssl_disabled", "ssl" not in options)
        return pymysql.connect(**{**target, "database": self.database, "charset": "utf8mb4", **options})

    def restart(self, pause: float) -> None:
        """Stops the server, which ends all connections, and starts it again after `pause` seconds."""
        stop_process(self._process)
        time.sleep(pause)
        self._launch()

    def _start(self) -> None:
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mariadb-")))
        server = program("mariadbd", "mariadb-server")
        install = program("mariadb-install-db", "mariadb-server")
        # Not /tmp: each server that starts, the one that installs too, removes the temporary tables there, whoever's.
        common = ["--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={home}"]
        if os.geteuid() == 0:
            common.append("--user=root")
        done = subprocess.run(  # noqa: S603
            [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"mariadb-install-db failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise ServiceError(message)
        ca, certificate = make_certificates(home, self._names)
        self.ca = ca.read_text()
        self.port = free_port()
        self._home = home
        self._command = [
            server,
            *common,
            f"--socket={home / 'server.sock'}",
            f"--pid-file={home / 'server.pid'}",
            f"--port={self.port}",
            f"--bind-address={LOOPBACK}",
            "--character-set-server=utf8mb4",
            f"--ssl-cert={certificate}",
            f"--ssl-key={certificate}",
            # Nothing here outlives the process, so nothing need reach the disk.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--innodb-fast-shutdown=2",
            *self._options,
        ]
        self._stack.callback(lambda: stop_process(self._process))
        self._launch()
        with self._connect_as_root() as connection:
            self._prepare(connection)

    def _connect_as_root(self) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=str(self._home / "server.sock"), user="root")

    def _launch(self) -> None:
        log = self._home / "server.log"
        with log.open("wb") as output:
            self._process = start_process(self._command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect_as_root().close()
                return
            except pymysql.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    message = f"MariaDB did not start on port {self.port}:\n{tail}"
                    raise ServiceError(message) from None
                time.sleep(0.1)

    def _prepare(self, connection: pymysql.Connection[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE USER {self.user}@'%%' IDENTIFIED BY %s", [self.password])
            cursor.execute(f"GRANT ALL ON *.* TO {self.user}@'%' WITH GRANT OPTION")
            cursor.execute(f"CREATE DATABASE {self.database}")


class PostgreSQL(DatabaseServer):
    """Debian's PostgreSQL server on a data directory of its own, as another user where this one is root.

    Attributes:
        database: An empty database, UTF-8.
        log: What the server logs.
    """

    driver = "org.postgresql.Driver"

    @property
    def jdbc_url(self) -> str:
        """What Terraform puts into the Glue connection."""
        return f"jdbc:postgresql://{self.host}:{self.port}/{self.database}"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A client connection to the database."""
        target = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return psycopg.connect(**{**target, "dbname": self.database, **options})

    def _start(self) -> None:
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="postgresql-")))
        newest = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=None)
        server = str(newest / "postgres") if newest else program("postgres", "postgresql")
        _, certificate = make_certificates(home, CERTIFIED)
        certificate.chmod(0o600)
        account: dict[str, Any] = {}
        if os.geteuid() == 0:  # which the server refuses
            owner = pwd.getpwnam("nobody")
            account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            for path in (home, certificate):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]
        locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
        install = [str(Path(server).with_name("initdb")), f"--pgdata={home / 'data'}", *options, *locale]
        done = subprocess.run(install, capture_output=True, text=True, check=False, cwd=home, **account)  # noqa: S603
        if done.returncode:
            message = f"initdb failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise ServiceError(message)
        self.port = free_port()
        self.log = home / "server.log"
        settings = {
            "port": self.port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": home,
            "timezone": "Asia/Tokyo",
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": certificate,
            # Nothing here outlives the process, so nothing need reach the disk.
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
        }
        command = [server, "-D", str(home / "data"), *(f"--{name}={value}" for name, value in settings.items())]
        with self.log.open("wb") as output:
            process = start_process(command, stdout=output, stderr=subprocess.STDOUT, cwd=home, **account)
        self._stack.callback(stop_process, process)
        self._stack.callback(process.send_signal, signal.SIGQUIT)  # SIGTERM waits until all clients have gone
        self._wait(process, home)

    def _wait(self, process: subprocess.Popen[bytes], home: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(host=str(home), port=self.port, user="postgres", autocommit=True) as connection:
                    connection.execute(f"CREATE ROLE {self.user} SUPERUSER LOGIN PASSWORD '{self.password}'")
                    connection.execute(f"CREATE DATABASE {self.database}")
                    return
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-2000:]
                    message = f"PostgreSQL did not start on port {self.port}:\n{tail}"
                    raise ServiceError(message) from None
                time.sleep(0.1)
