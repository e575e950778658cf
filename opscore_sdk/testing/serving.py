"""The in-memory platform behind an address of this machine."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from opscore_sdk.listening import MEDIA_TYPE
from opscore_sdk.testing.routing import Reply

if TYPE_CHECKING:
    from opscore_sdk.testing.platform import MemoryPlatform

_LOOK_EVERY_S = 0.05


@contextmanager
def serving(platform: MemoryPlatform) -> Iterator[str]:
    """Answer on a free port while the block lasts; gives the address."""
    handler = type("Handler", (_Handler,), {"platform": platform})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Calls that still wait end with the process, not before the block does.
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that left."""


class _Handler(BaseHTTPRequestHandler):
    platform: MemoryPlatform
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        changed = threading.Event()
        look = self.platform.asked(self.command, self.path, headers, content)
        with self.platform.listening(changed.set):
            while not self._is_gone():
                changed.clear()
                reply = look()
                if reply is not None and reply.state is not None:
                    return self._stream(reply, changed)
                if reply is not None:
                    return self._send(reply)
                changed.wait(_LOOK_EVERY_S)
        self.close_connection = True
        return None

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - the base class' names

    def _send(self, reply: Reply) -> None:
        body = (
            b"" if reply.status == 204 else json.dumps(reply.body, separators=(",", ":")).encode()
        )
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            if reply.status == 503:
                self.send_header("Retry-After", "1")
            if reply.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.platform.undo(reply)

    def _stream(self, reply: Reply, changed: threading.Event) -> None:
        """Send a stream until it is over or the client has left; its end is that of the connection."""
        self.close_connection = True
        frames = self.platform.frames(reply)
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Connection", "close")
            self.end_headers()
            while not self._is_gone() and (frame := frames.next()) is not None:
                self.wfile.write(frame)
                changed.wait(_LOOK_EVERY_S)
                changed.clear()

    def _is_gone(self) -> bool:
        """Tell whether the client has hung up while it waited."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Say nothing."""
