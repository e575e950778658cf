"""Messages for an agent: taken, handed to its functions, acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from opscore_sdk import calls
from opscore_sdk.asking import Talk
from opscore_sdk.errors import ConflictError, NotFoundError
from opscore_sdk.protocol import Message
from opscore_sdk.threads import in_thread

if TYPE_CHECKING:
    from opscore_sdk.agent import Handler
    from opscore_sdk.client import AsyncClient

log = logging.getLogger("opscore_sdk")
T = TypeVar("T")

_WAIT_S = 20.0
_LEASE_S = 60.0


class Persist(Protocol):
    """Holds a talk, again and again while the platform is away."""

    def __call__(self, talk: Callable[[], Talk[T]], /) -> Awaitable[T]: ...


class Mail:
    """Takes the messages of an agent, one after the other."""

    def __init__(
        self, listeners: Mapping[str, Handler], client: AsyncClient, persist: Persist
    ) -> None:
        self._listeners, self._client, self._persist = listeners, client, persist
        self.delivery: asyncio.Task[None] | None = None
        """The message that a function has, until it is acknowledged or given up."""

    async def take_for_ever(
        self, session: Callable[[], str], renew: Callable[[str], Awaitable[None]]
    ) -> None:
        """Take messages until cancelled; the delivery under way goes on even then."""
        while True:
            current = session()
            try:
                for message in await self._persist(lambda: _receive(current)):  # noqa: B023 - awaited here
                    self.delivery = asyncio.create_task(self._deliver(current, message))
                    await asyncio.shield(self.delivery)
            except ConflictError:
                await renew(current)

    async def _deliver(self, session: str, message: Message) -> None:
        handler = self._listeners.get(message.topic) or self._listeners.get("")
        if handler is not None:
            try:
                await _call(handler, message)
            except Exception:
                log.exception("the message %s failed; it comes again", message.id)
                return
        try:
            await self._persist(
                lambda: calls.executor.ack_message(session, message.id, message.receipt)
            )
        except (ConflictError, NotFoundError) as error:
            log.info("the message %s was not acknowledged: %s", message.id, error)


def _receive(session: str) -> Talk[list[Message]]:
    # One at a time: a slow function must not sit on the leases of others.
    return calls.executor.receive_messages(session, limit=1, wait_s=_WAIT_S, lease_s=_LEASE_S)


async def _call(handler: Handler, message: Message) -> Any:
    if handler.is_async:
        return await handler.function(message)
    return await asyncio.shield(in_thread(handler.function, message))
