"""The pusher's side of the database: what is due for whom, and what became of it."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from agents import breakers, sessions
from agents.endpoints import KIND, Target
from agents.models import AgentSession
from opscore.database import query
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import claims, losses, reports
from tasks.held import Claimed
from tasks.models import Task
from tasks.push_request import Answer

log = get_logger(__name__)

#: Attempts by (task id, fence).
Attempts = Collection[tuple[UUID, int]]


def due() -> dict[UUID, int]:
    """Return the sessions of http agents for which something is queued, with what they run."""
    rows = query(_DUE, {"kind": KIND})
    return {row["session"]: row["running"] for row in rows}


def claim_one(target: Target) -> Claimed | None:
    """Take the most urgent task that the agent is able to do."""
    if target.session_id is None:
        return None
    claimed = claims.poll(target.session_id, 1)
    return claimed[0] if claimed else None


def record(target: Target, task: Claimed, answer: Answer) -> None:
    """Write what became of an attempt; one that is over meanwhile changes nothing."""
    if answer.blames_agent:
        # Before its place is free: a breaker that lets one through would let through a second.
        _blame(target, task, answer)
    try:
        if answer.kind == "completed":
            reports.complete(task.id, task.fence, answer.result)
        elif answer.kind == "failed":
            reports.fail(task.id, task.fence, answer.error)
        elif answer.kind == "unsent" and target.session_id:
            # The agent never had it: neither an attempt nor a loss.
            claims.put_back([task.id], target.session_id, task.fence)
        elif answer.kind == "lost":
            lose(target, task.id, task.fence, answer.reason)
    except ConflictError:
        log.info("push.over", task=str(task.id), agent=target.name)
        claims.let_go([task.id], task.fence)


def _blame(target: Target, task: Claimed, answer: Answer) -> None:
    mine = Task.objects.filter(pk=task.id, fence=task.fence, status="running")
    started_at = mine.values_list("started_at", flat=True).first()
    if started_at is not None:
        breakers.attempt_failed(
            target.project_id,
            "agent",
            target.name,
            started_at=started_at,
            reason=answer.reason or str(answer.error.get("message", "")),
        )


def over(attempts: Attempts) -> set[tuple[UUID, int]]:
    """Return those attempts that are over; the others have given a sign of life."""
    wanted = sorted(attempts)
    if not wanted:
        return set()
    ids, fences = zip(*wanted, strict=True)
    rows = query(_HELD, {"ids": list(ids), "fences": list(fences)})
    held = {(row["id"], row["fence"]) for row in rows}
    for row in rows:
        if row["beats"] and not claims.beat(row["id"], row["fence"]):
            held.discard((row["id"], row["fence"]))
    return set(wanted) - held


def take_over(host: str, pid: int) -> set[tuple[UUID, int]]:
    """Adopt sessions that a pusher left in order; end all others, with their tasks.

    Returns the attempts that the adopted ones hold: their agents will call back. Only for who
    holds the lock: nobody else is at work. That the host and pid are one's own says nothing, a
    container that starts again has both again.
    """
    open_ones = AgentSession.objects.filter(agent__kind=KIND, ended_at=None)
    died = open_ones.exclude(pid=None).values_list("id", flat=True)
    sessions.end(list(died), "the pusher before this one died")
    left = list(open_ones.filter(pid=None).values_list("id", flat=True))
    AgentSession.objects.filter(pk__in=left).update(host=host, pid=pid)
    return set(held_by(left))


def held_by(session_ids: Collection[UUID]) -> dict[tuple[UUID, int], UUID]:
    """Return the attempts that these sessions hold, each with its session."""
    held = Task.objects.filter(session_id__in=list(session_ids), status="running")
    rows = held.values_list("id", "fence", "session_id")
    return {(task_id, fence): session_id for task_id, fence, session_id in rows if session_id}


def leave(session_ids: Collection[UUID]) -> None:
    """End sessions in order; those whose agents still work and will call back are left over."""
    ids = list(session_ids)
    rows = query(_BUSY, {"ids": ids})
    busy = {row["id"] for row in rows}
    AgentSession.objects.filter(pk__in=busy, ended_at=None).update(pid=None)
    sessions.end([key for key in ids if key not in busy], "the pusher was stopped", lost=False)


def lose(target: Target, task_id: UUID, fence: int, reason: str) -> None:
    """Give back an attempt that its agent will not report. Raises ConflictError."""
    losses.lose(
        task_id, fence, session_id=target.session_id, agent_id=target.agent_id, reason=reason
    )


_DUE = """
SELECT s.id AS session,
       (SELECT count(*) FROM tasks_task h WHERE h.session_id = s.id AND h.status = 'running')
         AS running
  FROM agents_agent a
  JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
 WHERE a.kind = %(kind)s AND a.desired = 'running'
   AND EXISTS (SELECT FROM tasks_task t
                WHERE t.project_id = a.project_id AND t.status = 'queued'
                  AND t.capability = ANY(a.capabilities) AND t.requires <@ a.labels)
"""

_HELD = """
SELECT t.id, t.fence, t.heartbeat_s IS NOT NULL AS beats
  FROM unnest(%(ids)s::uuid[], %(fences)s::int[]) AS x(id, fence)
  JOIN tasks_task t ON t.id = x.id AND t.fence = x.fence AND t.status = 'running'
"""

_BUSY = """
SELECT DISTINCT session_id AS id FROM tasks_task
 WHERE session_id = ANY(%(ids)s::uuid[]) AND status = 'running'
"""
