"""Tasks whose resource is behind a circuit breaker: parked, and let go again."""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import RUNNABLE, SHUT_OFF

#: Parks what was queued before a breaker opened: no attempt, no loss, no slot. What waits so
#: has no `wake_at`; whoever lets it go sets one.
PARK: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t
   WHERE t.status = 'queued' AND {SHUT_OFF}
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET status = 'waiting', waits_for = 'breaker', fence = t.fence + 1, session_id = NULL,
       started_at = NULL, wake_at = NULL, hinted_at = NULL, hints = 0,
       for_agent = NULL, for_until = NULL
  FROM due WHERE t.id = due.id
RETURNING t.id, t.project_id, t.limit_key
"""

#: One at a time may count what a breaker has let through.
LOCK_BREAKER: LiteralString = """
SELECT id FROM agents_breaker WHERE id = %(id)s AND state = 'half_open' FOR NO KEY UPDATE
"""

# What a breaker `b` has let through. One that no agent took within `patience_s` does not keep its
# place; nor does an attempt that began before the breaker opened.
_BUSY: LiteralString = """
  SELECT count(*) AS n FROM tasks_task t JOIN b ON b.project_id = t.project_id
   WHERE t.flow ? 'resources' AND t.flow->'resources' ? b.name
     AND t.status IN ('queued', 'running')
     AND CASE t.status WHEN 'running' THEN t.started_at >= b.since
              ELSE t.ready_at > now() - make_interval(secs => %(patience_s)s) END
"""

#: Whether a half-open breaker (its row is locked) has a place for one more.
HAS_PLACE: LiteralString = f"""
WITH b AS (SELECT * FROM agents_breaker WHERE id = %(id)s AND state = 'half_open'),
busy AS ({_BUSY})
SELECT b.id FROM b, busy WHERE busy.n < b.places
"""

#: Lets as many tasks go as a half-open breaker has free places, most urgent first.
LET_THROUGH: LiteralString = f"""
WITH b AS (SELECT * FROM agents_breaker WHERE id = %(id)s),
busy AS ({_BUSY}),
going AS (
  SELECT count(*) AS n FROM tasks_task t JOIN b ON b.project_id = t.project_id
   WHERE t.status = 'waiting' AND t.waits_for = 'breaker' AND t.wake_at IS NOT NULL
     AND t.flow->'resources' ? b.name
     AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE})),
pick AS (
  SELECT t.id
    FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id JOIN b ON b.project_id = t.project_id
   WHERE t.status = 'waiting' AND t.waits_for = 'breaker' AND t.wake_at IS NULL
     AND t.flow->'resources' ? b.name AND {RUNNABLE} AND NOT {SHUT_OFF}
   ORDER BY t.priority DESC, t.ready_at, t.id
   LIMIT (SELECT greatest(b.places - busy.n - going.n, 0) FROM b, busy, going)
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET wake_at = now() FROM pick WHERE t.id = pick.id
RETURNING t.id
"""

# Of a task `t`: nobody has let it go yet.
_PARKED: LiteralString = """
       t.status = 'waiting' AND t.waits_for = 'breaker' AND t.wake_at IS NULL
"""

#: Lets those go whose breakers are all closed; those of a paused run when it goes on. A step for
#: each list of resources, however many tasks wait behind one that is open.
RELEASE: LiteralString = f"""
WITH RECURSIVE lists AS (
  (SELECT t.project_id, t.flow->'resources' AS resources FROM tasks_task t
    WHERE {_PARKED} ORDER BY 1, 2 LIMIT 1)
   UNION ALL
  SELECT n.* FROM lists l, LATERAL (
    SELECT t.project_id, t.flow->'resources' AS resources FROM tasks_task t
     WHERE {_PARKED} AND (t.project_id, t.flow->'resources') > (l.project_id, l.resources)
     ORDER BY 1, 2 LIMIT 1) n),
free AS MATERIALIZED (
  SELECT * FROM lists l
   WHERE NOT EXISTS (SELECT FROM agents_breaker b
                      WHERE b.project_id = l.project_id AND b.kind = 'resource'
                        AND b.state <> 'closed' AND l.resources ? b.name)),
first AS (
  SELECT f.id FROM free, LATERAL (
    SELECT t.id FROM tasks_task t
     WHERE {_PARKED} AND t.project_id = free.project_id AND t.flow->'resources' = free.resources
       AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE} OFFSET 0)
     ORDER BY t.run_id, t.number LIMIT %(limit)s) f),
due AS (
  SELECT t.id FROM tasks_task t
   WHERE t.id = ANY(ARRAY(SELECT id FROM first)) AND {_PARKED}
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET wake_at = now() FROM due WHERE t.id = due.id
RETURNING t.id
"""
