"""Sessions: one life of an agent, from start over beats to its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import F

from agents import news, transitions
from agents.models import Agent, AgentSession
from agents.queues import queue_name
from agents.signals import session_ready, sessions_ended
from agents.states import SUPERVISED
from opscore import keys
from opscore.database import after_commit, query
from opscore.errors import ConflictError

#: How long an answer of `served_slots` is used again: it is asked before every hint.
_SERVED_CACHE_S = 1.0
#: First half of the advisory lock "a session of this agent begins"; any constant does.
_LOCK_CLASS = 0x0B5D
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(%(class)s::int, hashtext(%(agent)s::text))"
_SERVED = """
SELECT q.queue, sum(least(s.slots, a.places))::int AS slots
FROM agents_agentsession s JOIN agents_agent a ON a.id = s.agent_id AND a.paused = false
     AND COALESCE(a.places, 1) > 0,
     unnest(s.queues) AS q(queue)
WHERE s.ended_at IS NULL AND s.ready_at IS NOT NULL
  AND (%(but)s::uuid IS NULL OR s.agent_id <> %(but)s::uuid)
GROUP BY q.queue"""
_served: tuple[float, Mapping[str, int]] = (float("-inf"), {})


def start(
    agent: Agent,
    *,
    host: str = "",
    pid: int | None = None,
    queues: Sequence[str] = (),
    slots: int = 1,
    max_claims: int | None = None,
) -> AgentSession:
    """Begin a new life of the agent; an older one that is still open ends by it.

    `queues` are the Celery queues that it consumes, `slots` how many of their tasks it runs at
    once; no queues means that it polls, and then gets at most `max_claims` tasks. The agent is
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
            slots=slots,
            max_claims=max_claims,
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


def beat(session_ids: Iterable[UUID], *, by_program: bool = False) -> set[UUID]:
    """Say that these sessions live; return those that have not been ended meanwhile.

    `by_program`: their programs say so themselves, with what they have.
    """
    rows = query(
        """UPDATE agents_agentsession
           SET seen_at = now(), beat_at = CASE WHEN %(by_program)s THEN now() ELSE beat_at END
           WHERE id = ANY(%(ids)s::uuid[]) AND ended_at IS NULL RETURNING id""",
        {"ids": sorted(session_ids), "by_program": by_program},
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


def sign_off(agent: Agent, session_id: UUID) -> None:
    """End a session because its executor says so; harmless when it has ended.

    Its agent is `terminated`, unless it has another life or a supervisor that will give it one.
    """
    with transaction.atomic():
        query(_ONE_AT_A_TIME, {"class": _LOCK_CLASS, "agent": str(agent.pk)})
        end([session_id], "ended by its executor", lost=False)
        if agent.kind not in SUPERVISED:
            transitions.change(without_life([agent.pk]), "terminated", reason="it signed off")


def without_life(agent_ids: Iterable[UUID]) -> list[UUID]:
    """Return those of these agents that have no open session."""
    rows = query(
        """SELECT id FROM agents_agent a WHERE id = ANY(%(ids)s::uuid[]) AND NOT EXISTS (
               SELECT 1 FROM agents_agentsession s
               WHERE s.agent_id = a.id AND s.ended_at IS NULL)""",
        {"ids": list(agent_ids)},
    )
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
    """Tell whether the session's agent must take nothing new: paused, or its breaker is open."""
    sql = """SELECT a.paused OR COALESCE(a.places, 1) = 0 AS paused
             FROM agents_agentsession s JOIN agents_agent a ON a.id = s.agent_id
             WHERE s.id = %(id)s"""
    return any(row["paused"] for row in query(sql, {"id": session_id}))


def live(session_id: UUID) -> AgentSession | None:
    """Return the session with its agent and project; None when it has ended or never was."""
    found = AgentSession.objects.select_related("agent", "project")
    return found.filter(pk=session_id, ended_at=None).first()


def bare_queues(session_id: UUID) -> list[str]:
    """Return the queues of the capabilities that the session's agent has, those without labels."""
    sql = """SELECT p.slug, a.capabilities
             FROM agents_agentsession s JOIN agents_agent a ON a.id = s.agent_id
             JOIN opscore_project p ON p.id = s.project_id WHERE s.id = %(id)s"""
    rows = query(sql, {"id": session_id})
    return [queue_name(row["slug"], word) for row in rows for word in row["capabilities"]]


def served_slots(*, max_age_s: float = _SERVED_CACHE_S) -> Mapping[str, int]:
    """Return the queues that live worker sessions consume, and how many tasks each runs at once.

    The answer may be that old. Agents that are paused, or whose circuit breaker
    is open, consume none.
    """
    global _served  # noqa: PLW0603 - one cache for the process
    asked_at, served = _served
    if time.monotonic() - asked_at < max_age_s:
        return served
    served = {row["queue"]: row["slots"] for row in query(_SERVED, {"but": None})}
    _served = (time.monotonic(), served)
    return served


def forget() -> None:
    """Empty this process's memory of queues that are served (tests change the database)."""
    global _served  # noqa: PLW0603 - one cache for the process
    _served = (float("-inf"), {})
