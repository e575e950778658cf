"""The web application under ASGI: bounded bodies, no idle thread behind a waiting request."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections

from opscore.api import problems
from opscore.api.gate import header, wrong_with
from opscore.api.headers import protect
from opscore.api.held import end_with_signals, held
from opscore.api.middleware import is_page, sane_id
from opscore.api.problems import Failure
from opscore.config import load_config

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_LEFT: Mapping[str, Any] = {"type": "http.disconnect"}
_CUT_OFF = Failure(400, "The body ended before it was complete.")
#: Submits of 10,000 tasks and lists with rare matches among millions take seconds, not more.
_LOCK_MS, _STATEMENT_MS = 5_000, 30_000


class Application(ASGIHandler):
    """Django's handler with limits on bodies: their size, also of chunked ones, and their time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; refuse its body as soon as it is above a limit."""
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        if scope["type"] != "http":
            # Django knows no websockets; none of its errors, and nothing without a key.
            return await send({"type": "websocket.close", "code": 1008})
        if failure := wrong_with(scope):
            return await _refuse(scope, send, failure)
        body, answer = _Body(receive), _Answer(send)
        await self._serve(scope, body.receive, answer.send)
        if body.failure and not answer.has_begun:
            await _refuse(scope, send, body.failure)
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_page(scope["path"]):
            await self._serve_page(scope, receive, send)
        else:
            # Django's __call__ would keep a thread for as long as the request lasts; API views
            # run in `opscore.api.threads`, and those that wait hold none.
            await self.handle(scope, receive, send)

    async def _serve_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with ThreadSensitiveContext():
            try:
                await self.handle(scope, receive, send)
            finally:
                # The request's thread ends here, but its connection would stay with the server.
                await sync_to_async(connections.close_all)()


def bound_statements(connection: Any, **_: Any) -> None:
    """Have a new connection of a web process give up in time: its threads are few.

    Whoever asked gets a 503 and may ask again.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {_LOCK_MS}; SET statement_timeout = {_STATEMENT_MS}")


class _Body:
    """What comes in. To Django a body that is refused looks like a client that left."""

    def __init__(self, receive: Receive) -> None:
        config = load_config()
        self._receive = receive
        self._left = config.max_body_bytes
        self._give_up_at = asyncio.get_running_loop().time() + config.body_timeout_s
        self._is_whole = False
        self.failure: Failure | None = None

    async def receive(self) -> Mapping[str, Any]:
        """Return the next message."""
        if self._is_whole:
            # From now on only the news that the client has left.
            return await self._receive()
        message = await self._in_time()
        self._left -= len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            # Whoever sent chunks that are none is still there.
            self.failure = self.failure or _CUT_OFF
        elif self._left < 0:
            self.failure = problems.too_large()
        return _LEFT if self.failure else message

    async def _in_time(self) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout_at(self._give_up_at):
                return await self._receive()
        except TimeoutError:
            limit = load_config().body_timeout_s
            detail = f"The body did not arrive within {limit:g} s (OPSCORE_BODY_TIMEOUT_S)."
            self.failure = Failure(408, detail)
            return _LEFT


class _Answer:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def send(self, message: Mapping[str, Any]) -> None:
        self.has_begun = True
        await self._send(message)


async def _refuse(scope: Scope, send: Send, failure: Failure) -> None:
    request_id = sane_id(header(scope, b"x-request-id").decode("latin-1"))
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = failure.respond()
        protect(response, "", is_page=False)
    headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    headers += [
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(response.content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": failure.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else response.content
    await send({"type": "http.response.body", "body": body})


def _allow_connections() -> None:
    """Let this process have as many descriptors as its account may: often 1,024 by default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _allow_connections()
            end_with_signals()
        else:
            held.end_all()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
