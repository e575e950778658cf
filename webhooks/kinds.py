"""What a webhook can be told of, and the patterns that say so. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from opscore.errors import Problem

#: First words of all kinds of events.
AREAS = (
    "agent",
    "approval",
    "breaker",
    "message",
    "pool",
    "report",
    "route",
    "run",
    "secret",
    "task",
    "webhook",
    "write",
)
#: What `POST /webhooks/{ref}/test` sends, whatever the webhook wants.
TEST = "webhook.test"
ALL = "*"
MAX_PATTERNS = 50
_PATTERN = re.compile(r"([a-z]+)\.(\*|[a-z_]{1,40})")


def problems_of(patterns: Sequence[str]) -> list[Problem]:
    """Return what is wrong with the patterns of a webhook, by their places."""
    if not 0 < len(patterns) <= MAX_PATTERNS:
        return [Problem(f"1 to {MAX_PATTERNS} patterns are expected", "events")]
    found = [(place, _wrong(pattern)) for place, pattern in enumerate(patterns)]
    return [Problem(why, f"events[{place}]") for place, why in found if why]


def _wrong(pattern: str) -> str:
    if pattern == ALL:
        return ""
    parts = _PATTERN.fullmatch(pattern)
    if parts is None:
        return "a kind as run.completed, all of an area as task.*, or * is expected"
    if parts[1] in AREAS:
        return ""
    near = difflib.get_close_matches(parts[1], AREAS, n=1)
    hint = f"did you mean {near[0]}.{parts[2]}?" if near else f"known: {', '.join(AREAS)}"
    return f"nothing is called {parts[1]}.…; {hint}"
