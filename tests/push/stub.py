"""An agent of kind http that does what a test says, and remembers what it was sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

from tests.local_http import serving

#: Takes the task, returns (status, body) or (status, body, headers).
Behaviour = Callable[[dict[str, Any]], tuple[Any, ...]]


def echo(task: dict[str, Any]) -> tuple[int, Any]:
    """Give back what came in, at once."""
    return 200, {"status": "completed", "result": task["inputs"]}


@dataclass
class StubAgent:
    """Behaviour may be changed while it runs."""

    behaviour: Behaviour = echo
    health: int = 200
    secret: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    forged: int = 0
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    port: int = 0

    def take(self, headers: dict[str, str], body: bytes) -> tuple[Any, ...]:
        message = headers["Opscore-Timestamp"].encode() + b"." + body
        wanted = hmac.new(self.secret.encode(), message, hashlib.sha256).hexdigest()
        task = json.loads(body)
        with self.lock:
            if self.secret and headers["Opscore-Signature"] != f"sha256={wanted}":
                self.forged += 1
            self.received.append(task)
            self.headers.append(headers)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.behaviour(task)
        finally:
            with self.lock:
                self.at_once -= 1


@contextmanager
def running(
    agent: StubAgent, port: int = 0, *, server: type[HTTPServer] = ThreadingHTTPServer
) -> Iterator[StubAgent]:
    """Serve until the block ends; one request at a time when `server` is HTTPServer."""

    class Handler(BaseHTTPRequestHandler):
        # One that serves one connection at a time must not keep it.
        protocol_version = "HTTP/1.1" if issubclass(server, ThreadingHTTPServer) else "HTTP/1.0"

        def do_GET(self) -> None:
            self._answer(agent.health, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, *rest = agent.take(dict(self.headers.items()), body)
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            self._answer(status, *rest)

        def _answer(self, status: int, body: Any, headers: Any = None) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler, port, server=server) as taken:
        agent.port = taken
        agent.url = f"http://127.0.0.1:{taken}/work"
        yield agent
