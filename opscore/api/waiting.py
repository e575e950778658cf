"""Long-poll: an endpoint that is asked again and again until it has something to say."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint
from opscore.api.held import held
from opscore.api.threads import in_thread
from opscore.api.wakeups import FLOOR_S, Call, LookOut, Waiter, Wakeups, wakeups

#: Hundreds of executors that began to wait together, after a restart of the server, would come
#: back together for ever; whoever asks in such a burst waits a second. So some wait less long.
_SCATTER = 0.3


@dataclass(frozen=True)
class Patience:
    """What an answer that is still empty waits for."""

    channel: str
    words: Collection[str]
    """Announcements on the channel that make it worth to look again."""
    wait_s: float
    """Seconds since the request came after which the empty answer is sent."""
    kind: Hashable = None
    """Where one request of a kind found nothing, the others would not either; None: unlike all."""
    look_out: LookOut | None = None
    """Looks for all that wait, in case that announcements are lost; None: each looks itself.

    Whoever waits so is one of many, and may be answered after 0.7 of `wait_s` already."""
    ticket: Any = None
    """What `look_out` knows this request by."""
    load: float = 0.0
    """How much of who asks is taken already: the least loaded is asked to look first."""


class EmptyResponse(Response):
    """An answer that may be better a little later."""

    def __init__(self, data: Any, patience: Patience) -> None:
        super().__init__(data)
        self.patience = patience


class WaitingEndpoint(Endpoint):
    """An endpoint whose method is called again while it returns EmptyResponse and time is left.

    `is_shared(request)`: others wait for the same, and are asked next; take no more than one.
    An answer may carry `undo`, called when the client has left before it was made.

    Between two calls the request holds no thread and no database connection. Each call checks
    the key again, so a key that is revoked while its request waits is refused. Under WSGI,
    where waiting would hold a thread, the first answer is sent at once.
    """

    #: Where the endpoint names its channel here, nothing that is announced while it looks for
    #: the first time is missed.
    channel: ClassVar[str] = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return an async view around the usual one."""
        once = super().as_view(**initkwargs)

        async def view(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            def look(is_shared: bool) -> HttpResponseBase:
                # An attribute, for DRF hands on what it does not know itself.
                request.is_shared = is_shared  # type: ignore[attr-defined]
                return _complete(once, request, kwargs)

            return await _Waiting(cls.channel, look, request).answer()

        # What DRF's own view carries: the schema generator finds the class by it.
        view.cls = cls  # type: ignore[attr-defined]
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined]
        view.once = once  # type: ignore[attr-defined]
        return view


class _Waiting:
    """One request that looks until there is something, or its time is over."""

    def __init__(
        self, channel: str, look: Callable[[bool], HttpResponseBase], request: HttpRequest
    ) -> None:
        self._channel, self._look, self._request = channel, look, request
        self._has_waited = False
        self._started = time.monotonic()
        self._share = 1 - random.uniform(0, _SCATTER)  # noqa: S311

    async def answer(self) -> HttpResponseBase:
        """Return the first answer that is not empty, or the last one."""
        board = wakeups(self._channel) if self._channel else None
        call = Call()
        kind: Hashable = object()
        while True:
            is_shared = board is not None and board.others_wait(call)
            since = board.mark() if board else 0
            # After a look that failed, somebody else must have his.
            found = True
            try:
                response = await _undone_if_dropped(in_thread(self._look)(is_shared))
                patience: Patience | None = getattr(response, "patience", None)
                found = patience is None
                kind = kind if patience is None or patience.kind is None else patience.kind
            finally:
                if board:
                    board.hand_on(call, kind, found=found)
            left_s = self._left_s(patience)
            if patience is None or left_s <= 0:
                return response
            board = wakeups(patience.channel)
            waiter = Waiter(
                frozenset(patience.words),
                kind,
                patience.ticket,
                patience.look_out,
                patience.load,
            )
            step_s = left_s if patience.look_out else min(left_s, FLOOR_S)
            woken = await self._wait(board, waiter, step_s, since)
            if held.is_over or (woken is None and step_s >= left_s):
                return response
            call = woken or Call()

    async def _wait(self, board: Wakeups, waiter: Waiter, step_s: float, since: int) -> Call | None:
        key_id: int = self._request.api_key.pk  # type: ignore[attr-defined]
        if not self._has_waited:
            held.check(key_id)
            self._has_waited = True
        with held.hold(key_id, lambda: waiter.wake(Call())):
            return await board.wait(waiter, step_s, since)

    def _left_s(self, patience: Patience | None) -> float:
        if patience is None or held.is_over:
            return 0.0
        share = self._share if patience.look_out else 1.0
        return patience.wait_s * share - (time.monotonic() - self._started)


def is_shared(request: HttpRequest) -> bool:
    """Tell whether others wait for what this request was woken for."""
    return getattr(request, "is_shared", False)


async def _undone_if_dropped(call: Awaitable[HttpResponseBase]) -> HttpResponseBase:
    """Await an answer; when the client leaves meanwhile, undo what it would have told."""
    running = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(_undo)
        raise


def _undo(running: asyncio.Future[HttpResponseBase]) -> None:
    undo = None if running.cancelled() or running.exception() else running.result()
    undo = getattr(undo, "undo", None)
    if undo is not None:
        task = asyncio.ensure_future(in_thread(undo)())
        _undoing.add(task)
        task.add_done_callback(_undoing.discard)


#: The event loop itself keeps only weak references to tasks.
_undoing: set[asyncio.Future[None]] = set()


def _complete(
    once: Callable[..., Any], request: HttpRequest, kwargs: dict[str, Any]
) -> HttpResponseBase:
    response: HttpResponseBase = once(request, **kwargs).render()
    return response
