"""Wakes requests that wait for work: one LISTEN connection for each web process."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from opscore.api.threads import in_thread
from opscore.config import load_config
from opscore.logs import get_logger

log = get_logger(__name__)

_RECONNECT_S = 1.0
#: The longest time between two looks at the database, should an announcement be lost.
FLOOR_S = 2.0
#: Announcements that are remembered for requests that were looking while they came.
_REMEMBERED = 1000


@dataclass(frozen=True)
class Found:
    """What somebody who looked for all that wait has found."""

    words: Collection[str] = ()
    """There is something for these: one of those who wait for it should look."""
    tickets: Collection[Any] = ()
    """Whoever waits with these should look in any case."""


#: Looks for everybody who waits with it, given their tickets; called every FLOOR_S in a thread.
LookOut = Callable[[Sequence[Any]], Found]


@dataclass(frozen=True)
class Call:
    """Why a request was woken; it hands the call on when it has looked."""

    word: str | None = None
    """What was announced; None: this request alone was meant."""
    tried: frozenset[Hashable] = frozenset()
    """Kinds of requests that found nothing."""


@dataclass(eq=False)
class Waiter:
    """One request that waits."""

    words: frozenset[str]
    kind: Hashable
    ticket: Any
    look_out: LookOut | None
    load: float = 0.0
    """How much of it is taken: of several that an announcement fits the least loaded looks."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    call: Call | None = None

    def wake(self, call: Call) -> None:
        """Have the request look."""
        self.call = call
        self.woken.set()


class Wakeups:
    """Listens on one PostgreSQL channel for as long as anybody waits on this event loop.

    An announcement wakes one request, not all that wait for its word: the least loaded one, of
    equals the one that waits longest. Whoever found something
    hands the call on (there may be more), whoever found nothing hands it to another kind of
    request. So a task among hundreds of idle agents costs two looks.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._waiting: dict[Waiter, None] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._heard: deque[tuple[int, str | None]] = deque(maxlen=_REMEMBERED)

    def mark(self) -> int:
        """Return a mark: `wait` since then misses nothing that is announced from now on."""
        self._listen_on()
        return next(self._numbers)

    async def wait(self, waiter: Waiter, timeout_s: float, since: int = 0) -> Call | None:
        """Wait until the waiter should look; None when `timeout_s` passed first.

        An announcement may be missed (connection lost): somebody must look without one too.
        """
        self._listen_on()
        if since and self._was_announced(waiter.words, since):
            return Call()
        self._waiting[waiter] = None
        try:
            # Not `wait_for`: it swallows a cancel that comes together with the event.
            async with asyncio.timeout(timeout_s):
                await waiter.woken.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.call is not None:
                self.hand_on(waiter.call, waiter.kind, found=True)
            if isinstance(error, TimeoutError):
                return None
            raise
        finally:
            del self._waiting[waiter]
        return waiter.call

    def hand_on(self, call: Call, kind: Hashable, *, found: bool) -> None:
        """Wake the next request that may find something; `kind` has looked for this call."""
        if call.word is not None:
            tried = frozenset[Hashable]() if found else call.tried | {kind}
            self._wake_one(Call(call.word, tried))

    def others_wait(self, call: Call) -> bool:
        """Tell whether there are more requests that the call could be handed on to."""
        return next(self._fitting(call), None) is not None

    def _was_announced(self, words: Collection[str], since: int) -> bool:
        return any(n > since and (word is None or word in words) for n, word in self._heard)

    def _wake_one(self, call: Call) -> None:
        chosen = min(self._fitting(call), key=lambda waiter: waiter.load, default=None)
        if chosen is not None:
            chosen.wake(call)

    def _fitting(self, call: Call) -> Iterator[Waiter]:
        """Yield whom the call may wake, who waits longest first."""
        for waiter in self._waiting:
            fits = call.word in waiter.words and waiter.kind not in call.tried
            if fits and not waiter.woken.is_set():
                yield waiter

    def _announced(self, word: str | None) -> None:
        self._heard.append((next(self._numbers), word))
        if word is not None:
            self._wake_one(Call(word))
            return
        for waiter in self._waiting:
            waiter.wake(Call())

    def _listen_on(self) -> None:
        if not self._background:
            for forever in (self._listen(), self._look_out()):
                task = asyncio.create_task(forever)
                self._background.add(task)
                task.add_done_callback(self._background.discard)

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
            self._announced(None)
            async for notify in connection.notifies():
                self._announced(notify.payload)

    async def _look_out(self) -> None:
        while True:
            await asyncio.sleep(FLOOR_S)
            for look_out in {waiter.look_out for waiter in self._waiting} - {None}:
                assert look_out is not None  # noqa: S101 - taken out above
                try:
                    await self._look(look_out)
                except Exception as error:  # noqa: BLE001 - the next look comes soon
                    log.warning("wakeups.blind", channel=self._channel, error=str(error).strip())

    async def _look(self, look_out: LookOut) -> None:
        tickets = [waiter.ticket for waiter in self._waiting if waiter.look_out is look_out]
        found = await in_thread(look_out)(tickets)
        meant = [waiter for waiter in self._waiting if waiter.ticket in found.tickets]
        _wake_all(waiter for waiter in meant if waiter.look_out is look_out)
        for word in found.words:
            self._wake_one(Call(word))


def _wake_all(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.woken.is_set():
            waiter.wake(Call())


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Wakeups]] = WeakKeyDictionary()


def wakeups(channel: str) -> Wakeups:
    """Return the listener of a channel for the running event loop."""
    channels = _by_loop.setdefault(asyncio.get_running_loop(), {})
    return channels.setdefault(channel, Wakeups(channel))
