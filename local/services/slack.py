"""Takes webhook posts as Slack does, keeps them, and answers as a test scripts it."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local.services.processes import LOOPBACK


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
