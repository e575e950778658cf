"""What a running function said and the platform has not heard yet; safe for any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice

#: Lines, and their letters, that wait to be sent; what is above is dropped, and a line says so.
MAX_LINES = 10_000
MAX_LETTERS = 4_000_000
#: Lines of one request, and their letters: as JSON a letter has twelve bytes at most.
BATCH = 500
BATCH_LETTERS = 100_000
#: The platform cuts longer lines too.
MAX_LINE = 4000
_MAX_MESSAGE = 500


class Outbox:
    """Log lines and progress of one attempt, and whether it is still wanted."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        self.cancelled = threading.Event()
        self._on_news = on_news
        self._lock = threading.Lock()
        self._lines: list[tuple[str, str]] = []
        self._letters = 0
        self._dropped = 0
        self._progress: tuple[float | None, str] | None = None

    def log(self, text: str, stream: str) -> None:
        """Keep lines to be sent."""
        lines = [sendable(line, MAX_LINE) for line in str(text).splitlines() or [""]]
        with self._lock:
            for line in lines:
                self._keep(stream, line)
        self._on_news()

    def _keep(self, stream: str, line: str) -> None:
        letters = self._letters + len(line)
        if len(self._lines) >= MAX_LINES or letters > MAX_LETTERS:
            self._dropped += 1
            return
        self._lines.append((stream, line))
        self._letters = letters

    def progress(self, fraction: float | None, message: str) -> None:
        """Keep the latest progress to be sent."""
        with self._lock:
            self._progress = (fraction, sendable(str(message), _MAX_MESSAGE))
        self._on_news()

    def take_lines(self) -> tuple[str, list[str]] | None:
        """Take lines of one stream that may travel together; None when there are none."""
        with self._lock:
            if not self._lines:
                return self._dropped_line()
            stream = self._lines[0][0]
            taken: list[str] = []
            letters = 0
            for name, line in islice(self._lines, BATCH):
                letters += len(line)
                if name != stream or (taken and letters > BATCH_LETTERS):
                    break
                taken.append(line)
            del self._lines[: len(taken)]
            self._letters -= sum(map(len, taken))
            return stream, taken

    def put_back(self, stream: str, lines: list[str]) -> None:
        """Return lines that could not be sent to the front."""
        with self._lock:
            self._lines[:0] = [(stream, line) for line in lines]
            self._letters += sum(map(len, lines))

    def take_progress(self) -> tuple[float | None, str] | None:
        """Take the latest progress; None when nothing new was said."""
        with self._lock:
            taken, self._progress = self._progress, None
            return taken

    def put_back_progress(self, told: tuple[float | None, str]) -> None:
        """Return a progress that could not be sent, unless a newer one is there."""
        with self._lock:
            self._progress = self._progress or told

    def _dropped_line(self) -> tuple[str, list[str]] | None:
        dropped, self._dropped = self._dropped, 0
        return ("log", [f"({dropped} lines were dropped: too many at once)"]) if dropped else None


def sendable(text: str, longest: int) -> str:
    """Return a text as the platform takes it: cut, without NUL and half letters."""
    shown = text[:longest].replace("\0", "\N{SYMBOL FOR NULL}")
    return shown.encode(errors="replace").decode()
