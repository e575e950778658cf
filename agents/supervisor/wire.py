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
        self._unsent = b""
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self.sock.fileno()

    def send(self, message: Message, *fds: int) -> bool:
        """Send one message; False when the other end is gone or does not read.

        Where the socket does not block, the end of a message may wait for the next call of
        `send` or `flush`; until it has gone, nothing else is taken.
        """
        if not self.flush():
            return False
        line = json.dumps(message).encode() + b"\n"
        try:
            sent = self._send(line, fds)
        except OSError:
            return False
        self._unsent = line[sent:]
        self.flush()
        return True

    @property
    def is_behind(self) -> bool:
        """Whether the end of a message waits for `flush`."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Send the rest of the last message; True: nothing of it is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except OSError:
            return False
        return True

    def _send(self, line: bytes, fds: tuple[int, ...]) -> int:
        return socket.send_fds(self.sock, [line], list(fds)) if fds else self.sock.send(line)

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
