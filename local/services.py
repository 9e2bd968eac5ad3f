"""The servers a pipeline needs, on loopback, each ended with its `with` block and with the process that made it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, Self

import boto3
import psycopg
import pymysql

LOOPBACK = "127.0.0.1"
CERTIFIED = f"DNS:localhost,IP:{LOOPBACK}"  # as openssl writes it
REGION = "ap-northeast-1"
START_SECONDS = 60
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1  # prctl(2)


class ServiceError(RuntimeError):
    """A server is missing or does not start; the text says what to do."""


def exit_on_sigterm() -> None:
    """Lets SIGTERM end the process as Ctrl-C does, so that `with` blocks stop what they started."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def _end_with_parent() -> None:
    # The kernel ends the child even when this process is killed by SIGKILL. Linux only; elsewhere `with` must do.
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_process(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command without input to its end, both streams in `stdout`; its status is the caller's to judge."""
    return subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a child in a session of its own, so that Ctrl-C reaches it only through us."""
    return subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent, **options)  # noqa: PLW1509, S603


def stop_process(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Ends a child and what it started: SIGTERM, and SIGKILL after `seconds`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def program(name: str, package: str) -> str:
    """The path of a server program.

    Raises:
        ServiceError: it is not installed.
    """
    # Debian keeps servers out of a normal user's PATH.
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if not found:
        message = f"{name} is not installed. Run: apt-get install {package}"
        raise ServiceError(message)
    return found


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def make_certificates(home: Path, names: str) -> tuple[Path, Path]:
    """Makes a CA of its own in a folder, and a server's certificate that it signs.

    Args:
        home: The folder.
        names: What the certificate is for, as openssl writes it (`DNS:localhost,IP:127.0.0.1`).

    Returns:
        The files of the CA's certificate, and of the server's with its key.
    """
    ca, server = home / "ca.pem", home / "server.pem"
    request = [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    key = home / "ca.key"
    signed = ["-CA", str(ca), "-CAkey", str(key), "-addext", f"subjectAltName={names}"]
    for path, keys, name, options in ((ca, key, "test CA", []), (server, server, "test server", signed)):
        command = [*request, "-subj", f"/CN={name}", "-keyout", str(keys), "-out", str(path), *options]
        subprocess.run(command, capture_output=True, check=True)  # noqa: S603
    return ca, server


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
        common = ["--no-defaults", f"--datadir={home / 'data'}"]
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


class Aws:
    """Moto's server in a process of its own: S3, Secrets Manager, Glue and the rest of the AWS APIs."""

    endpoint = ""

    def __enter__(self) -> Aws:
        command = [sys.executable, "-m", "local.moto_process"]
        root = Path(__file__).resolve().parent.parent
        self._home = tempfile.TemporaryDirectory(prefix="moto-")
        variables = {**os.environ, "MOTO_RECORDER_FILEPATH": str(Path(self._home.name) / "recording")}
        self._process = start_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root, env=variables
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            stop_process(self._process)
            message = "moto's server did not start. Try: python -m local.moto_process"
            raise ServiceError(message)
        self.endpoint = f"http://{LOOPBACK}:{int(line)}"
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self._process)
        self._home.cleanup()

    def environment(self) -> dict[str, str]:
        """The variables that point boto3, and so the runner and the job, at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:
        """A boto3 client of this server."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106
        )


@dataclass(frozen=True)
class Reply:
    """One scripted answer of the Slack receiver; `delay` in seconds."""

    status: int = 200
    body: str = "ok"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True)
class Request:
    """One attempt to post."""

    time: float
    status: int
    payload: Any


class SlackReceiver:
    """An HTTP server that takes webhook posts as Slack does and keeps them.

    Attributes:
        webhook: The URL to post to; its path is secret, as Slack's is.
        messages: Payloads that were answered with 200.
        requests: Every attempt.
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.requests: list[Request] = []
        self.webhook = ""
        self._replies: deque[Reply] = deque()

    def answer(self, *replies: Reply) -> None:
        """Scripts the next answers; after them it is 200 again."""
        self._replies = deque(replies)

    def __enter__(self) -> SlackReceiver:
        path = f"/services/T000/B000/{secrets.token_urlsafe(18)}"
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self, path)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.webhook = f"http://{LOOPBACK}:{self._server.server_port}{path}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        messages, requests = self.messages, self.requests  # as they are now, whatever the delay
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        reply = self._replies.popleft() if self._replies else Reply()
        if handler.path != path:
            reply = Reply(404, "no_service")
        payload = json.loads(body)
        time.sleep(reply.delay)
        requests.append(Request(time.time(), reply.status, payload))
        if reply.status == 200:  # noqa: PLR2004
            messages.append(payload)
        with contextlib.suppress(ConnectionError):
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(reply.body.encode())))
            handler.end_headers()
            handler.wfile.write(reply.body.encode())
