"""The pusher's side of the database: what is due for whom, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from agents import sessions
from agents.endpoints import KIND, Target
from agents.models import AgentSession
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import claims, reports
from tasks.dispatch import Ready, advance
from tasks.held import Claimed
from tasks.push_request import Answer
from tasks.transitions import repairs

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
    try:
        if answer.kind == "completed":
            reports.complete(task.id, task.fence, answer.result)
        elif answer.kind == "failed":
            reports.fail(task.id, task.fence, answer.error)
        elif answer.kind == "unsent" and target.session_id:
            # The agent never had it: neither an attempt nor a loss.
            claims.put_back([task.id], target.session_id)
        elif answer.kind == "lost":
            _lose(target, task, answer.reason)
    except ConflictError:
        log.info("push.over", task=str(task.id), agent=target.name)
        claims.let_go([task.id], task.fence)


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


def take_over(host: str, pid: int) -> None:
    """Adopt sessions that a pusher left in order; end those of one that died, with their tasks."""
    left = AgentSession.objects.filter(agent__kind=KIND, ended_at=None)
    left.filter(pid=None).update(host=host, pid=pid)
    died = left.exclude(host=host, pid=pid).values_list("id", flat=True)
    sessions.end(list(died), "the pusher before this one died")


def leave(session_ids: Collection[UUID]) -> None:
    """End sessions in order; those whose agents still work and will call back are left over."""
    ids = list(session_ids)
    rows = query(_BUSY, {"ids": ids})
    busy = {row["id"] for row in rows}
    AgentSession.objects.filter(pk__in=busy, ended_at=None).update(pid=None)
    sessions.end([key for key in ids if key not in busy], "the pusher was stopped", lost=False)


def _lose(target: Target, task: Claimed, reason: str) -> None:
    max_losses = load_config().max_losses
    params: Mapping[str, Any] = {
        "id": task.id,
        "fence": task.fence,
        "session": target.session_id,
        "agent": target.agent_id,
        "reason": reason[:500],
        "max_losses": max_losses,
    }
    rows = query(repairs.LOSE, params)
    advance([Ready.of(row) for row in rows])
    if not rows:
        message = f"its agent was lost {max_losses + 1} times; last: {reason}"
        error = {"type": "lost", "message": message[:1000]}
        reports.give_up(task.id, task.fence, error, outcome="lost")


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
