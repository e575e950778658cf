"""Requests that are held open, as streams and waits are: how many there may be, and their end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from opscore.config import load_config
from opscore.errors import OpsCoreError, UnavailableError

#: Seconds after which whoever was refused may ask again.
_LATER = {"Retry-After": "5"}


class TooManyHeldError(OpsCoreError):
    """This key has too many streams and waits open; close some, or read several things by one."""

    status = 429
    code = "throttled"
    headers = _LATER


class AllHeldError(UnavailableError):
    """This web process has as many streams and waits open as it may, or is about to end."""

    headers = _LATER


class Held:
    """The requests that this process holds open.

    Their number is bounded, for a server that accepts no more connections answers nobody, not even
    /health. A server that is asked to end would wait for them: each says how it is ended.
    """

    def __init__(self) -> None:
        self._ends: dict[object, Callable[[], None]] = {}
        self._by_key: Counter[int] = Counter()
        self.is_over = False
        """Whether the server was asked to end: nothing should be waited for."""

    def check(self, key_id: int) -> None:
        """Raise TooManyHeldError or AllHeldError where one more would be too many."""
        config = load_config()
        if self._by_key[key_id] >= config.held_per_key:
            raise TooManyHeldError
        if self.is_over or len(self._ends) >= config.held_requests:
            raise AllHeldError

    @contextmanager
    def hold(self, key_id: int, end: Callable[[], None]) -> Iterator[None]:
        """Count a request while the block lasts; `end` has it answer when the server ends.

        Event loop only. Refuses nobody: `check` does, before anything is done.
        """
        mine = object()
        self._ends[mine] = end
        self._by_key[key_id] += 1
        if self.is_over:
            end()
        try:
            yield
        finally:
            del self._ends[mine]
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]

    def end_all(self) -> None:
        """Have every request that is held answer with what there is."""
        self.is_over = True
        for end in list(self._ends.values()):
            end()


held = Held()


def end_with_signals() -> None:
    """End what is held as soon as the server is asked to end; call it on the event loop.

    Servers say so to the application only when all requests have been answered.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        # Without a handler of the server the signal ends the process, which it must go on to do.
        if callable(before):
            signal.signal(number, _before_that(before, loop))


def _before_that(
    handler: Callable[[int, FrameType | None], Any], loop: asyncio.AbstractEventLoop
) -> Callable[[int, FrameType | None], None]:
    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(held.end_all)
        handler(number, frame)

    return heard
