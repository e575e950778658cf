"""What must follow a transition once it has committed: told here, done by `tasks.following`.

Everything that is told can also be found in the rows, so a process that dies in between only
leaves it to the reconciler.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opscore.database import after_commit, release
from opscore.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Aftermath:
    """News of one transition."""

    undecided: Sequence[UUID] = ()
    """Tasks that may run now, if their conditions say so."""
    containers: Sequence[UUID] = ()
    """`for_each` tasks one of whose items ended."""
    freed: Sequence[tuple[int, str]] = ()
    """(project, concurrency key) of tasks that gave up a slot."""
    orphaned: Sequence[UUID] = ()
    """Tasks that ended while a sub-run was their body."""
    due: Sequence[UUID] = ()
    """Parked tasks that go on at once."""
    misaddressed: Sequence[tuple[UUID, int, Exception]] = ()
    """(task, fence, why) of queued tasks whose sticky key cannot be evaluated."""
    ended_runs: Sequence[Mapping[str, Any]] = ()
    outcomes: Sequence[Any] = ()
    """Attempts (`tasks.outcomes.Outcome`) that circuit breakers count."""


_follow: Callable[[Aftermath], None] = lambda news: None  # noqa: E731 - set once at start


def followed_by(follow: Callable[[Aftermath], None]) -> None:
    """Name the function that does what follows."""
    global _follow  # noqa: PLW0603 - wired once when the app is ready
    _follow = follow


def tell(news: Aftermath) -> None:
    """Do what follows, once the open transaction has committed. Never raises."""
    if news != _NOTHING:
        after_commit(lambda: _safely(news))


class _Told(threading.local):
    """News of this thread that is not followed yet."""

    def __init__(self) -> None:
        self.queue: deque[Aftermath] = deque()
        self.busy = False


_told = _Told()


def _safely(news: Aftermath) -> None:
    # What follows tells more news: a queue, because a chain of skips may be long and the stack
    # is not.
    _told.queue.append(news)
    if _told.busy:
        return
    _told.busy = True
    try:
        while _told.queue:
            _one(_told.queue.popleft())
    finally:
        _told.busy = False
        _told.queue.clear()


def _one(news: Aftermath) -> None:
    try:
        _follow(news)
    except Exception:
        # The transition itself is committed; the reconciler finds what is missing.
        log.exception("aftermath.failed")
        release()


_NOTHING = Aftermath()
