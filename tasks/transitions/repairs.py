"""What the reconciler does to tasks that nobody moves: given back, woken, hinted again, failed."""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import HOME, REACH, READY, RUNNABLE

#: Gives back what ended sessions held: a loss, not an attempt. Rows that lost their agent
#: `max_losses` times stay as they are and come back in `poison`, for FAIL.
GIVE_BACK: LiteralString = f"""
WITH RECURSIVE lost AS (
  SELECT t.id, t.run_id, t.number, t.successors
    FROM tasks_task t
    JOIN agents_agentsession s ON s.id = t.session_id AND s.ended_at IS NOT NULL
   WHERE t.status = 'running'
     AND (%(sessions)s::uuid[] IS NULL OR t.session_id = ANY(%(sessions)s))
   ORDER BY t.run_id, t.number LIMIT 500),
down(run_id, number, depth) AS (
  SELECT run_id, unnest(successors), 1 FROM lost
   UNION
  SELECT t.run_id, unnest(t.successors), d.depth + 1
    FROM down d JOIN tasks_task t ON t.run_id = d.run_id AND t.number = d.number
   WHERE d.depth < {REACH}),
held AS MATERIALIZED (
  SELECT t.id, t.session_id, t.status, t.fence, t.losses
    FROM tasks_task t
    JOIN (SELECT run_id, number, true AS lost FROM lost
           UNION SELECT run_id, number, false FROM down) w
      ON w.run_id = t.run_id AND w.number = t.number
   WHERE w.lost OR t.in_degree > 1
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t),
back AS (
  UPDATE tasks_task t
     SET status = 'queued', losses = t.losses + 1, fence = t.fence + 1, session_id = NULL,
         lease_until = NULL, ready_at = clock_timestamp(), hinted_at = now(), hints = 0
    FROM held h JOIN agents_agentsession s ON s.id = h.session_id AND s.ended_at IS NOT NULL
   WHERE t.id = h.id AND t.status = 'running' AND t.session_id = h.session_id
     AND t.losses < %(max_losses)s
  RETURNING {READY}, t.key, t.losses, t.fence, t.started_at, h.session_id, s.agent_id,
            s.end_reason),
uncarried AS (
  UPDATE tasks_task t SET uncarried = true
    FROM held h
   WHERE t.id = h.id AND t.status = 'pending' AND EXISTS (SELECT FROM lost)),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'lost', session_id,
         jsonb_build_object('type', 'lost', 'message', end_reason), started_at FROM back),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, task_id, agent_id, actor, data)
  SELECT project_id, 'task.lost', run_id, id, agent_id, '',
         jsonb_build_object('message', end_reason, 'losses', losses) FROM back)
SELECT (SELECT COALESCE(json_agg(back), '[]') FROM back) AS ready,
       (SELECT COALESCE(json_agg(json_build_array(h.id, h.fence)), '[]')
          FROM held h JOIN agents_agentsession s
            ON s.id = h.session_id AND s.ended_at IS NOT NULL
         WHERE h.status = 'running' AND h.losses >= %(max_losses)s) AS poison
"""

#: Puts back one task that its session claimed without learning of it: neither attempt nor loss.
#: `fence`: that attempt only; NULL: whichever the session holds.
UNCLAIM: LiteralString = f"""
UPDATE tasks_task t
   SET status = 'queued', fence = t.fence + 1, session_id = NULL, lease_until = NULL,
       hinted_at = now()
 WHERE t.id = %(id)s AND t.session_id = %(session)s AND t.status = 'running'
   AND (%(fence)s::int IS NULL OR t.fence = %(fence)s)
RETURNING {READY}
"""

#: Gives back one attempt whose agent was lost under it: a loss, not an attempt. No row: its fence
#: is old, or it was lost too often already.
LOSE: LiteralString = f"""
WITH back AS (
  UPDATE tasks_task t
     SET status = 'queued', losses = t.losses + 1, fence = t.fence + 1, session_id = NULL,
         lease_until = NULL, ready_at = clock_timestamp(), hinted_at = now(), hints = 0
   WHERE t.id = %(id)s AND t.fence = %(fence)s AND t.status = 'running'
     AND t.losses < %(max_losses)s
  RETURNING {READY}, t.losses, t.fence, t.started_at),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'lost', %(session)s,
         jsonb_build_object('type', 'lost', 'message', %(reason)s::text), started_at FROM back),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, task_id, agent_id, actor, data)
  SELECT project_id, 'task.lost', run_id, id, %(agent)s, '',
         jsonb_build_object('message', %(reason)s::text, 'losses', losses) FROM back)
SELECT * FROM back
"""

#: Retries whose backoff is over. SKIP LOCKED: any number of reconcilers at once.
WAKE: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.status = 'retrying' AND t.direct AND t.wake_at <= now() AND {RUNNABLE}
     AND (%(id)s::uuid IS NULL OR t.id = %(id)s)
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET status = 'queued', wake_at = NULL, ready_at = clock_timestamp(), hinted_at = now(),
       hints = 0
  FROM due WHERE t.id = due.id
RETURNING {READY}
"""

#: Waits that are over and retries that must pass their limits again; `tasks.deciding` does them.
DUE: LiteralString = f"""
SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.status IN ('waiting', 'retrying') AND t.wake_at <= now()
   AND NOT (t.status = 'retrying' AND t.direct) AND {RUNNABLE}
 ORDER BY t.wake_at LIMIT %(limit)s
"""

#: The outbox: queued, and nobody came for stale x 2^hints seconds (at most ten minutes).
#: Without the doubling a backlog longer than `stale_s` would double the broker's queue. Queues
#: that are `held` still have all their messages: looked at again later, but not sent.
REHINT: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.status = 'queued' AND {RUNNABLE}
     AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s)
     AND (%(project)s::int IS NULL OR t.project_id = %(project)s)
     AND t.hinted_at < now() - make_interval(
           secs => least(%(stale_s)s * power(2, least(t.hints, 7)), 600))
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET hinted_at = now(),
       hints = CASE WHEN {HOME} = ANY(%(held)s::text[]) THEN greatest(t.hints, least(t.hints + 1, 3))
                    ELSE least(t.hints + 1, 100) END
  FROM due WHERE t.id = due.id
RETURNING {READY}, {HOME} = ANY(%(held)s::text[]) AS held
"""

#: Queues in which a hint is due again, with all that was hinted in them.
STALE_QUEUES: LiteralString = f"""
SELECT {HOME} AS queue, count(*) AS tasks FROM tasks_task t
 WHERE t.status = 'queued' AND t.hinted_at IS NOT NULL AND {HOME} IN (
       SELECT {HOME} FROM tasks_task t
        WHERE t.status = 'queued' AND t.hinted_at < now() - make_interval(secs => %(stale_s)s))
 GROUP BY 1
"""

#: An agent for these queues appeared, a pause ended, or the broker lost its memory: hint again
#: at the next tick.
FORGET_HINTS: LiteralString = """
WITH stale AS (
  SELECT t.id FROM tasks_task t
   WHERE t.status = 'queued' AND (%(queues)s::text[] IS NULL OR t.queue = ANY(%(queues)s))
     AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s)
     AND (%(project)s::int IS NULL OR t.project_id = %(project)s)
     AND t.hinted_at > to_timestamp(0)
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE SKIP LOCKED)
UPDATE tasks_task t SET hinted_at = to_timestamp(0), hints = 0 FROM stale WHERE t.id = stale.id
"""

#: A pause has ended, or a run has got its place: the time that tasks may be queued begins now.
QUEUE_ANEW: LiteralString = """
WITH held AS (
  SELECT t.id FROM tasks_task t
   WHERE t.status = 'queued' AND t.queue_timeout_s IS NOT NULL
     AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s)
     AND (%(project)s::int IS NULL OR t.project_id = %(project)s)
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE)
UPDATE tasks_task t SET ready_at = clock_timestamp() FROM held WHERE t.id = held.id
"""

#: Tasks past their deadline: running too long, silent, or waiting too long.
OVERDUE: LiteralString = """
SELECT t.id, t.fence, t.timeout_s, t.heartbeat_s, t.session_id,
       CASE WHEN t.waits_for = 'run' THEN (t.names->>'run')::uuid END AS body,
       COALESCE(t.started_at + make_interval(secs => t.timeout_s) <= now(), false) AS ran_out
  FROM tasks_task t
 WHERE (t.status = 'running' AND t.lease_until < now())
    OR (t.status = 'waiting' AND t.lease_until < now())
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Tasks that no agent took in time.
QUEUED_TOO_LONG: LiteralString = f"""
SELECT t.id, t.fence, t.queue_timeout_s FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.status = 'queued' AND t.queue_timeout_s IS NOT NULL AND {RUNNABLE}
   AND t.ready_at < now() - make_interval(secs => t.queue_timeout_s)
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Takes a queued task back, to fail it: it is held by the platform until then.
TAKE_BACK: LiteralString = """
UPDATE tasks_task
   SET status = 'waiting', waits_for = 'failure', fence = fence + 1, hinted_at = NULL,
       for_agent = NULL, for_until = NULL
 WHERE id = %(id)s AND status = 'queued' AND fence = %(fence)s
RETURNING fence
"""

#: Cancelled while they ran, and their agents did not let go in time.
NOT_LET_GO: LiteralString = """
SELECT t.id, t.session_id FROM tasks_task t
 WHERE t.status = 'cancelled' AND t.lease_until < now() LIMIT %(limit)s
"""

#: The agent of a cancelled task has stopped working on it, or was stopped.
LET_GO: LiteralString = """
UPDATE tasks_task SET lease_until = NULL
 WHERE id = ANY(%(ids)s::uuid[]) AND status = 'cancelled' AND lease_until IS NOT NULL
   AND (%(fence)s::int IS NULL OR fence = %(fence)s + 1)
RETURNING project_id, limit_key
"""
