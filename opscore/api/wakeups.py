"""Wakes requests that wait for work: one LISTEN connection for each web process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from weakref import WeakKeyDictionary

import psycopg

from opscore.config import load_config
from opscore.logs import get_logger

log = get_logger(__name__)

_RECONNECT_S = 1.0


class Wakeups:
    """Listens on one PostgreSQL channel for as long as anybody waits on this event loop."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._waiting: dict[asyncio.Event, frozenset[str]] = {}
        self._listener: asyncio.Task[None] | None = None

    async def wait(self, words: Collection[str], timeout_s: float) -> bool:
        """Wait until one of the words is announced; False when `timeout_s` passed first.

        An announcement may be missed (connection lost): callers look again by themselves.
        """
        woken = asyncio.Event()
        self._waiting[woken] = frozenset(words)
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())
        try:
            await asyncio.wait_for(woken.wait(), timeout_s)
        except TimeoutError:
            return False
        finally:
            del self._waiting[woken]
        return True

    async def _listen(self) -> None:
        while True:
            try:
                await self._receive()
            except (psycopg.Error, OSError) as error:
                log.warning("wakeups.lost", channel=self._channel, error=str(error).strip())
            await asyncio.sleep(_RECONNECT_S)

    async def _receive(self) -> None:
        url = load_config().service_url("database_url")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f"LISTEN {self._channel}")
            # Whatever was announced while nobody listened must not be waited for.
            self._wake(None)
            async for notify in connection.notifies():
                self._wake(notify.payload)

    def _wake(self, word: str | None) -> None:
        for woken, words in self._waiting.items():
            if word is None or word in words:
                woken.set()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Wakeups]] = WeakKeyDictionary()


def wakeups(channel: str) -> Wakeups:
    """Return the listener of a channel for the running event loop."""
    channels = _by_loop.setdefault(asyncio.get_running_loop(), {})
    return channels.setdefault(channel, Wakeups(channel))
