"""What a reader of a stream is sent by the in-memory platform."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from opscore_sdk.testing.routing import State


class Frames:
    """First all that there is, then what has changed since the last look."""

    def __init__(self, state: Callable[[], State | None]) -> None:
        self._state = state
        self._shown: State | None = None

    def next(self) -> bytes | None:
        """Return the next event, b'' where nothing has changed; None: the stream is over."""
        old, new = self._shown, self._state()
        if new is None:
            return None
        # The engine changes its rows in place.
        self._shown = {key: dict(item) for key, item in new.items()}
        if old is None:
            return _frame("snapshot", {"items": list(new.values())})
        items = [item for key, item in new.items() if old.get(key) != item]
        gone = [key for key in old if key not in new]
        return _frame("change", {"items": items, "gone": gone}) if items or gone else b""


def _frame(event: str, data: Any) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
