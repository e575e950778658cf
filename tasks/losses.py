"""Attempts whose agent is lost under them while its session lives: given back, not tried again."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import reports
from tasks.dispatch import Ready, advance
from tasks.transitions import repairs

log = get_logger(__name__)

#: Attempts that one step takes at once.
BATCH = 500


def lose(
    task_id: UUID, fence: int, *, session_id: UUID | None, agent_id: UUID, reason: str
) -> None:
    """Give back an attempt that its agent will not report; after too many losses it fails.

    Raises ConflictError when it is over.
    """
    max_losses = load_config().max_losses
    params = {
        "id": task_id,
        "fence": fence,
        "session": session_id,
        "agent": agent_id,
        "reason": reason[:500],
        "max_losses": max_losses,
    }
    rows = query(repairs.LOSE, params)
    advance([Ready.of(row) for row in rows], again=True)
    if not rows:
        message = f"its agent was lost {max_losses + 1} times; last: {reason}"
        error = {"type": "lost", "message": message[:1000]}
        reports.give_up(task_id, fence, error, outcome="lost")


def give_back_unnamed() -> bool:
    """Give back what polling agents hold without a word, while their claims keep them alive."""
    ttl_s = load_config().session_ttl_s
    rows = query(_UNNAMED, {"ttl": ttl_s, "limit": BATCH})
    reason = f"its agent lives, but named it in no heartbeat for {ttl_s:g} s"
    for row in rows:
        log.warning("task.unnamed", task=str(row["id"]), session=str(row["session_id"]))
        try:
            lose(row.pop("id"), row.pop("fence"), reason=reason, **row)
        except ConflictError:
            continue
    return len(rows) >= BATCH


# Any heartbeat speaks for all tasks of its session: what it does not list is put back by the
# heartbeat itself (`tasks.executor_api`).
_UNNAMED: LiteralString = """
WITH at AS (SELECT now() - make_interval(secs => %(ttl)s::float) AS dead)
SELECT t.id, t.fence, s.id AS session_id, a.id AS agent_id
  FROM at, agents_agentsession s
  JOIN agents_agent a ON a.id = s.agent_id AND a.kind IN ('process', 'remote')
  JOIN tasks_task t ON t.session_id = s.id AND t.status = 'running'
 WHERE s.ended_at IS NULL AND s.queues = '{}' AND t.started_at < at.dead
   AND (s.beat_at IS NULL OR s.beat_at < at.dead)
   -- While the database was away nobody could beat: everybody gets a fresh term.
   AND pg_postmaster_start_time() < at.dead
   AND NOT EXISTS (SELECT FROM tasks_tasklog l
                    WHERE l.task_id = t.id AND l.attempt = t.attempt AND l.at >= at.dead)
   AND NOT EXISTS (SELECT FROM tasks_taskprogress p
                    WHERE p.task_id = t.id AND p.updated_at >= at.dead)
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""
