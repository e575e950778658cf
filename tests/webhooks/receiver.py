"""A receiver of webhooks that checks signatures as the specification says, and does what a test says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.local_http import serving

#: Takes the body, returns status and optionally text and headers.
Behaviour = Callable[[dict[str, Any]], tuple[Any, ...]]


@dataclass
class Receiver:
    """Behaviour may be changed while it runs."""

    behaviour: Behaviour = lambda body: (204,)
    secret: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    port: int = 0

    @property
    def types(self) -> list[str]:
        return [body["type"] for body in self.bodies]

    def signed_by(self, secret: str, place: int = -1) -> bool:
        """Tell whether a request was signed with a secret, as a receiver finds out."""
        headers, body = self.headers[place], self.raw[place]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in headers["webhook-signature"].split(" ")

    def take(self, headers: dict[str, str], raw: bytes) -> tuple[Any, ...]:
        with self.lock:
            self.headers.append(headers)
            self.raw.append(raw)
            self.bodies.append(json.loads(raw))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.behaviour(self.bodies[-1])
        finally:
            with self.lock:
                self.at_once -= 1


@contextmanager
def receiving(receiver: Receiver, port: int = 0) -> Iterator[Receiver]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            status, *rest = receiver.take(dict(self.headers.items()), raw)
            text = str(rest[0]).encode() if rest else b""
            self.send_response(status)
            for name, value in (rest[1] if len(rest) > 1 else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler, port) as taken:
        receiver.port = taken
        receiver.url = f"http://127.0.0.1:{taken}/hook"
        yield receiver
