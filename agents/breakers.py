"""Circuit breakers: one row for each agent or resource that ever failed, seen by every process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from django.db import transaction

from agents import news, sessions
from agents.models import Agent, AgentSession, Breaker
from agents.specs import RESERVED
from opscore import breaker as rule_of
from opscore.breaker import Rule
from opscore.database import Row, after_commit, query
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem
from opscore.logs import get_logger
from opscore.models import Event, Project

log = get_logger(__name__)
_rng = Random()  # noqa: S311 - jitter, no secret

KINDS = ("agent", "resource")
#: `since` of a breaker that never changed: every attempt began later.
NEVER = datetime.fromtimestamp(0, UTC)
#: Length of the name of a resource.
MAX_NAME = 80
#: How long the answer of `watched` is used again: it is asked at every completion.
_WATCHED_CACHE_S = 1.0

#: What one attempt, or a person, does to a breaker: the present one, its rule, the time.
Change = Callable[[rule_of.Breaker, Rule, datetime], rule_of.Breaker]


@dataclass(frozen=True)
class Watched:
    """What has a breaker that is not at rest: completions of these are counted."""

    sessions: frozenset[UUID]
    resources: frozenset[tuple[int, str]]
    """(project, name)."""


_watched: tuple[float, Watched] = (float("-inf"), Watched(frozenset(), frozenset()))


# ------------------------------------------------------------ what attempts tell
def attempt_failed(
    project_id: int,
    kind: str,
    name: str,
    *,
    started_at: datetime,
    reason: str,
    retry_after_s: float | None = None,
) -> bool:
    """Count a failed attempt; return whether the breaker let something change.

    With `retry_after_s` the breaker opens at once for that long.
    """

    def act(old: rule_of.Breaker, rule: Rule, now: datetime) -> rule_of.Breaker:
        if retry_after_s is not None:
            return rule_of.held(old, retry_after_s, now=now)
        return rule_of.failed(old, rule, started_at=started_at, now=now, rng=_rng)

    return _change(project_id, kind, name, act, reason=reason)


def attempt_succeeded(project_id: int, kind: str, name: str, *, started_at: datetime) -> bool:
    """Count an attempt that completed; return whether the breaker let something change."""
    return _change(
        project_id,
        kind,
        name,
        lambda old, rule, now: rule_of.succeeded(old, rule, started_at=started_at, now=now),
        make=False,
    )


def agent_of(session_id: UUID) -> tuple[int, str] | None:
    """Return project and name of a session's agent; None for the platform's own ones."""
    found = AgentSession.objects.filter(pk=session_id).exclude(agent__spec=RESERVED)
    return found.values_list("project_id", "agent__name").first()


def watched() -> Watched:
    """Return whose completions count now; the answer may be a second old."""
    global _watched  # noqa: PLW0603 - one cache for the process
    asked_at, found = _watched
    if time.monotonic() - asked_at < _WATCHED_CACHE_S:
        return found
    rows = query(_WATCHED, {})
    found = Watched(
        frozenset(row["session"] for row in rows if row["session"]),
        frozenset((row["project"], row["name"]) for row in rows if row["kind"] == "resource"),
    )
    _watched = (time.monotonic(), found)
    return found


def forget() -> None:
    """Have `watched` ask anew."""
    global _watched  # noqa: PLW0603 - one cache for the process
    _watched = (float("-inf"), _watched[1])


# ------------------------------------------------------------ what time tells
def let_probes_through() -> bool:
    """Make those breakers half open whose pause is over; return whether there was one."""
    due = query(_DUE, {})
    for row in due:
        _change(
            row["project_id"],
            row["kind"],
            row["name"],
            lambda old, _, now: rule_of.probing(old, now=now),
            make=False,
        )
    return bool(due)


def not_closed(project_id: int, resources: Sequence[str]) -> list[Row]:
    """Return the breakers of these resources that hold tasks back: id, name, state, until, reason."""
    return query(_NOT_CLOSED, {"project": project_id, "names": list(resources)})


# ------------------------------------------------------------ what people do
def find(project: Project, kind: str, name: str) -> Breaker:
    """Return a breaker, also one that has no row yet: closed. Raises NotFoundError."""
    _check(project, kind, name)
    found = Breaker.objects.filter(project=project, kind=kind, name=name).first()
    return found or Breaker(project=project, kind=kind, name=name, since=NEVER)


def open_by_hand(
    project: Project,
    kind: str,
    name: str,
    *,
    reason: str = "",
    for_s: float | None = None,
    actor: str = "",
) -> Breaker:
    """Open a breaker until it is closed by hand, or (`for_s`) until a probe may go.

    Raises NotFoundError, and ConflictError for the platform's own agents.
    """

    def act(old: rule_of.Breaker, rule: Rule, now: datetime) -> rule_of.Breaker:
        until = None if for_s is None else now + timedelta(seconds=for_s)
        return rule_of.opened(old, until=until, now=now)

    _check(project, kind, name)
    _change(project.pk, kind, name, act, reason=reason, actor=actor)
    return find(project, kind, name)


def close_by_hand(project: Project, kind: str, name: str, *, actor: str = "") -> Breaker:
    """Close a breaker and forget its failures. Harmless when it is closed.

    Raises NotFoundError, and ConflictError for the platform's own agents.
    """
    _check(project, kind, name)
    _change(
        project.pk,
        kind,
        name,
        lambda old, rule, now: rule_of.closed(now),
        reason="closed by hand",
        actor=actor,
        make=False,
    )
    return find(project, kind, name)


def configure(
    project: Project, kind: str, name: str, settings: Mapping[str, Any], actor: str = ""
) -> Breaker:
    """Change when the breaker opens: fields of `opscore.breaker.Rule`; those not named stay.

    Raises NotFoundError, and ConflictError for the platform's own agents.
    """
    _check(project, kind, name)
    with transaction.atomic():
        Breaker.objects.get_or_create(project=project, kind=kind, name=name)
        mine = Breaker.objects.filter(project=project, kind=kind, name=name)
        if settings:
            mine.update(**settings)
        data = {"kind": kind, "name": name, **settings}
        _note(project.pk, "breaker.configured", kind, data, actor)
    return find(project, kind, name)


def _check(project: Project, kind: str, name: str) -> None:
    if kind not in KINDS:
        raise NotFoundError(f"There is no kind of breaker {kind!r}: it is agent or resource.")
    if kind == "agent":
        agent = Agent.objects.filter(project=project, name=name).first()
        if agent is None:
            raise NotFoundError(f"There is no agent {name!r}.")
        if agent.spec == RESERVED:
            raise ConflictError(f"The agent {name!r} does the platform's own work.")
    elif len(name) > MAX_NAME:
        problem = Problem(f"at most {MAX_NAME} characters", "name")
        raise InvalidError("The name of the resource is too long.", [problem])


# ------------------------------------------------------------ rows
def _change(
    project_id: int,
    kind: str,
    name: str,
    act: Change,
    *,
    reason: str = "",
    actor: str = "",
    make: bool = True,
) -> bool:
    """Apply a change under the lock of the row; return whether state or places differ by it."""
    with transaction.atomic():
        row = _locked(project_id, kind, name, make=make)
        if row is None:
            return False
        old = _value(row)
        new = act(old, _rule(row), row["now"])
        if new == old:
            return False
        moved = (new.state, new.until) != (old.state, old.until)
        query(
            _STORE,
            {
                "id": row["id"],
                **{field: getattr(new, field) for field in _FIELDS},
                "reason": (reason if moved and reason else row["reason"])[:300],
                "by": actor[:150] if moved else row["changed_by"],
            },
        )
        if kind == "agent" and (new.state, new.places) != (old.state, old.places):
            _let_agent(project_id, name, new)
        if moved:
            _tell(row, old, new, reason, actor)
        after_commit(forget)
    return (new.state, new.places) != (old.state, old.places)


def _locked(project_id: int, kind: str, name: str, *, make: bool) -> Row | None:
    key = {"project": project_id, "kind": kind, "name": name}
    rows = query(_LOCK, key)
    if not rows and make:
        query(_MAKE, key)
        rows = query(_LOCK, key)
    return rows[0] if rows else None


def _value(row: Row) -> rule_of.Breaker:
    return rule_of.Breaker(**{field: row[field] for field in _FIELDS})


def _rule(row: Row) -> Rule:
    return Rule(row["threshold"], row["min_calls"], row["window_s"], row["cooldown_s"])


def _let_agent(project_id: int, name: str, new: rule_of.Breaker) -> None:
    places = None if new.state == "closed" else new.places
    agents = Agent.objects.filter(project_id=project_id, name=name)
    was_shut = agents.filter(places=0).exists()
    agents.update(places=places)
    news.publish()
    if was_shut and places != 0:
        at_work = AgentSession.objects.filter(ended_at=None, ready_at__isnull=False)
        for agent_id in at_work.filter(agent__in=agents).values_list("agent_id", flat=True):
            after_commit(partial(sessions.announce_ready, agent_id))


def _tell(row: Row, old: rule_of.Breaker, new: rule_of.Breaker, reason: str, actor: str) -> None:
    data = {"kind": row["kind"], "name": row["name"], "reason": reason}
    if new.until is not None:
        data["until"] = new.until.isoformat()
    kind = _EVENTS.get(new.state)
    if kind:
        _note(row["project_id"], kind, row["kind"], data, actor)
    write = log.warning if new.state == "open" else log.info
    after_commit(lambda: write(f"breaker.{new.state}", was=old.state, **data))


#: State -> the event that says so; a probe is no news.
_EVENTS = {"open": "breaker.opened", "closed": "breaker.closed"}


def _note(project_id: int, event: str, kind: str, data: Mapping[str, Any], actor: str) -> None:
    name = data["name"] if kind == "agent" else None
    agent = Agent.objects.filter(project_id=project_id, name=name).values_list("pk", flat=True)
    Event.objects.create(
        project_id=project_id, kind=event, agent_id=agent.first(), actor=actor, data=dict(data)
    )


_FIELDS = ("since", "state", "until", "window_at", "calls", "failures", "places", "openings")

_LOCK = """
SELECT *, clock_timestamp() AS now FROM agents_breaker
 WHERE project_id = %(project)s AND kind = %(kind)s AND name = %(name)s
   FOR NO KEY UPDATE
"""

# From the epoch on, so that the attempt which made the row counts: it began before.
_MAKE = """
INSERT INTO agents_breaker (project_id, kind, name, state, since, calls, failures, places,
                            openings, reason, changed_by, threshold, min_calls, window_s,
                            cooldown_s)
VALUES (%(project)s, %(kind)s, %(name)s, 'closed', to_timestamp(0), 0, 0, 0, 0, '', '',
        DEFAULT, DEFAULT, DEFAULT, DEFAULT)
ON CONFLICT DO NOTHING
"""

_STORE = """
UPDATE agents_breaker
   SET since = %(since)s, state = %(state)s, until = %(until)s, window_at = %(window_at)s,
       calls = %(calls)s, failures = %(failures)s, places = %(places)s, openings = %(openings)s,
       reason = %(reason)s, changed_by = %(by)s
 WHERE id = %(id)s
"""

_DUE = """
SELECT project_id, kind, name FROM agents_breaker WHERE state = 'open' AND until <= now()
"""

_NOT_CLOSED = """
SELECT id, name, state, until, reason FROM agents_breaker
 WHERE project_id = %(project)s AND kind = 'resource' AND state <> 'closed'
   AND name = ANY(%(names)s::text[])
 ORDER BY until DESC NULLS FIRST
"""

_WATCHED = """
SELECT b.project_id AS project, b.kind, b.name, s.id AS session
  FROM agents_breaker b
  LEFT JOIN agents_agent a
    ON b.kind = 'agent' AND a.project_id = b.project_id AND a.name = b.name
  LEFT JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
 WHERE b.state = 'half_open'
    OR b.state = 'closed' AND b.window_at + make_interval(secs => b.window_s) > now()
"""
