"""Which agent a queued task is addressed to: written before its hint, and taken away again.

`for_agent` with `for_until`: nobody else takes it until then. `for_agent` alone: nobody else
takes it while that agent lives (`sticky`). `for_until` alone: patience is over, anybody may.
"""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import READY

#: Queued tasks as routing needs them, locked. A row that somebody else holds is being claimed.
WISHES: LiteralString = """
SELECT t.id, t.run_id, t.project_id, t.queue, t.capability, t.requires, (t.flow->'prefers')::json AS prefers,
       t.flow->>'sticky' AS sticky, t.for_agent, t.fence
  FROM tasks_task t
 WHERE t.id = ANY(%(ids)s::uuid[]) AND t.status = 'queued'
   AND (t.for_until IS NULL OR t.for_until > now())
 ORDER BY t.run_id, t.number
   FOR NO KEY UPDATE OF t SKIP LOCKED
"""

#: Writes choices; the rows are locked.
ADDRESS: LiteralString = """
UPDATE tasks_task t
   SET for_agent = x.agent, routing = x.routing,
       for_until = clock_timestamp() + make_interval(secs => x.patience_s)
  FROM jsonb_to_recordset(%(rows)s::jsonb)
       AS x(id uuid, agent uuid, patience_s float, routing jsonb)
 WHERE t.id = x.id AND t.status = 'queued'
"""

#: Sends what waits with a sticky key after the agent that the key is bound to now: the old one may
#: be back already, in a new session. Hinted again at the next tick.
FOLLOW_KEY: LiteralString = """
WITH due AS (
  SELECT t.id, x.agent_id
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(queue text, key text, agent_id uuid)
    JOIN tasks_task t ON t.status = 'queued' AND t.for_agent <> x.agent_id
     AND t.queue = x.queue AND t.routing->>'sticky' = x.key
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET for_agent = due.agent_id, hinted_at = to_timestamp(0), hints = 0
  FROM due WHERE t.id = due.id
"""

#: Addressed tasks whose agent has gone (to be addressed anew) or let their time pass (for all):
#: a hint follows.
FORSAKEN: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t
   WHERE t.status = 'queued' AND t.for_agent IS NOT NULL
     AND (t.for_until <= now() OR NOT EXISTS (
          SELECT FROM agents_agentsession s
            JOIN agents_agent a ON a.id = s.agent_id AND a.desired = 'running'
             AND a.status NOT IN ('draining', 'unresponsive')
           WHERE s.agent_id = t.for_agent AND s.ended_at IS NULL AND s.condemned = ''))
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET for_agent = NULL, for_until = CASE WHEN t.for_until <= now() THEN t.for_until END,
       hinted_at = now(), hints = 0
  FROM due WHERE t.id = due.id
RETURNING {READY}
"""

#: What waits for one agent, which takes work now: looked at again at the next tick. Those beyond
#: `limit` have time: so many hints are not used up before they are stale.
WAITING_FOR: LiteralString = """
WITH due AS (
  SELECT id FROM tasks_task
   WHERE status = 'queued' AND for_agent = %(agent)s AND hinted_at > to_timestamp(0)
   ORDER BY run_id, number LIMIT %(limit)s
     FOR NO KEY UPDATE SKIP LOCKED)
UPDATE tasks_task t SET hinted_at = to_timestamp(0), hints = 0 FROM due WHERE t.id = due.id
RETURNING t.id
"""
