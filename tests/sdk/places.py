"""The two places that the shared suite runs at: a live platform, and the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opscore.database import query
from opscore_sdk import AsyncClient, Client
from opscore_sdk.testing import MemoryPlatform
from tests.live_server import Server


@dataclass
class Place:
    """Where a test runs."""

    client: Callable[[], Client]
    async_client: Callable[[], AsyncClient]
    later: Callable[[float], None]
    """Lets so many seconds pass for every message."""
    memory: MemoryPlatform | None = None


def live(server: Server) -> Place:
    """Return the live platform."""
    return Place(
        lambda: Client(server.url, server.key),
        lambda: AsyncClient(server.url, server.key),
        _age_rows,
    )


def in_memory(platform: MemoryPlatform) -> Place:
    """Return the platform in memory."""

    def later(seconds: float) -> None:
        for message in platform.sharing.messages.values():
            message.expires_at -= seconds
            message.leased_until -= seconds

    return Place(platform.client, platform.async_client, later, platform)


def _age_rows(seconds: float) -> None:
    query(
        """UPDATE tasks_message SET expires_at = expires_at - make_interval(secs => %(s)s),
                  lease_until = lease_until - make_interval(secs => %(s)s)""",
        {"s": seconds},
    )
