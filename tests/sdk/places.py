"""The two places that the shared suite runs at: a live platform, and the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opscore_sdk import AsyncClient, Client
from opscore_sdk.testing import MemoryPlatform
from tests.live_server import Server


@dataclass
class Place:
    """Where a test runs."""

    client: Callable[[], Client]
    async_client: Callable[[], AsyncClient]
    memory: MemoryPlatform | None = None


def live(server: Server) -> Place:
    """Return the live platform."""
    return Place(
        lambda: Client(server.url, server.key), lambda: AsyncClient(server.url, server.key)
    )


def in_memory(platform: MemoryPlatform) -> Place:
    """Return the platform in memory."""
    return Place(platform.client, platform.async_client, platform)
