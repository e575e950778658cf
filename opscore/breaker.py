"""The rule of a circuit breaker, as a frozen value; the time and the outcomes are arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from opscore.backoff import backoff

STATES = ("closed", "open", "half_open")
#: A half-open breaker closes by a success when this many attempts may be under way at once.
MAX_PLACES = 8
#: The longest that a breaker stays open by itself, unless its own first pause is longer.
MAX_COOLDOWN_S = 600.0
#: The shortest and the longest time that an error may ask for (`retry_after_s`).
MIN_HOLD_S, MAX_HOLD_S = 1.0, 3600.0
#: The part of a pause that chance decides, so that many breakers do not probe together.
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Rule:
    """When a breaker opens, and for how long."""

    threshold: float = 0.5
    """Opens when this part of the attempts of its window failed."""
    min_calls: int = 5
    """Never opens by fewer attempts than these."""
    window_s: float = 60.0
    """How long attempts are counted, from a first failure on."""
    cooldown_s: float = 30.0
    """How long it stays open the first time; each time in a row doubles it."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Where a breaker stands."""

    since: datetime
    """When its state began."""
    state: str = "closed"
    until: datetime | None = None
    """When an open one lets a probe through; None: when somebody closes it."""
    window_at: datetime | None = None
    """When a closed one began to count; None: nothing has failed lately."""
    calls: int = 0
    failures: int = 0
    places: int = 0
    """How many attempts a half-open one lets be under way at once."""
    openings: int = 0
    """How often it opened since it was closed last."""

    @property
    def is_by_hand(self) -> bool:
        """Tell whether only a person can end this state."""
        return self.state == "open" and self.until is None


def succeeded(breaker: Breaker, rule: Rule, *, started_at: datetime, now: datetime) -> Breaker:
    """Count an attempt that completed.

    A closed breaker counts only while something has failed lately; a half-open one doubles its
    places and closes above MAX_PLACES.
    """
    if breaker.state == "open" or started_at < breaker.since:
        return breaker
    if breaker.state == "closed":
        if not _counts(breaker, rule, now):
            return breaker
        return replace(breaker, calls=breaker.calls + 1)
    if breaker.places * 2 > MAX_PLACES:
        return closed(now)
    return replace(breaker, places=breaker.places * 2)


def failed(
    breaker: Breaker, rule: Rule, *, started_at: datetime, now: datetime, rng: Random
) -> Breaker:
    """Count an attempt that failed.

    A closed breaker opens when enough of its window failed; a half-open one halves its places
    and opens again when none is left. What began before the present state says nothing about it.
    """
    if breaker.state == "open" or started_at < breaker.since:
        return breaker
    if breaker.state == "half_open":
        if breaker.places > 1:
            return replace(breaker, places=breaker.places // 2)
        return _open(breaker, rule, now, rng)
    if not _counts(breaker, rule, now):
        breaker = replace(breaker, window_at=now, calls=0, failures=0)
    counted = replace(breaker, calls=breaker.calls + 1, failures=breaker.failures + 1)
    if counted.calls >= rule.min_calls and counted.failures >= rule.threshold * counted.calls:
        return _open(counted, rule, now, rng)
    return counted


def held(breaker: Breaker, wait_s: float, *, now: datetime) -> Breaker:
    """Open at once because the other side asked to be left alone for `wait_s` seconds."""
    if breaker.is_by_hand:
        return breaker
    until = now + timedelta(seconds=min(max(wait_s, MIN_HOLD_S), MAX_HOLD_S))
    if breaker.state == "open":
        return replace(breaker, until=max(until, breaker.until or until))
    return Breaker(now, "open", until, openings=max(breaker.openings, 1))


def probing(breaker: Breaker, *, now: datetime) -> Breaker:
    """Let one probe through when the time of an open breaker is over."""
    if breaker.state != "open" or breaker.until is None or breaker.until > now:
        return breaker
    return Breaker(now, "half_open", places=1, openings=breaker.openings)


def opened(breaker: Breaker, *, until: datetime | None, now: datetime) -> Breaker:
    """Open by hand: until a time, or (None) until it is closed by hand."""
    return Breaker(now, "open", until, openings=max(breaker.openings, 1))


def closed(now: datetime) -> Breaker:
    """Return a breaker that is closed and remembers nothing."""
    return Breaker(now)


def _counts(breaker: Breaker, rule: Rule, now: datetime) -> bool:
    began = breaker.window_at
    return began is not None and now < began + timedelta(seconds=rule.window_s)


def _open(breaker: Breaker, rule: Rule, now: datetime, rng: Random) -> Breaker:
    openings = breaker.openings + 1
    pause_s = backoff(
        openings,
        initial_s=rule.cooldown_s,
        factor=2.0,
        max_s=max(MAX_COOLDOWN_S, rule.cooldown_s),
        jitter=_JITTER,
        rng=rng,
    )
    return Breaker(now, "open", now + timedelta(seconds=pause_s), openings=openings)
