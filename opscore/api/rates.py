"""How many requests a key may send: token buckets in the database, drawn from in handfuls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from opscore.api.auth import is_executors
from opscore.config import Rate, load_config, rate_of
from opscore.database import query
from opscore.errors import TooManyRequestsError
from opscore.models import ApiKey

if TYPE_CHECKING:
    # DRF's views import this module through its settings.
    from rest_framework.views import APIView

#: The largest part of a limit that one process draws at once: what it keeps is lost to others.
_LARGEST_SHARE = 20
_DRAW = """
INSERT INTO opscore_ratebucket AS b (subject, tokens, granted, filled_at)
VALUES (%(subject)s, %(count)s - %(want)s, %(want)s, clock_timestamp())
ON CONFLICT (subject) DO UPDATE SET (tokens, granted, filled_at) = (
    SELECT a.tokens - least(%(want)s, floor(a.tokens)), least(%(want)s, floor(a.tokens)), a.at
      FROM (SELECT clock_timestamp() AS at, least(%(count)s, b.tokens + %(count)s / %(period_s)s
                   * greatest(0, extract(epoch FROM clock_timestamp() - b.filled_at))) AS tokens) a)
RETURNING granted::int AS granted, tokens::float8 AS tokens"""


@dataclass
class _Share:
    """What this process has drawn for one key and not yet spent."""

    tokens: int = 0
    want: int = 1
    drawn_at: float = float("-inf")
    refused_until: float = float("-inf")


class Buckets:
    """The shares of this process.

    Whoever sends much draws more at once, up to a twentieth of its limit: a request costs a
    statement only where they are rare. Whoever is refused costs none until there is a token again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._shares: dict[str, _Share] = {}

    def take(self, subject: str, rate: Rate) -> float:
        """Take one token; return the seconds to wait for it, 0 when it was there."""
        now = time.monotonic()
        with self._lock:
            share = self._shares.setdefault(subject, _Share())
            if share.tokens > 0:
                share.tokens -= 1
                return 0.0
            if now < share.refused_until:
                return share.refused_until - now
            share.want = _next_want(share, rate, now)
            share.drawn_at, want = now, share.want
        granted, wait_s = _draw(subject, rate, want)
        with self._lock:
            if granted:
                share.tokens += granted - 1
                return 0.0
            share.refused_until = now + wait_s
        return wait_s

    def forget(self) -> None:
        """Empty this process's memory (tests change the database)."""
        with self._lock:
            self._shares.clear()


buckets = Buckets()


class KeyRate(BaseThrottle):
    """Holds each key to OPSCORE_RATE_LIMIT; in the executor protocol to its own limit."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Raise TooManyRequestsError when the key's bucket is empty."""
        key: object = request.auth
        inner = request._request  # noqa: SLF001 - DRF's name for Django's request
        # An endpoint that waits asks again and again within one request.
        if not isinstance(key, ApiKey) or getattr(inner, "is_counted", False):
            return True
        inner.is_counted = True  # type: ignore[attr-defined]
        is_agents = is_executors(view, request.method or "", key)
        text = load_config().agent_rate_limit if is_agents else load_config().rate_limit
        # The key of an attempt is in no table: its task stands for it.
        name = key.attempt[0].hex if key.attempt else key.pk
        if text and (wait_s := buckets.take(f"{name} {is_agents:d}", _parsed(text))):
            raise TooManyRequestsError(f"This key may send {text} requests", wait_s)
        return True


_parsed = cache(rate_of)


def _next_want(share: _Share, rate: Rate, now: float) -> int:
    if now - share.drawn_at >= 1:
        return max(1, share.want // 2)
    return max(1, min(share.want * 2, rate.count // _LARGEST_SHARE))


def _draw(subject: str, rate: Rate, want: int) -> tuple[int, float]:
    """Return how many tokens were drawn, and how long it takes until there is one."""
    params = {"subject": subject, "want": float(want), "count": float(rate.count)}
    [row] = query(_DRAW, params | {"period_s": rate.period_s})
    return row["granted"], (1 - row["tokens"]) * rate.period_s / rate.count
