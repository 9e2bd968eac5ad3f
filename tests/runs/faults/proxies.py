"""What stands between the job and its servers and breaks what passes: a TCP proxy, and one that knows HTTP requests."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024


def reset(connection: socket.socket) -> None:
    """Ends a connection with RST, which is what closing with a linger time of zero sends."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # as long as a thread waits for bytes, closing sends nothing
    connection.close()


def close(connection: socket.socket) -> None:
    """Ends a connection with FIN."""
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@dataclass
class Plan:
    """What happens to connections of a TcpProxy, `times` times (None: always); then all pass.

    Attributes:
        refuse: Whether a connection is reset as soon as it is made.
        after: How many bytes of the server pass on a connection before `then` happens.
        then: Gets the client's end. What it leaves open gets nothing more if `stalls`, else goes on.
        first_byte: Seconds before the first byte of the server passes.
    """

    refuse: bool = False
    after: int | None = None
    then: Callable[[socket.socket], object] = reset
    stalls: bool = False
    first_byte: float = 0.0
    times: int | None = None


class TcpProxy:
    """Passes connections on to a server, as the plan says.

    Attributes:
        port: Where it listens on loopback.
        plan: May be set at any time, for connections that are open too.
        struck: How often a plan was carried out.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.plan = Plan()
        self.struck = 0
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._end_all()

    def follow(self, plan: Plan) -> None:
        """Follows another plan from now on. Open connections end: the query of a stalled one would last an hour."""
        self._end_all()
        self.plan, self.struck = plan, 0

    def _end_all(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                reset(self._open.pop())

    def _strikes(self) -> bool:
        with self._lock:
            if self.plan.times is not None and self.struck >= self.plan.times:
                return False
            self.struck += 1
            return True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.plan.refuse and self._strikes():
            reset(client)
            return
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)  # or much of a result would wait here
        try:
            server.connect(self._server)
        except OSError:
            reset(client)
            return
        self._open += [client, server]
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        if self.plan.first_byte and self._strikes():
            time.sleep(self.plan.first_byte)
        with contextlib.suppress(OSError):
            if self._pass_answers(client, server):
                return
        for end in (client, server):
            with contextlib.suppress(OSError):
                close(end)

    def _pass_answers(self, client: socket.socket, server: socket.socket) -> bool:
        """Whether the connection now stalls."""
        passed, was_struck = 0, False
        while data := server.recv(CHUNK):
            client.sendall(data)
            passed += len(data)
            plan = self.plan
            if plan.after is not None and passed > plan.after and not was_struck and self._strikes():
                was_struck = True
                plan.then(client)
                if plan.stalls:
                    return True
        return False


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Reply:
    """An answer of the server behind; of its body only `sent_bytes` pass, then the connection is reset (None: all)."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    sent_bytes: int | None = None


Act = Callable[["Handler", Callable[[], Reply]], Reply | None]


@dataclass
class Rule:
    """What happens to the requests of an HttpProxy that a rule meets.

    Attributes:
        method: The HTTP method.
        target: A regular expression for path, query and X-Amz-Target.
        act: Gets the handler and what sends the request on; the answer, or None for a reset.
        times: On how many requests; None: on all.
    """

    method: str
    target: str
    act: Act
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


HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade", "content-length"}


class Handler(BaseHTTPRequestHandler):
    """Sends a request on, unless a rule says otherwise."""

    protocol_version = "HTTP/1.1"
    server: HttpServer

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}

        def send() -> Reply:
            connection = http.client.HTTPConnection(*self.server.behind, timeout=300)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            reply = Reply(answer.status, answer.getheaders(), answer.read())
            connection.close()
            return reply

        target = f"{self.path} {self.headers.get('X-Amz-Target', '')}"
        rule = next((rule for rule in self.server.rules if rule.meets(self.command, target)), None)
        reply = rule.act(self, send) if rule else send()
        if reply is None:
            self._reset()
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            if name.lower() not in HOP_BY_HOP or (self.command == "HEAD" and name.lower() == "content-length"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: reply.sent_bytes])
        if reply.sent_bytes is not None:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        reset(socket.socket(fileno=self.connection.detach()))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  http.server's names


class HttpServer(ThreadingHTTPServer):
    """The listening side of an HttpProxy; its `rules` may be set at any time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: tuple[str, int]) -> None:
        super().__init__((LOOPBACK, 0), Handler)
        self.behind = behind
        self.rules: Sequence[Rule] = ()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


@contextlib.contextmanager
def http_proxy(host: str, port: int) -> Iterator[HttpServer]:
    """A proxy before an HTTP server."""
    server = HttpServer((host, port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def s3_error(status: int, code: str) -> Act:
    """An error of S3 in the place of the server's answer; the request never reached it."""
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return lambda _handler, _send: Reply(status, [("Content-Type", "application/xml")], body)


def json_error(code: str) -> Act:
    """An error of a service that speaks JSON, in the place of its answer; the request never reached it."""
    body = f'{{"__type":"{code}","message":"Rate exceeded"}}'.encode()
    return lambda _handler, _send: Reply(400, [("Content-Type", "application/x-amz-json-1.1")], body)


def lose_request(_handler: Handler, _send: Callable[[], Reply]) -> None:
    """The connection is reset before the server sees the request."""


def lose_answer(_handler: Handler, send: Callable[[], Reply]) -> None:
    """The request reaches the server, its answer is lost."""
    send()


def tear_answer(_handler: Handler, send: Callable[[], Reply]) -> Reply:
    """The connection is reset in the middle of the answer."""
    reply = send()
    return replace(reply, sent_bytes=len(reply.body) // 2)


def late(seconds: float) -> Act:
    """The answer comes late."""

    def act(_handler: Handler, send: Callable[[], Reply]) -> Reply:
        time.sleep(seconds)
        return send()

    return act


def after(do: Callable[[Handler], object]) -> Act:
    """The request goes on after something else happened."""

    def act(handler: Handler, send: Callable[[], Reply]) -> Reply:
        do(handler)
        return send()

    return act
