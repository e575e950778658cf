"""Long-poll: an endpoint that is asked again and again until it has something to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint
from opscore.api.threads import in_thread
from opscore.api.wakeups import wakeups

#: The longest time between two looks at the database, should an announcement be lost.
FLOOR_S = 2.0


@dataclass(frozen=True)
class Patience:
    """What an answer that is still empty waits for."""

    channel: str
    words: Collection[str]
    """Announcements on the channel that make it worth to look again."""
    wait_s: float
    """Seconds since the request came after which the empty answer is sent."""


class EmptyResponse(Response):
    """An answer that may be better a little later."""

    def __init__(self, data: Any, patience: Patience) -> None:
        super().__init__(data)
        self.patience = patience


class WaitingEndpoint(Endpoint):
    """An endpoint whose method is called again while it returns EmptyResponse and time is left.

    An answer may carry `undo`, called when the client has left before it was made.

    Between two calls the request holds no thread and no database connection. Each call checks
    the key again, so a key that is revoked while its request waits is refused. Under WSGI,
    where waiting would hold a thread, the first answer is sent at once.
    """

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return an async view around the usual one."""
        once = super().as_view(**initkwargs)

        async def view(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            started = time.monotonic()
            while True:
                response = await _undone_if_dropped(in_thread(_complete)(once, request, kwargs))
                patience = getattr(response, "patience", None)
                left = patience.wait_s - (time.monotonic() - started) if patience else 0
                if patience is None or left <= 0:
                    return response
                await wakeups(patience.channel).wait(patience.words, min(left, FLOOR_S))

        # What DRF's own view carries: the schema generator finds the class by it.
        view.cls = cls  # type: ignore[attr-defined]
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined]
        view.once = once  # type: ignore[attr-defined]
        return view


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
