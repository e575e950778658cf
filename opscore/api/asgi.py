"""The web application under ASGI: bounded bodies, no idle thread behind a waiting request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections

from opscore.api import problems
from opscore.api.middleware import is_page
from opscore.config import load_config
from opscore.ids import uuid7

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class _TooLarge(Exception):  # noqa: N818 - never leaves this file
    pass


class Application(ASGIHandler):
    """Django's handler with a limit on bodies, also on chunked ones that name no length."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; refuse its body as soon as it is above the limit."""
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        limit = load_config().max_body_bytes
        if _announced(scope) > limit:
            return await _refuse(send)
        try:
            await self._serve(scope, _bounded(receive, limit), send)
        except _TooLarge:
            await _refuse(send)
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


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _bounded(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def bounded() -> Mapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _TooLarge
        return message

    return bounded


async def _refuse(send: Send) -> None:
    with structlog.contextvars.bound_contextvars(request_id=uuid7().hex):
        response = problems.too_large().respond()
    headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    headers += [
        (b"content-length", str(len(response.content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
