"""Takes webhook posts as Slack and Teams do, keeps them, and answers as a test scripts it."""

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
    """One scripted answer of a receiver; `delay` in seconds."""

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
        messages: Payloads that were answered with success.
        requests: Every attempt.
    """

    success = Reply()

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.requests: list[Request] = []
        self.webhook = ""
        self._replies: deque[Reply] = deque()

    def answer(self, *replies: Reply) -> None:
        """Scripts the next answers; after them it is success again."""
        self._replies = deque(replies)

    def __enter__(self) -> SlackReceiver:
        path = self.make_path()
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

    def make_path(self) -> str:
        """A path as Slack's webhooks have it; its last part is secret."""
        return f"/services/T000/B000/{secrets.token_urlsafe(18)}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        messages, requests = self.messages, self.requests  # as they are now, whatever the delay
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        reply = self._replies.popleft() if self._replies else self.success
        if handler.path != path:
            reply = Reply(404, "no_service")
        payload = json.loads(body)
        time.sleep(reply.delay)
        requests.append(Request(time.time(), reply.status, payload))
        if reply.status == self.success.status:
            messages.append(payload)
        with contextlib.suppress(ConnectionError):
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(reply.body.encode())))
            handler.end_headers()
            handler.wfile.write(reply.body.encode())


class TeamsReceiver(SlackReceiver):
    """An HTTP server that takes webhook posts as the Workflows of Teams do, which answer 202 and nothing else."""

    success = Reply(202, "")

    def make_path(self) -> str:
        """A path as the trigger of a workflow has it; the signature behind it is secret."""
        signature = secrets.token_urlsafe(32)
        flow = f"/workflows/{secrets.token_hex(16)}/triggers/manual/paths/invoke"
        return f"{flow}?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={signature}"
