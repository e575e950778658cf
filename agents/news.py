"""Wakes supervisors at once when a row that concerns them has changed."""

from __future__ import annotations

from opscore.database import query

CHANNEL = "opscore_agents"


def publish() -> None:
    """Tell every supervisor to look; PostgreSQL delivers it when the transaction commits."""
    query("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})
