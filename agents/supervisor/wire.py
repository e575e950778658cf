"""JSON lines over a Unix socket, with file descriptors riding along. Standard library only."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]
_CHUNK = 65536
_MAX_FDS = 32


class Wire:
    """One end of a socket pair; both ends speak JSON objects, one a line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        """The other end is gone."""
        self._buffer = b""
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self.sock.fileno()

    def send(self, message: Message, *fds: int) -> bool:
        """Send one message whole; False when the other end is gone or does not read."""
        line = json.dumps(message).encode() + b"\n"
        try:
            if not fds:
                self.sock.sendall(line)
            else:
                sent = socket.send_fds(self.sock, [line], list(fds))
                self.sock.sendall(line[sent:])
        except OSError:
            return False
        return True

    def receive(self) -> Iterator[Message]:
        """Read what is there now and yield the complete messages; sets `closed` at the end."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, _CHUNK, _MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:
            self.closed = True
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def take_fd(self) -> int:
        """Return the next descriptor that came with the message just received."""
        return self._fds.popleft()

    def close(self) -> None:
        """Close this end; the other one sees it."""
        self.sock.close()
