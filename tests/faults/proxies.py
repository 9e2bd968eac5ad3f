"""What stands between the job and its servers and breaks what passes: a TCP proxy, and one that knows HTTP requests."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024


@dataclass
class Plan:
    """What happens to the connections of a TcpProxy.

    Attributes:
        refuse: Whether connections are closed as soon as they are made.
        after: Bytes that the server may send on a connection before `action` happens; None: it never does.
        action: `reset` (RST), `close` (FIN) or `stall` (nothing more comes, the connection stays).
        first_byte: Seconds before the server's first byte passes.
        times: On how many connections; the others pass. None: on all.
    """

    refuse: bool = False
    after: int | None = None
    action: str = "reset"
    first_byte: float = 0.0
    times: int | None = None


class TcpProxy:
    """Passes connections on to a server, as the plan says.

    Attributes:
        port: Where it listens on loopback.
        struck: How many connections the plan was applied to.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._plan = Plan()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.struck = 0
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.close()

    def follow(self, plan: Plan) -> None:
        """From the next connection on."""
        with self._lock:
            self._plan, self.struck = plan, 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _plan_of_this(self) -> Plan:
        with self._lock:
            plan = self._plan
            if plan == Plan() or (plan.times is not None and self.struck >= plan.times):
                return Plan()
            self.struck += 1
            return plan

    def _serve(self, client: socket.socket) -> None:
        plan = self._plan_of_this()
        if plan.refuse:
            _reset(client)
            return
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _reset(client)
            return
        with self._lock:
            self._open += [client, server]
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        passed, began = 0, False
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                if not began:
                    time.sleep(plan.first_byte)
                    began = True
                if plan.after is not None and passed + len(data) > plan.after:
                    client.sendall(data[: plan.after - passed])
                    _break(client, server, plan.action)
                    return
                client.sendall(data)
                passed += len(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _break(client: socket.socket, server: socket.socket, action: str) -> None:
    if action == "stall":
        return
    if action == "reset":
        _reset(client)
    else:
        client.shutdown(socket.SHUT_RDWR)
        client.close()
    server.close()


def _reset(connection: socket.socket) -> None:
    # Closing with a linger time of zero sends RST.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


@dataclass
class Rule:
    """What happens to the requests of an HttpProxy that a rule meets.

    Attributes:
        method: The HTTP method.
        target: A regular expression for path and query.
        act: Gets the handler and what sends the request on; answers in its own way.
        times: On how many requests; None: on all.
    """

    method: str
    target: str
    act: Callable[[Handler, Callable[[], Reply]], Reply | None]
    times: int | None = 1
    struck: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def meets(self, method: str, target: str) -> bool:
        """Whether it is this rule's turn; counts."""
        if method != self.method or not re.search(self.target, target):
            return False
        with self.lock:
            if self.times is not None and self.struck >= self.times:
                return False
            self.struck += 1
        return True


@dataclass(frozen=True)
class Reply:
    """An answer of the server behind."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Sends a request on, unless a rule says otherwise."""

    protocol_version = "HTTP/1.1"
    server: HttpServer

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _handle(self) -> None:
        body = self._read_body()

        def send() -> Reply:
            connection = http.client.HTTPConnection(*self.server.behind, timeout=300)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            reply = Reply(answer.status, answer.getheaders(), answer.read())
            connection.close()
            return reply

        for rule in self.server.rules:
            if rule.meets(self.command, self.path):
                reply = rule.act(self, send)
                break
        else:
            reply = send()
        if reply is None:
            self.close_connection = True
            _reset(self.connection)
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            if name.lower() not in {*HOP_BY_HOP, "content-length"} or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _read_body(self) -> bytes:
        if "100-continue" in self.headers.get("Expect", "").lower():
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815


HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}


class HttpServer(ThreadingHTTPServer):
    """The listening side of an HttpProxy."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: tuple[str, int]) -> None:
        super().__init__((LOOPBACK, 0), Handler)
        self.behind = behind
        self.rules: list[Rule] = []

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


@contextlib.contextmanager
def http_proxy(host: str, port: int) -> Iterator[HttpServer]:
    """A proxy before an HTTP server; its `rules` may be set at any time."""
    server = HttpServer((host, port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answer(status: int, code: str) -> Callable[..., Reply]:
    """An error of S3 in the place of the server's answer; the request never reached it."""
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return lambda _handler, _send: Reply(status, [("Content-Type", "application/xml")], body)


def lose_answer(_handler: Handler, send: Callable[[], Reply]) -> None:
    """The request reaches the server, its answer is lost."""
    send()


def error_within_200(_handler: Handler, _send: Callable[[], Reply]) -> Reply:
    """S3 begins to answer CompleteMultipartUpload before it knows how that ends (S3 API reference)."""
    body = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
    return Reply(200, [("Content-Type", "application/xml")], body)


def stall(seconds: float) -> Callable[..., Reply]:
    """The answer comes late."""

    def act(_handler: Handler, send: Callable[[], Reply]) -> Reply:
        time.sleep(seconds)
        return send()

    return act
