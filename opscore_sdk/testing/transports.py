"""How httpx reaches the in-memory platform without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import httpx

from opscore_sdk.listening import MEDIA_TYPE
from opscore_sdk.testing.routing import Reply

if TYPE_CHECKING:
    from opscore_sdk.testing.platform import MemoryPlatform

#: The longest time between two looks: retries and timeouts come by time alone.
LOOK_EVERY_S = 0.1


class MemoryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for clients of either kind; a long poll waits as it does on the real one."""

    def __init__(self, platform: MemoryPlatform) -> None:
        self._platform = platform

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, blocking the caller while the answer may still become better."""
        request.read()
        changed, look = threading.Event(), self._asked(request)
        with self._platform.listening(changed.set):
            while True:
                changed.clear()
                reply = look()
                if reply is not None:
                    return self._response(reply)
                changed.wait(LOOK_EVERY_S)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Do the same without blocking the loop; a call that is given up takes nothing."""
        await request.aread()
        loop, changed, look = asyncio.get_running_loop(), asyncio.Event(), self._asked(request)

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._platform.listening(wake):
            while True:
                changed.clear()
                reply = look()
                if reply is not None:
                    return self._response(reply)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_EVERY_S)

    def _response(self, reply: Reply) -> httpx.Response:
        if reply.state is None:
            return response(reply)
        headers = {"Content-Type": MEDIA_TYPE}
        return httpx.Response(200, headers=headers, stream=_Frames(self._platform, reply))

    def _asked(self, request: httpx.Request) -> Callable[[], Reply | None]:
        return self._platform.asked(
            request.method, str(request.url), request.headers, request.content
        )


class _Frames(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a stream, for clients of either kind."""

    def __init__(self, platform: MemoryPlatform, reply: Reply) -> None:
        self._platform, self._frames = platform, platform.frames(reply)

    def __iter__(self) -> Iterator[bytes]:
        changed = threading.Event()
        with self._platform.listening(changed.set):
            while (frame := self._frames.next()) is not None:
                if frame:
                    yield frame
                changed.wait(LOOK_EVERY_S)
                changed.clear()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._platform.listening(wake):
            while (frame := self._frames.next()) is not None:
                if frame:
                    yield frame
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_EVERY_S)
                changed.clear()


def response(reply: Reply) -> httpx.Response:
    """Return a reply as httpx has it."""
    if reply.status == 204:
        return httpx.Response(204)
    headers = {"Retry-After": "1"} if reply.status == 503 else {}
    return httpx.Response(reply.status, json=reply.body, headers=headers)
