"""An agent that runs in the test's own process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opscore_sdk.agent import Agent
from opscore_sdk.client import AsyncClient
from opscore_sdk.testing.platform import MemoryPlatform


@contextmanager
def running(
    agent: Agent, platform: MemoryPlatform | Callable[[], AsyncClient]
) -> Iterator[threading.Thread]:
    """Run an agent in a thread while the block lasts, then have it finish and sign off.

    `platform` may also make the client that the agent uses. What the agent raises is raised at
    the end of the block.
    """
    made = platform.async_client if isinstance(platform, MemoryPlatform) else platform
    raised: list[BaseException] = []

    async def live() -> None:
        async with made() as client:
            await agent.run_async(client, catch_signals=False)

    def work() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True, name=f"agent-{agent.name}")
    thread.start()
    try:
        yield thread
    finally:
        while thread.is_alive() and not agent.is_running:
            thread.join(0.01)
        agent.stop()
        thread.join()
    if raised:
        raise raised[0]
