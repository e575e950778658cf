"""Work that many requests want at the same moment, done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from opscore.api.threads import in_thread

V = TypeVar("V")


class Together(Generic[V]):
    """Whoever asks for what is being done already gets what comes of it. One event loop only."""

    def __init__(self) -> None:
        self._doing: dict[Hashable, asyncio.Future[V]] = {}

    async def do(self, name: Hashable, work: Callable[[], V]) -> V:
        """Return what `work` returns, called in a thread; raises what it raises."""
        doing = self._doing.get(name)
        if doing is None:
            doing = self._doing[name] = asyncio.ensure_future(in_thread(work)())
            doing.add_done_callback(lambda done: self._forget(name, done))
        # The others still want it where this client leaves.
        return await asyncio.shield(doing)

    def _forget(self, name: Hashable, done: asyncio.Future[Any]) -> None:
        del self._doing[name]
        # Where all clients have left nobody asks, and asyncio would complain.
        if not done.cancelled():
            done.exception()
