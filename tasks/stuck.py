"""Looks for what may not exist: runs and tasks that nobody works on or ever will."""

from __future__ import annotations

from opscore.database import Row, query
from opscore.logs import get_logger

log = get_logger(__name__)

#: Younger rows may be between two transactions of a healthy engine.
PATIENCE_S = 60.0

# Each row of each statement is a fault of the engine: what, and why it is one.
_CHECKS = (
    """SELECT r.id, r.project_id, 'the run is ' || r.status || ' and has no live task' AS why
          FROM tasks_run r
         WHERE r.status IN ('running', 'cancelling')
           AND r.created_at < now() - make_interval(secs => %(patience_s)s)
           AND NOT EXISTS (SELECT FROM tasks_task t
                            WHERE t.run_id = r.id AND t.status NOT IN
                            ('completed', 'failed', 'cancelled', 'skipped'))
           AND NOT EXISTS (SELECT FROM tasks_task t WHERE t.run_id = r.id
                            AND t.completed_at > now() - make_interval(secs => %(patience_s)s)) LIMIT 100""",
    """SELECT t.run_id AS id, t.project_id, t.key || ' is running in no session' AS why
         FROM tasks_task t
         LEFT JOIN agents_agentsession s ON s.id = t.session_id
        WHERE t.status = 'running'
          AND (s.id IS NULL OR s.ended_at < now() - make_interval(secs => %(patience_s)s)) LIMIT 100""",
    """SELECT t.run_id AS id, t.project_id, t.key || ' was released and is not decided' AS why
         FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id AND r.status = 'running'
        WHERE t.status = 'pending' AND t.pending = 0
          AND t.ready_at < now() - make_interval(secs => %(patience_s)s)
          AND NOT EXISTS (SELECT FROM tasks_pause p WHERE p.project_id = t.project_id) LIMIT 100""",
    """SELECT t.run_id AS id, t.project_id, t.key || ' is due and does not go on' AS why
         FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id AND r.status = 'running'
        WHERE t.status IN ('waiting', 'retrying')
          AND t.wake_at < now() - make_interval(secs => %(patience_s)s)
          AND NOT EXISTS (SELECT FROM tasks_pause p WHERE p.project_id = t.project_id) LIMIT 100""",
)

_NOTE = """
INSERT INTO opscore_event (project_id, kind, run_id, actor, data)
SELECT %(project_id)s, 'run.stuck', %(id)s, '', jsonb_build_object('message', %(why)s::text)
 WHERE NOT EXISTS (SELECT FROM opscore_event
                    WHERE run_id = %(id)s AND kind = 'run.stuck')
"""


def stuck(patience_s: float = PATIENCE_S) -> list[Row]:
    """Return what is stuck: run, project and why; there should be none."""
    return [row for check in _CHECKS for row in query(check, {"patience_s": patience_s})]


def find_stuck(patience_s: float = PATIENCE_S) -> list[Row]:
    """Return what is stuck, and log each finding and note it once."""
    found = stuck(patience_s)
    for row in found:
        log.error("run.stuck", run=str(row["id"]), why=row["why"])
        query(_NOTE, row)
    return found
