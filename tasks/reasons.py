"""What keeps a task where it is, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: Names in one sentence; the rest is counted.
SHOWN = 5


@dataclass(frozen=True)
class Reason:
    """One thing that keeps a task where it is."""

    code: str
    """A word for programs: needs, paused, no_agent, all_busy, retry_at, …"""
    message: str
    until: datetime | None = None
    """When it ends by itself, if that is known."""
    refs: Mapping[str, Any] = field(default_factory=dict)
    """Ids and names of what is meant."""


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
