"""Wakes supervisors at once when a row that concerns them has changed."""

from __future__ import annotations

from hashlib import sha256

from opscore.database import query

CHANNEL = "opscore_agents"


def channel_of(host: str) -> str:
    """Return the channel that the supervisor of one host hears alone."""
    return f"{CHANNEL}_{sha256(host.encode()).hexdigest()[:16]}"


def publish(host: str = "") -> None:
    """Tell the supervisor of a host, else every one, to look; it comes with the commit."""
    channel = channel_of(host) if host else CHANNEL
    query("SELECT pg_notify(%(channel)s, '')", {"channel": channel})
