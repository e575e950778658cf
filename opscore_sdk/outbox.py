"""What a running function said and the platform has not heard yet; safe for any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Lines that wait to be sent; those above it are dropped, and a line says so.
MAX_LINES = 10_000
#: Lines of one request.
BATCH = 500
_MAX_MESSAGE = 500


class Outbox:
    """Log lines and progress of one attempt, and whether it is still wanted."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        self.cancelled = threading.Event()
        self._on_news = on_news
        self._lock = threading.Lock()
        self._lines: list[tuple[str, str]] = []
        self._dropped = 0
        self._progress: tuple[float | None, str] | None = None

    def log(self, text: str, stream: str) -> None:
        """Keep lines to be sent."""
        with self._lock:
            room = MAX_LINES - len(self._lines)
            lines = str(text).splitlines() or [""]
            self._lines += [(stream, line) for line in lines[:room]]
            self._dropped += len(lines[room:]) if room < len(lines) else 0
        self._on_news()

    def progress(self, fraction: float | None, message: str) -> None:
        """Keep the latest progress to be sent."""
        with self._lock:
            self._progress = (fraction, str(message)[:_MAX_MESSAGE])
        self._on_news()

    def take_lines(self) -> tuple[str, list[str]] | None:
        """Take lines of one stream that may travel together; None when there are none."""
        with self._lock:
            if not self._lines:
                return self._dropped_line()
            stream = self._lines[0][0]
            taken: list[str] = []
            for name, line in self._lines[:BATCH]:
                if name != stream:
                    break
                taken.append(line)
            del self._lines[: len(taken)]
            return stream, taken

    def put_back(self, stream: str, lines: list[str]) -> None:
        """Return lines that could not be sent to the front."""
        with self._lock:
            self._lines[:0] = [(stream, line) for line in lines]

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
