"""An HTTP server of a test's own, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler],
    port: int = 0,
    *,
    server: type[HTTPServer] = ThreadingHTTPServer,
) -> Iterator[int]:
    """Serve on loopback until the block ends; give the port."""

    class Server(server):  # type: ignore[misc, valid-type]
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            pass

    running = Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
