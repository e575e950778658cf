"""How often somebody may do something in a minute, as far as one process knows."""

from __future__ import annotations

import time
from threading import Lock


class Quota:
    """How often somebody may still do something in this minute, for all in this process."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._lock = Lock()
        self._minute = -1
        self._seen: dict[str, int] = {}
        self._left_out = 0

    def takes(self, name: str) -> bool:
        """Count one more; False when it is one too many."""
        with self._lock:
            self._turn()
            self._seen[name] = self._seen.get(name, 0) + 1
            return self._seen[name] <= self._per_minute

    def is_spent(self, name: str) -> bool:
        """Tell whether one more would be too many."""
        with self._lock:
            self._turn()
            return self._seen.get(name, 0) >= self._per_minute

    def left_out(self) -> int:
        """Return how many were too many in the minutes before this one, once."""
        with self._lock:
            self._turn()
            count, self._left_out = self._left_out, 0
            return count

    def _turn(self) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._left_out += sum(max(n - self._per_minute, 0) for n in self._seen.values())
            self._minute, self._seen = minute, {}

    def forget(self) -> None:
        """Begin anew (tests come from one address)."""
        with self._lock:
            self._seen, self._left_out = {}, 0
