"""Sessions: one life of an agent, from start over beats to its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import F

from agents import news, transitions
from agents.models import Agent, AgentSession
from agents.signals import session_ready, sessions_ended
from opscore import keys
from opscore.database import after_commit, query
from opscore.errors import ConflictError

#: How long an answer of `served_queues` is used again: it is asked before every hint.
_SERVED_CACHE_S = 1.0
#: First half of the advisory lock "a session of this agent begins"; any constant does.
_LOCK_CLASS = 0x0B5D
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(%(class)s::int, hashtext(%(agent)s::text))"
_SERVED = """
SELECT DISTINCT unnest(s.queues) AS queue
FROM agents_agentsession s JOIN agents_agent a ON a.id = s.agent_id AND a.paused = false
WHERE s.ended_at IS NULL AND s.ready_at IS NOT NULL
  AND (%(but)s::uuid IS NULL OR s.agent_id <> %(but)s::uuid)"""
_served: tuple[float, frozenset[str]] = (float("-inf"), frozenset())


def start(
    agent: Agent, *, host: str = "", pid: int | None = None, queues: Sequence[str] = ()
) -> AgentSession:
    """Begin a new life of the agent; an older one that is still open ends by it.

    `queues` are the Celery queues that it consumes; none means that it polls. The agent is
    `initializing` until `ready`. Of two starts at once the later one wins.
    """
    with transaction.atomic():
        # No row lock: everybody else locks sessions before agents, and this must come first.
        query(_ONE_AT_A_TIME, {"class": _LOCK_CLASS, "agent": str(agent.pk)})
        older = AgentSession.objects.filter(agent=agent, ended_at=None)
        end(older.values_list("id", flat=True), "replaced by a newer session", lost=False)
        transitions.begin([agent.pk])
        return AgentSession.objects.create(
            project_id=agent.project_id,
            agent=agent,
            host=host,
            pid=pid,
            generation=agent.generation,
            queues=list(queues),
        )


def ready(session_id: UUID) -> bool:
    """Say that the session takes work now: its agent is `active`. False: it has ended already."""
    with transaction.atomic():
        agent_id = mark_ready(session_id)
        if agent_id is not None:
            after_commit(lambda: announce_ready(agent_id))
    return agent_id is not None


def begin_own(agent: Agent, session_id: UUID) -> None:
    """Have a program begin the session that its supervisor opened for it; harmless when it has.

    Raises ConflictError when the session is another agent's or has ended: then so has the
    program's time, and its supervisor replaces it.
    """
    if not AgentSession.objects.filter(pk=session_id, agent=agent).exists():
        raise ConflictError(f"This key is for the work of its own agent, not of {agent.name!r}.")
    if not ready(session_id):
        raise ConflictError("The session of this program has ended; its supervisor replaces it.")


def mark_ready(session_id: UUID, pid: int | None = None) -> UUID | None:
    """Do what `ready` does, without the signal; return the agent's id, None if it has ended."""
    with transaction.atomic():
        rows = query(
            """UPDATE agents_agentsession
               SET ready_at = coalesce(ready_at, now()), seen_at = now(),
                   pid = coalesce(%(pid)s::int, pid)
               WHERE id = %(id)s AND ended_at IS NULL RETURNING agent_id""",
            {"id": session_id, "pid": pid},
        )
        if not rows:
            return None
        agent_id: UUID = rows[0]["agent_id"]
        transitions.change([agent_id], "active")
    return agent_id


def announce_ready(agent_id: UUID) -> None:
    """Send `session_ready`: queued tasks may find this agent now."""
    agent = Agent.objects.select_related("project").filter(pk=agent_id).first()
    if agent is not None:
        session_ready.send(sender=Agent, agent=agent, agent_id=agent_id)


def beat(session_ids: Iterable[UUID]) -> set[UUID]:
    """Say that these sessions live; return those that have not been ended meanwhile."""
    rows = query(
        """UPDATE agents_agentsession SET seen_at = now()
           WHERE id = ANY(%(ids)s::uuid[]) AND ended_at IS NULL RETURNING id""",
        {"ids": sorted(session_ids)},
    )
    return {row["id"] for row in rows}


def end(session_ids: Iterable[UUID], reason: str, *, lost: bool = True) -> None:
    """End sessions; after commit `sessions_ended` gives back what they held.

    `lost` also writes an `agent.lost` event; pass False for an end that was asked for.
    """
    with transaction.atomic():
        ended = close(session_ids, reason, lost=lost)
        if ended:
            after_commit(lambda: announce_end(ended, reason))


def close(session_ids: Iterable[UUID], reason: str, *, lost: bool = True) -> list[UUID]:
    """Do what `end` does, without the signal; return the sessions that this call ended."""
    ids = sorted(session_ids)
    if not ids:
        return []
    with transaction.atomic():
        rows = query(
            """UPDATE agents_agentsession SET ended_at = now(), end_reason = left(%(reason)s, 200)
               WHERE id = ANY(%(ids)s::uuid[]) AND ended_at IS NULL RETURNING id, agent_id""",
            {"ids": ids, "reason": reason},
        )
        keys.drop_of_sessions([row["id"] for row in rows])
        if rows and lost:
            transitions.note([row["agent_id"] for row in rows], "agent.lost", reason=reason)
    return [row["id"] for row in rows]


def count_claims(session_id: UUID, tasks: int) -> None:
    """Add tasks to the count by which the processes of a supervisor are recycled."""
    AgentSession.objects.filter(pk=session_id).update(claims=F("claims") + tasks)


def announce_end(session_ids: list[UUID], reason: str) -> None:
    """Send `sessions_ended`. A lost announcement is made good by the reconciler."""
    sessions_ended.send(sender=AgentSession, session_ids=session_ids, reason=reason)


def condemn(session_ids: Iterable[UUID], reason: str) -> set[UUID]:
    """Have the supervisors kill these sessions' processes at once, programs they started too.

    Returns the sessions that are condemned now. It counts as a restart that was asked for, not
    as a crash; whatever task the session holds then is given back as a loss. Sessions of agents
    that no supervisor started are left alone: nobody would kill them, they would only starve.
    """
    rows = query(
        """UPDATE agents_agentsession s
           SET condemned = CASE s.condemned WHEN '' THEN left(%(reason)s, 200) ELSE s.condemned END
           FROM agents_agent a
           WHERE s.id = ANY(%(ids)s::uuid[]) AND s.ended_at IS NULL
             AND a.id = s.agent_id AND a.spec <> '' RETURNING s.id""",
        {"ids": sorted(session_ids), "reason": reason},
    )
    news.publish()
    return {row["id"] for row in rows}


def served_by_others(agent_id: UUID) -> frozenset[str]:
    """Return the queues that worker sessions of other agents consume."""
    return frozenset(row["queue"] for row in query(_SERVED, {"but": agent_id}))


def is_paused(session_id: UUID) -> bool:
    """Tell whether the session's agent must take nothing new."""
    sql = """SELECT a.paused FROM agents_agentsession s JOIN agents_agent a ON a.id = s.agent_id
             WHERE s.id = %(id)s"""
    return any(row["paused"] for row in query(sql, {"id": session_id}))


def live(session_id: UUID) -> AgentSession | None:
    """Return the session with its agent and project; None when it has ended or never was."""
    found = AgentSession.objects.select_related("agent", "project")
    return found.filter(pk=session_id, ended_at=None).first()


def served_queues(*, max_age_s: float = _SERVED_CACHE_S) -> frozenset[str]:
    """Return the queues that live worker sessions consume; the answer may be that old.

    Agents that are paused consume none.
    """
    global _served  # noqa: PLW0603 - one cache for the process
    asked_at, served = _served
    if time.monotonic() - asked_at < max_age_s:
        return served
    served = frozenset(row["queue"] for row in query(_SERVED, {"but": None}))
    _served = (time.monotonic(), served)
    return served
