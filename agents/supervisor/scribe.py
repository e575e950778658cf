"""Takes what agents write to stdout and stderr into bounded files, in a thread of its own.

An agent whose output nobody took would stand still with its pipe full; the controller, which
may wait for the database, must not be the one who takes it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from dataclasses import dataclass, field
from pathlib import Path

from agents.supervisor.orders import MAX_LOG_BYTES
from opscore.logs import get_logger

log = get_logger(__name__)
_CHUNK = 65536
_MODE = 0o640


@dataclass
class Roll:
    """One agent's present file; a full one becomes `.log.1`, and what that was is gone."""

    path: Path
    size: int = 0
    written: int = 0
    """Bytes of this agent's present life."""
    file: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def open(self) -> int:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _MODE)
            self.size = os.fstat(self.file).st_size
        return self.file

    def write(self, data: bytes) -> None:
        file = self.open()
        if self.size and self.size + len(data) > MAX_LOG_BYTES:
            self.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            file = self.open()
        os.write(file, data)
        self.size += len(data)
        self.written += len(data)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


class Scribe:
    """Reads the pipes of all agents of a host; `pipe` makes one, `finish` waits for its end."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._rolls: dict[int, Roll] = {}
        self._new: list[int] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Take what is there, then end; what agents write afterwards is lost."""
        self._stopping = True
        self._call()
        self._thread.join(timeout_s)

    def pipe(self, path: Path) -> tuple[int, Roll]:
        """Return the end that an agent writes into, for the caller to close, and what it fills.

        Raises OSError when there is no descriptor left.
        """
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        # Descriptors are used again at once; only the roll itself says which life it was.
        roll = Roll(path)
        with self._lock:
            self._rolls[reading] = roll
            self._new.append(reading)
        self._call()
        return writing, roll

    def finish(self, roll: Roll, timeout_s: float = 1.0) -> None:
        """Wait until all that an ended agent wrote is in its file."""
        roll.ended.wait(timeout_s)

    def _call(self) -> None:
        os.write(self._wake, b"x")

    def _run(self) -> None:
        while not self._stopping:
            self._take(self._selector.select())
        # What the last agents wrote just before they ended.
        self._take(self._selector.select(0))
        for handle in list(self._rolls):
            self._end(handle)
        for descriptor in (self._woken, self._wake):
            os.close(descriptor)
        self._selector.close()

    def _take(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if key.fd == self._woken:
                self._welcome()
            else:
                self._read(key.fd)

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, _CHUNK)
        with self._lock:
            new, self._new = self._new, []
        for handle in new:
            self._selector.register(handle, selectors.EVENT_READ)

    def _read(self, handle: int) -> None:
        try:
            data = os.read(handle, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._end(handle)
            return
        try:
            self._rolls[handle].write(data)
        except OSError as error:
            # A full disk must not stop the agents; their words are lost.
            log.warning(
                "supervisor.output_lost", file=str(self._rolls[handle].path), error=str(error)
            )

    def _end(self, handle: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(handle)
        with self._lock:
            roll = self._rolls.pop(handle)
        roll.close()
        os.close(handle)
        roll.ended.set()
