"""Server-sent events as talks: what is said of something, as it happens.

Like `asking`, without asking: a talk yields `Listen`, `Hear` and `HangUp`, and whoever holds it
does the waiting. Whoever connects again is told the present state, so nothing has to be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from opscore_sdk.asking import TRIES, Ask, HangUp, Hear, Listen, Opened, Pause, Talk, sent, wait_s
from opscore_sdk.errors import UnreachableError, from_answer
from opscore_sdk.wire import RUN_ENDED, TASK_ENDED

MEDIA_TYPE = "text/event-stream"
#: After so long without a line the connection is dead: the platform says something every 15 s.
SILENCE_S = 45.0
#: A connection that ends at once, again and again, belongs to a server that cannot stream.
_FIRST = 1


@dataclass(frozen=True)
class Change:
    """One event of a stream."""

    items: tuple[Mapping[str, Any], ...] = ()
    """What is new or has changed, whole, each with its `type` and `id`."""
    gone: tuple[str, ...] = ()
    """Ids of what is no more."""
    is_snapshot: bool = False
    """These are all items that there are; what is not among them is gone."""


class Stream(Protocol):
    """What is heard of something."""

    def next(self) -> Talk[Change | None]:
        """Return the next change; None: a sign of life."""

    def close(self) -> Talk[None]:
        """Hang up."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""


class Listener:
    """Hears what is said at a path; connects again where the connection breaks or ends.

    For `patience_s` seconds at a time it goes on trying, and four times at least. Raises ApiError
    and UnreachableError. `is_last` tells of a change whether nothing more can come after it.
    """

    def __init__(
        self,
        path: str,
        *,
        patience_s: float = 0.0,
        is_last: Callable[[Change], bool] = lambda _: False,
    ) -> None:
        self._ask = Ask("GET", path, headers={"Accept": MEDIA_TYPE}, timeout_s=SILENCE_S)
        self._patience_s, self._is_last = patience_s, is_last
        self._opened: Opened | None = None
        self._heard = 0
        self._in_vain = 0
        self.is_over = False

    def next(self) -> Talk[Change | None]:
        """Return the next change; None: a sign of life."""
        while True:
            if self._opened is None:
                self._opened = yield from self._connected()
            lines = yield from self._event(self._opened)
            if lines is not None:
                return self._told(lines)
            yield from self.close()
            # What ends after its first event is heard of by looking again and again.
            self._in_vain = 0 if self._heard > _FIRST else self._in_vain + 1
            yield Pause(wait_s(max(self._in_vain, 1)))

    def close(self) -> Talk[None]:
        """Hang up; another `next` connects again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            yield HangUp(opened)

    def _connected(self) -> Talk[Opened]:
        answer = yield from sent(Listen(self._ask), TRIES, self._patience_s)
        if not isinstance(answer, Opened):
            raise from_answer(answer.status, answer.body, answer.retry_after_s)
        self._heard = 0
        return answer

    def _event(self, opened: Opened) -> Talk[list[str] | None]:
        """Return the lines up to the next empty one; None: the stream has ended."""
        lines: list[str] = []
        while True:
            line: str | UnreachableError | None = yield Hear(opened)
            if line is None or isinstance(line, UnreachableError):
                return None
            if not line:
                return lines
            lines.append(line)

    def _told(self, lines: Iterable[str]) -> Change | None:
        change = read(lines)
        if change is not None:
            self._heard += 1
            self.is_over = self._is_last(change)
        return change


def read(lines: Iterable[str]) -> Change | None:
    """Return what one event says; None for a comment, or what is no event of this platform."""
    said: dict[str, list[str]] = {"event": [], "data": []}
    for line in lines:
        name, _, value = line.partition(":")
        if name in said:
            said[name].append(value.removeprefix(" "))
    if not said["data"]:
        return None
    try:
        data = json.loads("\n".join(said["data"]))
        items, gone = tuple(data["items"]), tuple(data.get("gone", ()))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Change(items, gone, said["event"] == ["snapshot"])


def has_ended(kind: str, change: Change) -> bool:
    """Tell whether the run or the task that a stream is about has ended by this change."""
    ended = RUN_ENDED if kind == "run" else TASK_ENDED
    return any(item.get("type") == kind and item.get("status") in ended for item in change.items)
