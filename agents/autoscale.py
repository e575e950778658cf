"""How many agents a pool should have, by how long its oldest task has waited. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: After a growth the pool must show what it can do before it grows again.
SETTLE_S = 2.0
#: A pool shrinks after this time without need for what it has.
CALM_S = 60.0
#: Waits below this share of `queue_wait_s` are none: between the two the pool stays as it is.
CALM_SHARE = 0.25


@dataclass(frozen=True)
class Autoscale:
    """The rule of a spec: between `min` and `max` agents, more when a task waits too long."""

    min: int
    max: int
    queue_wait_s: float


@dataclass(frozen=True)
class Pressure:
    """What the pool sees now."""

    waited_s: float
    """Age of the oldest queued task that it could take; 0: there is none."""
    busy: int
    """How many of its agents have a task."""


@dataclass(frozen=True)
class Size:
    """The present size and what is remembered of the way there. Times are monotonic seconds."""

    agents: int
    changed_at: float = float("-inf")
    calm_since: float | None = None


def decide(rule: Autoscale, size: Size, pressure: Pressure, now: float) -> Size:
    """Return the next size: it grows by half at once, and shrinks by one after a calm minute.

    A size outside the rule (the file was changed) is brought inside at once.
    """
    inside = min(max(size.agents, rule.min), rule.max)
    if inside != size.agents:
        return Size(inside, changed_at=now)
    if pressure.waited_s >= rule.queue_wait_s:
        return _grown(rule, replace(size, calm_since=None), now)
    is_calm = pressure.waited_s < rule.queue_wait_s * CALM_SHARE and pressure.busy < size.agents
    if not is_calm:
        return replace(size, calm_since=None)
    since = now if size.calm_since is None else size.calm_since
    if size.agents > rule.min and now - since >= CALM_S:
        return Size(size.agents - 1, changed_at=now, calm_since=since + CALM_S / 4)
    return replace(size, calm_since=since)


def _grown(rule: Autoscale, size: Size, now: float) -> Size:
    if size.agents >= rule.max or now - size.changed_at < SETTLE_S:
        return size
    step = max(1, size.agents // 2)
    return Size(min(rule.max, size.agents + step), changed_at=now)
